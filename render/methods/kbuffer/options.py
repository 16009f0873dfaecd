"""Options of the ``kbuffer`` method. Defaults: time to quality on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass

from render.methods.splatting import SplattingOptions


@dataclass(frozen=True)
class KBufferOptions(SplattingOptions):
    """K layers of Gaussian footprints, fused by the K-Buffers network."""

    samples: int = 2

    # densification
    refine_from: int = 400
    refine_every: int = 150
    refine_until: int = 6000
    refine_share: float = 0.05  # of the Gaussians moved or added at a time

    # Steps that learn from all contributions to a pixel before K layers stand for them: gradients
    # of everything find the surface sooner.
    warm_up: int = 1000

    # fusion network
    network: bool = True
    network_from: int = 1000  # step at which it starts to learn, not before warm_up
    lr_network: float = 1e-3
    features: int = 4  # learned feature channels of every Gaussian
    width: int = 32  # channels of the U-Net
    layer_dropout: float = 0.15  # share of the steps that train with fewer than K layers
