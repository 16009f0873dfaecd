"""The masks that the hull is carved from, and how they are made wrong on purpose."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from render.scenes.types import View

MaskSource = Literal["alpha", "red"]


class Corruption:
    """Random affine maps, one a view, that move its mask away from the object.

    With the amount x: a rotation by up to 90 x degrees, a shift by up to x / 2 of width and
    height, a scale from 1 - x / 2 to 1 + x and shears by up to 90 x degrees along both axes, all
    uniform and about the middle of the picture. What comes from outside is background.

    Args:
        amount: x, 0 to 0.5; 0 leaves masks alone.
        count: number of views.
        seed: of the draws; a view's map does not depend on the amount but for its size.
    """

    def __init__(self, amount: float, count: int, seed: int) -> None:
        self.amount = amount
        generator = torch.Generator().manual_seed(seed)
        self.draws = torch.rand(count, 6, generator=generator, dtype=torch.float64)

    def linear(self, index: int) -> tuple[Tensor, Tensor]:
        """The map of a view: matrix [2, 2], and shift [2] in shares of width and height."""
        x = self.amount
        signed = 2 * self.draws[index] - 1
        turn, shear_x, shear_y = (math.radians(90 * x * float(s)) for s in signed[:3])
        scale = 1 - 0.5 * x + 1.5 * x * float(self.draws[index, 5])
        cos, sin = math.cos(turn), math.sin(turn)
        rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        along_x = torch.tensor([[1, math.tan(shear_x)], [0, 1]], dtype=torch.float64)
        along_y = torch.tensor([[1, 0], [math.tan(shear_y), 1]], dtype=torch.float64)
        return scale * rotation @ along_x @ along_y, 0.5 * x * signed[3:5]

    def apply(self, index: int, mask: Tensor) -> Tensor:
        """The mask [H, W] uint8 of view ``index`` as the hull sees it."""
        if self.amount == 0:
            return mask
        matrix, shift = self.linear(index)
        height, width = mask.shape
        size = torch.tensor([width, height], dtype=torch.float64)
        v, u = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) + 0.5,
            torch.arange(width, dtype=torch.float64) + 0.5,
            indexing="ij",
        )
        moved = torch.stack([u, v], -1) - (0.5 + shift) * size  # [H, W, 2] about the middle
        source = moved @ torch.linalg.inv(matrix).T + 0.5 * size
        grid = (2 * source / size - 1).float()[None]
        out = F.grid_sample(mask.float()[None, None], grid, "bilinear", "zeros", False)
        return out[0, 0].round().to(torch.uint8)


def mask_of(view: View, source: MaskSource) -> Tensor:
    """How much a pixel [H, W] belongs to the object, uint8: its alpha, or 255 where it is red."""
    pixels = view.pixels()
    return pixels[..., 3] if source == "alpha" else 255 * (pixels[..., 0] > 0).to(torch.uint8)


def carving_view(view: View, index: int, source: MaskSource, corruption: Corruption) -> View:
    """``view`` with the mask that the hull is carved from in place of its alpha."""

    def load() -> Tensor:
        mask = corruption.apply(index, mask_of(view, source))
        return torch.cat([view.pixels()[..., :3], mask[..., None]], -1)

    return View(view.camera, load, view.name)


def masked(view: View, source: MaskSource) -> bool:
    """Whether the view tells object from background; without a mask it tells nothing."""
    if source == "alpha" and not view.has_alpha:
        return False
    return bool((mask_of(view, source) < 128).any())
