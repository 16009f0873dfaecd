"""Does a point cloud lie where a scene's photographs show the object?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from render.camera import Camera
from render.scenes.bounds import bounds_of_cameras, bounds_of_points
from render.scenes.types import View

Verdict = Literal["aligned", "partly", "misaligned", "unknown"]

# Measured with the bundled scene (33,620 points, 12 of 60 views), inside and coverage in percent:
# its own points 100, 100; with noise of 0.02 units 99, 100; turned by 5 degrees 95, 99, by 10
# degrees 89, 98, by 45 or 90 degrees 52-74, 79-89; 3 times as large 5, 100; a third 100, 18; a box
# around it 48, 100.
INSIDE = 0.9  # a cloud that fits has at least this share of its points inside the masks
COVERAGE = 0.9  # ... and near this share of the masks' pixels
_SURROUNDS = 0.95  # this coverage tells the object with something around it ...
_SOME = 0.1  # ... from a cloud that is much too large: it has fewer points inside ...
_MOST = 0.5  # ... and fewer in frame
_SEEN = 0.2  # with a smaller share in frame it is another coordinate system
_EMPTY = 0.01  # share of background below which a mask separates nothing
_OTHER_UNITS = 20.0  # times as large or small as what the cameras look at
_SLACK = 0.01  # masks grow by this share of the image's width before points are counted
_SIDE = 256  # masks are thinned out to about this many pixels a side
_GRID = 64  # cells along an image in which points count as near


@dataclass(frozen=True)
class Alignment:
    """How well a cloud fits.

    Args:
        inside: share of the points that lie in the masks of all views that have them in frame;
            None without masks.
        visible: share of the points that at least half of the views have in frame.
        coverage: share of the masks' pixels with a projected point near; None without masks.
        views: how many views were looked at (of those with masks, if there are any).
        verdict: "partly" is a part of the object, or the object with more around it; "unknown"
            that there are no masks to judge by.
        sentence: the numbers, and what to do.
    """

    inside: float | None
    visible: float
    coverage: float | None
    views: int
    verdict: Verdict
    sentence: str


def check_alignment(
    cloud_xyz: Tensor, views: Sequence[View], *, sample: int = 20_000, max_views: int = 12
) -> Alignment:
    """Project points into the masks of some views.

    Args:
        cloud_xyz: [N, 3] in world coordinates; NaN and infinite ones are left out.
        views: decoded here if they were not yet; only ``max_views`` of them, evenly spread.
        sample: at most so many points, chosen at random but always the same.
    """
    points = _sample(cloud_xyz, sample)
    chosen = _spread(views, max_views)
    masks = [_mask(view) for view in chosen]
    if sum(mask is not None for mask in masks) * 2 > len(chosen):
        pairs = [(view, mask) for view, mask in zip(chosen, masks, strict=True) if mask is not None]
    else:
        pairs = [(view, None) for view in chosen]
    in_frame = torch.zeros(len(points))
    outside = torch.zeros(len(points), dtype=torch.bool)
    coverage: list[float] = []
    for view, mask in pairs:
        uv, z = view.camera.project(points)
        index = view.camera.in_frame(uv, z).nonzero()[:, 0]
        in_frame[index] += 1
        if mask is not None:
            uv = uv[index] / _step(view)
            outside[index] |= ~_hits(mask, uv)
            coverage.append(_covered(mask, uv))
    count = max(1, len(points))
    size = _relative_size(points, [view.camera for view in chosen])
    visible = float((in_frame * 2 >= max(1, len(pairs))).sum()) / count
    if not coverage:
        verdict: Verdict = "misaligned" if pairs and visible < _SEEN else "unknown"
        return _told(None, visible, None, len(pairs), verdict, size)
    inside = float(((in_frame > 0) & ~outside).sum()) / count
    covered = sum(coverage) / len(coverage)
    return _told(inside, visible, covered, len(pairs), _judge(inside, visible, covered), size)


def _judge(inside: float, visible: float, coverage: float) -> Verdict:
    if inside >= INSIDE and coverage >= COVERAGE:
        return "aligned"
    part = inside >= INSIDE and coverage > 0
    surrounds = coverage >= _SURROUNDS and inside >= _SOME and visible >= _MOST
    return "partly" if part or surrounds else "misaligned"


def _told(
    inside: float | None,
    visible: float,
    coverage: float | None,
    views: int,
    verdict: Verdict,
    size: float,
) -> Alignment:
    if views == 0:
        numbers, advice = "The scene has no photographs", "whether the cloud fits cannot be told"
    elif inside is None or coverage is None:
        numbers = f"{visible:.0%} of the points are in the frame of most of {views} photographs"
        advice = {
            "unknown": "these have no masks, so look whether the points lie on the object",
            "misaligned": "the cloud is in another coordinate system than the scene; "
            "transform it, or open it on its own",
        }[verdict]
    else:
        numbers = (
            f"{inside:.0%} of the points lie in the masks of {views} photographs and fill "
            f"{coverage:.0%} of the area of the masks"
        )
        if verdict == "aligned":
            advice = "the cloud fits the scene"
        elif verdict == "misaligned":
            advice = (
                "the cloud does not fit; check its axes, scale and origin, or open it on its own"
            )
        elif inside >= INSIDE:
            advice = "it is a part of the object, or too small; what it lacks will stay empty"
        else:
            advice = "it holds more than the object, or is slightly off; look before you train"
    if verdict in ("partly", "misaligned") and not 1 / _OTHER_UNITS < size < _OTHER_UNITS:
        times = f"{size:,.3g} times" if size > 1 else f"1/{1 / size:,.3g}"
        advice += f" (it is {times} as large as what the cameras look at: perhaps other units)"
    return Alignment(inside, visible, coverage, views, verdict, f"{numbers}: {advice}.")


def _relative_size(points: Tensor, cameras: Sequence[Camera]) -> float:
    """Radius of the points over that of what the cameras look at; 1 where there is none."""
    if not len(points) or not cameras:
        return 1.0
    radius = bounds_of_cameras(cameras).radius
    return bounds_of_points(points).radius / radius if radius > 0 else 1.0


def _sample(xyz: Tensor, count: int) -> Tensor:
    """At most ``count`` finite points [M, 3] float32."""
    if len(xyz) > 4 * count:  # a million points need not all be looked at
        generator = torch.Generator().manual_seed(0)
        xyz = xyz[torch.randint(len(xyz), (count,), generator=generator)]
    xyz = xyz[xyz.isfinite().all(1)].float()
    generator = torch.Generator().manual_seed(0)
    return xyz[torch.randperm(len(xyz), generator=generator)[:count]]


def _spread(views: Sequence[View], count: int) -> list[View]:
    step = max(1.0, len(views) / count)
    return [views[int(i * step)] for i in range(min(count, len(views)))]


def _mask(view: View) -> np.ndarray | None:
    """Where the object is, bool [H, W] of every ``_step``-th pixel; None if nowhere or all over."""
    if not view.has_alpha:
        return None
    step = _step(view)
    mask = (view.pixels()[::step, ::step, 3] > 127).numpy()
    background = 1 - mask.mean()
    return mask if _EMPTY < background < 1 else None


def _step(view: View) -> int:
    return max(1, min(view.camera.width, view.camera.height) // _SIDE)


def _hits(mask: np.ndarray, uv: Tensor) -> Tensor:
    """Whether positions [M, 2] in frame lie in the mask or at most a little beside it, bool [M]."""
    grown = ndimage.binary_dilation(mask, iterations=max(1, round(_SLACK * mask.shape[1])))
    column, row = uv.long().unbind(1)
    return torch.from_numpy(grown)[row, column]


def _covered(mask: np.ndarray, uv: Tensor) -> float:
    """Share of the mask's pixels that have one of the positions [M, 2] in the cells around them.

    Sparse clouds get larger cells: about four points each if they fill the mask evenly.
    """
    height, width = mask.shape
    cell = max(width / _GRID, 2 * math.sqrt(mask.sum() / max(1, len(uv))))
    filled = np.zeros((math.ceil(height / cell), math.ceil(width / cell)), bool)
    column, row = (uv / cell).long().unbind(1)
    filled[row.numpy(), column.numpy()] = True
    near = ndimage.binary_dilation(filled, structure=np.ones((3, 3), bool))
    rows, columns = mask.nonzero()
    return float(near[(rows / cell).astype(int), (columns / cell).astype(int)].mean())
