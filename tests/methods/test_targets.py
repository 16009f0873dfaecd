"""What a step learns from: halved pictures and windows stay aligned with their cameras."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.methods.targets import (
    MARGIN,
    coarse_view,
    content_box,
    halvings,
    training_window,
)
from render.scenes.types import View

BLACK = torch.zeros(3)
WHOLE = (0.0, 1.0, 0.0, 1.0)


def camera_of(width: int, height: int) -> Camera:
    camera = Camera.look_at((3.0, 1.0, 2.0), (0.1, 0.2, 0.0), width=width, height=height)
    return camera.crop(3, -2, width, height)  # the principal point is not the centre


def masked(mask: Tensor) -> View:
    """A grey view with this alpha, [H, W] in 0..255."""
    height, width = mask.shape
    pixels = torch.full((height, width, 4), 128, dtype=torch.uint8)
    pixels[..., 3] = mask
    return View(camera_of(width, height), lambda: pixels, "m")


def coordinates(width: int, height: int) -> View:
    """A view whose red and green say at which column and row a pixel is."""
    pixels = torch.full((height, width, 4), 255, dtype=torch.uint8)
    pixels[..., 0] = torch.arange(width)
    pixels[..., 1] = torch.arange(height)[:, None]
    return View(camera_of(width, height), lambda: pixels, "c")


def misalignment(camera: Camera, target: Tensor, full: Camera) -> float:
    """Pixels of ``full`` between where a pixel looks and what it shows, at worst."""
    uv = camera.pixel_centers(torch.float64)
    world = camera.unproject(uv, torch.full(uv.shape[:2], 2.5, dtype=torch.float64))
    seen = full.project(world)[0]
    shown = target[..., :2].double() * 255 + 0.5
    return float((seen - shown).abs().max())


@pytest.mark.parametrize("size", [(64, 64), (101, 67), (97, 96), (9, 250), (255, 8)])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_halved_pictures_stay_aligned(size: tuple[int, int], level: int) -> None:
    view = coordinates(*size)
    camera, target = coarse_view(view, level, BLACK)
    assert (camera.width, camera.height) == (size[0] >> level, size[1] >> level)
    assert target.shape == (camera.height, camera.width, 3)
    assert misalignment(camera, target, view.camera) < 0.01


def test_a_checker_of_blocks_becomes_a_checker_of_pixels() -> None:
    row, column = torch.meshgrid(torch.arange(35), torch.arange(50), indexing="ij")
    blocks = ((row // 4 + column // 4) % 2 * 255).to(torch.uint8)
    pixels = torch.cat([blocks[..., None].repeat(1, 1, 3), torch.full((35, 50, 1), 255)], -1)
    view = View(camera_of(50, 35), lambda: pixels.to(torch.uint8), "checker")
    _, target = coarse_view(view, 2, BLACK)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    assert torch.equal(target[..., 0], ((row + column) % 2).float())


def test_transparent_pixels_are_averaged_over_the_background() -> None:
    mask = torch.zeros(2, 2)
    mask[0, 0] = 255
    _, target = coarse_view(masked(mask), 1, torch.tensor([1.0, 0.0, 0.5]))
    expected = torch.tensor([3.0, 0.0, 1.5]) / 4 + 128 / 255 / 4
    torch.testing.assert_close(target, expected.expand(1, 1, 3))


@pytest.mark.parametrize(
    "size, expected",
    [((1, 1), 0), ((191, 400), 0), ((192, 192), 1), ((256, 256), 1), ((800, 800), 3),
     ((400, 383), 1), ((400, 384), 2), ((5000, 4000), 3)],
)  # fmt: skip
def test_no_picture_is_halved_below_96_pixels(size: tuple[int, int], expected: int) -> None:
    assert halvings(*size) == expected


# ------------------------------------------------------------------ windows
@pytest.mark.parametrize("size", [(64, 48), (101, 67), (7, 200), (200, 1)])
@pytest.mark.parametrize("max_pixels", [10**6, 500, 36, 1])
def test_windows_stay_aligned_and_small(size: tuple[int, int], max_pixels: int) -> None:
    view = coordinates(*size)
    target = view.target(BLACK)
    directions = view.camera.rays(torch.float64)[1]
    box = (0.21, 0.83, 0.4, 0.9)
    corners = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        camera, part = training_window(view.camera, target, box, max_pixels, generator)
        assert part.shape == (camera.height, camera.width, 3)
        assert part.shape[0] * part.shape[1] <= max_pixels
        assert misalignment(camera, part, view.camera) < 1e-4  # single precision colours
        x, y = (round(float(c) * 255) for c in part[0, 0, :2])
        window = directions[y : y + camera.height, x : x + camera.width]
        torch.testing.assert_close(camera.rays(torch.float64)[1], window, atol=1e-12, rtol=0)
        corners.add((x, y))
    smaller = 0.4 * size[0] * size[1] > max_pixels  # than the box: then it is cut
    assert len(corners) > (6 if smaller else 1)


def test_windows_of_halved_pictures_stay_aligned() -> None:
    view = coordinates(101, 67)
    for seed in range(12):
        camera, target = coarse_view(view, 2, BLACK)
        generator = torch.Generator().manual_seed(seed)
        camera, target = training_window(camera, target, (0.3, 0.7, 0.2, 1.0), 80, generator)
        assert misalignment(camera, target, view.camera) < 0.01


def test_mostly_the_content_is_learnt_and_now_and_then_everything() -> None:
    mask = torch.zeros(40, 60)
    mask[10:20, 30:45] = 255
    view = masked(mask)
    box, target = content_box(view), view.target(BLACK)
    generator = torch.Generator().manual_seed(0)
    whole = 0
    for _ in range(300):
        camera, part = training_window(view.camera, target, box, 10**6, generator)
        whole += part.shape == target.shape
        x, y = (view.camera.center - camera.center).tolist()
        assert x <= 30 and x + camera.width >= 45 and y <= 10 and y + camera.height >= 20
    assert 10 <= whole <= 60


# ------------------------------------------------------------------ the box of the content
def test_box_of_a_mask_has_a_margin() -> None:
    mask = torch.zeros(50, 100)
    mask[20:30, 40:70] = 1  # nearly transparent counts
    y0, y1, x0, x1 = content_box(masked(mask))
    expected = (0.4 - MARGIN, 0.6 + MARGIN, 0.4 - MARGIN, 0.7 + MARGIN)
    assert (y0, y1, x0, x1) == pytest.approx(expected)


@pytest.mark.parametrize(
    "rows, columns",
    [((0, 3), (0, 4)), ((47, 50), (96, 100)), ((0, 50), (10, 11)), ((7, 8), (0, 100))],
)
def test_boxes_end_at_the_border(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    mask = torch.zeros(50, 100)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = 255
    view = masked(mask)
    box = content_box(view)
    assert 0 <= box[0] < box[1] <= 1 and 0 <= box[2] < box[3] <= 1
    target = view.target(BLACK)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        camera, part = training_window(view.camera, target, box, 10**6, generator)
        assert part.shape == (camera.height, camera.width, 3)
        assert float(part.sum()) == pytest.approx(float(target.sum()))  # nothing is cut off


@pytest.mark.parametrize("alpha", [0, 255])
def test_empty_and_full_masks_mean_the_whole_picture(alpha: int) -> None:
    assert content_box(masked(torch.full((7, 5), float(alpha)))) == WHOLE


def test_one_pixel_is_a_window_too() -> None:
    view = masked(torch.full((1, 1), 255.0))
    generator = torch.Generator().manual_seed(0)
    camera, part = training_window(view.camera, view.target(BLACK), WHOLE, 1, generator)
    assert (camera.width, camera.height) == (1, 1) and part.shape == (1, 1, 3)
