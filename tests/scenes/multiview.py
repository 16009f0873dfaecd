"""Scenes in the layouts of DTU, H3DS and ScanNet, written on the fly from a rendered sphere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from tests.scenes.synthetic import cameras_around, render_sphere

SIZE = 32


def camera_ring(count: int) -> tuple[list[Camera], list[Tensor]]:
    """Cameras around the unit sphere, and what they see of a ball in it, uint8 [H, W, 4]."""
    cameras = cameras_around(count, SIZE)
    return cameras, [render_sphere(camera) for camera in cameras]


def save_rgb(image: Tensor, path: Path, size: tuple[int, int] | None = None) -> None:
    """The colours of an image without its alpha."""
    picture = Image.fromarray(np.asarray(image)).convert("RGB")
    (picture if size is None else picture.resize(size)).save(path)


def save_mask(image: Tensor, path: Path) -> None:
    """The alpha of an image as an RGB file."""
    alpha = np.asarray(image)[..., 3]
    Image.fromarray(np.stack([alpha] * 3, -1)).save(path)


def scale_matrix(radius: float, center: Sequence[float]) -> np.ndarray:
    """[4, 4] from the unit sphere to a sphere in the world."""
    out = np.diag([radius, radius, radius, 1.0])
    out[:3, 3] = center
    return out


def world_matrix(camera: Camera, scale: np.ndarray) -> np.ndarray:
    """K [R | t] [4, 4] of a camera that stands in the unit sphere."""
    out = np.eye(4)
    out[:3, :4] = camera.K.numpy() @ camera.world_to_camera.numpy()[:3]
    return out @ np.linalg.inv(scale)


def write_npz_scene(
    folder: Path,
    cameras: Sequence[Camera],
    images: Sequence[Tensor],
    scale: np.ndarray,
    names: Callable[[int], tuple[str, str]] = lambda i: (f"{i:06}.png", f"{i:03}.png"),
    file: str = "cameras_sphere.npz",
) -> Path:
    """A scene as IDR and NeuS keep them; ``names`` gives image and mask."""
    (folder / "image").mkdir(parents=True)
    (folder / "mask").mkdir()
    arrays: dict[str, np.ndarray] = {}
    for i, (camera, image) in enumerate(zip(cameras, images, strict=True)):
        name, mask = names(i)
        save_rgb(image, folder / "image" / name)
        save_mask(image, folder / "mask" / mask)
        arrays[f"world_mat_{i}"] = world_matrix(camera, scale).astype(np.float32)
        arrays[f"scale_mat_{i}"] = scale.astype(np.float32)
    np.savez(folder / file, **arrays)  # pyright: ignore[reportArgumentType]
    return folder


def write_cams(folder: Path, cameras: Sequence[Camera], scale: np.ndarray) -> None:
    """The same cameras as MVSNet's text files, in the world of ``scale``."""
    (folder / "cams_1").mkdir()
    radius = scale[0, 0]
    for i, camera in enumerate(cameras):
        pose = camera.world_to_camera.numpy() @ np.linalg.inv(scale)
        pose[:3] *= radius  # rigid again
        rows = [" ".join(f"{value:.9g}" for value in row) for row in pose]
        K = [" ".join(f"{value:.9g}" for value in row) for row in camera.K.numpy()]
        text = "\n".join(["extrinsic", *rows, "", "intrinsic", *K, "", "425.0 935.0", ""])
        (folder / "cams_1" / f"{i:08}_cam.txt").write_text(text)


def sentence(read: Callable[[], object]) -> str:
    """The one sentence with which reading ends."""
    with pytest.raises(UserError) as caught:
        read()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 900
    return text
