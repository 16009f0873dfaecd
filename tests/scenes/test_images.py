"""Decoding and shrinking of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.camera import Camera
from render.errors import UserError
from render.scenes.photos.images import decode, decoded_bytes, preload, read_header
from render.scenes.photos.resize import shrink
from render.scenes.types import View

RNG = np.random.default_rng(0)
RGBA = RNG.integers(0, 256, (24, 36, 4), dtype=np.uint8)


def reference_shrink(pixels: np.ndarray, fy: int, fx: int) -> np.ndarray:
    """Alpha-weighted block means in float64, the slow and plain way."""
    height, width = pixels.shape[0] // fy, pixels.shape[1] // fx
    out = np.zeros((height, width, 4))
    for r in range(height):
        for c in range(width):
            block = pixels[r * fy : (r + 1) * fy, c * fx : (c + 1) * fx].astype(float)
            alpha = block[..., 3:]
            if alpha.sum() > 0:
                out[r, c, :3] = (block[..., :3] * alpha).sum((0, 1)) / alpha.sum()
            out[r, c, 3] = alpha.mean()
    return out


@pytest.mark.parametrize(("fy", "fx"), [(2, 2), (4, 4), (3, 2), (8, 12)])
def test_integer_factors_average_areas(fy: int, fx: int) -> None:
    small = shrink(RGBA, 36 // fx, 24 // fy)
    assert small.dtype == np.uint8
    assert np.abs(small - reference_shrink(RGBA, fy, fx)).max() <= 0.51


def test_other_factors_agree_with_a_common_multiple() -> None:
    """24x36 to 16x24 (factor 1.5) is a mean over areas that cut through pixels."""
    small = shrink(RGBA, 24, 16)
    doubled = RGBA.repeat(2, 0).repeat(2, 1)  # the same picture with pixels cut in four
    assert np.abs(small - reference_shrink(doubled, 3, 3)).max() <= 1.01


@pytest.mark.parametrize("size", [(12, 8), (24, 16)])
def test_hidden_colours_do_not_bleed(size: tuple[int, int]) -> None:
    pixels = np.zeros((24, 36, 4), np.uint8)
    pixels[..., 1] = 255  # green where nothing is
    pixels[5:19, 7:30] = (200, 0, 0, 255)
    small = shrink(pixels, *size)
    visible = small[small[..., 3] > 0]
    assert visible[:, 0].min() >= 199 and visible[:, 1].max() == 0
    assert 0 < (small[..., 3] < 255).mean() < 1


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # pyright: ignore[reportArgumentType]
    return path


def test_modes_become_rgba(tmp_path: Path) -> None:
    rgb = Image.fromarray(RGBA[..., :3])
    grey = Image.fromarray(RGBA[..., 0])
    assert (decode(save(tmp_path / "rgb.png", rgb))[..., 3] == 255).all()
    assert not read_header(tmp_path / "rgb.png").has_alpha
    out = decode(save(tmp_path / "grey.png", grey)).numpy()
    assert (out[..., 0] == RGBA[..., 0]).all() and (out[..., 2] == RGBA[..., 0]).all()
    la = Image.merge("LA", (grey, Image.fromarray(RGBA[..., 3])))
    out = decode(save(tmp_path / "la.png", la)).numpy()
    assert (out[..., 3] == RGBA[..., 3]).all()
    assert read_header(tmp_path / "la.png").has_alpha
    out = decode(save(tmp_path / "bits.png", grey.convert("1"))).numpy()
    assert set(np.unique(out[..., 0])) <= {0, 255}


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    path = save(tmp_path / "palette.png", image, transparency=1)
    assert read_header(path).has_alpha
    out = decode(path)
    assert out[0, 0].tolist() == [255, 0, 0, 255]
    assert int(out[0, 1, 3]) == 0


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    out = decode(save(tmp_path / "deep.png", Image.fromarray(values))).numpy()
    assert np.abs(out[..., 0] - values / 257).max() <= 0.51
    assert (out[..., 3] == 255).all()


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 36).astype(np.uint8)[None, :, None], (24, 1, 3))
    path = save(tmp_path / "photo.jpg", Image.fromarray(smooth), quality=95)
    header = read_header(path)
    assert (header.width, header.height, header.has_alpha) == (36, 24, False)
    assert np.abs(decode(path)[..., :3].numpy().astype(int) - smooth).max() < 6


def test_truncated_files_are_found_at_the_header(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        path = save(tmp_path / name, Image.fromarray(RGBA[..., :3]))
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(UserError, match=name):
            read_header(path)


def test_bytes_behind_a_whole_file_are_forgiven(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGBA))
    path.write_bytes(path.read_bytes() + bytes(10_000))
    read_header(path)
    assert (decode(path).numpy() == RGBA).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_preload_decodes_every_view_once(threads: int) -> None:
    calls: list[int] = []
    camera = Camera.look_at((1, 2, 3), (0, 0, 0), width=6, height=5)

    def load(i: int) -> torch.Tensor:
        calls.append(i)
        return torch.zeros(5, 6, 4, dtype=torch.uint8)

    views = [View(camera, lambda i=i: load(i), str(i)) for i in range(7)]
    preload(views, threads)
    preload(views, threads)
    assert sorted(calls) == list(range(7))
    assert decoded_bytes(views) == 7 * 5 * 6 * 4


def test_preload_passes_errors_on() -> None:
    def broken() -> torch.Tensor:
        raise UserError("r_1.png: broken")

    camera = Camera.look_at((1, 2, 3), (0, 0, 0), width=6, height=5)
    with pytest.raises(UserError, match="r_1"):
        preload([View(camera, broken, "x")], 2)
