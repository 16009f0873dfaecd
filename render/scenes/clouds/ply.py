"""PLY files: a forgiving header parser, a vectorised body reader, plyfile for the rest.

plyfile refuses headers that other programs write (white space after "ply", two properties of one
name) and reads ascii and lists row by row. So the header is parsed here, the element with the
points is read in one go where its rows have a fixed form, and plyfile gets a cleaned header plus
the body where they do not (lists in or before that element).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement, PlyParseError

from render.errors import UserError
from render.scenes.clouds.sampling import even_rows

# PLY's names of the scalar types, old and new, and NumPy's.
TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_BYTE_ORDER = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Property:
    """A column: its name (made unique) and NumPy type, or the two types of a list."""

    name: str
    type: str
    list_length_type: str | None = None


@dataclass(frozen=True)
class Element:
    """A table of the file."""

    name: str
    count: int
    properties: tuple[Property, ...]

    @property
    def has_lists(self) -> bool:
        return any(p.list_length_type for p in self.properties)

    def dtype(self, order: str) -> np.dtype:
        """Row type of an element without lists."""
        return np.dtype([(p.name, order + p.type) for p in self.properties])


@dataclass(frozen=True)
class Header:
    """A parsed header; ``size`` is the offset of the body in bytes."""

    format: str
    elements: tuple[Element, ...]
    size: int
    lines: int
    comments: tuple[str, ...] = ()

    def number(self, name: str) -> float | None:
        """The number in a comment "NAME NUMBER ...", if there is one."""
        for words in map(str.split, self.comments):
            if words[:1] == [name]:
                try:
                    return float(words[1])
                except (IndexError, ValueError):
                    return None
        return None


def read_ply(path: Path, most: int | None = None) -> np.ndarray:
    """The rows of the element that holds the points, a structured array [N].

    That is the element ``vertex``, else the first one with x, y and z. Rows of fixed size are a map
    of the file and not yet in memory.

    Args:
        most: about so many rows at most, evenly spread, where their size is fixed.

    Raises:
        UserError: no PLY, broken header, no coordinates, fewer rows than announced.
    """
    header, index = find_points(path)
    element = header.elements[index]
    if element.count == 0:
        return np.zeros(0, element.dtype("="))
    before = header.elements[:index]
    if not _fixed_rows(header, index):
        return _read_with_plyfile(path, header, index)
    if header.format == "ascii":
        return _read_ascii(path, header, element, skip=sum(e.count for e in before))
    dtype = element.dtype(_BYTE_ORDER[header.format])
    rows = np.memmap(path, dtype, "r", _start(header, index), element.count)
    return rows[even_rows(element.count, most)]


def find_points(path: Path) -> tuple[Header, int]:
    """The header and which element holds the points; the rows are not read.

    Raises:
        UserError: as :func:`read_ply`; missing rows only where their size is fixed.
    """
    header = read_ply_header(path)
    index = _points_element(path, header)
    element = header.elements[index]
    if header.format != "ascii" and _fixed_rows(header, index):
        size = element.dtype(_BYTE_ORDER[header.format]).itemsize
        found = max(0, path.stat().st_size - _start(header, index)) // size
        if found < element.count:
            raise _truncated(path, element, found)
    return header, index


def read_ply_header(path: Path) -> Header:
    """Parse the header; white space, CR and CRLF line ends and repeated names are forgiven."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_HEADER)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    if raw[:3] != b"ply" or raw[3:4] not in (b"\n", b"\r", b" ", b"\t"):
        raise UserError(f'{path}: expected a PLY file that starts with "ply", found {raw[:12]!r}.')
    # Old Macintosh files end lines with CR alone.
    newline = b"\r" if b"\r" in raw[:200] and b"\n" not in raw[:200] else b"\n"
    form = ""
    elements: list[Element] = []
    comments: list[str] = []
    position = 0
    for number in range(1, len(raw) + 1):
        end = raw.find(newline, position)
        if end < 0:
            raise UserError(
                f'{path}: the PLY header has no line "end_header"; the file is cut off.'
            )
        line = raw[position:end]
        position = end + 1
        words = line.decode("latin-1").split()
        if words[:1] == ["comment"]:
            comments.append(" ".join(words[1:]))
        if not words or words[0] in ("ply", "comment", "obj_info"):
            continue
        if words[0] == "end_header":
            if not form:
                raise UserError(f'{path}: the PLY header has no line "format".')
            return Header(form, tuple(elements), position, number, tuple(comments))
        try:
            if words[0] == "format":
                form = words[1]
                if form not in _BYTE_ORDER:
                    raise ValueError
            elif words[0] == "element":
                elements.append(Element(words[1], int(words[2]), ()))
                if elements[-1].count < 0:
                    raise ValueError
            elif words[0] == "property":
                elements[-1] = _with_property(elements[-1], words[1:])
            else:
                raise ValueError
        except (IndexError, ValueError, KeyError) as error:
            text = line[:80].decode("latin-1").strip()
            raise UserError(
                f'{path}: line {number} of the PLY header, "{text}", is not understood; expected '
                '"format ascii|binary_little_endian|binary_big_endian 1.0", "element NAME COUNT" '
                'or "property TYPE NAME".'
            ) from error
    raise UserError(f'{path}: the PLY header has no line "end_header".')


