"""The pose of the window's camera, and how a shown pose follows its target smoothly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from render.camera import Camera

Vector = np.ndarray  # [3] float64

# (1 + x) exp(-x) = 1/2: the half life of a critically damped spring that starts at rest, times
# its angular frequency.
_HALF_LIFE = 1.6783469900166605
# What is left below this share of the field of view is under a tenth of a pixel.
_VISIBLE = 5e-5
# How far a rotation read from a file may be from orthonormal and still be shown unchanged.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Pose:
    """Where the camera is and looks; its pivot lies on its axis.

    Args:
        position: optical centre, [3] float64, scene units.
        rotation: camera to world, OpenCV axes.
        distance: from the optical centre to the pivot, scene units, > 0.
        fov_y: vertical field of view in radians.
        exact: [4, 4] world-to-camera of the photograph this pose was taken from. It equals
            ``position`` and ``rotation`` up to the rounding of the file, which it keeps, so that
            the picture is the very one that evaluation renders.
    """

    position: Vector
    rotation: Rotation
    distance: float
    fov_y: float
    exact: np.ndarray | None = None

    @classmethod
    def from_matrix(
        cls, world_to_camera: np.ndarray, fov_y: float, center: Vector, nearest: float
    ) -> Pose:
        """From a world-to-camera [4, 4]; the pivot is the point of the axis nearest ``center``.

        ``nearest`` is the least distance of the pivot. A matrix that is not a rotation gives the
        nearest rotation.

        Raises:
            ValueError: numbers that are not finite, a mirrored or singular matrix, or a field of
                view outside (0, pi).
        """
        if not (np.isfinite(world_to_camera).all() and 0.0 < fov_y < math.pi):
            raise ValueError(
                "camera pose: expected finite numbers and a field of view between 0 and 180 "
                f"degrees, got {math.degrees(fov_y):g} degrees and {world_to_camera.tolist()}"
            )
        block = world_to_camera[:3, :3]
        if np.linalg.det(block) <= 0.0:
            raise ValueError(f"camera pose: expected a rotation, got {block.tolist()}")
        position = -np.linalg.solve(block, world_to_camera[:3, 3])  # block may hold rounding
        rotation = Rotation.from_matrix(block.T)
        along = float((center - position) @ rotation.as_matrix()[:, 2])
        is_rotation = np.abs(block @ block.T - np.eye(3)).max() < _ROUNDING
        exact = world_to_camera.copy() if is_rotation else None
        return cls(position, rotation, max(along, nearest), fov_y, exact)

    @property
    def axes(self) -> np.ndarray:
        """[3, 3]: the columns are right, down and forward in the world."""
        return self.rotation.as_matrix()

    @property
    def forward(self) -> Vector:
        """Unit viewing direction, [3]."""
        return self.axes[:, 2]

    @property
    def pivot(self) -> Vector:
        """The point that the camera turns around, [3]."""
        return self.position + self.distance * self.forward

    def world_to_camera(self) -> np.ndarray:
        """[4, 4] rigid transform, OpenCV axes."""
        if self.exact is not None:
            return self.exact
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes.T
        matrix[:3, 3] = -self.axes.T @ self.position
        return matrix


def _difference(pose: Pose, other: Pose, at_pivot: bool) -> np.ndarray:
    """What ``other`` lacks to be ``pose``, [8].

    A rotation vector, the shift of the anchor (pivot or optical centre), the log of the ratio of
    the distances, and the field of view.
    """
    turn = (pose.rotation * other.rotation.inv()).as_rotvec()
    shift = pose.pivot - other.pivot if at_pivot else pose.position - other.position
    zoom = math.log(pose.distance / other.distance)
    return np.concatenate([turn, shift, [zoom, pose.fov_y - other.fov_y]])


def _moved(pose: Pose, difference: np.ndarray, at_pivot: bool) -> Pose:
    """The inverse of :func:`_difference`: the pose that is this far from ``pose``."""
    rotation = Rotation.from_rotvec(difference[:3]) * pose.rotation
    distance = pose.distance * math.exp(difference[6])
    position = (pose.pivot if at_pivot else pose.position) + difference[3:6]
    if at_pivot:
        position = position - distance * rotation.as_matrix()[:, 2]
    return Pose(position, rotation, distance, pose.fov_y + float(difference[7]))


def _visible(difference: np.ndarray, pose: Pose) -> bool:
    """Whether a picture taken at ``pose`` would change by a visible amount."""
    amount = np.abs(difference)
    amount[3:6] /= pose.distance
    return bool(amount.max() > _VISIBLE * pose.fov_y)


class Follower:
    """A pose that follows a target like a critically damped spring, exact for any frame time.

    Such a spring is two equal low-pass filters in a row: ``middle`` follows the target and
    ``shown`` follows ``middle``. Distances move on a logarithmic scale, rotations along the
    shortest arc. With the pivot as the anchor the camera moves on an arc around it; with the
    optical centre as the anchor it turns its head in place.
    """

    def __init__(self, pose: Pose) -> None:
        self.target = self.shown = self._middle = pose
        self.at_pivot = True  # which point moves straight: the pivot or the optical centre

    @property
    def moving(self) -> bool:
        """Whether the shown pose is not yet the target."""
        return self.shown is not self.target

    def snap(self) -> None:
        """Show the target now."""
        self.shown = self._middle = self.target

    def advance(self, dt: float, half_life: float) -> bool:
        """One frame of ``dt`` seconds.

        From rest, ``half_life`` seconds cover half the way. What is too little to be seen is
        skipped: the shown pose becomes the target.

        Returns:
            whether the shown pose is still on its way.
        """
        if not self.moving:
            return False
        x = math.inf if half_life <= 0.0 else _HALF_LIFE * dt / half_life
        decay = math.exp(-x)
        if decay == 0.0:
            self.snap()
            return False
        left = decay * _difference(self._middle, self.target, self.at_pivot)
        lag = decay * _difference(self.shown, self._middle, self.at_pivot) + x * left
        if _visible(left, self.target) or _visible(lag, self.target):
            self._middle = _moved(self.target, left, self.at_pivot)
            self.shown = _moved(self._middle, lag, self.at_pivot)
        else:
            self.snap()
        return self.moving


def camera_at(pose: Pose, width: int, height: int) -> Camera:
    """The pinhole camera at ``pose``: square pixels, principal point in the middle."""
    focal = 0.5 * height / math.tan(0.5 * pose.fov_y)
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Camera(torch.tensor(pose.world_to_camera()), torch.tensor(K), width, height)
