"""The sparse points of a COLMAP model: ``points3D.bin``, ``points3D.txt`` or ``points3D.ply``."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from render.errors import UserError
from render.scenes.pointcloud import read_point_cloud
from render.scenes.types import PointCloud

_MODEL_FOLDERS = ("sparse/0", "colmap/sparse/0", "dense/sparse", "sparse", "dense/0/sparse", ".")
_NAMES = ("points3D.bin", "points3D.txt", "points3D.ply")
# id (u64), xyz (3 f64), rgb (3 u8), reprojection error (f64), track length (u64); no padding.
_RECORD = struct.Struct("<Q3d3BdQ")
_TRACK_ENTRY = 8  # image id and keypoint index, two u32


def find_colmap_points(folder: Path) -> Path | None:
    """The points file of the COLMAP model in a scene folder, or None."""
    for model in _MODEL_FOLDERS:
        for name in _NAMES:
            if (folder / model / name).is_file():
                return folder / model / name
    return None


def read_colmap_points(path: Path) -> PointCloud:
    """Positions and colours of a COLMAP points file.

    Format: COLMAP's documentation, "Output format", points3D.

    Raises:
        UserError: truncated or malformed file, or no points.
    """
    if path.suffix == ".ply":
        return read_point_cloud(path)
    xyz, rgb = _read_binary(path) if path.suffix == ".bin" else _read_text(path)
    keep = np.isfinite(xyz).all(1)
    if not keep.any():
        raise UserError(f"{path}: the COLMAP model holds zero usable points.")
    return PointCloud(
        torch.from_numpy(xyz[keep].astype(np.float32)),
        torch.from_numpy(rgb[keep].astype(np.float32) / 255),
        source=f"COLMAP points {path.name}",
    )


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = path.read_bytes()
    if len(data) < 8:
        raise UserError(f"{path}: expected a count of 8 bytes, found {len(data)} bytes.")
    (count,) = struct.unpack_from("<Q", data)
    if count * _RECORD.size > len(data):
        raise _cut_off(path, count, (len(data) - 8) // _RECORD.size)
    xyz = np.empty((count, 3))
    rgb = np.empty((count, 3), np.uint8)
    offset = 8
    for i in range(count):  # records vary in length: each ends with the track of its point
        if offset + _RECORD.size > len(data):
            raise _cut_off(path, count, i)
        _, x, y, z, r, g, b, _, track = _RECORD.unpack_from(data, offset)
        xyz[i] = x, y, z
        rgb[i] = r, g, b
        offset += _RECORD.size + _TRACK_ENTRY * track
    if offset > len(data):
        raise _cut_off(path, count, count - 1)
    return xyz, rgb


def _read_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.startswith("#") or not line.strip():
                continue
            words = line.split(maxsplit=7)
            try:
                rows.append([float(word) for word in words[1:7]])
                if len(rows[-1]) < 6:
                    raise ValueError
            except ValueError as error:
                raise UserError(
                    f"{path}: line {number}: expected POINT3D_ID X Y Z R G B ERROR TRACK, "
                    f"found {line.strip()[:60]!r}."
                ) from error
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:].clip(0, 255).astype(np.uint8)


def _cut_off(path: Path, expected: int, found: int) -> UserError:
    return UserError(
        f"{path}: the header announces {expected:,} points, found {found:,}; the file is cut off."
    )
