"""Between two stages: points that belong nowhere go, others get a twin."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from render.gaussians.cloud import morton_order
from render.kbuffer.types import KBuffer


def without_outliers(xyz: Tensor, voxel: float, neighbours: int, deviations: float) -> Tensor:
    """Indices [M], ascending, of points [N, 3] that stay.

    One point a voxel: the one nearest to the mean of the voxel's points. Of these, those whose
    mean distance to ``neighbours`` others exceeds the mean of all by ``deviations`` standard
    deviations go (a statistical outlier filter).

    Args:
        voxel: edge, scene units; 0 keeps all.
    """
    points = xyz.detach().cpu().double().numpy()
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64)
    rows = _one_a_voxel(points, voxel) if voxel > 0 else np.arange(len(points))
    count = min(neighbours, len(rows) - 1)
    if count > 0:
        kept = points[rows]
        distance = KDTree(kept).query(kept, k=count + 1)[0][:, 1:].mean(1)
        rows = rows[distance <= distance.mean() + deviations * distance.std()]
    return torch.from_numpy(np.sort(rows)).to(xyz.device)


def _one_a_voxel(points: np.ndarray, voxel: float) -> np.ndarray:
    cells = np.floor((points - points.min(0)) / voxel).astype(np.int64)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    size = np.bincount(cell)
    mean = np.stack([np.bincount(cell, points[:, axis]) / size for axis in range(3)], 1)
    away = ((points - mean[cell]) ** 2).sum(1)
    order = np.lexsort((away, cell))  # by voxel, nearest to its mean first
    return order[np.unique(cell[order], return_index=True)[1]]


class Change(NamedTuple):
    """The points after a refinement."""

    tensors: dict[str, Tensor]  # parameters by name, each [M, ...]
    origin: Tensor  # [M] the row of the points before that each comes from
    fresh: Tensor  # [M] whether it is one of two that were one
    note: str  # what was done


class Parts(NamedTuple):
    """What part each point has in the pictures of some views."""

    largest: Tensor  # [N] largest share of any pixel
    blame: Tensor  # [N] sum over pixels of share times absolute error, mean of the channels

    def add(self, kbuffer: KBuffer, weight: Tensor, error: Tensor) -> None:
        """Count one more view.

        Args:
            weight: [H, W, K] share of each layer.
            error: [H, W] of the picture.
        """
        valid = kbuffer.valid
        ids = kbuffer.index[valid].long()
        self.largest.scatter_reduce_(0, ids, weight[valid], "amax")
        self.blame.index_add_(0, ids, (weight * error[..., None])[valid])


def parents(wanted: int, count: int, blame: Tensor | None, generator: torch.Generator) -> Tensor:
    """Which of ``count`` points get a twin, int64 [min(wanted, count)], ascending.

    Args:
        blame: [count]; those with the most of it are taken. None: any.
    """
    if wanted >= count:
        return torch.arange(count)
    if blame is None:
        rows = torch.randperm(count, generator=generator)[:wanted]
    else:
        rows = blame.cpu().argsort(descending=True, stable=True)[:wanted]
    return rows.sort().values


def doubled(
    tensors: dict[str, Tensor],
    rows: Tensor,
    jitter: Tensor,
    shrink: float,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Points, and a twin beside each of ``rows`` [T].

    Args:
        tensors: parameters by name, each [N, ...], with positions "xyz" and log radii "radius".
        jitter: [T] standard deviation of a twin's offset along each axis, scene units.
        shrink: on the radii of both.

    Returns:
        The parameters, each [N + T, ...], in an order in which neighbours in space are neighbours
        in memory; the row [N + T] that each comes from; and whether [N + T] it is one of two.
    """
    count, device = len(tensors["xyz"]), tensors["xyz"].device
    rows = rows.to(device)
    origin = torch.cat([torch.arange(count, device=device), rows])
    split = torch.zeros(len(origin), dtype=torch.bool, device=device)
    split[rows] = split[count:] = True
    together = {name: tensor[origin] for name, tensor in tensors.items()}
    together["radius"][split] += math.log(shrink)
    noise = torch.randn(len(rows), 3, generator=generator).to(device)
    together["xyz"][count:] += jitter[:, None] * noise
    order = morton_order(together["xyz"])
    together = {name: tensor[order] for name, tensor in together.items()}
    return together, origin[order], split[order]
