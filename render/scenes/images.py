"""Photographs from disk: header checks, decoding to RGBA, shrinking, parallel preloading.

Everything becomes uint8 [H, W, 4] with straight (not premultiplied) colour. Shrinking averages
areas of *premultiplied* colour, so that colours behind transparent pixels never bleed in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from render.errors import UserError
from render.scenes.types import View

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

# The last bytes of a complete file. A file without them is decoded at once to see if it is whole.
_END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
_TAIL = 4096


@dataclass(frozen=True)
class ImageHeader:
    """What a file's first bytes say: size in pixels and whether it carries transparency."""

    width: int
    height: int
    has_alpha: bool


def read_header(path: Path) -> ImageHeader:
    """Size and transparency of an image file, without decoding it.

    Raises:
        UserError: the file is no image, or ends too early.
    """
    try:
        with Image.open(path) as image:
            mark = _END_MARKS.get(image.format or "")
            # Not a mode such as "RGBX": only modes with a transparency channel have "A" or "a".
            alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            header = ImageHeader(image.width, image.height, alpha)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if mark is not None and mark not in _tail(path):
        decode(path)
    return header


def decode(path: Path, width: int | None = None, height: int | None = None) -> Tensor:
    """Decode an image, shrunk to ``width`` x ``height`` if given.

    Returns:
        uint8 [H, W, 4], straight colour. Grey, palette, 16-bit and CMYK files are converted; a
        file without transparency gets alpha 255.

    Raises:
        UserError: the file cannot be decoded (truncated, damaged, no image).
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # Pillow warns about palettes with odd transparency
            pixels = _to_rgba(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if width is not None and height is not None and pixels.shape[:2] != (height, width):
        pixels = shrink(pixels, width, height)
    return torch.from_numpy(pixels)


def shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area average of straight RGBA uint8 [H, W, 4] to [height, width, 4], alpha-weighted."""
    source_height, source_width = pixels.shape[:2]
    if source_height % height == 0 and source_width % width == 0:
        premultiplied = _block_means(pixels, source_height // height, source_width // width)
    else:
        channels = pixels.astype(np.float64)
        channels[..., :3] *= channels[..., 3:] / 255
        premultiplied = _area_means(_area_means(channels, height, axis=0), width, axis=1)
    alpha = premultiplied[..., 3:]
    straight = premultiplied[..., :3] * (255 / np.maximum(alpha, 1e-6))
    out = np.concatenate([np.where(alpha > 0, straight, 0), alpha], -1)
    return (out.clip(0, 255) + 0.5).astype(np.uint8)


def preload(
    views: Sequence[View], threads: int = 2, check: Callable[[], None] = lambda: None
) -> None:
    """Decode the images of ``views`` in parallel (the decoders release the GIL).

    ``check`` is called before every image, in any thread; what it raises ends the work.
    """

    def decode_one(view: View) -> None:
        check()
        view.pixels()

    if threads <= 1:
        for view in views:
            decode_one(view)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for future in [pool.submit(decode_one, view) for view in views]:
            future.result()


def decoded_bytes(views: Sequence[View]) -> int:
    """Memory of all images once decoded (uint8 RGBA)."""
    return sum(4 * view.camera.width * view.camera.height for view in views)


def _block_means(pixels: np.ndarray, fy: int, fx: int) -> np.ndarray:
    """Means over fy x fx blocks of premultiplied colour, float32 [H / fy, W / fx, 4] in 0..255."""
    height, width = pixels.shape[:2]
    wide = pixels.astype(np.uint16)
    wide[..., :3] *= wide[..., 3:]  # at most 255 * 255: fits
    rows = wide.reshape(height // fy, fy, width, 4).sum(1, dtype=np.uint32)
    sums = rows.reshape(height // fy, width // fx, fx, 4).sum(2, dtype=np.uint64)
    means = sums.astype(np.float32) / (fy * fx)
    means[..., :3] /= 255
    return means


def _area_means(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Means over ``count`` equal intervals along an axis, cutting through pixels where needed."""
    values = np.moveaxis(values, axis, 0)
    size = len(values)
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, 0)])  # [size + 1, ...]
    edges = np.arange(count + 1) * (size / count)
    whole = np.minimum(edges.astype(int), size - 1)
    part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    at_edges = total[whole] + part * values[whole]
    return np.moveaxis(np.diff(at_edges, axis=0) * (count / size), 0, axis)


def _to_rgba(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # one channel of 16 or 32 bit
        values = np.asarray(image, dtype=np.float32)
        top = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        grey = (values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8)
        return np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
    # np.array copies: the memory of Pillow's own buffer is read-only.
    return np.array(image.convert("RGBA"))


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def _unreadable(path: Path, error: Exception) -> UserError:
    if not path.exists():
        return UserError(f"{path}: the image does not exist.")
    size = path.stat().st_size
    found = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
    return UserError(
        f"{path}: cannot be decoded as an image ({found}; the file has {size:,} bytes); "
        "copy it again or remove it from the scene."
    )
