"""Positions of pixel centres along the image axes, in the unit that the points are given in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelAxis:
    """One image axis: u to the right over columns, or v downwards over rows.

    Args:
        centers: [n] float32 on CPU, ascending: the exact positions that distances start from.
        half, scale: the same positions as a formula, ``(i + 0.5) / scale - half``. It need only
            hold to a hundredth of a pixel: the rasterisers use it to find candidates.

    Raises:
        ValueError: formula and centres disagree.
    """

    centers: Tensor
    half: float
    scale: float

    def __post_init__(self) -> None:
        c = self.centers
        if c.dim() != 1 or c.numel() == 0 or c.dtype != torch.float32 or not c.is_contiguous():
            raise ValueError(
                f"centers: expected [n] contiguous float32, got {c.dtype} {[*c.shape]}"
            )
        if not self.scale > 0:
            raise ValueError(f"scale must be positive (centres ascend), got {self.scale}")
        found = (c.double() + self.half) * self.scale - 0.5
        error = float((found - torch.arange(c.numel())).abs().max())
        if not error < 0.01:
            raise ValueError(f"centers differ from (i + 0.5) / scale - half by {error:.3g} pixels")


@lru_cache(maxsize=64)
def pixel_axis(n: int) -> PixelAxis:
    """Pixel units: the centres are 0.5, 1.5, ... n - 0.5."""
    return PixelAxis(torch.arange(n, dtype=torch.float32) + 0.5, half=0.0, scale=1.0)


@lru_cache(maxsize=64)
def pytorch3d_pixel_centers(height: int, width: int) -> tuple[PixelAxis, PixelAxis]:
    """(xs, ys) in PyTorch3D's NDC units, bit for bit its ``PixToNonSquareNdc``.

    PyTorch3D has +x to the left and +y up, so pass ``(-x, -y, z)`` of its NDC points; negation is
    exact. The short image side spans [-1, 1].
    """
    return _pytorch3d_axis(width, height), _pytorch3d_axis(height, width)


def _pytorch3d_axis(n: int, other: int) -> PixelAxis:
    one = torch.ones(1, dtype=torch.float32)
    extent = one * n * 2 / other if n > other else one * 2  # float32, in PyTorch3D's order
    offset = extent / 2
    i = torch.arange(n, dtype=torch.float32)
    centers = -offset + (extent * i + offset) / n
    return PixelAxis(-centers.flip(0), half=float(offset), scale=n / float(extent))
