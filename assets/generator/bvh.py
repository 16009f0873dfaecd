"""Bounding volume hierarchy over boxes, built with the surface area heuristic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEAF = 3


class Tree(NamedTuple):
    """Flat binary tree; node 0 is the root.

    An inner node has count 0 and its children at first and first + 1; a leaf holds `count`
    entries of `order`, starting at `first`.
    """

    lo: Floats  # [M, 3]
    hi: Floats  # [M, 3]
    first: Ints  # [M]
    count: Ints  # [M]
    order: Ints  # [N] primitive ids


def _area(lo: Floats, hi: Floats) -> Floats:
    """Half of the surface area of boxes [..., 3]."""
    d = hi - lo
    return d[..., 0] * d[..., 1] + d[..., 1] * d[..., 2] + d[..., 2] * d[..., 0]


def _split(lo: Floats, hi: Floats, ids: Ints) -> tuple[Ints, int]:
    """Sorted ids and the position where cutting them costs least, over all three axes."""
    best_cost, best_ids, best_cut = np.inf, ids, len(ids) // 2
    counts = np.arange(1, len(ids))
    for axis in range(3):
        ranked = ids[np.argsort(lo[ids, axis] + hi[ids, axis], kind="stable")]
        a, b = lo[ranked], hi[ranked]
        left = _area(np.minimum.accumulate(a), np.maximum.accumulate(b))[:-1]
        right = _area(np.minimum.accumulate(a[::-1]), np.maximum.accumulate(b[::-1]))[::-1][1:]
        cost = left * counts + right * counts[::-1]  # [n - 1]
        cut = int(np.argmin(cost))
        if cost[cut] < best_cost:
            best_cost, best_ids, best_cut = cost[cut], ranked, cut + 1
    return best_ids, best_cut


def build(lo: Floats, hi: Floats) -> Tree:
    """Tree over N boxes given by their corners lo [N, 3] and hi [N, 3]."""
    nodes_lo, nodes_hi = [lo.min(0)], [hi.max(0)]
    first, count, order = [0], [0], []
    work = [(0, np.arange(len(lo)))]
    while work:
        node, ids = work.pop()
        if len(ids) <= LEAF:
            first[node], count[node] = len(order), len(ids)
            order.extend(ids.tolist())
            continue
        ranked, cut = _split(lo, hi, ids)
        first[node] = len(first)
        for child in (ranked[:cut], ranked[cut:]):
            work.append((len(first), child))
            nodes_lo.append(lo[child].min(0))
            nodes_hi.append(hi[child].max(0))
            first.append(0)
            count.append(0)
    return Tree(
        np.stack(nodes_lo), np.stack(nodes_hi), np.asarray(first), np.asarray(count),
        np.asarray(order),
    )  # fmt: skip
