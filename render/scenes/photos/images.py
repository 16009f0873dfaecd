"""Photographs from disk: header checks, decoding to RGBA, masks, shrinking, work in parallel.

Everything becomes uint8 [H, W, 4] with straight (not premultiplied) colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from render.errors import UserError
from render.memory import NotEnoughMemoryError, size_text
from render.scenes.photos.imagecache import CACHE, MOST_AHEAD, decoding_threads
from render.scenes.photos.imagefile import (
    LOSSY,
    brightness,
    opened,
    orientation,
    stored_size,
    to_rgba,
    unreadable,
)
from render.scenes.photos.resize import all_over, shrink
from render.scenes.types import View

T = TypeVar("T")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif")
MASK_FOLDERS = ("masks", "mask")

# The last bytes of a complete file. A file without them is decoded at once to see if it is whole.
_END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
_TAIL = 4096
_AT_LEAST = MOST_AHEAD + 4  # images that must fit: those decoded ahead, and those in use


@dataclass(frozen=True)
class ImageHeader:
    """What a file's first bytes say: size in pixels and whether it carries transparency."""

    width: int
    height: int
    has_alpha: bool
    orientation: int = 1  # EXIF: 1 = as stored; the pixels are never turned


def read_header(path: Path) -> ImageHeader:
    """Size and transparency of an image file, without decoding it; remembered.

    Raises:
        UserError: the file is no image, or ends too early.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return _read_header(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 16)
def _read_header(path: Path, *stamp: int) -> ImageHeader:
    with opened(path) as image:
        mark = _END_MARKS.get(image.format or "")
        # Not a mode such as "RGBX": only modes with a transparency channel have "A" or "a".
        alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        header = ImageHeader(*stored_size(image), alpha, orientation(image))
    if mark is not None and mark not in _tail(path):
        decode(path)
    return header


def decode(path: Path, width: int | None = None, height: int | None = None) -> Tensor:
    """Decode an image, shrunk to ``width`` x ``height`` if given.

    Returns:
        uint8 [H, W, 4], straight colour. Grey, palette, 16-bit and CMYK files are converted; a
        file without transparency gets alpha 255. Pixels lie as they are stored, whatever the
        EXIF orientation.

    Raises:
        UserError: the file cannot be decoded (truncated, damaged, no image).
    """
    with opened(path) as image:
        pixels = to_rgba(image)
    if width is not None and height is not None and pixels.shape[:2] != (height, width):
        pixels = shrink(pixels, width, height)
    return torch.from_numpy(pixels)


def decode_mask(path: Path, width: int, height: int) -> Tensor:
    """Which pixels say nothing, by a mask file in which they are black.

    Of files without losses every value above 0 counts, as COLMAP and nerfstudio have it; JPEG
    blurs its black, there half of white is the limit. A mask of another size of the same shape is
    scaled; a pixel that covers any ignored one is ignored.

    Returns:
        bool [height, width], True = ignore.

    Raises:
        UserError: no image, another shape, or nothing would be left.
    """
    with opened(path) as image:
        limit = 127 if image.format in LOSSY else 0
        counts = brightness(image) > limit  # [H, W]
    rows, columns = counts.shape
    if abs(columns * height - rows * width) > max(columns, rows) + 0.01 * rows * width:
        raise UserError(
            f"{path}: expected a mask of the shape of its image, {width}x{height}, found "
            f"{columns}x{rows}; make the masks for these images again."
        )
    if counts.shape != (height, width):
        counts = all_over(all_over(counts, height, axis=0), width, axis=1)
    if not counts.any():
        raise UserError(
            f"{path}: this mask leaves nothing of its image; black means ignored: invert or "
            "remove it."
        )
    return torch.from_numpy(~counts)


def find_mask(image: Path, names: Sequence[str] = MASK_FOLDERS) -> Path | None:
    """The mask file of an image, in a folder called one of ``names``; None: there is none.

    For ``scene/images/left/a.jpg`` it looks for ``a.jpg.png`` (COLMAP) and ``a.png`` (or another
    suffix) in ``scene/masks/left``, ``scene/masks``, and ``masks`` beside the image.
    """
    for parent in image.parents[:3]:
        inside = image.relative_to(parent).parts
        for name in names:
            folder = (parent / name).joinpath(*inside[1:-1])
            if not folder.is_dir() or folder == image.parent:
                continue
            for file in (f"{image.name}.png", *(f"{image.stem}{s}" for s in IMAGE_SUFFIXES)):
                if (folder / file).is_file():
                    return folder / file
    return None


def coarse(view: View, side: int = 400) -> Tensor:
    """A view's pixels [h, w, 4] for colours: smaller where that saves time, and not kept then.

    JPEG files are decoded at a half, a quarter or an eighth, never below ``side`` pixels. The
    same view gives the same pixels, whether or not it is in memory.
    """
    file = _plain_file(view)
    shrink_by = min(view.camera.width, view.camera.height) // side
    if file is None or shrink_by < 2:
        return view.pixels()
    with opened(file) as image:
        if image.format not in ("JPEG", "MPO"):
            return view.pixels()
        image.draft(None, (view.camera.width // shrink_by, view.camera.height // shrink_by))
        return torch.from_numpy(to_rgba(image))


def _plain_file(view: View) -> Path | None:
    """The file that a view's pixels are decoded from, where nothing else is done to them."""
    load = view.load
    return load.args[0] if isinstance(load, partial) and load.func is decode else None


