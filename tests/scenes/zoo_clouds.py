"""Malformed point clouds, meshes and Gaussians: what is particular to each format."""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.scenes.healthy import CLOUDS

HUGE = 2**40


@cache
def healthy_cloud(name: str) -> bytes:
    """The content of a healthy file, by its name."""
    return CLOUDS[name]()


def _ply(header: str, body: bytes = b"") -> bytes:
    return f"ply\n{header}\nend_header\n".encode() + body


def _npy_header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _pickle() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], object), allow_pickle=True)
    return out.getvalue()


def _las(place: int, form: str, value: Any) -> bytes:
    data = bytearray(healthy_cloud("cloud.las"))
    struct.pack_into(form, data, place, value)
    return bytes(data)


_XYZ = "property float x\nproperty float y\nproperty float z"
_ASCII = "format ascii 1.0"
_BINARY = "format binary_little_endian 1.0"
_PCD = (
    "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT {}\nWIDTH {}\nHEIGHT 1\nPOINTS {}\n"
    "DATA {}\n"
)
_NAN = struct.pack("<3f", math.nan, math.inf, 0)

CLOUD_CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "count huge": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex {HUGE}\n{_XYZ}", bytes(99))),
    "count negative": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex -5\n{_XYZ}", bytes(99))),
    "count a word": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex many\n{_XYZ}", bytes(99))),
    "count zero": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex 0\n{_XYZ}")),
    "count of digits": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex {'9' * 5000}\n{_XYZ}")),
    "no vertex": ("a.ply", lambda: _ply(f"{_BINARY}\nelement face 1\nproperty list uchar int i")),
    "unknown type": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex 1\nproperty quad x")),
    "no z": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex 1\nproperty float x", bytes(4))),
    "unknown format": ("a.ply", lambda: _ply(f"format odd 1.0\nelement vertex 1\n{_XYZ}")),
    "no end of the header": ("a.ply", lambda: b"ply\nformat ascii 1.0\n" + b"comment x\n" * 9999),
    "list without end": (
        "a.ply",
        lambda: _ply(
            f"{_BINARY}\nelement vertex 1\n{_XYZ}\nproperty list uint int more",
            bytes(12) + b"\xff" * 40,
        ),
    ),
    "only NaN": ("a.ply", lambda: _ply(f"{_BINARY}\nelement vertex 9\n{_XYZ}", _NAN * 9)),
    "ascii of words": ("a.ply", lambda: _ply(f"{_ASCII}\nelement vertex 1\n{_XYZ}", b"a b c")),
    "ascii short": ("a.ply", lambda: _ply(f"{_ASCII}\nelement vertex 9\n{_XYZ}", b"1 2 3\n")),
    "npy huge": ("a.npy", lambda: _npy_header(f"({HUGE}, 3)") + bytes(99)),
    "npy overflow": ("a.npy", lambda: _npy_header(f"({2**62}, {2**62})") + bytes(99)),
    "npy negative": ("a.npy", lambda: _npy_header("(-4, 3)") + bytes(99)),
    "npy flat": ("a.npy", lambda: _npy_header("(9,)") + bytes(36)),
    "npy of words": ("a.npy", lambda: _npy_header("(3, 3)", "<U4") + bytes(144)),
    "npy code": ("a.npy", lambda: _npy_header("__import__('os')") + bytes(99)),
    "npy pickle": ("a.npy", _pickle),
    "npz pickle": ("a.npz", lambda: _saved(points=np.array([{}], object))),
    "npz bomb": ("a.npz", lambda: _saved(points=np.zeros((1 << 24, 3)))),
    "npz other arrays": ("a.npz", lambda: _saved(a=np.ones(3), b=np.ones((2, 2)))),
    "zip of nothing": ("a.npz", lambda: b"PK\x05\x06" + bytes(18)),
    "pcd huge": ("a.pcd", lambda: _PCD.format("1 1 1", HUGE, HUGE, "binary").encode() + bytes(99)),
    "pcd compressed huge": (
        "a.pcd",
        lambda: (
            _PCD.format("1 1 1", 9, 9, "binary_compressed").encode()
            + struct.pack("<II", 20, 2**32 - 1)
            + bytes(20)
        ),
    ),
    "pcd count huge": ("a.pcd", lambda: _PCD.format(f"1 1 {HUGE}", 9, 9, "binary").encode()),
    "pcd of words": ("a.pcd", lambda: _PCD.format("1 1 1", 2, 2, "ascii").encode() + b"a b c\n"),
    "las huge": ("a.las", lambda: _las(107, "<I", 2**32 - 1)),
    "las header huge": ("a.las", lambda: _las(96, "<I", 2**32 - 1)),
    "las scale NaN": ("a.las", lambda: _las(131, "<d", math.nan)),
    "las point format": ("a.las", lambda: _las(104, "<B", 99)),
    "spz huge": ("a.spz", lambda: _spz(2, 2**32 - 1, 3)),
    "spz bomb": ("a.spz", lambda: _gzip(bytes(1 << 26))),
    "spz version": ("a.spz", lambda: _spz(99, 1, 0)),
    "spz degree": ("a.spz", lambda: _spz(2, 1, 9)),
    "splat odd": ("a.splat", lambda: bytes(range(1, 34))),
    "glb huge": ("a.glb", lambda: b"glTF" + struct.pack("<III4s", 2, 2**31, 2**31, b"JSON")),
    "glb nested": ("a.glb", lambda: _glb(b"[" * 100_000)),
    "glb other file": (
        "a.glb",
        lambda: _glb(json.dumps({"asset": {"version": "2.0"}, "buffers": [
            {"uri": "../../../../etc/passwd", "byteLength": 9}]}).encode()),
    ),
    "obj no vertex": ("a.obj", lambda: b"f 1 2 3\nf 2 3 4\n" * 9),
    "obj of words": ("a.obj", lambda: b"v a b c\n" * 9),
    "obj indices": ("a.obj", lambda: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 999999999\n"),
    "blank lines": ("a.xyz", lambda: b"\n" * 5000 + b"?"),
    "comments and blanks": ("a.off", lambda: b"\n \n# \n" * 2000 + b"?"),
    "text of words": ("a.xyz", lambda: b"one two three\n" * 9),
    "text of NaN": ("a.xyz", lambda: b"nan nan nan\n" * 9),
    "text of digits": ("a.xyz", lambda: b"9" * 200_000 + b" 1 2\n"),
    "text of one line": ("a.xyz", lambda: b"1 " * 300_000),
    "text ragged": ("a.csv", lambda: b"x,y,z\n1,2,3\n4,5\n6,7,8,9\n"),
    "header only": ("a.csv", lambda: b"x,y,z,red,green,blue\n"),
}  # fmt: skip


def _saved(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=True, **arrays)
    return out.getvalue()


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(data) + packer.flush()


def _spz(version: int, count: int, degree: int) -> bytes:
    header = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, 12, 0, 0)
    return _gzip(header + bytes(99))


def _glb(text: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text))
    return head + struct.pack("<I4s", len(text), b"JSON") + text


def write_cloud_case(name: str, folder: Path) -> Path:
    """Write one of :data:`CLOUD_CASES`."""
    file, content = CLOUD_CASES[name]
    (folder / file).write_bytes(content())
    return folder / file
