"""The points that training begins with.

Three ways: a point cloud that came with the scene; the visual hull of the masks, as wrong as they
are asked to be; and, without masks, points of the bounds at which the photographs agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from render.errors import UserError
from render.memory import check_room
from render.methods.point_radiance.masks import Corruption, carving_view, masked
from render.methods.point_radiance.options import PointRadianceOptions
from render.scenes.bounds import bounds_of_cameras
from render.scenes.colors import colors_from_views
from render.scenes.hull import carve, visual_hull
from render.scenes.spacing import neighbour_distances
from render.scenes.types import Bounds, PointCloud, Scene, View

# Edge of the voxels that data_r counts, over the radius that the cameras look at: the authors'
# 0.01 in the scenes of NeRF-Synthetic, where that radius is 1.366.
HULL_VOXEL = 0.01 / 1.366
CANDIDATES = 3  # times as many points as wanted are drawn without masks
_SAMPLES = 512  # pixels that say how common a colour is
_CHUNK = 1 << 14


class Start(NamedTuple):
    """Points with colours, and a sentence about them."""

    points: PointCloud
    note: str


def starting_points(options: PointRadianceOptions, scene: Scene, seed: int) -> Start:
    """Points of ``scene`` by ``options``.

    Raises:
        UserError: the hull is empty, or nothing could be found to start from.
    """
    views = scene.split("train")
    given = scene.points is not None and not scene.points.fills_volume
    if options.start == "points" or (options.start == "auto" and given):
        if scene.points is None:
            raise UserError(
                f"{scene.name}: --set start=points needs a point cloud, found none; name one with "
                "--points FILE."
            )
        return _chosen(scene.points, options.points, seed, "given")
    if any(masked(view, options.hull_from) for view in views):
        if options.start == "auto" and scene.points is not None and _as_loaded(options):
            return _chosen(scene.points, options.points or default_count(views), seed, "loaded")
        return _hull(options, scene.name, views, seed)
    if options.start == "hull":
        raise UserError(
            f"{scene.name}: --set start=hull needs photographs with masks (transparency), found "
            "none; leave it out, or give a point cloud with --points FILE."
        )
    return _agreeing(options, scene.bounds, views, seed)


def default_count(views: Sequence[View]) -> int:
    """Points to start with: 40,000 for pictures of 200x200, twice as many for 400x400."""
    pixels = max(view.camera.width * view.camera.height for view in views)
    return int(min(max(40_000 * (pixels / 40_000) ** 0.5, 4_000), 400_000))


def point_spacing(points: PointCloud) -> float:
    """Mean distance to the nearest neighbour, scene units; 1 for a single point."""
    if len(points) < 2:
        return 1.0
    distance = torch.from_numpy(neighbour_distances(points.xyz, 1, 2000))
    distance = distance[distance.isfinite() & (distance > 0)]
    return float(distance.mean()) if len(distance) else 1.0


def _as_loaded(options: PointRadianceOptions) -> bool:
    """Whether the hull that the scene came with is the one that is asked for."""
    plain = PointRadianceOptions()
    names = ("mask_threshold", "hull_from", "filter_consistency_ratio", "pc_jitter_amount")
    same = all(getattr(options, name) == getattr(plain, name) for name in names)
    return same and options.data_r == 0


def _chosen(points: PointCloud, count: int, seed: int, how: str) -> Start:
    if points.rgb is None:
        points = PointCloud(points.xyz, torch.full_like(points.xyz, 0.5), source=points.source)
    if 0 < count < len(points):
        generator = torch.Generator().manual_seed(seed)
        points = points.subset(torch.randperm(len(points), generator=generator)[:count])
    return Start(points, f"{len(points):,} points of {points.source or 'the scene'} ({how})")


# ---------------------------------------------------------------------------- hull
def _hull(options: PointRadianceOptions, name: str, views: Sequence[View], seed: int) -> Start:
    corruption = Corruption(options.pc_jitter_amount, len(views), options.pc_jitter_seed)
    shown = [carving_view(v, i, options.hull_from, corruption) for i, v in enumerate(views)]
    masks = sum(masked(view, options.hull_from) for view in views)
    wrong = 1 - options.filter_consistency_ratio
    tolerance = min(int(wrong * masks + 1e-9), masks - 1)  # never all of them
    share = options.scene_value("data_r", name)
    threshold = max(options.mask_threshold, 1 / 255)  # nothing at all never counts as object
    if share > 0:
        points = _even_hull(shown, share, tolerance, threshold, name, seed)
    else:
        count = options.points or default_count(views)
        points = visual_hull(
            shown,
            target_points=count,
            tolerance=tolerance,
            sphere=True,
            threshold=threshold,
            seed=seed,
        )
    if len(points) == 0:
        raise UserError(_empty(options, name, masks, tolerance))
    rgb = colors_from_views(points.xyz, views, points.normals)
    jitter = (
        f", masks made {options.pc_jitter_amount:.0%} wrong" if options.pc_jitter_amount else ""
    )
    note = (
        f"{len(points):,} points of the hull of {masks} masks ({options.hull_from} of at "
        f"least {threshold:.3g}, {tolerance} views may disagree{jitter})"
    )
    return Start(PointCloud(points.xyz, rgb, source="hull", fills_volume=True), note)


def _even_hull(
    views: Sequence[View],
    share: float,
    tolerance: int,
    threshold: float,
    name: str,
    seed: int,
) -> PointCloud:
    """Points all over the hull: a ``share`` of its voxels of :data:`HULL_VOXEL`."""
    masks = [view.pixels()[..., 3].numpy() >= round(255 * threshold) for view in views]
    cameras = [view.camera for view in views]
    bounds = bounds_of_cameras(cameras)
    carved = carve(cameras, masks, bounds, tolerance, sphere=True)
    if len(carved.cells) == 0:
        return PointCloud(torch.zeros(0, 3))
    voxels = len(carved.cells) * (carved.size / (HULL_VOXEL * bounds.radius)) ** 3
    count = int(share * voxels)
    if count < 1:
        raise UserError(
            f"{name}: the hull has {voxels:,.0f} voxels and --set data_r={share:g} leaves none of "
            "them; use a larger data_r."
        )
    check_room(f"{name}, {count:,} points of the hull", 1000 * count, "use a smaller data_r")
    rng = np.random.default_rng(seed)
    cells = carved.cells[rng.integers(0, len(carved.cells), count)]
    xyz = (cells + rng.uniform(size=cells.shape)) * carved.size + carved.origin
    return PointCloud(torch.from_numpy(xyz).float())


def _empty(options: PointRadianceOptions, name: str, masks: int, tolerance: int) -> str:
    remedies = [f"a smaller filter_consistency_ratio than {options.filter_consistency_ratio:g}"]
    if options.pc_jitter_amount > 0:
        remedies.append(f"a smaller pc_jitter_amount than {options.pc_jitter_amount:g}")
    if options.mask_threshold > 0.02:
        remedies.append(f"a smaller mask_threshold than {options.mask_threshold:g}")
    return (
        f"{name}: the visual hull is empty: no place in space is object in {masks - tolerance} of "
        f"the {masks} masks; masks and poses contradict each other. Try --set with "
        f"{' or '.join(remedies)}, or give a point cloud with --points FILE."
    )


# ---------------------------------------------------------------------------- without masks
def _agreeing(
    options: PointRadianceOptions, bounds: Bounds, views: Sequence[View], seed: int
) -> Start:
    """Points of the bounds whose colour more photographs agree on than chance would have it."""
    count = options.points or default_count(views)
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(CANDIDATES * count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = bounds.radius * np.cbrt(rng.uniform(size=(len(direction), 1)))
    xyz = (bounds.center + torch.from_numpy(direction * distance)).float()
    rgb = colors_from_views(xyz, views, occlusion=False)
    lift = agreement(xyz, rgb, views, options.color_tolerance)
    lift = lift / chance(rgb, views, options.color_tolerance, seed)
    best = lift.argsort(descending=True, stable=True)[:count].sort().values
    cloud = PointCloud(xyz[best], rgb[best], source="bounds", fills_volume=True)
    note = f"{count:,} points of the bounds on which the photographs agree (no masks)"
    return Start(cloud, note)


def agreement(xyz: Tensor, rgb: Tensor, views: Sequence[View], tolerance: float) -> Tensor:
    """Share [N] of the views with a point in frame that show about its colour there."""
    agree, seen = torch.zeros(len(xyz)), torch.zeros(len(xyz))
    for view in views:
        camera, pixels = view.camera, view.pixels()
        uv, z = camera.project(xyz)
        u, v = uv.unbind(1)
        inside = (z > 1e-9) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        column, row = (torch.where(inside, x, 0.0).long() for x in (u, v))
        color = pixels[row, column, :3].float() / 255
        agree += inside & ((color - rgb).abs().amax(1) < tolerance)
        seen += inside
    return agree / seen.clamp(min=1)


def chance(rgb: Tensor, views: Sequence[View], tolerance: float, seed: int) -> Tensor:
    """Share [N] of all pixels that are about as each of the colours [N, 3], at least 1 %."""
    generator = torch.Generator().manual_seed(seed)
    each = math.ceil(_SAMPLES / len(views))
    samples = []
    for view in views:
        pixels = view.pixels()[..., :3].reshape(-1, 3)
        samples.append(pixels[torch.randint(len(pixels), (each,), generator=generator)])
    sample = torch.cat(samples).float() / 255  # [S, 3]
    shares = [
        ((part[:, None] - sample).abs().amax(2) < tolerance).float().mean(1)
        for part in rgb.split(_CHUNK)
    ]
    return torch.cat(shares).clamp(min=0.01)
