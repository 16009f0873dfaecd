"""Pictures of a point cloud that nobody has trained: its K nearest points, softly composited."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from render.camera import Camera
from render.export.images import colorize
from render.kbuffer.composite import alpha_composite
from render.kbuffer.rasterize import rasterize
from render.methods.base import Inspection, Render
from render.scenes.types import Scene

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
        extent = scene.bounds.radius
        few = len(self.xyz) <= _NEIGHBOURS
        self.radius = _FEW * extent if few else min(point_radius(self.xyz), _LARGEST * extent)
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


def point_radius(xyz: Tensor) -> float:
    """A footprint that closes a surface: the median distance to the 4th neighbour, scene units."""
    from scipy.spatial import KDTree

    finite = xyz[xyz.isfinite().all(1)].double().numpy()
    if len(finite) <= _NEIGHBOURS:
        return 0.01 * max(1.0, float(abs(finite).max(initial=0.0)))
    sample = finite[:: max(1, math.ceil(len(finite) / _SAMPLE))]
    tree = KDTree(finite, compact_nodes=False, balanced_tree=False)  # a third of the time
    distance, _ = tree.query(sample, k=_NEIGHBOURS + 1)
    median = float(torch.tensor(distance[:, -1]).median())
    return median if median > 0 else 0.01 * max(1.0, float(abs(finite).max()))


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
