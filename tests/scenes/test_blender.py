"""The Blender reader: what it reads, and one sentence for everything it cannot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.errors import UserError
from render.scenes.formats.blender import read_blender
from render.scenes.load import load_scene
from tests.scenes.synthetic import ANGLE, MakeScene


def error_of(path: Path) -> str:
    """The sentence for a broken scene, checked to be one."""
    with pytest.raises(UserError) as caught:
        load_scene(path, needs_points=False)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------ what it reads
def test_reads_poses_images_and_splits(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 5, "val": 2, "test": 3})
    scene = load_scene(folder.path, needs_points=False)
    assert {k: len(v) for k, v in scene.splits.items()} == {"train": 5, "val": 2, "test": 3}
    assert scene.name == "ball"
    for split in ("train", "val", "test"):
        for i, view in enumerate(scene.split(split)):
            true = folder.cameras[split][i]
            torch.testing.assert_close(
                view.camera.world_to_camera, true.world_to_camera, atol=1e-9, rtol=0
            )
            torch.testing.assert_close(view.camera.K, true.K, atol=1e-9, rtol=0)
            torch.testing.assert_close(view.pixels(), folder.images[split][i])
            assert view.name == f"{split}_r_{i}" and view.has_alpha
    torch.testing.assert_close(scene.up, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert float(scene.bounds.center.norm()) < 1e-6
    assert scene.bounds.near < 4 < scene.bounds.far


def test_images_are_decoded_lazily_and_once(make_scene: MakeScene) -> None:
    folder = make_scene()
    view = load_scene(folder.path, needs_points=False).split("train")[0]
    assert view._pixels is None
    assert view.pixels() is view.pixels()
    assert view.pixels().dtype == torch.uint8


def test_missing_test_split_is_held_out_and_said(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 17})
    lines: list[str] = []
    scene = load_scene(folder.path, needs_points=False, log=lines.append)
    assert [v.name for v in scene.split("test")] == ["train_r_0", "train_r_8", "train_r_16"]
    assert not set(scene.splits["train"]) & set(scene.splits["test"])
    assert len(scene.splits["train"]) == 14
    assert any("every 8th of the 17 training views" in line for line in scene.notes)
    assert any("No validation split" in line for line in scene.notes)
    assert any("17 views of 32x32, 0.1 MB" in line for line in scene.notes)
    assert lines == scene.notes


def test_single_transforms_json(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 9})
    (folder.path / "transforms_train.json").rename(folder.path / "transforms.json")
    by_folder = load_scene(folder.path, needs_points=False)
    by_file = load_scene(folder.path / "transforms.json", needs_points=False)
    assert by_folder.fingerprint() == by_file.fingerprint()
    assert (len(by_folder.splits["train"]), len(by_folder.splits["test"])) == (7, 2)


@pytest.mark.parametrize("name", ["./train/r_{}.png", "train/r_{}", "train\\r_{}.png"])
def test_file_names(make_scene: MakeScene, name: str) -> None:
    folder = make_scene()

    def rename(data: dict) -> None:
        for i, frame in enumerate(data["frames"]):
            frame["file_path"] = name.format(i)

    folder.rewrite("train", rename)
    assert len(read_blender(folder.path).views) == 9


def test_dots_in_names_are_no_suffix(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 2})
    (folder.path / "train" / "r_0.png").rename(folder.path / "train" / "shot.0001.png")
    folder.rewrite("train", lambda d: d["frames"][0].update(file_path="train/shot.0001"))
    assert read_blender(folder.path).views[0].name == "train_shot.0001"


def test_pixel_intrinsics_per_file_and_frame(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 3})

    def change(data: dict) -> None:
        del data["camera_angle_x"]
        data.update(fl_x=40.0, fl_y=42.0, cx=15.0, cy=17.0, w=32, h=32)
        data["frames"][1].update(fl_x=50.0, fl_y=50.0)
        data["frames"][2].update(w=64, h=64, cx=30.0)

    folder.rewrite("train", change)
    first, second, third = (v.camera for v in read_blender(folder.path).views)
    assert first.focal.tolist() == [40.0, 42.0] and first.center.tolist() == [15.0, 17.0]
    assert second.focal.tolist() == [50.0, 50.0]
    # An image half as large as its entry says: intrinsics are scaled.
    assert third.focal.tolist() == [20.0, 21.0] and third.center.tolist() == [15.0, 8.5]


def test_scaled_poses_are_made_rigid(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 2})

    def scale(data: dict) -> None:
        for frame in data["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] *= 2.5
            frame["transform_matrix"] = matrix.tolist()

    folder.rewrite("train", scale)
    photos = read_blender(folder.path)
    for view, true in zip(photos.views, folder.cameras["train"], strict=True):
        torch.testing.assert_close(view.camera.world_to_camera, true.world_to_camera)
    assert any("scale" in note for note in photos.notes)


def test_images_of_different_sizes_with_an_angle(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 3})
    Image.new("RGBA", (64, 40)).save(folder.path / "train" / "r_1.png")
    cameras = [view.camera for view in read_blender(folder.path).views]
    assert [(c.width, c.height) for c in cameras] == [(32, 32), (64, 40), (32, 32)]
    for camera in cameras:
        assert 2 * math.atan(camera.width / 2 / float(camera.focal[0])) == pytest.approx(ANGLE)
    scene = load_scene(folder.path, needs_points=False)
    assert any("32x32 to 64x40" in note for note in scene.notes)


def test_test_images_are_never_trained_on(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 5, "test": 2})
    shared = folder.json("train")["frames"][3]
    folder.rewrite("test", lambda d: d["frames"].append(shared))
    scene = load_scene(folder.path, needs_points=False)
    trained = {view.path for view in scene.split("train")}
    assert len(trained) == 4
    assert not trained & {view.path for view in scene.split("test")}
    assert any("also in the test split" in note for note in scene.notes)


def test_downscale_scales_cameras_and_images(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 2})
    scene = load_scene(folder.path, downscale=4, needs_points=False)
    full = load_scene(folder.path, needs_points=False)
    for small, large in zip(scene.views, full.views, strict=True):
        assert (small.camera.width, small.camera.height) == (8, 8)
        assert small.pixels().shape == (8, 8, 4)
        torch.testing.assert_close(small.camera.K[:2], large.camera.K[:2] / 4)
    with pytest.raises(UserError, match="downscale"):
        load_scene(folder.path, downscale=0.5)


# ------------------------------------------------------------------ bad input
def test_missing_folder(tmp_path: Path) -> None:
    text = error_of(tmp_path / "nowhere" / "scene")
    assert "nowhere" in text and "does not exist" in text


def test_folder_without_scene(tmp_path: Path) -> None:
    assert "an empty folder" in error_of(tmp_path)
    (tmp_path / "notes.md").write_text("hello")
    text = error_of(tmp_path)
    assert "notes.md" in text and "transforms_train.json" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ('{"frames": [\n {"a": 1},\n }', "line 3"),
        ("[]", '"frames"'),
        ("{}", '"frames"'),
        ('{"frames": []}', "an empty list"),
        ('{"frames": [{"transform_matrix": []}]}', "file_path"),
        ("{'frames': []}", "line 1"),
    ],
)
def test_broken_json(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "transforms_train.json"
    path.write_text(content)
    text = error_of(tmp_path)
    assert str(path) in text and expected in text


def test_binary_json(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00\x81")
    assert "UTF-8" in error_of(tmp_path)


def test_some_images_missing(make_scene: MakeScene) -> None:
    folder = make_scene()
    for i in (2, 5):
        (folder.path / "train" / f"r_{i}.png").unlink()
    photos = read_blender(folder.path)
    assert len(photos.views) == 7
    assert any("2 of 9 frames skipped" in n and "train/r_2" in n for n in photos.notes)


def test_all_images_missing(make_scene: MakeScene) -> None:
    folder = make_scene()
    for path in (folder.path / "train").iterdir():
        path.unlink()
    text = error_of(folder.path)
    assert str(folder.path / "transforms_train.json") in text
    assert str(folder.path / "train" / "r_0") in text


def test_a_test_split_without_images_is_absent(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 9, "test": 2})
    for path in (folder.path / "test").iterdir():
        path.unlink()
    scene = load_scene(folder.path, needs_points=False)
    assert len(scene.splits["test"]) == 2 and len(scene.splits["train"]) == 7
    assert any("treated as absent" in note for note in scene.notes)
    assert any("every 8th" in note for note in scene.notes)


@pytest.mark.parametrize(
    "matrix",
    [
        None,
        [[1, 0], [0, 1]],
        [[1, 0, 0, "x"]] * 4,
        [[float("nan")] * 4] * 4,
        [[0.0] * 4] * 4,
        [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],  # a mirror
    ],
)
def test_bad_poses(make_scene: MakeScene, matrix: object) -> None:
    folder = make_scene({"train": 3})
    folder.rewrite("train", lambda d: d["frames"][1].update(transform_matrix=matrix))
    photos = read_blender(folder.path)
    assert [view.name for view in photos.views] == ["train_r_0", "train_r_2"]
    assert any("1 of 3 frames dropped" in note for note in photos.notes)

    def all_bad(data: dict) -> None:
        for frame in data["frames"]:
            frame["transform_matrix"] = matrix

    folder.rewrite("train", all_bad)
    text = error_of(folder.path)
    assert str(folder.path / "transforms_train.json") in text and "usable pose" in text


@pytest.mark.parametrize("keep", [0, 20, 100, -20])
def test_truncated_png(make_scene: MakeScene, keep: int) -> None:
    folder = make_scene({"train": 3})
    image = folder.path / "train" / "r_1.png"
    image.write_bytes(image.read_bytes()[:keep])
    assert str(image) in error_of(folder.path)


def test_damaged_png_is_told_when_decoded(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 3})
    image = folder.path / "train" / "r_1.png"
    data = bytearray(image.read_bytes())
    data[60:90] = bytes(30)
    image.write_bytes(bytes(data))
    scene = load_scene(folder.path, needs_points=False)
    view = next(v for v in scene.views if v.name == "train_r_1")
    with pytest.raises(UserError, match=r"r_1\.png"):
        view.pixels()


def test_no_image_at_all(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 3})
    (folder.path / "train" / "r_0.png").write_text("this is text")
    assert "not an image" in error_of(folder.path)


def test_sizes_that_contradict_the_intrinsics(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 3})
    Image.new("RGBA", (64, 40)).save(folder.path / "train" / "r_1.png")

    def pixels(data: dict, **size: int) -> None:
        del data["camera_angle_x"]
        data.update(fl_x=40.0, **size)

    folder.rewrite("train", pixels)
    text = error_of(folder.path)
    assert "r_1.png" in text and "64x40" in text and "32x32" in text
    folder.rewrite("train", lambda d: d.update(w=32, h=32))
    text = error_of(folder.path)
    assert "r_1.png" in text and "64x40" in text and "another shape" in text


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"camera_angle_x": "wide"}, "camera_angle_x"),
        ({"camera_angle_x": 0.0}, "between 0 and pi"),
        ({"camera_angle_x": 4.0}, "between 0 and pi"),
        ({"fl_x": -3.0}, "positive"),
        ({"camera_angle_x": None}, "neither"),
    ],
)
def test_bad_intrinsics(make_scene: MakeScene, entry: dict, expected: str) -> None:
    folder = make_scene({"train": 3})
    folder.rewrite("train", lambda d: d.update(entry))
    text = error_of(folder.path)
    assert "transforms_train.json" in text and expected in text


def test_not_a_scene_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    text = error_of(path)
    assert ".pth" in text and ".ply" in text


def test_json_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"lr": 1}))
    assert '"frames"' in error_of(path)


# ------------------------------------------------------------------ real data
@pytest.mark.shared_data
def test_real_lego(shared_data: Path) -> None:
    scene = load_scene("lego", data_roots=[shared_data], downscale=4, needs_points=False)
    assert scene.path == shared_data / "nerf_synthetic" / "lego"
    assert (len(scene.splits["train"]), len(scene.splits["test"])) == (74, 11)
    assert "85 views of 200x200, 13.6 MB when decoded." in scene.notes
    camera = scene.views[0].camera
    assert float(camera.focal[0]) == pytest.approx(1111.111 / 4, abs=1e-3)
    assert scene.up.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.shared_data
def test_real_fox_skips_missing_images(shared_data: Path) -> None:
    folder = shared_data / "instant-ngp" / "fox"
    photos = read_blender(folder / "transforms_upstream_1080x1920.json")
    assert len(photos.views) == 50
    assert any("17 of 67 frames skipped" in note for note in photos.notes)
    assert any("50 photographs are undistorted (FULL_OPENCV)" in note for note in photos.notes)
    assert not photos.views[0].has_alpha
    # The images are half as large as that file says; the other file was halved by hand.
    halved = read_blender(folder / "transforms.json").views
    for view, true in zip(photos.views, halved, strict=True):
        torch.testing.assert_close(view.camera.K, true.camera.K, atol=0.01, rtol=0)
