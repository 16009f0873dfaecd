"""The gated U-Net that turns a feature map into a picture (NPBG's refiner)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNetFilters = Literal["npbg", "4xnpbg", "pp"]

FILTERS: dict[UNetFilters, tuple[int, ...]] = {
    "npbg": (16, 32, 64, 128, 256),
    "4xnpbg": (64, 128, 256, 512, 1024),
    "pp": (16, 32, 48, 64, 80),
}


class GatedBlock(nn.Module):
    """ELU(conv3) * sigmoid(conv3) -> InstanceNorm without affine -> ReLU."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        # Feature and gate in one convolution: the same parameters, half the calls.
        self.conv = nn.Conv2d(in_dim, 2 * out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, H, W] -> [1, out, H, W]; H * W > 1."""
        feature, gate = self.conv(x).chunk(2, 1)
        return F.relu(F.instance_norm(F.elu(feature) * gate.sigmoid()))


class UpBlock(nn.Module):
    """Nearest upsampling and conv3, concatenate the skip, gated block."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, 3, padding=1)
        self.gated = GatedBlock(2 * out_dim, out_dim)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[1, in, H, W] and skip [1, out, 2H, 2W] -> [1, out, 2H, 2W]."""
        x = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.gated(torch.cat([x, skip], 1))


class GatedUNet(nn.Module):
    """Any image size: pads with zeros to a multiple of 2 ** levels and crops back.

    1,962,467 parameters with 8 inputs, 3 outputs, ``npbg`` filters and 4 levels.

    Args:
        in_dim, out_dim: channels in and out; the output has no activation.
        filters: channels of the levels, finest first.
        levels: how often the resolution is halved.
        zero_last: start with a zero output (for a network that corrects a given picture).
    """

    def __init__(
        self,
        in_dim: int = 8,
        out_dim: int = 3,
        filters: UNetFilters = "npbg",
        levels: int = 4,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        widths = FILTERS[filters]
        if not 1 <= levels < len(widths):
            raise ValueError(f"levels must be 1 to {len(widths) - 1}, got {levels}")
        widths = widths[: levels + 1]
        self.multiple = 2**levels
        self.start = GatedBlock(in_dim, widths[0])
        self.down = nn.ModuleList(GatedBlock(widths[i], widths[i + 1]) for i in range(levels))
        self.up = nn.ModuleList(UpBlock(widths[i + 1], widths[i]) for i in reversed(range(levels)))
        self.last = nn.Conv2d(widths[0], out_dim, 1)
        if zero_last:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, H, W] -> [1, out, H, W] float32; the last convolution runs in float32."""
        height, width = x.shape[-2:]
        # At least two pixels a side remain at the bottom: InstanceNorm of one pixel is undefined.
        padded = [max(-(-n // self.multiple), 2) * self.multiple for n in (height, width)]
        x = F.pad(x, (0, padded[1] - width, 0, padded[0] - height))
        skips = [self.start(x)]
        for block in self.down:
            skips.append(block(F.avg_pool2d(skips[-1], 2)))
        y = skips.pop()
        for block in self.up:
            y = block(y, skips.pop())
        with torch.autocast(y.device.type, enabled=False):
            return self.last(y.float())[..., :height, :width]
