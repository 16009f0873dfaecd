"""Bounds of captures of every kind: around an object, from its front, from inside a room."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.scenes.bounds import (
    bounds_of_cameras,
    bounds_of_points,
    bounds_of_scene,
    describe_direction,
)
from tests.scenes.synthetic import cameras_around


def ball(count: int, radius: float, center: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return radius * direction + torch.tensor(center)


def outward(count: int = 12, wobble: float = 0.3) -> list[Camera]:
    """Cameras in the middle of a room that look at its walls."""
    cameras = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        way = torch.tensor([math.cos(angle), math.sin(angle), 0.05], dtype=torch.float64)
        eye = wobble * way + torch.tensor([5.0, 0.0, 1.0])
        cameras.append(Camera.look_at(eye, eye + way, width=32, height=24))
    return cameras


def facing(count: int = 5) -> list[Camera]:
    """Cameras side by side that all look along -z."""
    return [
        Camera.look_at((0.2 * i, 0, 5), (0.2 * i, 0, 0), up=(0, 1, 0), width=32, height=24)
        for i in range(count)
    ]


def test_an_object_alone_is_all_of_its_points() -> None:
    xyz, cameras = ball(2000, 1.2), cameras_around(20, 32)
    found, points = bounds_of_scene(xyz, cameras), bounds_of_points(xyz, cameras)
    assert torch.equal(found.center, points.center)
    assert (found.radius, found.near, found.far) == (points.radius, points.near, points.far)


def test_a_background_far_away_does_not_count() -> None:
    street = torch.cat([ball(1000, 1.0), ball(1500, 40.0, (30.0, 0, 0)), ball(50, 3000.0)])
    bounds = bounds_of_scene(street, cameras_around(20, 32))
    assert bounds_of_points(street).radius > 60
    assert float(bounds.center.norm()) < 0.1
    assert bounds.radius == pytest.approx(4, rel=0.05)  # where the cameras stand
    assert bounds.far > 40 and 0 < bounds.near < 1.5


def test_a_room_from_inside() -> None:
    walls = ball(3000, 6.0, (5, 0, 1))
    bounds = bounds_of_scene(walls, outward())
    assert float((bounds.center - torch.tensor([5.0, 0, 1])).norm()) < 0.5
    assert bounds.radius == pytest.approx(6, rel=0.1) and bounds.near < 6 - 0.3 < bounds.far
    alone = bounds_of_cameras(outward())  # nothing tells how large the room is
    assert float((alone.center - torch.tensor([5.0, 0, 1])).norm()) < 0.1
    assert alone.radius == pytest.approx(0.6, rel=0.05) and 0 < alone.near < alone.far


def test_a_front_seen_from_a_row_of_cameras() -> None:
    wall = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) * 60 - 30
    wall[:, 2] = -3 + 0.01 * wall[:, 2]  # 8 in front of the cameras, and much wider than they see
    bounds = bounds_of_scene(wall, facing())
    assert float((bounds.center - torch.tensor([0.4, 0, -3])).norm()) < 0.5
    assert bounds.radius == pytest.approx(8, rel=0.1) and bounds.far > 7.5


def test_points_that_no_camera_sees() -> None:
    behind = ball(200, 30.0, (0, 0, 500.0))
    bounds = bounds_of_scene(behind, facing())
    assert bounds.radius == bounds_of_points(behind).radius and bounds.near < bounds.far


def test_one_camera_alone() -> None:
    camera = facing(1)
    bounds = bounds_of_scene(ball(500, 1.0), camera)
    assert 0.5 < bounds.radius < 6 and 0 < bounds.near < bounds.far


@pytest.mark.parametrize(
    ("direction", "text"),
    [
        ((0, 0, 1), "+z"),
        ((0, -3, 0.01), "-y"),
        ((1, 0.02, 0), "+x"),
        ((0.01, -0.836, -0.548), "(0.01, -0.84, -0.55)"),
    ],
)
def test_directions_in_words(direction: tuple[float, float, float], text: str) -> None:
    assert describe_direction(torch.tensor(direction, dtype=torch.float64)) == text
