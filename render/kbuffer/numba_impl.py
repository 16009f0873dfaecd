"""The rasteriser in Numba: for machines without a C++ compiler.

The same three passes as ``cuda/kb_cpu.cpp`` (count, scatter, walk) and, without fastmath, the same
bits. Threads come from a pool around functions that release the GIL: Numba's own parallel layer
compiles slower and its default is not safe to enter from two threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from torch import Tensor

from render.kbuffer.axes import PixelAxis
from render.kbuffer.types import KBuffer

TILE = 16
BUCKETS = 256
SORT_WHOLE = 192
MAX_PAIRS = 1 << 26  # 512 MB of keys; frames that need more are drawn in bands

# float32 constants: a Python float would promote the arithmetic to float64
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_MARGIN = np.float32(0.02)
_RELATIVE = np.float32(1e-6)
_REACH = np.float32(1.000002)

jit = functools.partial(numba.njit, cache=True, nogil=True)


@jit(inline="always")
def _pixel_span(u, r, half, scale, n):
    """First and last pixel that the disc can cover; see ``pixel_span`` in kb_core.h."""
    c = (u + half) * scale - _HALF
    reach = r * scale
    wide = reach + (_MARGIN + _RELATIVE * (abs(c) + reach))
    end = np.float32(n - 1)
    lo = c - wide
    hi = c + wide
    first = n if lo > end else (int(np.ceil(lo)) if lo > _ZERO else 0)
    last = -1 if hi < _ZERO else (int(np.floor(hi)) if hi < end else n - 1)
    return first, last


@jit(inline="always")
def _pixel_at(u, half, scale, n):
    t = (u + half) * scale
    return int(t) if t >= _ZERO and t < np.float32(n) else -1


@jit
def _tiles_of(p, r, near, is_pixel, fx, fy, width, height):
    """First and last tile column and row; an empty range where the point is not drawn."""
    u, v, z = p[0], p[1], p[2]
    if not (z >= near and np.isfinite(z) and np.isfinite(u) and np.isfinite(v)):
        return 1, 0, 1, 0
    if is_pixel:
        x0 = x1 = _pixel_at(u, fx[0], fx[1], width)
        y0 = y1 = _pixel_at(v, fy[0], fy[1], height)
        if x0 < 0 or y0 < 0:
            return 1, 0, 1, 0
    else:
        if not r > _ZERO:
            return 1, 0, 1, 0
        x0, x1 = _pixel_span(u, r, fx[0], fx[1], width)
        y0, y1 = _pixel_span(v, r, fy[0], fy[1], height)
        if x0 > x1 or y0 > y1:
            return 1, 0, 1, 0
    return x0 // TILE, x1 // TILE, y0 // TILE, y1 // TILE


@jit
def _count(begin, end, points, radius, near, is_pixel, fx, fy, width, height, counts):
    columns = (width + TILE - 1) // TILE
    per_point = radius.shape[0] > 1
    for i in range(begin, end):
        r = radius[i] if per_point else radius[0]
        x0, x1, y0, y1 = _tiles_of(points[i], r, near, is_pixel, fx, fy, width, height)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                counts[y * columns + x] += 1


@jit
def _scatter(
    begin, end, points, depth_bits, radius, near, is_pixel, fx, fy, width, height,
    first, last, base, cursors, keys,
):  # fmt: skip
    columns = (width + TILE - 1) // TILE
    per_point = radius.shape[0] > 1
    for i in range(begin, end):
        r = radius[i] if per_point else radius[0]
        x0, x1, y0, y1 = _tiles_of(points[i], r, near, is_pixel, fx, fy, width, height)
        key = (np.uint64(depth_bits[i]) << np.uint64(32)) | np.uint64(i)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                tile = y * columns + x
                if first <= tile < last:
                    keys[cursors[tile] - base] = key
                    cursors[tile] += 1


@jit
def _bucket_sort(keys):
    """Keys ordered by depth bucket only, and where each bucket ends."""
    ends = np.zeros(BUCKETS + 1, np.int64)
    if keys.shape[0] <= SORT_WHOLE:
        ends[:] = keys.shape[0]
        return keys, ends[:1]
    nearest = keys[0] >> np.uint64(32)
    farthest = nearest
    for key in keys:
        depth = key >> np.uint64(32)
        nearest = min(nearest, depth)
        farthest = max(farthest, depth)
    shift = np.uint64(0)
    while (farthest - nearest) >> shift >= np.uint64(BUCKETS):
        shift += np.uint64(1)
    for key in keys:
        ends[np.int64(((key >> np.uint64(32)) - nearest) >> shift) + 1] += 1
    for b in range(BUCKETS):
        ends[b + 1] += ends[b]
    out = np.empty_like(keys)
    for key in keys:
        b = np.int64(((key >> np.uint64(32)) - nearest) >> shift)
        out[ends[b]] = key
        ends[b] += 1  # starts become ends
    return out, ends[:BUCKETS]


@jit
def _draw_tile(tile, keys, points, radius, is_pixel, xs, ys, fx, fy, index, depth, distance):
    height, width, k = index.shape
    columns = (width + TILE - 1) // TILE
    per_point = radius.shape[0] > 1
    left, top = (tile % columns) * TILE, (tile // columns) * TILE
    right, bottom = min(left + TILE, width) - 1, min(top + TILE, height) - 1
    filled = np.zeros((TILE, TILE), np.int32)
    open_in_row = np.full(TILE, right - left + 1, np.int32)
    x_center = (xs[left] + xs[right]) * _HALF
    x_reach = (xs[right] - xs[left]) * _HALF + _MARGIN / fx[1]
    y_low, y_high = ys[top] - _MARGIN / fy[1], ys[bottom] + _MARGIN / fy[1]
    keys, ends = _bucket_sort(keys)
    begin = 0
    for end in ends:
        run = np.sort(keys[begin:end])  # lazily: buckets that are not seen are not sorted
        begin = end
        for key in run:
            i = np.int64(key & np.uint64(0xFFFFFFFF))
            u, v, z = points[i, 0], points[i, 1], points[i, 2]
            r = radius[i] if per_point else radius[0]
            if is_pixel:
                x0 = x1 = _pixel_at(u, fx[0], fx[1], width)
                y0 = y1 = _pixel_at(v, fy[0], fy[1], height)
            else:
                reach = r * _REACH
                if abs(u - x_center) - x_reach > reach or v - y_high > reach or y_low - v > reach:
                    continue
                x0, x1 = _pixel_span(u, r, fx[0], fx[1], width)
                y0, y1 = _pixel_span(v, r, fy[0], fy[1], height)
            r2 = r * r
            for y in range(max(y0, top), min(y1, bottom) + 1):
                if open_in_row[y & 15] == 0:
                    continue
                dy = v - ys[y]
                for x in range(max(x0, left), min(x1, right) + 1):
                    n = filled[y & 15, x & 15]
                    if n == k:
                        continue
                    dx = u - xs[x]
                    if is_pixel:
                        sx, sy = dx * fx[1], dy * fy[1]
                        d = sx * sx + sy * sy
                    else:
                        d = dx * dx + dy * dy
                        if not d < r2:
                            continue
                        d /= r2
                    index[y, x, n] = i
                    depth[y, x, n] = z
                    distance[y, x, n] = d
                    filled[y & 15, x & 15] = n + 1
                    if n + 1 == k:
                        open_in_row[y & 15] -= 1
            # rows that are full at the top and bottom of the tile need no more points
            if open_in_row[top & 15] == 0 or open_in_row[bottom & 15] == 0:
                while top <= bottom and open_in_row[top & 15] == 0:
                    top += 1
                while bottom >= top and open_in_row[bottom & 15] == 0:
                    bottom -= 1
                if top > bottom:
                    return
                y_low, y_high = ys[top] - _MARGIN / fy[1], ys[bottom] + _MARGIN / fy[1]


@jit
def _draw_tiles(
    begin, end, starts, keys, points, radius, is_pixel, xs, ys, fx, fy, index, depth, distance
):
    base = starts[begin]
    for tile in range(begin, end):
        own = keys[starts[tile] - base : starts[tile + 1] - base]
        if own.shape[0] > 0:
            _draw_tile(tile, own, points, radius, is_pixel, xs, ys, fx, fy, index, depth, distance)


def rasterize(
    uvz: Tensor,
    radius: Tensor,
    xs: PixelAxis,
    ys: PixelAxis,
    out: KBuffer,
    *,
    near: float,
    footprint: str,
    threads: int,
    max_pairs: int = MAX_PAIRS,
) -> None:
    """Fill ``out`` [H, W, K] on CPU. Arguments as ``native.rasterize`` without the projection."""
    points = uvz.numpy() + np.float32(0)  # -0 becomes +0, whose bits sort first
    depth_bits = np.ascontiguousarray(points[:, 2]).view(np.uint32)
    for image in (out.index, out.depth, out.distance):
        image.fill_(-1)
    images = (out.index.numpy(), out.depth.numpy(), out.distance.numpy())
    height, width, _ = images[0].shape
    fx = np.array([xs.half, xs.scale], np.float32)
    fy = np.array([ys.half, ys.scale], np.float32)
    radii, is_pixel = radius.numpy(), footprint == "pixel"
    binned = (radii, np.float32(near), is_pixel, fx, fy, width, height)
    drawn = (points, radii, is_pixel, xs.centers.numpy(), ys.centers.numpy(), fx, fy, *images)
    parts = shares(len(points), threads)

    tiles = -(-width // TILE) * -(-height // TILE)
    counts = np.zeros((threads, tiles), np.int64)
    parallel_map(threads, lambda t, a, b: _count(a, b, points, *binned, counts[t]), parts)
    starts = np.concatenate([[0], np.cumsum(counts.sum(0))])
    cursors = starts[:-1] + np.cumsum(counts, 0) - counts  # [threads, tiles]

    def draw_band(first: int, last: int) -> None:
        base = starts[first]
        keys = np.empty(starts[last] - base, np.uint64)
        band = (first, last, base)

        def scatter(t: int, a: int, b: int) -> None:
            _scatter(a, b, points, depth_bits, *binned, *band, cursors[t], keys)

        def draw(a: int, b: int) -> None:
            _draw_tiles(a, b, starts, keys[starts[a] - base :], *drawn)

        parallel_map(threads, scatter, parts)
        step = -(-(last - first) // (threads * 16)) if threads > 1 else last - first
        parallel_map(threads, draw, [(a, min(a + step, last)) for a in range(first, last, step)])

    first = 0
    while first < tiles:
        last = int(np.searchsorted(starts, starts[first] + max_pairs, side="right")) - 1
        last = max(min(last, tiles), first + 1)
        draw_band(first, last)
        first = last


def shares(n: int, threads: int) -> list[tuple[int, ...]]:
    """(thread, begin, end) of contiguous parts of n items, one per thread."""
    return [(t, n * t // threads, n * (t + 1) // threads) for t in range(threads)]


def parallel_map(
    threads: int, task: Callable[..., Any], arguments: list[tuple[int, ...]]
) -> list[Any]:
    """``[task(*a) for a in arguments]`` on a pool of ``threads``, results in the same order."""
    return list(_pool(threads).map(lambda args: task(*args), arguments))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kbuffers-numba")
