"""The fusion network: KFN over the K layers' features, then a small U-Net on the composite.

As in K-Buffers (arXiv 2505.19564), the features of a pixel's K layers are weighed by a learned
gate and summed, and an image network decodes the result. Three things differ, for speed: every
layer arrives already multiplied by its share in the pixel, so a gate of one is plain alpha
compositing; the U-Net only adds a correction to the composited colours, starting at zero; and
only the box around the visible Gaussians is computed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALIGN = 4  # px: the U-Net halves twice


class Gate(nn.Module):
    """KFN: weighs the layers of each pixel by looking at all of them. Gates lie in (0, 2)."""

    def __init__(self, k: int, features: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(k * features, width)
        self.gate = nn.Linear(width, k)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, layers: Tensor) -> tuple[Tensor, Tensor]:
        """Layers [h, w, K, F] -> fused [h, w, F] and gates [h, w, K]."""
        gates = 2 * torch.sigmoid(self.gate(F.relu(self.mix(layers.flatten(2)))))
        return (layers * gates[..., None]).sum(2), gates


class Fusion(nn.Module):
    """Gate and U-Net of two levels.

    Args:
        k: layers. features: channels of each. width: channels at full resolution.
    """

    def __init__(self, k: int, features: int, width: int) -> None:
        super().__init__()
        self.k = k
        self.gate = Gate(k, features, width)
        deep = 2 * width
        self.enter = nn.Conv2d(features + 4, width, 3, padding=1)
        self.down = nn.Conv2d(width, deep, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(deep, deep, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(deep, deep, 3, padding=1)
        self.up = nn.Conv2d(deep, width, 1)
        self.leave = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)
        # Pixels arrive with their channels side by side; on a CPU this saves the reordering.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, layers: Tensor, rgb: Tensor, alpha: Tensor) -> Tensor:
        """The corrected picture [H, W, 3].

        Args:
            layers: [H, W, k, F] shares times features; k may be less than K.
            rgb: [H, W, 3] composite over the background. alpha: [H, W].
        """
        y0, y1, x0, x1 = visible_box(alpha)
        if y1 == y0:
            return rgb
        inside = rgb
        h, w = rgb.shape[:2]
        if (y0, y1, x0, x1) != (0, h, 0, w):
            box = (slice(y0, y1), slice(x0, x1))
            layers, inside, alpha = layers[box], rgb[box], alpha[box]  # [h, w, ...]
        a = alpha[..., None]
        if layers.shape[2] < self.k:
            layers = F.pad(layers, (0, 0, 0, self.k - layers.shape[2]))
        fused, _ = self.gate(layers)
        seen = torch.cat([fused, inside, a], -1).permute(2, 0, 1)[None]  # [1, F + 4, h, w]
        correction = self._unet(seen)[0].permute(1, 2, 0)  # [h, w, 3]
        return rgb + F.pad(correction * a, (0, 0, x0, w - x1, y0, h - y1))

    def _unet(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % ALIGN, 0, -h % ALIGN))
        fine = F.relu(self.enter(x))
        half = F.relu(self.down(fine))
        quarter = F.relu(self.wide(F.relu(self.deep(half))))
        half = half + F.interpolate(quarter, scale_factor=2, mode="nearest")
        fine = fine + F.interpolate(self.up(half), scale_factor=2, mode="nearest")
        return self.leave(F.relu(fine))[..., :h, :w]


def visible_box(alpha: Tensor) -> tuple[int, int, int, int]:
    """Rows y0..y1 and columns x0..x1 (half open) that hold every pixel with alpha > 0."""
    hit = alpha.detach() > 0
    rows, columns = hit.any(1).nonzero()[:, 0], hit.any(0).nonzero()[:, 0]
    if rows.numel() == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
