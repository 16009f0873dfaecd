"""Options of the ``kbuffer`` method. Defaults: time to quality on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass

from render.methods.base import MethodOptions


@dataclass(frozen=True)
class KBufferOptions(MethodOptions):
    """K layers of Gaussian footprints, fused by the K-Buffers network.

    Learning rates are those of step 0. All rates are per step of Adam; positions are in units of
    the scene's radius, so that scenes of any size train alike.
    """

    # Gaussians
    points: int = 0  # Gaussians to start with; 0: chosen from the image size
    growth: float = 1.5  # at most this many times as many after densification
    # Opacity at the start, and size as a share of the mean distance of the 3 nearest neighbours:
    # faint and wide for points that fill a volume, firm and small for points on surfaces.
    volume_opacity: float = 0.18
    volume_scale: float = 0.7
    surface_opacity: float = 0.5
    surface_scale: float = 0.5
    sh_degree: int = 2  # view dependence of the colours: 0, 1, 2 or 3
    antialias: bool = False  # keep the energy of sub-pixel Gaussians (Mip-Splatting)

    # learning
    volume_lr_means: float = 1.2e-3  # points in a volume have a way to go to the surface,
    surface_lr_means: float = 5e-4  # those of a point cloud are there
    lr_scales: float = 1e-2
    lr_quats: float = 3e-3
    lr_logits: float = 5e-2
    lr_colors: float = 8e-3  # the view-dependent rest learns 10 times slower
    lr_network: float = 2e-3
    half_life: int = 1500  # positions: the rate falls as 1 / (1 + step / half_life)
    slow_half_life: int = 6000  # everything else
    ssim: float = 0.0  # weight of 1 - SSIM; L1 has 1 - ssim
    coarse_steps: int = 100  # training steps at each halved resolution before the full one
    max_pixels: int = 262144  # larger pictures are learnt in random windows of this size

    # densification
    refine_from: int = 400
    refine_every: int = 150
    refine_until: int = 6000
    refine_share: float = 0.05  # of the Gaussians moved or added at a time

    # fusion network
    network: bool = True
    network_from: int = 1000  # step at which it starts to learn
    features: int = 4  # learned feature channels of every Gaussian
    width: int = 32  # channels of the U-Net
    layer_dropout: float = 0.15  # share of the steps that train with fewer than K layers
