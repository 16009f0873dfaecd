"""Legends: what the colours of a picture stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from render.export.images import INFERNO, VIRIDIS, colorize
from render.export.mask_colors import ADDED, LOST

EMPTY = torch.tensor([38, 41, 50]).float() / 255  # where a layer has no point
LARGEST_ERROR = 0.25  # mean absolute difference of a pixel at which the heat map ends
_SHARES = (0, 1, 5, 10, 25, 50, 100)  # per cent, the ticks of the share


@dataclass(frozen=True, eq=False)
class Legend:
    """A colour bar.

    Args:
        title: what is shown.
        unit: of the numbers in ``ticks``; "" for none.
        ticks: position along the bar, 0 to 1, and the number there; positions ascend.
        colors: [n, 3] blocks of equal length; position p lies in block floor(p n).
    """

    title: str
    unit: str
    ticks: tuple[tuple[float, str], ...]
    colors: Tensor


def depth_legend(span: tuple[float, float], unit: str = "scene units") -> Legend:
    """Near, bright, is at position 0."""
    return Legend("Depth", unit, _linear(*span), VIRIDIS.flip(0))


def share_legend() -> Legend:
    """Of the square root of the share: those of deep layers, a few per cent, stay apart."""
    ticks = tuple((math.sqrt(share / 100), str(share)) for share in _SHARES)
    return Legend("Share of the pixel (square root)", "%", ticks, VIRIDIS)


def count_legend(k: int) -> Legend:
    """One block for each number of filled layers from 0 to ``k``."""
    filled = colorize(torch.arange(1, k + 1) / k)
    every = math.ceil(k / 16)
    ticks = tuple(((i + 0.5) / (k + 1), str(i)) for i in range(0, k + 1, every))
    return Legend("Filled layers", "", ticks, torch.cat([EMPTY[None], filled]))


def norm_legend(span: tuple[float, float]) -> Legend:
    """Length of the feature vectors."""
    return Legend("Length of the feature vector", "", _linear(*span), VIRIDIS)


def opacity_legend() -> Legend:
    """Of single Gaussians or discs."""
    ticks = tuple((share / 100, str(share)) for share in (0, 25, 50, 75, 100))
    return Legend("Opacity", "%", ticks, VIRIDIS)


def light_legend() -> Legend:
    """Of the light that reaches a layer."""
    return replace(opacity_legend(), title="Light that reaches the layer")


def normal_legend() -> Legend:
    """The six directions along the axes of the world."""
    axes = torch.eye(3).repeat_interleave(2, 0)  # x, x, y, y, z, z
    signs = torch.tensor([-1.0, 1.0]).repeat(3)[:, None]
    names = ("-x", "+x", "-y", "+y", "-z", "+z")
    ticks = tuple(((i + 0.5) / 6, name) for i, name in enumerate(names))
    return Legend("Normal", "axes of the world", ticks, 0.5 + 0.5 * signs * axes)


def mask_legend() -> Legend:
    """What the tints of a photograph under its mask mean."""
    names = ("object", "added", "lost", "background")
    colors = torch.stack([torch.full((3,), 0.85), ADDED, LOST, torch.full((3,), 0.25)])
    ticks = tuple(((i + 0.5) / len(names), name) for i, name in enumerate(names))
    return Legend("Mask", "of the hull, against the photograph's own", ticks, colors)


def difference_legend() -> Legend:
    """Heat map of a picture against the photograph."""
    ticks = tuple((i / 5, f"{LARGEST_ERROR * i / 5:.2f}") for i in range(6))
    return Legend("Mean absolute difference of R, G, B", "0 to 1", ticks, INFERNO)


def tick_texts(low: float, high: float) -> tuple[str, str, str]:
    """``low``, the middle and ``high``, with as many digits as tell them apart."""
    values = (low, (low + high) / 2, high)
    digits = max(0, 2 - math.floor(math.log10(high - low)))
    if digits > 5 or max(abs(low), abs(high)) >= 1e6:  # would not fit beside a scale
        first, middle, last = (f"{value:.4g}" for value in values)
    else:
        first, middle, last = (f"{value:.{digits}f}" for value in values)
    return first, middle, last


def _linear(low: float, high: float) -> tuple[tuple[float, str], ...]:
    return tuple(zip((0.0, 0.5, 1.0), tick_texts(low, high), strict=True))
