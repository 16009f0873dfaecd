"""The inside of one picture on one page: the K depth buffers and what they add up to.

Rows: depth of each layer, its colour, its share of the pixel, and the picture made of layers
1 to k. All layers share one colour scale, so the page can be read across.
"""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from render.export.images import to_uint8
from render.export.layer_colors import (
    cumulative,
    depth_colors,
    percentile_span,
    point_colors,
    share_colors,
)
from render.export.legend import Legend, depth_legend, share_legend
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection

_PAGE = (20, 22, 28)
_INK = (236, 238, 242)
_FAINT = (150, 156, 168)
_MARGIN = 28  # pixels of the page
_GAP = 6  # between tiles
_LABEL = 176  # column with the names of the rows
_LEGEND = 124  # column with the colour scales
_WIDTH = 1760  # about: what the page aims at
_TICK_STEP = 22  # pixels between the numbers of a scale


def montage(
    inspection: Inspection,
    background: Tensor,
    *,
    title: str,
    pictures: list[tuple[str, Tensor]] | None = None,
    unit: str = "scene units",
) -> Image.Image:
    """Draw the page.

    Args:
        inspection: of one view, K layers.
        background: [3], behind the cumulative pictures.
        title: the headline.
        pictures: named images [H, W, 3] for the right end of the headline's row, for example the
            render and the photograph.
        unit: of depth, for the legend.
    """
    layers = inspection.kbuffer.k
    inspection, background = _on_cpu(inspection), background.cpu()
    # A few strays must not flatten the scale.
    span = percentile_span(inspection.kbuffer.depth, inspection.kbuffer.valid, (1.0, 99.0))
    cropped = _crop(inspection)
    height, width = cropped.kbuffer.index.shape[:2]
    tile_w = max(72, min(320, (_WIDTH - _LABEL - _LEGEND - 2 * _MARGIN) // layers - _GAP))
    tile_h = max(1, round(tile_w * height / width))
    rows = _rows(cropped, background, span)

    head_h = max(176, tile_h) if pictures else 96
    page_w = _MARGIN * 2 + _LABEL + layers * (tile_w + _GAP) - _GAP + _LEGEND
    shown = [
        (name, image, round(head_h * image.shape[1] / image.shape[0]))
        for name, image in pictures or []
    ]
    pictures_w = sum(w + 12 for _, _, w in shown)
    page_w = max(page_w, _MARGIN * 2 + 640 + pictures_w)
    top = _MARGIN + head_h + 52
    page_h = top + len(rows) * (tile_h + 12) + _MARGIN
    page = Image.new("RGB", (page_w, page_h), _PAGE)
    draw = ImageDraw.Draw(page)

    _headline(draw, title, inspection, (*span, unit))
    x = page_w - _MARGIN - pictures_w + 12
    for name, image, w in shown:
        page.paste(_tile(image, w, head_h), (x, _MARGIN))
        draw.text((x + w / 2, _MARGIN + head_h + 6), name, _FAINT, _font(14), anchor="ma")
        x += w + 12

    left = _MARGIN + _LABEL
    for k in range(layers):
        center = left + k * (tile_w + _GAP) + tile_w / 2
        draw.text((center, top - 10), f"layer {k + 1}", _INK, _font(15), anchor="ms")
    for r, (name, hint, tiles) in enumerate(rows):
        y = top + r * (tile_h + 12)
        draw.text((_MARGIN, y + tile_h / 2 - 4), name, _INK, _font(18), anchor="ls")
        draw.text((_MARGIN, y + tile_h / 2 + 4), hint, _FAINT, _font(12), anchor="la")
        for k, image in enumerate(tiles):
            page.paste(_tile(image, tile_w, tile_h), (left + k * (tile_w + _GAP), y))
    legend_x = left + layers * (tile_w + _GAP) + 10
    _scale(page, draw, (legend_x, top, tile_h), depth_legend(span, unit), flip=False)
    share_top = top + 2 * (tile_h + 12)
    _scale(page, draw, (legend_x, share_top, tile_h), share_legend(), flip=True)
    return page


def _rows(
    inspection: Inspection, background: Tensor, span: tuple[float, float]
) -> list[tuple[str, str, list[Tensor]]]:
    """Name, hint and K tiles [H, W, 3] of every row."""
    rows = [
        ("Depth", "bright is near", depth_colors(inspection, span)),
        ("Colour", "what lies in the layer", point_colors(inspection)),
        ("Contribution", "its share of the pixel, %", share_colors(inspection)),
        ("Layers 1 to k", "added up", cumulative(inspection, background)),
    ]
    return [(name, hint, list(colors.unbind(2))) for name, hint, colors in rows]


def _headline(
    draw: ImageDraw.ImageDraw,
    title: str,
    inspection: Inspection,
    depth: tuple[float, float, str],
) -> None:
    kbuffer = inspection.kbuffer
    filled = kbuffer.valid.float().mean(dim=(0, 1)).cpu()
    count = kbuffer.count().float()
    covered = count > 0
    mean = float(count[covered].mean()) if bool(covered.any()) else 0.0
    lines = [
        f"{kbuffer.index.shape[1]} x {kbuffer.index.shape[0]} pixels, "
        f"{float(covered.float().mean()):.0%} covered, {mean:.1f} of {kbuffer.k} layers "
        "filled there",
        f"layer 1 fills {float(filled[0]):.0%} of the picture, layer {kbuffer.k} "
        f"{float(filled[-1]):.0%}",
        f"depth from {depth[0]:.3g} to {depth[1]:.3g} {depth[2]} (1st to 99th percentile)",
    ]
    draw.text((_MARGIN, _MARGIN), title, _INK, _font(28))
    for i, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 44 + 22 * i), line, _FAINT, _font(15))


