"""Points in text files: x y z, with colours and normals, any common separator."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from render.errors import UserError

_COMMENTS = ("#", "//", "%")
_SEPARATORS = str.maketrans(",;\t|", "    ")
_NAMES = {
    "x": "x", "y": "y", "z": "z", "nx": "nx", "ny": "ny", "nz": "nz",
    "normal_x": "nx", "normal_y": "ny", "normal_z": "nz",
    "r": "red", "g": "green", "b": "blue", "red": "red", "green": "green", "blue": "blue",
}  # fmt: skip
_RGB = ("red", "green", "blue")
_NORMAL = ("nx", "ny", "nz")


def read_text_table(path: Path) -> dict[str, np.ndarray]:
    """Named columns [N] float64 of a text file with one point a line.

    Three columns are x y z; six add r g b (or normals: unit vectors with negative values); seven
    have an intensity before r g b; nine have both normals and colours. A header line with column
    names decides instead where there is one. Comment lines and a leading count are skipped.

    Raises:
        UserError: names the first line that is not understood.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected text with one point a line, found binary data."
        ) from error
    lines = text.splitlines()
    first, names = first_row(path, lines)
    width = len(_words(lines[first]))
    # One pass in C; only if that fails the line at fault is looked for.
    body = "\n".join(lines[first:]).translate(_SEPARATORS)
    if any(mark in body for mark in _COMMENTS[1:]):  # NumPy knows "#" only, at full speed
        body = "\n".join(_clean(line) for line in lines[first:])
    try:
        table = np.loadtxt(io.StringIO(body), np.float64, comments="#", ndmin=2)
    except ValueError as error:
        raise _bad_line(path, lines, first, width) from error
    return _name_columns(path, table, names)


def _clean(line: str) -> str:
    line = line.translate(_SEPARATORS)
    for mark in _COMMENTS:
        line = line.partition(mark)[0]
    return line.strip()


def _words(line: str) -> list[str]:
    return _clean(line).split()


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def first_row(path: Path, lines: list[str]) -> tuple[int, list[str] | None]:
    """Index of the first line of numbers, and the column names that stood before it.

    Raises:
        UserError: there is none; names the first line that is not understood.
    """
    names: list[str] | None = None
    for i, line in enumerate(lines):
        words = _words(line)
        # Names may hide in a comment: "# x y z r g b" or "//X Y Z R G B".
        title = re.sub(r"^[#/%;\s]+", "", line).translate(_SEPARATORS).split()
        known = [_NAMES.get(word.strip('"').lower(), "") for word in title]
        if {"x", "y", "z"} <= set(known):
            names = known
            continue
        if not words:
            continue
        if len(words) == 1 and words[0].isdigit():  # .pts files begin with the count
            continue
        if all(_is_number(word) for word in words):
            if len(words) < 3:
                raise UserError(
                    f"{path}: line {i + 1}: expected at least the three numbers x y z, "
                    f"found {len(words)}."
                )
            return i, names if names is not None and len(names) == len(words) else None
        if i > 20 or sum(map(_is_number, words)) >= 3:
            raise _bad_line(path, lines, i, len(words))
    raise UserError(f"{path}: the file holds zero points; expected lines of x y z [r g b].")


def _bad_line(path: Path, lines: list[str], first: int, width: int) -> UserError:
    for i in range(first, len(lines)):
        words = _words(lines[i])
        if not words:
            continue
        if len(words) != width:
            found = f"{len(words)} values"
        else:
            wrong = next((word for word in words if not _is_number(word)), None)
            if wrong is None:
                continue
            found = repr(wrong)
        return UserError(
            f"{path}: line {i + 1}: expected {width} numbers (x y z [r g b]), found {found}."
        )
    return UserError(f"{path}: expected {width} numbers a line.")


def _name_columns(path: Path, table: np.ndarray, names: list[str] | None) -> dict[str, np.ndarray]:
    width = table.shape[1]
    if names is not None and width == len(names):
        return {name: table[:, i] for i, name in enumerate(names) if name}
    columns = {"x": table[:, 0], "y": table[:, 1], "z": table[:, 2]}

    def add(group: tuple[str, str, str], start: int) -> None:
        columns.update({name: table[:, start + i] for i, name in enumerate(group)})

    if width == 6:
        add(_NORMAL if _are_normals(table[:, 3:6]) else _RGB, 3)
    elif width == 7:
        add(_RGB, 4)
    elif width >= 9:
        normals_first = _are_normals(table[:, 3:6])
        add(_NORMAL, 3 if normals_first else 6)
        add(_RGB, 6 if normals_first else 3)
    elif width not in (3, 4):
        raise UserError(
            f"{path}: expected 3, 4, 6, 7 or 9 columns, or a header line with their names; "
            f"found {width}."
        )
    return columns


def _are_normals(values: np.ndarray) -> bool:
    length = np.linalg.norm(values, axis=1)
    return bool(values.min(initial=0) < 0) or bool(np.median(np.abs(length - 1)) < 0.01)
