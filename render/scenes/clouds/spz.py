"""``.spz`` files: Gaussians in 8 to 24 bits a number, compressed with gzip (nianticlabs/spz).

Behind a header of 16 bytes come, one whole attribute after another: positions (24-bit fixed point),
opacities, colours, logarithms of the sizes, rotations and view-dependent colours. Versions 2 and 3
differ in the rotations: three bytes, or the smallest three components in ten bits each.

The axes of the file are x right, y up, z backwards. 3DGS PLY files of the same scenes have y down
and z forwards, and so has this program: half a turn about x lies between them, both ways.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from render.errors import UserError
from render.scenes.clouds.splat import logit, sigmoid, to_byte, unit_quaternions

MAGIC = b"NGSP"
_HEADER = struct.Struct("<4sIIBBBB")  # magic, version, count, degree, fraction, flags, reserved
_COEFFICIENTS = (0, 3, 8, 15)  # view-dependent ones of each degree
_COLOR = 0.15  # f_dc for a whole range of bytes
_MOST_RATIO = 1032  # deflate cannot expand more than this
_ODD_RATIO, _ODD_SIZE = 200, 64 << 20  # beyond both, nothing but a bomb is so regular
_MAX_FRACTION = 20
# Half a turn about x: what becomes of y and z, and of the harmonics of degrees 1, 2 and 3.
_TURN = np.array([1, -1, -1], np.float32)
_TURN_QUATERNION = np.array([1, 1, -1, -1], np.float32)
_TURN_HARMONICS = np.array(
    [-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float32
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the first 16 bytes say."""

    version: int
    count: int
    degree: int
    fraction: int  # bits behind the point of a position

    @property
    def size(self) -> int:
        """Bytes of header and attributes, before compression."""
        rotation = 3 if self.version == 2 else 4
        return _HEADER.size + self.count * (9 + 1 + 3 + 3 + rotation + 3 * self.coefficients)

    @property
    def coefficients(self) -> int:
        """View-dependent colours of each channel."""
        return _COEFFICIENTS[self.degree]


def is_spz(head: bytes) -> bool:
    """Whether a file that begins so is one; also of the versions that are not read."""
    return head.startswith(MAGIC) or _first_bytes(head).startswith(MAGIC)


def read_header(path: Path, head: bytes, size: int) -> Header:
    """Parse the header.

    Args:
        head: the first bytes of the file, a few hundred at least.
        size: of the file.

    Raises:
        UserError: another version, impossible values, or less data than they need.
    """
    if head.startswith(MAGIC):  # since version 4 the header is not compressed
        version = struct.unpack_from("<I", head.ljust(8, b"\0"), 4)[0]
        raise _other_version(path, version)
    start = _first_bytes(head)
    if len(start) < _HEADER.size or not start.startswith(MAGIC):
        raise UserError(
            f"{path}: expected gzip data that begins with {MAGIC.decode()} and a header of "
            f"{_HEADER.size} bytes, found {start[:4]!r}; the file is cut off or no .spz file."
        )
    _, version, count, degree, fraction, _, _ = _HEADER.unpack(start)
    if version not in (2, 3):
        raise _other_version(path, version)
    if degree >= len(_COEFFICIENTS):
        raise UserError(
            f"{path}: expected view-dependent colours of degree 0 to 3, found {degree}; save the "
            "file with a lower degree."
        )
    if fraction > 30:
        raise UserError(f"{path}: expected at most 30 fractional bits, found {fraction}.")
    header = Header(version, count, degree, fraction)
    ratio = header.size / max(1, size)
    if ratio > _MOST_RATIO or (ratio > _ODD_RATIO and header.size > _ODD_SIZE):
        raise UserError(
            f"{path}: the header announces {count:,} Gaussians ({header.size:,} bytes), which "
            f"cannot be in a file of {size:,} bytes; the file is cut off or its header is wrong."
        )
    return header


def read_spz(path: Path) -> dict[str, np.ndarray]:
    """The Gaussians as :func:`render.scenes.clouds.columns.splat_columns` takes them, y down.

    Raises:
        UserError: see :func:`read_header`; damaged data, or fewer Gaussians than announced.
    """
    packed = path.read_bytes()
    header = read_header(path, packed[:4096], len(packed))
    # Never more than was announced, whatever the rest would expand to.
    try:
        data = zlib.decompressobj(31).decompress(packed, header.size)
    except zlib.error as error:
        raise UserError(f"{path}: the compressed data are damaged ({error}).") from error
    n, sh = header.count, header.coefficients
    if len(data) < header.size:
        whole = (len(data) - _HEADER.size) * n // max(1, header.size - _HEADER.size)
        raise UserError(
            f"{path}: the header announces {n:,} Gaussians, found data for about {whole:,}; the "
            "file is cut off."
        )
    place = _HEADER.size

    def take(width: int) -> np.ndarray:
        nonlocal place
        part = np.frombuffer(data, np.uint8, n * width, place).reshape(n, width)
        place += n * width
        return part

    fixed = np.zeros((n, 3, 4), np.uint8)
    fixed[..., 1:] = take(9).reshape(n, 3, 3)  # the upper bytes: dividing by 256 keeps the sign
    xyz = (fixed.view("<i4")[..., 0] >> 8) * np.float32(2.0**-header.fraction)
    opacity = logit(take(1).astype(np.float32) / 255)
    f_dc = (take(3).astype(np.float32) / 255 - 0.5) / _COLOR
    scale = take(3).astype(np.float32) / 16 - 10
    quats = _first_three(take(3)) if header.version == 2 else _smallest_three(take(4))
    rest = (take(3 * sh).reshape(n, sh, 3).astype(np.float32) - 128) / 128
    rest = (rest * _TURN_HARMONICS[:sh, None]).transpose(0, 2, 1)
    return {
        "xyz": xyz.astype(np.float32) * _TURN,
        "f_dc": f_dc,
        "f_rest": rest.reshape(n, 3 * sh),
        "opacity": opacity,
        "scale": scale,
        "rotation": quats * _TURN_QUATERNION,
    }


