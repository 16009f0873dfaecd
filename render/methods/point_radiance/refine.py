"""Between two stages: points that belong nowhere go, those that stay get a twin."""

from __future__ import annotations

import math

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


def add_largest_shares(largest: Tensor, kbuffer: KBuffer, weight: Tensor) -> None:
    """Raise ``largest`` [N] to the largest share that each point has in any pixel of a view.

    Args:
        weight: [H, W, K] share of each layer.
    """
    valid = kbuffer.valid
    ids = kbuffer.index[valid].long()
    largest.scatter_reduce_(0, ids, weight[valid], "amax")


def doubled(
    tensors: dict[str, Tensor],
    jitter: Tensor,
    shrink: float,
    limit: int,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], int]:
    """All points and a twin beside each, of as many as there is room for.

    Args:
        tensors: parameters by name, each [N, ...], with positions "xyz" and log radii "radius".
        shrink: on the radii of both, where there is a twin.
        jitter: [N] standard deviation of a twin's offset along each axis, scene units.
        limit: most points in all.

    Returns:
        The parameters in an order in which neighbours in space are neighbours in memory, and the
        number of twins.
    """
    count = len(jitter)
    room = max(0, min(count, limit - count))
    rows = torch.arange(count)
    if room < count:
        rows = torch.randperm(count, generator=generator)[:room].sort().values
    rows = rows.to(jitter.device)
    noise = torch.randn(room, 3, generator=generator).to(jitter.device)
    smaller = tensors["radius"].clone()
    smaller[rows] += math.log(shrink)
    tensors = tensors | {"radius": smaller}
    twins = {name: tensor[rows] for name, tensor in tensors.items()}
    twins["xyz"] = twins["xyz"] + jitter[rows, None] * noise
    together = {name: torch.cat([tensors[name], twins[name]]) for name in tensors}
    order = morton_order(together["xyz"])
    return {name: tensor[order] for name, tensor in together.items()}, room
