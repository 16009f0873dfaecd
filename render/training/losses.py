"""Loss terms between two images [..., 3] in [0, 1]. All differentiable, all unweighted scalars."""

from __future__ import annotations

from torch import Tensor

from render.training.metrics import ssim_map


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (image - target).abs().mean()


def mse(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference; the PSNR is -10 log10 of it."""
    return (image - target).square().mean()


def charbonnier(image: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2): L1 for large d, smooth at 0 (Charbonnier et al., 1994)."""
    return ((image - target).square() + epsilon * epsilon).sqrt().mean()


def dssim(image: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM of two images [H, W, 3] of at least 11x11 pixels; 0 when they are equal."""
    return 1 - ssim_map(image, target).mean()
