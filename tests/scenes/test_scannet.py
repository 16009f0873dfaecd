"""ScanNet: poses, lost frames, the papers' frames and splits, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from render.camera import Camera, intrinsics
from render.scenes.formats.scannet import is_scannet, read_scannet
from render.scenes.load import load_scene
from tests.scenes.multiview import save_rgb, sentence
from tests.scenes.synthetic import cameras_around, render_sphere

WIDTH, HEIGHT = 54, 40  # 1296x968 divided by 24 and rounded
K = np.array([[1170.2, 0, 647.75], [0, 1170.2, 483.75], [0, 0, 1]])


def in_color(camera: Camera) -> Camera:
    """The camera at the size of the images here, with the intrinsics of the colour sensor."""
    scaled = K * np.array([WIDTH / 1296, HEIGHT / 968, 1])[:, None]
    small = intrinsics((scaled[0, 0], scaled[1, 1]), (scaled[0, 2], scaled[1, 2]))
    return Camera(camera.world_to_camera, small, WIDTH, HEIGHT)


def write_scannet(folder: Path, count: int, lost: tuple[int, ...] = (), select: str = "") -> Path:
    """A scene of ``count`` frames, in folders with ``select`` at the end of their names."""
    color, pose = folder / f"color{select}", folder / f"pose{select}"
    for place in (color, pose, folder / "intrinsic", folder / "depth"):
        place.mkdir(parents=True)
    cameras = [in_color(camera) for camera in cameras_around(min(count, 30), 8)]
    save_rgb(render_sphere(cameras[0]), color / "0.jpg")
    photograph = (color / "0.jpg").read_bytes()
    for i in range(count):
        (color / f"{i}.jpg").write_bytes(photograph)
        matrix = cameras[i % len(cameras)].camera_to_world.numpy()
        if i in lost:
            matrix = np.full((4, 4), -np.inf)
        np.savetxt(pose / f"{i}.txt", matrix)
    full = np.eye(4)
    full[:3, :3] = K
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", full)
    return folder


def test_cameras_and_lost_frames(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "scene0000_00", 12, lost=(3, 7))
    assert is_scannet(folder)
    photos = read_scannet(folder)
    assert [view.name for view in photos.views] == [str(i) for i in range(12) if i not in (3, 7)]
    true = in_color(cameras_around(12, 8)[4])
    torch.testing.assert_close(photos.views[3].camera.world_to_camera, true.world_to_camera)
    torch.testing.assert_close(photos.views[3].camera.K, true.K)
    assert photos.views[0].pixels().shape == (HEIGHT, WIDTH, 4)
    assert any("2 of 12 frames dropped" in note for note in photos.notes)
    assert any("10 images are not 1296x968" in note for note in photos.notes)
    assert "depth/ is not used." in photos.notes


def test_through_load_scene(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "scene", 9)
    scene = load_scene(folder, needs_points=False, downscale=2)
    assert (len(scene.splits["train"]), len(scene.splits["test"])) == (7, 2)
    assert scene.views[0].pixels().shape == (20, 27, 4)


def test_splits_of_the_papers(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "scene", 108, lost=(19,), select="_select")
    test = np.linspace(10, 98, 10).astype(int).tolist()
    ten = read_scannet(folder, split="scan10")
    assert [int(ten.views[i].name) for i in ten.splits["test"]] == [n for n in test if n != 19]
    assert len(ten.splits["train"]) == 98
    assert any("1 test" in note for note in ten.notes)
    plus = read_scannet(folder, split="npbgpp")
    assert [int(plus.views[i].name) for i in plus.splits["val"]] == [n - 5 for n in test]
    assert len(plus.splits["train"]) == 108 - 20
    text = sentence(lambda: read_scannet(folder, split="dtu9"))
    assert "scan10" in text and "npbgpp" in text
    few = write_scannet(tmp_path / "few", 12)
    assert "at least 21 frames, found 12" in sentence(lambda: read_scannet(few, split="scan10"))


def test_of_a_whole_video_the_frames_of_the_papers_are_read(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "scene", 610)
    photos = read_scannet(folder)
    assert [view.name for view in photos.views[:3]] == ["0", "6", "12"]
    assert any("Every 6th of 610 frames" in note for note in photos.notes)
    assert len(read_scannet(folder, split="video").views) == 610


def test_intrinsics_of_the_depth_camera_do_in_need(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "scene", 3)
    (folder / "intrinsic" / "intrinsic_color.txt").unlink()
    depth = np.diag([577.0, 579.0, 1.0])
    depth[:2, 2] = 319.0, 239.0
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", depth)
    photos = read_scannet(folder)
    assert float(photos.views[0].camera.focal[0]) == pytest.approx(577 * WIDTH / 640)
    assert any("those of intrinsic_depth.txt" in note for note in photos.notes)


def test_frames_without_poses_are_skipped(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "scene", 6)
    (folder / "pose" / "2.txt").unlink()
    photos = read_scannet(folder)
    assert [view.name for view in photos.views] == ["0", "1", "3", "4", "5"]
    assert any("1 images skipped" in note for note in photos.notes)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("pose/1.txt", "", "found 0 numbers"),
        ("pose/1.txt", "1 2 3", "found 3 numbers"),
        ("pose/1.txt", "1 2 3 four", "four"),
        ("pose/1.txt", "7 " * 40_000, "64 kB"),
        ("pose/1.txt", "\xff\xfe\x00", "binary"),
        ("intrinsic/intrinsic_color.txt", "1 2 3 4", "found 4 numbers"),
        ("intrinsic/intrinsic_color.txt", "nan 0 0 0 1 0 0 0 1", "focal lengths nan"),
        ("intrinsic/intrinsic_color.txt", "-1 0 9 0 1 9 0 0 1", "focal lengths -1"),
        ("color/1.jpg", "no image", "cannot be decoded"),
    ],
)
def test_broken_files(tmp_path: Path, file: str, content: str, expected: str) -> None:
    folder = write_scannet(tmp_path / "scene", 3)
    (folder / file).write_bytes(content.encode("latin-1"))
    text = sentence(lambda: read_scannet(folder))
    assert str(folder / file) in text and expected in text


def test_nothing_usable(tmp_path: Path) -> None:
    lost = write_scannet(tmp_path / "lost", 3, lost=(0, 1, 2))
    assert "none of the poses of 3 frames" in sentence(lambda: read_scannet(lost))
    other = write_scannet(tmp_path / "other", 2)
    for i in (0, 1):
        (other / "pose" / f"{i}.txt").rename(other / "pose" / f"{i + 50}.txt")
    assert "do not meet" in sentence(lambda: read_scannet(other))
    bare = write_scannet(tmp_path / "bare", 2)
    (bare / "intrinsic" / "intrinsic_color.txt").unlink()
    assert "found neither" in sentence(lambda: read_scannet(bare))
    cut = write_scannet(tmp_path / "cut", 2)
    save_rgb(torch.zeros(40, 40, 4, dtype=torch.uint8), cut / "color" / "1.jpg")
    assert "another shape" in sentence(lambda: read_scannet(cut))
