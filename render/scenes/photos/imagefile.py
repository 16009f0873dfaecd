"""Image files of all kinds, opened with care: what is refused, and what becomes uint8 RGBA.

Pixels are taken as they are stored. An EXIF orientation turns nothing: cameras that come with
photographs (COLMAP's and those made from them) are measured on the stored pixels.
"""

from __future__ import annotations

import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from render.errors import UserError
from render.memory import check_room, size_text

# What may be opened. Pillow knows more, some of which start other programs.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "JPEG2000", "PPM", "TGA")
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")

_ORIENTATION = 0x0112  # EXIF and TIFF tag; 1 = as stored
_BITS, _PLANES = 0x0102, 0x011C  # TIFF tags
_DECODING = 12  # bytes a pixel, while Pillow's pixels, converted ones and ours are there
_MANY = 50_000_000  # pixels; a larger picture
_DENSEST = 200  # with more pixels a byte is a trap: no photograph is packed so well
_REMEDY = "use a smaller image or take it out of the scene"


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file, header read; errors inside the block too become sentences.

    Raises:
        UserError: no regular file, no image, damaged, or more pixels than anyone photographs.
        NotEnoughMemoryError: decoding it would not fit.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise UserError(f"{path}: expected an image file, found a folder or a device.")
        with warnings.catch_warnings():
            # Odd palettes, large sizes and broken metadata: what matters is said here.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_formats()) as image:
                _check(path, image)
                yield image
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(
            f"{path}: decoding it takes more memory than there is; {_REMEDY}."
        ) from error
    except Exception as error:  # damaged files fail in every way that a decoder has
        raise unreadable(path, error) from error


def _check(path: Path, image: Image.Image) -> None:
    """Refuse what would only be decoded to no avail."""
    width, height = image.size
    pixels, size = width * height, path.stat().st_size
    if pixels > _MANY and pixels > _DENSEST * size:
        raise UserError(
            f"{path}: expected a photograph, found {width}x{height} pixels in {size:,} bytes, "
            f"which would take {size_text(4 * pixels)}; {_REMEDY}."
        )
    check_room(f"{path}, {width}x{height} pixels", _DECODING * pixels, _REMEDY)
    if image.format == "TIFF":
        tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        bits = tags.get(_BITS, 1)
        if tags.get(_PLANES, 1) != 1 and max(bits if isinstance(bits, tuple) else (bits,)) > 8:
            raise UserError(
                f"{path}: expected a TIFF whose pixels have their colours side by side, found "
                "planes of 16 bits, which are not read; convert it to PNG."
            )


@cache
def _formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8 that an opened file asks for, without decoding it."""
    try:
        if image.format == "TIFF":
            found = image.tag_v2.get(_ORIENTATION, 1)  # pyright: ignore[reportAttributeAccessIssue]
        elif "exif" in image.info:
            found = image.getexif().get(_ORIENTATION, 1)
        else:
            return 1
    except Exception:  # broken metadata turns nothing
        return 1
    return found if found in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as stored; Pillow gives those of a TIFF as turned."""
    turned = image.format == "TIFF" and orientation(image) > 4
    return (image.height, image.width) if turned else image.size


def to_rgba(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 4] as stored. Deep channels are scaled to 8 bits, not clipped."""
    turn = orientation(image) if image.format == "TIFF" else 1  # Pillow turns these on loading
    if image.mode.startswith("I") or image.mode == "F":  # one channel of 16 or 32 bits
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        top = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        grey = (values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8)
        pixels = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
    else:
        if image.mode == "RGB" and "transparency" not in image.info:
            image.putalpha(255)  # in place
        # np.array copies: the memory of Pillow's own buffer is read-only.
        pixels = np.array(image.convert("RGBA") if image.mode != "RGBA" else image)
    return pixels if turn == 1 else np.ascontiguousarray(_turned_back(pixels, turn))


def brightness(image: Image.Image) -> np.ndarray:
    """[H, W] as stored, 0 = black or transparent; palettes count by their colours."""
    if image.mode in ("1", "L") or image.mode.startswith("I") or image.mode == "F":
        turn = orientation(image) if image.format == "TIFF" else 1
        return _turned_back(np.asarray(image), turn)
    pixels = to_rgba(image)
    return np.where(pixels[..., 3] > 0, pixels[..., :3].max(-1), 0)


def unreadable(path: Path, error: Exception) -> UserError:
    """The sentence about a file that cannot be opened or decoded."""
    if isinstance(error, OSError) and not path.exists():
        link = "is a link that leads nowhere or in a circle" if path.is_symlink() else ""
        return UserError(f"{path}: the image {link or 'does not exist'}.")
    size = path.stat().st_size
    if size == 0:
        return UserError(f"{path}: expected an image, found an empty file; copy it again.")
    if isinstance(error, Image.DecompressionBombError):
        announced = re.search(r"\d+", str(error))
        number = f"{int(announced[0]):,}" if announced else "more"
        return UserError(
            f"{path}: expected an image of at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, "
            f"found a header that announces {number} in a file of {size:,} bytes; {_REMEDY}."
        )
    if isinstance(error, UnidentifiedImageError):
        return UserError(
            f"{path}: cannot be decoded as an image ({_kind(path)}; the file has {size:,} bytes); "
            "convert it to PNG or JPEG, copy it again or remove it from the scene."
        )
    return UserError(
        f"{path}: cannot be decoded as an image ({error or type(error).__name__}; the file has "
        f"{size:,} bytes); copy it again or remove it from the scene."
    )


def _turned_back(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Undoes an EXIF orientation that was applied to [H, W, C]."""
    if turn in (6, 8):
        return np.rot90(pixels, 1 if turn == 6 else -1)
    if turn in (2, 3, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7):
        pixels = pixels[::-1]
    return pixels.swapaxes(0, 1) if turn in (5, 7) else pixels


def _kind(path: Path) -> str:
    """What a file is that is opened as an image and is none that can be read."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return "HEIC, which is not read"
        if brand in (b"avif", b"avis"):
            known = "AVIF" in Image.OPEN
            return "a damaged AVIF" if known else "AVIF, which needs Pillow 11.3 or newer"
    if head.startswith(b"\x76\x2f\x31\x01"):
        return "OpenEXR, which is not read"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "a TIFF of a kind that is not read, such as colours in floating point"
    return "not an image"
