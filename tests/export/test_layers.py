"""Pictures of the layers: what each mode shows, what its legend says, where thumbnails lie."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from render.export.images import INFERNO, VIRIDIS
from render.export.layer_colors import cumulative, difference, filled, id_colors, proper
from render.export.layers import GAP, LayerMode, LayerPictures, fit_tiles
from render.export.legend import EMPTY, Legend, count_legend, difference_legend
from render.kbuffer import KBuffer
from render.methods.base import Inspection

BLUE = torch.tensor([0.0, 0.0, 1.0])
MODES: tuple[LayerMode, ...] = get_args(LayerMode)


def at(legend: Legend, position: float) -> Tensor:
    """Colour [3] of a legend at a position, as its docstring says."""
    n = len(legend.colors)
    return legend.colors[min(int(position * n), n - 1)]


def tiny() -> Inspection:
    """One row of three pixels, two layers: both filled, one filled, none."""
    index = torch.tensor([[[7, 3], [3, -1], [-1, -1]]], dtype=torch.int32)
    depth = torch.tensor([[[2.0, 4.0], [3.0, -1.0], [-1.0, -1.0]]])
    weight = torch.tensor([[[0.25, 0.5], [1.0, 0.0], [0.0, 0.0]]])
    red, green = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    color = torch.tensor([[[red, green], [green, red], [red, red]]])  # also in empty slots
    return Inspection(KBuffer(index, depth, torch.zeros(1, 3, 2), weight), color, weight)


def random(height: int = 20, width: int = 30, k: int = 4, channels: int = 5) -> Inspection:
    g = torch.Generator().manual_seed(0)
    index = torch.randint(0, 999, (height, width, k), generator=g, dtype=torch.int32)
    count = torch.randint(0, k + 1, (height, width, 1), generator=g)
    valid = torch.arange(k) < count
    index[~valid] = -1
    depth = torch.where(valid, 1 + torch.rand(height, width, k, generator=g).cumsum(-1), -1.0)
    weight = torch.where(valid, torch.rand(height, width, k, generator=g) / k, 0.0)
    color = torch.rand(height, width, k, 3, generator=g)
    features = torch.randn(height, width, k, channels, generator=g)
    kbuffer = KBuffer(index, depth, torch.zeros_like(depth), weight)
    normal = torch.nn.functional.normalize(features[..., :3] + 0.01, dim=-1)
    opacity = torch.rand(height, width, k, 1, generator=g)
    extra = {"features": features, "normal": normal, "opacity": opacity}
    return Inspection(kbuffer, color, weight, extra=extra)


def shown(
    inside: Inspection,
    mode: LayerMode,
    layer: int = 1,
    span: tuple[float, float] | None = None,
) -> Tensor:
    image = LayerPictures(inside, BLUE).picture(mode, layer, span)
    assert image is not None
    return image


# ------------------------------------------------------------------ modes
def test_depth_of_a_known_buffer() -> None:
    pictures = LayerPictures(tiny(), BLUE)
    span = (2.0, 4.0)
    first, second = (pictures.picture("depth", layer, span) for layer in (1, 2))
    assert first is not None and second is not None
    assert torch.equal(first[0], torch.stack([VIRIDIS[-1], VIRIDIS[128], EMPTY]))
    assert torch.equal(second[0], torch.stack([VIRIDIS[0], EMPTY, EMPTY]))
    legend = pictures.legend("depth", span)
    assert legend is not None and legend.unit == "scene units"
    assert [text for _, text in legend.ticks] == ["2.00", "3.00", "4.00"]
    near, _, far = (at(legend, place) for place, _ in legend.ticks)
    assert torch.equal(near, VIRIDIS[-1]) and torch.equal(far, VIRIDIS[0])


def test_depth_spans_percentiles_of_the_filled_slots() -> None:
    depth = torch.arange(1.0, 101.0).view(10, 10, 1)
    index = torch.zeros(10, 10, 1, dtype=torch.int32)
    index[0, 0], depth[0, 1, 0] = -1, 1e9
    kbuffer = KBuffer(index, depth, torch.zeros_like(depth))
    inside = Inspection(kbuffer, torch.zeros(10, 10, 1, 3), torch.ones_like(depth))
    pictures = LayerPictures(inside, BLUE)
    values = depth.flatten()[1:]
    for percentiles in ((1.0, 99.0), (10.0, 50.0)):
        expected = values.quantile(torch.tensor(percentiles) / 100).tolist()
        assert pictures.span(percentiles) == pytest.approx(expected)
    assert pictures.span((0.0, 100.0)) == (3.0, 1e9)


def test_color_and_share_of_a_known_buffer() -> None:
    inside = tiny()
    assert torch.equal(shown(inside, "color")[0, :2], inside.color[0, :2, 0])
    assert torch.equal(shown(inside, "color")[0, 2], EMPTY)
    share = shown(inside, "contribution", 1)[0]
    assert torch.equal(share, torch.stack([VIRIDIS[128], VIRIDIS[-1], EMPTY]))
    legend = LayerPictures(inside, BLUE).legend("contribution")
    assert legend is not None and legend.unit == "%"
    place = {text: position for position, text in legend.ticks}
    assert torch.equal(at(legend, place["25"]), share[0])
    assert torch.equal(at(legend, place["100"]), share[1])
    assert torch.equal(at(legend, place["50"]), shown(inside, "contribution", 2)[0, 0])


def test_cumulative_of_a_known_buffer() -> None:
    one, two = (shown(tiny(), "cumulative", layer)[0] for layer in (1, 2))
    expected = torch.tensor([[0.25, 0, 0.75], [0, 1, 0], [0, 0, 1]])
    assert torch.allclose(one, expected)
    assert torch.allclose(two[0], torch.tensor([0.25, 0.5, 0.25])) and torch.equal(two[1:], one[1:])


def test_cumulative_at_k_is_the_composite() -> None:
    inside = random()
    weight = inside.weight[..., None]
    whole = (weight * inside.color).sum(2) + (1 - weight.sum(2)) * BLUE
    assert torch.allclose(shown(inside, "cumulative", 4), whole, atol=1e-6)
    every = cumulative(inside, BLUE)
    for layer in range(1, 5):
        picture = shown(inside, "cumulative", layer)
        assert torch.allclose(picture, every[:, :, layer - 1], atol=1e-6)


def test_ids_keep_their_colour_and_neighbours_differ() -> None:
    first, second = shown(tiny(), "id", 1)[0], shown(tiny(), "id", 2)[0]
    assert torch.equal(first[1], second[0])  # both are point 3
    assert (first[0] - first[1]).abs().max() > 0.1
    assert torch.equal(first[2], EMPTY)
    index = torch.arange(4000, dtype=torch.int32).view(40, 100, 1)
    kbuffer = KBuffer(index, index.float(), index.float())
    colors = id_colors(Inspection(kbuffer, torch.zeros(1), torch.zeros(1))).view(-1, 3)
    for step in (1, 2, 3, 5, 8, 13, 21, 34, 100, 256):
        assert (colors[step:] - colors[:-step]).abs().amax(-1).min() > 0.04, step


def test_count_of_a_known_buffer() -> None:
    picture, legend = shown(tiny(), "count")[0], count_legend(2)
    ticks = {text: at(legend, place) for place, text in legend.ticks}
    assert list(ticks) == ["0", "1", "2"]
    assert torch.equal(picture, torch.stack([ticks["2"], ticks["1"], ticks["0"]]))
    assert torch.equal(ticks["0"], EMPTY) and torch.equal(ticks["2"], VIRIDIS[-1])
    large = count_legend(64)
    for place, text in large.ticks:
        assert torch.equal(at(large, place), large.colors[int(text)])


def test_features_show_the_main_axes() -> None:
    """Red follows what varies most, in the direction of its largest component."""
    inside = random(channels=3)
    g = torch.Generator().manual_seed(1)
    strong = torch.rand(20, 30, 4, generator=g)
    weak = 0.1 * torch.rand(20, 30, 4, generator=g)
    inside.extra["features"] = torch.stack([weak, torch.full_like(weak, 3.0), -strong], -1)
    valid = inside.kbuffer.valid[:, :, 1]
    picture = shown(inside, "features", 2)[valid]
    red, green, blue = picture.unbind(-1)
    assert torch.corrcoef(torch.stack([red, -strong[:, :, 1][valid]]))[0, 1] > 0.99
    assert torch.corrcoef(torch.stack([green, weak[:, :, 1][valid]]))[0, 1] > 0.99
    assert torch.allclose(blue, torch.tensor(0.5))  # the constant channel says nothing
    assert torch.equal(shown(inside, "features", 2)[~valid][0], EMPTY)


def test_all_layers_share_one_basis() -> None:
    inside = random(k=2)
    inside.extra["features"][:, :, 1] = inside.extra["features"][:, :, 0]
    both = inside.kbuffer.valid.all(-1)
    first, second = (shown(inside, "features", layer)[both] for layer in (1, 2))
    assert torch.equal(first, second) and first.std() > 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 9])
def test_features_of_any_width(channels: int) -> None:
    picture = shown(random(channels=channels), "features")
    grey = (picture[random().kbuffer.valid[..., 0]] == 0.5).all(0)
    assert grey.tolist() == [channels < 1, channels < 2, channels < 3]


def test_without_features_the_norm_or_nothing() -> None:
    inside = random()
    inside.extra.clear()
    pictures = LayerPictures(inside, BLUE)
    assert pictures.picture("features") is None and pictures.legend("features") is None
    assert pictures.atlas("features", 10, 2) is None
    inside.feature_norm = inside.kbuffer.depth
    pictures = LayerPictures(inside, BLUE)
    norm, depth = pictures.picture("features"), pictures.picture("depth", 1, (-3.0, -2.0))
    assert norm is not None and depth is not None and not torch.equal(norm, depth)
    legend = pictures.legend("features")
    assert legend is not None and legend.ticks[0][1].startswith("1.")


def test_difference_matches_its_legend() -> None:
    photo = torch.full((1, 4, 3), 0.5)
    picture = photo.clone()
    picture[0, 1, 0] += 0.3  # mean 0.1
    picture[0, 2] -= 0.2
    picture[0, 3] += 0.5
    heat, legend = difference(picture, photo)[0], difference_legend()
    place = {text: position for position, text in legend.ticks}
    assert torch.equal(heat[0], INFERNO[0]) and torch.equal(heat[3], INFERNO[-1])
    for pixel, text in ((1, "0.10"), (2, "0.20")):
        assert torch.allclose(heat[pixel], at(legend, place[text] + 1e-6), atol=0.02)


def test_normals_and_opacities_match_their_legends() -> None:
    inside = tiny()
    normal = torch.tensor(
        [[[[1.0, 0, 0], [0, 0, -1.0]], [[0, -1.0, 0], [0, 0, 0]], [[0.0] * 3] * 2]]
    )
    opacity = torch.tensor([[[[0.25], [1.0]], [[0.0], [0.0]], [[0.0], [0.0]]]])
    inside.extra.update(normal=normal, opacity=opacity)
    pictures = LayerPictures(inside, BLUE)
    expected: dict[LayerMode, list[tuple[int, int, str]]] = {
        "normal": [(1, 0, "+x"), (2, 0, "-z"), (1, 1, "-y")],
        "opacity": [(1, 0, "25"), (2, 0, "100"), (1, 1, "0")],
    }
    for mode, found in expected.items():
        legend = pictures.legend(mode)
        assert legend is not None
        place = {text: position for position, text in legend.ticks}
        for layer, column, text in found:
            color = shown(inside, mode, layer)[0, column]
            assert torch.allclose(color, at(legend, place[text]), atol=0.02), (mode, text)
        assert torch.equal(shown(inside, mode, 2)[0, 1], EMPTY)


@pytest.mark.parametrize("mode", ["normal", "opacity"])
def test_what_was_not_asked_for_is_not_shown(mode: LayerMode) -> None:
    pictures = LayerPictures(tiny(), BLUE)
    assert pictures.picture(mode, 1) is None and pictures.atlas(mode, 10, 2) is None


# ------------------------------------------------------------------ thumbnails
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("columns", [1, 3, 8])
def test_each_tile_shows_its_layer(mode: LayerMode, columns: int) -> None:
    """At the size of the picture a tile is that layer's picture."""
    pictures = LayerPictures(random(), BLUE)
    atlas = pictures.atlas(mode, 30, columns)
    assert atlas is not None and len(atlas.tiles) == 4
    for layer, (x, y, w, h) in enumerate(atlas.tiles, 1):
        assert (w, h) == (30, 20)
        assert (x, y) == ((layer - 1) % columns * (30 + GAP), (layer - 1) // columns * (20 + GAP))
        expected = pictures.picture(mode, layer)
        assert expected is not None
        assert torch.allclose(atlas.picture[y : y + h, x : x + w], expected, atol=1e-6)
    right = max(x + w for x, _, w, _ in atlas.tiles)
    assert atlas.picture.shape == (max(y + h for _, y, _, h in atlas.tiles), right, 3)


def test_small_tiles_mix_colours_but_never_ids_or_depths() -> None:
    inside = random(64, 64, 2)
    pictures = LayerPictures(inside, BLUE)
    for mode in ("id", "depth", "features", "color"):
        atlas, large = pictures.atlas(mode, 16, 1), pictures.picture(mode, 1)
        assert atlas is not None and large is not None
        x, y, w, h = atlas.tiles[0]
        tile = atlas.picture[y : y + h, x : x + w].reshape(-1, 1, 3)
        found = (tile == large.reshape(1, -1, 3)).all(-1).any(1)
        assert bool(found.all()) is (mode != "color"), mode


def test_tiles_of_a_checkerboard_are_even() -> None:
    """Shares and colours are means over filled and empty pixels, whichever lies in the middle."""
    inside = random(40, 40, 1)
    board = (torch.arange(40)[:, None] + torch.arange(40)) % 2 == 0
    inside.kbuffer.index[..., 0] = torch.where(board, 5, -1)
    inside.weight[..., 0] = torch.where(board, 0.49, 0.0)
    inside.color[:] = torch.where(board, 0.8, 0.0)[..., None, None]
    means: dict[LayerMode, Tensor] = {
        "color": 0.5 * torch.tensor(0.8) + 0.5 * EMPTY,
        "contribution": 0.5 * VIRIDIS[int(0.7 * 256)] + 0.5 * EMPTY,
        "cumulative": 0.245 * torch.tensor(0.8) + 0.755 * BLUE,
    }
    for mode, mean in means.items():
        atlas = LayerPictures(inside, BLUE).atlas(mode, 20, 1)
        assert atlas is not None
        assert torch.allclose(atlas.picture, mean.expand(20, 20, 3), atol=1e-5), mode


@pytest.mark.parametrize("k", [1, 2, 3, 8, 13, 64])
@pytest.mark.parametrize("size", [(1200, 150), (300, 600), (400, 400), (1, 1)])
@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.7])
def test_tiles_fit_the_area(k: int, size: tuple[int, int], aspect: float) -> None:
    columns, width = fit_tiles(k, aspect, *size)
    assert 1 <= columns <= k and width >= 1
    if width > 1:
        rows = math.ceil(k / columns)
        assert columns * (width + GAP) - GAP <= size[0]
        assert rows * (int(width * aspect) + GAP) - GAP <= size[1]


