"""Cameras and images of a COLMAP model, binary or text.

Format: COLMAP's documentation, "Output format". ``rigs`` and ``frames`` of COLMAP 3.12 and later
are not needed: the poses of all images are still written out. 2D observations are skipped without
being read; a model of 5,000 images with millions of them loads in well under a second.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from render.camera import intrinsics
from render.errors import UserError
from render.scenes.photos.lens_models import DISTORTION, Lens

# Models by COLMAP's number.
MODELS = (
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE",
    "FULL_OPENCV", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "DIVISION", "SIMPLE_FISHEYE", "FISHEYE",
    "EUCM", "EQUIRECTANGULAR",
)  # fmt: skip
_PANORAMA = "EQUIRECTANGULAR"
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE",
              "RADIAL_FISHEYE", "SIMPLE_DIVISION", "SIMPLE_FISHEYE")  # fmt: skip

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")  # id, model, width, height; then the parameters, f64
_IMAGE = struct.Struct("<I4d3dI")  # id, quaternion, translation, camera; then name and observations
_OBSERVATION = 24  # x, y (f64) and point id (u64)
_LONGEST_NAME = 4096
_LONGEST_LINE = 1 << 26
_LARGEST_SIDE = 1 << 17
_FARTHEST = 1e12


@dataclass(frozen=True)
class ColmapCamera:
    """One entry of ``cameras``: intrinsics in pixels of ``width`` x ``height``.

    Args:
        K: [3, 3] float64, pixel centres at .5 as everywhere here.
        lens: its distortion; None for a pinhole.
    """

    model: str
    width: int
    height: int
    K: Tensor
    lens: Lens | None


@dataclass(frozen=True)
class ColmapImage:
    """One entry of ``images``: world-to-camera quaternion (w, x, y, z) and translation."""

    name: str
    camera: int
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]

    @property
    def usable(self) -> bool:
        """Whether the pose is finite and its quaternion can be normalised."""
        length = math.sqrt(sum(q * q for q in self.quaternion if abs(q) < 1e100))
        numbers = (*self.quaternion, *self.translation)
        return all(abs(value) < _FARTHEST for value in numbers) and length > 1e-9


def is_model(folder: Path) -> bool:
    """Whether the folder holds a COLMAP model, by the names of its files."""
    if (folder / "cameras.bin").is_file():
        return True
    return all((folder / f"{name}.txt").is_file() for name in ("cameras", "images"))


def read_cameras(folder: Path) -> dict[int, ColmapCamera]:
    """The cameras of a model by their id.

    Raises:
        UserError: no such file, truncated or malformed, or parameters that make no camera.
    """
    path = _part(folder, "cameras")
    entries = _binary_cameras(path) if path.suffix == ".bin" else _text_cameras(path)
    cameras = {entry[0]: _camera(path, *entry) for entry in entries}
    if not cameras:
        raise UserError(f"{path}: expected at least one camera, found none.")
    return cameras


def read_images(folder: Path) -> list[ColmapImage]:
    """The registered images of a model, in the order of the file.

    Raises:
        UserError: no such file, truncated or malformed, or no image.
    """
    path = _part(folder, "images")
    images = list(_binary_images(path) if path.suffix == ".bin" else _text_images(path))
    if not images:
        raise UserError(f"{path}: expected at least one registered image, found none.")
    return images


def _part(folder: Path, name: str) -> Path:
    """``cameras`` or ``images``, both in the same of the two forms where there are both."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
            return folder / f"{name}{suffix}"
    for suffix in (".bin", ".txt"):
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise UserError(
        f"{folder}: expected a COLMAP model of cameras, images and points3D (.bin or .txt), found "
        f"no {name}.bin and no {name}.txt; copy the whole folder again."
    )


# ------------------------------------------------------------------ cameras
def _binary_cameras(path: Path) -> Iterator[tuple[int, str, int, int, list[float]]]:
    with mapped(path) as data:
        count, at = _count(path, data, _CAMERA.size), 8
        for i in range(count):
            if at + _CAMERA.size > len(data):
                raise _cut_off(path, "cameras", count, i)
            number, kind, width, height = _CAMERA.unpack_from(data, at)
            at += _CAMERA.size
            if not 0 <= kind < len(MODELS):
                raise _unknown_model(path, number, str(kind))
            model = MODELS[kind]
            params = struct.Struct(f"<{_parameters(model)}d")
            if at + params.size > len(data):
                raise _cut_off(path, "cameras", count, i)
            yield number, model, width, height, list(params.unpack_from(data, at))
            at += params.size


