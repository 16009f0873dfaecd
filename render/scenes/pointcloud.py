"""Point clouds from PLY, NPY/NPZ and text files, and back to PLY."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from render.errors import UserError
from render.memory import loading_bytes
from render.scenes.filetype import FileType, Form, file_type, head_lines
from render.scenes.ply import find_points, read_ply, write_ply_rows
from render.scenes.pointtext import first_row, read_text_table
from render.scenes.types import PointCloud

POINT_SUFFIXES = (".ply", ".npy", ".npz", ".xyz", ".txt", ".csv", ".pts", ".asc")
POINT_FORMS: tuple[Form, ...] = ("ply", "npy", "npz", "numbers")

TEXT_BYTES = 10  # of memory for each byte of text, while it is read
# Colour of a splat of degree 0: rgb = 0.5 + SH_C0 * f_dc.
SH_C0 = 0.28209479177387814
_POSITION_NAMES = ("xyz", "points", "means3d", "means", "positions", "vertices", "pts")
_COLOR_NAMES = ("rgb", "colors", "colours", "rgbs", "color")
_NORMAL_NAMES = ("normals", "normal")
_COLOR_COLUMNS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green",
                  "diffuse_blue"))  # fmt: skip

Columns = dict[str, np.ndarray]


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


def read_point_cloud(path: str | Path) -> PointCloud:
    """Read a point cloud; ``source`` of the result tells what it was and what was dropped.

    The content decides how, whatever the file is called. Points with NaN or infinite coordinates
    are dropped. Files of trained 3D Gaussians are recognised: their raw attributes are in
    ``gaussians`` ("f_dc" [N, 3], "f_rest" [N, C], "opacity" [N, 1], "scale" [N, 3], "rotation"
    [N, 4]; logits and logarithms as in the file).

    Raises:
        UserError: no point cloud, broken file, or not a single usable point.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such point cloud file.")
    kind = file_type(path)
    if kind.form == "empty":
        raise UserError(f"{path}: the file is empty, expected points.")
    form = kind.form if kind.form in POINT_FORMS else path.suffix.lower().lstrip(".")
    if form == "ply":
        rows = read_ply(path)
        return _from_columns(path, {str(n).lower(): rows[n] for n in rows.dtype.names or ()})
    if form in ("npy", "npz"):
        return _from_columns(path, _read_numpy(path))
    # A name that promises points: the reader says which line is wrong.
    if form == "numbers" or f".{form}" in POINT_SUFFIXES:
        return _from_columns(path, read_text_table(path))
    raise UserError(
        f"{path}: expected a point cloud ({', '.join(POINT_SUFFIXES)}), found {kind.what}."
    )


def describe_point_cloud(path: Path, kind: FileType) -> str:
    """A few words about a file of one of :data:`POINT_FORMS`; reads its header at most.

    Raises:
        UserError: a header that is broken, or too few bytes after it.
    """
    if kind.form == "ply":
        header, index = find_points(path)
        element = header.elements[index]
        if element.count == 0:
            raise _no_points(path)
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
    return f"point cloud, {_describe_numpy(path)}"


