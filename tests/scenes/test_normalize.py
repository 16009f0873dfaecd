"""Scenes in extreme units: moved to where float32 works, and exactly back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.gaussians.ply import from_points, write_ply
from render.scenes.clouds.pointcloud import read_point_cloud
from render.scenes.clouds.pointcloud import write_ply as write_points
from render.scenes.formats.readers import Photos, Reader
from render.scenes.load import load_scene
from render.scenes.normalize import (
    choose_similarity,
    inverse,
    is_identity,
    place_camera,
    place_cloud,
    place_points,
    scale_of,
)
from render.scenes.startpoints import Frames, into_world
from render.scenes.types import Bounds, PointCloud, Scene
from tests.scenes.synthetic import BlenderFolder, MakeScene, as_views, cameras_around, render_sphere


def _turn(seed: int) -> Tensor:
    vector = np.random.default_rng(seed).normal(size=3)
    return torch.from_numpy(Rotation.from_rotvec(vector).as_matrix())


def similarity(scale: float, shift: tuple[float, float, float], seed: int = 0) -> Tensor:
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3] = scale * _turn(seed)
    out[:3, 3] = torch.tensor(shift, dtype=torch.float64)
    return out


MILLIMETRES = similarity(1000.0, (5e6, -3e6, 2e5))  # a survey's grid
SMALL = similarity(1e-3, (0.0, 0.0, 1e-3))
TINY = similarity(1e-5, (0.0, 1e-5, 0.0), seed=1)


def ball(count: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.79 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


def moved_scene(make_scene: MakeScene, to_file: Tensor, name: str = "moved") -> BlenderFolder:
    """The ball of ``make_scene`` as a file in other units."""
    folder = make_scene({"train": 8, "test": 3}, name=name)
    for split in ("train", "test"):
        cameras = [place_camera(camera, to_file) for camera in folder.cameras[split]]

        def change(data: dict, cameras: list[Camera] = cameras) -> None:
            for frame, camera in zip(data["frames"], cameras, strict=True):
                frame["transform_matrix"] = camera.to_opengl().tolist()

        folder.rewrite(split, change)
    return folder


# ------------------------------------------------------------------ the maths
@settings(deadline=None)
@given(st.integers(0, 50), st.sampled_from([1e-6, 0.3, 1.0, 7e4]))
def test_a_moved_camera_sees_the_same_picture(seed: int, scale: float) -> None:
    move = similarity(scale, (3.0, -20.0, 5.0), seed)
    camera = cameras_around(5, 32, seed=seed)[seed % 5]
    points = ball(20).double()
    uv, z = camera.project(points)
    moved_uv, moved_z = place_camera(camera, move).project(place_points(points, move))
    # What is lost is the last digits of coordinates that are large beside the scene.
    torch.testing.assert_close(moved_uv, uv, atol=1e-14 * 20 / min(scale, 1) * 500, rtol=0)
    torch.testing.assert_close(moved_z / scale, z, atol=1e-12 / min(scale, 1), rtol=0)
    rotation = place_camera(camera, move).world_to_camera[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double())


@pytest.mark.parametrize("move", [MILLIMETRES, TINY, similarity(1.0, (0, 0, 0))])
def test_the_way_back(move: Tensor) -> None:
    points = ball().double()
    there = place_points(points, move)
    torch.testing.assert_close(place_points(there, inverse(move)), points, atol=1e-8, rtol=0)
    torch.testing.assert_close(inverse(inverse(move)), move, atol=1e-6, rtol=1e-9)
    assert scale_of(inverse(move)) == pytest.approx(1 / scale_of(move))


def test_nothing_is_computed_where_nothing_moves() -> None:
    identity = torch.eye(4, dtype=torch.float64)
    cloud = PointCloud(ball())
    assert is_identity(inverse(identity)) and not is_identity(TINY)
    assert place_cloud(cloud, identity) is cloud


# ------------------------------------------------------------------ when
@pytest.mark.parametrize(
    ("radius", "center", "moves"),
    [
        (1.3, (0, 0, 0), False),
        (0.05, (1, 1, 0), False),
        (90.0, (0, 0, 600), False),
        (300.0, (0, 0, 600), True),
        (1e-4, (0, 0, 0), True),
        (2.0, (5e3, 0, 0), True),
    ],
)
def test_auto_leaves_sane_scenes_alone(
    radius: float, center: tuple[float, float, float], moves: bool
) -> None:
    bounds = Bounds(torch.tensor(center, dtype=torch.float64), radius, 0.1, 10)
    found = choose_similarity("auto", bounds)
    assert (found is not None) == moves
    assert choose_similarity("off", bounds) is None
    always = choose_similarity("on", bounds)
    assert always is not None and scale_of(always) == pytest.approx(1 / radius)
    assert float(place_points(bounds.center[None], always).abs().max()) < 1e-9


# ------------------------------------------------------------------ whole scenes
def check_same_pictures(scene: Scene, other: Scene) -> None:
    """Both scenes show the other's points at the same pixels."""
    assert scene.points is not None and other.points is not None
    move = inverse(other.to_file) @ MILLIMETRES
    placed = place_points(scene.points.xyz, move)
    for a, b in zip(scene.views, other.views, strict=True):
        there = b.camera.project(placed)[0]
        torch.testing.assert_close(there, a.camera.project(scene.points.xyz.double())[0],
                                   atol=1e-4, rtol=0)  # fmt: skip


