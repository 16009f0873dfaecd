"""Point clouds of every format, by content, and back to PLY."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch

from render.errors import UserError
from render.memory import loading_bytes
from render.sampling import LOW_PASS, MAX_SAMPLES, PUBLISHED, Sampling
from render.scenes.clouds.columns import Table, no_points, splat_columns, to_cloud
from render.scenes.clouds.e57 import e57_count, read_e57
from render.scenes.clouds.las import las_count, read_las
from render.scenes.clouds.mesh import MESH_FORMS, MeshForm, read_mesh
from render.scenes.clouds.pcd import read_pcd, read_pcd_header
from render.scenes.clouds.ply import (
    Header,
    find_points,
    read_ply,
    read_ply_header,
    write_ply_rows,
)
from render.scenes.clouds.pointnumpy import describe_numpy, numpy_size, read_numpy
from render.scenes.clouds.pointtext import first_row, read_text_table
from render.scenes.clouds.splat import BYTES as SPLAT_BYTES
from render.scenes.clouds.splat import read_splat
from render.scenes.clouds.spz import read_header as read_spz_header
from render.scenes.clouds.spz import read_spz
from render.scenes.filetype import FileType, Form, file_type, head_lines
from render.scenes.types import PointCloud

# What a name promises, for files whose content says nothing.
_SUFFIXES: dict[str, Form] = {
    ".ply": "ply", ".npy": "npy", ".npz": "npz", ".pcd": "pcd", ".las": "las", ".laz": "las",
    ".e57": "e57", ".obj": "obj", ".stl": "stl", ".off": "off", ".glb": "glb", ".gltf": "gltf",
    ".splat": "splat", ".spz": "spz", ".xyz": "numbers", ".txt": "numbers", ".csv": "numbers",
    ".pts": "numbers", ".asc": "numbers",
}  # fmt: skip
POINT_SUFFIXES = tuple(_SUFFIXES)
POINT_FORMS: tuple[Form, ...] = tuple(dict.fromkeys(_SUFFIXES.values()))

TEXT_BYTES = 10  # of memory for each byte of text, while it is read
_SPLAT_ROW = 2 * 4 * 59  # bytes of a Gaussian while it is read: its columns and its tensors


def is_point_cloud(path: Path) -> bool:
    """Whether ``path`` is a file with the content, or at least the suffix, of a point cloud."""
    if not path.is_file():
        return False
    if path.suffix.lower() in POINT_SUFFIXES:
        return True
    try:
        return file_type(path).form in POINT_FORMS
    except UserError:
        return False


def read_point_cloud(path: str | Path, most: int | None = None) -> PointCloud:
    """Read a point cloud; ``source`` of the result tells what it was and what was dropped.

    The content decides how, whatever the file is called. Points with NaN or infinite coordinates
    are dropped. Files of trained 3D Gaussians are recognised: their raw attributes are in
    ``gaussians`` ("f_dc" [N, 3], "f_rest" [N, C], "opacity" [N, 1], "scale" [N, 3], "rotation"
    [N, 4]; logits and logarithms as in the file). Of coordinates that float32 would blur an offset
    is subtracted, in float64.

    Args:
        most: read about so many points at most, evenly spread over the file; only the formats of
            :func:`can_sample` are quicker for it, others may ignore it.

    Raises:
        UserError: no point cloud, broken file, a library that is missing, or not a single usable
            point.
    """
    path = Path(path)
    kind, form = _kind(path)
    if form is None:
        raise UserError(
            f"{path}: expected a point cloud ({', '.join(POINT_SUFFIXES)}), found {kind.what}."
        )
    return to_cloud(path, _READERS[form](path, most))


def can_sample(kind: FileType) -> bool:
    """Whether an even subset of a file's points comes without reading all of it."""
    if kind.form == "ply":
        return b"\nformat ascii" not in kind.head[:1024]
    if kind.form == "pcd":
        return b"\nDATA binary\n" in kind.head
    return kind.form in ("npy", "las")


def describe_point_cloud(path: Path, kind: FileType) -> str:
    """A few words about a file of one of :data:`POINT_FORMS`; reads its header at most.

    Raises:
        UserError: a header that is broken, or too few bytes after it.
    """
    if kind.form == "ply":
        header, index = find_points(path)
        element = header.elements[index]
        if element.count == 0:
            raise no_points(path)
        splats = any(p.name.lower() == "f_dc_0" for p in element.properties)
        return f"point cloud, PLY with {element.count:,} {'Gaussians' if splats else 'points'}"
    if kind.form == "numbers":
        lines = head_lines(kind.head) or []
        first, _ = first_row(path, lines)
        count = sum(bool(line.strip()) for line in lines[first:])
        about = ""
        if kind.size > len(kind.head):
            about, count = "about ", round(count * kind.size / len(kind.head))
        return f"point cloud, text with {about}{count:,} rows"
    if kind.form in ("npy", "npz"):
        return f"point cloud, {describe_numpy(path)}"
    if kind.form in MESH_FORMS:
        return f"mesh, {kind.form.upper()}, for its points"
    count, _ = point_cloud_size(path)
    if kind.form in ("splat", "spz"):
        return f"point cloud, {kind.form.upper()} with {count:,} Gaussians"
    return f"point cloud, {kind.form.upper()} with {count:,} points"


