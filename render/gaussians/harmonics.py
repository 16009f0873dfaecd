"""Spherical harmonics under rotations of the world."""

from __future__ import annotations

import torch
from torch import Tensor

from render.kbuffer.gaussians_torch import sh_basis

HARMONICS = (0, 3, 8, 15)  # view-dependent ones of degrees 0 to 3


def rotate_harmonics(sh_rest: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients [N, B, 3] of the same colours after the world was turned by ``rotation`` [3, 3].

    Every degree is closed under rotations, so the turned functions are exact combinations of the
    basis; their coefficients are found from its values in some directions, by least squares.
    """
    count = sh_rest.shape[1]
    if count == 0:
        return sh_rest
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(8 * count, 3, dtype=torch.float64, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=1)  # [M, 3], after the turn
    before = sh_basis(directions @ rotation.double(), count)  # the same ones before it
    turn = torch.linalg.lstsq(sh_basis(directions, count), before).solution  # [B, B]
    return torch.einsum("ij,njc->nic", turn.to(sh_rest), sh_rest)
