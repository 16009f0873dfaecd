"""How far apart the points of a cloud are, measured on a sample; of large clouds only in places."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

_FEW = 500_000  # points: a tree of them all is quick
_PLACES = 128  # of a large cloud that are looked at
_PER_CELL = 5  # points in a cell of the grid on average, if they filled space
_CHUNK = 1 << 20  # points that are sorted into the grid at once


def neighbour_distances(xyz: Tensor, neighbours: int, samples: int) -> np.ndarray:
    """Distance of about ``samples`` points to their nth other point: float64 [M].

    Of more than half a million points [N, 3] only those around a few random places go into a
    tree: ten million take half a second instead of four, and no memory to speak of. Every
    distance is exact all the same.

    Args:
        xyz: [N, 3], finite, more than ``neighbours`` points.
    """
    if len(xyz) > _FEW:
        found = _in_places(xyz, neighbours, samples)
        if found is not None:
            return found
    points = xyz.double().numpy()
    sample = points[:: max(1, math.ceil(len(points) / samples))]
    return _query(points, sample, neighbours)


def _in_places(xyz: Tensor, neighbours: int, samples: int) -> np.ndarray | None:
    """The same from cells of a grid around random points; None if the cells are too small."""
    spread = xyz[:: len(xyz) // 10_000]
    low, high = (torch.quantile(spread, q, dim=0) for q in (0.01, 0.99))
    cells = max(8, min(128, round((len(xyz) / _PER_CELL) ** (1 / 3))))
    side = float((high - low).max()) / cells
    if side <= 0:
        return None

    def cell_of(points: Tensor) -> Tensor:
        # Beyond the grid lie its outermost cells; neighbours stay neighbours.
        index = ((points - low) / side).clamp_(0, cells - 1).int()  # [N, 3]
        return (index[:, 0] * cells + index[:, 1]) * cells + index[:, 2]

    generator = torch.Generator().manual_seed(0)
    places = cell_of(xyz[torch.randint(len(xyz), (_PLACES,), generator=generator)])
    inner = torch.zeros((cells,) * 3)
    inner.view(-1)[places] = 1
    # All cells that touch one of them: within a side of an inner point there is nothing else.
    outer = torch.nn.functional.max_pool3d(inner[None, None], 3, 1, 1).flatten() > 0
    near, at = [], []
    for part in xyz.split(_CHUNK):
        index = cell_of(part)
        kept = outer[index].nonzero()[:, 0]
        near.append(part[kept])
        at.append(index[kept])
    points, cell = torch.cat(near), torch.cat(at)
    inside = inner.flatten()[cell].nonzero()[:, 0]
    # Places were drawn by density already: each counts the same, however many points it holds.
    chance = 1 / torch.bincount(cell[inside])[cell[inside]].double()
    drawn = torch.multinomial(chance, samples, replacement=True, generator=generator)
    points = points.double().numpy()
    sample = points[inside[drawn].numpy()]
    distance = _query(points, sample, neighbours)
    return distance if float((distance > side).mean()) < 0.01 else None


def _query(points: np.ndarray, sample: np.ndarray, neighbours: int) -> np.ndarray:
    tree = KDTree(points, compact_nodes=False, balanced_tree=False)  # a third of the time
    return tree.query(sample, k=neighbours + 1)[0][:, -1]
