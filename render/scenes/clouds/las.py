"""LAS and LAZ files of laser scanners, through laspy (LAZ: with lazrs)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import Columns, Table
from render.scenes.clouds.optional import require
from render.scenes.clouds.sampling import even_rows

_HEADER = 227  # bytes of the shortest header
_LASZIP = 22204  # the record that says how points are compressed
_CHUNK = 500_000  # points that are decompressed at once
# A LAZ point takes a byte or more. Behind the end of the data lazrs goes on, so these bound it.
_MOST_PER_BYTE, _MOST_ANYWAY = 8, 500_000


def las_count(path: Path) -> tuple[int, bool]:
    """How many points the header announces, and whether they are compressed.

    Raises:
        UserError: no laspy, a broken header, or more points than the file can hold.
    """
    with _reader(path) as reader:
        return reader.header.point_count, reader.header.are_points_compressed


def read_las(path: Path, most: int | None = None) -> Table:
    """The points, in the coordinates of the file (float64), and their colours if there are any.

    Args:
        most: about so many of them at most, evenly spread.

    Raises:
        UserError: see :func:`las_count`; damaged or missing points.
    """
    with _reader(path) as reader:
        header = reader.header
        if header.are_points_compressed:
            columns = _decompressed(reader, most)
            found = len(columns["x"]) if most is None else header.point_count
        else:
            dtype, start = header.point_format.dtype(), header.offset_to_point_data
            rows = np.memmap(path, dtype, "r", start, header.point_count)
            columns = _columns(rows[even_rows(len(rows), most)], header)
            found = len(rows)
        if found < header.point_count:
            raise _cut_off(path, header.point_count, found)
    return Table(columns)


def _decompressed(reader: Any, most: int | None) -> Columns:
    header, parts, done = reader.header, [], 0
    step = 1 if most is None else max(1, -(-header.point_count // most))
    for chunk in reader.chunk_iterator(_CHUNK):
        rows = chunk.array
        parts.append(_columns(rows[-done % step :: step], header))
        done += len(rows)
    if not parts:
        return dict.fromkeys("xyz", np.zeros(0))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(rows: np.ndarray, header: Any) -> Columns:
    columns: Columns = {}
    for i, name in enumerate("XYZ"):
        columns[name.lower()] = rows[name] * float(header.scales[i]) + float(header.offsets[i])
    names = ("red", "green", "blue")
    if all(name in (rows.dtype.names or ()) for name in names):
        # 16 bits by the standard, but many programs write 8 of them.
        values = {name: rows[name].astype(np.int32) for name in names}
        if any(value.any() for value in values.values()):
            columns |= values
    return columns


@contextmanager
def _reader(path: Path) -> Iterator[Any]:
    """A laspy reader whose header fits the size of the file; all of its errors in one sentence."""
    laspy = require("laspy", path, "LAS and LAZ files")
    size = path.stat().st_size
    if size < _HEADER:
        raise UserError(f"{path}: expected a LAS header of {_HEADER} bytes, found {size}.")
    try:
        with path.open("rb") as file:
            head = file.read(375)
            _check_records(path, head, size)
            if head[104] & 0x80:  # compressed
                _check_chunks(path, file, head, size)
        with laspy.open(path, laz_backend=laspy.LazBackend.Lazrs) as reader:
            header = reader.header
            count, start = header.point_count, header.offset_to_point_data
            room = max(0, size - start)
            if header.are_points_compressed:
                most = max(room * _MOST_PER_BYTE, _MOST_ANYWAY)
            else:
                most = room // max(1, header.point_format.size)
            if count > most:
                raise _cut_off(path, count, most)
            if header.are_points_compressed and header.point_format.id >= 6:
                _check_layers(path, header)
            yield reader
    except UserError:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise
        # Damaged headers fail in every way there is; lazrs panics with a BaseException.
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as LAS or LAZ ({reason}); the file is damaged or cut off."
        ) from error


def _check_records(path: Path, head: bytes, size: int) -> None:
    """Refuse impossible counts before laspy reads so many records of nothing."""
    start, records = (int.from_bytes(head[i : i + 4], "little") for i in (96, 100))
    if not _HEADER <= start <= size or records * 54 > start:
        raise UserError(
            f"{path}: expected the points within {size:,} bytes, found a LAS header that puts them "
            f"at {start:,} behind {records:,} records; the file is damaged or cut off."
        )
    extended = int.from_bytes(head[243:247], "little") if head[25:26] >= b"\4" else 0
    if extended * 60 > size:
        raise UserError(
            f"{path}: expected at most {size // 60:,} extended records in {size:,} bytes, found "
            f"{extended:,}; the file is damaged."
        )


def _check_chunks(path: Path, file: IO[bytes], head: bytes, size: int) -> None:
    """Refuse impossible tables of LAZ: lazrs ends the whole program when it cannot have the memory.

    Points are compressed in chunks, each of which begins with a whole point; the points begin
    with the place of the table of chunks, or the file ends with it.
    """
    start, width = int.from_bytes(head[96:100], "little"), int.from_bytes(head[105:107], "little")
    file.seek(start)
    table = int.from_bytes(file.read(8), "little", signed=True)
    if table == -1:
        file.seek(size - 8)
        table = int.from_bytes(file.read(8), "little", signed=True)
    chunks = -1
    if start + 8 <= table <= size - 8:
        file.seek(table + 4)
        chunks = int.from_bytes(file.read(4), "little")
    if not 0 <= chunks * max(1, width) <= size:
        raise UserError(
            f"{path}: expected a table of compressed chunks within {size:,} bytes, found one at "
            f"{table:,} of {chunks:,} chunks; the file is cut off or damaged."
        )


def _check_layers(path: Path, header: Any) -> None:
    """Refuse parts of chunks that are larger than these, for which lazrs would make room first.

    Since format 6 a chunk has a whole point, a count, the sizes of its layers, and these: nine of
    the position and its flags, one each of colour, infrared, waveform and every extra byte.
    """
    lazrs = require("lazrs", path, "LAZ files")
    kind = header.point_format
    layers = 9 + (kind.id in (7, 8, 10)) + (kind.id in (8, 10)) + (kind.id in (9, 10))
    layers += kind.num_extra_bytes
    record = next(vlr.record_data for vlr in header.vlrs if vlr.record_id == _LASZIP)
    with path.open("rb") as file:
        file.seek(header.offset_to_point_data)
        chunks = lazrs.read_chunk_table(file, lazrs.LazVlr(record))
        place = header.offset_to_point_data + 8
        for _, length in chunks:
            file.seek(place + kind.size + 4)
            sizes = np.frombuffer(file.read(4 * layers), "<u4")
            if len(sizes) < layers or sizes.sum(dtype=np.uint64) > length:
                raise UserError(
                    f"{path}: the compressed points at byte {place:,} announce more than the "
                    f"{length:,} bytes they have; the file is damaged."
                )
            place += length


def _cut_off(path: Path, expected: int, found: int) -> UserError:
    return UserError(
        f"{path}: the header announces {expected:,} points, found room for {found:,}; the file is "
        "cut off or its header is wrong."
    )
