"""The pinhole camera and its conventions (docs/conventions.md).

OpenCV axes: x right, y down, z forward. Pixel column ``c`` covers ``[c, c + 1]`` and has its
centre at ``c + 0.5``; the same holds for rows. Depth is the camera-space z in scene units.
Readers convert at the door with the ``from_*`` constructors; nothing else knows other systems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# OpenGL/Blender cameras look along -z with y up: negate the camera's y and z axes.
_OPENGL_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
# PyTorch3D cameras have x left and y up: negate the camera's x and y axes.
_PYTORCH3D_FLIP = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Args:
        world_to_camera: [4, 4] float64 rigid transform, OpenCV axes.
        K: [3, 3] float64 intrinsics in pixels, half-pixel centres.
        width, height: image size in pixels.
    """

    world_to_camera: Tensor
    K: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, shape in (("world_to_camera", (4, 4)), ("K", (3, 3))):
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            if value.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
            object.__setattr__(self, name, value)
        if self.width < 1 or self.height < 1:
            raise ValueError(f"image size must be positive, got {self.width}x{self.height}")

    # ------------------------------------------------------------------ construction
    @classmethod
    def from_opengl(cls, camera_to_world: Tensor, K: Tensor, width: int, height: int) -> Camera:
        """From a camera-to-world [4, 4] with OpenGL/Blender axes (y up, looking along -z)."""
        c2w = torch.as_tensor(camera_to_world, dtype=torch.float64) @ _OPENGL_FLIP
        return cls(_rigid_inverse(c2w), K, width, height)

    @classmethod
    def from_colmap(cls, qvec: Tensor, tvec: Tensor, K: Tensor, width: int, height: int) -> Camera:
        """From COLMAP's world-to-camera quaternion (w, x, y, z) and translation [3]."""
        w2c = torch.eye(4, dtype=torch.float64)
        w2c[:3, :3] = quat_to_rotation(torch.as_tensor(qvec, dtype=torch.float64))
        w2c[:3, 3] = torch.as_tensor(tvec, dtype=torch.float64)
        return cls(w2c, K, width, height)

    @classmethod
    def from_pytorch3d(
        cls, R: Tensor, T: Tensor, focal_ndc: Tensor, center_ndc: Tensor, width: int, height: int
    ) -> Camera:
        """From PyTorch3D's ``R`` [3, 3] (row vectors: x_cam = x R + T), ``T`` [3], NDC intrinsics.

        NDC spans [-1, 1] on the short image side with +x left and +y up;
        ``focal_ndc`` [2] and ``center_ndc`` [2] are in those units.
        """
        w2c = torch.eye(4, dtype=torch.float64)
        w2c[:3, :3] = torch.as_tensor(R, dtype=torch.float64).T
        w2c[:3, 3] = torch.as_tensor(T, dtype=torch.float64)
        half = 0.5 * min(width, height)
        focal = torch.as_tensor(focal_ndc, dtype=torch.float64) * half
        size = torch.tensor([width, height], dtype=torch.float64)
        center = 0.5 * size - torch.as_tensor(center_ndc, dtype=torch.float64) * half
        return cls(_PYTORCH3D_FLIP @ w2c, intrinsics(focal, center), width, height)

    @classmethod
    def look_at(
        cls,
        eye: Tensor | tuple[float, float, float],
        target: Tensor | tuple[float, float, float],
        up: Tensor | tuple[float, float, float] = (0.0, 0.0, 1.0),
        *,
        fov_x: float = math.radians(39.6),
        width: int = 256,
        height: int = 256,
    ) -> Camera:
        """A camera at ``eye`` [3] looking at ``target`` [3]; ``fov_x`` in radians."""
        eye, target, up = (torch.as_tensor(v, dtype=torch.float64) for v in (eye, target, up))
        forward = torch.nn.functional.normalize(target - eye, dim=0)
        right = torch.linalg.cross(forward, up)
        if right.norm() < 1e-8:  # looking along `up`: any perpendicular axis will do
            axis = torch.eye(3, dtype=torch.float64)[int(forward.abs().argmin())]
            right = torch.linalg.cross(forward, axis)
        right = torch.nn.functional.normalize(right, dim=0)
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])  # [3, 3]
        w2c = torch.eye(4, dtype=torch.float64)
        w2c[:3, :3] = rotation
        w2c[:3, 3] = -rotation @ eye
        focal = 0.5 * width / math.tan(0.5 * fov_x)
        return cls(w2c, intrinsics((focal, focal), (width / 2, height / 2)), width, height)

    # ------------------------------------------------------------------ other conventions
    def to_opengl(self) -> Tensor:
        """Camera-to-world [4, 4] with OpenGL/Blender axes."""
        return self.camera_to_world @ _OPENGL_FLIP

    def to_colmap(self) -> tuple[Tensor, Tensor]:
        """COLMAP's world-to-camera quaternion [4] (w, x, y, z; w >= 0) and translation [3]."""
        return rotation_to_quat(self.world_to_camera[:3, :3]), self.world_to_camera[:3, 3].clone()

    def to_pytorch3d(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """PyTorch3D's ``R`` [3, 3], ``T`` [3], ``focal_ndc`` [2], ``center_ndc`` [2]."""
        w2c = _PYTORCH3D_FLIP @ self.world_to_camera
        half = 0.5 * min(self.width, self.height)
        size = torch.tensor([self.width, self.height], dtype=torch.float64)
        return (
            w2c[:3, :3].T.clone(),
            w2c[:3, 3].clone(),
            self.focal / half,
            (0.5 * size - self.center) / half,
        )

    # ------------------------------------------------------------------ properties
    @property
    def camera_to_world(self) -> Tensor:
        """[4, 4] float64, OpenCV axes."""
        return _rigid_inverse(self.world_to_camera)

    @property
    def position(self) -> Tensor:
        """Optical centre in the world, [3] float64."""
        return self.camera_to_world[:3, 3]

    @property
    def focal(self) -> Tensor:
        """(fx, fy) in pixels, [2] float64."""
        return torch.stack([self.K[0, 0], self.K[1, 1]])

    @property
    def center(self) -> Tensor:
        """Principal point (cx, cy) in pixels, [2] float64."""
        return self.K[:2, 2].clone()

    @property
    def forward(self) -> Tensor:
        """Unit viewing direction in the world, [3] float64."""
        return self.world_to_camera[2, :3].clone()

    # ------------------------------------------------------------------ geometry
    def to_camera(self, xyz: Tensor) -> Tensor:
        """World points [..., 3] in camera space [..., 3], in the dtype of the points."""
        w2c = self.world_to_camera.to(xyz)
        return xyz @ w2c[:3, :3].T + w2c[:3, 3]

    def project(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel positions [..., 2] and depths z [...] of world points [..., 3].

        Positions of points with z <= 0 have no meaning; the caller masks by z.
        """
        p = self.to_camera(xyz)
        z = p[..., 2]
        K = self.K.to(xyz)
        q = p @ K.T
        return q[..., :2] / z[..., None], z

    def in_frame(self, uv: Tensor, z: Tensor) -> Tensor:
        """Which points lie in front of the camera and in the picture: bool [...].

        Args:
            uv: [..., 2] and z: [...], of :meth:`project`.
        """
        size = torch.tensor([self.width, self.height], device=uv.device)
        return (z > 0) & ((uv >= 0) & (uv < size)).all(-1)

    def unproject(self, uv: Tensor, z: Tensor) -> Tensor:
        """World points [..., 3] at pixel positions [..., 2] and depths z [...]."""
        ones = torch.ones_like(uv[..., :1])
        d = torch.cat([uv, ones], -1) @ torch.linalg.inv(self.K).to(uv).T  # z component is 1
        c2w = self.camera_to_world.to(uv)
        return (d * z[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]

    def pixel_centers(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pixel-centre positions (u, v), [H, W, 2]."""
        v, u = torch.meshgrid(
            torch.arange(self.height, dtype=dtype) + 0.5,
            torch.arange(self.width, dtype=dtype) + 0.5,
            indexing="ij",
        )
        return torch.stack([u, v], -1)

    def rays(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """Rays through the pixel centres.

        Returns:
            origin [3], unit world directions [H, W, 3], and ``cos`` [H, W]: depth z gained per
            unit of ray length, so the point at depth z is ``origin + (z / cos) * direction``.
        """
        uv = self.pixel_centers(torch.float64)
        d = torch.cat([uv, torch.ones_like(uv[..., :1])], -1) @ torch.linalg.inv(self.K).T
        d = torch.nn.functional.normalize(d, dim=-1)  # [H, W, 3] camera space
        directions = d @ self.camera_to_world[:3, :3].T
        return self.position.to(dtype), directions.to(dtype), d[..., 2].to(dtype)

    def crop(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of the window whose upper left pixel is (x, y); it may reach outside."""
        K = self.K.clone()
        K[0, 2] -= x
        K[1, 2] -= y
        return replace(self, K=K, width=width, height=height)

    def resize(self, width: int, height: int) -> Camera:
        """The same view at another resolution. With half-pixel centres K simply scales."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0], dtype=torch.float64)
        return replace(self, K=self.K * scale[:, None], width=width, height=height)

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the inverse of :meth:`from_json`."""
        return {
            "world_to_camera": self.world_to_camera.tolist(),
            "K": self.K.tolist(),
            "width": self.width,
            "height": self.height,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Camera:
        """From the dictionary that :meth:`to_json` wrote."""
        return cls(
            torch.tensor(data["world_to_camera"], dtype=torch.float64),
            torch.tensor(data["K"], dtype=torch.float64),
            int(data["width"]),
            int(data["height"]),
        )


def intrinsics(focal: Any, center: Any) -> Tensor:
    """K [3, 3] float64 from (fx, fy) and (cx, cy) in pixels."""
    K = torch.eye(3, dtype=torch.float64)
    K[0, 0], K[1, 1] = float(focal[0]), float(focal[1])
    K[0, 2], K[1, 2] = float(center[0]), float(center[1])
    return K


def quat_to_rotation(quat: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] (w, x, y, z), normalised first."""
    w, x, y, z = torch.nn.functional.normalize(quat, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(*quat.shape[:-1], 3, 3)


def rotation_to_quat(rotation: Tensor) -> Tensor:
    """Quaternion [4] (w, x, y, z; w >= 0) of a rotation matrix [3, 3].

    The quaternion is the eigenvector of the largest eigenvalue of a symmetric 4x4 matrix, which
    stays accurate for every angle (Bar-Itzhack, J. Guid. Control Dyn. 23(6), 2000).
    """
    R = torch.as_tensor(rotation, dtype=torch.float64)
    N = torch.zeros(4, 4, dtype=torch.float64)
    N[0, 0] = R.trace()
    skew = torch.stack([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    N[0, 1:] = N[1:, 0] = skew
    N[1:, 1:] = R + R.T - R.trace() * torch.eye(3, dtype=torch.float64)
    quat = torch.linalg.eigh(N).eigenvectors[:, -1]
    return quat if quat[0] >= 0 else -quat


def _rigid_inverse(transform: Tensor) -> Tensor:
    """Inverse of a [4, 4] transform; exact transposition is not assumed (files hold rounding)."""
    return torch.linalg.inv(transform)


def orbit_path(
    camera: Camera,
    center: Tensor,
    frames: int,
    *,
    up: Tensor | tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> list[Camera]:
    """One turn of ``camera`` around the axis ``up`` [3] through ``center`` [3].

    The first frame is the camera itself; every other one is rotated rigidly, so framing, height
    and focal length stay as they are.
    """
    axis = torch.nn.functional.normalize(torch.as_tensor(up, dtype=torch.float64), dim=0)
    center = torch.as_tensor(center, dtype=torch.float64)
    cameras = []
    for i in range(frames):
        angle = 2 * math.pi * i / frames
        half = torch.tensor([math.cos(angle / 2)], dtype=torch.float64)
        turn = torch.eye(4, dtype=torch.float64)
        turn[:3, :3] = quat_to_rotation(torch.cat([half, math.sin(angle / 2) * axis]))
        turn[:3, 3] = center - turn[:3, :3] @ center
        cameras.append(
            replace(camera, world_to_camera=_rigid_inverse(turn @ camera.camera_to_world))
        )
    return cameras
