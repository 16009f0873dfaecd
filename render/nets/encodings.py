"""Encodings of positions and directions: frequencies, spherical harmonics, hash grid.

Every encoder maps [M, 3] to [M, out_dim] and accepts M = 0: it then returns [0, out_dim] that is
still connected to its inputs and parameters, so ``backward`` works. (Upstream's CUDA encoders
launched an empty grid in that case, and the pending error surfaced somewhere else.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Spatial hash of instant-ngp (Müller et al. 2022, eq. 4).
_HASH_PRIMES = (1, 2654435761, 805459861)


class FrequencyEncoding(nn.Module):
    """sin(x 2^j) then cos(x 2^j) for j = 0..levels-1: no factor π, no identity (K-Buffers paper).

    Args:
        levels: number of frequencies; 10 for positions (60 values), 4 for directions (24).
    """

    frequencies: Tensor  # [levels]

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.out_dim = 6 * levels
        self.register_buffer("frequencies", 2.0 ** torch.arange(levels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[M, 3] -> [M, 6 * levels]."""
        if x.shape[0] == 0:
            return x[:, :1].repeat(1, self.out_dim)
        angles = x[:, None, :] * self.frequencies[:, None]  # [M, levels, 3]
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


class SphericalHarmonics(nn.Module):
    """The 16 real spherical harmonics of bands 0 to 3 ("degree 4"), written as polynomials.

    Args:
        unit: normalise the input first. Without it the polynomials are evaluated as they stand,
            as the paper does with directions whose camera-z component is 1.
    """

    out_dim = 16

    def __init__(self, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, d: Tensor) -> Tensor:
        """[M, 3] -> [M, 16]."""
        if d.shape[0] == 0:
            return d[:, :1].repeat(1, self.out_dim)
        if self.unit:
            d = torch.nn.functional.normalize(d, dim=-1)
        x, y, z = d.unbind(-1)
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        return torch.stack(
            [
                torch.full_like(x, 0.28209479177387814),
                -0.48860251190291987 * y,
                0.48860251190291987 * z,
                -0.48860251190291987 * x,
                1.0925484305920792 * xy,
                -1.0925484305920792 * yz,
                0.94617469575755997 * zz - 0.31539156525251999,
                -1.0925484305920792 * xz,
                0.54627421529603959 * (xx - yy),
                0.59004358992664352 * y * (-3.0 * xx + yy),
                2.8906114426405538 * xy * z,
                0.45704579946446572 * y * (1.0 - 5.0 * zz),
                0.3731763325901154 * z * (5.0 * zz - 3.0),
                0.45704579946446572 * x * (1.0 - 5.0 * zz),
                1.4453057213202769 * z * (xx - yy),
                0.59004358992664352 * x * (-xx + 3.0 * yy),
            ],
            -1,
        )


class HashGrid(nn.Module):
    """Multiresolution hash encoding (instant-ngp) that knows its own bounds.

    Inputs are mapped from ``[lower, upper]`` to the unit cube and clamped, so no input ever falls
    where the grid is dead. Bounds and table are registered: they are saved and optimised.

    Args:
        lower, upper: [3] corners of the box that the grid covers; a flat box is widened.
        levels, features: number of resolutions and values per level.
        base, growth: coarsest resolution in cells and the factor between levels.
        log2_table: rows of a level at most 2 ** log2_table.
    """

    lower: Tensor  # [3]
    upper: Tensor  # [3]
    corners: Tensor  # [8, 3]

    def __init__(
        self,
        lower: Tensor,
        upper: Tensor,
        *,
        levels: int = 16,
        features: int = 2,
        base: int = 16,
        growth: float = 1.447,
        log2_table: int = 19,
    ) -> None:
        super().__init__()
        lower, upper = lower.float(), upper.float()
        # Relative to the coordinates too, or float32 would swallow the slack of a flat box.
        magnitude = torch.maximum(lower.abs(), upper.abs()).max()
        slack = 0.05 * (upper - lower).max() + 1e-3 * magnitude + 1e-6
        self.register_buffer("lower", lower - slack)
        self.register_buffer("upper", upper + slack)
        self.table_rows = 2**log2_table
        self.resolutions = [int(base * growth**level) for level in range(levels)]
        rows = [min((r + 1) ** 3, self.table_rows) for r in self.resolutions]
        self.offsets = [sum(rows[:level]) for level in range(levels)]
        self.out_dim = levels * features
        self.table = nn.Parameter(torch.empty(sum(rows), features).uniform_(-1e-4, 1e-4))
        corners = torch.cartesian_prod(*[torch.arange(2)] * 3)  # [8, 3]
        self.register_buffer("corners", corners, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[M, 3] in world units -> [M, levels * features]."""
        if x.shape[0] == 0:
            return self.table[:0].repeat(1, len(self.resolutions)) + x[:, :1]
        x = ((x - self.lower) / (self.upper - self.lower)).clamp(0.0, 1.0)
        values = []
        for resolution, offset in zip(self.resolutions, self.offsets, strict=True):
            position = x * resolution
            cell = position.floor().clamp(max=resolution - 1)
            fraction = (position - cell)[:, None]  # [M, 1, 3]
            weight = torch.where(self.corners.bool(), fraction, 1 - fraction).prod(-1)  # [M, 8]
            rows = self._rows(cell.long()[:, None] + self.corners, resolution) + offset
            corner = self.table.index_select(0, rows.flatten()).view(*rows.shape, -1)
            values.append((weight[..., None] * corner).sum(1))
        return torch.cat(values, -1)

    def _rows(self, vertex: Tensor, resolution: int) -> Tensor:
        """Row within the level's table of integer vertices [M, 8, 3]; always inside the table."""
        side = resolution + 1
        if side**3 <= self.table_rows:
            return (vertex[..., 2] * side + vertex[..., 1]) * side + vertex[..., 0]
        x, y, z = (vertex[..., axis] * prime for axis, prime in enumerate(_HASH_PRIMES))
        return (x ^ y ^ z) % self.table_rows
