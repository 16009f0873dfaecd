"""KFN: fuses the K feature layers of a pixel into one (K-Buffers, arXiv 2505.19564)."""

from __future__ import annotations

from torch import Tensor, nn


class Kfn(nn.Module):
    """conv3 -> 48, conv3 -> 48, conv1 -> KD, softmax over all KD channels, gate, conv1 -> D.

    Channels are layer-major: layer k holds channels kD .. kD+D-1. 52,136 parameters at K = D = 8.

    Args:
        k: number of layers K.
        dim: D, features of a layer.
        width: of the two hidden convolutions.
        scaled_init: start the last convolution KD times larger, because the softmax divides its
            input by about KD.
    """

    def __init__(
        self, k: int = 8, dim: int = 8, width: int = 48, scaled_init: bool = False
    ) -> None:
        super().__init__()
        self.k, self.dim = k, dim
        self.gate = gate_convolutions(k * dim, width)
        self.fuse = nn.Conv2d(k * dim, dim, 1)
        if scaled_init:
            self.fuse.weight.data.mul_(k * dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Layer features [1, K*D, H, W] -> fused [1, D, H, W] and softmax mask [1, K*D, H, W]."""
        mask = self.gate(features).softmax(1)
        return self.fuse(features * mask), mask

    def layer_mass(self, mask: Tensor) -> Tensor:
        """Softmax mass of every layer, [H, W, K] (sums to 1), of a mask [1, K*D, H, W]."""
        return mask[0].unflatten(0, (self.k, self.dim)).sum(1).movedim(0, -1)  # [H, W, K]


class ChannelGate(nn.Module):
    """KFN as the authors' Gaussian program has it: a gate over the channels of one map.

    conv3 -> 48, conv3 -> 48, conv1 -> C, softmax over the channels, times the input. The gates
    are scaled by C, so that equal ones leave the input as it is. 36,224 parameters at C = 32.

    Args:
        channels: C. width: of the two hidden convolutions.
    """

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.gate = gate_convolutions(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        return x * self.gate(x).softmax(1) * x.shape[1]


def gate_convolutions(channels: int, width: int) -> nn.Sequential:
    """The logits of KFN's gates."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, channels, 1),
    )
