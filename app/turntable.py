"""Rotations that respect an up axis: heading about it, elevation, and a roll of the camera.

All rotations are camera to world with OpenCV axes; vectors are [3] float64.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation

from app.camera_pose import Vector

_STEEPEST = math.radians(89.9)  # a drag stops here, short of the poles
_POLE = 1e-3  # a view direction closer to the up axis than this (radians) has no heading


def unit(vector: Vector) -> Vector:
    """The vector at length 1.

    Raises:
        ValueError: its length is zero.
    """
    length = float(np.linalg.norm(vector))
    if length == 0.0:
        raise ValueError("expected a direction, got a vector of length zero")
    return vector / length


def upright(forward: Vector, up: Vector, now: Rotation) -> Rotation:
    """The rotation without roll that looks along the unit vector ``forward``.

    Looking straight along ``up`` leaves the heading open: it is taken over from ``now``.
    """
    right = np.cross(forward, up)
    if np.linalg.norm(right) < _POLE:
        flat = [axis - (axis @ up) * up for axis in now.as_matrix().T]
        right = next(axis for axis in flat if np.linalg.norm(axis) > 0.5)
    right = unit(right - (right @ forward) * forward)
    return Rotation.from_matrix(np.stack([right, np.cross(forward, right), forward], 1))


def aim(now: Rotation, forward: Vector, up: Vector) -> Rotation:
    """Look along the unit vector ``forward`` with the roll that ``now`` has."""
    roll = upright(now.as_matrix()[:, 2], up, now).inv() * now
    return upright(forward, up, now) * roll


def drag(now: Rotation, up: Vector, right: float, down: float) -> Rotation:
    """Turn the view by angles (radians) to its right and down; never over the poles.

    The angles are measured along the sides of the picture, so that a drag moves a rolled picture
    with the mouse as well. The roll stays as it is.
    """
    axes = now.as_matrix()
    forward = axes[:, 2]
    level = upright(forward, up, now)
    horizon = level.as_matrix()[:, 0]
    cos, sin = float(axes[:, 0] @ horizon), float(axes[:, 1] @ horizon)
    right, down = cos * right + sin * down, cos * down - sin * right
    height = float(forward @ up)
    elevation = math.atan2(height, float(np.linalg.norm(forward - height * up)))
    lowest, highest = min(-_STEEPEST, elevation), max(_STEEPEST, elevation)
    pitch = min(max(elevation - down, lowest), highest) - elevation
    return Rotation.from_rotvec(-right * up) * Rotation.from_rotvec(pitch * horizon) * now
