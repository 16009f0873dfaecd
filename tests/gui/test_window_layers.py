"""The K-buffer inspector of the real window: K, modes, layers, depth range, probe, by hand.

The pixels are compared with those of the window's own checkpoint, rendered here without a window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from app.look import MODES
from app.shortcuts import MODE_KEYS
from render.camera import Camera
from render.export.layers import LayerPictures
from render.export.styles import cloud_of, with_values
from render.methods.base import Inspection
from tests.driver import State, WindowDriver
from tests.window_looks import (
    ACCENT,
    AWAY,
    CLEAR,
    FIELD_HOVERED,
    VIRIDIS,
    apart,
    load_run,
    near,
    off_curve,
    painted,
    pixels,
    shot,
    show,
    type_into,
)
from tests.window_steps import choose

K = 8
WHITE = torch.ones(3)


@dataclass
class Truth:
    """What the model really is: loaded from the checkpoint that the window wrote."""

    camera: Camera
    inside: Inspection
    layers: LayerPictures
    renders: dict[int, np.ndarray]  # by K

    def layer(self, mode: str, layer: int = 1, span: tuple[float, float] | None = None):
        image = self.layers.picture(mode, layer, span)  # pyright: ignore[reportArgumentType]
        assert image is not None
        return image.numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="module")
def window(display: str, folder: Path) -> Iterator[WindowDriver]:
    """A small model at its last step: nothing changes by itself any more."""
    arguments = ("--scene", "lego", "--downscale", "2", "--steps", "20", "--eval-every", "never")
    with WindowDriver(arguments, folder, display) as driver:
        driver.until(lambda state: state["state"] == "finished" and state["sweep"], 60)
        yield driver


@pytest.fixture(scope="module")
def truth(window: WindowDriver, folder: Path) -> Truth:
    bench = load_run(window, folder)
    camera = bench.scene.split("test")[0].camera
    inside, cloud = bench.renderer.inspect(camera, K), cloud_of(bench.renderer)
    assert cloud is not None
    inside = with_values(inside, cloud, camera, ("normal", "opacity"))
    renders = {k: bench.renderer.render(camera, WHITE, k).rgb.numpy() for k in (1, 3, K)}
    return Truth(camera, inside, LayerPictures(inside, WHITE), renders)


# ---------------------------------------------------------------------- K
def test_k_changes_the_picture_and_is_the_number_of_layers_rendered(
    window: WindowDriver, truth: Truth
) -> None:
    seen = {}
    for k in (1, 3, K):
        show(window, k=k)  # by a click on the bar
        seen[k] = pixels(window)
        assert apart(seen[k], truth.renders[k]) < 0.01
    assert apart(seen[1], seen[K]) > 0.02 and apart(seen[1], seen[3]) > 0.01
    assert seen[K][CLEAR].std() > 0.1 and 0.3 < seen[K][CLEAR].mean() < 0.95  # neither blank


def test_k_slider_keys_and_bars_agree(window: WindowDriver) -> None:
    show(window, k=K)
    x, y, width, height = window.rect("k")
    window.drag((x + 0.97 * width, y + 0.5 * height), (x + 0.05 * width, y + 0.5 * height), steps=3)
    assert window.state()["k"] == 1
    window.key("k")
    assert window.state()["k"] == 2
    window.key("shift+k")
    assert window.state()["k"] == 1
    window.key("shift+k")
    assert window.state()["k"] == 1, "below the first layer there is nothing"
    type_into(window, "k", "5")
    assert window.state()["k"] == 5, "the digit goes into the field"
    assert window.state()["mode"] == "picture", "and is no shortcut"
    type_into(window, "k", "99")
    assert window.state()["k"] == K
    window.click(window.center("k_bars", 2.5 / K))
    window.move(AWAY)
    painted(window, lambda picture: picture["main"]["k"] == 3)
    assert window.state()["k"] == 3
    slider = near(shot(window, "k"), ACCENT)
    grab = np.nonzero(slider.any(0))[0].mean() / slider.shape[1]
    assert abs(grab - 2.5 / K) < 0.05, "the slider follows the bar"


def test_bars_are_as_high_as_the_psnr_against_the_photo(window: WindowDriver) -> None:
    show(window, k=4)
    sweep = window.until(lambda state: state["sweep"])["sweep"]
    values = sweep["psnr"]
    assert sweep["photo"] and len(values) == K
    rises = [after - before for before, after in itertools.pairwise(values)]
    # After 20 steps the last layers say little, right or wrong.
    assert min(rises) > -0.05 and values[-1] > values[0] + 0.5, "more layers, better picture"
    bars = shot(window, "k_bars")
    heights, chosen = [], []
    for k in range(K):
        slot = bars[:, round(k * bars.shape[1] / K) + 5 : round((k + 1) * bars.shape[1] / K) - 5]
        filled = near(slot, ACCENT) | near(slot, FIELD_HOVERED, 3)
        heights.append(int((filled.mean(1) > 0.4).sum()))
        chosen.append(bool(near(slot, ACCENT).mean() > 0.2))
    assert chosen == [k == 3 for k in range(K)], "the bar of the present K is lit"
    steps = [after - before for before, after in itertools.pairwise(heights)]
    assert min(steps) >= -1 and heights[-1] > heights[0] + 15


def test_a_free_camera_is_compared_with_all_layers(window: WindowDriver) -> None:
    show(window)
    center = window.center("view")
    window.drag(center, (center[0] + 60, center[1] + 10), steps=2)
    state = window.until(lambda state: state["sweep"] and not state["sweep"]["photo"])
    assert state["at_view"] is None and state["picture"]["psnr"] is None
    values = state["sweep"]["psnr"]
    assert values[-1] is None, "all layers against themselves: infinite"
    assert values[:-1] == sorted(values[:-1])
    assert "the picture of all K" in state["texts"]["buffers_line"]


# ---------------------------------------------------------------------- modes
@pytest.mark.parametrize("info", MODES[:MODE_KEYS], ids=lambda info: info.mode)
def test_every_mode_by_its_button(window: WindowDriver, truth: Truth, info) -> None:
    show(window, "count" if info.mode == "picture" else "picture", layer=2)
    window.click(f"mode_{info.mode}")
    window.move(AWAY)
    main = {"source": "model", "mode": info.mode, "k": K, "layer": 2}
    state = painted(window, main=main)
    seen = pixels(window)
    if info.mode == "picture":
        expected = truth.renders[K]
    else:
        expected = truth.layer(info.mode, 2, state["picture"]["depth_range"])
    assert apart(seen, expected) < 0.02
    assert near(shot(window, f"mode_{info.mode}"), ACCENT).mean() > 0.4, "its button is lit"
    _check_colors(info.mode, seen, truth.inside.kbuffer.index.numpy()[..., 1] >= 0)


def _check_colors(mode: str, seen: np.ndarray, filled: np.ndarray) -> None:
    """What the eye expects of a mode, whatever the program thinks its colours are."""
    thing = seen[CLEAR][filled[CLEAR]] * 255  # [N, 3] where layer 2 has a point
    assert len(thing) > 500
    if mode in ("depth", "contribution", "opacity"):
        assert off_curve(thing, VIRIDIS).mean() < 12, "colours of viridis"
        assert np.ptp(thing[:, 1]) > 60, "and not one of them only"
    elif mode == "count":
        colors = np.round(seen[CLEAR].reshape(-1, 3) * 255 / 6)
        counts = np.unique(colors, axis=0, return_counts=True)[1]
        assert np.sort(counts)[-(K + 1) :].sum() > 0.9 * counts.sum(), "one colour a count"
    elif mode == "id":
        assert len(np.unique(np.round(thing / 24), axis=0)) > 100, "a colour for every point"
    elif mode in ("picture", "color", "cumulative"):
        red = (thing[:, 0] - thing[:, 1] > 40) & (thing[:, 0] - thing[:, 2] > 40)
        assert red.mean() > 0.05, "the toy is red"


def test_every_mode_by_its_number_key(window: WindowDriver) -> None:
    show(window, "features", layer=1)
    pictures = []
    for number, info in enumerate(MODES[:MODE_KEYS], 1):
        window.key(str(number % 10))
        painted(window, lambda picture, mode=info.mode: picture["main"]["mode"] == mode)
        pictures.append(pixels(window))
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert apart(a, b) > 0.01, "no two modes look alike"


# ---------------------------------------------------------------------- layers
def test_layer_by_slider_and_keys(window: WindowDriver, truth: Truth) -> None:
    show(window, "color", layer=1)
    first = pixels(window)
    x, y, width, height = window.rect("layer")
    window.drag((x + 0.06 * width, y + 0.5 * height), (x + 0.99 * width, y + 0.5 * height), steps=3)
    window.move(AWAY)
    _check_layer(window, truth, K)
    window.key("shift+l")
    _check_layer(window, truth, K - 1)
    type_into(window, "layer", "3")
    _check_layer(window, truth, 3)
    assert apart(first, pixels(window)) > 0.02
    window.key("l")
    _check_layer(window, truth, 4)


def _check_layer(window: WindowDriver, truth: Truth, layer: int) -> None:
    painted(window, main={"source": "model", "mode": "color", "k": K, "layer": layer})
    assert window.state()["layer"] == layer
    assert apart(pixels(window), truth.layer("color", layer)) < 0.02


def test_a_click_on_a_thumbnail_shows_its_layer_and_frames_it(
    window: WindowDriver, truth: Truth
) -> None:
    show(window, "picture", layer=1)
    tiles = window.state()["tiles"]
    assert len(tiles) == K
    assert [_framed(window, tile) for tile in tiles] == [False] * K, "it is no layer's picture"
    x, y, width, height = tiles[4]
    window.click((x + 0.5 * width, y + 0.5 * height))
    window.move(AWAY)
    state = window.until(lambda state: state["layer"] == 5)
    assert state["mode"] == "color", "the picture gives way to what the thumbnails show"
    _check_layer(window, truth, 5)
    assert [_framed(window, tile) for tile in tiles] == [k == 4 for k in range(K)]


def test_thumbnails_show_the_layers_in_the_mode_of_the_picture(
    window: WindowDriver, truth: Truth
) -> None:
    for mode in ("color", "id"):
        state = show(window, mode, layer=2)
        screen = window.screenshot()
        for layer in (1, 6):
            x, y, width, height = (round(value) for value in state["tiles"][layer - 1])
            tile = screen[y : y + height, x : x + width] / 255.0
            full = truth.layer(mode, layer)
            rows = (np.arange(height) + 0.5) * full.shape[0] / height
            columns = (np.arange(width) + 0.5) * full.shape[1] / width
            small = full[rows.astype(int)[:, None], columns.astype(int)]
            body = slice(24, -4)  # below the number, inside of the frame
            assert np.abs(tile[body, 4:-4] - small[body, 4:-4]).mean() < 0.06


def _framed(window: WindowDriver, tile: list[float]) -> bool:
    """Whether the border of a thumbnail has the accent colour."""
    x, y, _, height = (round(value) for value in tile)
    strip = window.screenshot()[y + height // 2 : y + height - 4, x - 2 : x + 3]
    return bool(near(strip, ACCENT, 20).any(1).mean() > 0.9)


# ---------------------------------------------------------------------- depth range
def test_depth_range_by_percentiles_and_by_hand(window: WindowDriver, truth: Truth) -> None:
    show(window, "depth", layer=1)
    choose(window, "depth_mode", 0, 4)
    window.move(AWAY)
    state = painted(window)
    normal, legend = pixels(window), _legend(window)
    near_1, far_99 = state["picture"]["depth_range"]
    assert state["picture"]["legend"] == "Depth"
    depth = truth.inside.kbuffer.depth[truth.inside.kbuffer.valid]
    assert float(depth.min()) <= near_1 < far_99 <= float(depth.max())

    choose(window, "depth_mode", 1, 4)
    state = painted(window, lambda picture: picture["depth_range"][0] > near_1)
    assert state["percentiles"] == [5, 95] and state["picture"]["depth_range"][1] < far_99
    assert apart(pixels(window), normal) > 0.005

    choose(window, "depth_mode", 2, 4)
    state = painted(window, lambda picture: picture["depth_range"][0] < near_1)
    assert state["percentiles"] == [0, 100] and state["picture"]["depth_range"][1] > far_99

    choose(window, "depth_mode", 3, 4)
    window.until(lambda state: state["depth_range"])
    type_into(window, window.center("depth_range", 0.2), "3.5")
    type_into(window, window.center("depth_range", 0.8), "4.0")
    state = painted(window, lambda picture: picture["depth_range"] == [3.5, 4.0])
    by_hand = pixels(window)
    assert apart(by_hand, truth.layer("depth", 1, (3.5, 4.0))) < 0.02
    assert apart(by_hand, normal) > 0.03
    assert (_legend(window) != legend).mean() > 0.002, "the legend has other numbers"

    x, y = window.center("depth_range", 0.2)
    window.drag((x, y), (x - 60, y), steps=3)
    window.move(AWAY)
    state = painted(window, lambda picture: picture["depth_range"][0] < 3.4)
    assert state["depth_range"][1] == 4.0
    assert apart(pixels(window), by_hand) > 0.005
    choose(window, "depth_mode", 0, 4)
    painted(window, lambda picture: picture["depth_range"] == [near_1, far_99])
    assert apart(pixels(window), normal) < 0.002, "and back"


def _legend(window: WindowDriver) -> np.ndarray:
    """The upper right corner of the view, where the colour bar is."""
    x, y, width, _ = (round(value) for value in window.rect("view"))
    return window.screenshot()[y : y + 200, x + width - 110 : x + width]


def test_the_colour_bar_of_a_legend_is_the_colours_of_the_picture(window: WindowDriver) -> None:
    show(window, "depth", layer=1)
    bar = _legend(window)[41:189, 13:21].reshape(-1, 3)
    assert off_curve(bar, VIRIDIS).mean() < 12
    assert (near(bar, (253, 231, 37), 30)).any() and (near(bar, (68, 1, 84), 30)).any()
    show(window, "picture")
    assert off_curve(_legend(window)[45:180, 13:21].reshape(-1, 3), VIRIDIS).mean() > 20, (
        "no legend"
    )


# ---------------------------------------------------------------------- probe
def test_probe_lists_the_points_behind_the_pixel_under_the_mouse(
    window: WindowDriver, truth: Truth
) -> None:
    show(window, k=K)
    window.click("tab_probe")
    index = truth.inside.kbuffer.index.numpy()
    full = np.argwhere((index >= 0).all(-1))
    empty = np.argwhere((index < 0).all(-1))
    for row, column in (full[len(full) // 3], full[2 * len(full) // 3]):
        probe = _point_at(window, column, row)["probe"]
        assert probe["layers"] == list(range(1, K + 1))
        assert probe["ids"] == index[row, column].tolist()
        depths = truth.inside.kbuffer.depth[row, column].numpy()
        assert np.allclose(probe["depths"], depths, rtol=1e-5)
        assert probe["depths"] == sorted(probe["depths"])
        shares = truth.inside.weight[row, column].numpy()
        assert np.allclose(probe["shares"], shares, atol=1e-4)
    bars = shot(window, "probe_bars")
    left, top, width, height = (round(value) for value in window.rect("probe_bars"))
    table = window.screenshot()[top + height + 30 : top + height + 140, left : left + width]
    line = near(bars, (146, 154, 168), 4).mean(1).max()
    assert line > 0.6, "the ray"
    assert near(bars, (230, 233, 239), 20).any(0).sum() > 10, "a bar for each point"
    assert near(table, (230, 233, 239), 30).sum() > 200, "numbers"
    row, column = empty[len(empty) // 2]
    state = _point_at(window, column, row)
    assert state["probe"]["ids"] == [] and "nothing here" in state["texts"]["probe_line"]
    assert not near(shot(window, "probe_bars"), (230, 233, 239), 20).any(), "no bars"
    window.click("tab_camera")


def _point_at(window: WindowDriver, column: int, row: int) -> State:
    """Put the mouse on a pixel of the picture; returns when it is probed."""
    picture = window.state()["picture"]
    left, top, width, height = picture["box"]
    window.move(
        (
            left + (column + 0.5) * width / picture["width"],
            top + (row + 0.5) * height / picture["height"],
        )
    )

    def there(state: State) -> bool:
        probe = state["probe"]
        return probe is not None and (probe["x"], probe["y"]) == (column, row)

    window.until(there)
    return window.frames(2)