def test_a_low_strip_is_one_row() -> None:
    assert fit_tiles(8, 1.0, 8 * 154 - GAP, 150) == (8, 150)
    assert fit_tiles(8, 1.0, 150, 8 * 154 - GAP) == (1, 150)
    assert fit_tiles(4, 1.0, 204, 204) == (2, 100)


# ------------------------------------------------------------------ odd input
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
@pytest.mark.parametrize("empty", [True, False])
def test_pictures_of_any_shape(mode: LayerMode, size: tuple[int, int], empty: bool) -> None:
    inside = random(*size)
    if empty:
        inside.kbuffer.index.fill_(-1)
        inside.weight.zero_()
    pictures = LayerPictures(inside, BLUE)
    image, atlas = pictures.picture(mode, 4), pictures.atlas(mode, 12, 2)
    assert image is not None and image.shape == (*size, 3) and atlas is not None
    for values in (image, atlas.picture):
        assert bool(values.isfinite().all()) and values.min() >= 0 and values.max() <= 1
    pictures.legend(mode)


@pytest.mark.parametrize("mode", ["depth", "contribution", "count", "features"])
def test_not_a_number_is_coloured(mode: LayerMode) -> None:
    inside = random()
    for values in (inside.kbuffer.depth, inside.weight, inside.extra["features"]):
        values[::3] = math.nan
        values[1::3] = math.inf
    pictures = LayerPictures(inside, BLUE)
    assert pictures.picture(mode) is not None and pictures.atlas(mode, 9, 4) is not None
    legend = pictures.legend(mode)
    assert legend is None or not any("nan" in text or "inf" in text for _, text in legend.ticks)


@pytest.mark.parametrize("span", [(3.0, 3.0), (5.0, 2.0), (0.0, 0.0), (1e20, 1e20)])
def test_a_span_without_width_is_widened(span: tuple[float, float]) -> None:
    low, high = proper(span)
    assert low < span[0] < high
    assert LayerPictures(random(), BLUE).legend("depth", span) is not None


def test_few_filled_pixels_are_never_missed() -> None:
    valid = torch.zeros(300, 300, 4, dtype=torch.bool)
    valid[1, 1, 0] = True
    values = torch.zeros(300, 300, 4)
    values[1, 1, 0] = 7
    assert filled(values, valid, most=1000).tolist() == [7]
