"""Where the scene is: a sphere around what matters, the depth range, and which way is up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from render.camera import Camera
from render.scenes.types import Bounds

_OPEN = 2.0  # points that reach this many times as far as cameras look are no single object
_ON_AXIS = math.cos(math.radians(2))  # a direction this near an axis is taken for the axis
_SAMPLE = 3000  # points whose depths are looked at


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
    cameras, at the distance over which they are spread. Cameras that look outward have it in
    their midst, and a radius of twice that distance.
    """
    positions, forward = _rays(cameras)
    middle = positions.mean(0)
    spread = float((positions - middle).norm(dim=1).max())
    spread = spread if spread > 0 else 1.0
    crossing = _crossing(positions, forward)
    center = middle + forward.mean(0) * spread if crossing is None else crossing
    distance = ((center - positions) * forward).sum(1)  # [V]
    if crossing is None and float((distance > 0).double().mean()) < 0.5:
        center, radius = middle, 2 * spread
    else:
        radius = float((distance.clamp_min(1e-6) * _half_angles(cameras).sin()).median())
    return Bounds(center, radius, *_depth_range(center, radius, cameras))


def bounds_of_scene(xyz: Tensor, cameras: Sequence[Camera]) -> Bounds:
    """Sphere around what matters of points [N, 3] that cameras look at.

    An object in front of an empty background is all of its points. Where the points reach far
    beyond what the cameras look at (a room, a street behind the object), the centre is what they
    look at and the radius ends where the cameras stand; the background lies beyond. Of cameras
    that look outward it ends at what they see. ``far`` covers the points in frame in any case.
    """
    around, seen = bounds_of_points(xyz, cameras), bounds_of_cameras(cameras)
    positions, forward = _rays(cameras)
    inward = _crossing(positions, forward) is not None
    if inward and around.radius <= _OPEN * seen.radius:
        return around
    depth, visible = _depths(xyz, cameras)
    known = depth.isfinite()
    if not bool(known.any()):
        return around
    targets = (positions + depth[:, None] * forward)[known]
    center = seen.center if inward else targets.median(0).values
    # Of cameras that look outward it is the targets that are far from the centre.
    reach = max(float((p - center).norm(dim=1).median()) for p in (positions, targets))
    radius = min(around.radius, reach)
    near, far = _depth_range(center, radius, cameras)
    return Bounds(center, radius, min(near, 0.5 * visible[0]), max(far, visible[1]))


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
    return axis if float(up @ axis) > _ON_AXIS else up


def _rays(cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    """Positions and unit viewing directions, each [V, 3] float64."""
    positions = torch.stack([camera.position for camera in cameras])
    forward = torch.stack([camera.forward for camera in cameras])
    return positions, torch.nn.functional.normalize(forward, dim=1)


def _crossing(positions: Tensor, forward: Tensor) -> Tensor | None:
    """The point [3] nearest to all optical axes [V, 3], if there is one and most look at it."""
    projector = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    normal_matrix = projector.sum(0)  # [3, 3]
    if not float(torch.linalg.eigvalsh(normal_matrix)[0]) > 1e-3 * len(positions):
        return None
    target = (projector @ positions[..., None]).sum(0)[:, 0]
    crossing = torch.linalg.solve(normal_matrix, target)
    ahead = ((crossing - positions) * forward).sum(1)
    # Cameras that look outward cross behind them.
    return crossing if float((ahead > 0).double().mean()) > 0.5 else None


def _half_angles(cameras: Sequence[Camera]) -> Tensor:
    """Half the smaller field of view of each camera [V], radians."""
    return torch.tensor(
        [
            math.atan(0.5 * min(c.width / float(c.focal[0]), c.height / float(c.focal[1])))
            for c in cameras
        ],
        dtype=torch.float64,
    )


def _depths(xyz: Tensor, cameras: Sequence[Camera]) -> tuple[Tensor, tuple[float, float]]:
    """Median depth of the points in frame of each camera [V] (NaN: none), 1 % and 99 % of all."""
    sample = xyz[:: max(1, len(xyz) // _SAMPLE)].double()
    medians, all_depths = [], []
    for camera in cameras:
        uv, z = camera.project(sample)
        seen = z[camera.in_frame(uv, z)]
        medians.append(float(seen.median()) if len(seen) else math.nan)
        all_depths.append(seen[:: max(1, len(cameras) // 50)])
    depths = torch.cat(all_depths)
    low, high = (float(depths.quantile(q)) if len(depths) else math.nan for q in (0.01, 0.99))
    return torch.tensor(medians, dtype=torch.float64), (low, high)


def describe_direction(direction: Tensor) -> str:
    """A direction [3] for people: "+z" along an axis, else its components."""
    values = direction.tolist()
    axis = max(range(3), key=lambda i: abs(values[i]))
    if abs(values[axis]) > _ON_AXIS * float(direction.norm()):
        return f"{'-' if values[axis] < 0 else '+'}{'xyz'[axis]}"
    return f"({', '.join(f'{value:.2f}' for value in values)})"


def _depth_range(center: Tensor, radius: float, cameras: Sequence[Camera]) -> tuple[float, float]:
    """Nearest and farthest depth of the sphere over all cameras; around 0 without cameras."""
    if not cameras:
        return 0.01 * radius, 10.0 * radius
    depth = torch.stack([camera.to_camera(center)[2] for camera in cameras])
    near = max(float(depth.min()) - radius, 0.01 * radius)
    return near, max(float(depth.max()), near) + radius