def _scale(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int],
    legend: Legend,
    flip: bool,
) -> None:
    """A vertical colour bar at (x, y, height), position 0 at the top or, flipped, at the bottom."""
    x, y, height = box
    blocks = (torch.arange(height) * len(legend.colors)) // height
    bar = legend.colors[blocks][:, None].expand(-1, 14, -1)
    page.paste(Image.fromarray(to_uint8(bar.flip(0) if flip else bar)), (x, y))
    first, *rest, last = legend.ticks
    drawn: list[float] = []
    for position, text in (first, last, *rest):  # the ends matter most where there is no room
        place = 1 - position if flip else position
        if any(abs(place - other) * height < _TICK_STEP for other in drawn):
            continue
        drawn.append(place)
        anchor = "la" if place == 0 else "ld" if place == 1 else "lm"
        draw.text((x + 22, y + place * height), text, _INK, _font(13), anchor=anchor)


def _on_cpu(inspection: Inspection) -> Inspection:
    """What the page shows of it."""
    kbuffer = inspection.kbuffer
    layers = (kbuffer.index, kbuffer.depth, kbuffer.distance)
    kbuffer = KBuffer(*(layer.cpu() for layer in layers))
    return Inspection(kbuffer, inspection.color.cpu(), inspection.weight.cpu())


def _crop(inspection: Inspection) -> Inspection:
    """The window around all filled pixels, so that small objects fill their tiles."""
    kbuffer = inspection.kbuffer
    covered = kbuffer.valid.any(-1)
    if not bool(covered.any()):
        return inspection
    window = []
    for size, hits in zip(covered.shape, (covered.any(1), covered.any(0)), strict=True):
        filled = hits.nonzero()[:, 0]
        margin = 2 + size // 50
        window.append(slice(max(0, int(filled[0]) - margin), int(filled[-1]) + 1 + margin))
    rows, columns = window

    def cut(value: Tensor) -> Tensor:
        return value[rows, columns]

    return Inspection(
        KBuffer(cut(kbuffer.index), cut(kbuffer.depth), cut(kbuffer.distance)),
        cut(inspection.color),
        cut(inspection.weight),
    )


def _tile(image: Tensor, width: int, height: int) -> Image.Image:
    picture = Image.fromarray(to_uint8(image))
    larger = width > picture.width
    return picture.resize(
        (width, height), Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    )


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
