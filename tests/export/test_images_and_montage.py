"""Pictures: colours for numbers, whole files, and a montage that shows what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.export.images import colorize, save_image, side_by_side, to_uint8
from render.export.layer_colors import cumulative
from render.export.legend import tick_texts
from render.export.montage import montage
from render.kbuffer import KBuffer
from render.methods.base import Inspection


def inspection(height: int = 20, width: int = 30, layers: int = 4) -> Inspection:
    index = torch.zeros(height, width, layers, dtype=torch.int32)
    index[: height // 2, :, 1:] = -1
    valid = index >= 0
    depth = torch.where(valid, 1.0 + torch.arange(layers), -1.0)
    weight = torch.where(valid, 0.5 ** (1.0 + torch.arange(layers)), 0.0)
    color = torch.rand(height, width, layers, 3, generator=torch.Generator().manual_seed(0))
    return Inspection(KBuffer(index, depth, torch.zeros_like(depth), weight), color, weight)


def test_colorize_ends_and_order() -> None:
    colors = colorize(torch.tensor([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0]))
    assert torch.equal(colors[0], colors[1]) and torch.equal(colors[5], colors[6])
    luma = colors @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert bool((luma[1:6].diff() > 0).all())  # brighter means more


def test_images_are_written_whole(tmp_path: Path) -> None:
    image = torch.rand(5, 7, 3)
    save_image(tmp_path / "a.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), to_uint8(image))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    row = side_by_side([image, image], gap=3)
    assert row.shape == (5, 17, 3) and bool((row[:, 7:10] == 1).all())


def test_cumulative_adds_up_to_the_composite() -> None:
    inside = inspection()
    background = torch.tensor([0.2, 0.4, 0.6])
    pictures = cumulative(inside, background)
    weight = inside.weight[..., None]
    whole = (weight * inside.color).sum(2) + (1 - weight.sum(2)) * background
    assert torch.allclose(pictures[:, :, -1], whole, atol=1e-6)
    first = weight[:, :, 0] * inside.color[:, :, 0] + (1 - weight[:, :, 0]) * background
    assert torch.allclose(pictures[:, :, 0], first, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 8, 16])
@pytest.mark.parametrize("size", [(20, 30), (40, 15), (1, 1)])
def test_montage_of_any_shape(layers: int, size: tuple[int, int]) -> None:
    picture = torch.rand(*size, 3)
    page = montage(
        inspection(*size, layers),
        torch.ones(3),
        title="a title",
        pictures=[("render", picture), ("photo", picture)],
    )
    assert page.mode == "RGB" and 600 < page.width < 2400


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e20])
def test_depth_scale_fits_its_column_at_any_unit(scale: float) -> None:
    assert max(len(text) for text in tick_texts(3.5 * scale, 4.5 * scale)) < 10


def test_montage_marks_empty_slots_and_orders_depth() -> None:
    inside = inspection(40, 40, 2)
    page = np.asarray(montage(inside, torch.ones(3), title="", pictures=None)).astype(int)
    empty = (page == (38, 41, 50)).all(-1)
    assert empty.sum() > 1000  # the upper half of layer 2, three rows of it
    near = (page == (253, 231, 37)).all(-1).nonzero()
    far = (page == (68, 1, 84)).all(-1).nonzero()
    assert near[1].mean() < far[1].mean()  # layer 1 lies left of layer 2


def test_montage_of_an_empty_view() -> None:
    inside = inspection(8, 8, 2)
    nothing = torch.full_like(inside.kbuffer.index, -1)
    zero = torch.zeros_like(inside.weight)
    kbuffer = KBuffer(nothing, zero - 1, zero - 1, zero)
    montage(Inspection(kbuffer, inside.color, zero), torch.ones(3), title="empty")
