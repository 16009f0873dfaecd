"""Light on the model: soft sun, sky with one diffuse bounce, one mirror bounce (numba).

Every pixel draws its samples from low-discrepancy sequences shifted by a hash of its position,
so a picture depends only on its camera and its seed, never on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from lights import SUN_COLOR, SUN_DIRECTION, SUN_SPREAD, sky, tone
from numba import njit, prange
from tracer import EPS, MISS, Floats, Ints, World, surface, trace

R2_X, R2_Y = 0.7548776662466927, 0.5698402909980532  # the R2 low-discrepancy sequence
SUN = np.array(SUN_DIRECTION)
SKY_REACH = 1.6  # farther surfaces do not darken the sky


@njit
def _hash(x: int) -> float:
    """Number in [0, 1) from an integer."""
    x = (x ^ 61) ^ (x >> 16)
    x = (x * 9) & 0xFFFFFFFF
    x ^= x >> 4
    x = (x * 0x27D4EB2D) & 0xFFFFFFFF
    x ^= x >> 15
    return x / 4294967296.0


@njit
def _around(n: Floats, x: float, y: float, z: float, out: Floats) -> None:
    """Turn (x, y, z), given around the third axis, into the frame of the unit vector n."""
    sign = 1.0 if n[2] >= 0.0 else -1.0
    a = -1.0 / (sign + n[2])
    b = n[0] * n[1] * a
    out[0] = x * (1.0 + sign * n[0] * n[0] * a) + y * b + z * n[0]
    out[1] = x * sign * b + y * (sign + n[1] * n[1] * a) + z * n[1]
    out[2] = -x * sign * n[0] - y * n[1] + z * n[2]


@njit
def _toward_sun(u: float, v: float, out: Floats) -> None:
    """A direction inside the sun's disc."""
    r, phi = SUN_SPREAD * math.sqrt(u), 2.0 * math.pi * v
    _around(SUN, r * math.cos(phi), r * math.sin(phi), 1.0, out)
    out /= math.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)


@njit
def _sun_gloss(s: Floats, d: Floats, roughness: float, f0: float) -> float:
    """Highlight of the sun's disc: GGX lobe, widened by the sun's own size."""
    hx, hy, hz = SUN_DIRECTION[0] - d[0], SUN_DIRECTION[1] - d[1], SUN_DIRECTION[2] - d[2]
    norm = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
    cos_h = max(0.0, (s[0] * hx + s[1] * hy + s[2] * hz) / norm)
    alpha = (roughness + 0.12) ** 2 * 2.0
    spread = cos_h * cos_h * (alpha * alpha - 1.0) + 1.0
    return f0 * min(alpha * alpha / (4.0 * spread * spread * alpha), 40.0)


@njit
def _ambient(z: float) -> float:
    """Rough light of the sky on a surface whose normal has this height, half of it blocked."""
    return 0.42 + 0.14 * z


@njit
def _reflected(
    w: World, p: Floats, d: Floats, u: float, v: float, buf: Floats, stack: Ints, out: Floats
) -> None:
    """Radiance [3] that arrives at p from direction d: the sky, or a simply lit surface."""
    inv, g, s, sun, q = buf[0], buf[6], buf[7], buf[8], buf[9]
    t, n = trace(w, p, d, 50.0, False, stack, inv)
    if n < 0:
        out[0], out[1], out[2] = sky(d[0], d[1], d[2])
        return
    surface(w, n, p, d, t, g, s)
    m = w.table[w.material[n]]
    q[:] = p + t * d + EPS * g
    _toward_sun(u, v, sun)
    lit = max(0.0, s[0] * sun[0] + s[1] * sun[1] + s[2] * sun[2])
    if lit > 0.0:
        blocked, _ = trace(w, q, sun, 50.0, True, stack, inv)
        lit = lit if blocked == MISS else 0.0
    for k in range(3):
        out[k] = m[k] * (lit * SUN_COLOR[k] + _ambient(s[2]))