def spz_bytes(splats: dict[str, np.ndarray]) -> bytes:
    """The content of an ``.spz`` file of version 3.

    Rounded are positions (as finely as 24 bits allow for the farthest one), opacities and colours
    (bytes), sizes (6 % steps), rotations (0.1 degrees) and view-dependent colours (-1 to 1; 5 bits
    for degree 1, 4 beyond).

    Raises:
        ValueError: positions that are not finite or beyond 8 million units, or another number of
            view-dependent colours than degrees 0 to 3 have.
    """
    xyz = splats["xyz"].astype(np.float64) * _TURN
    n, sh = len(xyz), splats["f_rest"].shape[1] // 3
    reach = float(np.abs(xyz).max(initial=0))
    if not reach < 2**23 - 1:
        raise ValueError(f"positions up to {reach:g} do not fit into 24 bits")
    if sh not in _COEFFICIENTS:
        raise ValueError(f"{sh} view-dependent colours a channel are of no degree from 0 to 3")
    fraction = _MAX_FRACTION
    if reach > 0:
        fraction = min(fraction, math.floor(math.log2((2**23 - 1) / reach)))
    fixed = np.round(xyz * 2.0**fraction).astype("<i4")
    positions = fixed[..., None].view(np.uint8)[..., :3]  # [N, 3, 3]
    rest = splats["f_rest"].astype(np.float64).reshape(n, 3, sh).transpose(0, 2, 1)
    rest = to_byte(rest * _TURN_HARMONICS[:sh, None] + 1, 128).astype(int)
    step = np.array([8] * 3 + [16] * 12)[:sh, None]  # 5 bits, then 4
    rest = ((rest + step // 2) // step * step).clip(0, 255)
    parts = (
        positions,
        to_byte(sigmoid(splats["opacity"].astype(np.float64)), 255),
        to_byte(splats["f_dc"].astype(np.float64) * _COLOR + 0.5, 255),
        to_byte(splats["scale"].astype(np.float64) + 10, 16),
        _pack_smallest_three(unit_quaternions(splats["rotation"]) * _TURN_QUATERNION),
        rest.astype(np.uint8),
    )
    header = _HEADER.pack(MAGIC, 3, n, _COEFFICIENTS.index(sh), fraction, 0, 0)
    return gzip.compress(header + b"".join(part.tobytes() for part in parts), mtime=0)


def _first_bytes(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, _HEADER.size)
    except zlib.error:
        return b""


def _first_three(packed: np.ndarray) -> np.ndarray:
    """Version 2: x y z [N, 3] as bytes; w is what is left to length 1."""
    xyz = packed.astype(np.float32) / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1, keepdims=True)))
    return unit_quaternions(np.concatenate([w, xyz], 1)).astype(np.float32)


def _smallest_three(packed: np.ndarray) -> np.ndarray:
    """Version 3: the largest of x y z w in the two upper bits; ten bits for each of the others."""
    bits = np.ascontiguousarray(packed).view("<u4")[:, 0].copy()
    largest = bits >> 30
    xyzw = np.zeros((len(bits), 4))
    for i in (3, 2, 1, 0):
        stored = largest != i
        value = math.sqrt(0.5) * (bits & 511) / 511
        xyzw[stored, i] = np.where(bits & 512, -value, value)[stored]
        bits = np.where(stored, bits >> 10, bits)
    rest = np.sqrt(np.maximum(0, 1 - (xyzw**2).sum(1)))
    xyzw[np.arange(len(bits)), largest] = rest
    return unit_quaternions(xyzw[:, [3, 0, 1, 2]]).astype(np.float32)


def _pack_smallest_three(wxyz: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_smallest_three`: [N, 4] to uint32 [N]."""
    xyzw = wxyz[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(1)
    xyzw = np.where(xyzw[np.arange(len(xyzw)), largest][:, None] < 0, -xyzw, xyzw)
    bits = largest.astype(np.uint32)
    for i in range(4):
        size = np.floor(np.abs(xyzw[:, i]) / math.sqrt(0.5) * 511 + 0.5).clip(0, 511)
        new = bits << 10 | (xyzw[:, i] < 0).astype(np.uint32) << 9 | size.astype(np.uint32)
        bits = np.where(largest != i, new, bits)
    return bits.astype("<u4")


def _other_version(path: Path, version: int) -> UserError:
    return UserError(
        f"{path}: expected an SPZ file of version 2 or 3, found version {version}; convert it to "
        "one of them or to PLY with the program it came from."
    )
