"""The sparse points of a COLMAP model: ``points3D.bin``, ``points3D.txt`` or ``points3D.ply``."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import Columns, Table, to_cloud
from render.scenes.clouds.pointcloud import read_point_cloud
from render.scenes.formats.colmap_model import lines_of, mapped
from render.scenes.types import PointCloud

_MODEL_FOLDERS = ("sparse/0", "colmap/sparse/0", "dense/sparse", "sparse", "dense/0/sparse", ".")
_NAMES = ("points3D.bin", "points3D.txt", "points3D.ply")
# No padding; the track, 8 bytes an entry (image id and keypoint index, two u32), follows.
_RECORD = np.dtype(
    [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")]
)
_COLUMNS: tuple[str, ...] = ("x", "y", "z", "red", "green", "blue")


def is_colmap_points(path: Path) -> bool:
    """Whether ``path`` is called like a points file that only :func:`read_colmap_points` reads."""
    return path.name in ("points3D.bin", "points3D.txt")


def find_colmap_points(folder: Path) -> Path | None:
    """The points file of the COLMAP model in a scene folder, or None."""
    for model in _MODEL_FOLDERS:
        path = points_of_model(folder / model)
        if path is not None:
            return path
    return None


def points_of_model(model: Path) -> Path | None:
    """The points file in the folder of a model, or None."""
    return next((model / name for name in _NAMES if (model / name).is_file()), None)


def read_colmap_points(path: Path) -> PointCloud:
    """Positions and colours of a COLMAP points file.

    Format: COLMAP's documentation, "Output format", points3D.

    Raises:
        UserError: truncated or malformed file, or no points.
    """
    if path.suffix == ".ply":
        return read_point_cloud(path)
    xyz, rgb = _read_binary(path) if path.suffix == ".bin" else _read_text(path)
    if len(xyz) == 0:
        raise UserError(f"{path}: the COLMAP model holds zero points; reconstruct it again.")
    columns: Columns = dict(zip(_COLUMNS, (*xyz.T, *rgb.T), strict=True))
    return to_cloud(path, Table(columns, "COLMAP"))


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with mapped(path) as data:
        if len(data) < 8:
            raise UserError(f"{path}: expected a count of 8 bytes, found {len(data)} bytes.")
        (count,) = struct.unpack_from("<Q", data)
        size, limit = _RECORD.itemsize, len(data)
        if count * size > limit:
            raise _cut_off(path, count, (limit - 8) // size)
        starts = np.empty(count, np.int64)
        track = struct.Struct("<Q")
        at = 8
        for i in range(count):  # records vary in length: each ends with the track of its point
            starts[i] = at
            at += size
            if at > limit:
                raise _cut_off(path, count, i)
            at += 8 * track.unpack_from(data, at - 8)[0]
            if at > limit:
                raise _cut_off(path, count, i)
        table = np.empty(count, _RECORD)
        raw = np.frombuffer(data, np.uint8)
        into = table.view(np.uint8).reshape(count, size)
        for column in range(size):  # a byte at a time: no index array of [count, size]
            into[:, column] = raw[starts + column]
        del raw  # else the file could not be closed
    return table["xyz"], table["rgb"]


def _read_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    for number, line in lines_of(path):
        if not line.strip():
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
    colors = np.nan_to_num(table[:, 3:]).clip(0, 255)
    return table[:, :3], colors.astype(np.uint8)


def _cut_off(path: Path, expected: int, found: int) -> UserError:
    return UserError(
        f"{path}: the header announces {expected:,} points, found {found:,}; the file is cut off: "
        "copy it again."
    )
