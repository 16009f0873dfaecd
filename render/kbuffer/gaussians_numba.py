"""The splatting kernels in Numba: for machines without a C++ compiler.

The functions are those of ``gaussians_native``; all tensors are float32 (indices int32),
contiguous and on CPU. Every tile is the work of one thread and gradients are summed over the tiles
in tile order, so nothing depends on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from render.kbuffer import gaussians_numba_kernels as kernels
from render.kbuffer import gaussians_numba_project as projection
from render.kbuffer.gaussians_numba_kernels import GEOMETRY, TILE
from render.kbuffer.numba_impl import parallel_map, shares
from render.kbuffer.threads import kernel_threads

TileGradients = list[tuple[np.ndarray, np.ndarray]]  # ids [U], rows [U, 6 + C], in tile order


def project(
    packed: Tensor, size: tuple[int, int], antialias: bool, gaussians: list[Tensor]
) -> list[Tensor]:
    """As ``gaussians_native.project``."""
    n = len(gaussians[0])
    unseen = torch.tensor([0.0, 0, 1, 0, 1, 0]).repeat(n, 1)
    out = [unseen, torch.zeros(n), torch.zeros(n, 2), torch.zeros(n, 3)]
    head = (packed.numpy(), *size, antialias)
    _each_share(n, projection.project, *head, *_arrays(*gaussians, *out))
    return out


def project_backward(
    packed: Tensor,
    size: tuple[int, int],
    antialias: bool,
    shapes: list[Tensor],
    count: int,
    extent: Tensor,
    rgb: Tensor,
    d_splats: Tensor,
    d_rgb: Tensor,
) -> list[Tensor]:
    """As ``gaussians_native.project_backward``."""
    n = len(rgb)
    grads = [torch.zeros_like(t) for t in shapes] + [torch.zeros(n, 3), torch.zeros(n, count, 3)]
    head = (packed.numpy(), *size, antialias)
    given = _arrays(*shapes, extent, rgb, d_splats, d_rgb)
    _each_share(n, projection.project_backward, *head, *given, *_arrays(*grads))
    return grads


class Bins:
    """Gaussians sorted by depth, and for each tile the ranks of those that may touch it."""

    def __init__(
        self, splats: Tensor, depth: Tensor, extent: Tensor, width: int, height: int
    ) -> None:
        self.width, self.height = width, height
        self.columns = -(-width // TILE)
        self.tiles = self.columns * -(-height // TILE)
        s, e, z = _arrays(splats, extent, depth)
        with np.errstate(all="ignore"):  # rows that are not seen may hold anything
            size = np.array([width, height], np.float32)
            low = np.ceil(s[:, :2] - e - np.float32(0.5)).clip(0, size)  # [N, 2] pixel indices
            high = np.floor(s[:, :2] + e - np.float32(0.5)).clip(-1, size - 1)
            seen = (e[:, 0] > 0) & np.isfinite(s).all(1) & (low <= high).all(1)
        ids = np.flatnonzero(seen)
        self.ids = ids[np.argsort(z[ids], kind="stable")].astype(np.int32)  # [M] rank -> Gaussian
        self.splats, self.depth, self.extent = s[self.ids], z[self.ids], e[self.ids]
        self.rim = kernels.rims(self.splats)
        bounds = (low[self.ids, 0], high[self.ids, 0], low[self.ids, 1], high[self.ids, 1])
        rects = np.stack(bounds, 1).astype(np.int32) // TILE  # [M, 4] tiles x0, x1, y0, y1

        threads = kernel_threads()
        parts = shares(len(ids), threads)
        counts = np.zeros((threads, self.tiles), np.int64)
        parallel_map(
            threads, lambda t, a, b: kernels.count(a, b, rects, self.columns, counts[t]), parts
        )
        self.starts = np.concatenate([[0], np.cumsum(counts.sum(0))])  # [tiles + 1]
        cursors = self.starts[:-1] + np.cumsum(counts, 0) - counts  # [threads, tiles]
        self.ranks = np.empty(self.starts[-1], np.int32)
        scattered = (rects, self.columns, self.ranks)
        parallel_map(threads, lambda t, a, b: kernels.scatter(a, b, *scattered, cursors[t]), parts)

    @property
    def arrays(self) -> tuple[object, ...]:
        """What the kernels read."""
        lists = (self.columns, self.starts, self.ranks)
        return (*lists, self.splats, self.extent, self.rim, self.ids)


def forward(
    bins: Bins, k: int, values: Tensor | None
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """As ``gaussians_native.forward``; without ``values`` there is no image, and C is 0."""
    height, width, channels = bins.height, bins.width, 0 if values is None else values.shape[1]
    index = torch.full((height, width, k), -1, dtype=torch.int32)
    weight, depth, distance = (torch.zeros(height, width, k) for _ in range(3))
    transmittance, image = torch.ones(height, width), torch.zeros(height, width, channels)
    last = torch.zeros(height, width, dtype=torch.int32)
    drawn = torch.empty(0, 0) if values is None else values
    tensors = (drawn, index, depth, distance, weight, transmittance, image, last)
    _each_tile(bins.tiles, kernels.forward, *bins.arrays, bins.depth, *_arrays(*tensors))
    return [index, depth, distance, weight], transmittance, image, last


def backward(
    bins: Bins,
    values: Tensor,
    transmittance: Tensor,
    last: Tensor,
    d_image: Tensor,
    d_alpha: Tensor,
) -> tuple[Tensor, Tensor]:
    """As ``gaussians_native.backward``."""
    given = _arrays(values, transmittance, last, d_image, d_alpha)
    return _sum(_each_tile(bins.tiles, kernels.backward, *bins.arrays, *given), values)


def layers_forward(
    bins: Bins, k: int, values: Tensor, features: int, kbuffer: bool, kept: bool
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """As ``gaussians_native.layers_forward``, but always with the K-buffer."""
    buffers, transmittance, _, _ = forward(bins, k, None)
    index, depth, _, weight = buffers
    image = torch.zeros(*index.shape[:2], values.shape[1])
    per_layer = torch.zeros(*index.shape, features)
    tensors = (index, weight, transmittance, values, image, per_layer)
    _each_share(len(index), kernels.layers_forward, *_arrays(*tensors))
    mean_depth = (weight * depth).sum(-1) / weight.sum(-1).clamp(min=1e-30)
    return buffers, transmittance, image, per_layer, mean_depth


def layers_backward(
    index: Tensor,
    weight: Tensor,
    transmittance: Tensor,
    values: Tensor,
    splats: Tensor,
    d_image: Tensor,
    d_alpha: Tensor,
    d_layers: Tensor,
) -> tuple[Tensor, Tensor]:
    """As ``gaussians_native.layers_backward``."""
    rows, columns = (-(-pixels // TILE) for pixels in index.shape[:2])
    given = _arrays(index, weight, transmittance, values, splats, d_image, d_alpha, d_layers)
    return _sum(_each_tile(rows * columns, kernels.layers_backward, columns, *given), values)


def _sum(parts: TileGradients, values: Tensor) -> tuple[Tensor, Tensor]:
    """Dense gradients of the splats [N, 6] and the values [N, C]."""
    d_splats, d_values = torch.zeros(len(values), GEOMETRY), torch.zeros_like(values)
    out = _arrays(d_splats, d_values)

    def add(begin: int, end: int) -> None:
        for ids, rows in parts:
            kernels.reduce(begin, end, ids, rows, *out)

    _each_share(len(values), add)
    return d_splats, d_values


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.numpy() for t in tensors]


def _each_share(n: int, kernel: Callable[..., None], *arguments: object) -> None:
    """``kernel(begin, end, *arguments)`` on one part of n items per thread."""
    threads = kernel_threads()
    parallel_map(threads, lambda _, a, b: kernel(a, b, *arguments), shares(n, threads))


def _each_tile(tiles: int, kernel: Callable[..., object], *arguments: object) -> list:
    """Results of ``kernel(begin, end, *arguments)`` on runs of tiles, in tile order."""
    threads = kernel_threads()
    # Several runs per thread, because tiles differ in their work.
    step = max(1, -(-tiles // (threads * 8))) if threads > 1 else tiles
    runs = [(a, min(a + step, tiles)) for a in range(0, tiles, step)]
    return parallel_map(threads, lambda a, b: kernel(a, b, *arguments), runs)
