"""A world in which float32 and the methods' constants are at ease, and the exact way back.

Methods take their lengths from the bounds of the scene, so most scenes are trained as they are.
What they cannot help is float32: coordinates far from the origin lose their last digits, and
very large or small ones leave the range that constants such as clip distances are made for. Such
scenes are scaled and moved; axes keep their directions, so that "up" and the choices for it mean
what the file means. The way back is a similarity (uniform scale, rotation, translation: formats
may bring a rotation of their own), kept in float64; everything that leaves or enters the program
goes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from render.camera import Camera, rotation_to_quat
from render.gaussians.harmonics import HARMONICS, rotate_harmonics
from render.gaussians.ply import is_splat_cloud, quat_product
from render.scenes.types import Bounds, PointCloud

Mode = Literal["auto", "on", "off"]

# With these, positions are exact to 6e-6 of the radius: about 0.01 px in a photograph of 2000 px.
_SMALLEST, _LARGEST = 0.01, 100.0  # radius of a scene that is left as it is
_FARTHEST = 100.0  # distance from the origin, in radii
_NO_OFFSET = (0.0, 0.0, 0.0)


def choose_similarity(mode: Mode, bounds: Bounds) -> Tensor | None:
    """The similarity [4, 4] float64 that makes a scene normal; None to leave it alone.

    Args:
        mode: "auto" leaves every scene alone that float32 can hold.
        bounds: of the scene as it was read.

    The scene's centre comes to the origin and its radius becomes 1.
    """
    if mode == "off" or (mode == "auto" and _is_sane(bounds)):
        return None
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3] /= bounds.radius
    out[:3, 3] = -bounds.center / bounds.radius
    return out


def _is_sane(bounds: Bounds) -> bool:
    far = float(bounds.center.norm()) > _FARTHEST * bounds.radius
    return _SMALLEST <= bounds.radius <= _LARGEST and not far


def scale_of(similarity: Tensor) -> float:
    """The factor by which a similarity [4, 4] stretches lengths."""
    return float(similarity[:3, :3].double().det().abs() ** (1 / 3))


def inverse(similarity: Tensor) -> Tensor:
    """The way back, [4, 4] float64; as exact as float64 is, also for extreme factors."""
    linear = similarity[:3, :3].double()
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3] = linear.T / scale_of(similarity) ** 2
    out[:3, 3] = -out[:3, :3] @ similarity[:3, 3].double()
    return out


def offset_of(cloud: PointCloud) -> Tensor:
    """The similarity [4, 4] float64 that adds what was subtracted from a cloud as it was read."""
    out = torch.eye(4, dtype=torch.float64)
    out[:3, 3] = torch.tensor(cloud.offset, dtype=torch.float64)
    return out


def is_identity(similarity: Tensor) -> bool:
    """Whether a similarity [4, 4] moves nothing at all."""
    return torch.equal(similarity.double(), torch.eye(4, dtype=torch.float64))


def place_points(xyz: Tensor, similarity: Tensor) -> Tensor:
    """Points [N, 3] after a similarity [4, 4], float64."""
    return xyz.double() @ similarity[:3, :3].double().T + similarity[:3, 3].double()


def place_camera(camera: Camera, similarity: Tensor) -> Camera:
    """A camera that sees the same picture of a world that a similarity [4, 4] was applied to."""
    factor = scale_of(similarity)
    w2c = camera.world_to_camera
    rotation = w2c[:3, :3] @ similarity[:3, :3].double().T / factor
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3] = rotation
    out[:3, 3] = factor * w2c[:3, 3] - rotation @ similarity[:3, 3].double()
    return replace(camera, world_to_camera=out)


def place_cameras(cameras: Sequence[Camera], similarity: Tensor) -> list[Camera]:
    """:func:`place_camera` of each; the very same cameras where nothing moves."""
    if is_identity(similarity):
        return list(cameras)
    return [place_camera(camera, similarity) for camera in cameras]


def place_cloud(cloud: PointCloud, similarity: Tensor) -> PointCloud:
    """A cloud after a similarity [4, 4]: positions, normals and, where it has them, Gaussians.

    ``offset`` of the cloud is used up; nothing changes where there is none and nothing moves.
    """
    similarity = similarity.double() @ offset_of(cloud)
    if is_identity(similarity):
        return replace(cloud, offset=_NO_OFFSET) if any(cloud.offset) else cloud
    factor = scale_of(similarity)
    rotation = similarity[:3, :3].double() / factor
    normals = cloud.normals
    if normals is not None:
        normals = (normals.double() @ rotation.T).float()
    gaussians = cloud.gaussians
    if gaussians is not None and is_splat_cloud(cloud):
        gaussians = _place_gaussians(gaussians, rotation, factor)
    xyz = place_points(cloud.xyz, similarity).float()
    return replace(cloud, xyz=xyz, normals=normals, gaussians=gaussians, offset=_NO_OFFSET)


def _place_gaussians(
    gaussians: dict[str, Tensor], rotation: Tensor, factor: float
) -> dict[str, Tensor]:
    """Attributes as a 3DGS file has them after a rotation [3, 3] and a scaling."""
    out = dict(gaussians)
    log_factor = torch.tensor(factor, dtype=torch.float64).log()
    out["scale"] = (gaussians["scale"].double() + log_factor).float()
    turn = rotation_to_quat(rotation)
    out["rotation"] = quat_product(turn, gaussians["rotation"].double()).float()
    rest = gaussians.get("f_rest")  # [N, 3 B], channel by channel
    if rest is not None and rest.shape[1] % 3 == 0 and rest.shape[1] // 3 in HARMONICS:
        harmonics = rest.unflatten(1, (3, -1)).transpose(1, 2)  # [N, B, 3]
        turned = rotate_harmonics(harmonics, rotation)
        out["f_rest"] = turned.transpose(1, 2).reshape(len(rest), -1).contiguous()
    return out
