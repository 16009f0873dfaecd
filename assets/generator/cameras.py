"""Cameras of the three splits, with the conventions of NeRF-Synthetic (OpenGL axes, z up)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CAMERA_ANGLE_X = 0.6911112070083618
RADIUS = 4.0311289
SIZE = 256
FOCAL = 0.5 * SIZE / math.tan(0.5 * CAMERA_ANGLE_X)
GOLDEN = math.pi * (3.0 - math.sqrt(5.0))


def look_at_origin(azimuth: float, elevation: float) -> Floats:
    """Camera-to-world pose [4, 4] on the sphere of RADIUS; angles in radians."""
    ce, se = math.cos(elevation), math.sin(elevation)
    back = np.array([ce * math.cos(azimuth), ce * math.sin(azimuth), se])
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = RADIUS * back
    return pose


def training_poses(count: int, rng: np.random.Generator) -> list[Floats]:
    """Golden-angle spiral over the upper hemisphere, a little shaken; even in solid angle."""
    height = 0.06 + 0.90 * (np.arange(count) + 0.5) / count + rng.uniform(-0.006, 0.006, count)
    azimuth = GOLDEN * np.arange(count) + rng.uniform(-0.08, 0.08, count)
    return [look_at_origin(a, math.asin(h)) for a, h in zip(azimuth, height, strict=True)]


def validation_poses(count: int, rng: np.random.Generator) -> list[Floats]:
    """Random directions on the upper hemisphere."""
    height, azimuth = rng.uniform(0.1, 0.9, count), rng.uniform(0, 2 * math.pi, count)
    return [look_at_origin(a, math.asin(h)) for a, h in zip(azimuth, height, strict=True)]


def test_poses(count: int) -> list[Floats]:
    """One smooth closed turn around the model, rising and sinking twice."""
    turn = 2 * math.pi * np.arange(count) / count
    elevation = np.radians(32 + 17 * np.sin(2 * turn))
    return [look_at_origin(a, e) for a, e in zip(turn, elevation, strict=True)]


def pixel_rays(pose: Floats) -> tuple[Floats, Floats]:
    """Origins and unit directions [SIZE * SIZE, 3] through the pixel centres, row by row."""
    v, u = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="ij")
    local = np.stack([u - SIZE / 2, SIZE / 2 - v, np.full_like(u, -FOCAL)], -1).reshape(-1, 3)
    directions = local @ pose[:3, :3].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.broadcast_to(pose[:3, 3], directions.shape).copy(), directions


def project(pose: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Pixel positions [N, 2] (centres at +0.5) and camera z [N] of points [N, 3]."""
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    xy = np.stack([local[:, 0], -local[:, 1]], -1) * FOCAL / depth[:, None] + SIZE / 2
    return xy, depth
