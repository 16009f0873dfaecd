"""Cropping, outliers, voxels and random subsets against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from render.errors import UserError
from render.scenes.clouds.cleaning import (
    Cleaning,
    Outliers,
    are_outliers,
    clean,
    in_box,
    random_subset,
    voxel_subset,
)
from render.scenes.clouds.pointcloud import write_ply
from render.scenes.load import load_scene
from render.scenes.types import PointCloud
from tests.scenes.synthetic import MakeScene

RNG = np.random.default_rng(7)
XYZ = np.concatenate([RNG.normal(size=(400, 3)), 12 + RNG.normal(size=(5, 3)) * 4])


def distances(xyz: np.ndarray) -> np.ndarray:
    """To all other points, ascending: [N, N - 1]."""
    return np.sort(np.linalg.norm(xyz[:, None] - xyz[None], axis=2), axis=1)[:, 1:]


@pytest.mark.parametrize(("k", "limit"), [(4, 1.0), (16, 2.0), (1, 3.0)])
def test_statistical_outliers(k: int, limit: float) -> None:
    mean = distances(XYZ)[:, :k].mean(1)
    expected = mean > mean.mean() + limit * mean.std()
    np.testing.assert_array_equal(are_outliers(XYZ, Outliers(True, k, limit)), expected)
    assert 0 < expected.sum() < 60


@pytest.mark.parametrize(("k", "limit"), [(1, 0.3), (3, 0.8)])
def test_points_with_few_neighbours(k: int, limit: float) -> None:
    expected = (distances(XYZ) <= limit).sum(1) < k
    np.testing.assert_array_equal(are_outliers(XYZ, Outliers(False, k, limit)), expected)
    assert 0 < expected.sum() < 400


def test_too_few_points_have_no_outliers() -> None:
    assert not are_outliers(XYZ[:4], Outliers(True, 16, 2.0)).any()
    assert not are_outliers(np.zeros((50, 3)), Outliers(True, 16, 2.0)).any()


@settings(deadline=None)
@given(st.floats(0.05, 50), st.integers(1, 405))
def test_one_point_a_voxel_near_its_mean(size: float, count: int) -> None:
    xyz = XYZ[:count]
    kept = voxel_subset(xyz, size)
    cell = np.floor((xyz - xyz.min(0)) / size).astype(int)
    _, groups = np.unique(cell, axis=0, return_inverse=True)
    groups = groups.ravel()
    assert len(kept) == groups.max() + 1 == len(set(groups[kept])) and (np.diff(kept) > 0).all()
    for row in kept:
        others = xyz[groups == groups[row]]
        distance = np.linalg.norm(others - others.mean(0), axis=1)
        assert np.linalg.norm(xyz[row] - others.mean(0)) <= distance.min() + 1e-9


def test_voxels_that_are_far_too_small() -> None:
    with pytest.raises(UserError, match=r"--points-voxel 1e-09: expected at least"):
        voxel_subset(XYZ, 1e-9)
    assert len(voxel_subset(XYZ, 1e-4)) == len(XYZ)
    assert len(voxel_subset(np.ones((9, 3)), 1e-9)) == 1


def test_boxes_and_subsets() -> None:
    inside = in_box(XYZ, (-1, -1, -1, 1, 0.5, 9))
    expected = [all(lo <= v <= hi for v, lo, hi in zip(p, (-1, -1, -1), (1, 0.5, 9), strict=True))
                for p in XYZ]  # fmt: skip
    assert inside.tolist() == expected and 0 < inside.sum() < len(XYZ)
    rows = random_subset(1000, 100, 3)
    assert len(set(rows.tolist())) == 100 and (np.diff(rows) > 0).all() and rows.max() < 1000
    np.testing.assert_array_equal(rows, random_subset(1000, 100, 3))
    assert (random_subset(1000, 100, 4) != rows).any()
    np.testing.assert_array_equal(random_subset(5, 9, 0), np.arange(5))


def cloud(xyz: np.ndarray = XYZ) -> PointCloud:
    n = len(xyz)
    rgb = torch.arange(n, dtype=torch.float32)[:, None].expand(n, 3) / n
    return PointCloud(torch.from_numpy(xyz).float(), rgb, gaussians={"f_dc": rgb * 2})


def test_everything_in_turn_in_the_units_of_the_file() -> None:
    """The file is ten times as large and lies elsewhere."""
    to_file = torch.eye(4, dtype=torch.float64) * 10
    to_file[3, 3] = 1
    to_file[:3, 3] = torch.tensor([100.0, 0, 0])
    notes: list[str] = []
    cleaning = Cleaning((90, -20, -20, 120, 20, 20), Outliers(True, 8, 2.0), 5.0, 30)
    out = clean(cloud(), cleaning, to_file, 1, notes.append)
    xyz = XYZ.astype(np.float32).astype(np.float64) * 10 + [100, 0, 0]
    rows = np.flatnonzero(in_box(xyz, (90, -20, -20, 120, 20, 20)))
    rows = rows[~are_outliers(xyz[rows], Outliers(True, 8, 2.0))]
    rows = rows[voxel_subset(xyz[rows], 5.0)]
    rows = rows[random_subset(len(rows), 30, 1)]
    torch.testing.assert_close(out.xyz, cloud().xyz[torch.from_numpy(rows)])
    assert out.gaussians is not None and out.rgb is not None
    assert torch.equal(out.gaussians["f_dc"], 2 * out.rgb)
    assert len(notes) == 4 and "30 of" in notes[-1] and "Crop box" in notes[0]


def test_nothing_left_is_said_with_numbers() -> None:
    with pytest.raises(UserError, match=r"none of the 405 points is left; they lie between"):
        clean(cloud(), Cleaning((500, 0, 0, 501, 1, 1)))
    assert clean(whole := cloud(), Cleaning()) is whole


@pytest.mark.parametrize(
    ("values", "option"),
    [
        (("1 2 3", None, None, None), "--points-crop"),
        (("0 0 0 1 -1 1", None, None, None), "--points-crop"),
        (("0 0 0 1 1 nan", None, None, None), "--points-crop"),
        ((None, "some", None, None), "--points-outliers"),
        ((None, "radius", None, None), "--points-outliers"),
        ((None, "radius:0,1", None, None), "--points-outliers"),
        ((None, "statistical:3,1e", None, None), "--points-outliers"),
        ((None, None, 0.0, None), "--points-voxel"),
        ((None, None, float("nan"), None), "--points-voxel"),
        ((None, None, None, 0), "--points-most"),
    ],
)
def test_wrong_options(
    values: tuple[str | None, str | None, float | None, int | None], option: str
) -> None:
    with pytest.raises(UserError, match=option):
        Cleaning.parse(*values)


def test_options() -> None:
    assert not Cleaning.parse(None, None, None, None)
    got = Cleaning.parse("(-1, -2,-3; 1 2 3)", "statistical", 0.5, 9)
    assert got == Cleaning((-1, -2, -3, 1, 2, 3), Outliers(True, 16, 2.0), 0.5, 9)
    assert Cleaning.parse(None, "radius:4,5e-2", None, None).outliers == Outliers(False, 4, 0.05)


def test_points_of_a_scene_are_cleaned(make_scene: MakeScene, tmp_path: Path) -> None:
    folder = make_scene().path
    xyz = RNG.uniform(-0.6, 0.6, (3000, 3))
    write_ply(folder / "points.ply", cloud(xyz))
    cleaning = Cleaning.parse("-1 -1 0 1 1 1", None, None, None)
    scene = load_scene(folder, cleaning=cleaning)
    assert scene.points is not None and float(scene.points.xyz[:, 2].min()) >= 0
    assert len(scene.points) == (xyz.astype(np.float32)[:, 2] >= 0).sum()
    assert any(note.startswith("Crop box: ") for note in scene.notes)
    assert load_scene(folder, known=scene) is not scene
    alone = load_scene(folder / "points.ply", cleaning=Cleaning(voxel=0.3))
    assert alone.points is not None and 27 <= len(alone.points) <= 125


def test_a_box_in_map_coordinates(tmp_path: Path) -> None:
    """The cloud is moved to the origin; the box is where the file says."""
    values = RNG.uniform(-50, 50, (2000, 3)) + np.array([500_000, 4_649_776, 100])
    np.save(tmp_path / "a.npy", values)
    box = "499990 4649766 0 500010 4649786 1000"
    scene = load_scene(tmp_path / "a.npy", cleaning=Cleaning.parse(box, None, None, None))
    assert scene.points is not None
    expected = (np.abs(values[:, :2] - [500_000, 4_649_776]) <= 10).all(1)
    assert len(scene.points) == expected.sum() > 20
    back = scene.points.xyz.double() @ scene.to_file[:3, :3].T + scene.to_file[:3, 3]
    np.testing.assert_allclose(back, values[expected], atol=1e-4)


def test_named_points_that_miss_the_object_are_reported(
    make_scene: MakeScene, tmp_path: Path
) -> None:
    """In millimetres, say; nothing is said about points that fit."""
    folder = make_scene().path
    inside = RNG.normal(size=(3000, 3))
    inside *= 0.5 / np.linalg.norm(inside, axis=1, keepdims=True)
    for factor in (1, 1000):
        write_ply(tmp_path / f"{factor}.ply", cloud(inside * factor))
    told = "\n".join(load_scene(folder, points=tmp_path / "1000.ply").notes)
    assert "does not fit" in told and "times as large" in told
    assert "does not fit" not in "\n".join(load_scene(folder, points=tmp_path / "1.ply").notes)
