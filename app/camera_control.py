"""Orbit and fly with mouse and keys: pure mathematics, no window.

An operation changes the target pose at once; :meth:`CameraControl.camera` follows it smoothly
(:mod:`app.camera_pose`). The pivot always lies on the axis of the target pose, in front of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from app.camera_pose import Follower, Pose, Vector, camera_at
from app.turntable import aim, drag, unit, upright
from render.camera import Camera
from render.scenes.types import Bounds

UpAxis = Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"]

FOV_RANGE = (math.radians(5.0), math.radians(120.0))
SPEED_RANGE = (1 / 64, 64.0)

_ORBIT = 0.005  # radians per pixel of the mouse
_LOOK = 0.0035  # the same at 45 degrees field of view; in proportion to it
_NOTCH = math.log(1.15)  # one notch of the wheel: the distance changes by 15 %
_START_ELEVATION = math.radians(20.0)
_LONGEST_FRAME = 0.25  # seconds: a stalled window must not fling the camera away
# In scene radii: the least and greatest distance of the wheel, the pivot of a photograph that
# looks away from the scene, and how far out one can fly.
_NEAREST, _FARTHEST, _PHOTO_PIVOT, _REACH = 1e-3, 1e3, 0.05, 1e4


class CameraControl:
    """The camera of the window.

    Args:
        bounds: what to look at; its radius is the unit of all speeds and limits.
        up: [3], the scene's up; need not have unit length.
        fov_y: vertical field of view of the start camera, radians.

    Raises:
        ValueError: ``up`` is zero or not finite.
    """

    def __init__(self, bounds: Bounds, up: Tensor, fov_y: float = math.radians(45)) -> None:
        self._center: Vector = _vector(bounds.center)
        # A radius that vanishes beside the coordinates could not be resolved by their rounding.
        radius = bounds.radius if math.isfinite(bounds.radius) else 1.0
        floor = 1e-6 * float(np.linalg.norm(self._center))
        self._radius = max(radius, floor) or 1.0  # a single point at the origin has no size
        self._scene_up = self._up = unit(_vector(up))
        self._start_fov = _clip(fov_y, *FOV_RANGE)
        self._smoothing = 0.08
        self._speed = 1.0
        self._follower = Follower(self._start_pose())

    # ------------------------------------------------------------------ settings
    @property
    def smoothing(self) -> float:
        """Seconds until half of a change is shown; 0 shows it at once."""
        return self._smoothing

    @smoothing.setter
    def smoothing(self, seconds: float) -> None:
        self._smoothing = _clip(seconds, 0.0, 10.0)
        if self._smoothing == 0.0:
            self._follower.snap()

    @property
    def speed(self) -> float:
        """Flying speed in scene radii per second, within ``SPEED_RANGE``."""
        return self._speed

    @speed.setter
    def speed(self, value: float) -> None:
        self._speed = _clip(value, *SPEED_RANGE)

    @property
    def fov_y(self) -> float:
        """Vertical field of view in radians.

        Setting it keeps it within ``FOV_RANGE``; :meth:`go_to` takes over any other value.
        """
        return self._target.fov_y

    @fov_y.setter
    def fov_y(self, value: float) -> None:
        self._set(replace(self._target, fov_y=_clip(value, *FOV_RANGE)))

    @property
    def pivot(self) -> Tensor:
        """The point that :meth:`orbit` turns around, [3] float64."""
        return torch.from_numpy(self._target.pivot.copy())

    @property
    def up(self) -> Tensor:
        """The axis that :meth:`orbit` and :meth:`look` keep upright, unit [3] float64."""
        return torch.from_numpy(self._up.copy())

    @property
    def scene_up(self) -> Tensor:
        """What was found to be up in the scene, unit [3] float64; "auto" of :meth:`set_up`."""
        return torch.from_numpy(self._scene_up.copy())

    @property
    def moving(self) -> bool:
        """Whether the shown pose is still on its way to the target."""
        return self._follower.moving

    # ------------------------------------------------------------------ mouse and keys
    def orbit(self, dx: float, dy: float) -> None:
        """Turn around the pivot by a drag of (dx, dy) pixels: the scene follows the mouse."""
        if not (dx or dy):
            return
        before = self._target
        turned = self._dragged(dx, dy, _ORBIT)
        position = before.pivot - before.distance * turned.as_matrix()[:, 2]
        self._set(replace(before, position=position, rotation=turned, exact=None), at_pivot=True)

    def look(self, dx: float, dy: float) -> None:
        """Turn the head in place by a drag of (dx, dy) pixels: right looks right, down down."""
        if not (dx or dy):
            return
        turned = self._dragged(dx, dy, _LOOK * self.fov_y / math.radians(45))
        self._set(replace(self._target, rotation=turned, exact=None), at_pivot=False)

    def pan(self, dx: float, dy: float, height: int) -> None:
        """Shift sideways by a drag of (dx, dy) pixels in a picture ``height`` pixels high.

        What lies as deep as the pivot stays under the mouse.
        """
        if not (dx or dy):
            return
        pixel = 2.0 * self._target.distance * math.tan(0.5 * self.fov_y) / max(height, 1)
        right, down, _ = self._target.axes.T
        drag = _clip(dx, -1e4, 1e4) * right + _clip(dy, -1e4, 1e4) * down
        self._shift(-pixel * drag, at_pivot=True)

    def dolly(self, notches: float) -> None:
        """Towards the pivot (positive) or away from it, by a share of the distance per notch."""
        before = self._target
        nearest = min(_NEAREST * self._radius, before.distance)
        farthest = max(_FARTHEST * self._radius, before.distance)
        factor = math.exp(-_NOTCH * _clip(notches, -200.0, 200.0))
        distance = _clip(before.distance * factor, nearest, farthest)
        position = before.pivot - distance * before.forward
        self._set(replace(before, position=position, distance=distance, exact=None), at_pivot=True)

    def fly(self, direction: tuple[float, float, float], dt: float, factor: float = 1.0) -> None:
        """Fly for ``dt`` seconds; the pivot moves along.

        Args:
            direction: (right, up, forward), each in [-1, 1]; right and forward are the camera's,
                up is the scene's.
            dt: seconds since the last frame.
            factor: multiplies :attr:`speed`.
        """
        right, up, forward = (_clip(part, -1.0, 1.0) for part in direction)
        axes = self._target.axes
        way = right * axes[:, 0] + up * self._up + forward * axes[:, 2]
        length = float(np.linalg.norm(way))
        if length == 0.0:
            return
        step = self._speed * self._radius * _clip(factor, 0.0, 100.0) / max(length, 1.0)
        self._shift(step * _clip(dt, 0.0, _LONGEST_FRAME) * way, at_pivot=False)

    def focus(self, point: Tensor | Sequence[float] | Vector) -> None:
        """Make ``point`` [3] the pivot and turn to it; a camera too close to it backs off.

        Raises:
            ValueError: the point is not three finite numbers.
        """
        pivot = _vector(point)
        before = self._target
        offset = pivot - before.position
        distance = float(np.linalg.norm(offset))
        if distance < _NEAREST * self._radius:
            distance, rotation = _NEAREST * self._radius, before.rotation
        else:
            rotation = aim(before.rotation, offset / distance, self._up)
        position = pivot - distance * rotation.as_matrix()[:, 2]
        self._set(Pose(position, rotation, distance, before.fov_y), at_pivot=False)

    def roll(self, angle: float) -> None:
        """Tilt the camera clockwise by ``angle`` radians; :meth:`set_up` makes it upright."""
        turn = Rotation.from_rotvec([0.0, 0.0, _clip(angle, -1e4, 1e4)])
        before = self._target
        self._set(replace(before, rotation=before.rotation * turn, exact=None))

    # ------------------------------------------------------------------ jumps
    def reset(self) -> None:
        """Back to the start camera: the whole bounds, from slightly above."""
        self._set(self._start_pose(), at_pivot=True)

    def go_to(self, camera: Camera, *, smooth: bool = True) -> None:
        """Take over this camera's pose, to the last bit, and its vertical field of view.

        The pivot becomes the point of its axis nearest the centre of the bounds, in front of it.

        Raises:
            ValueError: the camera's numbers are no rigid pose or no field of view.
        """
        fov_y = 2.0 * math.atan2(0.5 * camera.height, float(camera.focal[1]))
        nearest = _PHOTO_PIVOT * self._radius
        matrix = camera.world_to_camera.numpy()
        self._set(Pose.from_matrix(matrix, fov_y, self._center, nearest), at_pivot=True)
        if not smooth:
            self._follower.snap()

    def set_up(self, axis: UpAxis) -> None:
        """Choose what is up; the camera keeps its place and axis and rolls upright.

        Raises:
            ValueError: an unknown axis.
        """
        if axis == "auto":
            self._up = self._scene_up
        elif len(axis) == 2 and axis[0] in "+-" and axis[1] in "xyz":
            self._up = (1.0 if axis[0] == "+" else -1.0) * np.eye(3)["xyz".index(axis[1])]
        else:
            raise ValueError(f"up axis: expected auto or a sign and x, y or z, got {axis!r}")
        before = self._target
        rotation = upright(before.forward, self._up, before.rotation)
        self._set(replace(before, rotation=rotation, exact=None))

    # ------------------------------------------------------------------ the shown camera
    def advance(self, dt: float) -> bool:
        """One frame of smoothing, ``dt`` in seconds.

        Returns:
            whether the picture still moves. What is less than a tenth of a pixel is skipped: the
            pose becomes the target exactly and the answer is False.
        """
        return self._follower.advance(_clip(dt, 0.0, math.inf), self._smoothing)

    def camera(self, width: int, height: int) -> Camera:
        """The shown camera: square pixels, principal point in the middle."""
        return camera_at(self._follower.shown, width, height)

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        """The target pose as plain numbers, for :meth:`from_json`; angles in radians."""
        return {
            "world_to_camera": self._target.world_to_camera().tolist(),
            "fov_y": self._target.fov_y,
            "pivot": self._target.pivot.tolist(),
            "up": self._up.tolist(),
        }

    def from_json(self, data: dict[str, Any]) -> None:
        """Take over at once what :meth:`to_json` wrote.

        Raises:
            ValueError: a missing key or numbers that are no pose; nothing has changed then.
        """
        try:
            matrix = np.array(data["world_to_camera"], dtype=np.float64).reshape(4, 4)
            up, pivot = unit(_vector(data["up"])), _vector(data["pivot"])
            pose = Pose.from_matrix(matrix, float(data["fov_y"]), pivot, _NEAREST * self._radius)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"camera state: not what to_json writes ({error})") from error
        self._up = up
        self._set(pose)
        self._follower.snap()

    # ------------------------------------------------------------------ inside
    @property
    def _target(self) -> Pose:
        return self._follower.target

    def _set(self, pose: Pose, *, at_pivot: bool | None = None) -> None:
        """A new target; ``at_pivot`` is the anchor of its motion, None keeps the last one."""
        self._follower.target = pose
        if at_pivot is not None:
            self._follower.at_pivot = at_pivot
        if self._smoothing == 0.0:
            self._follower.snap()

    def _shift(self, offset: Vector, at_pivot: bool) -> None:
        """Move without turning, as far out as ``_REACH`` allows."""
        before = self._target
        position = before.position + offset
        length = np.linalg.norm(position - self._center)
        limit = max(_REACH * self._radius, np.linalg.norm(before.position - self._center))
        if length > limit:
            position = self._center + (limit / length) * (position - self._center)
        self._set(replace(before, position=position, exact=None), at_pivot=at_pivot)

    def _dragged(self, dx: float, dy: float, rate: float) -> Rotation:
        """The target's rotation after a drag of (dx, dy) pixels at ``rate`` radians per pixel."""
        angles = (rate * _clip(pixels, -1e4, 1e4) for pixels in (dx, dy))
        return drag(self._target.rotation, self._up, *angles)

    def _start_pose(self) -> Pose:
        heading = unit(np.cross(self._up, np.eye(3)[int(np.abs(self._up).argmin())]))
        forward = math.cos(_START_ELEVATION) * heading - math.sin(_START_ELEVATION) * self._up
        distance = 1.05 * self._radius / math.sin(0.5 * self._start_fov)
        rotation = upright(forward, self._up, Rotation.identity())
        return Pose(self._center - distance * forward, rotation, distance, self._start_fov)


def _clip(value: float, low: float, high: float) -> float:
    """Within [low, high]; what is no number counts as zero, so that no pose is ever spoilt."""
    return 0.0 + min(max(0.0 if math.isnan(value) else float(value), low), high)


def _vector(value: Tensor | Sequence[float] | Vector) -> Vector:
    plain = value.tolist() if isinstance(value, Tensor) else value
    vector = np.array(plain, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"expected three finite numbers, got {value}")
    return vector
