"""Fewer and better points: crop box, outlier removal, voxel and random subsampling.

Every function picks points of a cloud and changes none of them, so that colours, normals and
Gaussians stay what they were. Lengths are those of the coordinates that are given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from render.errors import UserError
from render.scenes.types import PointCloud

Box = tuple[float, float, float, float, float, float]  # min x y z, max x y z

_NEIGHBOURS, _DEVIATIONS = 16, 2.0  # of the statistical test, as the field has them
_MOST_CELLS = 1 << 21  # voxels along an axis: three such numbers fit into one of 64 bits
_PART = 500_000  # points whose neighbours are looked up at once


@dataclass(frozen=True)
class Outliers:
    """Which points are outliers.

    Args:
        statistical: the mean distance to the ``neighbours`` nearest others is more than
            ``limit`` standard deviations above the average of all points; else: fewer than
            ``neighbours`` others within the distance ``limit``.
    """

    statistical: bool
    neighbours: int
    limit: float


@dataclass(frozen=True)
class Cleaning:
    """What to do with the points of a scene, in this order; lengths in the file's units.

    Args:
        crop: keep what lies in this box.
        outliers: remove these.
        voxel: keep one point in each cube of this size.
        most: keep so many at most, chosen at random.
    """

    crop: Box | None = None
    outliers: Outliers | None = None
    voxel: float | None = None
    most: int | None = None

    def __bool__(self) -> bool:
        return self != Cleaning()

    @classmethod
    def parse(
        cls, crop: str | None, outliers: str | None, voxel: float | None, most: int | None
    ) -> Cleaning:
        """From the command line's values.

        Raises:
            UserError: names the option and what it expects.
        """
        if voxel is not None and not 0 < voxel < math.inf:
            raise UserError(f"--points-voxel {voxel:g}: expected a size above 0.")
        if most is not None and most < 1:
            raise UserError(f"--points-most {most}: expected a number above 0.")
        return cls(
            None if crop is None else _parse_box(crop),
            None if outliers is None else _parse_outliers(outliers),
            voxel,
            most,
        )


def clean(
    cloud: PointCloud,
    cleaning: Cleaning,
    to_file: Tensor | None = None,
    seed: int = 0,
    note: Callable[[str], None] = lambda _: None,
) -> PointCloud:
    """Do all of ``cleaning``, and say what each of its steps left.

    Args:
        to_file: [4, 4] from the coordinates of the cloud to those in which lengths and box are
            given; None where they are the same.
        seed: of the random subset.

    Raises:
        UserError: no point is left, or voxels that are far too small.
    """
    if not cleaning:
        return cloud
    xyz = cloud.xyz.double()
    if to_file is not None:
        xyz = xyz @ to_file[:3, :3].double().T + to_file[:3, 3].double()
    points = xyz.numpy()
    kept = np.arange(len(points))

    def keep(rows: np.ndarray, what: str) -> None:
        nonlocal kept
        before, kept = len(kept), kept[rows]
        note(f"{what}: {len(kept):,} of {before:,} points are left.")
        if not len(kept):
            low, high = points.min(0), points.max(0)
            raise UserError(
                f"{what}: none of the {before:,} points is left; they lie between "
                f"({_text(low)}) and ({_text(high)})."
            )

    if cleaning.crop is not None:
        keep(in_box(points, cleaning.crop), "Crop box")
    if cleaning.outliers is not None:
        keep(~are_outliers(points[kept], cleaning.outliers), "Outlier removal")
    if cleaning.voxel is not None:
        keep(voxel_subset(points[kept], cleaning.voxel), f"Voxels of {cleaning.voxel:g}")
    if cleaning.most is not None and len(kept) > cleaning.most:
        keep(random_subset(len(kept), cleaning.most, seed), "Random subset")
    return cloud.subset(torch.from_numpy(kept))


def in_box(xyz: np.ndarray, box: Box) -> np.ndarray:
    """Which points [N, 3] lie in a box, its faces included: bool [N]."""
    low, high = np.array(box[:3]), np.array(box[3:])
    return np.all((xyz >= low) & (xyz <= high), axis=1)


def are_outliers(xyz: np.ndarray, outliers: Outliers) -> np.ndarray:
    """Which points [N, 3] are outliers: bool [N]; none where there are too few to tell."""
    count = len(xyz)
    if count <= outliers.neighbours:
        return np.zeros(count, bool)
    tree = KDTree(xyz)
    value = np.empty(count)
    for start in range(0, count, _PART):
        part = slice(start, start + _PART)
        distance = tree.query(xyz[part], outliers.neighbours + 1, workers=-1)[0]
        # The nearest is the point itself, at distance 0.
        value[part] = (
            distance.sum(1) / outliers.neighbours if outliers.statistical else (distance[:, -1])
        )
    if outliers.statistical:
        return value > value.mean() + outliers.limit * value.std()
    return value > outliers.limit


def voxel_subset(xyz: np.ndarray, size: float) -> np.ndarray:
    """Of each cube of a grid the point that is nearest to the mean of those in it.

    Args:
        xyz: [N, 3]; the grid begins at their minimum.

    Returns:
        int64 [M], ascending.

    Raises:
        UserError: cubes smaller than two millionths of the extent.
    """
    low = xyz.min(0)
    if float((xyz - low).max()) / size >= _MOST_CELLS:
        raise UserError(
            f"--points-voxel {size:g}: expected at least "
            f"{float((xyz - low).max()) / _MOST_CELLS * 1.01:.2g} for points that reach over "
            f"{float((xyz - low).max()):g} units."
        )
    cell = ((xyz - low) / size).astype(np.int64)
    key = (cell[:, 0] * _MOST_CELLS + cell[:, 1]) * _MOST_CELLS + cell[:, 2]
    _, voxel = np.unique(key, return_inverse=True)
    count = np.bincount(voxel)
    mean = np.stack([np.bincount(voxel, xyz[:, axis]) for axis in range(3)], 1) / count[:, None]
    distance = ((xyz - mean[voxel]) ** 2).sum(1)
    order = np.lexsort((distance, voxel))
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    return np.sort(order[first])


def random_subset(count: int, most: int, seed: int) -> np.ndarray:
    """``most`` of ``count`` rows, each as likely as any other: int64 [M], ascending."""
    return np.sort(np.random.default_rng(seed).choice(count, min(most, count), replace=False))


def _parse_box(text: str) -> Box:
    words = re.split(r"[,;\s]+", text.strip().strip("()[]"))
    try:
        x0, y0, z0, x1, y1, z1 = (float(word) for word in words)
    except ValueError:
        x0 = y0 = z0 = x1 = y1 = z1 = math.nan
    if not (x0 < x1 and y0 < y1 and z0 < z1):
        raise UserError(
            f'--points-crop "{text}": expected six numbers "x y z X Y Z", the smaller corner of a '
            "box and the larger one."
        )
    return x0, y0, z0, x1, y1, z1


def _parse_outliers(text: str) -> Outliers:
    match = re.fullmatch(r"(statistical|radius)(?::(\d+),([\d.eE+-]+))?", text.strip())
    try:
        if match is None or (match[1] == "radius" and match[2] is None):
            raise ValueError
        statistical = match[1] == "statistical"
        if match[2] is None:
            return Outliers(statistical, _NEIGHBOURS, _DEVIATIONS)
        found = Outliers(statistical, int(match[2]), float(match[3]))
        if not (1 <= found.neighbours <= 1000 and 0 < found.limit < math.inf):
            raise ValueError
        return found
    except ValueError:
        raise UserError(
            f'--points-outliers "{text}": expected "statistical", "statistical:16,2" (neighbours, '
            'standard deviations) or "radius:4,0.05" (neighbours within that distance).'
        ) from None


def _text(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
