"""Files that come with the program; writing files that are whole whatever kills the program."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

MAX_TEXT = 64 << 20  # bytes of JSON; 100,000 cameras take less


def shipped(name: str) -> Path:
    """The folder ``name`` of the repository ("cuda", "assets/scenes"), or its copy in a wheel.

    ``setup.py`` makes the copy.
    """
    packaged = Path(__file__).parent / "shipped"
    return (packaged if packaged.is_dir() else Path(__file__).resolve().parents[1]) / name


def small_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file that somebody may have made: at most :data:`MAX_TEXT` bytes of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or no such text.
    """
    with path.open("rb") as file:  # a pipe or a device has no size to ask for
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT >> 20} MB")
    return data.decode(encoding)


def atomic_write(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it and put it in its place.

    Without ``sync`` it is as whole, but may be the old one after a power cut: for files that are
    written many times a second.

    The temporary file keeps the suffix of ``path``, by which many writers choose their format.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's files are private, results are not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync and os.name == "posix":  # the rename itself must survive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def atomic_text(path: Path, text: str, *, sync: bool = True) -> None:
    """:func:`atomic_write` of UTF-8 text."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), sync=sync)
