"""Compositing of Gaussians in Numba: the algorithm of ``cuda/gs_cpu.cpp``.

Without fastmath the arithmetic gives the same bits, but for the order in which gradients are summed
over pixels. Instead of 16 pixels at once, each row visits only the pixels inside the footprint's
ellipse. ``gaussians_numba`` shares the tiles out to threads. All in one file, because Numba's cache
does not see changes in another.
"""

from __future__ import annotations

import math

import numpy as np

from render.kbuffer.numba_impl import jit

TILE = 16
GEOMETRY = 6  # gradient of x, y, a, b, c, opacity

# float32 constants: a Python float would promote the arithmetic to float64
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_ALPHA_MIN = np.float32(1) / np.float32(255)
_ALPHA_MAX = np.float32(0.999)
_T_MIN = np.float32(1e-4)
_SIGMA_MAX = np.float32(15)
_BELOW_ONE = np.float32(0.99999994)
_TINY = np.float32(1e-12)
_LOG2_E = np.float32(-1.44269504)
# 2^f for f in [0, 1): the numbers of gs_core.h
_E5, _E4, _E3 = (np.float32(v) for v in (1.86713226e-3, 9.01702512e-3, 5.57999164e-2))
_E2, _E1 = (np.float32(v) for v in (2.40164444e-1, 6.93151295e-1))
_POWERS = 0.5 ** np.arange(24, dtype=np.float32)  # 2^-n


# ---------------------------------------------------------------------------- one pixel
@jit
def _exp_neg(s):
    """exp(-s) for s in [0, 16)."""
    t = s * _LOG2_E
    whole = np.floor(t)
    f = t - whole
    p = _E5 * f + _E4
    p = p * f + _E3
    p = p * f + _E2
    p = p * f + _E1
    p = p * f + _ONE
    return p * _POWERS[-int(whole)]


@jit
def _sigma_at(g, dx, dy):
    return _HALF * g[2] * dx * dx + g[3] * dx * dy + _HALF * g[4] * dy * dy


@jit
def _alpha_at(g, dx, dy):
    sigma = _sigma_at(g, dx, dy)
    if not sigma < _SIGMA_MAX:
        return _ZERO
    alpha = min(g[5] * _exp_neg(max(sigma, _ZERO)), _ALPHA_MAX)
    return alpha if alpha >= _ALPHA_MIN else _ZERO


@jit
def _add_alpha_gradient(row, g, dx, dy, alpha, v):
    """Adds dL/d(x, y, a, b, c, opacity), where ``v`` is dL/dalpha."""
    if alpha >= _ALPHA_MAX:
        return  # clamped: flat
    vs = -alpha * v
    row[0] += vs * (g[2] * dx + g[3] * dy)
    row[1] += vs * (g[3] * dx + g[4] * dy)
    row[2] += _HALF * vs * dx * dx
    row[3] += vs * dx * dy
    row[4] += _HALF * vs * dy * dy
    row[5] += v * alpha / g[5]


@jit
def _span(low, high, first, last):
    """Pixels of [first, last] whose centres lie in [low, high], both in pixels."""
    a = min(max(low - 0.5, float(first)), float(last + 1))
    b = max(min(high - 0.5, float(last)), float(first - 1))
    return math.ceil(a), math.floor(b)


@jit
def _columns(g, rim, dy, left, right):
    """Columns of the row at ``dy`` where alpha can reach 1/255; a little wide."""
    a, b, c, y = np.float64(g[2]), np.float64(g[3]), np.float64(g[4]), np.float64(dy)
    if not a > 0.0:
        return left, right
    root = (b * b - a * c) * y * y + 2.0 * a * (rim + 1e-5)
    if root < -1e-4 * (b * b + a * c) * y * y:
        return 0, -1
    reach = math.sqrt(max(root, 0.0)) / a
    reach += 0.01 + 1e-3 * reach
    center = g[0] + b * y / a
    return _span(center - reach, center + reach, left, right)


# ---------------------------------------------------------------------------- tile lists
@jit
def rims(splats):
    """Sigma where alpha = 1/255, [M]: the rim of the footprint."""
    out = np.empty(splats.shape[0], np.float32)
    for r in range(splats.shape[0]):
        out[r] = max(np.log(splats[r, 5] / _ALPHA_MIN), _TINY)
    return out


@jit
def count(begin, end, rects, columns, counts):
    for r in range(begin, end):
        for y in range(rects[r, 2], rects[r, 3] + 1):
            for x in range(rects[r, 0], rects[r, 1] + 1):
                counts[y * columns + x] += 1


@jit
def scatter(begin, end, rects, columns, ranks, cursors):
    for r in range(begin, end):
        for y in range(rects[r, 2], rects[r, 3] + 1):
            for x in range(rects[r, 0], rects[r, 1] + 1):
                tile = y * columns + x
                ranks[cursors[tile]] = r
                cursors[tile] += 1


