"""Names one folder deeper, folders that hold scenes, and what is said about everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from render.errors import UserError
from render.scenes.load import is_scene, load_scene
from render.scenes.lookup import find_scene, scene_names
from tests.scenes.synthetic import MakeScene


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only data root there is."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("KBUFFERS_DATA", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def photographs(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / f"{i}.jpg")
    return folder


def error_of(source: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_scene(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_is_found_one_folder_deeper(make_scene: MakeScene, root: Path) -> None:
    deep = make_scene({"train": 2}, size=4, name="root/colmap/plush").path
    assert load_scene("plush", needs_points=False).path == deep
    assert load_scene("colmap/plush", needs_points=False).path == deep
    shallow = make_scene({"train": 2}, size=4, name="root/plush").path
    assert load_scene("plush", needs_points=False).path == shallow
    make_scene({"train": 2}, size=4, name="root/nerf_synthetic/chair")
    assert set(scene_names((), is_scene)) >= {"plush", "chair"}


def test_a_folder_with_one_scene_is_that_scene(make_scene: MakeScene, root: Path) -> None:
    only = make_scene({"train": 2}, size=4, name="root/download/inner").path
    for outer in ("download", str(root / "download"), str(root)):
        scene = load_scene(outer, needs_points=False)
        assert scene.path == only
    assert f"the only scene in {root}" in scene.notes[0]


def test_a_folder_with_several_scenes_lists_them(make_scene: MakeScene, root: Path) -> None:
    for name in ("a", "b", "deep/c"):
        make_scene({"train": 2}, size=4, name=f"root/set/{name}")
    text = error_of(root / "set")
    assert "a folder with several" in text
    assert all(str(root / "set" / name) in text for name in ("a", "b", "deep/c"))


def test_photographs_without_poses(root: Path) -> None:
    folder = photographs(root / "holiday")
    for path in (folder, photographs(root / "shoot" / "images").parent):
        text = error_of(path)
        assert "4 photographs without camera poses" in text
        assert "colmap automatic_reconstructor --image_path" in text
    (root / "few").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "few" / "0.png")
    (root / "few" / "notes.md").write_text("")
    (root / "few" / "more.md").write_text("")
    assert "a folder with 0.png, more.md, notes.md" in error_of(root / "few")


@pytest.mark.parametrize(
    ("name", "content"),
    [("film.MOV", b""), ("film", b"\x1aE\xdf\xa3" + bytes(100)), ("clip.mp4", b"\0" * 50)],
)
def test_a_video(root: Path, name: str, content: bytes) -> None:
    (root / name).write_bytes(content)
    text = error_of(root / name)
    assert "found a video" in text and "ffmpeg -i" in text and "colmap automatic_rec" in text


def test_cameras_without_photographs(root: Path) -> None:
    (root / "scan1").mkdir()
    np.savez(root / "scan1" / "cameras_sphere.npz", world_mat_0=np.eye(4))
    assert "need their photographs beside them, in a folder image/" in error_of(root / "scan1")


def test_a_file_of_another_kind_is_named(root: Path) -> None:
    (root / "paper.pdf").write_bytes(b"%PDF-1.7\n")
    assert "found a PDF document" in error_of(root / "paper.pdf")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/x", "zero\0byte"])
def test_impossible_paths(root: Path, name: str) -> None:
    text = error_of(name)
    assert len(text) < 1000


def test_links_in_circles(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "b").symlink_to(root / "a", target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    assert "this is no scene" in error_of(root / "a")
    with pytest.raises(UserError, match="it is a link to"):
        find_scene(root / "loop", (), is_scene)
