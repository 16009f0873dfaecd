"""E57 files of laser scanners, through pye57: all scans, in their common coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import Columns, Table
from render.scenes.clouds.optional import require

_MOST_PER_BYTE = 64  # points: fewer bits than this no scanner writes
_NAMES = {
    "cartesianX": "x", "cartesianY": "y", "cartesianZ": "z",
    "colorRed": "red", "colorGreen": "green", "colorBlue": "blue",
}  # fmt: skip


def e57_count(path: Path) -> int:
    """How many points all scans announce.

    Raises:
        UserError: no pye57, a broken file, or more points than it can hold.
    """
    with _opened(path) as file:
        return _count(path, file)


def read_e57(path: Path, most: int | None = None) -> Table:
    """The points of all scans, and their colours if every scan has some.

    Args:
        most: about so many of them at most, evenly spread.

    Raises:
        UserError: see :func:`e57_count`; damaged data.
    """
    with _opened(path) as file:
        count = _count(path, file)
        step = 1 if most is None else max(1, -(-count // most))
        scans: list[Columns] = []
        for index in range(file.scan_count):
            if file.get_header(index).point_count == 0:
                continue
            data = file.read_scan(
                index, ignore_missing_fields=True, colors=True, intensity=False, transform=True
            )
            scans.append({_NAMES[k]: v[::step] for k, v in data.items() if k in _NAMES})
    if not scans:
        return Table(dict.fromkeys("xyz", np.zeros(0)))
    shared = [name for name in scans[0] if all(name in scan for scan in scans)]
    columns = {name: np.concatenate([scan[name] for scan in scans]) for name in shared}
    return Table(columns, f"{len(scans)} scans" if len(scans) > 1 else "")


def _count(path: Path, file: Any) -> int:
    count = sum(file.get_header(i).point_count for i in range(file.scan_count))
    most = _MOST_PER_BYTE * path.stat().st_size
    if not 0 <= count <= most:
        raise UserError(
            f"{path}: the scans announce {count:,} points, more than a file of "
            f"{path.stat().st_size:,} bytes can hold; it is cut off or damaged."
        )
    return count


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pye57 = require("pye57", path, "E57 files")
    file = None
    try:
        file = pye57.E57(str(path))
        yield file
    except UserError:
        raise
    except Exception as error:  # libE57Format has one error for each way to be damaged
        reason = " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as E57 ({reason}); the file is damaged or cut off."
        ) from error
    finally:
        if file is not None:
            file.close()