def point_cloud_size(path: str | Path) -> tuple[int, int]:
    """How many points a file holds, and the bytes of memory that reading it takes; both about.

    Reads its header at most.

    Raises:
        UserError: as :func:`read_point_cloud`, for what the header tells.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such point cloud file.")
    kind = file_type(path)
    if kind.form == "ply":
        header, index = find_points(path)
        element = header.elements[index]
        if header.format == "ascii" or element.has_lists:  # a table of doubles beside the text
            row = 8 * len(element.properties)
            return element.count, 2 * kind.size + loading_bytes(element.count, row)
        size = element.dtype("=").itemsize
        splats = any(p.name.lower() == "f_dc_0" for p in element.properties)
        return element.count, loading_bytes(element.count, 2 * size if splats else size)
    if kind.form == "npy":
        with _numpy_errors(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        rows = array.shape[0] if array.ndim else 0
        return rows, array.nbytes + loading_bytes(rows, 0)
    if kind.form == "npz":
        with _numpy_errors(path), zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        return size // 24, 2 * size + loading_bytes(size // 24, 0)
    if kind.form != "numbers":  # read_point_cloud says what it is
        return 0, 0
    lines = kind.head.count(b"\n")
    rows = round(lines * kind.size / max(1, len(kind.head)))
    return rows, TEXT_BYTES * kind.size


def write_ply(path: str | Path, cloud: PointCloud) -> None:
    """Write xyz, normals and colours (uchar) as binary little-endian PLY."""
    fields = [(name, "<f4") for name in "xyz"]
    if cloud.normals is not None:
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
    if cloud.rgb is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.empty(len(cloud), fields)
    for i, name in enumerate("xyz"):
        rows[name] = cloud.xyz[:, i].numpy()
        if cloud.normals is not None:
            rows[f"n{name}"] = cloud.normals[:, i].numpy()
    if cloud.rgb is not None:
        bytes_ = (cloud.rgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
        for i, name in enumerate(("red", "green", "blue")):
            rows[name] = bytes_[:, i]
    comments = [cloud.source.replace("\n", " ")] if cloud.source else []
    write_ply_rows(Path(path), rows, comments)


def _from_columns(path: Path, columns: Columns) -> PointCloud:
    """Assemble a cloud from named columns [N]."""
    xyz = _stack(columns, ("x", "y", "z"))
    if xyz is None:
        raise UserError(f"{path}: expected columns x, y, z, found {', '.join(columns) or 'none'}.")
    if len(xyz) == 0:
        raise _no_points(path)
    # Double coordinates may be finite and still overflow float32.
    with np.errstate(over="ignore"):
        xyz = xyz.astype(np.float32, copy=False)
    keep = np.isfinite(xyz).all(1)
    dropped = int(len(xyz) - keep.sum())
    if dropped == len(xyz):
        raise UserError(f"{path}: all of its {dropped:,} points have NaN or infinite coordinates.")
    gaussians = _gaussians(columns)
    normals = _stack(columns, ("nx", "ny", "nz"))
    if normals is not None:
        normals = normals.astype(np.float32, copy=False)
        normals[~np.isfinite(normals).all(1)] = 0
        if not normals.any():  # 3DGS writes zeros where the standard wants normals
            normals = None
    rgb = _rgb(columns, gaussians)
    what = path.name
    if gaussians is not None:
        what += f" (3D Gaussian Splatting, {len(xyz):,} Gaussians)"
    if dropped:
        what += f" ({dropped:,} points with NaN or infinite coordinates dropped)"
    cloud = PointCloud(
        torch.from_numpy(xyz),
        None if rgb is None else torch.from_numpy(rgb),
        None if normals is None else torch.from_numpy(normals),
        what,
        gaussians=gaussians,
    )
    return cloud.subset(torch.from_numpy(keep)) if dropped else cloud


def _stack(columns: Columns, names: tuple[str, ...]) -> np.ndarray | None:
    if not all(name in columns for name in names):
        return None
    return np.stack([columns[name] for name in names], -1)


def _rgb(columns: Columns, gaussians: dict[str, Tensor] | None) -> np.ndarray | None:
    """Colours [N, 3] float32 in [0, 1] from whatever type and range the file has."""
    for names in _COLOR_COLUMNS:
        values = _stack(columns, names)
        if values is not None and len(values):
            return color_to_unit(values)
    if gaussians is not None:
        return (0.5 + SH_C0 * gaussians["f_dc"]).clamp(0, 1).numpy()
    return None


def color_to_unit(values: np.ndarray) -> np.ndarray:
    """Colours of any type as float32 in [0, 1]: bytes, 16-bit, 0..1 or 0..255 floats."""
    if values.dtype == np.int8:  # bytes written with the wrong sign
        values = values.view(np.uint8)
    out = values.astype(np.float32)
    if values.dtype.kind == "f":
        np.nan_to_num(out, copy=False, nan=0.5, posinf=1.0, neginf=0.0)
    if values.dtype == np.uint8:
        top = 255.0
    elif values.dtype == np.uint16:
        top = 65535.0
    else:
        largest = float(out.max(initial=0))
        if np.issubdtype(values.dtype, np.integer):
            top = 255.0 if largest <= 255 else 65535.0
        else:
            top = 1.0 if largest <= 1.001 else 255.0 if largest <= 255 else 65535.0
    out /= top
    return out.clip(0, 1, out=out)


def _gaussians(columns: Columns) -> dict[str, Tensor] | None:
    dc = _stack(columns, ("f_dc_0", "f_dc_1", "f_dc_2"))
    if dc is None:
        return None

    def family(prefix: str) -> Tensor | None:
        names = [n for n in columns if n.startswith(prefix) and n[len(prefix) :].isdigit()]
        names.sort(key=lambda n: int(n[len(prefix) :]))
        values = _stack(columns, tuple(names)) if names else None
        return None if values is None else torch.from_numpy(values.astype(np.float32, copy=False))

    out = {"f_dc": torch.from_numpy(dc.astype(np.float32, copy=False))}
    for name, prefix in (("f_rest", "f_rest_"), ("scale", "scale_"), ("rotation", "rot_")):
        values = family(prefix)
        if values is not None:
            out[name] = values
    if "opacity" in columns:
        out["opacity"] = torch.from_numpy(columns["opacity"].astype(np.float32))[:, None]
    return out


def _read_numpy(path: Path) -> Columns:
    with _numpy_errors(path):
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    arrays = {str(name).lower(): array for name, array in arrays.items()}
    if len(arrays) == 1 and next(iter(arrays.values())).dtype.names:
        rows = next(iter(arrays.values()))
        return {str(name).lower(): rows[name] for name in rows.dtype.names}
    positions = _pick(arrays, _POSITION_NAMES)
    if positions is None and len(arrays) == 1:
        positions = next(iter(arrays.values()))
    found = ", ".join(f"{n or 'array'} {a.dtype}{list(a.shape)}" for n, a in arrays.items())
    if positions is None or not _are_positions(positions):
        raise _no_positions(path, found)
    columns = dict(zip("xyz", positions[:, :3].T, strict=True))
    groups = [(("red", "green", "blue"), _pick(arrays, _COLOR_NAMES))]
    groups.append((("nx", "ny", "nz"), _pick(arrays, _NORMAL_NAMES)))
    if positions.shape[1] == 6:
        groups.append((("red", "green", "blue"), positions[:, 3:]))
    for names, values in groups:
        if values is None:
            continue
        if values.ndim != 2 or values.shape[0] != len(positions) or values.shape[1] < 3:
            raise UserError(
                f"{path}: expected one row of three values for each of the {len(positions):,} "
                f"points, found {found}."
            )
        columns.update(zip(names, values[:, :3].T, strict=True))
    return columns


@contextmanager
def _numpy_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged headers fail in every way there is
        raise UserError(
            f"{path}: cannot be read as a NumPy file without pickle "
            f"({error}); save plain number arrays with np.save or np.savez."
        ) from error


def _describe_numpy(path: Path) -> str:
    with _numpy_errors(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        names = [name.lower() for name in loaded.files]
        loaded.close()
        if len(names) > 1 and not set(names) & set(_POSITION_NAMES):
            raise _no_positions(path, ", ".join(names[:8]))
        return f"NumPy archive with {', '.join(names[:4])}"
    if not (loaded.dtype.names or _are_positions(loaded)):
        raise _no_positions(path, f"array {loaded.dtype}{list(loaded.shape)}")
    return f"NumPy array with {len(loaded):,} points"


def _are_positions(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiu" and array.ndim == 2 and array.shape[1] in (3, 6)


def _no_positions(path: Path, found: str) -> UserError:
    return UserError(
        f"{path}: expected an array [N, 3] or [N, 6] (x y z, or x y z r g b), or arrays named "
        f"{'/'.join(_POSITION_NAMES[:3])} and {'/'.join(_COLOR_NAMES[:2])}; found {found}."
    )


def _no_points(path: Path) -> UserError:
    return UserError(f"{path}: the file holds zero points; at least one is needed.")


def _pick(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)
