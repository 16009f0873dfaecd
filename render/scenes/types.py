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
from render.sampling import PUBLISHED, Sampling
from render.scenes.background import Background, composite
from render.scenes.photos.imagecache import CACHE

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
        offset: what was subtracted from the file's coordinates because float32 would have blurred
            them (UTM): ``xyz`` + ``offset`` is what the file says. Zero for all others.
        sampling: of ``gaussians``, what they were trained for as far as the file says it.
    """

    xyz: Tensor
    rgb: Tensor | None = None
    normals: Tensor | None = None
    source: str = ""
    fills_volume: bool = False
    gaussians: dict[str, Tensor] | None = None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sampling: Sampling = PUBLISHED

    def __len__(self) -> int:
        return self.xyz.shape[0]

    def file_xyz(self) -> Tensor:
        """The coordinates of the file: [N, 3] float64."""
        return self.xyz.double() + torch.tensor(self.offset, dtype=torch.float64)

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
    """One photograph with its camera. The image is decoded on first use.

    Args:
        camera: at the resolution that ``load`` returns.
        load: decodes the image, returns uint8 [H, W, 4] straight (not premultiplied) RGBA.
        name: short name for tables and file names.
        path: the image file, for messages; None for generated views.
        has_alpha: whether the file carries a mask; without one alpha is 255 everywhere.
        ignored: decodes the mask of pixels that say nothing, bool [H, W], True = learn nothing
            there and count nothing; None: every pixel counts.
    """

    camera: Camera
    load: Callable[[], Tensor]
    name: str
    path: Path | None = None
    has_alpha: bool = True
    ignored: Callable[[], Tensor] | None = None
    _pixels: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _ignored: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def pixels(self) -> Tensor:
        """uint8 [H, W, 4] straight RGBA; kept as long as there is room (imagecache.py)."""
        with self._lock:
            pixels = self._pixels
            if pixels is None:
                pixels = self._pixels = self.load()
            CACHE.keep(self)
            return pixels

    def left_out(self) -> Tensor | None:
        """Which pixels say nothing, bool [H, W]; None: all of them count. Kept as the pixels."""
        if self.ignored is None:
            return None
        with self._lock:
            mask = self._ignored
            if mask is None:
                mask = self._ignored = self.ignored()
            CACHE.keep(self)
            return mask

    def decoded(self) -> bool:
        """Whether everything of the photograph is in memory."""
        return self._pixels is not None and (self.ignored is None or self._ignored is not None)

    def held(self) -> int:
        """Bytes of what is decoded."""
        kept = (self._pixels, self._ignored)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    def forget(self) -> None:
        """Let go of what was decoded; it will be decoded again when it is needed."""
        self._pixels = self._ignored = None

    def rgba(self) -> tuple[Tensor, Tensor]:
        """Straight colour [H, W, 3] and alpha [H, W], float32 in [0, 1]."""
        pixels = self.pixels()
        return pixels[..., :3].float() / 255.0, pixels[..., 3].float() / 255.0

    def target(self, background: Tensor) -> Tensor:
        """The photograph [H, W, 3] over ``background`` ([3] or [H, W, 3])."""
        rgb, alpha = self.rgba()
        return composite(rgb, alpha, background) if self.has_alpha else rgb


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
        to_file: [4, 4] float64 similarity, world coordinates here -> the file's own units.
        to_reader: the same -> the world in which the format gives its cameras: the file's units,
            unless the format holds a transform itself.
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
    to_reader: Tensor = field(default_factory=lambda: torch.eye(4, dtype=torch.float64))
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
