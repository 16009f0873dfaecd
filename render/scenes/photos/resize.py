"""Pictures and masks made smaller by averages over areas.

Colour is averaged *premultiplied*, so that what lies behind transparent pixels never bleeds in.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

_STRIP = 256  # columns or rows that are shrunk at a time


def shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area average of straight RGBA uint8 [H, W, 4] to [height, width, 4], alpha-weighted."""
    source_height, source_width = pixels.shape[:2]
    if source_height % height == 0 and source_width % width == 0:
        premultiplied = _block_means(pixels, source_height // height, source_width // width)
    else:
        premultiplied = _area_means(pixels, width, height)
    alpha = premultiplied[..., 3:]
    straight = premultiplied[..., :3] * (255 / np.maximum(alpha, 1e-6))
    out = np.concatenate([np.where(alpha > 0, straight, 0), alpha], -1)
    return (out.clip(0, 255) + 0.5).astype(np.uint8)


def all_over(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Bool [H, W] to ``count`` along an axis: true where all that a new pixel covers is true."""
    size = values.shape[axis]
    first = np.arange(count) * size // count
    last = -(-(np.arange(count) + 1) * size // count)  # excluded
    total = np.concatenate([np.zeros_like(values.take([0], axis), int), values.cumsum(axis)], axis)
    return total.take(last, axis) - total.take(first, axis) == (last - first).reshape(
        (-1, 1) if axis == 0 else (1, -1)
    )


def _block_means(pixels: np.ndarray, fy: int, fx: int) -> np.ndarray:
    """Means over fy x fx blocks of premultiplied colour, float32 [H / fy, W / fx, 4] in 0..255."""
    height, width = pixels.shape[:2]
    wide = pixels.astype(np.uint16)
    wide[..., :3] *= wide[..., 3:]  # at most 255 * 255: fits
    rows = wide.reshape(height // fy, fy, width, 4).sum(1, dtype=np.uint32)
    sums = rows.reshape(height // fy, width // fx, fx, 4).sum(2, dtype=np.uint64)
    means = sums.astype(np.float32) / (fy * fx)
    means[..., :3] /= 255
    return means


def _area_means(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Means over equal areas that cut through pixels, float32 [height, width, 4] in 0..255.

    A few columns and rows at a time: large photographs would else take 20 times their memory.
    """
    source_height, source_width = pixels.shape[:2]
    down, across = _overlaps(source_height, height), _overlaps(source_width, width)
    rows = np.empty((height, source_width, 4), np.float32)
    for start in range(0, source_width, _STRIP):
        part = pixels[:, start : start + _STRIP].astype(np.float32)
        part[..., :3] *= part[..., 3:] / 255
        means = down @ part.reshape(source_height, -1)
        rows[:, start : start + _STRIP] = means.reshape(height, -1, 4)
    out = np.empty((height, width, 4), np.float32)
    for start in range(0, height, _STRIP):
        part = rows[start : start + _STRIP].swapaxes(0, 1)  # [W, rows, 4]
        means = across @ np.ascontiguousarray(part).reshape(source_width, -1)
        out[start : start + _STRIP] = means.reshape(width, -1, 4).swapaxes(0, 1)
    return out


def _overlaps(size: int, count: int) -> sparse.csr_array:
    """[count, size]: the share that each of ``size`` pixels has in each of ``count`` intervals."""
    edges = np.arange(count + 1) * (size / count)
    first = np.minimum(edges[:-1].astype(int), size - 1)
    lengths = np.minimum(np.ceil(edges[1:] - 1e-9).astype(int), size) - first
    row = np.repeat(np.arange(count), lengths)
    column = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + first[row]
    share = np.minimum(column + 1, edges[row + 1]) - np.maximum(column, edges[row])
    share = (share.clip(0) * (count / size)).astype(np.float32)
    return sparse.csr_array((share, (row, column)), shape=(count, size))
