"""Camera path files: nerfstudio's ``camera_path.json`` and our own plain list of cameras."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from render.camera import Camera, intrinsics
from render.errors import UserError
from render.files import atomic_text, small_text

MAX_FRAMES = 100_000
MAX_SIDE = 16_384  # pixels


@dataclass(frozen=True)
class CameraPath:
    """Cameras of one size, and how many a second."""

    cameras: list[Camera]
    fps: float = 24.0


def save_camera_path(path: Path, value: CameraPath) -> None:
    """Write our own form: ``{"fps": ..., "cameras": [Camera.to_json(), ...]}``."""
    cameras = [camera.to_json() for camera in value.cameras]
    atomic_text(path, json.dumps({"fps": value.fps, "cameras": cameras}) + "\n")


def load_camera_path(path: Path) -> CameraPath:
    """Read either form.

    nerfstudio's: ``camera_path`` is a list of ``camera_to_world`` (16 numbers, row by row, OpenGL
    axes) with a vertical ``fov`` in degrees; ``render_width``, ``render_height`` in pixels.

    Raises:
        UserError: not such a file; names what was expected.
    """
    try:
        data = json.loads(small_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a camera path as JSON, got: {error}.") from error
    try:
        if not isinstance(data, dict):
            raise TypeError(f"the file holds a {type(data).__name__}, not an object")
        own = "cameras" in data
        entries = data["cameras"] if own else data["camera_path"]
        if not 1 <= len(entries) <= MAX_FRAMES:
            raise ValueError(f"{len(entries)} cameras")
        cameras = [_camera(number, entry, data, own) for number, entry in enumerate(entries)]
        fps = float(data.get("fps", 24.0))
        _check(cameras, fps)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f'{path}: expected a camera path with "cameras" (ours) or "camera_path" '
            f"(nerfstudio's), found: {what}."
        ) from error
    return CameraPath(cameras, fps)


def _camera(number: int, entry: dict[str, Any], data: dict[str, Any], own: bool) -> Camera:
    try:
        return Camera.from_json(entry) if own else _nerfstudio(entry, data)
    except KeyError as error:
        raise ValueError(f"camera {number} without {error}") from error
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"camera {number} that cannot be used ({error})") from error


def _nerfstudio(entry: dict[str, Any], data: dict[str, Any]) -> Camera:
    kind = data.get("camera_type", "perspective")
    if kind != "perspective":
        raise ValueError(f"camera_type {kind} is not supported, only perspective")
    width, height = int(data["render_width"]), int(data["render_height"])
    pose = torch.tensor(entry["camera_to_world"], dtype=torch.float64).reshape(4, 4)
    fov = float(entry["fov"])
    if not 0 < fov < 180:
        raise ValueError(f"fov {fov:g} is not between 0 and 180 degrees")
    rotation = pose[:3, :3]
    if not torch.allclose(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-3):
        raise ValueError("camera_to_world is no rotation and translation")
    if torch.linalg.det(rotation) < 0:
        raise ValueError("camera_to_world mirrors the scene")
    focal = 0.5 * height / math.tan(0.5 * math.radians(fov))
    K = intrinsics((focal, focal), (width / 2, height / 2))
    return Camera.from_opengl(pose, K, width, height)


def _check(cameras: list[Camera], fps: float) -> None:
    first = cameras[0]
    if not 1 <= fps <= 240:
        raise ValueError(f"fps {fps:g}")
    for number, camera in enumerate(cameras):
        if (camera.width, camera.height) != (first.width, first.height):
            raise ValueError(f"camera {number} has another size than the first")
        if max(camera.width, camera.height) > MAX_SIDE:
            raise ValueError(f"{camera.width}x{camera.height} pixels")
        if not (camera.world_to_camera.isfinite().all() and camera.K.isfinite().all()):
            raise ValueError(f"camera {number} is not finite")
