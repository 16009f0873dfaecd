"""Masks in files of their own: of the object (they become alpha), and of pixels to ignore."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from render.errors import UserError
from render.scenes.photos.images import ImageHeader, decode, decode_mask, read_header
from render.scenes.photos.lens import undistorted_mask
from render.scenes.photos.lens_models import Lens


def decode_masked(path: Path, mask: Path, width: int, height: int) -> Tensor:
    """A photograph, shrunk to ``width`` x ``height``, with the mask (white = object) as alpha.

    Of a coloured mask the first channel counts; one of 0 and 1 is meant as 0 and 255.

    Returns:
        uint8 [H, W, 4], straight colour.

    Raises:
        UserError: one of the files cannot be decoded.
    """
    pixels = decode(path, width, height)
    inside = decode(mask, width, height).float() / 255  # [H, W, 4]
    object_ = inside[..., 0] * inside[..., 3]
    if 0 < object_.max() <= 1 / 255:
        object_ = object_ * 255
    pixels[..., 3] = (pixels[..., 3] * object_ + 0.5).to(torch.uint8)
    return pixels


def check_mask(path: Path, mask: Path) -> None:
    """Refuse a mask of another shape than its photograph.

    Raises:
        UserError: names both files.
    """
    image, found = read_header(path), read_header(mask)
    difference = abs(image.width * found.height - image.height * found.width)
    if difference > max(image.width, image.height) + 0.01 * image.width * found.height:
        raise UserError(
            f"{mask}: expected a mask of the shape of {path.name}, {image.width}x{image.height}, "
            f"found {found.width}x{found.height}; make the masks for these images again."
        )


def ignored_pixels(
    mask: Path, K: Tensor, header: ImageHeader, lens: Lens | None, size: tuple[int, int]
) -> Callable[[], Tensor]:
    """A function that decodes a mask (black = ignore) to bool [H, W], True = ignore.

    Args:
        mask: of the photograph as it is on disk, before its lens is undone.
        K: [3, 3] intrinsics of the photograph in pixels of its file.
        header: of the photograph.
        lens: its distortion, or None.
        size: width and height of the result.

    Raises:
        UserError: from the function returned: no image, another shape, or nothing would be left.
    """
    if lens is None:
        return partial(decode_mask, mask, *size)
    return partial(_undistorted, undistorted_mask(mask, K, header, lens, size), mask, size)


def _undistorted(load: Callable[[], Tensor], mask: Path, size: tuple[int, int]) -> Tensor:
    decode_mask(mask, *size)  # refuses what is no mask
    share = load()
    ignored = share < 0.5 * share.max()  # masks of 0 and 1 are meant as 0 and 255
    if not share.any():
        raise UserError(
            f"{mask}: this mask leaves nothing of its image after its lens is undone; remove it."
        )
    return ignored
