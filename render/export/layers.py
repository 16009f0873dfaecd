"""The inside of a picture as pictures: any layer in any mode, thumbnails of all, legends.

Layers are numbered from 1 = nearest. Everything runs on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from render.export.images import colorize
from render.export.layer_colors import (
    Basis,
    Span,
    count_colors,
    cumulative,
    depth_colors,
    feature_basis,
    feature_colors,
    id_colors,
    light_colors,
    normal_colors,
    on_empty,
    opacity_colors,
    over,
    percentile_span,
    point_colors,
    proper,
    share_colors,
    with_light,
)
from render.export.legend import (
    EMPTY,
    Legend,
    count_legend,
    depth_legend,
    light_legend,
    norm_legend,
    normal_legend,
    opacity_legend,
    share_legend,
)
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection

LayerMode = Literal[
    "depth",
    "color",
    "contribution",
    "cumulative",
    "id",
    "count",
    "features",
    "normal",
    "opacity",
    "light",
]
NO_FEATURES = "This method has no features."
NOT_YET = "What is asked for is still being rendered."
GAP = 4  # pixels between thumbnails


class Atlas(NamedTuple):
    """Thumbnails of all layers in one picture; tile i, (x, y, width, height), is layer i + 1."""

    picture: Tensor  # [h, w, 3], black between the tiles
    tiles: tuple[tuple[int, int, int, int], ...]


class LayerPictures:
    """Pictures of the layers of one inspection, with scales that all layers share.

    Args:
        inside: of one view, on the CPU.
        background: [3], behind the cumulative pictures.
        unit: of depth, for the legend.
    """

    def __init__(self, inside: Inspection, background: Tensor, unit: str = "scene units") -> None:
        self.inside, self.background, self.unit = inside, background, unit
        self._spans: dict[tuple[float, float], Span] = {}
        self._basis: tuple[Basis | None] | None = None
        self._norm_span: Span | None = None

    def span(self, percentiles: tuple[float, float] = (1.0, 99.0)) -> Span:
        """(near, far): these percentiles of all filled depths, so that strays do not flatten it."""
        if percentiles not in self._spans:
            kbuffer = self.inside.kbuffer
            self._spans[percentiles] = percentile_span(kbuffer.depth, kbuffer.valid, percentiles)
        return self._spans[percentiles]

    def picture(self, mode: LayerMode, layer: int = 1, span: Span | None = None) -> Tensor | None:
        """[H, W, 3] in [0, 1]; None for features, normals or opacities that are not there.

        Args:
            layer: 1 to K; modes that show all layers ignore it.
            span: near and far of the depth colours; None for those of :meth:`span`.
        """
        if mode == "cumulative":
            weight, color = self.inside.weight[..., :layer], self.inside.color[..., :layer, :]
            mixed = torch.einsum("hwk,hwkc->hwc", weight, color)
            return over(mixed, weight.sum(-1), self.background)
        if mode == "count":
            return count_colors(self.inside)
        colors = self._colors(_cut(self._of(mode), layer=layer), mode, span)
        return None if colors is None else colors[:, :, 0]

    def legend(self, mode: LayerMode, span: Span | None = None) -> Legend | None:
        """What the colours of :meth:`picture` mean; None where they are colours of the scene."""
        if mode == "depth":
            return depth_legend(proper(span) if span else self.span(), self.unit)
        if mode == "contribution":
            return share_legend()
        if mode == "count":
            return count_legend(self.inside.kbuffer.k)
        if mode == "features" and self.basis() is None and self.inside.feature_norm is not None:
            return norm_legend(self._norms())
        if mode == "normal":
            return normal_legend()
        if mode == "opacity":
            return opacity_legend()
        if mode == "light":
            return light_legend()
        return None

    def atlas(
        self, mode: LayerMode, tile_width: int, columns: int, span: Span | None = None
    ) -> Atlas | None:
        """Thumbnails of all layers, ``columns`` in a row; None for what is not there.

        Colours and shares are means over each of the thumbnail's pixels. Depths, ids, counts
        and the like are those of the pixel in its middle: a mean of two of them is neither.
        """
        height, width, k = self.inside.kbuffer.index.shape
        size = (max(1, int(tile_width * height / width)), tile_width)
        if mode in ("color", "contribution", "cumulative"):
            images = self._means(mode, size)
        else:
            images = self._colors(_cut(self._of(mode), size=size), mode, span)
        if images is None:
            return None
        rows = math.ceil(k / columns)
        used = min(k, columns)
        picture = torch.zeros(rows * (size[0] + GAP) - GAP, used * (size[1] + GAP) - GAP, 3)
        tiles = []
        for i in range(k):
            x, y = (i % columns) * (size[1] + GAP), (i // columns) * (size[0] + GAP)
            picture[y : y + size[0], x : x + size[1]] = images[:, :, i]
            tiles.append((x, y, size[1], size[0]))
        return Atlas(picture, tuple(tiles))

    def basis(self) -> Basis | None:
        """Of the features, measured once."""
        if self._basis is None:
            self._basis = (feature_basis(self.inside),)
        return self._basis[0]

    def _of(self, mode: LayerMode) -> Inspection:
        """The inspection with what ``mode`` shows."""
        return with_light(self.inside) if mode == "light" else self.inside

    def _norms(self) -> Span:
        if self._norm_span is None:
            assert self.inside.feature_norm is not None
            valid = self.inside.kbuffer.valid
            self._norm_span = percentile_span(self.inside.feature_norm, valid, (1.0, 99.0))
        return self._norm_span

    def _colors(self, inside: Inspection, mode: LayerMode, span: Span | None) -> Tensor | None:
        """[H, W, K, 3] of ``inside``, a part of the inspection, with the scales of the whole."""
        if mode == "depth":
            return depth_colors(inside, proper(span) if span else self.span())
        if mode == "color":
            return point_colors(inside)
        if mode == "contribution":
            return share_colors(inside)
        if mode == "id":
            return id_colors(inside)
        if mode == "count":
            return count_colors(inside)[:, :, None].expand(-1, -1, inside.kbuffer.k, -1)
        if mode == "cumulative":
            return cumulative(inside, self.background)
        if mode == "light":
            return light_colors(inside)
        if mode in ("normal", "opacity"):
            if mode not in inside.extra:
                return None
            return normal_colors(inside) if mode == "normal" else opacity_colors(inside)
        basis = self.basis()
        if basis is not None:
            return feature_colors(inside, basis)
        if inside.feature_norm is None:
            return None
        low, high = self._norms()
        return on_empty(colorize((inside.feature_norm - low) / (high - low)), inside)

    def _means(self, mode: LayerMode, size: tuple[int, int]) -> Tensor:
        """[h, w, K, 3] of colours and shares, averaged before the (linear) compositing.

        Of four pixels in each of the thumbnail's: nearly as smooth as all, and much faster.
        """
        fine = (2 * size[0], 2 * size[1])
        index, color, weight = (
            _nearest(value, fine)
            for value in (self.inside.kbuffer.index, self.inside.color, self.inside.weight)
        )
        if mode == "cumulative":
            mixed = _mean_of_four(weight[..., None] * color).cumsum(2)
            return over(mixed, _mean_of_four(weight).cumsum(2), self.background)
        valid = (index >= 0).float()
        covered = _mean_of_four(valid)[..., None]  # [h, w, K, 1]
        if mode == "color":
            shown = _mean_of_four(color.clamp(0, 1).mul_(valid[..., None]))
        else:
            share = _mean_of_four(weight) / covered[..., 0].clamp(min=0.25)
            shown = colorize(share.clamp_(min=0).sqrt_()) * covered
        return shown + (1 - covered) * EMPTY


def fit_tiles(k: int, aspect: float, width: int, height: int) -> tuple[int, int]:
    """Columns and width of the largest K thumbnails in ``width`` x ``height`` pixels.

    ``aspect`` is height over width of the picture. At least 1 pixel, even where that is too wide.
    """
    best = (1, 0)
    for columns in range(1, k + 1):
        rows = math.ceil(k / columns)
        wide = (width - GAP * (columns - 1)) // columns
        high = (height - GAP * (rows - 1)) / rows
        tile = min(wide, int(high / aspect))
        if tile >= best[1]:
            best = (columns, tile)
    return best[0], max(1, best[1])


def _cut(
    inside: Inspection, *, layer: int | None = None, size: tuple[int, int] | None = None
) -> Inspection:
    """One layer of an inspection (a view of it), or all layers at the nearest pixels."""

    def cut(value: Tensor) -> Tensor:
        if layer is not None:
            return value[:, :, layer - 1 : layer]
        assert size is not None
        return _nearest(value, size)

    kbuffer = inside.kbuffer
    weight = None if kbuffer.weight is None else cut(kbuffer.weight)
    return replace(
        inside,
        kbuffer=KBuffer(cut(kbuffer.index), cut(kbuffer.depth), cut(kbuffer.distance), weight),
        color=cut(inside.color),
        weight=cut(inside.weight),
        feature_norm=None if inside.feature_norm is None else cut(inside.feature_norm),
        extra={name: cut(value) for name, value in inside.extra.items()},
    )


def _nearest(value: Tensor, size: tuple[int, ...]) -> Tensor:
    """[H, W, ...] at the pixels whose area holds the centres of h x w evenly spaced pixels."""
    for axis, (large, small) in enumerate(zip(value.shape[:2], size, strict=True)):
        middle = (2 * torch.arange(small) + 1) * large // (2 * small)
        value = value.index_select(axis, middle)
    return value


def _mean_of_four(value: Tensor) -> Tensor:
    """[2h, 2w, ...] -> [h, w, ...]."""
    rows = value[0::2] + value[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]).mul_(0.25)
