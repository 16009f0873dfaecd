"""Colours for what lies inside a picture: depth, share, point ids, features, ...

Every function colours all K layers at once; empty slots are ``EMPTY``. Everything runs on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from render.export.images import INFERNO, colorize
from render.export.legend import EMPTY, LARGEST_ERROR, count_legend
from render.methods.base import Inspection

Span = tuple[float, float]
_SAMPLE = 1 << 15  # slots that percentiles and axes are measured on: enough for 1 per cent
_PALETTE = 4093  # colours of point ids; prime, so that no grid of ids repeats them


def depth_colors(inside: Inspection, span: Span) -> Tensor:
    """Viridis between ``span`` = (near, far); near is bright: the eye takes bright for close."""
    near, far = span
    return on_empty(colorize((far - inside.kbuffer.depth) / (far - near)), inside)


def point_colors(inside: Inspection) -> Tensor:
    """What lies in the layer."""
    return on_empty(inside.color.clamp(0, 1), inside)


def share_colors(inside: Inspection) -> Tensor:
    """Viridis of the square root of the layer's share in the final pixel."""
    return on_empty(colorize(inside.weight.clamp(min=0).sqrt()), inside)


def id_colors(inside: Inspection) -> Tensor:
    """The same colour for a point in all layers and views; neighbours in the list differ."""
    index = inside.kbuffer.index
    entry = torch.where(index < 0, _PALETTE, index % _PALETTE)
    return _POINT_PALETTE.index_select(0, entry.flatten()).view(*index.shape, 3)


def count_colors(inside: Inspection) -> Tensor:
    """Filled layers of each pixel, [H, W, 3]: it is one picture for all layers."""
    count = inside.kbuffer.count()
    colors = count_legend(inside.kbuffer.k).colors
    return colors.index_select(0, count.flatten()).view(*count.shape, 3)


def cumulative(inside: Inspection, background: Tensor) -> Tensor:
    """Pictures made of layers 1..k over ``background`` [3], for every k.

    The share that the layers leave free belongs to the background.
    """
    parts = inside.weight[..., None] * inside.color
    return over(parts.cumsum(2), inside.weight.cumsum(2), background)


def difference(picture: Tensor, photo: Tensor) -> Tensor:
    """Heat map [H, W, 3] of the mean absolute difference of two pictures [H, W, 3]."""
    return colorize((picture - photo).abs().mean(-1) / LARGEST_ERROR, INFERNO)


class Basis(NamedTuple):
    """Three axes of the features, affine to colours: ``features @ axes + offset``."""

    axes: Tensor  # [F, 3]
    offset: Tensor  # [3]


def feature_basis(inside: Inspection) -> Basis | None:
    """The three principal axes of all layers' features, 1st to 99th percentile to [0, 1].

    Each axis points where its largest component is positive. None without features.
    """
    features = inside.extra.get("features")
    if features is None or features.shape[-1] == 0:
        return None
    rows = filled(features, inside.kbuffer.valid).double()  # [M, F]
    rows = rows[rows.isfinite().all(-1)]
    size = features.shape[-1]
    axes, offset = torch.zeros(size, 3, dtype=torch.float64), torch.full((3,), 0.5).double()
    if len(rows) > 1:
        centered = rows - rows.mean(0)
        vectors = torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)[:, :3]
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        vectors = vectors * largest.sign()
        low, high = (rows @ vectors).quantile(torch.tensor([0.01, 0.99]).double(), dim=0)
        width = high - low
        ok = width > 1e-9 * (1 + high.abs())  # an axis along which nothing varies stays grey
        found = len(ok)
        axes[:, :found] = torch.where(ok, vectors / width.clamp(min=1e-300), 0)
        offset[:found] = torch.where(ok, -low / width.clamp(min=1e-300), 0.5)
    return Basis(axes.float(), offset.float())


