"""Photographs of distorted lenses as a pinhole camera would have taken them.

The pinhole keeps the image size and the principal point; one factor on both focal lengths is
chosen so that every pixel of the new picture has a source (no black borders) and as little as
possible is cut off. Wide fisheyes are cut to a diagonal of 120 degrees, because a pinhole spends
most of its pixels on the rim beyond that.

Pictures are resampled bicubically, in premultiplied colour, at twice the wanted size where the
photograph has so many pixels, and averaged down from there. Of fine detail that keeps 10 dB more
than bilinear sampling, and 16 dB more than sampling at the final size, which aliases; sampling at
the photograph's full size would gain little and cost more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from render.camera import intrinsics
from render.errors import UserError
from render.scenes.photos import disk_cache
from render.scenes.photos.images import ImageHeader, decode, shrink
from render.scenes.photos.lens_models import Array, Lens

__all__ = ["Lens", "Pinhole", "lens_notes", "pinhole_of", "undistorted_mask", "undistorted_view"]

WIDEST_DIAGONAL = math.radians(120)
_VERSION = 1  # of the pictures in the cache
_STRIP = 1 << 20  # pixels resampled at once
_STEP = 4


@dataclass(frozen=True)
class Pinhole:
    """The camera that photographs of a lens are resampled to.

    Args:
        K: [3, 3] float64, at the photograph's own size.
        zoom: its focal lengths over those of the lens.
        field_of_view: angle between opposite corners, in radians.
        limited: whether the lens sees more than ``WIDEST_DIAGONAL`` or than its model describes.
    """

    K: Tensor
    zoom: float
    field_of_view: float
    limited: bool


def pinhole_of(K: Tensor, lens: Lens, width: int, height: int) -> Pinhole:
    """The pinhole camera for a lens with intrinsics ``K`` [3, 3] and images of that size.

    Raises:
        UserError: no such camera, because the parameters contradict each other.
    """
    return _pinhole(tuple(K.flatten().tolist()), lens, width, height)


def undistorted_view(
    path: Path,
    K: Tensor,
    header: ImageHeader,
    lens: Lens,
    size: tuple[int, int],
    mask: Path | None = None,
) -> tuple[Tensor, Callable[[], Tensor]]:
    """A photograph without its lens distortion.

    Args:
        path: the image file.
        K: [3, 3] intrinsics in pixels of the file.
        header: of the file.
        size: width and height of the result.
        mask: an image of the same view, white where the object is; it becomes alpha.

    Returns:
        K [3, 3] of the pinhole camera at ``size``, and a function that decodes the photograph to
        uint8 [H, W, 4] straight RGBA. The result is kept in the user's cache folder.

    Raises:
        UserError: no pinhole camera sees what this lens sees; also from the function returned,
            when the file cannot be decoded.
    """
    pinhole = pinhole_of(K, lens, header.width, header.height)
    job = _Job(path, tuple(K.flatten().tolist()), lens, header.width, header.height, size, mask)
    scale = torch.tensor([size[0] / header.width, size[1] / header.height, 1.0])
    return pinhole.K * scale.double()[:, None], partial(_load, job)


def undistorted_mask(
    path: Path, K: Tensor, header: ImageHeader, lens: Lens, size: tuple[int, int]
) -> Callable[[], Tensor]:
    """A function that decodes a mask file of a distorted photograph and resamples it alike.

    The mask may have another size than the photograph (``K`` and ``header`` are those of the
    photograph). It returns float32 [H, W] in 0..1: the mean of the mask's grey values in a pixel.
    """
    job = _Job(path, tuple(K.flatten().tolist()), lens, header.width, header.height, size, None)
    return lambda: _load(job)[..., 0].float() / 255


def lens_notes(lenses: Iterable[tuple[Lens, Pinhole]]) -> list[str]:
    """What a user should know about the lenses of a scene, one (lens, pinhole) per view."""
    used = list(lenses)
    if not used:
        return []
    models = ", ".join(sorted({lens.model for lens, _ in used}))
    angles = [math.degrees(pinhole.field_of_view) for _, pinhole in used]
    span = f"{min(angles):.0f}" if max(angles) - min(angles) < 1 else (
        f"{min(angles):.0f} to {max(angles):.0f}"
    )  # fmt: skip
    folder = disk_cache.folder("undistorted")
    kept = f"kept in {folder}" if folder else "not kept, for want of a cache folder"
    notes = [
        f"{len(used)} photographs are undistorted ({models}) to pinhole pictures with a diagonal "
        f"of {span} degrees, once; they are {kept}."
    ]
    limited = sum(pinhole.limited for _, pinhole in used)
    if limited:
        notes.append(
            f"The lenses of {limited} photographs see more than a pinhole can show well: their "
            f"rim beyond a diagonal of {math.degrees(WIDEST_DIAGONAL):.0f} degrees, or beyond "
            "what the lens model describes, is cut off."
        )
    return notes


# ------------------------------------------------------------------ the pinhole
@lru_cache(maxsize=4096)
def _pinhole(flat: tuple[float, ...], lens: Lens, width: int, height: int) -> Pinhole:
    fx, cx, fy, cy = flat[0], flat[2], flat[4], flat[5]
    problem = UserError(
        f"no pinhole camera fits the lens {lens.model} with parameters "
        f"{', '.join(f'{p:g}' for p in lens.params)} for images of {width}x{height} with focal "
        f"lengths {fx:g}, {fy:g} and centre {cx:g}, {cy:g}; check the calibration or undistort "
        "the images with the program that made it."
    )
    if not (fx > 0 and fy > 0 and 0 < cx < width and 0 < cy < height):
        raise problem
    edges = _frame(width, height)  # [M, 2] pixels
    focal, center = np.array([fx, fy]), np.array([cx, cy])
    seen = lens.undistort((edges - center) / focal)  # where the frame of the photograph looks
    seen = seen[np.isfinite(seen).all(1)]
    # Half sizes of the picture at zoom 1 towards each seen point: a point at gauge g leaves the
    # picture when its focal lengths grow by 1 / g.
    right, down = (width - cx) / fx, (height - cy) / fy
    half = np.where(seen > 0, [right, down], [cx / fx, cy / fy])
    gauge = np.abs(seen / half).max(1)
    zoom = 1 / gauge.min() if len(seen) and gauge.min() > 0 else 0.0
    corner = float(np.hypot((edges - center)[:, 0] / fx, (edges - center)[:, 1] / fy).max())
    widest = corner / math.tan(WIDEST_DIAGONAL / 2)
    limited = zoom < widest
    zoom = max(zoom, widest)
    for _ in range(150):  # up to 20 times the focal length
        if _covered(lens, focal, center, zoom, width, height):
            K = intrinsics(focal * zoom, center)
            return Pinhole(K, zoom, _diagonal(edges, focal * zoom, center), limited)
        limited = True
        zoom *= 1.02
    raise problem


def _frame(width: int, height: int) -> Array:
    """Points along the outline of an image, [M, 2]."""
    t = np.linspace(0, 1, 200)
    zero, one = np.zeros_like(t), np.ones_like(t)
    sides = [(t, zero), (t, one), (zero, t), (one, t)]
    return np.concatenate([np.stack(side, -1) for side in sides]) * (width, height)


def _covered(lens: Lens, focal: Array, center: Array, zoom: float, width: int, height: int) -> bool:
    """Whether every pixel of the pinhole's picture comes from inside the photograph."""
    y, x = np.mgrid[0:1:33j, 0:1:33j]
    inside = np.stack([x.ravel() * width, y.ravel() * height], -1)
    pixels = np.concatenate([_frame(width, height), inside])
    found = lens.distort((pixels - center) / (focal * zoom)) * focal + center
    # Half a pixel of tolerance: sampling repeats the outermost pixels that far.
    return bool(((found >= -0.5) & (found <= (width + 0.5, height + 0.5))).all())


