"""Points behind a reconstruction where the photographs show something and it has nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from render.camera import Camera, intrinsics
from render.scenes.bounds import bounds_of_points
from render.scenes.surroundings import FARTHEST, with_surroundings
from render.scenes.types import PointCloud, View

WALL = (51, 102, 204)


def look_from(*eye: float, has_alpha: bool = False) -> View:
    position = torch.tensor(eye, dtype=torch.float64)
    camera = Camera.look_at(position, torch.zeros(3, dtype=torch.float64), width=64, height=48)
    pixels = torch.tensor([*WALL, 255], dtype=torch.uint8).repeat(48, 64, 1)
    return View(camera, lambda: pixels, f"from {eye}", has_alpha=has_alpha)


def ball(radius: float) -> PointCloud:
    g = torch.Generator().manual_seed(0)
    xyz = torch.nn.functional.normalize(torch.randn(3000, 3, generator=g), dim=1) * radius
    return PointCloud(xyz, torch.zeros(3000, 3), source="ball")


VIEWS = [look_from(0, -4, 1), look_from(4, 0, 1), look_from(-4, 0.5, 1)]


def surrounded(cloud: PointCloud, views: list[View] = VIEWS) -> tuple[PointCloud, list[str]]:
    notes: list[str] = []
    bounds = bounds_of_points(cloud.xyz, [view.camera for view in views])
    return with_surroundings(cloud, views, bounds, 0, notes.append), notes


def depth_and_cell(view: View, xyz: Tensor) -> tuple[Tensor, Tensor]:
    uv, z = view.camera.project(xyz)
    return z, (uv / 4).floor().long()  # cells of 4x4 pixels: 16 across


def test_points_come_behind_and_beside_with_the_colours_of_the_pixels() -> None:
    cloud = ball(0.3)
    more, notes = surrounded(cloud)
    added = more.xyz[len(cloud) :]
    assert len(added) > 3000 and torch.equal(more.xyz[: len(cloud)], cloud.xyz)
    assert more.rgb is not None
    assert torch.allclose(more.rgb[len(cloud) :], torch.tensor(WALL) / 255)
    assert (added.norm(dim=1) > 0.3).all()
    for view in VIEWS:
        z, _ = depth_and_cell(view, cloud.xyz)
        behind, _ = depth_and_cell(view, added)
        uv = view.camera.project(added)[0]
        shown = ((uv >= 0) & (uv < torch.tensor([64, 48]))).all(1) & (behind > 0)
        assert (behind[shown] >= z.quantile(0.05) - 1e-4).all()  # nothing in front of the ball
        assert behind[shown].max() < 3 * FARTHEST * z.max()
    assert f"{len(added):,}" in notes[0] and "%" in notes[0]


def test_they_lie_where_the_view_had_none() -> None:
    view = VIEWS[0]
    more, _ = surrounded(ball(0.3), [view])
    _, full = depth_and_cell(view, more.xyz[:3000])
    _, new = depth_and_cell(view, more.xyz[3000:])
    taken = {tuple(cell) for cell in full.tolist()}
    assert taken and not taken & {tuple(cell) for cell in new.tolist()}


def test_masks_full_frames_and_volumes_need_none() -> None:
    cloud = ball(0.3)
    masked = [look_from(0, -4, 1, has_alpha=True), *VIEWS[1:]]
    assert surrounded(cloud, masked) == (cloud, [])
    g = torch.Generator().manual_seed(1)
    wide = PointCloud(6 * torch.rand(30_000, 3, generator=g) - 3)  # fills every photograph
    assert surrounded(wide) == (wide, [])
    hull = PointCloud(cloud.xyz, cloud.rgb, fills_volume=True)
    assert surrounded(hull) == (hull, [])


def test_a_view_that_sees_no_point_adds_none() -> None:
    away = View(
        Camera.look_at(
            torch.tensor([0.0, -4, 1], dtype=torch.float64),
            torch.tensor([0.0, -8, 1], dtype=torch.float64),
            width=64,
            height=48,
        ),
        VIEWS[0].load,
        "away",
        has_alpha=False,
    )
    more, _ = surrounded(ball(0.3), [VIEWS[0], away])
    assert (away.camera.project(more.xyz[3000:])[1] < 0).all()


def test_the_same_seed_gives_the_same_points() -> None:
    assert torch.equal(surrounded(ball(0.3))[0].xyz, surrounded(ball(0.3))[0].xyz)


def test_intrinsics_off_the_centre() -> None:
    camera = VIEWS[0].camera
    shifted = Camera(camera.world_to_camera, intrinsics((60.0, 60.0), (20.0, 30.0)), 64, 48)
    view = View(shifted, VIEWS[0].load, "shifted", has_alpha=False)
    more, _ = surrounded(ball(0.3), [view])
    uv, z = shifted.project(more.xyz[3000:])
    assert (z > 0).all() and ((uv >= 0) & (uv < torch.tensor([64, 48]))).all()
