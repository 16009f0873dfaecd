"""Projection of Gaussians in Numba: ``cuda/gs_core.h`` and its gradient, line by line.

See there for the formulas. All in one file, because Numba's cache does not see changes elsewhere.
"""

from __future__ import annotations

import math

import numpy as np

from render.kbuffer.numba_impl import jit

# float32 constants: a Python number would promote the arithmetic to float64
_0, _1, _2, _3, _4, _5 = (np.float32(i) for i in range(6))
_HALF = np.float32(0.5)
_ALPHA_MIN = _1 / np.float32(255)
_FAR, _DET_MIN, _DET_MAX = np.float32(1e12), np.float32(1e-12), np.float32(1e24)
_RATIO_MIN = np.float32(2.5e-5)
_WIDEN = np.float32(0.15)
_SH0 = np.float32(0.28209479177387814)
_SH = np.array([0.48860251, 1.09254843, 0.31539157, 0.54627422], np.float32)
_SH3 = np.array([0.59004359, 2.89061144, 0.45704580, 0.37317633, 1.44530572], np.float32)

# Scratch of one Gaussian, so that nothing is allocated in the loop: offsets into one array.
_P, _Q, _R, _SCALE = slice(0, 3), slice(3, 7), slice(7, 16), slice(16, 19)
_B, _NORMAL, _COV, _JW, _J = (
    slice(19, 25), slice(25, 28), slice(28, 31), slice(31, 37), slice(37, 43)
)  # fmt: skip
_NORM, _INV_Z, _PX, _PY, _X_FREE, _Y_FREE, _DET, _DET0, _OPACITY, _COMPENSATION = range(43, 53)
_SIZE = 53


@jit
def _finite(v):
    total = _0
    for x in v:
        total += x * _0
    return total == _0


@jit
def _cross(a, b, out):
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@jit
def _rotation(q, R):
    w, x, y, z = q[0], q[1], q[2], q[3]
    R[0] = _1 - _2 * (y * y + z * z)
    R[1] = _2 * (x * y - w * z)
    R[2] = _2 * (x * z + w * y)
    R[3] = _2 * (x * y + w * z)
    R[4] = _1 - _2 * (x * x + z * z)
    R[5] = _2 * (y * z - w * x)
    R[6] = _2 * (x * z - w * y)
    R[7] = _2 * (y * z + w * x)
    R[8] = _1 - _2 * (x * x + y * y)


@jit
def _held(s, focal, center, size):
    """``s`` = p.x / p.z inside a frustum 30 % wider than half the picture, and whether it was."""
    wide = _WIDEN * size / focal
    low, high = -(center / focal + wide), (size - center) / focal + wide
    return min(max(s, low), high), low <= s <= high


@jit
def _project_one(camera, width, height, antialias, mean, quat, log_scale, logit, o):
    """Fills the scratch ``o``; False when the Gaussian cannot be seen."""
    p, q, R, scale, B, cov, JW, J = o[_P], o[_Q], o[_R], o[_SCALE], o[_B], o[_COV], o[_JW], o[_J]
    for i in range(3):
        row = camera[3 * i : 3 * i + 3]
        p[i] = row[0] * mean[0] + row[1] * mean[1] + row[2] * mean[2] + camera[9 + i]
    if not (p[2] >= camera[19] and p[2] < _FAR):
        return False
    finite = _finite(mean) and _finite(quat) and _finite(log_scale) and math.isfinite(logit)
    if not finite:
        return False
    opacity = _1 / (_1 + np.exp(-logit))
    if not opacity >= _ALPHA_MIN:
        return False
    norm = np.sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3])
    if not (norm > _DET_MIN and math.isfinite(norm)):
        return False
    for i in range(4):
        q[i] = quat[i] / norm
    _rotation(q, R)
    for i in range(3):
        scale[i] = np.exp(log_scale[i])
    fx, fy, z = camera[12], camera[13], _1 / p[2]
    sx, x_free = _held(p[0] * z, fx, camera[14], np.float32(width))
    sy, y_free = _held(p[1] * z, fy, camera[15], np.float32(height))
    px, py = p[2] * sx, p[2] * sy
    J[0], J[1], J[2] = fx * z, _0, -fx * px * z * z
    J[3], J[4], J[5] = _0, fy * z, -fy * py * z * z
    for i in range(0, 6, 3):
        for j in range(3):
            JW[i + j] = J[i] * camera[j] + J[i + 1] * camera[3 + j] + J[i + 2] * camera[6 + j]
        for j in range(3):
            B[i + j] = (JW[i] * R[j] + JW[i + 1] * R[3 + j] + JW[i + 2] * R[6 + j]) * scale[j]
    xx = B[0] * B[0] + B[1] * B[1] + B[2] * B[2]
    xy = B[0] * B[3] + B[1] * B[4] + B[2] * B[5]
    yy = B[3] * B[3] + B[4] * B[4] + B[5] * B[5]
    eps2d = camera[20]
    cov[0], cov[1], cov[2] = xx + eps2d, xy, yy + eps2d
    normal = o[_NORMAL]
    _cross(B[:3], B[3:], normal)
    det0 = normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]
    det = det0 + eps2d * (xx + yy + eps2d)
    if not (det > _DET_MIN and det < _DET_MAX):
        return False
    compensation = np.sqrt(max(det0 / det, _RATIO_MIN)) if antialias else _1
    o[_NORM], o[_INV_Z], o[_PX], o[_PY] = norm, z, px, py
    o[_X_FREE], o[_Y_FREE] = np.float32(x_free), np.float32(y_free)
    o[_DET], o[_DET0], o[_OPACITY], o[_COMPENSATION] = det, det0, opacity, compensation
    return opacity * compensation >= _ALPHA_MIN


