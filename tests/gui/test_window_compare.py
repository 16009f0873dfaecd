"""The comparisons of the real window: photo, difference and wipe, by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.look import MODES
from render.methods.base import Inspection
from tests.driver import ROOT, State, WindowDriver
from tests.window_looks import (
    ACCENT,
    AWAY,
    CLEAR,
    INFERNO,
    WARM,
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

K, SIZE = 8, 128  # layers; pixels of the small photographs
SCENE = ROOT / "assets" / "scenes" / "lego"
BESIDE = 4  # columns on each side of the wipe line that may show the line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def window(display: str, folder: Path) -> Iterator[WindowDriver]:
    """A small model at its last step, with the panel of comparisons in front."""
    arguments = ("--scene", "lego", "--downscale", "2", "--steps", "20", "--eval-every", "never")
    with WindowDriver(arguments, folder, display) as driver:
        driver.until(lambda state: state["state"] == "finished" and state["sweep"], 60)
        driver.click("tab_compare")
        yield driver


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """The first test photograph over white, straight from its file, [SIZE, SIZE, 3]."""
    frames = json.loads((SCENE / "transforms_test.json").read_text(encoding="utf-8"))["frames"]
    image = Image.open((SCENE / frames[0]["file_path"]).with_suffix(".png")).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    whole = Image.alpha_composite(white, image).convert("RGB")
    small = whole.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(small) / 255.0


@pytest.fixture(scope="module")
def truth(window: WindowDriver, folder: Path) -> tuple[dict[int, np.ndarray], Inspection]:
    """Pictures by K and the layers of the model that the window has saved."""
    bench = load_run(window, folder)
    camera = bench.scene.split("test")[0].camera
    white = torch.ones(3)
    renders = {k: bench.renderer.render(camera, white, k).rgb.numpy() for k in (1, 4, K)}
    return renders, bench.renderer.inspect(camera, K)


def side(source: str = "model", mode: str = "picture", k: int = K, layer: int = 1) -> State:
    """A side of the picture as the state tells it."""
    return {"source": source, "mode": mode, "k": k, "layer": layer}


def colors(inside: Inspection, layer: int) -> np.ndarray:
    """The points of a layer, [SIZE, SIZE, 3]; NaN where there are none."""
    image = inside.color[..., layer - 1, :].clamp(0, 1).clone()
    image[~inside.kbuffer.valid[..., layer - 1]] = torch.nan
    return image.numpy()


def check_sides(seen: np.ndarray, left: np.ndarray, right: np.ndarray, wipe: float) -> None:
    """``seen`` is ``left`` up to the wipe line and ``right`` from there on."""
    column = round(wipe * SIZE)
    for part, expected, other in (
        (slice(0, column - BESIDE), left, right),
        (slice(column + BESIDE, SIZE), right, left),
    ):
        shown = seen[CLEAR, part]
        error = np.nanmean(np.abs(shown - expected[CLEAR, part]))
        assert error < 0.02
        assert np.nanmean(np.abs(shown - other[CLEAR, part])) > 2 * error, "not the other side"


# ---------------------------------------------------------------------- photograph
def test_photo_and_back(window: WindowDriver, photo: np.ndarray) -> None:
    show(window)
    model = pixels(window)
    window.click("photo")
    window.move(AWAY)
    state = painted(window, main=side("photo"))
    assert state["source"] == "photo" and state["place"] == ["test", 1, 20]
    assert apart(pixels(window), photo) < 0.01
    assert apart(model, photo) > 0.02, "the model is not that good"
    assert near(shot(window, "photo"), ACCENT).mean() > 0.4, "the button is lit"
    window.click("photo")
    window.move(AWAY)
    painted(window, main=side())
    assert apart(pixels(window), model) < 0.002
    assert not near(shot(window, "photo"), ACCENT).any()
    window.key("g")
    painted(window, main=side("photo"))
    window.key("g")
    painted(window, main=side())


def test_from_a_free_camera_the_nearest_photo_comes(window: WindowDriver) -> None:
    show(window)
    x, y = window.center("view")
    window.drag((x, y), (x + 30, y), steps=2)
    assert window.until(lambda state: not state["moving"])["at_view"] is None
    window.click("photo")
    window.move(AWAY)
    state = painted(window, main=side("photo"))
    assert state["source"] == "photo" and state["at_view"] is not None
    seen = shot(window, "view")
    window.drag((x, y), (x - 30, y), steps=2)
    window.move(AWAY)
    state = painted(window, main=side())
    assert state["at_view"] is None, "a camera that moves has left the photo"
    assert np.abs(shot(window, "view") - seen.astype(float)).mean() > 2


def test_difference_is_the_error_as_a_heat_map(
    window: WindowDriver,
    photo: np.ndarray,
    truth: tuple[dict[int, np.ndarray], Inspection],
) -> None:
    show(window, k=1)
    window.click("difference")
    window.move(AWAY)
    state = painted(window, main=side("difference", k=1))
    assert state["picture"]["psnr"] is not None and state["picture"]["legend"]
    seen = pixels(window)[CLEAR] * 255
    error = np.abs(truth[0][1] - photo).mean(-1)[CLEAR]
    assert (off_curve(seen.reshape(-1, 3), INFERNO) < 25).mean() > 0.95
    assert seen[error < 0.005].mean() < 10, "black where both are white"
    bright = seen.sum(-1)
    assert np.corrcoef(bright.ravel(), error.ravel())[0, 1] > 0.9, "the brighter the worse"
    assert near(shot(window, "difference"), ACCENT).mean() > 0.4
    window.key("o")
    painted(window, main=side(k=1))


# ---------------------------------------------------------------------- wipe
def test_wipe_on_and_off(
    window: WindowDriver,
    photo: np.ndarray,
    truth: tuple[dict[int, np.ndarray], Inspection],
) -> None:
    show(window)
    alone = pixels(window)
    window.key("v")
    state = painted(window, main=side(), other=side("photo"))
    check_sides(pixels(window), truth[0][K], photo, state["wipe"])
    assert _line(window) == pytest.approx(state["wipe"], abs=0.005)
    assert near(shot(window, "wipe"), ACCENT).mean() > 0.4
    window.click("wipe")
    window.move(AWAY)
    painted(window, main=side())
    assert apart(pixels(window), alone) < 0.002
    assert _line(window) is None


def test_render_against_photo(
    window: WindowDriver, photo: np.ndarray, truth: tuple[dict[int, np.ndarray], Inspection]
) -> None:
    show(window, "depth", k=4)
    window.click("wipe_photo")
    window.move(AWAY)
    state = painted(window, main=side(), other=side("photo"))
    check_sides(pixels(window), truth[0][K], photo, state["wipe"])
    assert state["picture"]["psnr"] is not None and state["picture"]["other_psnr"] is None


def test_all_layers_against_one(
    window: WindowDriver, truth: tuple[dict[int, np.ndarray], Inspection]
) -> None:
    show(window, "depth", k=4)
    window.click("wipe_k")
    window.move(AWAY)
    state = painted(window, main=side(), other=side(k=1))
    check_sides(pixels(window), truth[0][K], truth[0][1], state["wipe"])
    assert state["picture"]["psnr"] > state["picture"]["other_psnr"]


def test_layer_against_the_next(
    window: WindowDriver, truth: tuple[dict[int, np.ndarray], Inspection]
) -> None:
    show(window, "color", layer=2)
    window.click("wipe_layer")
    window.move(AWAY)
    state = painted(window, main=side(mode="color", layer=2), other=side(mode="color", layer=3))
    left, right = colors(truth[1], 2), colors(truth[1], 3)
    check_sides(pixels(window), left, right, state["wipe"])


def test_dragging_the_line_moves_it_and_not_the_camera(
    window: WindowDriver, truth: tuple[dict[int, np.ndarray], Inspection]
) -> None:
    show(window)
    window.click("wipe_k")
    before = painted(window, main=side(), other=side(k=1))
    left, top, width, height = before["picture"]["box"]
    for share in (0.25, 0.7):
        line = (left + window.state()["wipe"] * width, top + 0.4 * height)
        window.drag(line, (left + share * width, line[1]), steps=3)
        window.move(AWAY)
        state = painted(window, lambda p, s=share: abs(p["wipe"] - s) < 0.01, main=side(),
                        other=side(k=1))  # fmt: skip
        assert state["camera"] == before["camera"] and state["at_view"] == before["at_view"]
        assert _line(window) == pytest.approx(share, abs=0.01)
        check_sides(pixels(window), truth[0][K], truth[0][1], state["wipe"])
    window.drag((left + state["wipe"] * width, top + 0.4 * height), (left - 60, top), steps=3)
    state = window.until(lambda state: state["wipe"] == 0)
    window.drag((left + 2, top + 0.4 * height), (left + 0.5 * width, top + 0.4 * height), steps=3)
    window.until(lambda state: abs(state["wipe"] - 0.5) < 0.02)


def _line(window: WindowDriver) -> float | None:
    """Where the wipe line stands on the screen, 0 = left edge of the picture."""
    left, top, width, height = (round(v) for v in window.state()["picture"]["box"])
    band = window.screenshot()[top + round(0.2 * height) : top + round(0.4 * height)]
    found = np.nonzero(near(band[:, left - 2 : left + width + 2], WARM, 60).mean(0) > 0.9)[0]
    return float(found.mean() - 2 + 0.5) / width if len(found) else None


# ---------------------------------------------------------------------- the right side
def test_the_right_side_can_be_anything(
    window: WindowDriver, photo: np.ndarray, truth: tuple[dict[int, np.ndarray], Inspection]
) -> None:
    renders, inside = truth
    show(window)
    assert "other_k" not in window.state()["rects"], "without a wipe there is no right side"
    window.click("wipe_k")
    painted(window, main=side(), other=side(k=1))

    type_into(window, "other_k", "4")
    painted(window, main=side(), other=side(k=4))
    check_right(window, renders[4], renders[1])

    x, y, width, _ = window.rect("other_k")
    window.drag((x + 0.45 * width, y + 9), (x + 0.99 * width, y + 9), steps=3)
    window.move(AWAY)
    painted(window, main=side(), other=side(k=K))
    check_right(window, renders[K], renders[1])

    color = [info.mode for info in MODES].index("color")
    choose(window, "other_mode", color, len(MODES))
    window.move(AWAY)
    painted(window, main=side(), other=side(mode="color"))
    check_right(window, colors(inside, 1), colors(inside, 5))

    x, y, width, _ = window.rect("other_layer")
    window.drag((x + 0.07 * width, y + 9), (x + 0.57 * width, y + 9), steps=3)
    window.move(AWAY)
    painted(window, main=side(), other=side(mode="color", layer=5))
    check_right(window, colors(inside, 5), colors(inside, 1))

    choose(window, "other_source", 1, 3)
    window.move(AWAY)
    painted(window, main=side(), other=side("photo", "color", layer=5))
    check_right(window, photo, renders[1])

    choose(window, "other_source", 2, 3)
    window.move(AWAY)
    painted(window, main=side(), other=side("difference", "color", layer=5))
    right = pixels(window)[CLEAR, SIZE // 2 + BESIDE :].reshape(-1, 3) * 255
    assert (off_curve(right, INFERNO) < 25).mean() > 0.95

    choose(window, "other_source", 0, 3)
    window.move(AWAY)
    painted(window, main=side(), other=side(mode="color", layer=5))


def check_right(window: WindowDriver, expected: np.ndarray, other: np.ndarray) -> None:
    """The right side is ``expected``, and not ``other``."""
    right = (CLEAR, slice(round(window.state()["wipe"] * SIZE) + BESIDE, SIZE))
    seen = pixels(window)[right]
    error = np.nanmean(np.abs(seen - expected[right]))
    assert error < 0.02
    assert np.nanmean(np.abs(seen - other[right])) > 2 * error