@njit
def shade(
    w: World, o: Floats, d: Floats, t: float, n: int, shift: Floats, first: int,
    n_sky: int, n_sun: int, buf: Floats, stack: Ints, out: Floats,
) -> None:  # fmt: skip
    """Radiance [3] that leaves the surface at o + t d towards o.

    shift [6] moves this pixel's sequences; `first` numbers this sample among the pixel's.
    buf [12, 3] is scratch space.
    """
    inv, g, s, p, ray, light = buf[0], buf[1], buf[2], buf[3], buf[4], buf[5]
    surface(w, n, o, d, t, g, s)
    m = w.table[w.material[n]]
    p[:] = o + t * d + EPS * g
    out[:] = 0.0
    if m[5] < 0.5:  # metal has no diffuse part
        for i in range(first * n_sun, (first + 1) * n_sun):
            _toward_sun((shift[0] + i * R2_X) % 1.0, (shift[1] + i * R2_Y) % 1.0, ray)
            facing = s[0] * ray[0] + s[1] * ray[1] + s[2] * ray[2]
            if facing <= 0.0:
                continue
            blocked, _ = trace(w, p, ray, 50.0, True, stack, inv)
            if blocked == MISS:
                gloss = _sun_gloss(s, d, m[4], m[3]) * facing
                for k in range(3):
                    out[k] += (m[k] * facing + gloss) * SUN_COLOR[k] / n_sun
        for i in range(first * n_sky, (first + 1) * n_sky):
            u, v = (shift[2] + i * R2_X) % 1.0, 2.0 * math.pi * ((shift[3] + i * R2_Y) % 1.0)
            r = math.sqrt(u)
            _around(s, r * math.cos(v), r * math.sin(v), math.sqrt(1.0 - u), ray)
            # Below the horizon of the flat surface nothing is seen: mirror the direction up.
            dip = g[0] * ray[0] + g[1] * ray[1] + g[2] * ray[2]
            if dip < 0.0:
                ray -= 2.0 * dip * g
            _, other = trace(w, p, ray, SKY_REACH, False, stack, inv)
            if other < 0:
                light[0], light[1], light[2] = sky(ray[0], ray[1], ray[2])
            else:  # one diffuse bounce: colours bleed, corners are not black
                bounce = w.table[w.material[other]]
                for k in range(3):
                    light[k] = bounce[k] * 0.75
            for k in range(3):
                out[k] += m[k] * light[k] / n_sky
    # The mirror part: Schlick's Fresnel on a slightly jittered reflection.
    u = (shift[4] + first * R2_X) % 1.0
    v = 2.0 * math.pi * ((shift[5] + first * R2_Y) % 1.0)
    r = m[4] * 0.5 * math.sqrt(u)
    facing = -(s[0] * d[0] + s[1] * d[1] + s[2] * d[2])
    ray[:] = d + 2.0 * facing * s
    _around(ray.copy(), r * math.cos(v), r * math.sin(v), 1.0, ray)
    ray /= math.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    dip = g[0] * ray[0] + g[1] * ray[1] + g[2] * ray[2]
    if dip < 0.01:
        ray += (0.01 - dip) * g
        ray /= math.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    fresnel = (1.0 - min(facing, 1.0)) ** 5
    _reflected(w, p, ray, u, (v / (2.0 * math.pi)), buf, stack, light)
    for k in range(3):
        base = m[k] * m[3] if m[5] > 0.5 else m[3]
        grazing = 1.0 if m[5] > 0.5 else 0.35  # dull plastic never turns into a mirror
        out[k] += (base + (grazing - base) * fresnel) * light[k]
    if m[5] > 0.5:
        blocked, _ = trace(w, p, SUN, 50.0, True, stack, inv)
        if blocked == MISS:
            gloss = _sun_gloss(s, d, m[4], 0.5)
            for k in range(3):
                out[k] += gloss * m[k] * SUN_COLOR[k]


@njit
def _camera_ray(pose: Floats, focal: float, half: float, x: float, y: float, d: Floats) -> None:
    """Unit direction d [3] through pixel position (x, y) of an OpenGL camera-to-world pose."""
    u, v = (x - half) / focal, (half - y) / focal
    for k in range(3):
        d[k] = u * pose[k, 0] + v * pose[k, 1] - pose[k, 2]
    d /= math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)


@njit(parallel=True)
def render(
    w: World, pose: Floats, focal: float, size: int, grid: int, n_sky: int, n_sun: int, seed: int
) -> Floats:
    """Picture [size, size, 4]: straight display colour and coverage, in [0, 1].

    grid x grid stratified samples a pixel; colour is the mean of the samples that hit.
    """
    image = np.zeros((size, size, 4))
    for row in prange(size):
        stack, buf = np.empty(64, np.int64), np.empty((12, 3))
        d, color, shift, total = np.empty(3), np.empty(3), np.empty(6), np.empty(3)
        o = pose[:3, 3].copy()
        for col in range(size):
            key = (seed * size + row) * size + col
            for k in range(6):
                shift[k] = _hash(key * 8 + k)
            total[:] = 0.0
            hits = 0
            for i in range(grid * grid):
                jx, jy = _hash(key * 64 + i + 7777), _hash(key * 64 + i + 99991)
                x, y = col + (i % grid + jx) / grid, row + (i // grid + jy) / grid
                _camera_ray(pose, focal, 0.5 * size, x, y, d)
                t, n = trace(w, o, d, 50.0, False, stack, buf[0])
                if n < 0:
                    continue
                hits += 1
                shade(w, o, d, t, n, shift, i, n_sky, n_sun, buf, stack, color)
                for k in range(3):
                    total[k] += tone(color[k])
            if hits > 0:
                image[row, col, :3] = total / hits
                image[row, col, 3] = hits / (grid * grid)
    return image