def each(
    views: Sequence[View],
    work: Callable[[View], T],
    *,
    threads: int | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[T]:
    """``work`` on every view in parallel (decoders release the GIL); the results in order.

    Args:
        threads: None = one a processor.
        check: called before every view, in any thread; what it raises ends the work.
        progress: told on this thread how many of how many are done.
    """

    def one(view: View) -> T:
        check()
        return work(view)

    results: list[T] = []
    with ThreadPoolExecutor(threads or decoding_threads(), thread_name_prefix="decode") as pool:
        futures = [pool.submit(one, view) for view in views]
        try:
            for future in futures:
                results.append(future.result())
                progress(len(results), len(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def preload(
    views: Sequence[View],
    threads: int | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Decode the images of ``views`` in parallel, see :func:`each`."""

    def decode_one(view: View) -> None:
        view.pixels()

    each(views, decode_one, threads=threads, check=check, progress=progress)


def decoded_bytes(views: Sequence[View]) -> int:
    """Memory of all images once decoded (uint8 RGBA)."""
    return sum(4 * view.camera.width * view.camera.height for view in views)


def plan_memory(views: Sequence[View], downscale: float, budget: int | None = None) -> list[str]:
    """Decide how many decoded images may be kept, and say what that means for these views.

    Args:
        downscale: that the views have now, for the proposal.
        budget: bytes; None = a share of what is free.

    Returns:
        A sentence where not all of them fit.

    Raises:
        NotEnoughMemoryError: not even a few of them fit.
    """
    needed = decoded_bytes(views)
    budget = CACHE.decide(budget)
    if needed <= budget:
        return []
    largest = max(4 * view.camera.width * view.camera.height for view in views)
    factor = math.ceil(2 * downscale * math.sqrt(needed / budget)) / 2
    at_factor = size_text(needed * (downscale / factor) ** 2)
    proposal = f"at --downscale {factor:g} all of them would take {at_factor}"
    if _AT_LEAST * largest > budget:
        raise NotEnoughMemoryError(
            f"{len(views)} photographs: not enough memory: {_AT_LEAST} of the largest take "
            f"{size_text(_AT_LEAST * largest)}, {size_text(budget)} may be used for them; "
            f"{proposal}; --image-memory sets what may be used."
        )
    return [
        f"The {len(views)} photographs take {size_text(needed)} when decoded; {size_text(budget)} "
        f"of them are kept in memory and the others decoded again whenever they are needed "
        f"({proposal}; --image-memory sets what may be used)."
    ]


def odd_images(views: Sequence[View]) -> list[str]:
    """Sentences about image files that are not what one would think, by their headers."""
    turned = []
    for view in views:
        file = _plain_file(view)
        if file is not None and read_header(file).orientation != 1:
            turned.append(file)
    if not turned:
        return []
    return [
        f"{len(turned)} photographs ask to be shown turned (EXIF orientation, first: "
        f"{turned[0].name}); they are used as stored, which is what camera files refer to."
    ]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()
