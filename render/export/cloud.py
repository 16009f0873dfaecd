"""Pictures of a point cloud that nobody has trained: its K nearest points, softly composited."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from render.camera import Camera
from render.export.images import colorize
from render.kbuffer.composite import alpha_composite
from render.kbuffer.rasterize import rasterize
from render.methods.base import Inspection, Render
from render.scenes.spacing import neighbour_distances
from render.scenes.types import Scene

DRAFT_POINTS = 1_000_000  # while the camera moves
_NEIGHBOURS = 4  # the footprint of a point reaches to its 4th neighbour
_SAMPLE = 2000  # points that the spacing is measured on
_LARGEST = 0.1  # of the scene's radius, or the few points of a sparse cloud hide all others
_FEW = 0.04  # of the scene's radius, where there are too few points to have a spacing


class CloudRenderer:
    """Renders and inspects the points of a scene without photographs.

    Points without colours get one from their height along the scene's up axis.

    Args:
        scene: with points.
        k: layers.
    """

    def __init__(self, scene: Scene, k: int) -> None:
        if scene.points is None:
            raise ValueError("a cloud renderer needs a scene with points")
        self.k = k
        self.xyz = scene.points.xyz
        self.ids: Tensor | None = None  # of the points in the cloud that they were taken from
        extent = scene.bounds.radius
        few = len(self.xyz) <= _NEIGHBOURS
        self.radius = _FEW * extent if few else min(point_radius(self.xyz), _LARGEST * extent)
        self._draft: CloudRenderer | None = None
        self.near = min(0.01, 0.01 * extent)  # clouds may be smaller than any fixed distance
        self.rgb = scene.points.rgb
        if self.rgb is None:
            height = self.xyz @ scene.up.float()
            low, high = height.min(), height.max()
            self.rgb = colorize((height - low) / (high - low).clamp(min=1e-12))

    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """The K nearest points of every pixel and what each adds to it."""
        kbuffer = rasterize(
            self.xyz, camera, k or self.k, radius=self.radius, mode="world", near=self.near
        )
        assert self.rgb is not None
        color = kbuffer.gather(self.rgb)
        if self.ids is not None:
            rows = self.ids[kbuffer.index.clamp(min=0)]
            kbuffer = replace(kbuffer, index=torch.where(kbuffer.valid, rows, -1))
        # Opaque at the point's centre, nothing at the rim of its footprint.
        alpha = torch.where(kbuffer.valid, 1 - kbuffer.distance, 0.0)
        weight = alpha_composite(alpha, color).weight
        return Inspection(kbuffer, color, weight)

    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """The K layers, front to back, over ``background`` [3]."""
        return self.view(camera, background, k)[0]

    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        """What :meth:`render` and :meth:`inspect` return."""
        inside = self.inspect(camera, k)
        weight = inside.weight  # [H, W, K]
        rgb = (weight[..., None] * inside.color).sum(2)
        alpha = weight.sum(-1)
        depth = (weight * inside.kbuffer.depth.clamp(min=0)).sum(-1) / alpha.clamp(min=1e-6)
        rgb = rgb + (1 - alpha)[..., None] * background
        return Render(rgb.clamp(0, 1), alpha, depth), inside

    def draft(self) -> CloudRenderer:
        """The same cloud in fewer, larger points, to be quick with; itself where it has few."""
        if self._draft is None:
            self._draft = self._thinned(DRAFT_POINTS) if len(self.xyz) > DRAFT_POINTS else self
        return self._draft

    def _thinned(self, count: int) -> CloudRenderer:
        generator = torch.Generator().manual_seed(0)
        # With repetitions, and so without a permutation of them all; in order, for equal depths.
        ids = torch.randint(len(self.xyz), (count,), generator=generator).sort().values
        assert self.rgb is not None
        other = copy(self)
        other.xyz, other.rgb, other.ids = self.xyz[ids], self.rgb[ids], ids.int()
        other.radius = self.radius * math.sqrt(len(self.xyz) / count)  # as much surface in all
        other._draft = other
        return other


def point_radius(xyz: Tensor) -> float:
    """A footprint that closes a surface: the median distance to the 4th neighbour, scene units."""
    finite = xyz.isfinite().all(1)
    points = xyz if bool(finite.all()) else xyz[finite]
    median = 0.0
    if len(points) > _NEIGHBOURS:
        distance = torch.from_numpy(neighbour_distances(points, _NEIGHBOURS, _SAMPLE))
        median = float(distance.median())
    reach = float(points.abs().max()) if len(points) else 0.0
    return median if median > 0 else 0.01 * max(1.0, reach)


def frame_cloud(scene: Scene, width: int = 640, height: int = 480) -> Camera:
    """A camera that looks at the whole cloud from slightly above, outside its bounds."""
    center, up = scene.bounds.center, scene.up
    side = torch.linalg.cross(up, torch.tensor([0.36, 0.48, 0.80], dtype=torch.float64))
    if side.norm() < 0.1:
        side = torch.linalg.cross(up, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    direction = torch.nn.functional.normalize(
        torch.nn.functional.normalize(side, dim=0) + 0.45 * up, dim=0
    )
    fov = math.radians(45)
    fov_y = 2 * math.atan(math.tan(fov / 2) * height / width)
    distance = 1.05 * scene.bounds.radius / math.sin(min(fov, fov_y) / 2)
    eye = center + distance * direction
    camera = Camera.look_at(eye, center, up, fov_x=fov, width=width, height=height)
    return camera
