"""A point cloud as good multi-view stereo would give it: visible surfaces, colours from photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cameras import SIZE, pixel_rays, project
from numpy.typing import NDArray
from scipy.spatial import KDTree
from tracer import EPS, MISS, World, first_surface

Floats = NDArray[np.float64]


def thin_out(points: Floats, spacing: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of a random subset in which no two points are closer than `spacing`."""
    neighbours = KDTree(points).query_ball_point(points, spacing, return_sorted=False)
    free = np.ones(len(points), bool)
    kept = []
    for i in rng.permutation(len(points)):
        if free[i]:
            kept.append(i)
            free[neighbours[i]] = False
    return np.sort(np.asarray(kept))


def visible_surface(
    world: World, poses: list[Floats], spacing: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Points and outward normals [N, 3] on what the training cameras see, evenly spread."""
    points, normals = np.empty((0, 3)), np.empty((0, 3))
    for start in range(0, len(poses), 6):  # a few views at a time keep the memory small
        new_points, new_normals = [points], [normals]
        for pose in poses[start : start + 6]:
            origins, directions = pixel_rays(pose)
            distance, normal = first_surface(world, origins, directions, 50.0)
            hit = distance < MISS
            new_points.append((origins + distance[:, None] * directions)[hit])
            new_normals.append(normal[hit])
        points, normals = np.concatenate(new_points), np.concatenate(new_normals)
        kept = thin_out(points, spacing, rng)
        points, normals = points[kept], normals[kept]
    return points, normals


def photo_colors(
    world: World, poses: list[Floats], images: list[NDArray[np.uint8]], points: Floats,
    normals: Floats,
) -> Floats:  # fmt: skip
    """Median colour [N, 3] in 0..255 over the views that see each point.

    Pixels that the model covers only in part count where nothing better is seen.
    """
    samples = np.full((2, len(poses), len(points), 3), np.nan, np.float32)
    target = points + EPS * normals
    for view, (pose, image) in enumerate(zip(poses, images, strict=True)):
        to_point = target - pose[:3, 3]
        reach = np.linalg.norm(to_point, axis=1)
        directions = to_point / reach[:, None]
        origins = np.broadcast_to(pose[:3, 3], points.shape).copy()
        distance, _ = first_surface(world, origins, directions, 50.0)
        xy, _ = project(pose, points)
        col, row = np.floor(xy).astype(int).T
        seen = (distance > reach - 4 * EPS) & (np.minimum(col, row) >= 0)
        seen &= np.maximum(col, row) < SIZE
        pixel = np.zeros((len(points), 4))
        pixel[seen] = image[row[seen], col[seen]]
        for quality, least in enumerate((250, 1)):
            good = seen & (pixel[:, 3] >= least)
            samples[quality, view, good] = pixel[good, :3]
    clear, partial = (np.ma.masked_invalid(s) for s in samples)
    best = np.ma.median(clear, axis=0).filled(np.nan)
    return np.where(np.isnan(best), np.ma.median(partial, axis=0).filled(127.0), best)


def write_ply(path: Path, points: Floats, normals: Floats, colors: Floats) -> None:
    """Binary little-endian PLY with x y z nx ny nz (float) and red green blue (uchar)."""
    names = ("x", "y", "z", "nx", "ny", "nz")
    rows = np.empty(
        len(points), [(n, "<f4") for n in names] + [(n, "u1") for n in ("red", "green", "blue")]
    )
    for k, name in enumerate(names):
        rows[name] = np.concatenate([points, normals], axis=1)[:, k]
    for k, name in enumerate(("red", "green", "blue")):
        rows[name] = np.clip(np.round(colors[:, k]), 0, 255)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {n}" for n in names]
    header += [f"property uchar {n}" for n in ("red", "green", "blue")]
    path.write_bytes("\n".join([*header, "end_header\n"]).encode("ascii") + rows.tobytes())
