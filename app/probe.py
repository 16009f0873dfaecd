"""What lies behind one pixel: the filled layers, nearest first, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from app.snapshot import ViewResult

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class ProbeRow:
    """One filled layer of a pixel.

    Args:
        layer: 1 = nearest.
        id: number of the point or Gaussian.
        depth: camera z, scene units.
        distance: from the pixel's centre to the point's, in radii of its footprint, 0 to 1.
        weight: share of the layer in the final pixel.
        color: of the point, in [0, 1].
    """

    layer: int
    id: int
    depth: float
    distance: float
    weight: float
    color: Rgb


@dataclass(frozen=True)
class Probe:
    """One pixel of a result.

    Args:
        x, y: column and row.
        k: layers that were looked for.
        rows: the filled ones, nearest first.
        rgb: of the finished picture; None where only the layers were rendered.
        alpha: opacity of the finished picture; None where it is not known.
    """

    x: int
    y: int
    k: int
    rows: tuple[ProbeRow, ...]
    rgb: Rgb | None = None
    alpha: float | None = None


def probe(result: ViewResult, k: int, x: int, y: int) -> Probe | None:
    """Look behind pixel (column ``x``, row ``y``) of the picture with ``k`` layers.

    Reads that pixel alone. None outside the picture and where the K layers were not asked for.
    """
    camera, inside = result.request.camera, result.insides.get(k)
    if inside is None or not (0 <= x < camera.width and 0 <= y < camera.height):
        return None
    kbuffer = inside.kbuffer
    index = kbuffer.index[y, x].tolist()
    depth, distance = kbuffer.depth[y, x].tolist(), kbuffer.distance[y, x].tolist()
    weight, color = inside.weight[y, x].tolist(), inside.color[y, x]
    rows = tuple(
        ProbeRow(i + 1, point, depth[i], math.sqrt(max(distance[i], 0)), weight[i], _rgb(color[i]))
        for i, point in enumerate(index)
        if point >= 0
    )
    picture = result.renders.get(k)
    if picture is None:
        return Probe(x, y, k, rows)
    alpha = None if picture.alpha is None else float(picture.alpha[y, x])
    return Probe(x, y, k, rows, _rgb(picture.rgb[y, x]), alpha)


def _rgb(color: Tensor) -> Rgb:
    red, green, blue = color.nan_to_num().tolist()  # a model that diverged can still be looked at
    return red, green, blue
