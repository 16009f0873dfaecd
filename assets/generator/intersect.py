"""Where a ray meets a primitive, and the normal there (numba, local coordinates)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MISS = 1e30


@njit
def _hole_exit(ox: float, oy: float, dx: float, dy: float, t: float, p: Floats) -> float:
    """Where the ray leaves the hole that holds its point at t; -1 when no hole holds it."""
    x, y = ox + t * dx, oy + t * dy
    i = min(max(math.floor(x / p[6] + 0.5 * p[4]), 0.0), p[4] - 1.0)
    j = min(max(math.floor(y / p[7] + 0.5 * p[5]), 0.0), p[5] - 1.0)
    cx, cy = (i - 0.5 * (p[4] - 1.0)) * p[6], (j - 0.5 * (p[5] - 1.0)) * p[7]
    x, y, r = x - cx, y - cy, p[8]
    if p[9] > 0.5:
        if abs(x) > r or abs(y) > r:
            return -1.0
        tx = ((r if dx > 0.0 else -r) - x) / dx
        ty = ((r if dy > 0.0 else -r) - y) / dy
        return t + max(min(tx, ty), 0.0)
    c = x * x + y * y - r * r
    if c > 0.0:
        return -1.0
    a = dx * dx + dy * dy
    b = x * dx + y * dy
    return t + (-b + math.sqrt(max(b * b - a * c, 0.0))) / a


@njit
def hit_box(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, p: Floats, tmin: float
) -> float:
    """First hit beyond tmin with a box, through its holes where it has them."""
    tx0, tx1 = (-p[0] - ox) / dx, (p[0] - ox) / dx
    ty0, ty1 = (-p[1] - oy) / dy, (p[1] - oy) / dy
    tz0, tz1 = (-p[2] - oz) / dz, (p[2] - oz) / dz
    near = max(max(min(tx0, tx1), min(ty0, ty1)), min(tz0, tz1))
    far = min(min(max(tx0, tx1), max(ty0, ty1)), max(tz0, tz1))
    if near > far or far <= tmin:
        return MISS
    if p[4] < 0.5:
        return near if near > tmin else MISS
    t = max(near, tmin)
    leave = _hole_exit(ox, oy, dx, dy, t, p)
    if leave < 0.0:
        return t if near > tmin else MISS
    return leave if leave < far and leave > tmin else MISS


@njit
def hit_frustum(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, p: Floats, tmin: float
) -> float:
    """First hit beyond tmin with a capped cylinder or cone."""
    h, best = p[0], MISS
    mean, slope = 0.5 * (p[1] + p[2]), (p[2] - p[1]) / (2.0 * p[0])
    r, dr = mean + slope * oz, slope * dz
    a = dx * dx + dy * dy - dr * dr
    b = ox * dx + oy * dy - r * dr
    c = ox * ox + oy * oy - r * r
    disc = b * b - a * c
    if disc > 0.0 and abs(a) > 1e-14:
        root = math.sqrt(disc)
        for t in ((-b - root) / a, (-b + root) / a):
            if t > tmin and t < best and abs(oz + t * dz) <= h:
                best = t
    for end, radius in ((-h, p[1]), (h, p[2])):
        t = (end - oz) / dz
        if t > tmin and t < best and (ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= radius * radius:
            best = t
    return best


@njit
def _ring_distance(x: float, y: float, z: float, p: Floats) -> float:
    """Signed distance to a turned rounded rectangle."""
    u, v = abs(math.sqrt(x * x + y * y) - p[0]) - p[1], abs(z) - p[2]
    outside = math.sqrt(max(u, 0.0) ** 2 + max(v, 0.0) ** 2)
    return outside + min(max(u, v), 0.0) - p[3]


@njit
def hit_ring(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, p: Floats, tmin: float
) -> float:
    """First hit beyond tmin with a turned rounded rectangle, by sphere tracing in its bounds."""
    outer, h = p[0] + p[1] + p[3], p[2] + p[3]
    a, b = dx * dx + dy * dy, ox * dx + oy * dy
    disc = b * b - a * (ox * ox + oy * oy - outer * outer)
    if disc <= 0.0:
        return MISS
    root = math.sqrt(disc)
    tz0, tz1 = (-h - oz) / dz, (h - oz) / dz
    t = max(max((-b - root) / a, min(tz0, tz1)), tmin)
    far = min((-b + root) / a, max(tz0, tz1))
    for _ in range(96):
        if t > far:
            return MISS
        d = _ring_distance(ox + t * dx, oy + t * dy, oz + t * dz, p)
        if d < 1e-5:
            return t
        t += d
    return MISS


@njit
def _bevel(distance: float, width: float) -> float:
    """Tilt of the normal at this distance from an edge."""
    return max(0.0, 1.0 - distance / width) ** 1.5


@njit
def _box_normal(
    x: float, y: float, z: float, p: Floats
) -> tuple[float, float, float, float, float, float]:
    ex, ey, ez = p[0] - abs(x), p[1] - abs(y), p[2] - abs(z)
    sx, sy, sz = math.copysign(1.0, x), math.copysign(1.0, y), math.copysign(1.0, z)
    outside = min(ex, ey, ez)
    if p[4] > 0.5:
        i = min(max(math.floor(x / p[6] + 0.5 * p[4]), 0.0), p[4] - 1.0)
        j = min(max(math.floor(y / p[7] + 0.5 * p[5]), 0.0), p[5] - 1.0)
        u = x - (i - 0.5 * (p[4] - 1.0)) * p[6]
        v = y - (j - 0.5 * (p[5] - 1.0)) * p[7]
        if outside > 1e-6:  # the wall of a hole
            if p[9] > 0.5:
                if abs(u) > abs(v):
                    return -math.copysign(1.0, u), 0.0, 0.0, -math.copysign(1.0, u), 0.0, 0.0
                return 0.0, -math.copysign(1.0, v), 0.0, 0.0, -math.copysign(1.0, v), 0.0
            r = math.sqrt(u * u + v * v)
            return -u / r, -v / r, 0.0, -u / r, -v / r, 0.0
        if p[9] < 0.5 and outside == ez:
            r = math.sqrt(u * u + v * v) + 1e-12
            tilt = 0.8 * _bevel(r - p[8], p[3])
            if tilt > 0.0:
                norm = math.sqrt(1.0 + tilt * tilt)
                return 0.0, 0.0, sz, -tilt * u / r / norm, -tilt * v / r / norm, sz / norm
    gx, gy, gz = 0.0, 0.0, 0.0
    if outside == ex:
        gx = sx
    elif outside == ey:
        gy = sy
    else:
        gz = sz
    nx = gx if gx != 0.0 else sx * _bevel(ex, p[3])
    ny = gy if gy != 0.0 else sy * _bevel(ey, p[3])
    nz = gz if gz != 0.0 else sz * _bevel(ez, p[3])
    norm = math.sqrt(nx * nx + ny * ny + nz * nz)
    return gx, gy, gz, nx / norm, ny / norm, nz / norm


@njit
def _frustum_normal(
    x: float, y: float, z: float, p: Floats
) -> tuple[float, float, float, float, float, float]:
    slope = (p[2] - p[1]) / (2.0 * p[0])
    wall = 0.5 * (p[1] + p[2]) + slope * z
    r = math.sqrt(x * x + y * y) + 1e-12
    norm = math.sqrt(1.0 + slope * slope)
    wx, wy, wz = x / r / norm, y / r / norm, -slope / norm
    cap = math.copysign(1.0, z)
    if p[0] - abs(z) < abs(wall - r):  # on a cap
        gx, gy, gz = 0.0, 0.0, cap
        edge = _bevel(wall - r, min(p[3], 0.4 * wall + 1e-9))
        nx, ny, nz = edge * wx, edge * wy, cap + edge * wz
    else:
        gx, gy, gz = wx, wy, wz
        edge = _bevel(p[0] - abs(z), min(p[3], 0.4 * p[0]))
        nx, ny, nz = wx, wy, wz + edge * cap
    norm = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    return gx, gy, gz, nx / norm, ny / norm, nz / norm


@njit
def _ring_normal(
    x: float, y: float, z: float, p: Floats
) -> tuple[float, float, float, float, float, float]:
    r = math.sqrt(x * x + y * y) + 1e-12
    u, v = abs(r - p[0]) - p[1], abs(z) - p[2]
    if u > 0.0 or v > 0.0:
        u, v = max(u, 0.0), max(v, 0.0)
    else:
        u, v = (1.0, 0.0) if u > v else (0.0, 1.0)
    norm = math.sqrt(u * u + v * v) + 1e-12
    u *= math.copysign(1.0, r - p[0]) / norm
    v *= math.copysign(1.0, z) / norm
    return u * x / r, u * y / r, v, u * x / r, u * y / r, v


@njit
def normals(
    kind: int, x: float, y: float, z: float, p: Floats
) -> tuple[float, float, float, float, float, float]:
    """Geometric normal and shading normal (rounded at edges) at a local surface point."""
    if kind == 0:
        return _box_normal(x, y, z, p)
    if kind == 1:
        return _frustum_normal(x, y, z, p)
    return _ring_normal(x, y, z, p)
