"""The rasteriser in plain torch: the oracle of the compiled ones and the last resort.

Written to be read and never optimised; runs on any device that has float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from render.kbuffer.axes import PixelAxis
from render.kbuffer.types import KBuffer

MAX_PAIRS = 1 << 24  # (point, pixel) pairs at once, about 1 GB; larger frames are halved


def project_screen(
    xyz: Tensor, world_to_screen: Tensor, radius: Tensor, radius_focal: float = 0.0
) -> tuple[Tensor, Tensor]:
    """World points [N, 3] to (u, v, depth) [N, 3] and their radius on screen, [1] or [N].

    Column by column instead of a matrix product, so that the order of roundings is known and equal
    to the compiled kernel's. ``radius_focal`` > 0: radius * radius_focal / depth.
    """
    x, y, z = xyz.unbind(1)
    m = world_to_screen.tolist()
    qx, qy, depth = ((row[0] * x + row[1] * y) + (row[2] * z + row[3]) for row in m)
    if radius_focal > 0:
        radius = radius * radius_focal / depth
    return torch.stack([qx / depth, qy / depth, depth], 1), radius


def rasterize_screen_torch(
    uvz: Tensor,
    radius: Tensor,
    xs: PixelAxis,
    ys: PixelAxis,
    k: int,
    *,
    near: float,
    footprint: str,
) -> KBuffer:
    """K nearest covering points of every pixel; arguments as ``rasterize.rasterize_screen``."""
    uvz = uvz + 0.0  # -0 becomes +0, whose bits sort first
    r = radius.expand(len(uvz))
    drawable = uvz.isfinite().all(1) & (uvz[:, 2] >= near) & ((r > 0) | (footprint == "pixel"))
    ids = drawable.nonzero()[:, 0]  # [D]
    uvz, r = uvz[ids], r[ids]
    columns, rows = xs.centers.to(uvz.device), ys.centers.to(uvz.device)
    if footprint == "pixel":
        pairs = _pixel_pairs(uvz, xs, ys)
        return _nearest(*pairs, ids, uvz[:, 2], len(rows), len(columns), k)

    def bands(rows: Tensor) -> list[KBuffer]:
        box = (*_covered(uvz[:, 0], r, columns), *_covered(uvz[:, 1], r, rows))
        x0, x1, y0, y1 = box
        if len(rows) > 1 and ((x1 - x0) * (y1 - y0)).sum() > MAX_PAIRS:
            middle = len(rows) // 2
            return bands(rows[:middle]) + bands(rows[middle:])
        pairs = _disc_pairs(uvz, r, columns, rows, box)
        return [_nearest(*pairs, ids, uvz[:, 2], len(rows), len(columns), k)]

    parts = bands(rows)
    return KBuffer(
        torch.cat([part.index for part in parts]),
        torch.cat([part.depth for part in parts]),
        torch.cat([part.distance for part in parts]),
    )


def _covered(u: Tensor, r: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Half-open ranges of ``centers`` within ``r`` [D] of ``u`` [D], a hair wide."""
    u, r, centers = u.double(), r.double() * (1 + 1e-5), centers.double()
    return torch.searchsorted(centers, u - r), torch.searchsorted(centers, u + r, right=True)


def _disc_pairs(
    uvz: Tensor, r: Tensor, columns: Tensor, rows: Tensor, box: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """All (pixel, point, distance), [M] each, whose pixel centre is strictly within the radius."""
    x0, x1, y0, y1 = box
    width = x1 - x0
    size = width * (y1 - y0)
    point = torch.repeat_interleave(size)
    nth = torch.arange(len(point), device=uvz.device) - (size.cumsum(0) - size)[point]
    x = x0[point] + nth % width[point]
    y = y0[point] + nth // width[point]
    dx = uvz[point, 0] - columns[x]
    dy = uvz[point, 1] - rows[y]
    d2, r2 = dx * dx + dy * dy, (r * r)[point]
    inside = d2 < r2
    return (y * len(columns) + x)[inside], point[inside], (d2 / r2)[inside]


def _pixel_pairs(uvz: Tensor, xs: PixelAxis, ys: PixelAxis) -> tuple[Tensor, Tensor, Tensor]:
    """(pixel, point, distance), [M] each, of the points that fall into the image."""
    s = (uvz[:, 0] + xs.half) * xs.scale
    t = (uvz[:, 1] + ys.half) * ys.scale
    width, height = len(xs.centers), len(ys.centers)
    point = ((s >= 0) & (s < width) & (t >= 0) & (t < height)).nonzero()[:, 0]
    x, y = s[point].long(), t[point].long()
    dx = (uvz[point, 0] - xs.centers.to(uvz.device)[x]) * xs.scale
    dy = (uvz[point, 1] - ys.centers.to(uvz.device)[y]) * ys.scale
    return y * width + x, point, dx * dx + dy * dy


def _nearest(
    pixel: Tensor,
    point: Tensor,
    distance: Tensor,
    ids: Tensor,
    depth: Tensor,
    height: int,
    width: int,
    k: int,
) -> KBuffer:
    """The k nearest of the pairs [M] of each pixel; ``ids`` and ``depth`` [D] are per point."""
    order = depth[point].argsort(stable=True)  # points come by index, so ties stay by index
    order = order[pixel[order].argsort(stable=True)]
    pixel, point, distance = pixel[order], point[order], distance[order]
    layer = torch.arange(len(pixel), device=pixel.device) - torch.searchsorted(pixel, pixel)
    keep = layer < k
    slot = pixel[keep] * k + layer[keep]
    index = torch.full((height * width * k,), -1, dtype=torch.int32, device=pixel.device)
    out_depth = torch.full(index.shape, -1.0, device=pixel.device)
    out_distance = torch.full(index.shape, -1.0, device=pixel.device)
    index[slot] = ids[point[keep]].int()
    out_depth[slot] = depth[point[keep]]
    out_distance[slot] = distance[keep]
    shape = (height, width, k)
    return KBuffer(index.view(shape), out_depth.view(shape), out_distance.view(shape))
