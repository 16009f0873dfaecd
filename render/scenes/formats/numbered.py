"""Files that belong together by the number in their names: image 000012.png, mask 012.png."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from render.errors import UserError
from render.scenes.photos.images import IMAGE_SUFFIXES


def find_folder(folder: Path, names: Collection[str]) -> Path | None:
    """The first folder inside ``folder`` called one of ``names``, whatever its case."""
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    try:
        inside = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    except OSError:
        return None
    return next((inside[name] for name in names if name in inside), None)


def files_by_number(
    folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES, ending: str = ""
) -> dict[int, Path]:
    """The files of a folder by the last number in their names, in ascending order.

    Where a number is missing or appears twice, all are numbered by their position instead.

    Args:
        suffixes: in lower case; other files do not count, nor do hidden ones.
        ending: of the stem of every file that counts.
    """
    try:
        files = [
            file
            for file in folder.iterdir()
            if file.suffix.lower() in suffixes
            and file.stem.endswith(ending)
            and not file.name.startswith(".")
            and os.path.isfile(file)  # no folder, no pipe, no link in a circle
        ]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from error
    numbers = {file: re.findall(r"\d+", file.stem.removesuffix(ending)) for file in files}
    by_number = {int(found[-1][-18:]): file for file, found in numbers.items() if found}
    if len(by_number) < len(files):
        return dict(enumerate(sorted(files)))
    return dict(sorted(by_number.items()))


def pair(files: dict[int, Path], numbers: Collection[int]) -> dict[int, Path]:
    """Files for the things with these ``numbers``.

    By number; but by order where there are equally many and the files count from elsewhere (from
    1, say) or by something else altogether.
    """
    common = {number: file for number, file in files.items() if number in numbers}
    if len(files) != len(numbers) or len(common) == len(files):
        return common
    order = sorted(numbers)
    shifts = {file - number for file, number in zip(sorted(files), order, strict=True)}
    if len(shifts) > 1 and len(common) > len(files) / 2:
        return common
    return dict(zip(order, files.values(), strict=True))
