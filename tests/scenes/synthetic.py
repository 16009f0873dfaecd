"""Small scenes made on the fly: coloured spheres and boxes, rendered analytically."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from render.camera import Camera
from render.scenes.types import View

ANGLE = 0.7  # camera_angle_x of all cameras here

Shade = Callable[[Tensor], Tensor]  # surface points [M, 3] -> colours [M, 3] in [0, 1]


def two_colours(points: Tensor) -> Tensor:
    """Red where x > 0, blue elsewhere."""
    red = torch.tensor([0.9, 0.1, 0.1])
    blue = torch.tensor([0.1, 0.2, 0.8])
    return torch.where(points[:, :1] > 0, red, blue)


def cameras_around(count: int, size: int, *, distance: float = 4.0, seed: int = 0) -> list[Camera]:
    """Cameras all over the sphere (a spiral, slightly off the poles) that look at the origin."""
    cameras = []
    for i in range(count):
        z = 1 - 2 * (i + 0.5) / count
        turn = math.pi * (1 + math.sqrt(5)) * i + seed
        r = math.sqrt(1 - z * z)
        eye = (distance * r * math.cos(turn), distance * r * math.sin(turn), distance * z)
        cameras.append(Camera.look_at(eye, (0, 0, 0), fov_x=ANGLE, width=size, height=size))
    return cameras


def render_sphere(
    camera: Camera, radius: float = 0.8, shade: Shade = two_colours, center: Tensor | None = None
) -> Tensor:
    """uint8 [H, W, 4] of a sphere, one ray a pixel."""
    origin, direction, _ = camera.rays()
    origin = origin - (torch.zeros(3) if center is None else center)
    b = (direction * origin).sum(-1)
    discriminant = b * b - (origin @ origin - radius**2)
    hit = discriminant > 0
    distance = -b - discriminant.clamp_min(0).sqrt()
    points = origin + distance[..., None] * direction
    return _paint(camera, hit, shade(points[hit]))


def render_box(camera: Camera, half: Tensor, shade: Shade = two_colours) -> Tensor:
    """uint8 [H, W, 4] of the box [-half, half] (slab test)."""
    origin, direction, _ = camera.rays()
    a, b = (-half - origin) / direction, (half - origin) / direction
    enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
    hit = (enter < leave) & (leave > 0)
    points = origin + enter[..., None] * direction
    return _paint(camera, hit, shade(points[hit]))


def _paint(camera: Camera, hit: Tensor, colors: Tensor) -> Tensor:
    out = torch.zeros(camera.height, camera.width, 4, dtype=torch.uint8)
    out[..., :3][hit] = (colors * 255).round().to(torch.uint8)
    out[..., 3][hit] = 255
    return out


def as_views(cameras: list[Camera], images: list[Tensor]) -> list[View]:
    """Views that hold given images."""
    return [
        View(camera, lambda image=image: image, f"v{i}")
        for i, (camera, image) in enumerate(zip(cameras, images, strict=True))
    ]


@dataclass
class BlenderFolder:
    """A scene folder on disk and the frames that its json files hold."""

    path: Path
    cameras: dict[str, list[Camera]]
    images: dict[str, list[Tensor]]

    def json(self, split: str) -> dict:
        return json.loads((self.path / f"transforms_{split}.json").read_text())

    def rewrite(self, split: str, change: Callable[[dict], None]) -> None:
        """Change the json of a split in place."""
        data = self.json(split)
        change(data)
        (self.path / f"transforms_{split}.json").write_text(json.dumps(data))


MakeScene = Callable[..., BlenderFolder]
