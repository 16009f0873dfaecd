"""Small matrices from disk - npz archives and text - read so that no file can do harm.

An archive entry is a few hundred bytes. Nothing larger is unpacked, pickled objects are refused,
and sizes come from what is there, not from what a header claims.
"""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from render.errors import UserError

_LARGEST_FILE = 32 << 20  # bytes
_MOST_ENTRIES = 20_000
_LARGEST_ENTRY = 1 << 14
_LARGEST_TEXT = 1 << 16


def read_npz(path: Path, names: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The arrays of an npz archive that ``names`` wants, by name, as float64; each at most 16 kB.

    Raises:
        UserError: no archive, damaged, too large, or with pickled objects.
    """
    expected = "expected an npz archive of camera matrices"
    out: dict[str, np.ndarray] = {}
    name = ""
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise UserError(
                f"{path}: {expected} of at most {_LARGEST_FILE >> 20} MB, found {size >> 20} MB; "
                "keep only world_mat_* and scale_mat_* in it."
            )
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise ValueError(f"{len(entries):,} entries")
            for info in entries:
                name = info.filename.removesuffix(".npy")
                if not names(name):
                    continue
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("a compression that numpy does not write")
                with archive.open(info) as entry:
                    out[name] = _array(entry.read(_LARGEST_ENTRY + 1))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (
        ValueError,
        EOFError,
        MemoryError,  # endless nesting in a header
        RuntimeError,  # the same; or an encrypted entry
        struct.error,
        SyntaxError,
        tokenize.TokenError,  # numpy reads headers with Python's own parser
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        where = f' in "{name[:60]}"' if name else ""
        what = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path}: {expected}, found damage{where} ({what}); copy it again or write it again "
            "with numpy.savez."
        ) from error
    return out


def _array(data: bytes) -> np.ndarray:
    """The array of a complete npy file.

    Raises:
        ValueError: damaged, too large, or not of numbers.
    """
    if len(data) > _LARGEST_ENTRY:
        raise ValueError(f"more than {_LARGEST_ENTRY >> 10} kB where a matrix should be")
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy version {version[0]}.{version[1]}")
    if dtype.kind not in "fiu":
        raise ValueError(f"objects of type {dtype} instead of numbers")
    rest = data[file.tell() :]
    count = 1
    for length in shape:
        count *= length
    if count * dtype.itemsize != len(rest):
        raise ValueError(f"{len(rest)} bytes for an array of shape {shape}")
    array = np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(np.float64)


def read_numbers(path: Path, expected: str) -> np.ndarray:
    """The numbers of a small text file, row by row: float64 [N]; NaN and infinities are numbers.

    Args:
        expected: what should be in it, for the message.

    Raises:
        UserError: unreadable, too large, or something that is no number.
    """
    words = read_text(path, expected).split()
    try:
        return np.array([float(word) for word in words], dtype=np.float64)
    except ValueError as error:
        found = str(error).partition(": ")[2][:60] or "something else"
        raise UserError(f"{path}: expected {expected}, found {found}; copy it again.") from error


def read_text(path: Path, expected: str) -> str:
    """A small text file.

    Raises:
        UserError: unreadable, too large or binary.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_TEXT + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(data) > _LARGEST_TEXT:
        raise UserError(
            f"{path}: expected {expected}, found more than {_LARGEST_TEXT >> 10} kB of text."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected {expected} as text, found binary data; copy it again."
        ) from error