def point_cloud_size(path: str | Path) -> tuple[int, int]:
    """How many points a file holds, and the bytes of memory that reading it takes; both about.

    Reads its header at most.

    Raises:
        UserError: as :func:`read_point_cloud`, for what the header tells.
    """
    path = Path(path)
    kind, form = _kind(path)
    if form == "ply":
        header, index = find_points(path)
        element = header.elements[index]
        if header.format == "ascii" or element.has_lists:  # a table of doubles beside the text
            row = 8 * len(element.properties)
            return element.count, 2 * kind.size + loading_bytes(element.count, row)
        size = element.dtype("=").itemsize
        splats = any(p.name.lower() == "f_dc_0" for p in element.properties)
        return element.count, loading_bytes(element.count, 2 * size if splats else size)
    if form in ("npy", "npz"):
        rows, size = numpy_size(path)
        return rows, size + loading_bytes(rows, 0)
    if form == "pcd":
        pcd = read_pcd_header(path)
        row = 8 * len(pcd.dtype.names or ()) if pcd.data == "ascii" else 2 * pcd.dtype.itemsize
        return pcd.count, kind.size + loading_bytes(pcd.count, row)
    if form == "las":
        count, _ = las_count(path)
        return count, loading_bytes(count, 4 * 24 + 12)  # doubles, twice, and colours
    if form == "e57":
        count = e57_count(path)
        return count, loading_bytes(count, 4 * 24 + 12)
    if form == "splat":
        count = kind.size // SPLAT_BYTES
        return count, kind.size + loading_bytes(count, 2 * 4 * 14)
    if form == "spz":
        spz = read_spz_header(path, kind.head, kind.size)
        return spz.count, spz.size + loading_bytes(spz.count, _SPLAT_ROW)
    if form in ("obj", "off", "gltf"):
        return kind.size // 40, 2 * TEXT_BYTES * kind.size
    if form in ("glb", "stl"):
        return kind.size // 40, TEXT_BYTES * kind.size
    if form is None:  # read_point_cloud says what it is
        return 0, 0
    lines = kind.head.count(b"\n")
    rows = round(lines * kind.size / max(1, len(kind.head)))
    return rows, TEXT_BYTES * kind.size


def write_ply(path: str | Path, cloud: PointCloud) -> None:
    """Write xyz, normals and colours (uchar) as binary little-endian PLY.

    The coordinates are those of the file that the cloud came from: in float64 where it has an
    offset.
    """
    xyz = cloud.file_xyz() if any(cloud.offset) else cloud.xyz
    fields = [(name, "<f8" if any(cloud.offset) else "<f4") for name in "xyz"]
    if cloud.normals is not None:
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
    if cloud.rgb is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.empty(len(cloud), fields)
    for i, name in enumerate("xyz"):
        rows[name] = xyz[:, i].numpy()
        if cloud.normals is not None:
            rows[f"n{name}"] = cloud.normals[:, i].numpy()
    if cloud.rgb is not None:
        bytes_ = (cloud.rgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
        for i, name in enumerate(("red", "green", "blue")):
            rows[name] = bytes_[:, i]
    comments = [cloud.source.replace("\n", " ")] if cloud.source else []
    write_ply_rows(Path(path), rows, comments)


def _kind(path: Path) -> tuple[FileType, Form | None]:
    """What a file is and which reader takes it; None when it is no point cloud.

    Raises:
        UserError: it is not there, empty, or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such point cloud file.")
    kind = file_type(path)
    if kind.form == "empty":
        raise UserError(f"{path}: the file is empty, expected points.")
    if kind.form in POINT_FORMS:
        return kind, kind.form
    # A name that promises points: the reader says what is wrong with them.
    return kind, _SUFFIXES.get(path.suffix.lower())


def _read_ply(path: Path, most: int | None) -> Table:
    rows = read_ply(path, most)
    columns = {str(n).lower(): rows[n] for n in rows.dtype.names or ()}
    if "f_dc_0" not in columns:
        return Table(columns)
    return Table(columns, sampling=_sampling(read_ply_header(path)))


def _sampling(header: Header) -> Sampling:
    """What the comments of a 3DGS PLY say of it; that of 3D Gaussian splatting without any."""
    low_pass, samples = header.number("low_pass"), header.number("samples") or 1.0
    found = Sampling(
        LOW_PASS if low_pass is None else low_pass,
        int(samples) if 1 <= samples <= MAX_SAMPLES else 1,
    )
    return found if found.usable else PUBLISHED


def _mesh_reader(form: MeshForm) -> Callable[[Path, int | None], Table]:
    return lambda path, most: read_mesh(path, form)


_READERS: dict[Form, Callable[[Path, int | None], Table]] = {
    "ply": _read_ply,
    "npy": read_numpy,
    "npz": read_numpy,
    "numbers": lambda path, most: Table(read_text_table(path)),
    "pcd": read_pcd,
    "las": read_las,
    "e57": read_e57,
    "splat": lambda path, most: Table(splat_columns(read_splat(path))),
    "spz": lambda path, most: Table(splat_columns(read_spz(path))),
    **{cast("Form", form): _mesh_reader(form) for form in MESH_FORMS},
}