def feature_colors(inside: Inspection, basis: Basis) -> Tensor:
    """The features along the three axes of ``basis`` as red, green and blue."""
    features = inside.extra["features"]
    flat = features.reshape(-1, features.shape[-1]).float()
    colors = torch.addmm(basis.offset, flat, basis.axes).clamp_(0, 1)
    return on_empty(colors.view(*features.shape[:-1], 3), inside)


def normal_colors(inside: Inspection) -> Tensor:
    """Directions as colours: x, y and z from -1 to 1 are red, green and blue from 0 to 1."""
    return on_empty((0.5 + 0.5 * inside.extra["normal"]).clamp(0, 1), inside)


def opacity_colors(inside: Inspection) -> Tensor:
    """Viridis of the opacity of the layer's Gaussian or disc."""
    return on_empty(colorize(inside.extra["opacity"][..., 0]), inside)


def light_colors(inside: Inspection) -> Tensor:
    """Viridis of the share of light that the nearer layers let through to this one."""
    return on_empty(colorize(inside.extra["transmittance"][..., 0].clamp(0, 1)), inside)


def with_light(inside: Inspection) -> Inspection:
    """``inside`` with "transmittance" in ``extra``: told by the method, or what the shares of the
    nearer layers leave."""
    if "transmittance" in inside.extra:
        return inside
    before = 1 - inside.weight.cumsum(-1) + inside.weight  # [H, W, K]
    return replace(inside, extra=inside.extra | {"transmittance": before[..., None]})


def proper(span: Span) -> Span:
    """``span`` with near < far, so that it can be divided by."""
    low, high = span
    if high > low:
        return span
    pad = 0.1 * abs(low) or 0.5
    return low - pad, low + pad


def filled(values: Tensor, valid: Tensor, most: int = _SAMPLE) -> Tensor:
    """[M, ...] of ``values`` [H, W, K, ...] where ``valid`` [H, W, K].

    Where there are more than ``most`` slots: those of an even grid of pixels.
    """
    step = max(1, math.ceil(math.sqrt(valid.numel() / most)))
    found = values[::step, ::step][valid[::step, ::step]]
    return found if len(found) or step == 1 else values[valid]


def percentile_span(values: Tensor, valid: Tensor, percentiles: tuple[float, float]) -> Span:
    found = filled(values, valid).float()
    found = found[found.isfinite()]
    if found.numel() == 0:
        return 0.0, 1.0
    low, high = found.quantile(torch.tensor(percentiles) / 100).tolist()
    return proper((low, high))


def on_empty(colors: Tensor, inside: Inspection) -> Tensor:
    return torch.where(inside.kbuffer.valid[..., None], colors, EMPTY)


def over(color: Tensor, share: Tensor, background: Tensor) -> Tensor:
    """Premultiplied ``color`` [..., 3] with ``share`` [...] over ``background`` [3], clamped."""
    return (color + (1 - share).clamp(min=0)[..., None] * background.to(color)).clamp_(0, 1)


def _point_palette() -> Tensor:
    """[_PALETTE + 1, 3]: saturated colours, and EMPTY last.

    Hue, saturation and value run through the additive sequence of the third plastic number
    (M. Roberts, 2018), which keeps entries that are close in the list far apart in colour.
    """
    steps = 1.2207440846057596 ** -torch.arange(1, 4, dtype=torch.float64)
    hue, saturation, value = (torch.arange(_PALETTE)[:, None] * steps % 1).unbind(1)
    saturation, value = 0.45 + 0.55 * saturation, 0.6 + 0.4 * value
    sector = (hue[:, None] * 6 + torch.tensor([5, 3, 1])) % 6  # of red, green, blue
    fall = torch.minimum(sector, 4 - sector).clamp(0, 1)
    rgb = value[:, None] * (1 - saturation[:, None] * fall)
    return torch.cat([rgb.float(), EMPTY[None]])


_POINT_PALETTE = _point_palette()