# ---------------------------------------------------------------------------- forward
@jit
def _insert(weight, rank, w, r):
    """Replaces the lightest (of equals the farther one); returns what the next must exceed."""
    least, lightest, second = 0, weight[0], np.float32(2)
    for i in range(1, weight.shape[0]):
        if weight[i] <= lightest:
            least, lightest, second = i, weight[i], lightest
        else:
            second = min(second, weight[i])
    for i in range(least, weight.shape[0] - 1):
        weight[i] = weight[i + 1]
        rank[i] = rank[i + 1]
    weight[-1] = w
    rank[-1] = r
    return min(second, w)


@jit
def _finish_pixel(y, x, splats, rim, ids, z, index, depth, distance, weight):
    """Ranks become Gaussians; the filled slots move to the front, in depth order."""
    k = index.shape[2]
    n = 0
    for i in range(k):
        r = index[y, x, i]
        if r < 0:
            continue
        g = splats[r]
        sigma = _sigma_at(g, g[0] - (np.float32(x) + _HALF), g[1] - (np.float32(y) + _HALF))
        index[y, x, n] = ids[r]
        weight[y, x, n] = weight[y, x, i]
        depth[y, x, n] = z[r]
        distance[y, x, n] = min(max(sigma * (_ONE / rim[r]), _ZERO), _BELOW_ONE)
        n += 1
    for i in range(n, k):
        index[y, x, i] = -1
        weight[y, x, i] = _ZERO
        depth[y, x, i] = -_ONE
        distance[y, x, i] = -_ONE


@jit
def forward(
    begin, end, columns, starts, ranks, splats, extent, rim, ids, z, values,
    index, depth, distance, weight, transmittance, image, last,
):  # fmt: skip
    height, width, k = index.shape
    channels = image.shape[2]
    threshold = np.empty((TILE, TILE), np.float32)
    for tile in range(begin, end):
        left, top = tile % columns * TILE, tile // columns * TILE
        right, bottom = min(left + TILE, width) - 1, min(top + TILE, height) - 1
        threshold[:] = _ZERO
        still_open = (right - left + 1) * (bottom - top + 1)
        for j in range(starts[tile], starts[tile + 1]):
            if still_open == 0:  # every pixel full: nothing behind can be seen
                break
            r = ranks[j]
            g = splats[r]
            reach = np.float64(extent[r, 1])
            y0, y1 = _span(g[1] - reach, g[1] + reach, top, bottom)
            for y in range(y0, y1 + 1):
                dy = g[1] - (np.float32(y) + _HALF)
                x0, x1 = _columns(g, rim[r], dy, left, right)
                for x in range(x0, x1 + 1):
                    T = transmittance[y, x]
                    if T < _T_MIN:
                        continue
                    alpha = _alpha_at(g, g[0] - (np.float32(x) + _HALF), dy)
                    if alpha == _ZERO:
                        continue
                    w = alpha * T
                    transmittance[y, x] = T - w
                    if T - w < _T_MIN:
                        still_open -= 1
                    if k > 0 and threshold[y - top, x - left] < w:
                        threshold[y - top, x - left] = _insert(weight[y, x], index[y, x], w, r)
                    if channels > 0:
                        last[y, x] = j + 1 - starts[tile]
                        for c in range(channels):
                            image[y, x, c] += w * values[ids[r], c]
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                _finish_pixel(y, x, splats, rim, ids, z, index, depth, distance, weight)


# ---------------------------------------------------------------------------- gradients by tile
@jit
def _grown(array, used):
    """``array``, or a copy of twice its length where no entry is left."""
    return array if used < array.shape[0] else np.concatenate((array, np.empty_like(array)))


@jit
def reduce(begin, end, ids, rows, d_splats, d_values):
    for i in range(ids.shape[0]):
        g = ids[i]
        if begin <= g < end:
            for c in range(GEOMETRY):
                d_splats[g, c] += rows[i, c]
            for c in range(d_values.shape[1]):
                d_values[g, c] += rows[i, GEOMETRY + c]


