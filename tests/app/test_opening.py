"""Dropped files are told apart by content; what cannot be opened gets one helpful sentence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.opening import MAX_JSON, MAX_TEXT, Found, plan, recognise
from render.camera import Camera
from render.errors import UserError
from render.export.camera_path import CameraPath, save_camera_path
from render.scenes.clouds.pointcloud import read_point_cloud, write_ply
from render.scenes.lookup import BUNDLED
from render.scenes.types import PointCloud
from render.training.checkpoint import save_checkpoint

XYZ = torch.arange(36, dtype=torch.float32).reshape(12, 3)
LEGO = BUNDLED / "lego"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        recognise(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and text.endswith(".")
    return text


def make_ply(path: Path) -> Path:
    write_ply(path, PointCloud(XYZ))
    return path


def make_run(folder: Path, steps: int = 7) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"options": {}, "scene": {"name": "x"}}))
    save_checkpoint(folder / "checkpoints", {"step": steps, "weights": torch.ones(3)})
    return folder


def make_path(path: Path) -> Path:
    camera = Camera.look_at((3, 0, 1), (0, 0, 0), width=8, height=8)
    save_camera_path(path, CameraPath([camera] * 5))
    return path


# ------------------------------------------------------------------ point clouds
def write_npz(path: Path) -> None:
    with path.open("wb") as file:  # np.savez would append a suffix
        np.savez(file, xyz=XYZ.numpy(), rgb=np.zeros((12, 3), np.uint8))


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, XYZ.numpy())


def write_rows(path: Path) -> None:
    path.write_text("# made by a scanner\n" + "".join(f"{x:g},{y:g},{z:g}\n" for x, y, z in XYZ))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (make_ply, "PLY with 12 points"),
        (write_npz, "NumPy archive with xyz, rgb"),
        (write_npy, "NumPy array with 12 points"),
        (write_rows, "text with 12 rows"),
    ],
)
@pytest.mark.parametrize("name", ["cloud", "cloud.dat", "photo.jpg", "a.pt", "b é.json", "c.ply"])
def test_clouds_have_any_name(
    tmp_path: Path, write: Callable[[Path], object], words: str, name: str
) -> None:
    path = tmp_path / name
    write(path)
    assert recognise(path) == Found(path, "cloud", f"point cloud, {words}")
    np.testing.assert_array_equal(read_point_cloud(path).xyz, XYZ)


def test_long_texts_are_estimated_and_huge_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.xyz"
    path.write_text("1.00 2.00 3.00\n" * 20_000)
    assert recognise(path).what == "point cloud, text with about 20,000 rows"
    with path.open("r+b") as file:
        file.truncate(MAX_TEXT + 1)  # a sparse file: takes no room
    assert "256 MB" in refused(path) and "PLY" in refused(path)


def test_gaussians_and_meshes(tmp_path: Path) -> None:
    path = tmp_path / "splat"
    rows = "".join(f"property float {n}\n" for n in ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2"))
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex 1\n{rows}end_header\n1 2 3 0 0 0\n")
    assert recognise(path).what == "point cloud, PLY with 1 Gaussians"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ply\nformat ascii 1.0\nelement vertex 3\nproperty", "end_header"),
        (b"ply\nnonsense\nend_header\n", "not understood"),
        (b"ply\nformat ascii 1.0\nelement face 3\nend_header\n", "vertex"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\n"
            b"property float y\nproperty float z\nend_header\n0123456789ab",
            "announces 9 rows",
        ),
        (
            b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
            b"property float z\nend_header\n",
            "zero points",
        ),
    ],
)
def test_broken_ply(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.ply"
    path.write_bytes(content)
    assert words in refused(path)


def test_arrays_that_are_no_points(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 7)))
    assert "[4, 7]" in refused(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "without pickle" in refused(path)
    np.savez(tmp_path / "cameras.npz", world_mat_0=np.eye(4), scale_mat_0=np.eye(4))
    assert "world_mat_0" in refused(tmp_path / "cameras.npz")


# ------------------------------------------------------------------ scenes, runs, paths
def test_scene_folder_and_its_files() -> None:
    assert recognise(LEGO) == Found(LEGO, "scene", "scene, 60 photographs")
    json_file = LEGO / "transforms_train.json"
    assert recognise(json_file) == Found(json_file, "scene", "scene, 60 photographs")
    assert recognise(LEGO / "points.ply").kind == "cloud"


def test_runs_and_checkpoints(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    expected = Found(run, "run", "run, step 7")
    for path in (run, run / "checkpoints", run / "config.json"):
        assert recognise(path) == expected
    checkpoint = run / "checkpoints" / "step_0000007.pt"
    assert recognise(checkpoint) == Found(checkpoint, "checkpoint", "checkpoint, step 7")
    renamed = Path(shutil.copy(checkpoint, run / "checkpoints" / "best one.bin"))
    assert recognise(renamed).what == "checkpoint, called best one.bin"


def test_checkpoints_that_cannot_go_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    checkpoint = run / "checkpoints" / "step_0000007.pt"
    assert "alone" in refused(Path(shutil.copy(checkpoint, tmp_path / "alone.pt")))
    torn = run / "checkpoints" / "step_0000008.pt"
    torn.write_bytes(checkpoint.read_bytes()[:600])
    assert "cut off" in refused(torn) and "step_0000007.pt" in refused(torn)
    torch.save({"step": 3}, tmp_path / "other.pt")
    assert "of another" in refused(tmp_path / "other.pt")
    for file in (run / "checkpoints").glob("step_*"):
        file.unlink()
    assert "saved none" in refused(run) and "saved none" in refused(run / "config.json")


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Trap()))
    assert "pickle" in refused(tmp_path / "plain.pkl")
    torch.save({"format": "kbuffers-checkpoint", "trap": Trap()}, tmp_path / "trap.pt")
    assert "alone" in refused(tmp_path / "trap.pt")
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    assert "without pickle" in refused(tmp_path / "trap.npy")
    assert not (tmp_path / "executed").exists()


def test_camera_paths(tmp_path: Path) -> None:
    ours = make_path(tmp_path / "flight.txt")
    assert recognise(ours) == Found(ours, "camera_path", "camera path, 5 cameras")
    theirs = tmp_path / "camera_path.json"
    theirs.write_text(json.dumps({"keyframes": [], "camera_path": [{}], "fps": 24}))
    assert recognise(theirs).what == "camera path, 1 cameras"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"frames": [', "line 1"),
        ('{"frames": []}', "an empty list"),
        ('{"name": 1, "scripts": 2}', '"name", "scripts"'),
        ("{}", "nothing"),
        ("[1, 2]", "a list"),
        ("[" * 5000, "JSON"),
        ('{"options": {}}', '"options"'),
    ],
)
def test_json_that_is_something_else(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    assert words in refused(path)


def test_huge_json(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    path.write_text('{"frames": [\n')
    with path.open("r+b") as file:
        file.truncate(MAX_JSON + 1)
    # The zeros of the sparse file make it binary; blanks would be JSON.
    assert "binary" in refused(path)
    path.write_text('{"frames": [' + " " * MAX_JSON)
    assert "64 MB" in refused(path)


# ------------------------------------------------------------------ folders
def test_a_folder_stands_for_the_only_thing_in_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "README.md").write_text("Points of a bridge.\n")
    cloud = make_ply(tmp_path / "points.dat")
    assert recognise(tmp_path).path == cloud
    with pytest.raises(UserError):
        recognise(tmp_path, look_inside=False)
    make_run(tmp_path / "run")
    text = refused(tmp_path)
    assert "found 2: run, points.dat" in text and "open one of them" in text


def test_folders_with_nothing(tmp_path: Path) -> None:
    assert "an empty folder" in refused(tmp_path)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    make_ply(deep / "c.ply")  # two levels below: not searched for
    assert "a folder with a" in refused(tmp_path)


# ------------------------------------------------------------------ what is nothing
def random_bytes() -> bytes:
    return np.random.default_rng(0).bytes(4000)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.ply", b"", "an empty file"),
        ("noise.ply", random_bytes(), "binary data"),
        ("film.mp4", b"\0\0\0\x18ftypmp42" + bytes(99), "video"),
        ("film.mkv", b"\x1aE\xdf\xa3" + bytes(99), "video"),
        ("notes.xyz", b"Dear diary,\ntoday I scanned a bridge.\n", '"Dear diary, today'),
        ("blank.txt", b" \n\n \n", "blanks"),
        ("zeros.npy", bytes(1000), "binary data"),
        ("wide.txt", "1 2 3\n".encode("utf-16"), "UTF-16"),
        ("room.blend", b"BLENDER" + bytes(400), "Blender"),
        ("doc.zip", b"PK\x03\x04" + bytes(26) + b"word/doc.xml", "unpack"),
        ("short.zip", b"PK\x03\x04", "zip"),
        ("two.txt", b"1 2\n3 4\n", "no list of points"),
    ],
)
def test_files_that_cannot_be_opened(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    text = refused(path)
    way = "COLMAP" if words == "video" else "expected a scene (a folder"
    assert words in text and way in text


def test_photographs_point_to_their_scene(tmp_path: Path) -> None:
    for name, form in (("a.jpg", "JPEG"), ("b.PNG", "PNG"), ("c", "WebP"), ("d.tif", "TIFF")):
        Image.new("RGB", (4, 4)).save(tmp_path / name, form)
        text = refused(tmp_path / name)
        assert f"a {form} picture" in text and "transforms.json" in text


def test_what_is_not_there_or_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ply(tmp_path / "bridge.ply")
    assert "there is no such file" in refused(tmp_path / "brigde.ply")
    assert "beside it there is bridge.ply" in refused(tmp_path / "brigde.ply")
    with pytest.raises(UserError, match=r"cannot be looked at|no such file"):
        recognise(Path("zero\0byte"))

    def forbidden(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)  # tests may run as root, who may read anything
    assert "cannot be read (Permission denied)" in refused(tmp_path / "bridge.ply")
    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert "cannot be looked at (Permission denied)" in refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are files of POSIX")
def test_pipes_and_links(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe" in refused(tmp_path / "pipe")  # and does not wait for it
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "loop" in refused(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone.ply")
    assert "it is a link to" in refused(tmp_path / "dangling")


def test_any_damage_is_a_sentence(tmp_path: Path) -> None:
    """Files of every kind with bytes replaced, cut at any place: a UserError or nothing."""
    run = make_run(tmp_path / "run")
    make_ply(tmp_path / "a")
    write_npy(tmp_path / "b")
    write_npz(tmp_path / "c")
    write_rows(tmp_path / "d")
    originals = [path.read_bytes() for path in (tmp_path / name for name in "abcd")]
    originals.append((run / "checkpoints" / "step_0000007.pt").read_bytes())
    originals.append(make_path(tmp_path / "e").read_bytes())
    rng = np.random.default_rng(5)
    target = run / "checkpoints" / "step_0000009.pt"
    refusals = 0
    for original in originals:
        for _ in range(40):
            data = bytearray(original[: rng.integers(1, len(original) + 1)])
            for position in rng.integers(0, min(len(data), 300), 4):
                data[position] = rng.integers(256)
            target.write_bytes(data)
            try:
                assert recognise(target).path in (target, run)
            except UserError as error:
                refusals += 1
                assert str(target) in str(error)
    assert refusals > 100


# ------------------------------------------------------------------ several at once
def test_several_at_once(tmp_path: Path) -> None:
    cloud, other = make_ply(tmp_path / "one.ply"), make_ply(tmp_path / "two.ply")
    run, flight = make_run(tmp_path / "run"), make_path(tmp_path / "flight.json")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff\xe0")
    found = plan([photo, cloud, LEGO, run, flight, other, cloud, run / "config.json", LEGO])
    assert found.scene is not None and found.scene.path == LEGO
    assert found.cloud is not None and found.cloud.path == cloud
    assert found.run is not None and found.run.path == run
    assert found.camera_path is not None and found.camera_path.path == flight
    assert len(found.unused) == 2
    assert "JPEG" in found.unused[0]
    assert found.unused[1] == (
        f"{other}: not opened: one point cloud at a time, and one.ply came first."
    )


def test_bad_files_alone_and_no_files(tmp_path: Path) -> None:
    assert plan([]) == plan([tmp_path / "x"][:0])
    nothing = plan([tmp_path / "missing"])
    assert nothing.scene is nothing.cloud is nothing.run is nothing.camera_path is None
    assert len(nothing.unused) == 1 and "no such file" in nothing.unused[0]


def test_a_run_and_its_checkpoint_are_one_role(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    checkpoint = run / "checkpoints" / "step_0000007.pt"
    found = plan([checkpoint, run])
    assert found.run is not None and found.run.kind == "checkpoint"
    assert len(found.unused) == 1 and "one run at a time" in found.unused[0]
