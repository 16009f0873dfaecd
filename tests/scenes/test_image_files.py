"""Image files of every kind: depths, colours, turned by EXIF, damaged, hostile; and masks."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.camera import Camera
from render.errors import UserError
from render.memory import NotEnoughMemoryError
from render.scenes.photos import imagefile, images
from render.scenes.photos.imagecache import CACHE
from render.scenes.photos.images import (
    coarse,
    decode,
    decode_mask,
    find_mask,
    odd_images,
    read_header,
)
from render.scenes.types import View

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 1 << 16, (20, 30, 4), dtype=np.uint16)
RAMP = np.stack([np.tile(np.linspace(0, 255, 64), (32, 1))] * 3, -1).astype(np.uint8)


def png(path: Path, width: int, height: int, bits: int, kind: int, rows: bytes) -> Path:
    """A PNG of any depth, which Pillow does not write: 16 bits of 2 (RGB), 4 (LA), 6 (RGBA)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def deep_png(path: Path, values: np.ndarray) -> Path:
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(path, width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows)


def deep_tiff(path: Path, values: np.ndarray, planar: bool = False) -> Path:
    """An uncompressed little-endian TIFF with 16 bits a channel."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 16), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, 1, len(data)), (284, 3, 1, 2 if planar else 1),
    ]  # fmt: skip
    if channels == 4:
        tags.append((338, 3, 1, 2))  # the fourth is straight alpha
    depths = struct.pack("<4H", *[16] * 4)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    head = b"II*\0" + struct.pack("<I", 16 + len(data)) + depths
    path.write_bytes(head + data + directory)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png(tmp_path: Path, channels: int) -> None:
    out = decode(deep_png(tmp_path / "deep.png", DEEP[..., :channels])).numpy().astype(float)
    color = (0, 0, 0) if channels < 3 else (0, 1, 2)
    for i, channel in enumerate(color):
        assert np.abs(out[..., i] - DEEP[..., channel] / 257).max() <= 1
    alpha = 255 if channels in (1, 3) else DEEP[..., channels - 1] / 257
    assert np.abs(out[..., 3] - alpha).max() <= 1


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_tiff(tmp_path: Path, channels: int) -> None:
    path = deep_tiff(tmp_path / "deep.tif", DEEP[..., :channels])
    out = decode(path).numpy().astype(float)
    assert np.abs(out[..., :channels] - DEEP[..., :channels] / 257).max() <= 1
    assert read_header(path).has_alpha == (channels == 4)


def test_deep_planes_are_refused(tmp_path: Path) -> None:
    """Pillow would decode them into noise without a word."""
    with pytest.raises(UserError, match="planes of 16 bits"):
        decode(deep_tiff(tmp_path / "planes.tif", DEEP[..., :3], planar=True))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    """JPEG stores CMYK inverted, as Adobe does."""
    path = tmp_path / f"print.{suffix}"
    Image.fromarray(RAMP).convert("CMYK").save(path, quality=95)
    assert np.abs(decode(path)[..., :3].numpy().astype(int) - RAMP).max() <= 3


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photographs_stay_as_stored(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {"lossless": True}
    Image.fromarray(RGB).save(path, exif=exif, **({} if suffix in ("tif", "png") else options))
    header = read_header(path)
    assert (header.width, header.height, header.orientation) == (30, 20, orientation)
    assert np.abs(decode(path)[..., :3].numpy().astype(int) - RGB).max() <= 3


def view_of(path: Path, ignored: Path | None = None) -> View:
    header = read_header(path)
    size = header.width, header.height
    camera = Camera.look_at((1, 2, 3), (0, 0, 0), width=size[0], height=size[1])
    mask = None if ignored is None else images.partial(decode_mask, ignored, *size)
    return View(camera, images.partial(decode, path, *size), path.stem, path, False, mask)


def test_turned_photographs_are_told_of(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    Image.fromarray(RGB).save(tmp_path / "b.jpg", exif=exif)
    views = [view_of(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert odd_images(views[:1]) == []
    (note,) = odd_images(views)
    assert note.startswith("1 photographs") and "b.jpg" in note and "as stored" in note


def test_a_header_is_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    assert read_header(path).width == 30
    Image.fromarray(RGB[:, :17]).save(path)
    assert read_header(path).width == 17


# ---------------------------------------------------------------------------- what is refused
def test_a_progressive_jpeg_cut_in_half(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).save(path, progressive=True)
    assert decode(path).shape == (32, 64, 4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"a\.jpg.*truncated"):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"", "empty file"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
        ("a.exr", b"\x76\x2f\x31\x01" + bytes(99), "OpenEXR"),
        ("a.tif", b"II*\0\x08\0\0\0" + bytes(99), "TIFF"),
        ("a.jpg", b"what is this", "not an image"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_what_is_no_image(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        read_header(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="a folder or a device"):
        read_header(tmp_path / "folder.png")
    with pytest.raises(UserError, match="does not exist"):
        read_header(tmp_path / "nothing.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes and free links here")
def test_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    for name in ("loop.png", "gone.png"):
        with pytest.raises(UserError, match="leads nowhere or in a circle"):
            read_header(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="a device"):
        decode(tmp_path / "pipe.png")
    Image.fromarray(RGB).save(tmp_path / "real.png")
    (tmp_path / "link.png").symlink_to("real.png")
    assert (decode(tmp_path / "link.png")[..., :3].numpy() == RGB).all()


def test_names_in_any_script(tmp_path: Path) -> None:
    path = tmp_path / "Übung 写真 🦊.png"
    Image.fromarray(RGB).save(path)
    assert (decode(path)[..., :3].numpy() == RGB).all()


@pytest.mark.parametrize("side", [12_000, 50_000, 2**31 - 1])
def test_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    path = png(tmp_path / "bomb.png", side, side, 8, 6, bytes(100_000))
    with pytest.raises(UserError) as raised:
        read_header(path)
    assert any(number in str(raised.value) for number in (f"{side}x{side}", f"{side * side:,}"))


def test_too_little_memory_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (4000, 3000)).save(path)
    monkeypatch.setattr("render.memory.free_bytes", lambda device="cpu": 100_000_000)
    with pytest.raises(NotEnoughMemoryError, match=r"4000x3000 pixels.*144 MB.*100 MB are free"):
        read_header(path)


# ---------------------------------------------------------------------------- coarse pictures
def test_coarse_pictures_are_small_and_like_the_whole(tmp_path: Path) -> None:
    rows = np.linspace(0, 255, 900)[:, None, None]
    smooth = np.broadcast_to(rows, (900, 1200, 3)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    view = view_of(tmp_path / "a.jpg")
    small = coarse(view)
    assert small.shape == (450, 600, 4) and not view.decoded()
    assert (small[..., 0].float() - torch.linspace(0, 255, 450)[:, None]).abs().max() < 3
    view.pixels()
    assert torch.equal(coarse(view), small)  # whatever is in memory
    assert coarse(view_of(tmp_path / "a.png")).shape == (900, 1200, 4)


# ---------------------------------------------------------------------------- masks
def save_mask(path: Path, values: np.ndarray, **options: int) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(values).save(path, **options)
    return path


def test_black_is_ignored(tmp_path: Path) -> None:
    values = np.array([[0, 255, 1], [255, 0, 90]], np.uint8)
    mask = decode_mask(save_mask(tmp_path / "m.png", values), 3, 2)
    assert mask.dtype == torch.bool and (mask.numpy() == (values == 0)).all()
    color = np.stack([values, np.zeros_like(values), np.zeros_like(values)], -1)
    mask = decode_mask(save_mask(tmp_path / "c.png", color), 3, 2)
    assert (mask.numpy() == (values == 0)).all()
    assert decode_mask(save_mask(tmp_path / "b.png", values > 0), 3, 2).sum() == 2


def test_transparent_is_ignored(tmp_path: Path) -> None:
    pixels = np.full((2, 3, 4), 255, np.uint8)
    pixels[0, 1, 3] = 0
    mask = decode_mask(save_mask(tmp_path / "m.png", pixels), 3, 2)
    assert mask.nonzero().tolist() == [[0, 1]]


def test_black_of_a_jpeg_need_not_be_perfect(tmp_path: Path) -> None:
    values = np.zeros((32, 32), np.uint8)
    values[:, 16:] = 255
    noisy = (values + RNG.integers(0, 9, values.shape)).clip(0, 255).astype(np.uint8)
    mask = decode_mask(save_mask(tmp_path / "m.jpg", noisy, quality=40), 32, 32)
    assert (mask.numpy() == (values == 0)).all()


def test_a_shrunk_mask_lets_no_ignored_pixel_in(tmp_path: Path) -> None:
    values = np.full((60, 90), 255, np.uint8)
    values[31, 47] = 0
    path = save_mask(tmp_path / "m.png", values)
    for width, height in ((45, 30), (30, 20), (37, 25)):
        mask = decode_mask(path, width, height)
        hit = [tuple(place) for place in mask.nonzero().tolist()]
        covers = [
            (row, column)
            for row in range(height)
            for column in range(width)
            if row * 60 < 32 * height and 31 * height < (row + 1) * 60
            if column * 90 < 48 * width and 47 * width < (column + 1) * 90
        ]
        assert hit == covers and hit
    assert decode_mask(path, 180, 120).sum() == 4


def test_masks_that_cannot_be_meant(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(UserError, match=r"m\.png.*leaves nothing"):
        decode_mask(path, 30, 20)
    path = save_mask(tmp_path / "n.png", np.full((30, 20), 255, np.uint8))
    with pytest.raises(UserError, match=r"30x20, found 20x30"):
        decode_mask(path, 30, 20)


@pytest.mark.parametrize(
    "file", ["masks/left/a.jpg.png", "masks/left/a.png", "images/left/masks/a.jpg.png"]
)
def test_where_masks_are_found(tmp_path: Path, file: str) -> None:
    image = tmp_path / "images" / "left" / "a.jpg"
    assert find_mask(image) is None
    mask = save_mask(tmp_path / file, np.full((2, 3), 255, np.uint8))
    assert find_mask(image) == mask
    assert find_mask(image, ("other",)) is None


def test_an_image_is_not_its_own_mask(tmp_path: Path) -> None:
    image = save_mask(tmp_path / "masks" / "a.png", np.full((2, 3), 255, np.uint8))
    assert find_mask(image) is None


def test_views_keep_and_forget_their_masks(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    values = np.full((20, 30), 255, np.uint8)
    values[3:5] = 0
    view = view_of(tmp_path / "a.png", save_mask(tmp_path / "m.png", values))
    mask = view.left_out()
    assert mask is not None and mask[3:5].all() and mask.sum() == 60
    assert not view.decoded()
    view.pixels()
    assert view.decoded() and view.left_out() is mask
    view.forget()
    assert not view.decoded()
    CACHE.drop(view)


def test_formats_that_start_other_programs_are_not_opened() -> None:
    assert "EPS" not in imagefile._formats() and {"PNG", "JPEG"} <= set(imagefile._formats())
