"""Helpers for the tests of the window: set what is shown by hand, read what the screen shows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from app.look import MODES
from app.options import Options
from app.workbench import Workbench, build
from tests.driver import Place, State, WindowDriver

AWAY = (700.0, 12.0)  # a place of the menu bar where nothing reacts to the mouse
CLEAR = slice(26, 118)  # rows of a picture of 128 pixels that no label covers
ACCENT, FIELD_HOVERED, WARM = (66, 133, 244), (58, 65, 77), (247, 178, 72)  # of the dark theme

# Colours along two perceptual maps (van der Walt and Smith, 2015).
VIRIDIS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]])
INFERNO = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])


# ---------------------------------------------------------------------- by hand
def type_into(window: WindowDriver, place: Place, text: str) -> None:
    """Ctrl+click a slider or a drag field, and type its value."""
    with window.holding("ctrl"):
        window.click(place)
    window.type_text(text)
    window.key("Return")
    window.move(AWAY)


def show(window: WindowDriver, mode: str = "picture", *, k: int = 8, layer: int = 1) -> State:
    """Show this without a wipe, by clicks and keys; returns the state when the screen shows it."""
    state = window.state()
    if state["wipe"] is not None:
        window.key("v")
    if state["at_view"] is None:
        window.key("shift+bracketright")
    if state["k"] != k:
        window.click(window.center("k_bars", (k - 0.5) / state["trained_k"]))
    if state["layer"] != layer:
        window.until(lambda state: len(state["tiles"]) == k)
        x, y, width, height = window.state()["tiles"][layer - 1]
        window.click((x + 0.5 * width, y + 0.7 * height))
    state = window.state()
    if (state["mode"], state["source"]) != (mode, "model"):
        window.key(str((1 + [info.mode for info in MODES].index(mode)) % 10))
    window.move(AWAY)
    return painted(window, main={"source": "model", "mode": mode, "k": k, "layer": layer})


def painted(
    window: WindowDriver,
    wanted: Callable[[State], Any] = lambda picture: True,
    *,
    main: State | None = None,
    other: State | None = None,
) -> State:
    """Wait until these sides, complete, are on the screen.

    Args:
        wanted: of the state's ``picture``.
        main, other: what each side shows; of ``main`` None = anything.
    """

    def ready(state: State) -> bool:
        picture = state["picture"]
        return bool(
            picture
            and not (state["moving"] or picture["moving"] or picture["note"])
            and (main is None or picture["main"] == main)
            and picture["other"] == other
            and wanted(picture)
        )

    window.until(ready)
    # The state is written just before its frame is drawn, and textures come a frame later.
    return window.frames(3)


# ---------------------------------------------------------------------- on the screen
def shot(window: WindowDriver, tag: str) -> np.ndarray:
    """Where a widget is on the screen, [h, w, 3] uint8, once the present state is drawn."""
    window.frames(2)
    return window.picture(tag)


def pixels(window: WindowDriver) -> np.ndarray:
    """The picture [height, width, 3] in 0..1 at its own resolution: the screen at the middle of
    each of its pixels."""
    state = window.state()
    left, top, width, height = state["picture"]["box"]
    columns, rows = state["picture"]["width"], state["picture"]["height"]
    x = (left + (np.arange(columns) + 0.5) * width / columns).astype(int)
    y = (top + (np.arange(rows) + 0.5) * height / rows).astype(int)
    return window.screenshot()[y[:, None], x] / 255.0


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures where no label covers them."""
    return float(np.abs(a[CLEAR] - b[CLEAR]).mean())


def near(image: np.ndarray, color: tuple[int, ...], tolerance: int = 12) -> np.ndarray:
    """Where an image of bytes [..., 3] has this colour."""
    return np.abs(image.astype(int) - np.asarray(color[:3])).max(-1) <= tolerance


def colorful(image: np.ndarray, least: int = 50) -> np.ndarray:
    """Where an image of bytes [..., 3] is neither grey nor nearly so."""
    values = image.astype(int)
    return np.asarray(values.max(-1) - values.min(-1) >= least)


def off_curve(colors: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Distance [N] of colours [N, 3] to the broken line through ``anchors`` [M, 3]."""
    best = np.full(len(colors), np.inf)
    for a, b in pairwise(anchors):
        along = np.clip((colors - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)[:, None]
        best = np.minimum(best, np.linalg.norm(colors - (a + along * (b - a)), axis=1))
    return best


# ---------------------------------------------------------------------- what should be there
def load_run(window: WindowDriver, folder: Path) -> Workbench:
    """The model of the window's newest checkpoint, loaded without a window."""
    run = folder / window.state()["folder"]
    return build(Options(resume=str(run), eval=True), lambda text: None)
