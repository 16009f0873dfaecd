"""Matrices of cameras as files give them, checked: poses, and projections taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

_FARTHEST = 1e12  # positions beyond are damage, not a scene


def as_pose(matrix: Any) -> Tensor | None:
    """A camera-to-world or world-to-camera matrix, [4, 4] float64.

    Returns:
        None unless ``matrix`` is 4x4 (or 3x4, without the last row) of finite numbers with a
        right-handed rotation part, which may still contain a uniform scale, and a last row
        0 0 0 1.
    """
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if values.shape == (3, 4):
        values = np.concatenate([values, [[0, 0, 0, 1]]])
    if values.shape != (4, 4) or not np.abs(values).max() < _FARTHEST:  # NaN fails too
        return None
    columns = np.linalg.norm(values[:3, :3], axis=0)
    if columns.min() < 1e-9 or np.linalg.det(values[:3, :3] / columns) < 0.9:
        return None
    if np.abs(values[3] - (0, 0, 0, 1)).max() > 1e-3:
        return None
    return torch.from_numpy(values.copy())


def without_scale(pose: Tensor) -> tuple[Tensor, bool]:
    """The pose with columns of length 1, and whether that changed anything worth telling."""
    lengths = pose[:3, :3].norm(dim=0)
    if bool(((lengths - 1).abs() < 1e-3).all()):
        return pose, False
    pose = pose.clone()
    pose[:3, :3] /= lengths
    return pose, True


def decompose_projection(projection: np.ndarray) -> tuple[Tensor, Tensor] | None:
    """Intrinsics and pose of P = K [R | t], by the RQ decomposition (Hartley & Zisserman 6.2.4).

    Args:
        projection: [3, 4]; its scale and sign are arbitrary.

    Returns:
        K [3, 3] with K[2, 2] = 1 and positive focal lengths, and world-to-camera [4, 4], both
        float64; None when ``projection`` is not finite or no camera.
    """
    P = np.asarray(projection, dtype=np.float64)
    if P.shape != (3, 4) or not np.isfinite(P).all():
        return None
    size = np.abs(P[:, :3]).max()
    with np.errstate(all="ignore"):
        P = P / size
        if not (np.isfinite(P).all() and abs(np.linalg.det(P[:, :3])) > 1e-18):
            return None
        if np.linalg.det(P[:, :3]) < 0:
            P = -P
        # RQ from QR: (J M)^T = Q U, so M = (J U^T J) (J Q^T), where J reverses the rows.
        Q, U = np.linalg.qr(P[::-1, :3].T)
        K, R = U.T[::-1, ::-1], Q.T[::-1]
        signs = np.sign(np.diag(K))
        K, R = K * signs, signs[:, None] * R
        pose = np.eye(4)
        pose[:3, :3] = R
        pose[:3, 3] = np.linalg.solve(K, P[:, 3])
        K = np.triu(K / K[2, 2])
    if not (np.isfinite(K).all() and np.abs(pose).max() < _FARTHEST):
        return None
    return torch.from_numpy(K), torch.from_numpy(pose)
