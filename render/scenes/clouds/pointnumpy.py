"""Points in NumPy files: arrays, tables with named columns, archives of several arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import Columns, Table
from render.scenes.clouds.sampling import even_rows

POSITION_NAMES = ("xyz", "points", "means3d", "means", "positions", "vertices", "pts")
_COLOR_NAMES = ("rgb", "colors", "colours", "rgbs", "color")
_NORMAL_NAMES = ("normals", "normal")
_ODD_RATIO, _ODD_SIZE = 200, 256 << 20  # beyond both, nothing but a bomb is so regular


def read_numpy(path: Path, most: int | None = None) -> Table:
    """The points of an .npy or .npz file; pickles are never opened.

    Args:
        most: about so many points at most, evenly spread.

    Raises:
        UserError: no array with positions, arrays of other lengths, a damaged file.
    """
    with _numpy_errors(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                arrays = _wanted(path, loaded)
        else:
            arrays = {"": loaded}
    if len(arrays) == 1 and next(iter(arrays.values())).dtype.names:
        table = next(iter(arrays.values())).ravel()
        rows = table[even_rows(len(table), most)]
        return Table(
            {str(n).lower(): rows[n] for n in table.dtype.names or () if rows[n].ndim == 1}
        )
    positions = _pick(arrays, POSITION_NAMES)
    if positions is None and len(arrays) == 1:
        positions = next(iter(arrays.values()))
    found = ", ".join(f"{n or 'array'} {a.dtype}{list(a.shape)}" for n, a in arrays.items())
    if positions is None or not _are_positions(positions):
        raise _no_positions(path, found)
    rows = even_rows(len(positions), most)
    columns: Columns = dict(zip("xyz", positions[rows, :3].T, strict=True))
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
        columns.update(zip(names, values[rows, :3].T, strict=True))
    return Table(columns)


def numpy_size(path: Path) -> tuple[int, int]:
    """About how many points a file holds, and the bytes of its arrays.

    Raises:
        UserError: a damaged file.
    """
    with _numpy_errors(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            return size // 24, 2 * size
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return (array.shape[0] if array.ndim else 0), array.nbytes


def describe_numpy(path: Path) -> str:
    """A few words about a file.

    Raises:
        UserError: nothing in it can be points.
    """
    with _numpy_errors(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        names = [name.lower() for name in loaded.files]
        loaded.close()
        if len(names) > 1 and not set(names) & set(POSITION_NAMES):
            raise _no_positions(path, ", ".join(names[:8]))
        return f"NumPy archive with {', '.join(names[:4])}"
    if not (loaded.dtype.names or _are_positions(loaded)):
        raise _no_positions(path, f"array {loaded.dtype}{list(loaded.shape)}")
    return f"NumPy array with {len(loaded):,} points"


def _wanted(path: Path, archive: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """The arrays of an archive that are points; others stay where they are."""
    known = {*POSITION_NAMES, *_COLOR_NAMES, *_NORMAL_NAMES}
    names = [name for name in archive.files if name.lower() in known] or archive.files[:8]
    with zipfile.ZipFile(path) as directory:
        size = sum(entry.file_size for entry in directory.infolist())
    if size > _ODD_SIZE and size > _ODD_RATIO * path.stat().st_size:
        raise ValueError(f"{size:,} bytes compressed to {path.stat().st_size:,} are no points")
    arrays = {name.lower(): archive[name] for name in names}
    # Members that do not begin like an array come as bytes.
    arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    if not arrays:
        raise ValueError("no arrays in it")
    return arrays


@contextmanager
def _numpy_errors(path: Path) -> Iterator[None]:
    try:
        with np.errstate(over="ignore"):  # of headers with impossible shapes
            yield
    except Exception as error:  # damaged headers fail in every way there is
        raise UserError(
            f"{path}: cannot be read as a NumPy file without pickle "
            f"({error}); save plain number arrays with np.save or np.savez."
        ) from error


def _are_positions(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiu" and array.ndim == 2 and array.shape[1] in (3, 6)


def _no_positions(path: Path, found: str) -> UserError:
    return UserError(
        f"{path}: expected an array [N, 3] or [N, 6] (x y z, or x y z r g b), or arrays named "
        f"{'/'.join(POSITION_NAMES[:3])} and {'/'.join(_COLOR_NAMES[:2])}; found {found}."
    )


def _pick(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)
