"""What lies around a reconstruction: points where photographs show something and none was found.

Structure from motion finds the textured object in the middle and little of walls and skies. A
model that starts without anything there paints them onto the object, or never at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from render.scenes.formats.readers import spread
from render.scenes.types import Bounds, PointCloud, View

AROUND = 20_000  # points, if the photographs were empty
VIEWS = 40  # at most, that are looked at
COLUMNS = 16  # cells across a photograph; one with a point in it is not empty
SAMPLE = 500_000  # points of a larger cloud that are projected into every view, about
LEAST = 0.05  # share of empty cells from which points are added
FARTHEST = 4.0  # times the depth of the farthest points of a view


def with_surroundings(
    cloud: PointCloud,
    train: Sequence[View],
    bounds: Bounds,
    seed: int,
    note: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> PointCloud:
    """The cloud, and points behind it in the empty parts of photographs without masks.

    They lie along the rays of empty cells, between the farthest points of the view and
    ``FARTHEST`` times as far, with the colours of their pixels. What would come to lie within the
    bounds, or in front of what another view has found, is left out.
    """
    views = spread(train, VIEWS)
    if not views or any(view.has_alpha for view in views) or cloud.fills_volume:
        return cloud
    generator = torch.Generator().manual_seed(seed)
    sample = cloud.xyz[:: max(1, len(cloud) // SAMPLE)]
    found = [_look(view, sample) for view in views]  # (empty cells, nearest, farthest)
    share = sum(float(empty.float().mean()) for empty, _, _ in found) / len(found)
    if share < LEAST:
        return cloud
    xyz, rgb = [], []
    for view, (empty, _, farthest) in zip(views, found, strict=True):
        check()
        count = round(AROUND / len(views) * float(empty.float().mean()))
        uv = _places(empty, view, count, generator)  # [M, 2]
        depth = farthest * (math.log(FARTHEST) * torch.rand(len(uv), generator=generator)).exp()
        xyz.append(view.camera.unproject(uv.double(), depth.double()).float())
        rgb.append(view.pixels()[uv[:, 1].long(), uv[:, 0].long(), :3].float() / 255)
    points, colors = torch.cat(xyz), torch.cat(rgb)
    keep = (points - bounds.center.float()).norm(dim=1) > bounds.radius
    for view, (_, nearest, _) in zip(views, found, strict=True):
        uv, z = view.camera.project(points)
        keep &= ~(view.camera.in_frame(uv, z) & (z < nearest))
    points, colors = points[keep], colors[keep]
    note(
        f"{share:.0%} of the photographs have no point of the cloud in them: {len(points):,} "
        "points of their colours were put behind it."
    )
    own = torch.full_like(cloud.xyz, 0.5) if cloud.rgb is None else cloud.rgb
    return replace(
        cloud,
        xyz=torch.cat([cloud.xyz, points]),
        rgb=torch.cat([own, colors]),
        normals=None,
        gaussians=None,
    )


def _look(view: View, xyz: Tensor) -> tuple[Tensor, float, float]:
    """Empty cells [rows, COLUMNS] bool, and the depths between which the view's points lie."""
    camera = view.camera
    rows = max(1, round(COLUMNS * camera.height / camera.width))
    empty = torch.ones(rows, COLUMNS, dtype=torch.bool)
    uv, z = camera.project(xyz)
    inside = camera.in_frame(uv, z)
    if not bool(inside.any()):
        return torch.zeros_like(empty), 0.0, 0.0  # how far away things are, nobody knows
    uv = uv[inside]
    column = (uv[:, 0] * (COLUMNS / camera.width)).long().clamp(max=COLUMNS - 1)
    row = (uv[:, 1] * (rows / camera.height)).long().clamp(max=rows - 1)
    empty[row, column] = False
    seen = z[inside].float()[:: max(1, int(inside.sum()) // 10_000)]
    return empty, float(seen.quantile(0.05)), float(seen.quantile(0.95))


def _places(empty: Tensor, view: View, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random pixels [M, 2] (x, y) in the empty cells."""
    cells = empty.nonzero()  # [C, 2] row, column
    if len(cells) == 0 or count == 0:
        return torch.zeros(0, 2)
    cell = cells[torch.randint(len(cells), (count,), generator=generator)].flip(1)
    place = cell + torch.rand(count, 2, generator=generator)
    size = torch.tensor([view.camera.width, view.camera.height])
    return (place * (size / torch.tensor([empty.shape[1], empty.shape[0]]))).clamp(max=size - 0.01)
