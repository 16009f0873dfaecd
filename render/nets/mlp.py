"""The per-point networks F of BPCR and FrePCR and the rectification network T."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from render.nets.encodings import FrequencyEncoding

XYZ_LEVELS, DIR_LEVELS = 10, 4


class PointMlp(nn.Module):
    """F of BPCR: feature of a surface point seen from a direction.

    60 -> 256 -> 256, concatenate the 24 values of the direction, -> 256 -> 128 -> D, ReLU between.
    187,272 parameters with D = 8 and the paper's width.

    Args:
        dim: D, length of the feature.
        width: of the hidden layers (the last one has half of it).
        scaled_init: He's initialisation, which keeps the signal's size from layer to layer;
            PyTorch's default, which the paper uses, shrinks it about twentyfold.
    """

    def __init__(self, dim: int = 8, width: int = 256, scaled_init: bool = False) -> None:
        super().__init__()
        self.encode_xyz = FrequencyEncoding(XYZ_LEVELS)
        self.encode_dir = FrequencyEncoding(DIR_LEVELS)
        xyz_dim, dir_dim = self.encode_xyz.out_dim, self.encode_dir.out_dim
        self.layers = nn.ModuleList(
            [
                nn.Linear(xyz_dim, width),
                nn.Linear(width, width),
                nn.Linear(width + dir_dim, width),
                nn.Linear(width, width // 2),
            ]
        )
        self.head = nn.Linear(width // 2, dim)
        if scaled_init:
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
            nn.init.xavier_normal_(self.head.weight)

    def forward(self, xyz: Tensor, directions: Tensor) -> Tensor:
        """Positions [M, 3] and unit directions [M, 3] -> features [M, D]."""
        x = self.encode_xyz(xyz)
        for i, layer in enumerate(self.layers):
            if i == 2:
                x = torch.cat([x, self.encode_dir(directions).to(x)], -1)
            x = F.relu(layer(x))
        return self.head(x)


class FrequencyModulatedMlp(PointMlp):
    """F of FrePCR ("AFNet"): x <- x sin(a_i x + b_i) instead of ReLU.

    A small network 60 -> 256 -> 8 predicts (a_1, b_1 .. a_4, b_4) of every point from its encoded
    position; it adds 17,672 parameters (D = 8, paper's width).

    Args:
        dim, width, scaled_init: as in :class:`PointMlp`.
    """

    def __init__(self, dim: int = 8, width: int = 256, scaled_init: bool = False) -> None:
        super().__init__(dim, width, scaled_init)
        self.hyper = nn.Sequential(
            nn.Linear(self.encode_xyz.out_dim, width),
            nn.ReLU(),
            nn.Linear(width, 2 * len(self.layers)),
        )
        if scaled_init:  # a = 1, b = π/2: x sin(ax + b) ≈ x for small x, instead of ≈ 0
            with torch.no_grad():
                bias = torch.tensor([1.0, math.pi / 2]).repeat(len(self.layers))
                self.hyper[-1].bias.add_(bias)  # type: ignore[operator]

    def forward(self, xyz: Tensor, directions: Tensor) -> Tensor:
        """Positions [M, 3] and unit directions [M, 3] -> features [M, D]."""
        code = self.encode_xyz(xyz)
        modulation = self.hyper(code).float()  # [M, 8]
        x = code
        for i, layer in enumerate(self.layers):
            if i == 2:
                x = torch.cat([x, self.encode_dir(directions).to(x)], -1)
            x = layer(x)
            a, b = modulation[:, 2 * i : 2 * i + 1], modulation[:, 2 * i + 1 : 2 * i + 2]
            x = x * torch.sin(a * x + b).to(x)
        return self.head(x)


class RectificationMlp(nn.Module):
    """T: encoded ray of a pixel -> correction [M, D] of its features; in -> 64 -> D."""

    def __init__(self, in_dim: int, dim: int = 8, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_dim, width), nn.ReLU(), nn.Linear(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[M, in_dim] -> [M, D]."""
        return self.layers(x)
