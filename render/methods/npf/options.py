"""Options of `bpcr` and `frepcr`: the paper's recipe and the one tuned for two cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from render.methods.base import MethodOptions
from render.nets.unet import UNetFilters


@dataclass(frozen=True)
class NpfOptions(MethodOptions):
    """Defaults show a picture as early as possible on two cores; :meth:`faithful` is the paper.

    ``k=1`` is the host without K-Buffers: one query a pixel, no rectification, no fusion.
    """

    k: int = 8  # layers K
    dim: int = 8  # D, features of a layer
    version: Literal[1, 2, 3, 4] = 3  # what the rectification sees (docs/methods.md)
    unet: UNetFilters = "npbg"  # channels of the image network
    unet_levels: int = 4  # halvings in the image network
    mlp_width: int = 64  # width of the per-point network
    kfn_width: int = 48  # width of the fusion network
    radius: float | None = None  # of a point, NDC (2 = image side); None: from the cloud's density
    normalize: bool = True  # positions relative to the scene's centre and radius
    color_skip: bool = True  # the picture starts from the points' colours
    scaled_init: bool = True  # initial weights that keep the signal's size (PyTorch's shrink it)
    pix_mask: bool | None = None  # pixels without a point are background; None: if alpha
    crop: int = 128  # side of the picture the networks see, px; 0: the photograph's shorter side
    crop_area: tuple[float, float] | None = None  # window's share of the padded area; None: no zoom
    pad: float = 0.125  # padding around the photograph, in photograph sides
    fit: bool = True  # with pix_mask: networks see the box of the visible points only
    crop_tries: int = 4  # windows drawn before an empty batch is given up
    mlp_lr: float = 2e-3  # learning rate of F
    rect_lr: float = 1e-3  # learning rate of T
    kfn_lr: float = 1e-3  # learning rate of the fusion network
    unet_lr: float = 1e-3  # learning rate of the image network
    epoch_decay: float = 0.9999  # factor on all rates after each epoch
    lpips_weight: float = 0.0  # of LPIPS-VGG; counts only where the VGG weights are installed
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware has it

    @classmethod
    def faithful(cls, k: int = 8) -> NpfOptions:
        """The paper's NeRF-Synthetic recipe (6000 epochs of 800x800 views), no shortcuts."""
        return cls(
            k=k,
            mlp_width=256,
            radius=0.005,
            normalize=False,
            color_skip=False,
            scaled_init=False,
            pix_mask=False,
            crop=0,
            crop_area=(0.111, 1.0),
            fit=False,
            mlp_lr=5e-4,
            rect_lr=1e-4,
            kfn_lr=1.5e-4,
            unet_lr=1.5e-4,
            lpips_weight=0.01,
            precision="fp32",
        )
