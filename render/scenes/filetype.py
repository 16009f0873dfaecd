"""What a file is by its first bytes; its name does not matter."""

from __future__ import annotations

import codecs
import json
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from render.errors import UserError
from render.scenes.clouds.mesh import mesh_form
from render.scenes.clouds.pcd import is_pcd
from render.scenes.clouds.pointtext import first_row
from render.scenes.clouds.splat import looks_like_splats
from render.scenes.clouds.spz import is_spz

Form = Literal[
    "ply", "npy", "npz", "numbers", "pcd", "las", "e57", "obj", "stl", "off", "glb", "gltf",
    "splat", "spz", "json", "checkpoint", "image", "video", "other", "text", "binary", "empty",
]  # fmt: skip

_HEAD = 1 << 16  # bytes that are looked at
_ZIP = b"PK\x03\x04"

# Files that this program cannot open, by their first bytes, in words.
_MAGIC: tuple[tuple[bytes, Form, str], ...] = (
    (b"\xff\xd8\xff", "image", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "image", "a PNG picture"),
    (b"GIF8", "image", "a GIF picture"),
    (b"II*\0", "image", "a TIFF picture"),
    (b"MM\0*", "image", "a TIFF picture"),
    (b"\x76\x2f\x31\x01", "image", "an OpenEXR picture"),
    (b"\x1aE\xdf\xa3", "video", "a Matroska or WebM video"),
    (b"LASF", "las", "a LAS or LAZ point cloud"),
    (b"ASTM-E57", "e57", "an E57 point cloud"),
    (b"BLENDER", "other", "a Blender file"),
    (b"%PDF-", "other", "a PDF document"),
    (b"\x1f\x8b", "other", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "other", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "other", "a 7-Zip archive"),
    (b"SQLite format 3\0", "other", "an SQLite database"),
    (b"\x7fELF", "other", "a program"),
    (b"MZ", "other", "a program"),
)


@dataclass(frozen=True)
class FileType:
    """A file's form, the words for it, and its size.

    Args:
        form: "numbers" is text with rows of at least three numbers; "checkpoint" is a PyTorch
            archive; "other", "text" and "binary" are nothing that can be opened.
        what: with its article, for messages ("a JPEG picture").
        size: bytes.
        head: the first bytes (at most 64 KiB), so that nobody reads them twice.
    """

    form: Form
    what: str
    size: int
    head: bytes


def file_type(path: Path) -> FileType:
    """Look at the first bytes of ``path``: microseconds, however large it is.

    Raises:
        UserError: it cannot be read, or is no regular file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise UserError(f"{path}: expected a file, found a folder, a device or a pipe.")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{path}: cannot be read ({reason}).") from error
    form, what = _by_content(head, path, status.st_size)
    return FileType(form, what, status.st_size, head)


def head_lines(head: bytes) -> list[str] | None:
    """The whole lines of text that ``head`` begins with; None when it is no UTF-8 text."""
    if b"\0" in head:
        return None
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        text = decoder.decode(head, final=len(head) < _HEAD)
    except UnicodeDecodeError:
        return None
    if any(ord(c) < 32 and c not in "\t\n\r\f\v" for c in text[:4096]):
        return None
    lines = text.splitlines()
    return lines[:-1] if len(head) == _HEAD and len(lines) > 1 else lines


def _by_content(head: bytes, path: Path, size: int) -> tuple[Form, str]:
    if not head:
        return "empty", "an empty file"
    if head[:3] == b"ply" and head[3:4] in (b"\n", b"\r", b" ", b"\t"):
        return "ply", "a PLY file"
    if head.startswith(b"\x93NUMPY"):
        return "npy", "a NumPy array"
    if head.startswith(_ZIP):
        return _archive(head)
    if head[:4] == b"RIFF":
        return ("image", "a WebP picture") if head[8:12] == b"WEBP" else ("video", "a RIFF file")
    if head[4:8] == b"ftyp":
        still = head[8:12] in (b"heic", b"heix", b"mif1", b"avif")
        return ("image", "a HEIC picture") if still else ("video", "an MP4 or QuickTime video")
    if is_spz(head):
        return "spz", "an SPZ file of Gaussians"
    if is_pcd(head):
        return "pcd", "a PCD point cloud"
    for magic, form, what in _MAGIC:
        if head.startswith(magic):
            return form, what
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "other", "a pickle, which is never opened because it could run any program"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "text", "text in UTF-16 (save it as UTF-8)"
    mesh = mesh_form(head, size)
    if mesh is not None:
        return mesh, f"a mesh ({mesh.upper()})"
    found = _text(head, path)
    if found[0] != "binary":
        return found
    if looks_like_splats(head, size):
        return "splat", "a .splat file of Gaussians"
    if _is_ksplat(head):
        return "other", "a .ksplat file (save its Gaussians as PLY, .spz or .splat)"
    return found


def _is_ksplat(head: bytes) -> bool:
    """Version 0.1, a few sections, some Gaussians and a known level of compression."""
    if len(head) < 4096 or head[:4] != b"\0\1\0\0":
        return False
    sections, count, level = (
        *struct.unpack_from("<I", head, 4),
        *struct.unpack_from("<IH", head, 16),
    )
    return 0 < sections < 1 << 16 and count > 0 and level <= 2


def _archive(head: bytes) -> tuple[Form, str]:
    """By the name of the first member; the whole directory of a large archive takes longer."""
    (length,) = struct.unpack_from("<H", head, 26) if len(head) >= 30 else (0,)
    name = head[30 : 30 + length]
    if name.endswith(b".npy"):
        return "npz", "a NumPy archive"
    if re.search(rb"(^|/)(data\.pkl|\.format_version|\.storage_alignment|byteorder)$", name):
        return "checkpoint", "a PyTorch file"
    return "other", "a zip archive (unpack it first)"


def _text(head: bytes, path: Path) -> tuple[Form, str]:
    lines = head_lines(head)
    if lines is None:
        return "binary", f"binary data of an unknown kind ({head[:8].hex(' ')} ...)"
    text = "\n".join(lines)
    if text.lstrip()[:1] in ("{", "["):
        return "json", "a JSON file"
    try:
        first_row(path, lines)
    except UserError:
        words = json.dumps(" ".join(text[:200].split())[:40], ensure_ascii=False)
        return "text", f"text that is no list of points ({words})" if words != '""' else (
            "a file of blanks"
        )
    return "numbers", "text with rows of numbers"
