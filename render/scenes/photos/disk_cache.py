"""Pictures that took long to make, kept in the user's cache folder.

A cache is never needed: where it cannot be read or written the caller makes the picture again.
Files are PNG; the oldest go when a folder exceeds ``LIMIT``.
"""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from render.files import atomic_write
from render.kbuffer.build import cache_folder

log = logging.getLogger(__name__)

LIMIT = 4 << 30  # bytes per kind of picture
_LEAVE_FREE = 1 << 30  # bytes on the disk that the cache never takes

_lock = threading.Lock()
_held: dict[Path, int] = {}  # bytes in each folder, counted at the first write and kept up


def folder(kind: str) -> Path | None:
    """Where pictures of this kind are kept; None where there is no home."""
    root = cache_folder()
    return None if root is None else root / kind


def read_picture(kind: str, key: str) -> np.ndarray | None:
    """uint8 [H, W, 4], or None where nothing usable is kept under ``key``."""
    place = folder(kind)
    if place is None:
        return None
    path = place / f"{key}.png"
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGBA"))
        path.touch()  # recently used ones stay longest
        return pixels
    except FileNotFoundError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        log.debug("cached %s is unusable: %s", path, error)
        return None


def write_picture(kind: str, key: str, pixels: np.ndarray) -> None:
    """Keep uint8 [H, W, 4] under ``key``; gives up quietly on a full or read-only disk."""
    place = folder(kind)
    if place is None:
        return
    opaque = bool((pixels[..., 3] == 255).all())
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]) if opaque else pixels)
    path = place / f"{key}.png"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(place).free < _LEAVE_FREE:
            log.debug("cache %s: the disk is nearly full", place)
            return
        # A lost file costs a second, not an hour: not worth waiting for the disk.
        atomic_write(path, lambda to: image.save(to, "PNG", compress_level=1), sync=False)
        _make_room(place, path.stat().st_size)
    except (OSError, ValueError) as error:
        log.debug("cache %s is not usable: %s", place, error)


def _make_room(place: Path, added: int) -> None:
    """Remove the least recently used files once they exceed ``LIMIT``."""
    with _lock:
        _held[place] = _held[place] + added if place in _held else _size(place)
        if _held[place] <= LIMIT:
            return
        files = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in place.glob("*.png"))
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= LIMIT * 3 // 4:
                break
            file.unlink(missing_ok=True)
            total -= size
        _held[place] = total


def _size(place: Path) -> int:
    return sum(file.stat().st_size for file in place.glob("*.png"))
