"""PCD files of the Point Cloud Library: ascii, binary and binary_compressed."""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import Columns, Table
from render.scenes.clouds.sampling import even_rows

# Each byte can match in one way only, or a file of blank lines would take for ever.
_START = re.compile(rb"\A(?:#[^\n]*\n|\s)*(?:VERSION|FIELDS)\s", re.IGNORECASE)
_MAX_HEADER = 1 << 16
_KINDS = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
_NAMES = {"normal_x": "nx", "normal_y": "ny", "normal_z": "nz"}
_MOST_EXPANSION = 132  # LZF makes at most 264 bytes of two, beside the distance


@dataclass(frozen=True)
class Header:
    """A parsed header; ``size`` is the offset of the points in bytes."""

    dtype: np.dtype  # of a point; a field of several values has a shape
    count: int
    data: str
    size: int


def is_pcd(head: bytes) -> bool:
    """Whether a file that begins so is one; a comment may come first."""
    return head.startswith(b"# .PCD") or bool(_START.match(head[:4096]))


def read_pcd_header(path: Path) -> Header:
    """Parse the header and compare it with the size of the file.

    Raises:
        UserError: what is missing or does not fit together.
    """
    with path.open("rb") as file:
        raw = file.read(_MAX_HEADER)
    entries: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in entries:
        end = raw.find(b"\n", position)
        if end < 0:
            raise UserError(f'{path}: the PCD header has no line "DATA"; the file is cut off.')
        words = raw[position:end].decode("latin-1").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
    names = [name.lower() for name in entries.get("FIELDS", entries.get("COLUMNS", []))]
    try:
        kinds = [kind.upper() for kind in entries["TYPE"]]
        sizes = [int(size) for size in entries["SIZE"]]
        counts = [int(count) for count in entries.get("COUNT", ["1"] * len(names))]
        grid = int(entries["WIDTH"][0]) * int(entries["HEIGHT"][0]) if "WIDTH" in entries else None
        count = int(entries["POINTS"][0]) if "POINTS" in entries else grid
        data = entries["DATA"][0].lower()
        if not names or not len(names) == len(kinds) == len(sizes) == len(counts):
            raise ValueError
        if any(size not in _SIZES[kind] for kind, size in zip(kinds, sizes, strict=True)):
            raise ValueError
        if min(counts) < 1 or sum(counts) > 1 << 16 or count is None or count < 0:
            raise ValueError
        if data not in ("ascii", "binary", "binary_compressed"):
            raise ValueError
    except (KeyError, ValueError, IndexError) as error:
        told = "; ".join(f"{k} {' '.join(v)}"[:60] for k, v in entries.items())
        raise UserError(
            f"{path}: the PCD header is not understood; expected FIELDS, SIZE, TYPE (F, I, U) and "
            f"COUNT of equal length, POINTS, and DATA ascii, binary or binary_compressed; found "
            f"{told}."
        ) from error
    fields = []
    for i, (name, kind, size, number) in enumerate(zip(names, kinds, sizes, counts, strict=True)):
        unique = name if name not in names[:i] and name != "_" else f"{name}_{i}"
        fields.append((unique, f"<{_KINDS[kind]}{size}", (number,) if number > 1 else ()))
    header = Header(np.dtype(fields), count, data, position)
    found = path.stat().st_size - position
    # A number and a blank take two bytes at least; LZF cannot expand without end either.
    least = {
        "ascii": 2 * sum(counts) * count - 1,
        "binary": header.dtype.itemsize * count,
        "binary_compressed": header.dtype.itemsize * count // _MOST_EXPANSION,
    }[data]
    if found < least:
        raise _cut_off(path, count, found * count // least)
    return header


def read_pcd(path: Path, most: int | None = None) -> Table:
    """The points.

    Args:
        most: about so many of them at most, evenly spread.

    Raises:
        UserError: see :func:`read_pcd_header`; fewer points than announced, damaged data.
    """
    header = read_pcd_header(path)
    if header.count == 0:
        return Table(dict.fromkeys("xyz", np.zeros(0)))
    if header.data == "ascii":
        columns = _read_ascii(path, header)
    elif header.data == "binary":
        rows = np.memmap(path, header.dtype, "r", header.size, header.count)
        columns = _columns(rows[even_rows(header.count, most)])
    else:
        columns = _read_compressed(path, header)
    for name in ("rgb", "rgba"):
        if name in columns:
            columns |= _unpack(columns.pop(name))
    return Table({_NAMES.get(name, name): values for name, values in columns.items()})


def _columns(rows: np.ndarray) -> Columns:
    assert rows.dtype.names is not None
    return {name: rows[name] for name in rows.dtype.names if rows[name].ndim == 1}


def _read_ascii(path: Path, header: Header) -> Columns:
    assert header.dtype.names is not None
    widths = [max(1, int(np.prod(header.dtype[name].shape))) for name in header.dtype.names]
    with path.open("rb") as file:
        file.seek(header.size)
        text = io.TextIOWrapper(file, encoding="latin-1")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of blank lines
                table = np.loadtxt(
                    text,
                    np.float64,
                    comments=None,
                    max_rows=header.count,
                    ndmin=2,
                    usecols=range(sum(widths)),
                )
        except ValueError as error:
            reason = str(error).partition(";")[0]
            raise UserError(
                f"{path}: the points are not {sum(widths)} numbers a line ({reason}); the file is "
                "damaged or cut off."
            ) from error
    if len(table) < header.count:
        raise _cut_off(path, header.count, len(table))
    columns: Columns = {}
    start = 0
    with np.errstate(invalid="ignore", over="ignore"):
        for name, width in zip(header.dtype.names, widths, strict=True):
            if width == 1:
                values = table[:, start]
                # A packed colour is written as the number that its bits are.
                packed = name in ("rgb", "rgba")
                columns[name] = values.astype(header.dtype[name]) if packed else values
            start += width
    return columns


def _read_compressed(path: Path, header: Header) -> Columns:
    with path.open("rb") as file:
        file.seek(header.size)
        sizes = file.read(8)
        packed = file.read()
    if len(sizes) < 8:
        raise _cut_off(path, header.count, 0)
    compressed, expanded = struct.unpack("<II", sizes)
    expected = header.dtype.itemsize * header.count
    if expanded != expected:
        raise UserError(
            f"{path}: {header.count:,} points take {expected:,} bytes, found compressed data of "
            f"{expanded:,}; the header is wrong."
        )
    if compressed > len(packed):
        raise _cut_off(path, header.count, header.count * len(packed) // compressed)
    try:
        data = lzf_decompress(packed[:compressed], expanded)
    except ValueError as error:
        raise UserError(f"{path}: the compressed points are damaged ({error}).") from error
    columns: Columns = {}
    start = 0
    for name in header.dtype.names or ():  # one field after another, not point by point
        kind = header.dtype[name]
        if not kind.shape:
            columns[name] = np.frombuffer(data, kind, header.count, start)
        start += kind.itemsize * header.count
    return columns


def lzf_decompress(packed: bytes, size: int) -> bytearray:
    """Expand LZF data (liblzf) to exactly ``size`` bytes.

    Raises:
        ValueError: other data, or another size.
    """
    out = bytearray()
    i, end = 0, len(packed)
    try:
        while i < end:
            control = packed[i]
            i += 1
            if control < 32:  # so many bytes as they are, and one
                out += packed[i : i + control + 1]
                i += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[i]
                i += 1
            length += 2
            start = len(out) - ((control & 31) << 8) - packed[i] - 1
            i += 1
            if start < 0:
                raise ValueError("a repetition begins before the data")
            part = out[start : start + length]
            if len(part) < length:  # it repeats what it is about to write
                part = (part * (length // len(part) + 1))[:length]
            out += part
            if len(out) > size:
                break
    except IndexError:
        raise ValueError("they end within a repetition") from None
    if i > end or len(out) != size:
        raise ValueError(f"expected {size:,} bytes, found {'more' if len(out) > size else 'fewer'}")
    return out


def _unpack(values: np.ndarray) -> Columns:
    """Colours from the bits 0xRRGGBB of an integer, or of a float of four bytes."""
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    bits = np.ascontiguousarray(values)
    bits = bits.view(np.uint32) if bits.dtype.itemsize == 4 else bits.astype(np.int64)
    parts = zip(("red", "green", "blue"), (16, 8, 0), strict=True)
    return {name: (bits >> shift & 255).astype(np.uint8) for name, shift in parts}


def _cut_off(path: Path, expected: int, found: int) -> UserError:
    return UserError(
        f"{path}: the header announces {expected:,} points, found data for {found:,}; the file is "
        "cut off or its header is wrong."
    )
