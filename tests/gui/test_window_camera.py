"""Every way to move the camera of the window, by mouse and keys: where it is and what is seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.overlay import _AXES, _SPLIT_COLORS
from app.shortcuts import help_rows
from render.scenes.load import load_scene
from render.scenes.types import Scene, SplitName
from tests.driver import MIDDLE, RIGHT, ROOT, State, WindowDriver
from tests.window_steps import (
    axes,
    camera,
    change,
    choose,
    count,
    in_window,
    matrix,
    pivot,
    position,
    still,
)

LEGO = ROOT / "assets/scenes/lego"
START = (-0.0097, -3.504, 1.439)  # of the camera: all of the scene from slightly above
SHOWN = 1.0  # levels: mean change of the view that a person sees


@pytest.fixture(scope="module")
def scene() -> Scene:
    return load_scene(LEGO, downscale=4)


@pytest.fixture(scope="module")
def opened(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowDriver]:
    """One window for all tests of this file, with a model that trained a moment and rests."""
    folder = tmp_path_factory.mktemp("camera")
    arguments = ["--scene", LEGO, "--downscale", "4", "--steps", "5", "--out", "run"]
    settings = {"version": 1, "smoothing": 0.0}
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = {"KBUFFERS_CONFIG": str(folder)}
    with WindowDriver(arguments, folder, display, environment=environment) as driver:
        driver.until(lambda state: state["state"] == "finished", 60)
        choose(driver, "still_scale", 1, 5)  # 100 %: how sharp is not to depend on the load
        yield driver


@pytest.fixture
def window(opened: WindowDriver) -> WindowDriver:
    """At the start camera, in the Camera tab, the keyboard in the window."""
    if not opened.state()["focused"]:
        opened.focus()
    if "camera_line" not in opened.state()["texts"]:
        opened.click("tab_camera")
    opened.key("shift+r")
    opened.until(lambda state: np.allclose(position(state), START, atol=1e-3))
    still(opened)
    return opened


def distance(state: State) -> float:
    return float(np.linalg.norm(pivot(state) - position(state)))


def view(window: WindowDriver) -> np.ndarray:
    """The picture as it is on the screen, without the lines in its upper corners."""
    window.frames()  # the state is told before the screen shows it
    return window.picture("view")[100:]


def seen(window: WindowDriver, before: State, picture: np.ndarray) -> State:
    """The camera has moved and come to rest, and the picture is another one."""
    window.until(lambda state: state["camera"] != before["camera"])
    state = still(window)
    assert change(picture, view(window)) > SHOWN
    return state


# ---------------------------------------------------------------------- mouse
def test_left_drag_orbits(window: WindowDriver) -> None:
    before, picture = window.state(), view(window)
    window.drag("view", window.center("view", 0.65, 0.55), steps=3)
    after = seen(window, before, picture)
    np.testing.assert_allclose(pivot(after), pivot(before), atol=1e-9)
    assert distance(after) == pytest.approx(distance(before))
    assert np.linalg.norm(position(after) - position(before)) > 0.3


def test_right_drag_looks_around(window: WindowDriver) -> None:
    before, picture = window.state(), view(window)
    window.drag("view", window.center("view", 0.6, 0.5), button=RIGHT, steps=3)
    after = seen(window, before, picture)
    np.testing.assert_allclose(position(after), position(before), atol=1e-9)
    assert axes(after)[2] @ axes(before)[0] > 0.05  # it looks to the right


@pytest.mark.parametrize("how", ["middle", "shift"])
def test_pan_moves_sideways_and_the_scene_stays_under_the_mouse(
    window: WindowDriver, how: str
) -> None:
    before, picture = window.state(), view(window)
    end = window.center("view", 0.6, 0.6)
    if how == "middle":
        window.drag("view", end, button=MIDDLE, steps=3)
    else:
        with window.holding("shift"):
            window.drag("view", end, steps=3)
    after = seen(window, before, picture)
    np.testing.assert_allclose(axes(after), axes(before), atol=1e-9)
    moved = position(after) - position(before)
    assert abs(moved @ axes(before)[2]) < 1e-9
    assert np.linalg.norm(moved) > 0.1
    old_pivot = torch.from_numpy(pivot(before))[None]
    uv, _ = camera(after).project(old_pivot)
    np.testing.assert_allclose(in_window(after, uv[0]), end, atol=3)


def test_wheel_goes_nearer_only_over_the_view(window: WindowDriver) -> None:
    before, picture = window.state(), view(window)
    window.wheel("panels", 4)
    window.wheel("status", -4)
    assert window.frames()["camera"] == before["camera"]
    window.wheel("view", 3)
    after = seen(window, before, picture)
    assert distance(after) == pytest.approx(distance(before) * 1.15**-3)
    window.wheel("view", -3)
    assert distance(still(window)) == pytest.approx(distance(before))


@pytest.mark.parametrize("how", ["double click", "F"])
def test_focus_turns_to_what_is_under_the_mouse(window: WindowDriver, how: str) -> None:
    before, picture = window.state(), view(window)
    uv = torch.tensor([0.5, 0.55], dtype=torch.float64) * torch.tensor(
        [before["picture"]["width"], before["picture"]["height"]]
    )
    place = in_window(before, uv)
    if how == "F":
        window.move(place)
        window.frames()
        window.key("f")
    else:
        window.double_click(place)
    after = window.until(lambda state: state["camera"]["pivot"] != before["camera"]["pivot"])
    hit, z = camera(before).project(torch.from_numpy(pivot(after))[None])
    np.testing.assert_allclose(in_window(before, hit[0]), place, atol=8)  # a pixel of the picture
    assert 0 < float(z[0]) < 1.5 * distance(before)
    after = seen(window, before, picture)
    middle, _ = camera(after).project(torch.from_numpy(pivot(after))[None])
    np.testing.assert_allclose(in_window(after, middle[0]), window.center("view"), atol=1)


# ---------------------------------------------------------------------- keys
@pytest.mark.parametrize(
    ("key", "axis", "sign"), [("w", 2, 1), ("s", 2, -1), ("a", 0, -1), ("d", 0, 1)]
)
def test_fly_along_the_axes_of_the_camera(
    window: WindowDriver, key: str, axis: int, sign: int
) -> None:
    before, picture = window.state(), view(window)
    window.hold(key, 0.25)
    after = seen(window, before, picture)
    way = position(after) - position(before)
    assert way @ axes(before)[axis] * sign == pytest.approx(np.linalg.norm(way))
    np.testing.assert_allclose(axes(after), axes(before), atol=1e-9)


def test_fly_up_and_down(window: WindowDriver) -> None:
    before, picture = window.state(), view(window)
    window.hold("e", 0.25)
    up = seen(window, before, picture)
    assert position(up)[2] > position(before)[2] + 0.05
    window.hold("q", 0.25)
    assert position(still(window))[2] < position(up)[2] - 0.05


def test_shift_flies_faster_and_alt_slower(window: WindowDriver) -> None:
    """The way per second of holding, whatever the frame rate: between two states of the hold."""

    def speed(*modifiers: str) -> float:
        window.key("shift+r")
        still(window)
        for name in modifiers:
            window._xdotool("keydown", name)
        with window.holding("d"):
            window.frames(6)
        for name in modifiers:
            window._xdotool("keyup", name)
        return float(np.linalg.norm(position(still(window)) - position(start)))

    start = window.state()
    slow, plain, fast = speed("alt"), speed(), speed("shift")
    assert slow < 0.6 * plain < 0.6 * 0.6 * fast


def test_keys_are_released_when_the_window_loses_the_focus(window: WindowDriver) -> None:
    start = position(window.state())
    with window.holding("d"):
        window.until(lambda state: np.linalg.norm(position(state) - start) > 0.1)
        window.unfocus()
        window.until(lambda state: not state["focused"])
        here = still(window)["camera"]
        assert window.frames(3)["camera"] == here
    window.focus()
    window.until(lambda state: state["focused"])
    window.frames()
    window.hold("a", 0.1)
    assert still(window)["camera"] != here


def test_typing_does_not_fly(window: WindowDriver) -> None:
    before = window.state()
    window.click("tab_scene")
    window.click("path")
    window.type_text("wasd qe tbkp1[]")
    state = window.frames()
    for name in ("camera", "state", "k", "mode", "preview", "at_view", "saved", "message_count"):
        assert state[name] == before[name], name
    window.key("ctrl+a")
    window.key("BackSpace")
    window.click(window.center("view", 0.9, 0.1))
    window.hold("w", 0.1)
    assert still(window)["camera"] != before["camera"]


def test_speed_keys(window: WindowDriver) -> None:
    before = window.state()["settings"]["speed"]
    window.key("equal")
    window.until(lambda state: state["settings"]["speed"] == pytest.approx(1.4 * before))
    window.key("minus")
    window.until(lambda state: state["settings"]["speed"] == pytest.approx(before))


# ---------------------------------------------------------------------- panel
def test_reset_by_key_and_by_button(window: WindowDriver) -> None:
    start = window.state()["camera"]
    for reset in (lambda: window.key("shift+r"), lambda: window.click("reset_camera")):
        window.drag("view", window.center("view", 0.7, 0.6), steps=2)
        assert still(window)["camera"] != start
        reset()
        np.testing.assert_allclose(
            matrix(still(window)), np.array(start["world_to_camera"]), atol=1e-12
        )


def test_sliders(window: WindowDriver) -> None:
    before, picture = window.state(), view(window)
    window.click(window.center("fov", 0.8))
    state = seen(window, before, picture)
    assert 75 < math.degrees(state["camera"]["fov_y"]) < 89
    window.click(window.center("speed", 0.5))
    window.until(lambda state: 4 < state["settings"]["speed"] < 6)
    window.click(window.center("smoothing", 0.98))
    window.until(lambda state: state["settings"]["smoothing"] > 0.45)
    window.wheel("view", 2)
    window.until(lambda state: state["moving"])  # for seconds
    window.click(window.center("smoothing", 0.01))
    window.until(lambda state: state["settings"]["smoothing"] == 0)
    assert not window.frames()["moving"]
    window.click(window.center("speed", 0.1))


def test_up_axis(window: WindowDriver) -> None:
    before, picture = window.state(), view(window)
    choose(window, "up", 6, 7)  # -z
    state = seen(window, before, picture)
    assert state["camera"]["up"] == [0, 0, -1]
    assert axes(state)[1][2] > 0.5  # the picture's down is the scene's up
    choose(window, "up", 0, 7)
    window.until(lambda state: state["camera"]["up"] == [0, 0, 1])
    still(window)
    assert change(picture, view(window)) < SHOWN


# ---------------------------------------------------------------------- photographs
def test_keys_step_through_the_photographs(window: WindowDriver, scene: Scene) -> None:
    pictures = []
    steps: tuple[tuple[str, SplitName, int], ...] = (
        ("bracketright", "train", 1),
        ("bracketright", "train", 2),
        ("bracketleft", "train", 1),
        ("braceright", "test", 1),
        ("braceleft", "test", 20),
    )
    for key, split, place in steps:
        window.key(key)
        size = len(scene.splits[split])
        window.until(lambda state, want=[split, place, size]: state["place"] == want)
        state = still(window)
        photo = scene.split(split)[place - 1].camera
        assert torch.equal(matrix(state), photo.world_to_camera)
        assert (state["picture"]["width"], state["picture"]["height"]) == (64, 64)
        assert state["picture"]["psnr"] > 10
        assert state["texts"]["camera_line"].startswith(f"{split} photo {place} of {size}")
        pictures.append(view(window))
    assert change(pictures[0], pictures[2]) < 0.2  # back at the first
    assert min(change(pictures[i], pictures[i + 1]) for i in range(4)) > SHOWN


def test_buttons_step_through_the_photographs(window: WindowDriver) -> None:
    for tag, split, place in (
        ("next_test", "test", 1),
        ("previous_test", "test", 20),
        ("previous_train", "train", 60),
        ("next_train", "train", 1),
    ):
        window.click(tag)
        window.until(lambda state, want=[split, place]: state["place"][:2] == want)
    window.drag("view", window.center("view", 0.55, 0.5), steps=2)
    assert still(window)["place"] is None  # left it


# ---------------------------------------------------------------------- overlays
def test_cameras_are_drawn_and_a_click_goes_there(window: WindowDriver, scene: Scene) -> None:
    window.wheel("view", -5)
    state = still(window)
    train, test = _SPLIT_COLORS["train"], _SPLIT_COLORS["test"]
    before = view(window)
    window.click("frusta")
    window.until(lambda state: state["settings"]["show_frusta"])
    after = view(window)
    for color in (train, test):
        assert count(after, color) > count(before, color) + 100

    def places() -> dict[int, tuple[float, float]]:
        here, found = camera(state), {}
        left, top, width, height = window.rect("view")
        for index, photo in enumerate(scene.views):
            uv, z = here.project(photo.camera.position[None])
            x, y = in_window(state, uv[0])
            if float(z[0]) > 0.1 and 20 < x - left < width - 20 and 110 < y - top < height - 20:
                found[index] = (x, y)
        return found

    drawn = places()

    def alone(index: int) -> float:
        return min(math.dist(drawn[index], p) for i, p in drawn.items() if i != index)

    best = max(drawn, key=alone)
    window.click(drawn[best])
    window.until(lambda state: state["at_view"] == best)
    assert torch.equal(matrix(still(window)), scene.views[best].camera.world_to_camera)
    assert count(view(window), train) < count(after, train)  # none over the photograph's view
    window.key("c")
    window.until(lambda state: not state["settings"]["show_frusta"])


def test_grid_and_axes(window: WindowDriver, scene: Scene) -> None:
    window.drag("view", window.center("view", 0.7, 0.55), steps=2)
    state = still(window)
    before = view(window)
    window.key("x")
    window.until(lambda state: state["settings"]["show_grid"])
    after = view(window)
    assert change(before, after) > 0.2
    middles = scene.bounds.center + 0.25 * scene.bounds.radius * torch.eye(3, dtype=torch.float64)
    uv, _ = camera(window.state()).project(middles)
    for (x, y), color in zip((in_window(state, place) for place in uv), _AXES, strict=True):
        left, top, _, _ = window.rect("view")
        column, row = round(x - left), round(y - top) - 100
        assert count(after[row - 3 : row + 4, column - 3 : column + 4], color, 12) >= 3
    window.click("grid")
    window.until(lambda state: not state["settings"]["show_grid"])
    assert change(before, view(window)) < 0.05


# ---------------------------------------------------------------------- resolution
def test_resolution_while_moving_and_at_rest(window: WindowDriver) -> None:
    def flying() -> State:
        with window.holding("d"):
            state = window.until(lambda state: state["picture"]["moving"])
            return window.until(lambda s: s["picture"]["number"] > state["picture"]["number"])

    choose(window, "move_scale", 3, 4)  # 25 %
    assert flying()["picture"]["height"] == 16
    assert still(window)["picture"]["height"] == 64
    choose(window, "move_scale", 1, 4)  # 100 %: no reduction
    assert flying()["picture"]["height"] == 64
    still(window)
    for row, height in ((2, 128), (4, 16), (1, 64)):  # 200 %, 25 %, 100 %
        choose(window, "still_scale", row, 5)
        window.until(lambda state, want=height: state["picture"]["height"] == want)
    choose(window, "move_scale", 0, 4)


# ---------------------------------------------------------------------- window
def test_preview_of_the_points(window: WindowDriver) -> None:
    def after(act: Callable[[], None]) -> np.ndarray:
        """The view, once a new picture is there."""
        number = window.state()["picture"]["number"]
        act()
        window.until(lambda state: state["picture"]["number"] > number)
        still(window)
        return view(window)

    model = view(window)
    points = after(lambda: window.key("b"))
    assert window.state()["preview"] and change(model, points) > SHOWN
    large = after(lambda: window.click(window.center("point_size", 0.9)))
    assert change(points, large) > SHOWN
    turned = after(lambda: window.drag("view", window.center("view", 0.6, 0.5), steps=2))
    assert change(large, turned) > SHOWN
    window.key("shift+r")
    back = after(lambda: window.key("b"))
    assert not window.state()["preview"] and change(model, back) < SHOWN


def test_panels_can_be_hidden(window: WindowDriver) -> None:
    before = window.state()["rects"]
    x, y, width, height = (round(v) for v in before["panels"])
    top = round(before["tab_camera"][1])  # above it are bars and plots, which change by themselves

    def panels() -> np.ndarray:
        return window.screenshot()[top : y + height, x : x + width]

    shown = panels()
    window.hold("h", 0.6)  # longer than a tap: once, and no text field takes the key
    state = window.until(lambda state: "panels" not in state["rects"])
    assert state["rects"]["view"][2] > before["view"][2] + 300
    still(window)
    assert change(shown, panels()) > 5
    window.hold("h", 0.6)
    state = window.until(lambda state: "panels" in state["rects"])
    assert state["rects"]["view"] == before["view"]
    window.frames()
    assert change(shown, panels()) < 1
    window.key("braceright")  # the keyboard still belongs to the view
    window.until(lambda state: state["place"] == ["test", 1, 20])


def test_screenshot_is_what_is_shown(window: WindowDriver, scene: Scene) -> None:
    window.key("braceright")
    window.until(lambda state: state["place"] == ["test", 1, 20])
    state = still(window)
    run = window.state_file.parent / state["folder"]
    window.key("p")
    path = Path(
        window.until(lambda state: "shot_" in state["messages"][-1])["messages"][-1]
        .removeprefix("Saved ")
        .removesuffix(".")
    )
    path = window.state_file.parent / path
    assert path.parent == run / "images"
    saved = np.asarray(Image.open(path))
    assert saved.shape == (64, 64, 3)
    x, y, width, height = (round(v) for v in state["picture"]["box"])
    screen = window.screenshot()[y : y + height, x : x + width]
    # The screen shows it larger, smoothly; its upper edge has lines of text.
    large = Image.fromarray(saved).resize((width, height), Image.Resampling.BILINEAR)
    lower = slice(height // 4, None)
    assert change(screen[lower], np.asarray(large)[lower]) < 2
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["step"] == state["step"]
    assert told["camera"] == scene.split("test")[0].camera.to_json()


def test_help_shows_every_action_at_once(window: WindowDriver) -> None:
    window.frames()
    before = window.screenshot()
    window.key("F1")
    x, y, width, height = window.rect("help")
    assert x >= 0 and y >= 0 and x + width <= 1280 and y + height <= 800
    texts = window.frames(3)["texts"]
    missing = [label for _, _, label in help_rows() if texts.get(f"help_{label}") != label]
    assert not missing
    assert change(before, window.screenshot()) > 5
    window.key("Escape")
    window.until(lambda state: "help" not in state["rects"])
    window.frames()
    assert change(before, window.screenshot()) < 1
