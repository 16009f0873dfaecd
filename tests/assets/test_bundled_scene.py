"""The bundled scene is complete, small, and consistent: poses, masks, points and true depth."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from plyfile import PlyData

Floats = NDArray[np.float64]
SCENE = Path(__file__).resolve().parents[2] / "assets" / "scenes" / "lego"
COUNTS = {"train": 60, "val": 10, "test": 20}
SIZE = 256


@cache
def load_split(split: str) -> tuple[float, list[str], list[Floats]]:
    """Focal length in pixels, file names and camera-to-world poses (OpenGL) of a split."""
    content = json.loads((SCENE / f"transforms_{split}.json").read_text())
    focal = 0.5 * SIZE / math.tan(0.5 * content["camera_angle_x"])
    names = [frame["file_path"] for frame in content["frames"]]
    return focal, names, [np.array(f["transform_matrix"]) for f in content["frames"]]


@cache
def load_image(split: str, index: int) -> NDArray[np.uint8]:
    """RGBA picture [SIZE, SIZE, 4]."""
    name = load_split(split)[1][index]
    return np.asarray(Image.open(SCENE / f"{name}.png"))


@cache
def load_points() -> tuple[Floats, Floats, Floats]:
    """Positions, normals and colours (0..255), each [N, 3]."""
    vertex = PlyData.read(SCENE / "points.ply")["vertex"]
    columns = (("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue"))
    xyz, normal, rgb = (
        np.stack([np.asarray(vertex[c], np.float64) for c in names], axis=-1) for names in columns
    )
    return xyz, normal, rgb


def project(split: str, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Row, column (clipped to the picture) and camera z of every point in a view."""
    focal, _, poses = load_split(split)
    pose = poses[index]
    local = (load_points()[0] - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    column = np.floor(focal * local[:, 0] / depth + SIZE / 2).astype(np.int64)
    row = np.floor(-focal * local[:, 1] / depth + SIZE / 2).astype(np.int64)
    return np.clip(row, 0, SIZE - 1), np.clip(column, 0, SIZE - 1), depth


def depth_maps() -> dict[int, Floats]:
    """True camera z [SIZE, SIZE] of the test views that have it; 0 = nothing there."""
    about = json.loads((SCENE / "depth" / "depth.json").read_text())
    maps = {}
    for view in about["views"]:
        index = int(view.rsplit("_", 1)[1])
        png = Image.open(SCENE / "depth" / f"test_r_{index}.png")
        maps[index] = np.asarray(png).astype(np.float64) * about["scale"]
    return maps


def test_whole_scene_is_small() -> None:
    total = sum(f.stat().st_size for f in SCENE.rglob("*") if f.is_file())
    assert total <= 8_000_000


@pytest.mark.parametrize("split", COUNTS)
def test_split_has_its_pictures(split: str) -> None:
    _, names, _ = load_split(split)
    assert names == [f"./{split}/r_{i}" for i in range(COUNTS[split])]
    assert len(list((SCENE / split).glob("*.png"))) == COUNTS[split]
    for i in range(COUNTS[split]):
        image = load_image(split, i)
        assert image.shape == (SIZE, SIZE, 4)
        assert image[..., 3].min() == 0
        assert image[..., 3].max() == 255
        assert 0.2 < (image[..., 3] > 127).mean() < 0.6
        assert not image[0, :, 3].any(), "the model must not touch the frame"
        assert not image[-1, :, 3].any()
        assert not image[:, [0, -1], 3].any()


def test_colour_is_straight() -> None:
    """Premultiplied colour would be dark where the coverage is small."""
    for i in range(0, 60, 10):
        image = load_image("train", i).astype(float)
        faint = (image[..., 3] > 0) & (image[..., 3] < 64)
        solid = image[..., 3] == 255
        assert faint.sum() > 100
        assert np.median(image[faint][:, :3].max(-1)) > 0.5 * np.median(image[solid][:, :3].max(-1))


@pytest.mark.parametrize("split", COUNTS)
def test_poses_are_rigid_and_look_at_the_model(split: str) -> None:
    for pose in load_split(split)[2]:
        rotation, position = pose[:3, :3], pose[:3, 3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])
        assert position[2] > 0, "cameras stand above the ground"
        assert np.linalg.norm(position) == pytest.approx(4.0, abs=0.1)
        np.testing.assert_allclose(rotation[:, 2], position / np.linalg.norm(position), atol=1e-9)


def test_points_are_many_even_and_inside_the_bounds() -> None:
    xyz, normal, rgb = load_points()
    assert 30_000 <= len(xyz) <= 40_000
    assert np.abs(xyz).max() <= 1.2
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1.0, atol=1e-5)
    assert len(np.unique(rgb, axis=0)) > 3000


@pytest.mark.parametrize("split", COUNTS)
def test_points_lie_inside_every_mask(split: str) -> None:
    for i in range(COUNTS[split]):
        alpha = Image.fromarray(load_image(split, i)[..., 3])
        mask = np.asarray(alpha.filter(ImageFilter.MaxFilter(3))) > 0
        row, column, _ = project(split, i)
        assert mask[row, column].mean() >= 0.97


def test_points_agree_with_the_true_depth() -> None:
    maps = depth_maps()
    assert len(maps) >= 5
    for i, truth in maps.items():
        alpha = load_image("test", i)[..., 3]
        assert ((truth > 0) == (alpha > 127)).mean() > 0.99
        row, column, depth = project("test", i)
        # A pixel at an edge holds two depths: the nearest one around it bounds what is possible.
        padded = np.pad(np.where(truth > 0, truth, np.inf), 1, constant_values=np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        nearest = windows.min(axis=(2, 3))[row, column]
        behind = depth[np.isfinite(nearest)] - nearest[np.isfinite(nearest)]
        assert (behind > -0.01).mean() > 0.999
        on_surface = np.abs(depth - truth[row, column]) < 0.02
        assert on_surface.mean() > 0.2
        # The other way round: hardly a visible pixel is without such a point beside it.
        marked = np.zeros((SIZE, SIZE), np.uint8)
        marked[row[on_surface], column[on_surface]] = 255
        around = np.asarray(Image.fromarray(marked).filter(ImageFilter.MaxFilter(3))) > 0
        assert around[truth > 0].mean() > 0.97


def test_normals_face_a_camera_that_sees_the_point() -> None:
    xyz, normal, _ = load_points()
    pose = load_split("test")[2]
    for i, truth in depth_maps().items():
        row, column, depth = project("test", i)
        seen = np.abs(depth - truth[row, column]) < 0.005
        facing = np.einsum("ij,ij->i", normal, pose[i][:3, 3] - xyz)
        assert (facing[seen] > 0).mean() > 0.9


def test_point_colours_agree_with_pictures_not_used_for_them() -> None:
    for i, truth in depth_maps().items():
        row, column, depth = project("test", i)
        image = load_image("test", i)
        seen = np.abs(depth - truth[row, column]) < 0.01
        seen &= image[row, column, 3] == 255
        error = np.abs(load_points()[2] - image[row, column, :3]).mean(axis=1)[seen]
        assert seen.sum() > 5000
        assert np.median(error) < 12