def test_a_scene_in_millimetres_far_away(make_scene: MakeScene) -> None:
    plain = load_scene(make_scene({"train": 8, "test": 3}).path, point_budget=2000)
    assert is_identity(plain.to_file) and is_identity(plain.to_reader)
    scene = load_scene(moved_scene(make_scene, MILLIMETRES).path, point_budget=2000)
    assert any(note.startswith("Normalised: 1 unit is ") for note in scene.notes)
    millimetres = scene.bounds.radius * scale_of(scene.to_file)
    assert millimetres == pytest.approx(1000 * plain.bounds.radius, rel=0.2)
    assert scene.bounds.radius < 3 and float(scene.bounds.center.norm()) < 1
    assert scene.points is not None and abs(len(scene.points) - 2000) < 400
    check_same_pictures(plain, scene)
    back = place_points(scene.points.xyz, scene.to_file)
    torch.testing.assert_close(back.median(0).values, MILLIMETRES[:3, 3], atol=100, rtol=0)


@pytest.mark.parametrize("normalize", ["auto", "on", "off"])
def test_given_points_are_in_the_units_of_the_file(
    make_scene: MakeScene, tmp_path: Path, normalize: str
) -> None:
    folder = moved_scene(make_scene, TINY)
    grey = torch.full((300, 3), 0.5)
    write_points(tmp_path / "mine.ply", PointCloud(place_points(ball(), TINY).float(), grey))
    scene = load_scene(
        folder.path,
        points=tmp_path / "mine.ply",
        normalize=normalize,  # pyright: ignore
    )
    assert scene.points is not None
    back = place_points(scene.points.xyz, inverse(TINY) @ scene.to_file)
    torch.testing.assert_close(back, ball().double(), atol=1e-5, rtol=0)
    assert (scale_of(scene.to_file) == 1) == (normalize == "off")


def test_points_far_away_where_some_cameras_look(make_scene: MakeScene) -> None:
    """They are in frame of more than two views, as a dot."""
    folder = moved_scene(make_scene, MILLIMETRES)
    way = place_points(torch.zeros(1, 3), MILLIMETRES) - place_points(
        folder.cameras["train"][0].position[None], MILLIMETRES
    )
    far = place_points(torch.zeros(1, 3), MILLIMETRES) + 1000 * way + ball()
    write_points(folder.path / "points.ply", PointCloud(far.float()))
    for i, camera in enumerate(folder.cameras["train"][1:4], start=1):
        same = place_camera(folder.cameras["train"][0], MILLIMETRES).to_opengl().tolist()

        def change(data: dict, i: int = i, same: list = same) -> None:
            data["frames"][i]["transform_matrix"] = same

        folder.rewrite("train", change)
        assert not torch.equal(camera.position, folder.cameras["train"][0].position)
    scene = load_scene(folder.path, point_budget=500)
    assert any("points.ply is not used" in note for note in scene.notes)


