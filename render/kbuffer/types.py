"""The K-buffer: who is at each pixel, in depth order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Unique(NamedTuple):
    """Distinct primitives of a K-buffer. ``valid`` entries in row-major (row, col, layer) order."""

    ids: Tensor  # [U] int64, ascending
    inverse: Tensor  # [M] int64: valid entry -> row of `ids`
    first: Tensor  # [U] int64: flat pixel index (row * W + col) of each id's first valid entry


@dataclass(frozen=True)
class KBuffer:
    """K primitives of every pixel, depth ascending along the last axis, empty slots last.

    For points these are the K nearest; for Gaussians the K *heaviest* contributions
    (alpha x transmittance), still in depth order, with their ``weight``.

    Args:
        index: [H, W, K] int32, -1 = empty.
        depth: [H, W, K] float32 camera z, -1 where empty.
        distance: [H, W, K] float32 in [0, 1): squared distance from the pixel centre to the
            point's centre over the squared footprint radius; -1 where empty.
        weight: [H, W, K] float32 contribution, 0 where empty; None for points.
    """

    index: Tensor
    depth: Tensor
    distance: Tensor
    weight: Tensor | None = None

    @property
    def k(self) -> int:
        """Number of layers K."""
        return self.index.shape[-1]

    @property
    def valid(self) -> Tensor:
        """[H, W, K] bool: the one mask that every gather and scatter uses."""
        return self.index >= 0

    def take(self, k: int) -> KBuffer:
        """The same view with ``k`` layers at most.

        Points keep the k nearest. Gaussians keep the k heaviest of the stored ones, in depth
        order: this is what "toggle K" does.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if k >= self.k:
            return self
        if self.weight is None:
            return KBuffer(
                self.index[..., :k].contiguous(),
                self.depth[..., :k].contiguous(),
                self.distance[..., :k].contiguous(),
            )
        # Stable sort: of equal weights the nearer stays. Sorting the slots again restores depth
        # order, and empty slots (weight 0, already last) stay last.
        order = self.weight.argsort(dim=-1, descending=True, stable=True)[..., :k].sort(-1).values
        return KBuffer(
            self.index.gather(-1, order),
            self.depth.gather(-1, order),
            self.distance.gather(-1, order),
            self.weight.gather(-1, order),
        )

    def layer(self, k: int) -> KBuffer:
        """Layer ``k`` (0 = nearest) alone, as a K-buffer with one layer."""
        cut = slice(k, k + 1)
        weight = None if self.weight is None else self.weight[..., cut]
        return KBuffer(self.index[..., cut], self.depth[..., cut], self.distance[..., cut], weight)

    def gather(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """``values`` [N, C] at every slot, [H, W, K, C]; ``fill`` where empty. Differentiable."""
        # One more row for the empty slots: several times faster than scattering through a mask.
        count, channels = values.shape
        rows = torch.cat([values, values.new_full((1, channels), fill)])  # [N + 1, C]
        slots = torch.where(self.valid, self.index, count).flatten()  # [H * W * K]
        return rows.index_select(0, slots).view(*self.index.shape, channels)

    def unique(self) -> Unique:
        """Each distinct primitive once: ids, the inverse map of the valid entries, first pixels."""
        valid = self.valid
        flat = self.index[valid].long()  # [M] row-major
        ids, inverse = torch.unique(flat, return_inverse=True)
        pixel = valid.flatten(0, 1).nonzero()[:, 0]  # [M] pixel of each valid entry, ascending
        first = torch.full((ids.numel(),), valid.shape[0] * valid.shape[1], dtype=torch.int64)
        first = first.to(flat.device).scatter_reduce(0, inverse, pixel, "amin")
        return Unique(ids, inverse, first)

    def count(self) -> Tensor:
        """Filled layers of each pixel, [H, W] int32."""
        return self.valid.sum(-1, dtype=torch.int32)
