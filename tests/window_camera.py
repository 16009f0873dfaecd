"""Helpers for the tests of the window's camera: a control to play with and random photographs."""

from __future__ import annotations

import math

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from app.camera_control import FOV_RANGE, CameraControl
from render.camera import Camera, intrinsics
from render.scenes.types import Bounds

F64 = torch.float64
Z = torch.tensor([0.0, 0.0, 1.0], dtype=F64)
quick = settings(deadline=None, max_examples=30)
unit = st.floats(-1.0, 1.0, allow_nan=False)
pixels = st.floats(-2000.0, 2000.0)


def vec(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def make(
    radius: float = 2.0, center: Tensor | None = None, smoothing: float = 0.0, up: Tensor = Z
) -> CameraControl:
    """A control around ``center``; without smoothing unless told."""
    center = vec(0.5, -1.0, 0.25) * radius if center is None else center
    control = CameraControl(Bounds(center, radius, 0.1 * radius, 10 * radius), up)
    control.smoothing = smoothing
    return control


def pose(control: CameraControl) -> Tensor:
    return control.camera(64, 48).world_to_camera


def axes(control: CameraControl) -> tuple[Tensor, Tensor, Tensor]:
    """Right, down and forward in the world."""
    right, down, forward = pose(control)[:3, :3]
    return right, down, forward


def position(control: CameraControl) -> Tensor:
    return control.camera(64, 48).position


def distance(control: CameraControl) -> float:
    return float((control.pivot - position(control)).norm())


def settle(control: CameraControl) -> None:
    for _ in range(2000):
        if not control.advance(1 / 60):
            return
    raise AssertionError("the camera never came to rest")


def upright(control: CameraControl, up: Tensor = Z) -> bool:
    """The right axis is level and the picture is not upside down."""
    right, down, _ = axes(control)
    return abs(float(right @ up)) < 1e-9 and float(down @ up) < 0


def check_sane(control: CameraControl) -> None:
    """Finite, orthonormal and right-handed; the pivot in front on the axis; a usable FOV."""
    camera = control.camera(320, 200)
    R = camera.world_to_camera[:3, :3]
    assert camera.world_to_camera.isfinite().all() and camera.K.isfinite().all()
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=F64), atol=1e-12, rtol=0)
    assert float(torch.linalg.det(R)) > 0
    assert FOV_RANGE[0] - 1e-12 <= control.fov_y <= FOV_RANGE[1] + 1e-12
    assert control.pivot.isfinite().all()


def photograph(quat: Tensor, eye: Tensor, fov_y: float = 0.7) -> Camera:
    """A camera off the beaten track: any pose, oblong pixels, principal point off the middle."""
    w2c = Camera.from_colmap(quat, vec(0, 0, 0), torch.eye(3), 1, 1).world_to_camera.clone()
    w2c[:3, 3] = -w2c[:3, :3] @ eye
    fy = 0.5 * 120 / math.tan(0.5 * fov_y)
    return Camera(w2c, intrinsics((1.1 * fy, fy), (70.0, 66.0)), 160, 120)


@st.composite
def photographs(draw: st.DrawFn) -> Camera:
    quat = vec(*(draw(unit) for _ in range(4)))
    quat = quat if float(quat.norm()) > 0.05 else vec(1, 0, 0, 0)
    eye = vec(*(8 * draw(unit) for _ in range(3)))
    return photograph(quat, eye, draw(st.floats(0.1, 2.0)))
