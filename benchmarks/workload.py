"""What the benchmarks of rasterisers draw: clouds, cameras, and how many fragments that makes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer.torch_impl import project_screen
from render.memory import BYTES_PER_SLOT

RADIUS = 2.0  # pixels
SIZE = 800
CHUNK = 1 << 18  # points whose fragments are counted at once


@dataclass(frozen=True)
class Frame:
    """One cell of a sweep."""

    n: int = 1_000_000
    k: int = 8
    radius: float = RADIUS  # pixels
    width: int = SIZE
    height: int = SIZE

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def least_bytes(self) -> int:
        """What has to be read and written, whoever does it."""
        return 12 * self.n + BYTES_PER_SLOT * self.pixels * self.k


def object_cloud(n: int, seed: int = 0) -> Tensor:
    """[N, 3] points on surfaces: two spheres, a torus and a rough ground disc, in random order."""
    g = torch.Generator().manual_seed(seed)
    part = n // 4

    def sphere(center: tuple[float, float, float], radius: float) -> Tensor:
        d = torch.nn.functional.normalize(torch.randn(part, 3, generator=g), dim=1)
        return d * radius + torch.tensor(center)

    a, b = torch.rand(2, part, generator=g) * 2 * math.pi
    ring = 0.6 + 0.2 * b.cos()
    torus = torch.stack([ring * a.cos() + 0.1, ring * a.sin(), 0.1 - 0.2 * b.sin()], 1)
    rest = n - 3 * part
    r, a = torch.rand(rest, generator=g).sqrt(), torch.rand(rest, generator=g) * 2 * math.pi
    height = 0.01 * torch.randn(rest, generator=g) - 0.4
    ground = torch.stack([r * a.cos(), r * a.sin(), height], 1)
    shapes = [sphere((-0.4, 0.0, 0.3), 0.5), sphere((0.6, 0.5, 0.2), 0.35), torus, ground]
    return torch.cat(shapes)[torch.randperm(n, generator=g)].contiguous()


def view(width: int, height: int | None = None) -> Camera:
    """A view like NeRF-Synthetic's: distance 4, 39.6 degrees."""
    return Camera.look_at((0.0, -3.7, 1.6), (0.0, 0.0, 0.0), width=width, height=height or width)


def on_screen(xyz: Tensor, camera: Camera) -> Tensor:
    """[N, 3] u and v in pixels, depth."""
    matrix = (camera.K @ camera.world_to_camera[:3]).float()
    return project_screen(xyz, matrix, torch.ones(1))[0]


def count_fragments(uvz: Tensor, radius: float, width: int, height: int) -> int:
    """Pixels whose centre is nearer than ``radius`` to a point in front, over all points.

    In float64, row by row of a point's disc; a centre at exactly the radius may count.
    """
    total = 0
    reach = math.ceil(radius) + 1
    for part in uvz.double().split(CHUNK):
        u, v = part[part[:, 2] > 0, :2].unbind(1)
        first = torch.floor(v)
        for offset in range(-reach, reach + 1):
            row = first + offset
            square = radius**2 - (row + 0.5 - v) ** 2
            half = square.clamp(min=0).sqrt()
            left = torch.floor(u - half - 0.5).add_(1).clamp_(0, width)
            right = torch.ceil(u + half - 0.5).clamp_(0, width)
            inside = (square > 0) & (row >= 0) & (row < height)
            total += int(((right - left).clamp_(min=0) * inside).sum())
    return total
