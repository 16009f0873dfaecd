"""Where the scene is: a sphere around what matters, the depth range, and which way is up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from render.camera import Camera
from render.scenes.types import Bounds


def bounds_of_points(xyz: Tensor, cameras: Sequence[Camera] = ()) -> Bounds:
    """Sphere around points [N, 3]; a few stray points do not blow it up.

    The centre is the middle of the 1 % to 99 % box, the radius the 99 % distance from it.
    """
    points = xyz.double()
    if len(points) > 200_000:  # percentiles of an even sample are the same to any useful digit
        points = points[:: len(points) // 100_000]
    low, high = (torch.quantile(points, q, dim=0) for q in (0.01, 0.99))
    center = 0.5 * (low + high)
    radius = float(torch.quantile((points - center).norm(dim=1), 0.99))
    radius = max(radius * 1.02, 1e-6 * float(center.norm()), 1e-6)
    return Bounds(center, radius, *_depth_range(center, radius, cameras))


def bounds_of_cameras(cameras: Sequence[Camera]) -> Bounds:
    """Sphere that the cameras look at: around the point nearest to all optical axes.

    Where the axes are parallel (one camera, a flat array) the centre lies in front of the
    cameras, at the distance over which they are spread.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    forward = torch.stack([camera.forward for camera in cameras])  # [V, 3]
    forward = torch.nn.functional.normalize(forward, dim=1)
    projector = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    normal_matrix = projector.sum(0)  # [3, 3]
    smallest = float(torch.linalg.eigvalsh(normal_matrix)[0])
    middle = positions.mean(0)
    spread = float((positions - middle).norm(dim=1).max())
    center = middle + forward.mean(0) * (spread if spread > 0 else 1.0)
    if smallest > 1e-3 * len(cameras):
        crossing = torch.linalg.solve(normal_matrix, (projector @ positions[..., None]).sum(0))[
            :, 0
        ]
        ahead = ((crossing - positions) * forward).sum(1)
        if float((ahead > 0).double().mean()) > 0.5:  # cameras that look outward cross behind
            center = crossing
    distance = ((center - positions) * forward).sum(1).clamp_min(1e-6)  # [V]
    half_angle = torch.tensor(
        [
            math.atan(0.5 * min(c.width / float(c.focal[0]), c.height / float(c.focal[1])))
            for c in cameras
        ],
        dtype=torch.float64,
    )
    radius = float((distance * half_angle.sin()).median())
    return Bounds(center, radius, *_depth_range(center, radius, cameras))


def up_of_cameras(cameras: Sequence[Camera]) -> Tensor:
    """Unit vector [3] that points up in the world.

    Photographs are mostly taken level, so every camera's x axis is horizontal: up is the
    direction most perpendicular to all of them. Where that is undecided (a single camera, a
    straight row), the mean of the cameras' own up directions.
    """
    if not cameras:
        return torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    right = torch.stack([camera.world_to_camera[0, :3] for camera in cameras])
    mean_up = torch.stack([-camera.world_to_camera[1, :3] for camera in cameras]).mean(0)
    values, vectors = torch.linalg.eigh(right.T @ right / len(cameras))
    up = vectors[:, 0]
    if float(mean_up @ up) < 0:
        up = -up
    decided = float(values[1]) > 0.05 and float(values[0]) < 0.2 * float(values[1])
    if not decided or float(torch.nn.functional.normalize(mean_up, dim=0) @ up) < 0.3:
        up = mean_up
    up = torch.nn.functional.normalize(up, dim=0)
    axis = torch.zeros(3, dtype=torch.float64)
    axis[int(up.abs().argmax())] = up[int(up.abs().argmax())].sign()
    return axis if float(up @ axis) > math.cos(math.radians(2)) else up


def _depth_range(center: Tensor, radius: float, cameras: Sequence[Camera]) -> tuple[float, float]:
    """Nearest and farthest depth of the sphere over all cameras; around 0 without cameras."""
    if not cameras:
        return 0.01 * radius, 10.0 * radius
    depth = torch.stack([camera.to_camera(center)[2] for camera in cameras])
    near = max(float(depth.min()) - radius, 0.01 * radius)
    return near, max(float(depth.max()), near) + radius
