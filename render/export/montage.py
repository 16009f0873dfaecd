"""The inside of one picture on one page: the K depth buffers and what they add up to.

Rows: depth of each layer, its colour, its share of the pixel, and the picture made of layers
1 to k. All layers share one colour scale, so the page can be read across.
"""

from __future__ import annotations

import math

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from render.export.images import colorize, to_uint8
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection

_PAGE = (20, 22, 28)
_EMPTY = torch.tensor([38, 41, 50]).float() / 255
_INK = (236, 238, 242)
_FAINT = (150, 156, 168)
_MARGIN = 28  # pixels of the page
_GAP = 6  # between tiles
_LABEL = 176  # column with the names of the rows
_LEGEND = 124  # column with the colour scales
_WIDTH = 1760  # about: what the page aims at


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
    near, far = _range(inspection)
    cropped = _crop(inspection)
    height, width = cropped.kbuffer.index.shape[:2]
    tile_w = max(72, min(320, (_WIDTH - _LABEL - _LEGEND - 2 * _MARGIN) // layers - _GAP))
    tile_h = max(1, round(tile_w * height / width))
    rows = _rows(cropped, background, near, far)

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

    _headline(draw, title, inspection, (near, far, unit))
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
    _scale(page, draw, (legend_x, top, tile_h), _ticks(near, far), True)
    _scale(page, draw, (legend_x, top + 2 * (tile_h + 12), tile_h), ["0", "0.5", "1"], False)
    return page


def cumulative(inspection: Inspection, background: Tensor) -> Tensor:
    """Pictures made of layers 1..k over ``background`` [3], for every k: [H, W, K, 3].

    The share that the layers leave free belongs to the background.
    """
    weight = inspection.weight[..., None]  # [H, W, K, 1]
    color = (weight * inspection.color).cumsum(2)
    return color + (1 - weight.cumsum(2)).clamp(min=0) * background.to(color)


def _rows(
    inspection: Inspection, background: Tensor, near: float, far: float
) -> list[tuple[str, str, list[Tensor]]]:
    """Name, hint and K tiles [H, W, 3] of every row."""
    kbuffer = inspection.kbuffer
    valid = kbuffer.valid[..., None].cpu()  # [H, W, K, 1]
    # Near is bright: the eye takes bright for close.
    depth = colorize(1 - (kbuffer.depth.cpu() - near) / (far - near))
    # The square root keeps the shares of deep layers, a few per cent, apart from none.
    share = colorize(inspection.weight.cpu().clamp(0, 1).sqrt())
    color, together = inspection.color.cpu(), cumulative(inspection, background).cpu()

    def tiles(values: Tensor, mask: bool = True) -> list[Tensor]:
        if mask:
            values = torch.where(valid, values, _EMPTY)
        return list(values.unbind(2))

    return [
        ("Depth", "bright is near", tiles(depth)),
        ("Colour", "what lies in the layer", tiles(color)),
        ("Contribution", "its share of the pixel", tiles(share)),
        ("Layers 1 to k", "added up", tiles(together, mask=False)),
    ]


def _range(inspection: Inspection) -> tuple[float, float]:
    """1st and 99th percentile of all filled depths: a few strays must not flatten the scale."""
    depth = inspection.kbuffer.depth[inspection.kbuffer.valid].float().cpu()
    if depth.numel() == 0:
        return 0.0, 1.0
    depth = depth[:: max(1, depth.numel() // 1_000_000)].sort().values
    near, far = (float(depth[int(q * (len(depth) - 1))]) for q in (0.01, 0.99))
    return (near, far) if far > near else (near - 0.5, near + 0.5)


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
    ticks: list[str],
    reverse: bool,
) -> None:
    """A vertical colour bar at (x, y, height) with three ticks from top to bottom."""
    x, y, height = box
    ramp = torch.linspace(1, 0, height)
    values = ramp if reverse else ramp.sqrt()
    bar = colorize(values)[:, None].expand(-1, 14, -1)
    page.paste(Image.fromarray(to_uint8(bar)), (x, y))
    labels = ticks if reverse else ticks[::-1]
    for text, place, anchor in zip(labels, (0.0, 0.5, 1.0), ("la", "lm", "ld"), strict=True):
        draw.text((x + 22, y + place * height), text, _INK, _font(13), anchor=anchor)


def _ticks(near: float, far: float) -> list[str]:
    digits = max(0, 2 - math.floor(math.log10(far - near)))
    if digits > 5 or max(abs(near), abs(far)) >= 1e6:  # would not fit beside the scale
        return [f"{value:.4g}" for value in (near, (near + far) / 2, far)]
    return [f"{value:.{digits}f}" for value in (near, (near + far) / 2, far)]


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
