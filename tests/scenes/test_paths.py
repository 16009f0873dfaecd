"""Files that a scene names: found leniently, never outside, never twice by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from render.errors import UserError
from render.scenes.formats.paths import ImageFinder, find_file


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with three images, one more beside it and one far away."""
    for name in (
        "up/scene/images/0001.JPG",
        "up/scene/images/Zürich 2.png",
        "up/scene/r_0.png",
        "up/rgb/0007.png",
        "up/secret.txt",
        "far/0009.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "up" / "scene"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images/0001.JPG", "images/0001.JPG"),
        ("images/0001.jpg", "images/0001.JPG"),
        ("Images/0001.png", "images/0001.JPG"),
        ("images\\0001.JPG", "images/0001.JPG"),
        ("images/0001", "images/0001.JPG"),
        ("C:\\Users\\me\\scene\\images\\0001.JPG", "images/0001.JPG"),
        ("D:/captures/r_0.png", "r_0.png"),
        ("\\\\server\\share\\images\\0001.JPG", "images/0001.JPG"),
        ("/home/me/scene/images/0001.JPG", "images/0001.JPG"),
        ("images/Zu\u0308rich 2.png", "images/Zürich 2.png"),
        ("./r_0", "r_0.png"),
        ("../rgb/0007.png", "../rgb/0007.png"),
        ("../rgb/0007", "../rgb/0007.png"),
        ("images/0002.png", None),
        ("images", None),
        ("", None),
        ("nul\0byte.png", None),
        ("a" * 5000 + ".png", None),
    ],
)
def test_names(scene: Path, name: str, found: str | None) -> None:
    assert find_file(scene, name) == (None if found is None else scene / found)


@pytest.mark.parametrize("name", ["../secret.txt", "../../far/0009.png", "{far}", "../secret"])
def test_nothing_outside_of_the_scene(scene: Path, name: str, tmp_path: Path) -> None:
    name = name.format(far=tmp_path / "far" / "0009.png")
    if name == "../secret":  # not even by guessing the suffix
        assert find_file(scene, name) is None
        return
    with pytest.raises(UserError, match="outside of the scene; expected a file"):
        find_file(scene, name)


def test_an_absolute_path_into_the_scene_is_fine(scene: Path) -> None:
    assert find_file(scene, str(scene / "r_0.png")) == scene / "r_0.png"


def test_links_count_where_they_lie(scene: Path, tmp_path: Path) -> None:
    (scene / "linked").symlink_to(tmp_path / "far")
    assert find_file(scene, "linked/0009.png") == scene / "linked" / "0009.png"
    (scene / "loop.png").symlink_to(scene / "loop.png")
    assert find_file(scene, "loop.png") is None


def test_what_was_bent_is_told_once_and_with_a_count(scene: Path) -> None:
    finder = ImageFinder(scene, scene / "transforms.json")
    for name in ("images/0001.JPG", "./r_0", "../rgb/0007.png"):
        finder.find(name)
    assert finder.note() is None
    for name in ("images/0001.JPG", "images/Zu\u0308rich 2.png", "images/Zu\u0308rich 2.png"):
        finder.find(name)
    assert finder.note() == (
        "transforms.json: 1 file found under another name than given (first: images/Zürich 2.png "
        "for images/Zu\u0308rich 2.png)."
    )


def test_one_file_is_not_found_for_two_names(scene: Path) -> None:
    finder = ImageFinder(scene, scene / "transforms.json")
    assert finder.find("train/r_0.png") == scene / "r_0.png"
    assert finder.find("test/r_0.png") is None
    assert finder.find("r_0.png") == scene / "r_0.png"