@jit
def _view_basis(camera, mean, count, d, out):
    """Spherical harmonics of the viewing direction without the constant."""
    length = _0
    for i in range(3):
        d[i] = mean[i] - camera[16 + i]
        length += d[i] * d[i]
    length = _1 / max(np.sqrt(length), _DET_MIN)
    x, y, z = d[0] * length, d[1] * length, d[2] * length
    if count >= 3:
        out[0], out[1], out[2] = -_SH[0] * y, _SH[0] * z, -_SH[0] * x
    if count >= 8:
        out[3], out[4], out[6] = _SH[1] * x * y, -_SH[1] * y * z, -_SH[1] * x * z
        out[5], out[7] = _SH[2] * (_3 * z * z - _1), _SH[3] * (x * x - y * y)
    if count >= 15:
        out[8], out[9] = -_SH3[0] * y * (_3 * x * x - y * y), _SH3[1] * x * y * z
        out[10] = -_SH3[2] * y * (_5 * z * z - _1)
        out[11] = _SH3[3] * z * (_5 * z * z - _3)
        out[12] = -_SH3[2] * x * (_5 * z * z - _1)
        out[13] = _SH3[4] * z * (x * x - y * y)
        out[14] = -_SH3[0] * x * (x * x - _3 * y * y)


@jit
def project(
    begin, end, camera, width, height, antialias, means, quats, log_scales, logits, sh0, sh_rest,
    splats, depth, extent, rgb,
):  # fmt: skip
    """Rows of Gaussians that are not seen keep what the caller has put there."""
    o, d, basis = np.empty(_SIZE, np.float32), np.empty(3, np.float32), np.empty(15, np.float32)
    count = sh_rest.shape[1]
    for i in range(begin, end):
        if not _project_one(
            camera, width, height, antialias, means[i], quats[i], log_scales[i], logits[i], o
        ):
            continue
        _view_basis(camera, means[i], count, d, basis)
        for c in range(3):
            d[c] = _HALF + _SH0 * sh0[i, c]
            for k in range(count):
                d[c] += basis[k] * sh_rest[i, k, c]
        if not _finite(d):
            continue
        p, cov, det = o[_P], o[_COV], o[_DET]
        opacity = o[_OPACITY] * o[_COMPENSATION]
        splats[i, 0] = camera[12] * p[0] * o[_INV_Z] + camera[14]
        splats[i, 1] = camera[13] * p[1] * o[_INV_Z] + camera[15]
        splats[i, 2], splats[i, 3], splats[i, 4] = cov[2] / det, -cov[1] / det, cov[0] / det
        splats[i, 5] = opacity
        depth[i] = p[2]
        rim = _2 * np.log(opacity / _ALPHA_MIN)
        extent[i, 0] = np.float32(1.00001) * np.sqrt(rim * cov[0]) + np.float32(1e-3)
        extent[i, 1] = np.float32(1.00001) * np.sqrt(rim * cov[2]) + np.float32(1e-3)
        for c in range(3):
            rgb[i, c] = max(d[c], _0)


@jit
def _shape_gradient(camera, antialias, o, g, vB):
    """dL/d(splat) to dL/dB [6]; returns dL/d(opacity before the compensation)."""
    B, cov = o[_B], o[_COV]
    det, inv, eps2d = o[_DET], _1 / o[_DET], camera[20]
    v_xy = -g[3] * inv
    v_det = -(g[2] * cov[2] - g[3] * cov[1] + g[4] * cov[0]) * inv * inv
    v_det0 = _0
    if antialias and o[_DET0] / det > _RATIO_MIN:
        v_ratio = g[5] * o[_OPACITY] * _HALF / o[_COMPENSATION]
        v_det0 = v_ratio * inv
        v_det -= v_ratio * o[_DET0] * inv * inv
    v_xx, v_yy = g[4] * inv + v_det * eps2d, g[2] * inv + v_det * eps2d
    v_normal = _2 * (v_det + v_det0)
    _cross(B[3:], o[_NORMAL], vB[:3])
    _cross(o[_NORMAL], B[:3], vB[3:])
    for j in range(3):
        vB[j] = _2 * v_xx * B[j] + v_xy * B[3 + j] + v_normal * vB[j]
        vB[3 + j] = _2 * v_yy * B[3 + j] + v_xy * B[j] + v_normal * vB[3 + j]
    return g[5] * o[_COMPENSATION]


