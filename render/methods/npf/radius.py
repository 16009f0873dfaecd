"""How large a point must be so that the cloud covers the object."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from render.camera import Camera
from render.scenes.spacing import neighbour_distances

_COVER = 4.0  # points that should cover a pixel of the nearest surface, on average
_MIN_RADIUS_PX = 0.5


def covering_radius(xyz: Tensor, cameras: list[Camera], samples: int = 2000) -> float:
    """NDC radius with which points [N, 3] on a surface cover it in the pictures of ``cameras``.

    On a surface with rho random points per unit area the mean distance to the nearest neighbour
    is d = 0.5 / sqrt(rho). A disc of radius R holds pi R^2 rho points, so R = 2 d sqrt(c / pi)
    covers a pixel with c points on average (c = 4 leaves e^-4 = 2 % holes). R is projected at the
    median depth and is at least half a pixel, or a disc could miss every pixel centre.
    """
    pick = torch.linspace(0, len(xyz) - 1, min(samples, len(xyz))).long()
    points = xyz[pick].double()
    distance = torch.zeros(1)
    if len(xyz) > 1:
        found = torch.from_numpy(neighbour_distances(xyz, 1, samples))
        distance = found[found.isfinite()]
    world = 2 * float(distance.mean()) * math.sqrt(_COVER / math.pi)
    radii = []
    for camera in cameras:
        z = camera.to_camera(points)[:, 2]
        z = z[z > 0]
        half = 0.5 * min(camera.width, camera.height)
        if z.numel():
            pixels = world * float(camera.focal.mean()) / float(z.median())
            radii.append(max(pixels, _MIN_RADIUS_PX) / half)
    if not radii:
        return 2 * _MIN_RADIUS_PX / min(cameras[0].width, cameras[0].height)
    return float(torch.tensor(radii).median())