def write_ply_rows(path: Path, rows: np.ndarray, comments: list[str]) -> None:
    """Write a structured array [N] as the element ``vertex`` of a little-endian binary file."""
    element = PlyElement.describe(rows, "vertex")
    PlyData([element], text=False, byte_order="<", comments=comments).write(str(path))


def _with_property(element: Element, words: list[str]) -> Element:
    list_length_type = None
    if words[0] == "list":
        list_length_type, words = TYPES[words[1]], words[2:]
    name = words[1]
    taken = {p.name for p in element.properties}
    while name in taken:
        name += "_"
    new = Property(name, TYPES[words[0]], list_length_type)
    return Element(element.name, element.count, (*element.properties, new))


def _fixed_rows(header: Header, index: int) -> bool:
    before = header.elements[:index]
    return not header.elements[index].has_lists and not any(e.has_lists and e.count for e in before)


def _start(header: Header, index: int) -> int:
    """Where the rows of a binary element begin, in bytes."""
    order = _BYTE_ORDER[header.format]
    return header.size + sum(e.count * e.dtype(order).itemsize for e in header.elements[:index])


def _points_element(path: Path, header: Header) -> int:
    def complete(element: Element) -> bool:
        scalars = {p.name.lower() for p in element.properties if not p.list_length_type}
        return {"x", "y", "z"} <= scalars

    order = sorted(range(len(header.elements)), key=lambda i: header.elements[i].name != "vertex")
    for i in order:
        if complete(header.elements[i]):
            return i
    found = "; ".join(
        f"{e.name} ({', '.join(p.name for p in e.properties)})" for e in header.elements
    )
    raise UserError(
        f'{path}: expected an element "vertex" with the properties x, y and z, '
        f"found {found or 'no element at all'}."
    )


def _read_ascii(path: Path, header: Header, element: Element, skip: int) -> np.ndarray:
    with path.open("rb") as file:
        body = file.read()[header.size :]
    if b"\n" not in body and b"\r" in body:
        body = body.replace(b"\r", b"\n")
    text = io.TextIOWrapper(io.BytesIO(body), encoding="latin-1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about an empty body: told below
            table = np.loadtxt(
                text,
                np.float64,
                comments=None,
                skiprows=skip,
                max_rows=element.count,
                ndmin=2,
                usecols=range(len(element.properties)),
            )
    except ValueError as error:
        # A cut-off file often ends in the middle of a row.
        rows = [line for line in body.split(b"\n")[skip:] if line.strip()]
        short = next(
            (i for i, r in enumerate(rows) if len(r.split()) < len(element.properties)), None
        )
        if short is not None and short < element.count:
            raise _truncated(path, element, short) from error
        raise UserError(
            f'{path}: the rows of the element "{element.name}" are not '
            f"{len(element.properties)} numbers each ({error})."
        ) from error
    if len(table) < element.count:
        raise _truncated(path, element, len(table))
    rows = np.empty(element.count, element.dtype("="))
    with np.errstate(invalid="ignore"):
        for column, p in enumerate(element.properties):
            rows[p.name] = table[:, column]
    return rows


def _read_with_plyfile(path: Path, header: Header, index: int) -> np.ndarray:
    lines = ["ply", f"format {header.format} 1.0"]
    for element in header.elements[: index + 1]:  # what comes after the points is of no interest
        lines.append(f"element {element.name} {element.count}")
        for p in element.properties:
            kind = f"list {p.list_length_type} {p.type}" if p.list_length_type else p.type
            lines.append(f"property {_plyfile_types(kind)} {p.name}")
    lines.append("end_header\n")
    with path.open("rb") as file:
        body = file.read()[header.size :]
    if header.format == "ascii":
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    stream = io.BytesIO("\n".join(lines).encode("latin-1") + body)
    element = header.elements[index]
    try:
        return np.asarray(PlyData.read(stream).elements[index].data)
    except (PlyParseError, ValueError) as error:  # ValueError: bytes that are no ASCII
        raise UserError(
            f'{path}: cannot read the {element.count:,} rows of the element "{element.name}" '
            f"({error}); the file is cut off or damaged."
        ) from error


def _plyfile_types(kind: str) -> str:
    names = {code: name for name, code in TYPES.items() if not name[-1].isdigit()}
    return " ".join(names.get(word, word) for word in kind.split())


def _truncated(path: Path, element: Element, found: int) -> UserError:
    return UserError(
        f'{path}: the header announces {element.count:,} rows of the element "{element.name}", '
        f"found {found:,}; the file is cut off or its header is wrong."
    )
