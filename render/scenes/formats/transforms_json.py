"""The cameras of a ``transforms.json``: NeRF-Synthetic, instant-ngp, nerfstudio.

Poses are camera-to-world with OpenGL axes. Intrinsics come from ``camera_angle_x`` or from
``fl_x`` and its companions, distortion from ``k1 ... p2``, for the whole file or per frame (a
frame's own values win).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from render.camera import Camera, intrinsics
from render.errors import UserError
from render.scenes.formats.paths import ImageFinder
from render.scenes.formats.poses import as_pose, without_scale
from render.scenes.formats.readers import scaled_size
from render.scenes.photos.images import IMAGE_SUFFIXES, ImageHeader, decode, read_header
from render.scenes.photos.lens import Lens, Pinhole, pinhole_of, undistorted_view
from render.scenes.photos.masks import ignored_pixels
from render.scenes.types import View

_LARGEST = 24 << 20  # bytes: Python takes up to 30 times as much memory for what they say
_MOST_FRAMES = 50_000
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_POSITIVE = ("fl_x", "fl_y", "w", "h")
_FISHEYE = "OPENCV_FISHEYE"
# nerfstudio treats all pinhole models alike: whatever distortion is given counts.
_MODELS = (
    "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", _FISHEYE
)  # fmt: skip


@dataclass
class Frames:
    """The usable frames of one json and what had to be left out."""

    views: list[View] = field(default_factory=list)
    lenses: list[tuple[Lens, Pinhole]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    missing_masks: list[str] = field(default_factory=list)
    bad_poses: int = 0
    rescaled_poses: int = 0
    resized: int = 0
    masked: int = 0
    depths: int = 0

    @property
    def total(self) -> int:
        """All frames of the file."""
        return len(self.views) + len(self.missing) + self.bad_poses


@dataclass(frozen=True)
class Finders:
    """What finds the files that frames name; shared by the files of one scene."""

    images: ImageFinder
    masks: ImageFinder


def load_json(path: Path) -> dict[str, Any]:
    """A json file with a list "frames".

    Raises:
        UserError: no such file, no json, no frames.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(
                f'{path}: expected json with a list "frames" of at most {_LARGEST >> 20} MB, found '
                f"{size >> 20} MB; write it without indentation or split the scene."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected json in UTF-8, found other bytes at position {error.start}."
        ) from error
    if not text.strip():
        raise UserError(
            f'{path}: the file is empty, expected json with a list "frames"; '
            "write the camera poses again or choose another scene."
        )
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid json ({error.msg}); "
            "mend that line or write the file again."
        ) from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: not valid json ({error}); write the file again.") from error
    except RecursionError as error:
        raise UserError(f'{path}: expected a list "frames", found endless nesting.') from error
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        found = "no such list" if not isinstance(frames, list) else "an empty list"
        raise UserError(
            f'{path}: expected a list "frames" with at least one camera, found {found}.'
        )
    if len(frames) > _MOST_FRAMES:
        raise UserError(
            f"{path}: expected at most {_MOST_FRAMES:,} frames, found {len(frames):,}; split the "
            "scene."
        )
    return data