def _diagonal(edges: Array, focal: Array, center: Array) -> float:
    rays = np.concatenate([(edges - center) / focal, np.ones((len(edges), 1))], 1)
    a, b = rays[np.argmin(edges.sum(1))], rays[np.argmax(edges.sum(1))]
    return math.acos(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


# ------------------------------------------------------------------ the picture
@dataclass(frozen=True)
class _Job:
    """One photograph to undistort; K and the size (width, height) are those of the file."""

    path: Path
    K: tuple[float, ...]
    lens: Lens
    width: int
    height: int
    size: tuple[int, int]
    mask: Path | None

    def key(self) -> str:
        """Changes with the files and with everything else that the result depends on."""
        files = [f for f in (self.path, self.mask) if f is not None]
        stamps = [(str(f.resolve()), f.stat().st_mtime_ns, f.stat().st_size) for f in files]
        words = (_VERSION, stamps, self.K, self.lens, self.width, self.height, self.size)
        return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


def _load(job: _Job) -> Tensor:
    try:
        key = job.key()
    except OSError:
        decode(job.path)  # says what is wrong with it
        raise
    cached = disk_cache.read_picture("undistorted", key)
    if cached is not None and cached.shape == (job.size[1], job.size[0], 4):
        return torch.from_numpy(cached)
    pixels = _resample(job)
    disk_cache.write_picture("undistorted", key, pixels)
    return torch.from_numpy(pixels)


def _resample(job: _Job) -> np.ndarray:
    """uint8 [H, W, 4] at ``job.size``."""
    work = (min(job.width, 2 * job.size[0]), min(job.height, 2 * job.size[1]))
    pixels = decode(job.path, *work)
    source = pixels.float() / 255
    if job.mask is not None:
        mask = decode(job.mask, *work).float() / 255
        inside = mask[..., 0] * mask[..., 3]
        source[..., 3] *= inside * 255 if 0 < inside.max() <= 1 / 255 else inside  # 0 and 1
    source[..., :3] *= source[..., 3:]  # premultiplied
    image = source.permute(2, 0, 1)[None]  # [1, 4, h, w]
    grid = _grid(job.K, job.lens, job.width, job.height, work)
    rows = max(1, _STRIP // work[0])
    out = torch.empty(work[1], work[0], 4, dtype=torch.uint8)
    for top in range(0, work[1], rows):
        strip = torch.nn.functional.grid_sample(
            image,
            grid[None, top : top + rows],
            mode="bicubic",
            padding_mode="border",
            align_corners=False,
        )[0].permute(1, 2, 0)  # [rows, w, 4]
        strip[..., :3] /= strip[..., 3:].clamp(min=1e-6)
        out[top : top + rows] = (strip.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return out.numpy() if work == job.size else shrink(out.numpy(), *job.size)


@lru_cache(maxsize=2)  # most scenes have one camera, at one size
def _grid(
    K: tuple[float, ...], lens: Lens, width: int, height: int, work: tuple[int, int]
) -> Tensor:
    """Where each pixel of the picture comes from: float32 [h, w, 2], -1..1 over the photograph.

    Exact at every ``_STEP``-th pixel and linear in between: lenses bend so little on that scale
    that the error is some thousandths of a pixel.
    """
    pinhole = _pinhole(K, lens, width, height).K
    focal, center = np.array([K[0], K[4]]), np.array([K[2], K[5]])
    to = np.array([pinhole[0, 0], pinhole[1, 1]])
    along = [
        np.linspace(0.5, n - 0.5, max(2, n // _STEP + 2)) * (full / n)
        for n, full in zip(work, (width, height), strict=True)
    ]
    nodes = np.stack(np.meshgrid(*along), -1)  # [b, a, 2] pixels of the photograph's size
    xy = lens.distort((nodes.reshape(-1, 2) - center) / to)
    exact = 2 * (xy * focal + center) / (width, height) - 1
    grid = torch.from_numpy(exact.reshape(nodes.shape)).permute(2, 0, 1)[None]  # [1, 2, b, a]
    fine = torch.nn.functional.interpolate(
        grid, size=(work[1], work[0]), mode="bilinear", align_corners=True
    )
    return fine[0].permute(1, 2, 0).float()
