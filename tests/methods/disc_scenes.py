"""Analytic solids with their silhouettes, and scenes of them, for the tests of soft discs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from render.camera import Camera
from render.methods.point_radiance import PointRadianceMethod, PointRadianceOptions
from render.scenes.background import Background
from render.scenes.bounds import bounds_of_cameras
from render.scenes.types import Scene, View
from tests.scenes.synthetic import as_views, cameras_around, render_sphere

CPU = torch.device("cpu")
WHITE = torch.ones(3)
RADIUS = 0.8
RING, TUBE = 0.65, 0.25  # of the torus

# A whole life in 60 steps.
SMALL = PointRadianceOptions(
    k=6, points=900, epoch=10, base_epochs=1, sh_epochs=1, refine_n=2, refine_epochs=2
)


def shaded(points: Tensor) -> Tensor:
    """A smooth pattern in [0.1, 0.9] on surface points [M, 3]."""
    return 0.5 + 0.4 * torch.sin(4 * points + torch.tensor([0.0, 1.0, 2.0]))


def sphere_views(count: int = 8, size: int = 32) -> list[View]:
    """Views of a coloured sphere; alpha is its silhouette."""
    cameras = cameras_around(count, size)
    return as_views(cameras, [render_sphere(camera, RADIUS, shaded) for camera in cameras])


def sphere_scene(count: int = 8, size: int = 32, held_out: int = 2) -> Scene:
    return scene_of(sphere_views(count, size), held_out)


def scene_of(views: list[View], held_out: int = 2) -> Scene:
    """A scene without points, as a reader without any would leave it."""
    cut = len(views) - held_out
    splits = {"train": list(range(cut)), "test": list(range(cut, len(views)))}
    bounds = bounds_of_cameras([view.camera for view in views])
    return Scene("ball", views, splits, None, Background(), bounds)  # type: ignore[arg-type]


def with_alpha(view: View, alpha: Tensor) -> View:
    """The same photograph with another mask [H, W] uint8; its colours stay."""
    pixels = torch.cat([view.pixels()[..., :3], alpha[..., None]], -1)
    return View(view.camera, lambda: pixels, view.name, has_alpha=True)


def on_white(view: View, has_alpha: bool = False) -> View:
    """The photograph over white, without a mask."""
    rgb = (view.target(WHITE) * 255).round().to(torch.uint8)
    pixels = torch.cat([rgb, torch.full_like(rgb[..., :1], 255)], -1)
    return View(view.camera, lambda: pixels, view.name, has_alpha=has_alpha)


def hits_sphere(origin: Tensor, direction: Tensor) -> Tensor:
    """Whether rays from ``origin`` [3] along unit ``direction`` [..., 3] meet the sphere."""
    b = direction @ origin
    return (b * b - (origin @ origin - RADIUS**2) > 0) & (b < 0)


def torus_distance(points: Tensor) -> Tensor:
    """Signed distance [...] of points [..., 3] to the torus around z."""
    ring = points[..., :2].norm(dim=-1) - RING
    return torch.stack([ring, points[..., 2]], -1).norm(dim=-1) - TUBE


def hits_torus(origin: Tensor, direction: Tensor) -> Tensor:
    """The same for the torus, by sphere tracing."""
    travelled = torch.full(direction.shape[:-1], float(origin.norm()) - 1.0).to(direction)
    for _ in range(60):
        step = torus_distance(origin + travelled[..., None] * direction)
        travelled = travelled + step.clamp(min=0)
    return (torus_distance(origin + travelled[..., None] * direction) < 1e-3) & (travelled < 9)


def torus_view(camera: Camera, name: str) -> View:
    """A grey torus; alpha is its silhouette at the pixels' centres."""
    origin, direction, _ = camera.rays(torch.float64)
    alpha = 255 * hits_torus(origin, direction).to(torch.uint8)
    pixels = torch.cat(
        [torch.full((*alpha.shape, 3), 128, dtype=torch.uint8), alpha[..., None]], -1
    )
    return View(camera, lambda: pixels, name)


def make(
    options: PointRadianceOptions = SMALL, scene: Scene | None = None, seed: int = 0
) -> PointRadianceMethod:
    generator = torch.Generator().manual_seed(seed)
    return PointRadianceMethod(options, scene or sphere_scene(), CPU, generator)


def psnr(method: PointRadianceMethod, views: list[View]) -> float:
    """Of all pixels of all views together, dB, on white."""
    errors = [(method.render(v.camera, WHITE).rgb - v.target(WHITE)).square().mean() for v in views]
    return -10 * math.log10(float(torch.stack(errors).mean()))