def read_frames(file: Path, data: dict[str, Any], downscale: float, finders: Finders) -> Frames:
    """All frames of a json file that can be used.

    Raises:
        UserError: entries of the wrong type, a camera model that is none, images that do not fit.
    """
    out = Frames()
    shared = {key: value for key, value in data.items() if key != "frames"}
    without_size: dict[tuple[int, int], Path] = {}  # image size -> first image, where json has none
    for number, frame in enumerate(data["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UserError(
                f'{file}: frame {number} has no "file_path"; expected the name of its image.'
            )
        pose = as_pose(frame.get("transform_matrix"))
        if pose is None:
            out.bad_poses += 1
            continue
        image = finders.images.find(frame["file_path"])
        if image is None:
            out.missing.append(frame["file_path"])
            continue
        pose, rescaled = without_scale(pose)
        out.rescaled_poses += rescaled
        entries = _merged(shared, frame)
        values = _numbers(file, number, entries)
        header = read_header(image)
        if "fl_x" in values and "w" not in values:
            _check_one_size(file, image, header, without_size)
        K, resized = _intrinsics(file, image, values, header)
        out.resized += resized
        lens = _lens(file, number, entries, values)
        mask = _mask(frame, finders.masks, out)
        out.depths += isinstance(frame.get("depth_file_path"), str)
        name = _view_name(frame["file_path"])
        out.views.append(_view(file, image, header, pose, K, lens, mask, downscale, name, out))
    return out


def _view(
    file: Path,
    image: Path,
    header: ImageHeader,
    pose: Tensor,
    K: Tensor,
    lens: Lens | None,
    mask: Path | None,
    downscale: float,
    name: str,
    out: Frames,
) -> View:
    size = scaled_size(header.width, header.height, downscale)
    if lens is None:
        camera = Camera.from_opengl(pose, K, header.width, header.height)
        camera = camera.resize(*size) if downscale != 1 else camera
        load = partial(decode, image, *size)
    else:
        try:
            out.lenses.append((lens, pinhole_of(K, lens, header.width, header.height)))
            flat, load = undistorted_view(image, K, header, lens, size)
        except UserError as error:
            raise UserError(f"{file}: {image.name}: {error}") from error
        camera = Camera.from_opengl(pose, flat, *size)
    ignored = None if mask is None else ignored_pixels(mask, K, header, lens, size)
    return View(camera, load, name, image, header.has_alpha, ignored)


def _merged(shared: Mapping[str, Any], frame: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that count for a frame; its own field of view beats a shared focal length."""
    if "camera_angle_x" in frame and "fl_x" not in frame:
        shared = {key: value for key, value in shared.items() if key not in ("fl_x", "fl_y")}
    return {**shared, **frame}


def _numbers(file: Path, number: int, values: Mapping[str, Any]) -> dict[str, float]:
    """The numeric camera entries, checked."""
    out: dict[str, float] = {}
    for key in (*_INTRINSICS, *_DISTORTION):
        value = values.get(key)
        if value is None:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not abs(value) < 1e9:  # NaN fails too
            raise UserError(
                f'{file}: frame {number}: expected a finite number for "{key}", found '
                f"{str(value)[:40]!r}."
            )
        out[key] = float(value)
    for key in (*_POSITIVE, "camera_angle_x", "camera_angle_y"):
        limit = math.pi if key.startswith("camera_angle") else math.inf
        if key in out and not 0 < out[key] < limit:
            unit = "an angle between 0 and pi" if limit < math.inf else "a positive number"
            raise UserError(
                f'{file}: frame {number}: expected {unit} for "{key}", found {out[key]:g}.'
            )
    return out


def _check_one_size(
    file: Path, image: Path, header: ImageHeader, seen: dict[tuple[int, int], Path]
) -> None:
    """Refuse images of several sizes for one focal length in pixels of an unknown size."""
    seen.setdefault((header.width, header.height), image)
    if len(seen) > 1:
        (first, a), (second, b) = list(seen.items())[:2]
        raise UserError(
            f"{b}: the image is {second[0]}x{second[1]} but {a} is {first[0]}x{first[1]}, "
            f'and {file} gives one focal length "fl_x" without "w" and "h"; make the '
            "images equal in size or give each frame its own intrinsics."
        )


def _intrinsics(
    file: Path, image: Path, values: Mapping[str, float], header: ImageHeader
) -> tuple[Tensor, bool]:
    """K [3, 3] at the image's own size, and whether it had to be scaled to it."""
    width, height = header.width, header.height
    if "fl_x" not in values:
        if "camera_angle_x" not in values:
            raise UserError(
                f'{file}: expected "camera_angle_x" or "fl_x" for the focal length, found neither.'
            )
        fx = 0.5 * width / math.tan(0.5 * values["camera_angle_x"])
        fy = fx
        if "camera_angle_y" in values:
            fy = 0.5 * height / math.tan(0.5 * values["camera_angle_y"])
        return intrinsics((fx, fy), (width / 2, height / 2)), False
    json_width, json_height = values.get("w", width), values.get("h", height)
    scale_x, scale_y = width / json_width, height / json_height
    # Sizes that are rounded (a 2967 high image shrunk to 600) may differ by a pixel.
    if abs(scale_x / scale_y - 1) > 1 / min(width, height) + 0.01:
        raise UserError(
            f"{image}: the image is {width}x{height} but {file} describes "
            f"{json_width:g}x{json_height:g}, which has another shape; "
            "use the images that the file was made for."
        )
    fx = values["fl_x"]
    fy = values.get("fl_y", fx)
    cx, cy = values.get("cx", json_width / 2), values.get("cy", json_height / 2)
    K = intrinsics((fx * scale_x, fy * scale_y), (cx * scale_x, cy * scale_y))
    return K, (scale_x, scale_y) != (1.0, 1.0)


def _lens(
    file: Path, number: int, entries: Mapping[str, Any], values: Mapping[str, float]
) -> Lens | None:
    """The distortion of a frame, or None for a pinhole.

    Raises:
        UserError: another kind of camera, or parameters that are none.
    """
    model = entries.get("camera_model", "OPENCV")
    if not isinstance(model, str) or model.upper() not in _MODELS:
        raise UserError(
            f'{file}: frame {number}: expected one of {", ".join(_MODELS)} for "camera_model", '
            f"found {str(model)[:40]!r}; cut pinhole images out of it, as nerfstudio's "
            "ns-process-data does for 360 degree photographs."
        )
    is_fisheye = model.upper() == _FISHEYE or entries.get("is_fisheye") is True
    distortion = {key: values[key] for key in _DISTORTION if key in values}
    try:
        return Lens.from_opencv(distortion, fisheye=is_fisheye)
    except ValueError as error:
        raise UserError(f"{file}: frame {number}: {error}; check k1 ... p2.") from error


def _mask(frame: Mapping[str, Any], finder: ImageFinder, out: Frames) -> Path | None:
    name = frame.get("mask_path")
    if not isinstance(name, str):
        return None
    mask = finder.find(name)
    if mask is None:
        out.missing_masks.append(name)
    else:
        out.masked += 1
    return mask


def _view_name(name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    joined = "_".join(parts)
    stem, _, suffix = joined.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in IMAGE_SUFFIXES else joined