def _text_cameras(path: Path) -> Iterator[tuple[int, str, int, int, list[float]]]:
    for number, line in lines_of(path):
        if not line.strip():
            continue
        words = line.split()
        try:
            camera, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            params = [float(word) for word in words[4:]]
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{path}: line {number}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS, found "
                f"{line.strip()[:60]!r}."
            ) from error
        if model not in MODELS:
            raise _unknown_model(path, camera, model)
        if len(params) != _parameters(model):
            raise UserError(
                f"{path}: line {number}: expected {_parameters(model)} parameters of a {model} "
                f"camera, found {len(params)}."
            )
        yield camera, model, width, height, params


def _parameters(model: str) -> int:
    if model == _PANORAMA:
        return 2
    return (3 if model in _ONE_FOCAL else 4) + len(DISTORTION[model])


def _camera(
    path: Path, number: int, model: str, width: int, height: int, params: list[float]
) -> ColmapCamera:
    if model == _PANORAMA:
        raise UserError(
            f"{path}: camera {number} is a panorama ({model}), of which no pinhole picture can be "
            "made; cut the panoramas into perspective images and reconstruct from those."
        )
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise UserError(
            f"{path}: camera {number}: expected a size in pixels up to {_LARGEST_SIDE}, found "
            f"{width}x{height}."
        )
    shared = model in _ONE_FOCAL
    fx, fy = params[0], params[0 if shared else 1]
    cx, cy = params[1:3] if shared else params[2:4]
    largest = 1e4 * max(width, height)
    if not (0 < fx < largest and 0 < fy < largest and abs(cx) < largest and abs(cy) < largest):
        raise UserError(
            f"{path}: camera {number}: expected positive focal lengths and a centre in pixels, "
            f"found {fx:g}, {fy:g} and {cx:g}, {cy:g}."
        )
    try:
        lens = Lens(model, tuple(params[3 if shared else 4 :]))
    except ValueError as error:
        raise UserError(f"{path}: camera {number}: {error}.") from error
    K = intrinsics((fx, fy), (cx, cy))
    return ColmapCamera(model, width, height, K, None if lens.is_identity else lens)


def _unknown_model(path: Path, number: int, found: str) -> UserError:
    return UserError(
        f'{path}: camera {number} has the unknown model "{found[:40]}"; expected one of '
        f"{', '.join(MODELS)}."
    )


# ------------------------------------------------------------------ images
def _binary_images(path: Path) -> Iterator[ColmapImage]:
    with mapped(path) as data:
        count, at = _count(path, data, _IMAGE.size + 9), 8
        for i in range(count):
            end = data.find(b"\0", at + _IMAGE.size, at + _IMAGE.size + _LONGEST_NAME)
            if end < 0 or end + 9 > len(data):
                raise _cut_off(path, "images", count, i)
            _, *pose, camera = _IMAGE.unpack_from(data, at)
            name = _text(data[at + _IMAGE.size : end])
            (observations,) = _COUNT.unpack_from(data, end + 1)
            at = end + 9 + _OBSERVATION * observations
            if at > len(data):
                raise _cut_off(path, "images", count, i)
            yield ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:]))


def _text_images(path: Path) -> Iterator[ColmapImage]:
    """Two lines an image, of which the second (observations) may be empty or missing."""
    observations = False  # whether the line before was that of an image
    for number, line in lines_of(path):
        words = line.split(maxsplit=9)
        if observations and not _describes_image(words):
            observations = False
            continue
        if not words:
            continue
        try:
            pose = tuple(float(word) for word in words[1:8])
            yield ColmapImage(words[9].strip(), int(words[8]), pose[:4], pose[4:])
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{path}: line {number}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, "
                f"found {line.strip()[:60]!r}."
            ) from error
        observations = True


def _describes_image(words: list[str]) -> bool:
    """Whether a line ends in a name; one of observations has numbers only."""
    if len(words) < 10:
        return False
    try:
        float(words[9].split(maxsplit=1)[0])
    except ValueError:
        return True
    return False


# ------------------------------------------------------------------ files
@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """The bytes of a file, read only where they are touched.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:  # cannot be mapped
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, without comments.

    Raises:
        UserError: it cannot be opened, or is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if "\0" in line or len(line) == _LONGEST_LINE:
                    raise UserError(
                        f"{path}: line {number}: expected text, found binary data; copy the file "
                        "again or call it .bin."
                    )
                if not line.startswith("#"):
                    yield number, line
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _count(path: Path, data: mmap.mmap | bytes, least: int) -> int:
    """The number at the start of a binary file, if so many entries of ``least`` bytes fit."""
    if len(data) < 8:
        raise UserError(f"{path}: expected a count of 8 bytes, found {len(data)} bytes.")
    (count,) = _COUNT.unpack_from(data)
    if count * least > len(data):
        raise _cut_off(path, path.stem, count, (len(data) - 8) // least)
    return count


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # old Windows builds wrote names in the local code page


def _cut_off(path: Path, what: str, expected: int, found: int) -> UserError:
    return UserError(
        f"{path}: the header announces {expected:,} {what}, found at most {found:,}; the file is "
        "cut off or no COLMAP model: copy it again."
    )
