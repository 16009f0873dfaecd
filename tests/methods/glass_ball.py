"""A tiny scene with several layers in each pixel: a glass ball around a solid one, analytic."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from render.camera import Camera
from render.methods.kbuffer import KBufferMethod, KBufferOptions
from render.scenes.background import Background
from render.scenes.types import Bounds, PointCloud, Scene, View
from render.training.trainer import Trainer
from tests.scenes.synthetic import as_views, cameras_around

CPU = torch.device("cpu")
WHITE = torch.ones(3)
OUTER, INNER, GLASS = 0.9, 0.5, 0.45  # radii, opacity of each passage through the glass
HELD_OUT = 2  # views for testing

# A whole life in 150 steps: growth from step 20, the network from step 60.
SMALL = KBufferOptions(
    points=600, warm_up=12, refine_from=20, refine_every=25, refine_until=120, network_from=60
)

Grown = tuple[KBufferMethod, Scene, list[float]]  # trained, its scene, the losses of all steps


def color_at(xyz: Tensor) -> Tensor:
    """A smooth pattern in [0.1, 0.9], points [..., 3] -> colours [..., 3]."""
    return 0.5 + 0.4 * torch.sin(5 * xyz + torch.tensor([0.0, 1.0, 2.0]))


def photograph(camera: Camera) -> Tensor:
    """uint8 [H, W, 4] of glass in front, the solid ball, glass behind, where the ray meets them."""
    origin, direction, _ = camera.rays()
    b = (direction * origin).sum(-1)  # [H, W]
    rgb, alpha = torch.zeros_like(direction), torch.zeros_like(b)
    for radius, side, opacity in ((OUTER, -1, GLASS), (INNER, -1, 1.0), (OUTER, 1, GLASS)):
        discriminant = b * b - (origin @ origin - radius**2)
        distance = -b + side * discriminant.clamp_min(0).sqrt()
        weight = (1 - alpha) * opacity * (discriminant > 0)
        rgb += weight[..., None] * color_at(origin + distance[..., None] * direction)
        alpha += weight
    straight = rgb / alpha.clamp_min(1e-6)[..., None]
    return (torch.cat([straight, alpha[..., None]], -1) * 255).round().to(torch.uint8)


def spiral(n: int, radius: float) -> Tensor:
    """Points [n, 3] all over a sphere."""
    i = torch.arange(n) + 0.5
    z, turn = 1 - 2 * i / n, math.pi * (1 + 5**0.5) * i
    r = (1 - z * z).sqrt()
    return radius * torch.stack([r * turn.cos(), r * turn.sin(), z], -1)


def ball_points(n: int = 600) -> PointCloud:
    """Two thirds of the points on the glass, one third on the solid ball, in pale colours."""
    xyz = torch.cat([spiral(n - n // 3, OUTER), spiral(n // 3, INNER)])
    return PointCloud(xyz, 0.25 + 0.5 * color_at(xyz))


def scene_of(views: list[View], points: PointCloud | None, **change: Any) -> Scene:
    """The last two views are held out."""
    cut = max(1, len(views) - HELD_OUT)
    splits = {"train": list(range(cut)), "test": list(range(cut, len(views)))}
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 2.0, 6.0)
    scene = Scene("glass", views, splits, points, Background(), bounds)  # type: ignore[arg-type]
    return replace(scene, **change)


def glass_ball(n: int = 600, size: int = 32, views: int = 6, **change: Any) -> Scene:
    """``views`` training views of ``size`` squared pixels, and two held out between them."""
    cameras = cameras_around(views + HELD_OUT, size)
    cameras += [cameras.pop(views // 2), cameras.pop(views // 3)]
    return scene_of(as_views(cameras, [photograph(c) for c in cameras]), ball_points(n), **change)


def make(
    options: KBufferOptions = SMALL, scene: Scene | None = None, seed: int = 0
) -> KBufferMethod:
    return KBufferMethod(options, scene or glass_ball(), CPU, torch.Generator().manual_seed(seed))


def trained(
    steps: int, options: KBufferOptions = SMALL, scene: Scene | None = None, seed: int = 0
) -> tuple[Trainer, list[float]]:
    """A trainer after so many steps, and the losses of those."""
    scene = scene or glass_ball()
    trainer = Trainer(make(options, scene, seed), scene, seed)
    return trainer, run(trainer, steps)


def run(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.step().loss for _ in range(steps)]


def psnr(method: KBufferMethod, views: list[View], k: int | None = None) -> float:
    """Of all pixels of all views together, dB, on white."""
    errors = [
        (method.render(v.camera, WHITE, k).rgb - v.target(WHITE)).square().mean() for v in views
    ]
    return -10 * math.log10(float(torch.stack(errors).mean()))


def without_network(method: KBufferMethod) -> KBufferMethod:
    """The same Gaussians, composited only."""
    out = copy.copy(method)
    out.network_on = False
    return out


def away(camera: Camera) -> Camera:
    """The same place, looking the other way."""
    return Camera.look_at(
        camera.position, 2 * camera.position, width=camera.width, height=camera.height
    )


def assert_same(one: Any, two: Any) -> None:
    """Two nested states are equal bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two
