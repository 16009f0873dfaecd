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

from render.nets.gate import Gate

ALIGN = 4  # px: pixels are folded two by two, and the U-Net halves once


class Fusion(nn.Module):
    """Gate, then a U-Net that works on blocks of 2x2 pixels and once more on half of that.

    Full-resolution feature maps would cost most of the time on a CPU; folding 2x2 pixels into
    channels keeps every pixel's information at a quarter of the positions.

    Args:
        k: layers. features: channels of each. width: channels of the U-Net.
    """

    def __init__(self, k: int, features: int, width: int) -> None:
        super().__init__()
        self.gate = Gate(k, features)
        self.enter = nn.Conv2d(4 * (features + 4), width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 4 * 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)
        # ReLU left most units dead within 50 steps. Models from before this was found keep it.
        self.register_buffer("smooth", torch.tensor(True))
        self.smooth: Tensor
        # Pixels arrive with their channels side by side; on a CPU this saves the reordering.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest) -> None:
        state_dict.setdefault(prefix + "smooth", torch.tensor(False))
        super()._load_from_state_dict(state_dict, prefix, *rest)

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
        fused = self.gate(layers)  # [h, w, F]
        correction = self._unet(torch.cat([fused, inside, a], -1))  # [h, w, 3]
        return rgb + F.pad(correction * a, (0, 0, x0, w - x1, y0, h - y1))

    def _unet(self, x: Tensor) -> Tensor:
        """[h, w, C] -> [h, w, 3]."""
        h, w = x.shape[:2]
        x = fold(F.pad(x, (0, 0, 0, -w % ALIGN, 0, -h % ALIGN)))  # [1, 4C, h/2, w/2]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=fast_bfloat16(x.device)):
            bend = F.silu if self.smooth else F.relu
            fine = bend(self.enter(x))
            coarse = bend(self.wide(bend(self.down(fine))))
            y = self.leave(fine + F.interpolate(coarse, scale_factor=2, mode="nearest"))
        return unfold(y.float())[:h, :w]


def fold(x: Tensor) -> Tensor:
    """[h, w, C] -> [1, 4C, h/2, w/2], channels last in memory: 2x2 pixels become channels."""
    h, w, c = x.shape
    x = x.view(h // 2, 2, w // 2, 2, c).permute(0, 2, 1, 3, 4).reshape(1, h // 2, w // 2, 4 * c)
    return x.permute(0, 3, 1, 2)


def unfold(x: Tensor) -> Tensor:
    """The inverse of :func:`fold`: [1, 4C, h/2, w/2] -> [h, w, C]."""
    h, w = x.shape[-2:]
    x = x[0].permute(1, 2, 0).reshape(h, w, 2, 2, -1).permute(0, 2, 1, 3, 4)
    return x.reshape(2 * h, 2 * w, -1)


def visible_box(alpha: Tensor) -> tuple[int, int, int, int]:
    """Rows y0..y1 and columns x0..x1 (half open) that hold every pixel with alpha > 0."""
    hit = alpha.detach() > 0
    rows, columns = hit.any(1).nonzero()[:, 0], hit.any(0).nonzero()[:, 0]
    if rows.numel() == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware: faster convolutions, the same curve."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and check is not None and bool(check())
