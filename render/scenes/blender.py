"""NeRF-Synthetic / Blender scenes: ``transforms_{train,val,test}.json`` or one ``transforms.json``.

Poses are camera-to-world with OpenGL axes. Intrinsics come from ``camera_angle_x`` or from
``fl_x`` and its companions, for the whole file or per frame (a frame's own values win).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from render.camera import Camera, intrinsics
from render.errors import UserError
from render.scenes.images import IMAGE_SUFFIXES, ImageHeader, decode, read_header
from render.scenes.readers import Photos, scaled_size
from render.scenes.types import SplitName, View

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")


@dataclass
class _Frames:
    """The usable frames of one json and what had to be left out."""

    views: list[View] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    bad_poses: int = 0
    rescaled_poses: int = 0
    resized: int = 0
    distorted: bool = False


def is_blender(path: Path) -> bool:
    """Whether ``path`` is such a folder or such a json file."""
    if path.is_file():
        return path.suffix == ".json"
    return any((path / name).is_file() for name in ("transforms_train.json", "transforms.json"))


def read_blender(path: Path, downscale: float = 1.0) -> Photos:
    """Read a folder, its ``transforms_*.json``, or a single ``transforms.json``.

    Raises:
        UserError: broken json, no usable frame, or images that do not fit their cameras.
    """
    folder = path.parent if path.is_file() else path
    notes: list[str] = []
    files: list[tuple[SplitName, Path]]
    if (folder / "transforms_train.json").is_file() and _names_a_split(path):
        files = [(split, folder / f"transforms_{split}.json") for split in SPLITS]
        files = [(split, file) for split, file in files if file.is_file()]
    else:
        files = [("train", path if path.is_file() else folder / "transforms.json")]
    views: list[View] = []
    splits: dict[SplitName, list[int]] = {}
    cloud = None
    for split, file in files:
        data = _load_json(file)
        frames = _read_frames(file, data, downscale)
        _check(file, frames, required=split == "train", notes=notes)
        cloud = cloud or _named_cloud(folder, data)
        if frames.views:
            splits[split] = list(range(len(views), len(views) + len(frames.views)))
            views += frames.views
    _drop_shared_images(views, splits, notes)
    return Photos(folder, views, splits, cloud, notes)


def _names_a_split(path: Path) -> bool:
    return path.is_dir() or path.name in {f"transforms_{split}.json" for split in SPLITS}


def _load_json(path: Path) -> dict[str, Any]:
    try:
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
    except RecursionError as error:
        raise UserError(f'{path}: expected a list "frames", found endless nesting.') from error
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        found = "no such list" if not isinstance(frames, list) else "an empty list"
        raise UserError(
            f'{path}: expected a list "frames" with at least one camera, found {found}.'
        )
    return data


def _read_frames(file: Path, data: dict[str, Any], downscale: float) -> _Frames:
    out = _Frames()
    without_size: dict[tuple[int, int], Path] = {}  # image size -> first image, where json has none
    for number, frame in enumerate(data["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UserError(
                f'{file}: frame {number} has no "file_path"; expected the name of its image.'
            )
        pose = _pose(frame.get("transform_matrix"))
        if pose is None:
            out.bad_poses += 1
            continue
        image = _find_image(file.parent, frame["file_path"])
        if image is None:
            out.missing.append(frame["file_path"])
            continue
        pose, rescaled = _without_scale(pose)
        out.rescaled_poses += rescaled
        values = _numbers(file, number, {**data, **frame})
        out.distorted |= any(values.get(key, 0.0) for key in _DISTORTION)
        header = read_header(image)
        if "fl_x" in values and "w" not in values and "camera_angle_x" not in values:
            without_size.setdefault((header.width, header.height), image)
            if len(without_size) > 1:
                (first, a), (second, b) = list(without_size.items())[:2]
                raise UserError(
                    f"{b}: the image is {second[0]}x{second[1]} but {a} is {first[0]}x{first[1]}, "
                    f'and {file} gives one focal length "fl_x" without "w" and "h"; make the '
                    "images equal in size or give each frame its own intrinsics."
                )
        K, resized = _intrinsics(file, image, values, header)
        out.resized += resized
        camera = Camera.from_opengl(pose, K, header.width, header.height)
        size = scaled_size(header.width, header.height, downscale)
        out.views.append(
            View(
                camera.resize(*size) if downscale != 1 else camera,
                partial(decode, image, *size),
                _view_name(frame["file_path"]),
                image,
                header.has_alpha,
            )
        )
    return out


def _check(file: Path, frames: _Frames, required: bool, notes: list[str]) -> None:
    """Turn what was left out into notes, or into an error when nothing remains."""
    total = len(frames.views) + len(frames.missing) + frames.bad_poses
    if not frames.views:
        if frames.missing:
            problem = (
                f"{file}: none of the images of its {total} frames exists; "
                f"the first one missing is {file.parent / frames.missing[0]}"
            )
        else:
            problem = (
                f"{file}: none of its {total} frames has a usable pose; expected "
                '"transform_matrix" as 4x4 finite numbers with a rotation'
            )
        if required:
            raise UserError(f"{problem}; check the paths or copy the files again.")
        notes.append(f"{problem}; this split is treated as absent.")
        return
    if frames.missing:
        notes.append(
            f"{file.name}: {len(frames.missing)} of {total} frames skipped because their images do "
            f"not exist (first: {frames.missing[0]})."
        )
    if frames.bad_poses:
        notes.append(
            f"{file.name}: {frames.bad_poses} of {total} frames dropped because their pose is not "
            "a finite 4x4 rigid transform."
        )
    if frames.rescaled_poses:
        notes.append(
            f"{file.name}: the rotation of {frames.rescaled_poses} poses contained a scale, which "
            "was taken out."
        )
    if frames.resized:
        notes.append(
            f"{file.name}: {frames.resized} images differ in size from what the file says; their "
            "intrinsics were scaled to the images."
        )
    if frames.distorted:
        notes.append(
            f"{file.name}: it describes lens distortion, which is ignored; expect blurred borders."
        )


def _pose(matrix: Any) -> Tensor | None:
    """[4, 4] float64, or None unless it is finite, 4x4 and has a right-handed rotation part."""
    try:
        pose = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return None
    columns = np.linalg.norm(pose[:3, :3], axis=0)
    if columns.min() < 1e-9 or np.linalg.det(pose[:3, :3] / columns) < 0.9:
        return None
    return torch.from_numpy(pose)


def _without_scale(pose: Tensor) -> tuple[Tensor, bool]:
    """The pose with columns of length 1, and whether that changed anything worth telling."""
    lengths = pose[:3, :3].norm(dim=0)
    if bool(((lengths - 1).abs() < 1e-3).all()):
        return pose, False
    pose = pose.clone()
    pose[:3, :3] /= lengths
    return pose, True


def _find_image(folder: Path, name: str) -> Path | None:
    path = folder / name.replace("\\", "/")
    if path.is_file():
        return path
    for suffix in IMAGE_SUFFIXES:
        for candidate in (f"{path}{suffix}", f"{path}{suffix.upper()}"):
            if Path(candidate).is_file():
                return Path(candidate)
    return None


def _view_name(name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    joined = "_".join(parts)
    stem, _, suffix = joined.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in IMAGE_SUFFIXES else joined


def _numbers(file: Path, number: int, values: Mapping[str, Any]) -> dict[str, float]:
    """The numeric camera entries, checked."""
    out: dict[str, float] = {}
    for key in (*_INTRINSICS, *_DISTORTION):
        value = values.get(key)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(
                f'{file}: frame {number}: expected a finite number for "{key}", found {value!r}.'
            )
        out[key] = float(value)
    for key in ("fl_x", "fl_y", "w", "h", "camera_angle_x", "camera_angle_y"):
        limit = math.pi if key.startswith("camera_angle") else math.inf
        if key in out and not 0 < out[key] < limit:
            unit = "an angle between 0 and pi" if limit < math.inf else "a positive number"
            raise UserError(
                f'{file}: frame {number}: expected {unit} for "{key}", found {out[key]:g}.'
            )
    return out


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


def _named_cloud(folder: Path, data: Mapping[str, Any]) -> Path | None:
    """The point cloud that nerfstudio's ``ply_file_path`` names, if it is there."""
    name = data.get("ply_file_path")
    if isinstance(name, str) and (folder / name).is_file():
        return folder / name
    return None


def _drop_shared_images(
    views: list[View], splits: dict[SplitName, list[int]], notes: list[str]
) -> None:
    """Training must not see a test image: take images that are in both out of training."""
    for held in ("test", "val"):
        paths = Counter(views[i].path for i in splits.get(held, []))
        shared = [i for i in splits["train"] if views[i].path in paths]
        if shared and len(shared) < len(splits["train"]):
            splits["train"] = [i for i in splits["train"] if i not in set(shared)]
            notes.append(
                f"{len(shared)} training images are also in the {held} split; "
                "they are not trained on."
            )