def test_points_beside_a_scene_that_holds_a_transform() -> None:
    """Either in the file's units or in the world of the reader: where the cameras see them."""
    cameras = cameras_around(8, 32)
    views = as_views(cameras, [render_sphere(camera) for camera in cameras])
    frames = Frames(inverse(MILLIMETRES), torch.eye(4, dtype=torch.float64))
    in_file = place_points(ball(), MILLIMETRES)
    offset = in_file.mean(0).round()
    for cloud, in_reader in (
        (PointCloud((in_file - offset).float(), offset=tuple(offset.tolist())), False),
        (PointCloud(ball()), True),
    ):
        placed = into_world(cloud, frames, views)
        assert placed.in_reader == in_reader and placed.visible == 1
        torch.testing.assert_close(placed.cloud.xyz, ball(), atol=1e-4, rtol=0)
        assert placed.cloud.offset == (0, 0, 0)


def test_positions_that_numbers_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = cameras_around(3, 8)
    cameras[1].world_to_camera[0, 3] = 1e200

    def read(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
        images = [torch.zeros(8, 8, 4, dtype=torch.uint8)] * 3
        return Photos(path, as_views(cameras, images), {"train": [0, 1, 2], "test": [0]})

    monkeypatch.setattr("render.scenes.load.READERS", (Reader("x", "x", Path.is_dir, read),))
    with pytest.raises(UserError, match=r"camera positions that can be computed with, .*1e\+200"):
        load_scene(tmp_path, needs_points=False)


# ------------------------------------------------------------------ Gaussians
def splats(path: Path) -> Path:
    generator = torch.Generator().manual_seed(2)
    raw = {
        "f_dc": torch.randn(50, 3, generator=generator),
        "f_rest": torch.randn(50, 45, generator=generator),
        "opacity": torch.randn(50, 1, generator=generator),
        "scale": torch.randn(50, 3, generator=generator) - 8,
        "rotation": torch.nn.functional.normalize(torch.randn(50, 4, generator=generator), dim=1),
    }
    cloud = PointCloud(
        place_points(ball(50), similarity(1e-3, (0, 0, 1e-3))).float(), gaussians=raw
    )
    write_ply(path, from_points(cloud))
    return path


def test_gaussians_come_back_as_they_were(tmp_path: Path) -> None:
    path = splats(tmp_path / "tiny.ply")
    scene = load_scene(path)
    assert scale_of(scene.to_file) < 1e-2 and scene.points is not None
    write_ply(tmp_path / "back.ply", from_points(scene.points), scene.to_file)
    before, after = (from_points(read_point_cloud(p)) for p in (path, tmp_path / "back.ply"))
    for name, tensor in before.tensors().items():
        torch.testing.assert_close(after.tensors()[name], tensor, atol=2e-5, rtol=1e-5, msg=name)


def test_a_moved_cloud_of_gaussians_looks_the_same(tmp_path: Path) -> None:
    cloud = read_point_cloud(splats(tmp_path / "tiny.ply"))
    camera = place_camera(cameras_around(5, 24)[1], SMALL)
    scene = load_scene(tmp_path / "tiny.ply", normalize="on")
    assert scene.points is not None
    here = place_camera(camera, inverse(scene.to_file))
    a = from_points(cloud).project(camera, 1e-6, False)
    b = from_points(scene.points).project(here, 1e-6 / scale_of(scene.to_file), False)
    torch.testing.assert_close(a.splats, b.splats, atol=2e-2, rtol=2e-3)


def test_photos_have_no_transform_by_default(tmp_path: Path) -> None:
    photos = Photos(tmp_path, [], {})
    assert photos.to_file is None and photos.points is None
