"""Training crops by integer index maps.

A crop is a window of the (padded) photograph and one map from crop pixels to window pixels. Point
ids, depths, rays and target colours all go through that one map, so they cannot drift apart, and
ids are never cast or interpolated (upstream's float crop merges ids above 2**24).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from render.camera import Camera

_WINDOW_TRIES = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Crop:
    """A window of the photograph and the map of the picture made from it.

    Args:
        x, y: upper left pixel of the window in the photograph; may be negative (padding).
        width, height: size of the window in photograph pixels.
        rows: [H] int64 window row of every row of the picture.
        cols: [W] int64 window column of every column of the picture.
    """

    x: int
    y: int
    width: int
    height: int
    rows: Tensor
    cols: Tensor

    def camera(self, camera: Camera) -> Camera:
        """The camera of the window; its K-buffer and rays go through :meth:`pick`."""
        return camera.crop(self.x, self.y, self.width, self.height)

    def pick(self, window: Tensor) -> Tensor:
        """[height, width, ...] of the window -> [H, W, ...] of the picture."""
        return window.index_select(0, self.rows).index_select(1, self.cols)

    def inside(self, camera: Camera) -> Tensor:
        """[H, W] bool: pixels of the picture that lie in the photograph."""
        rows, cols = self.rows + self.y, self.cols + self.x
        in_rows = (rows >= 0) & (rows < camera.height)
        in_cols = (cols >= 0) & (cols < camera.width)
        return in_rows[:, None] & in_cols[None, :]

    def pick_photo(self, photo: Tensor) -> Tensor:
        """[H0, W0, ...] of the photograph -> [H, W, ...]; pixels outside repeat the border."""
        rows = (self.rows + self.y).clamp(0, photo.shape[0] - 1)
        cols = (self.cols + self.x).clamp(0, photo.shape[1] - 1)
        return photo.index_select(0, rows).index_select(1, cols)


def nearest_map(source: int, target: int) -> Tensor:
    """[target] int64: source pixel whose area holds the centre of each target pixel."""
    # (2 i + 1) / (2 target) * source in integers: exact, and the identity for equal sizes.
    return (2 * torch.arange(target) + 1) * source // (2 * target)


@dataclass(frozen=True)
class Region:
    """A rectangle in photograph pixels; it may reach outside the photograph."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def padded(cls, camera: Camera, pad: float) -> Region:
        """The photograph with ``pad`` of its width and height added at every side."""
        pad_x, pad_y = round(pad * camera.width), round(pad * camera.height)
        return cls(-pad_x, -pad_y, camera.width + 2 * pad_x, camera.height + 2 * pad_y)

    @classmethod
    def around(cls, box: tuple[int, int, int, int], margin: int, multiple: int) -> Region:
        """A box (x0, y0, x1, y1; ends excluded) in the middle, sides rounded up to ``multiple``."""
        x0, y0, x1, y1 = box
        width, height = (-(-(n + 2 * margin) // multiple) * multiple for n in (x1 - x0, y1 - y0))
        return cls((x0 + x1 - width) // 2, (y0 + y1 - height) // 2, width, height)


def points_box(
    uv: Tensor, radius: float, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Pixels (x0, y0, x1, y1; ends excluded) that discs at ``uv`` [M, 2] may cover, or None."""
    inside = ((uv > -radius) & (uv < uv.new_tensor([width, height]) + radius)).all(-1)
    if not bool(inside.any()):
        return None
    uv = uv[inside]
    x0, y0 = (uv.amin(0) - radius).floor().clamp(min=0).int().tolist()
    x1, y1 = (uv.amax(0) + radius).ceil().int().tolist()
    return x0, y0, min(x1, width), min(y1, height)


def draw_crop(
    region: Region,
    generator: torch.Generator,
    *,
    side: int,
    area: tuple[float, float] | None,
    jitter: int = 0,
) -> Crop:
    """A random window of ``region``.

    Args:
        region: what the window is cut from.
        generator: source of randomness.
        side: of the square picture.
        area: range of the square window's share of the region's area, resampled to ``side`` by
            nearest neighbour. None: the window is the picture, at most the region.
        jitter: the region itself is moved by up to so many pixels in both directions first.
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    if area is None:
        window_w, window_h = min(side, region.width), min(side, region.height)
        out_w, out_h = window_w, window_h
    else:
        window_w = window_h = _square_side(region.width, region.height, area, generator)
        out_w = out_h = side
    x = region.x + draw(-jitter, jitter) + draw(0, region.width - window_w)
    y = region.y + draw(-jitter, jitter) + draw(0, region.height - window_h)
    rows, cols = nearest_map(window_h, out_h), nearest_map(window_w, out_w)
    return Crop(x, y, window_w, window_h, rows, cols)


def _square_side(
    width: int, height: int, area: tuple[float, float], generator: torch.Generator
) -> int:
    """Side of a square with a random share of the area; the whole short side if none fits."""
    for _ in range(_WINDOW_TRIES):
        share = area[0] + (area[1] - area[0]) * float(torch.rand((), generator=generator))
        side = max(1, round(math.sqrt(share * width * height)))
        if side <= min(width, height):
            return side
    return min(width, height)
