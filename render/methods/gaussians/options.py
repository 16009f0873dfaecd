"""Options of ``gaussians``. Defaults: time to quality on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from render.methods.splatting import SplattingOptions

StrategyName = Literal["blame", "default", "mcmc"]
ReadingName = Literal["layers", "channels"]


@dataclass(frozen=True)
class GaussiansOptions(SplattingOptions):
    """3D Gaussian splatting: all contributions to a pixel, composited front to back.

    ``k`` is the number of layers that the inspector shows; training does not depend on it.
    """

    ssim: float = 0.2  # weight of 1 - SSIM; L1 has 1 - ssim
    sh_every: int = 300  # steps after which one more degree of view dependence learns
    # Densification: move the unseen to where the picture is wrong (blame), clone, split, prune
    # and reset (default, as 3DGS), or relocate and shake (mcmc).
    strategy: StrategyName = "blame"
    refine_from: int = 400
    refine_every: int = 150
    refine_until: int = 15000
    refine_share: float = 0.05  # blame, mcmc: of the Gaussians added at a time
    reset_every: int = 3000  # default: steps between two lowerings of the opacities; never at 0
    grow_gradient: float = 2e-4  # default: screen gradient above which a Gaussian is too few
    noise: float = 5e5  # mcmc: times the learning rate of the positions
    opacity_weight: float = 0.01  # mcmc: of the mean opacity in the loss
    scale_weight: float = 0.01  # mcmc: of the mean size in the loss


@dataclass(frozen=True)
class GaussiansKOptions(GaussiansOptions):
    """3D Gaussian splatting with the K-Buffers network; ``k`` is the number of layers it fuses."""

    samples: int = 2
    reading: ReadingName = "layers"  # KFN over the K layers of a pixel, or over channels
    network_from: int = 6000  # layers: step at which the fusion starts to learn
    lr_network: float = 0.0  # 0: 1e-3 for layers, 2e-3 for channels
    features: int = 0  # learned channels of every Gaussian; 0: 4 for layers, 32 for channels
    width: int = 32  # layers: channels of the U-Net
    layer_dropout: float = 0.15  # share of the steps that train with fewer than K layers
