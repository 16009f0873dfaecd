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
        self.gate = nn.Sequential(
            nn.Conv2d(k * dim, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, k * dim, 1),
        )
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
