"""Two readings of "K buffers" on Gaussians: networks between the composite and the picture.

``layers`` takes the word literally: KFN gates the K heaviest contributions of every pixel, and a
small U-Net turns what they say into a correction of the composited picture. ``channels`` is what
the authors' program does (../shared/methods/02, sections 4 and 5): each Gaussian has a vector in
place of a colour, KFN gates the *channels* of the composite, and a U-Net decodes the picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from render.camera import Camera
from render.gaussians.cloud import Cloud
from render.kbuffer.gaussians import Projected, Splatted, splat_layers
from render.kbuffer.gaussians_torch import sh_basis
from render.methods.splatting import over
from render.nets.fusion import Fusion, fast_bfloat16
from render.nets.kfn import ChannelGate
from render.nets.unet import GatedUNet

HARMONICS = 15  # view-dependent ones that the head sees, beside the constant
HEAD_WIDTH = 64


class Reading(nn.Module, ABC):
    """What is composited, and how the picture is made from it."""

    @abstractmethod
    def values(self, cloud: Cloud, projected: Projected, camera: Camera) -> Tensor:
        """[N, C] of the Gaussians from this camera, to be composited."""

    @abstractmethod
    def decode(
        self, cloud: Cloud, projected: Projected, seen: Splatted, k: int, background: Tensor
    ) -> Tensor:
        """The picture [H, W, 3], not clamped.

        Args:
            projected: one spot a pixel.
            seen: the composite of ``values``; ``image`` [H, W, C] without background.
            k: layers.
        """


class ViewHead(nn.Module):
    """What a Gaussian's values gain when it is seen from a direction.

    One small network for all Gaussians: what it learns of one place serves the others, where
    spherical harmonics learn each for themselves. It starts as zero.

    Args:
        features: channels of every Gaussian. channels: C, of the values.
    """

    def __init__(self, features: int, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features + 1 + HARMONICS, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, channels),
        )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, values: Tensor, cloud: Cloud, projected: Projected, camera: Camera) -> Tensor:
        """``values`` [N, C] with what the head adds to those of visible Gaussians."""
        seen = (projected.extent[:, 0] > 0).nonzero()[:, 0]
        features = cloud.features[seen]
        offset = cloud.means.detach()[seen] - camera.position.to(features)
        direction = F.normalize(offset, dim=1)
        basis = torch.cat([torch.ones_like(offset[:, :1]), sh_basis(direction, HARMONICS)], 1)
        return values.index_add(0, seen, self.layers(torch.cat([features, basis], 1)))


class LayersReading(Reading):
    """A gate over the K heaviest contributions of each pixel; starts as the plain composite.

    Args:
        k: layers. features: of each. width: channels of the U-Net.
    """

    def __init__(self, k: int, features: int, width: int) -> None:
        super().__init__()
        self.fusion = Fusion(k, features, width)

    def values(self, cloud: Cloud, projected: Projected, camera: Camera) -> Tensor:
        return projected.rgb

    def decode(
        self, cloud: Cloud, projected: Projected, seen: Splatted, k: int, background: Tensor
    ) -> Tensor:
        height, width = seen.alpha.shape
        features, count = cloud.features, cloud.features.shape[1]
        layers = splat_layers(projected, features, width, height, k, count, kbuffer=False)
        rgb = over(seen.image, seen.alpha, background)
        return self.fusion(layers.features, rgb, seen.alpha)


class ChannelsReading(Reading):
    """A gate over the channels of the composite; the network makes the whole picture.

    Differs from the authors' program where it is at odds with itself: no embedding of the training
    photograph (evaluation never had one), InstanceNorm in place of a BatchNorm that stayed in
    training mode, and gates scaled so that equal ones change nothing.

    Args:
        features: channels of every Gaussian.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.head = ViewHead(features, features, HEAD_WIDTH)
        self.gate = ChannelGate(features)
        self.unet = GatedUNet(features)

    def values(self, cloud: Cloud, projected: Projected, camera: Camera) -> Tensor:
        return self.head(cloud.features, cloud, projected, camera)

    def decode(
        self, cloud: Cloud, projected: Projected, seen: Splatted, k: int, background: Tensor
    ) -> Tensor:
        x = seen.image.permute(2, 0, 1)[None]  # [1, C, H, W]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=fast_bfloat16(x.device)):
            y = self.unet(self.gate(x))
        return y[0].permute(1, 2, 0).sigmoid()
