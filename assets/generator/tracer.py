"""Rays through the model: closest and any hits through the tree, normals there (numba).

The compiled code is not cached on disk: Numba would not notice a change in a module it calls.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from bvh import build
from intersect import MISS, hit_box, hit_frustum, hit_ring, normals
from lights import material_table
from numba import njit, prange
from numpy.typing import NDArray
from shapes import Primitives

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
EPS = 2e-4  # offset of secondary rays, scene units


class World(NamedTuple):
    """Everything that a ray can meet."""

    kind: Ints  # [N]
    material: Ints  # [N]
    center: Floats  # [N, 3]
    rotation: Floats  # [N, 3, 3]
    params: Floats  # [N, 10]
    node_lo: Floats  # [M, 3]
    node_hi: Floats  # [M, 3]
    node_first: Ints  # [M]
    node_count: Ints  # [M]
    order: Ints  # [N]
    table: Floats  # [materials, 6]


def make_world(primitives: Primitives) -> World:
    """Primitives with their tree and the material table."""
    tree = build(primitives.lo, primitives.hi)
    return World(*primitives[:5], *tree, material_table())


@njit
def _nonzero(x: float) -> float:
    """The same direction component, but never so small that dividing by it overflows."""
    if abs(x) > 1e-9:
        return x
    return 1e-9 if x >= 0.0 else -1e-9


@njit
def _enter(lo: Floats, hi: Floats, n: int, o: Floats, inv: Floats, best: float) -> float:
    """Distance at which a ray enters node n, MISS when it does not before `best`."""
    t0, t1 = 0.0, best
    for k in range(3):
        a, b = (lo[n, k] - o[k]) * inv[k], (hi[n, k] - o[k]) * inv[k]
        t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
    return t0 if t0 <= t1 else MISS


@njit
def _to_local(w: World, n: int, o: Floats, d: Floats, t: float) -> tuple[float, float, float]:
    """Local coordinates, in primitive n, of the world point o + t d."""
    r, c = w.rotation, w.center
    x, y, z = o[0] + t * d[0] - c[n, 0], o[1] + t * d[1] - c[n, 1], o[2] + t * d[2] - c[n, 2]
    return (
        r[n, 0, 0] * x + r[n, 0, 1] * y + r[n, 0, 2] * z,
        r[n, 1, 0] * x + r[n, 1, 1] * y + r[n, 1, 2] * z,
        r[n, 2, 0] * x + r[n, 2, 1] * y + r[n, 2, 2] * z,
    )


@njit
def _hit(w: World, n: int, o: Floats, d: Floats) -> float:
    """First hit of primitive n."""
    x, y, z = _to_local(w, n, o, d, 0.0)
    r = w.rotation
    u = _nonzero(r[n, 0, 0] * d[0] + r[n, 0, 1] * d[1] + r[n, 0, 2] * d[2])
    v = _nonzero(r[n, 1, 0] * d[0] + r[n, 1, 1] * d[1] + r[n, 1, 2] * d[2])
    q = _nonzero(r[n, 2, 0] * d[0] + r[n, 2, 1] * d[1] + r[n, 2, 2] * d[2])
    if w.kind[n] == 0:
        return hit_box(x, y, z, u, v, q, w.params[n], 1e-7)
    if w.kind[n] == 1:
        return hit_frustum(x, y, z, u, v, q, w.params[n], 1e-7)
    return hit_ring(x, y, z, u, v, q, w.params[n], 1e-7)


@njit
def trace(
    w: World, o: Floats, d: Floats, reach: float, any_hit: bool, stack: Ints, inv: Floats
) -> tuple[float, int]:
    """Closest (or any) hit within `reach`: (distance, primitive), (MISS, -1) when none.

    stack [64] and inv [3] are scratch space of the calling thread.
    """
    for k in range(3):
        inv[k] = 1.0 / _nonzero(d[k])
    best, found, top = reach, -1, 0
    if _enter(w.node_lo, w.node_hi, 0, o, inv, best) < MISS:
        stack[0], top = 0, 1
    while top > 0:
        top -= 1
        n: int = stack[top]
        first: int = w.node_first[n]
        if w.node_count[n] > 0:
            for i in range(first, first + w.node_count[n]):
                t = _hit(w, w.order[i], o, d)
                if t < best:
                    best, found = t, w.order[i]
                    if any_hit:
                        return best, found
            continue
        a = _enter(w.node_lo, w.node_hi, first, o, inv, best)
        b = _enter(w.node_lo, w.node_hi, first + 1, o, inv, best)
        near, far = (first, first + 1) if a <= b else (first + 1, first)
        if max(a, b) < MISS:
            stack[top] = far
            top += 1
        if min(a, b) < MISS:
            stack[top] = near
            top += 1
    return (best, found) if found >= 0 else (MISS, -1)


@njit
def surface(w: World, n: int, o: Floats, d: Floats, t: float, g: Floats, s: Floats) -> None:
    """Geometric normal g [3] and shading normal s [3] at o + t d, both on the ray's side."""
    x, y, z = _to_local(w, n, o, d, t)
    a, b, c, e, f, h = normals(w.kind[n], x, y, z, w.params[n])
    r = w.rotation
    for k in range(3):
        g[k] = r[n, 0, k] * a + r[n, 1, k] * b + r[n, 2, k] * c
        s[k] = r[n, 0, k] * e + r[n, 1, k] * f + r[n, 2, k] * h
    if g[0] * d[0] + g[1] * d[1] + g[2] * d[2] > 0.0:
        g *= -1.0
        s *= -1.0
    facing = s[0] * d[0] + s[1] * d[1] + s[2] * d[2]
    if facing > -0.02:  # a rounded edge must not turn its normal away from the viewer
        s -= (facing + 0.02) * d
        s /= math.sqrt(s[0] ** 2 + s[1] ** 2 + s[2] ** 2)


@njit(parallel=True)
def first_surface(
    w: World, origins: Floats, directions: Floats, reach: float
) -> tuple[Floats, Floats]:
    """Distances [N] (MISS where nothing is hit) and outward normals [N, 3] along unit rays."""
    count = len(origins)
    distance, normal = np.full(count, MISS), np.zeros((count, 3))
    for i in prange(count):
        stack, buf = np.empty(64, np.int64), np.empty((3, 3))
        t, n = trace(w, origins[i], directions[i], reach, False, stack, buf[0])
        if n >= 0:
            distance[i] = t
            surface(w, n, origins[i], directions[i], t, buf[1], buf[2])
            normal[i] = buf[1]
    return distance, normal