@jit
def backward(
    begin, end, columns, starts, ranks, splats, extent, rim, ids, values, transmittance, last,
    d_image, d_alpha,
):  # fmt: skip
    """All contributions, back to front: T in front of each is recovered by division."""
    height, width, channels = d_image.shape
    owner, rows = np.empty(64, np.int32), np.empty((64, GEOMETRY + channels), np.float32)
    used = 0
    through = np.empty((TILE, TILE), np.float32)
    behind = np.empty((TILE, TILE), np.float32)  # colour behind, as its dot product with d_image
    for tile in range(begin, end):
        left, top = tile % columns * TILE, tile // columns * TILE
        right, bottom = min(left + TILE, width) - 1, min(top + TILE, height) - 1
        farthest = 0
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                through[y - top, x - left] = transmittance[y, x]
                farthest = max(farthest, last[y, x])
        behind[:] = _ZERO
        for j in range(farthest - 1, -1, -1):
            r = ranks[starts[tile] + j]
            g = splats[r]
            touched = False
            reach = np.float64(extent[r, 1])
            y0, y1 = _span(g[1] - reach, g[1] + reach, top, bottom)
            for y in range(y0, y1 + 1):
                dy = g[1] - (np.float32(y) + _HALF)
                x0, x1 = _columns(g, rim[r], dy, left, right)
                for x in range(x0, x1 + 1):
                    if last[y, x] <= j:
                        continue
                    dx = g[0] - (np.float32(x) + _HALF)
                    alpha = _alpha_at(g, dx, dy)
                    if alpha == _ZERO:
                        continue
                    if not touched:
                        touched = True
                        owner, rows = _grown(owner, used), _grown(rows, used)
                        owner[used] = ids[r]
                        rows[used] = _ZERO
                        used += 1
                    row = rows[used - 1]
                    inverse = _ONE / (_ONE - alpha)
                    T = through[y - top, x - left] * inverse
                    through[y - top, x - left] = T
                    w = alpha * T
                    dot = _ZERO
                    for c in range(channels):
                        row[GEOMETRY + c] += w * d_image[y, x, c]
                        dot += d_image[y, x, c] * values[ids[r], c]
                    opacity = d_alpha[y, x] * transmittance[y, x]
                    v = dot * T + (opacity - behind[y - top, x - left]) * inverse
                    behind[y - top, x - left] += w * dot
                    _add_alpha_gradient(row, g, dx, dy, alpha, v)
    return owner[:used], rows[:used]


# ---------------------------------------------------------------------------- the K layers
@jit
def _share_scale(weight, transmittance):
    """A / S: what the K kept weights are multiplied with to stand for the whole pixel."""
    total = _ZERO
    for k in range(weight.shape[0]):
        total += weight[k]
    return (_ONE - transmittance) / total if total > _ZERO else _ZERO


@jit
def layers_forward(begin, end, index, weight, transmittance, values, image, per_layer):
    width, layers = index.shape[1:]
    channels, features = image.shape[2], per_layer.shape[3]
    for y in range(begin, end):
        for x in range(width):
            scale = _share_scale(weight[y, x], transmittance[y, x])
            for k in range(layers):
                g = index[y, x, k]
                if g < 0:
                    break
                w = weight[y, x, k] * scale
                for c in range(channels):
                    image[y, x, c] += w * values[g, c]
                for f in range(features):
                    per_layer[y, x, k, f] = w * values[g, channels - features + f]


@jit
def layers_backward(
    begin, end, columns, index, weight, transmittance, values, splats, d_image, d_alpha, d_layers
):
    height, width, layers = index.shape
    channels, features = d_image.shape[2], d_layers.shape[3]
    owner, rows = np.empty(64, np.int32), np.empty((64, GEOMETRY + channels), np.float32)
    used = 0
    slot = np.full(splats.shape[0], -1, np.int64)  # row of each Gaussian in this tile's gradients
    v_weight = np.empty(layers, np.float32)
    for tile in range(begin, end):
        left, top = tile % columns * TILE, tile // columns * TILE
        right, bottom = min(left + TILE, width) - 1, min(top + TILE, height) - 1
        first = used
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                n = 0
                mean = _ZERO
                # dL/d(share of layer k), its mean over the layers, then dL/d(weight of layer k)
                while n < layers and index[y, x, n] >= 0:
                    g = index[y, x, n]
                    v = _ZERO
                    for c in range(channels):
                        v += d_image[y, x, c] * values[g, c]
                    for f in range(features):
                        v += d_layers[y, x, n, f] * values[g, channels - features + f]
                    v_weight[n] = v
                    mean += weight[y, x, n] * v
                    n += 1
                if n == 0:
                    continue
                T = transmittance[y, x]
                scale = _share_scale(weight[y, x], T)
                mean *= scale / (_ONE - T)
                v_opacity = d_alpha[y, x] + mean
                behind = _ZERO  # sum over the layers behind of dL/dw_k w_k
                for k in range(n - 1, -1, -1):
                    g = index[y, x, k]
                    if slot[g] < first:
                        owner, rows = _grown(owner, used), _grown(rows, used)
                        slot[g] = used
                        owner[used] = g
                        rows[used] = _ZERO
                        used += 1
                    row = rows[slot[g]]
                    p = splats[g]
                    dx = p[0] - (np.float32(x) + _HALF)
                    dy = p[1] - (np.float32(y) + _HALF)
                    alpha = _alpha_at(p, dx, dy)
                    w = weight[y, x, k]
                    if alpha > _ZERO:
                        v_w = scale * (v_weight[k] - mean)
                        v = v_w * w / alpha + (v_opacity * T - behind) / (_ONE - alpha)
                        _add_alpha_gradient(row, p, dx, dy, alpha, v)
                        behind += v_w * w
                    share = w * scale
                    for c in range(channels):
                        row[GEOMETRY + c] += share * d_image[y, x, c]
                    for f in range(features):
                        row[GEOMETRY + channels - features + f] += share * d_layers[y, x, k, f]
    return owner[:used], rows[:used]
