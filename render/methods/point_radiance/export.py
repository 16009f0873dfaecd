"""Soft discs as 3D Gaussians, so that their files open in every viewer of those."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from render.gaussians.cloud import Cloud
from render.methods.point_radiance.discs import SH0
from render.methods.point_radiance.points import Points

OPACITY = 0.99  # of every Gaussian: a disc takes all light in its middle, but 1 has no logit


@torch.no_grad()
def gaussians_of(points: Points, radius: Tensor, constant: bool) -> Cloud:
    """Round Gaussians that cover as much as the discs and have their colours.

    A disc of radius r covers pi r^2 / 2 of the picture in all, a Gaussian of deviation s and
    opacity 1 covers 2 pi s^2: s = r / 2.

    Args:
        radius: [N] of the discs in scene units.
        constant: whether the first harmonic is a constant.
    """
    n = len(points)
    sh = points.sh.unflatten(1, (-1, 3))  # [N, B, 3]
    sh0 = (points.base - 0.5) / SH0
    if constant:
        sh0, sh = sh0 + sh[:, 0], sh[:, 1:]
    quats = torch.zeros(n, 4).to(radius)
    quats[:, 0] = 1
    logit = math.log(OPACITY / (1 - OPACITY))
    return Cloud(
        {
            "means": points.xyz,
            "quats": quats,
            "log_scales": (0.5 * radius).log()[:, None].expand(n, 3),
            "logits": torch.full_like(radius, logit),
            "sh0": sh0,
            "sh_rest": sh,
        }
    )
