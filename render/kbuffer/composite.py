"""Front-to-back compositing of the layers of a K-buffer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Composite(NamedTuple):
    """What :func:`alpha_composite` returns."""

    out: Tensor  # [H, W, C] weighted sum of the values
    weight: Tensor  # [H, W, K] share of each layer
    transmittance: Tensor  # [H, W] share of what lies behind all layers


def alpha_composite(alpha: Tensor, values: Tensor) -> Composite:
    """The "over" operator (Porter and Duff 1984) along the layers, nearest first. Differentiable.

    Args:
        alpha: [H, W, K] in [0, 1], 0 where the layer is empty.
        values: [H, W, K, C] straight (not premultiplied).

    Returns:
        ``out`` [H, W, C], ``weight`` [H, W, K], ``transmittance`` [H, W]; the weights and the
        transmittance of a pixel add up to one.
    """
    if values.shape[:-1] != alpha.shape:
        raise ValueError(f"alpha {[*alpha.shape]} does not match values {[*values.shape]}")
    passed = torch.cumprod(1 - alpha, dim=-1)  # [H, W, K] light that gets through layer k
    before = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=-1)
    weight = alpha * before
    out = torch.einsum("...k,...kc->...c", weight, values)
    return Composite(out, weight, passed[..., -1])
