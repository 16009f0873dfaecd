"""The one background policy and the one compositing function of the house."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

BackgroundKind = Literal["white", "black", "random", "color"]


@dataclass(frozen=True)
class Background:
    """What stands behind transparent pixels.

    ``random`` draws a new colour at every training step and is white in evaluation and display.
    """

    kind: BackgroundKind = "white"
    rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def color(self, generator: torch.Generator | None = None) -> Tensor:
        """The colour [3] float32; ``generator`` (training only) makes ``random`` random."""
        if self.kind == "black":
            return torch.zeros(3)
        if self.kind == "color":
            return torch.tensor(self.rgb)
        if self.kind == "random" and generator is not None:
            return torch.rand(3, generator=generator)
        return torch.ones(3)


def composite(rgb: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """Straight colour [..., 3] with alpha [...] over ``background`` [3] or [..., 3]."""
    a = alpha[..., None]
    return rgb * a + background.to(rgb) * (1 - a)
