"""Scene, View and PointCloud: what every reader returns and every method trains on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from render.camera import Camera
from render.scenes.background import Background, composite

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class PointCloud:
    """Points in world coordinates.

    Args:
        xyz: [N, 3] float32.
        rgb: [N, 3] float32 in [0, 1], or None.
        normals: [N, 3] float32, or None.
        source: where the points come from, for the log ("points.ply", "visual hull of 85 views").
        fills_volume: whether the points fill a volume that holds the object (hull, random)
            instead of lying on its surfaces.
        gaussians: the raw 3DGS attributes by name, each [N, C] float32, when the file is one.
    """

    xyz: Tensor
    rgb: Tensor | None = None
    normals: Tensor | None = None
    source: str = ""
    fills_volume: bool = False
    gaussians: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return self.xyz.shape[0]

    def subset(self, index: Tensor) -> PointCloud:
        """The points at ``index`` (int64 [M] or bool [N])."""

        def pick(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[index]

        gaussians = self.gaussians and {k: v[index] for k, v in self.gaussians.items()}
        return replace(
            self,
            xyz=self.xyz[index],
            rgb=pick(self.rgb),
            normals=pick(self.normals),
            gaussians=gaussians,
        )


@dataclass
class View:
    """One photograph with its camera. The image is decoded on first use and kept as uint8.

    Args:
        camera: at the resolution that ``load`` returns.
        load: decodes the image, returns uint8 [H, W, 4] straight (not premultiplied) RGBA.
        name: short name for tables and file names.
        path: the image file, for messages; None for generated views.
        has_alpha: whether the file carries a mask; without one alpha is 255 everywhere.
    """

    camera: Camera
    load: Callable[[], Tensor]
    name: str
    path: Path | None = None
    has_alpha: bool = True
    _pixels: Tensor | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def pixels(self) -> Tensor:
        """uint8 [H, W, 4] straight RGBA, cached."""
        with self._lock:
            if self._pixels is None:
                self._pixels = self.load()
            return self._pixels

    def rgba(self) -> tuple[Tensor, Tensor]:
        """Straight colour [H, W, 3] and alpha [H, W], float32 in [0, 1]."""
        pixels = self.pixels()
        return pixels[..., :3].float() / 255.0, pixels[..., 3].float() / 255.0

    def target(self, background: Tensor) -> Tensor:
        """The photograph [H, W, 3] over ``background`` ([3] or [H, W, 3])."""
        rgb, alpha = self.rgba()
        return composite(rgb, alpha, background)


@dataclass(frozen=True)
class Bounds:
    """A sphere around what matters (scene units) and the depth range of the cameras."""

    center: Tensor  # [3] float64
    radius: float
    near: float
    far: float


@dataclass
class Scene:
    """Views with named splits, points, background policy and bounds.

    Args:
        name: name for the run folder.
        views: all views; ``splits`` holds indices into this list, disjoint.
        points: the point cloud to train from (given, COLMAP's, hull or random), or None.
        background: the one background policy of the scene.
        up: unit vector [3] that points up in the world.
        to_file: [4, 4] float64, world coordinates here -> the file's own units.
        notes: sentences about what was read, held out or assumed, in the order they arose.
        recipe: what it was loaded from and how; equal recipes give equal scenes, but for the
            background.
    """

    name: str
    views: list[View]
    splits: dict[SplitName, list[int]]
    points: PointCloud | None
    background: Background
    bounds: Bounds
    up: Tensor = field(default_factory=lambda: torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    to_file: Tensor = field(default_factory=lambda: torch.eye(4, dtype=torch.float64))
    path: Path | None = None
    notes: list[str] = field(default_factory=list)
    recipe: str = ""

    def split(self, name: SplitName) -> list[View]:
        """The views of a split, in order."""
        return [self.views[i] for i in self.splits.get(name, [])]

    def fingerprint(self) -> str:
        """Hash of cameras, splits, image names and points: the same scene gives the same string."""
        digest = hashlib.sha256()
        for view in self.views:
            digest.update(view.name.encode())
            digest.update(f"{view.camera.width}x{view.camera.height}".encode())
            digest.update(view.camera.world_to_camera.numpy().tobytes())
            digest.update(view.camera.K.numpy().tobytes())
        digest.update(repr(sorted(self.splits.items())).encode())
        if self.points is not None:
            digest.update(self.points.xyz.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
