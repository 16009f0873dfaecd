"""A photograph under its mask, and under the mask that a model's points were made from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ADDED = torch.tensor([0.16, 0.47, 1.0])  # object in the other mask only
LOST = torch.tensor([1.0, 0.25, 0.2])  # object in its own mask only
_TINT = 0.55
_DIM = 0.3  # brightness of what is background in both


def resized_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask [h, w] uint8 as shares in [0, 1], [H, W] of the given size."""
    share = mask.float() / 255
    if share.shape == size:
        return share
    smaller = size[0] <= share.shape[0] and size[1] <= share.shape[1]
    mode = "area" if smaller else "bilinear"
    return F.interpolate(share[None, None], size, mode=mode)[0, 0]


def mask_picture(image: Tensor, own: Tensor, used: Tensor) -> Tensor:
    """The photograph [H, W, 3] with background darkened, and tinted where two masks differ.

    Args:
        own: [H, W] in [0, 1], of the photograph.
        used: [H, W], the mask that the points were made from; the same where there is no other.
    """
    either = torch.maximum(own, used)[..., None]
    picture = image * (_DIM + (1 - _DIM) * either)
    for share, color in ((used - own, ADDED), (own - used, LOST)):
        tint = _TINT * share.clamp(min=0)[..., None]
        picture = picture * (1 - tint) + color * tint
    return picture
