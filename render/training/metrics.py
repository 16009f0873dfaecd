"""Image quality: PSNR, SSIM and, where its weights are on this machine, LPIPS.

Every function takes one image pair [H, W, 3], float in [0, 1]. Means over a split are means of
per-image values (render/training/evaluation.py).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels

Border = Literal["inside", "zeros"]
LpipsNet = Literal["alex", "vgg"]
# The backbones that the LPIPS heads sit on, as torchvision names them in torch hub's cache.
_LPIPS_BACKBONES: dict[LpipsNet, str] = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
}


def psnr(image: Tensor, target: Tensor, ignored: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two images in [0, 1]; infinite when they are equal.

    ``ignored`` [H, W] bool: pixels that are left out of the mean; NaN when that is all of them.
    """
    squares = (image - target).double().square()
    if ignored is not None:
        if bool(ignored.all()):
            return math.nan
        squares = squares[~ignored]
    mse = float(squares.mean())
    return -10 * math.log10(mse) if mse > 0 else math.inf


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """SSIM of every window that lies inside, [H - 10, W - 10, 3], differentiable.

    11x11 Gaussian window with sigma 1.5 and population covariance (Wang et al., IEEE TIP 13(4),
    2004); equals scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`` away from the border that it crops.

    Args:
        image, target: [H, W, 3] in [0, 1], at least 11 pixels on each side.
    """
    if min(image.shape[:2]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, got {tuple(image.shape)}"
        )
    a, b = image.movedim(-1, 0), target.movedim(-1, 0)  # [3, H, W]
    channels = a.shape[0]
    stack = torch.cat([a, b, a * a, b * b, a * b])[None]  # [1, 15, H, W]
    blurred = _blur(stack)[0].unflatten(0, (5, channels))  # [5, 3, H-10, W-10]
    mu_a, mu_b, aa, bb, ab = blurred
    var_a, var_b, cov = aa - mu_a * mu_a, bb - mu_b * mu_b, ab - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mu_a * mu_b + c1) * (2 * cov + c2)
    denominator = (mu_a * mu_a + mu_b * mu_b + c1) * (var_a + var_b + c2)
    return (numerator / denominator).movedim(0, -1)


def ssim(
    image: Tensor, target: Tensor, ignored: Tensor | None = None, *, border: Border = "inside"
) -> float:
    """Mean of :func:`ssim_map`; NaN for images smaller than its window.

    ``ignored`` [H, W] bool: windows with such a pixel are left out; NaN when that is all of them.
    ``border``: windows inside the image only, as scikit-image, torchmetrics and piqa have it; or
    also those that reach beyond it, where both images are zero: one window for every pixel.
    """
    if border == "zeros":
        edge = SSIM_WINDOW // 2
        image, target = (F.pad(v, (0, 0, edge, edge, edge, edge)) for v in (image, target))
        ignored = None if ignored is None else F.pad(ignored, (edge, edge, edge, edge))
    if min(image.shape[:2]) < SSIM_WINDOW:
        return math.nan
    values = ssim_map(image, target).double()
    if ignored is not None:
        touched = F.max_pool2d(ignored[None].float(), SSIM_WINDOW, stride=1)[0] > 0
        if bool(touched.all()):
            return math.nan
        values = values[~touched]
    return float(values.mean())


def _blur(stack: Tensor) -> Tensor:
    """Separable Gaussian over [1, C, H, W] without padding: depthwise convolutions."""
    channels = stack.shape[1]
    x = torch.arange(SSIM_WINDOW, dtype=stack.dtype, device=stack.device) - SSIM_WINDOW // 2
    kernel = torch.exp(-x.square() / (2 * SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()
    column = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(stack, column, groups=channels), row, groups=channels)


class Lpips:
    """LPIPS of Zhang et al. (CVPR 2018), with the weights of its authors."""

    def __init__(self, net: LpipsNet, device: torch.device) -> None:
        import warnings

        import lpips  # pyright: ignore[reportMissingImports]

        with warnings.catch_warnings():  # lpips 0.1.4 calls torchvision by its old keywords
            warnings.simplefilter("ignore")
            self.model = lpips.LPIPS(net=net, verbose=False).eval().to(device)
        self.net: LpipsNet = net

    @torch.no_grad()
    def __call__(
        self, image: Tensor, target: Tensor, scaled_to: Literal["-1..1", "0..1"] = "-1..1"
    ) -> float:
        """Distance of two images [H, W, 3] in [0, 1]; lower is better.

        ``scaled_to`` "0..1" leaves them unscaled, which some programs do by mistake: such values
        compare only with theirs.
        """
        device = next(self.model.parameters()).device
        a, b = (v.to(device).movedim(-1, 0)[None] for v in (image, target))
        if scaled_to == "-1..1":
            a, b = a * 2 - 1, b * 2 - 1
        return float(self.model(a, b))


def load_lpips(net: LpipsNet, device: torch.device) -> tuple[Lpips | None, str]:
    """LPIPS, or None and the sentence that says why not. Never touches the network.

    The package would download its backbone at construction and wait for a network that may not
    be there, so the files are looked for first.
    """
    from importlib.util import find_spec

    if find_spec("lpips") is None or find_spec("torchvision") is None:
        return None, 'LPIPS is left out: it is not installed (pip install -e ".[eval]").'
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_BACKBONES[net]
    if not weights.is_file():
        return None, f"LPIPS is left out: its {net} weights are not on this machine ({weights})."
    try:
        return Lpips(net, device), f"LPIPS uses the {net} net."
    except Exception as error:  # a torn weight file must not cost the other metrics
        return None, f"LPIPS is left out: loading its {net} weights failed ({error})."