@jit
def _position_gradient(camera, o, g, vJ, out):
    """dL/d(splat) and dL/dJ to dL/d(mean)."""
    p, z1, fx, fy = o[_P], o[_INV_Z], camera[12], camera[13]
    z2 = z1 * z1
    vx, vy = g[0] * fx * z1, g[1] * fy * z1
    vz = -(g[0] * fx * p[0] + g[1] * fy * p[1]) * z2 - (vJ[0] * fx + vJ[4] * fy) * z2
    vz += _2 * (vJ[2] * fx * o[_PX] + vJ[5] * fy * o[_PY]) * (z2 * z1)
    v_px, v_py = -vJ[2] * fx * z2, -vJ[5] * fy * z2
    # A held point moves with z alone: p.x = z * const.
    if o[_X_FREE] > _0:
        vx += v_px
    else:
        vz += v_px * o[_PX] * z1
    if o[_Y_FREE] > _0:
        vy += v_py
    else:
        vz += v_py * o[_PY] * z1
    for j in range(3):
        out[j] = camera[j] * vx + camera[3 + j] * vy + camera[6 + j] * vz


@jit
def _quat_gradient(o, v, out):
    """dL/dR [9] to dL/d(quat)."""
    q = o[_Q]
    w, x, y, z = q[0], q[1], q[2], q[3]
    v21, v02, v10 = v[7] - v[5], v[2] - v[6], v[3] - v[1]
    out[0] = _2 * (x * v21 + y * v02 + z * v10)
    s01, s02, s12 = v[1] + v[3], v[2] + v[6], v[5] + v[7]
    out[1] = _2 * (-_2 * x * (v[4] + v[8]) + y * s01 + z * s02 + w * v21)
    out[2] = _2 * (x * s01 - _2 * y * (v[0] + v[8]) + z * s12 + w * v02)
    out[3] = _2 * (x * s02 + y * s12 - _2 * z * (v[0] + v[4]) + w * v10)
    along = out[0] * w + out[1] * x + out[2] * y + out[3] * z
    for i in range(4):
        out[i] = (out[i] - along * q[i]) / o[_NORM]


@jit
def project_backward(
    begin, end, camera, width, height, antialias, means, quats, log_scales, logits, extent, rgb,
    d_splats, d_rgb, d_means, d_quats, d_log_scales, d_logits, d_sh0, d_sh_rest,
):  # fmt: skip
    """Rows of Gaussians that are not seen keep what the caller has put there."""
    o, d, basis = np.empty(_SIZE, np.float32), np.empty(3, np.float32), np.empty(15, np.float32)
    vB, vJ, vR = np.empty(6, np.float32), np.empty(6, np.float32), np.empty(9, np.float32)
    count = d_sh_rest.shape[1]
    for i in range(begin, end):
        if not extent[i, 0] > _0:
            continue
        _project_one(
            camera, width, height, antialias, means[i], quats[i], log_scales[i], logits[i], o
        )
        g, R, scale, JW = d_splats[i], o[_R], o[_SCALE], o[_JW]
        v_opacity = _shape_gradient(camera, antialias, o, g, vB)
        for j in range(3):
            v_scale = _0
            for r in range(3):
                vM = JW[r] * vB[j] + JW[3 + r] * vB[3 + j]  # of (R diag(scale))[r, j]
                vR[3 * r + j] = vM * scale[j]
                v_scale += vM * R[3 * r + j]
            d_log_scales[i, j] = v_scale * scale[j]
        for j in range(3):  # B = J (W M): dJ = dB (W M)^T
            vJ[j] = vJ[3 + j] = _0
            for k in range(3):
                wm = (
                    camera[3 * j] * R[k]
                    + camera[3 * j + 1] * R[3 + k]
                    + camera[3 * j + 2] * R[6 + k]
                )
                vJ[j] += vB[k] * (wm * scale[k])
                vJ[3 + j] += vB[3 + k] * (wm * scale[k])
        _position_gradient(camera, o, g, vJ, d_means[i])
        _quat_gradient(o, vR, d_quats[i])
        d_logits[i] = v_opacity * o[_OPACITY] * (_1 - o[_OPACITY])
        _view_basis(camera, means[i], count, d, basis)
        for c in range(3):
            if rgb[i, c] > _0:
                d_sh0[i, c] = _SH0 * d_rgb[i, c]
                for k in range(count):
                    d_sh_rest[i, k, c] = basis[k] * d_rgb[i, c]
