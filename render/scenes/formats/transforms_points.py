"""The world of a ``transforms.json``: its point cloud, and the way back to where it came from.

nerfstudio's ``ns-process-data`` moves what a structure-from-motion program gave: x becomes
``applied_scale`` * (``applied_transform`` x). The poses in the file and the points of
``ply_file_path`` have gone through ``applied_transform`` already; nerfstudio multiplies the points,
not the poses, by ``applied_scale`` when it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from render.errors import UserError
from render.scenes.formats.paths import find_file
from render.scenes.normalize import inverse, is_identity
from render.scenes.startpoints import read_cloud, share_in_frame
from render.scenes.types import PointCloud, View

# What ns-process-data applied before it began to write it down.
_UNWRITTEN = ((0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0))
_CLOUD_SUFFIXES = (".ply",)


def named_cloud(folder: Path, data: Mapping[str, Any], notes: list[str]) -> Path | None:
    """The point cloud that ``ply_file_path`` names, if it is there."""
    name = data.get("ply_file_path")
    if not isinstance(name, str) or not name:
        return None
    try:
        path = find_file(folder, name, _CLOUD_SUFFIXES)
    except UserError as error:  # points are not worth ending for
        notes.append(str(error))
        return None
    if path is None:
        notes.append(f"ply_file_path: {name[:200]} does not exist.")
    return path


def applied_transform(file: Path, folder: Path, data: Mapping[str, Any]) -> Tensor | None:
    """The similarity [4, 4] float64 that poses have gone through; None where there is none.

    Raises:
        UserError: ``applied_transform`` or ``applied_scale`` is no such thing.
    """
    given = data.get("applied_transform")
    scale = data.get("applied_scale", 1.0)
    if given is None and data.get("camera_model") and (folder / "colmap/sparse/0").is_dir():
        given = _UNWRITTEN
    if given is None and scale == 1.0:
        return None
    try:
        matrix = np.asarray(given if given is not None else np.eye(4), dtype=np.float64)
        factor = float(scale)
    except (TypeError, ValueError, OverflowError):
        matrix, factor = np.zeros(0), 0.0
    out = np.eye(4)
    if matrix.shape in ((3, 4), (4, 4)):
        out[:3] = matrix[:3]
    with np.errstate(all="ignore"):
        gram = out[:3, :3].T @ out[:3, :3]
        even = np.abs(gram / gram[0, 0] - np.eye(3)).max() < 1e-3
        even &= np.linalg.det(out[:3, :3]) > 0
    if matrix.shape not in ((3, 4), (4, 4)) or not even or not 1e-9 < factor < 1e9:
        raise UserError(
            f'{file}: expected a 3x4 rotation and translation for "applied_transform" and a '
            f'positive number for "applied_scale", found {str(given)[:80]} and {str(scale)[:20]}; '
            "remove both to read the scene as it is."
        )
    out[:3] *= factor
    similarity = torch.from_numpy(out)
    return None if is_identity(similarity) else similarity


def placed_points(
    cloud: Path, data: Mapping[str, Any], views: list[View], notes: list[str]
) -> PointCloud:
    """The points of ``ply_file_path`` in the world of the poses.

    Raises:
        UserError: no point cloud, or a broken one.
    """
    points = read_cloud(cloud, notes.append)
    scale = float(data.get("applied_scale", 1.0))
    if scale == 1.0:
        return replace(points, source=str(cloud))
    scaled = replace(points, xyz=points.xyz * scale, source=f"{cloud} (times applied_scale)")
    plain = replace(points, source=str(cloud))
    better = share_in_frame(scaled.xyz, views) >= share_in_frame(plain.xyz, views)
    return scaled if better else plain


def way_back(applied: Tensor, notes: list[str]) -> Tensor:
    """``to_file``: from the poses' world to that before ``applied_transform``."""
    notes.append(
        "applied_transform: exports are written in the world before it, which is that of the "
        "program that found the cameras."
    )
    return inverse(applied)
