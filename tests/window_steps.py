"""What the tests of the window do again and again: open popups by mouse, look at pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from render.camera import Camera, intrinsics
from tests.driver import State, WindowDriver

ROW = 20  # px: height of a row in menus and lists, at font scale 1
PADDING = 8  # px: around them
MENU_BAR = 23  # px
CLOSE = 30  # levels: how near a pixel is to a colour, overlapping lines and all


def choose(window: WindowDriver, tag: str, row: int, rows: int) -> None:
    """Take a row of a combo, from 0, as a person does: open it, click."""
    x, y, _, height = window.rect(tag)
    window.click(tag)
    tall = rows * ROW + 2 * PADDING
    below = y + height + tall <= window.size()[1]  # else the list opens upwards
    top = y + height if below else y - tall
    window.click((x + 30, top + PADDING + ROW * (row + 0.5) - 2))


def choose_in_menu(window: WindowDriver, menu: str, item: str) -> None:
    """Open a menu of the bar and click an item, whose place is told relative to the open menu."""
    x, y, _, _ = window.rect(menu)
    window.click((x + 12, y + 12))
    window.until(lambda state: state["rects"][item][1] > 0)
    left, top, _, _ = window.rect(item)
    window.click((x + left + 20, MENU_BAR + top + ROW / 2 - 2))


def still(window: WindowDriver, seconds: float = 20.0) -> State:
    """Wait until the camera stands and its own full picture is shown."""

    def sharp(state: State) -> bool:
        picture, wanted = state["picture"], state["camera"]["world_to_camera"]
        if state["moving"] or picture is None or picture["moving"]:
            return False
        return picture["world_to_camera"] == wanted

    return window.until(sharp, seconds)


def camera(state: State) -> Camera:
    """The camera of the window, at the size of the shown picture."""
    picture = state["picture"]
    width, height = picture["width"], picture["height"]
    focal = 0.5 * height / np.tan(0.5 * state["camera"]["fov_y"])
    return Camera(matrix(state), intrinsics((focal, focal), (width / 2, height / 2)), width, height)


def matrix(state: State) -> Tensor:
    """World to camera, [4, 4] float64."""
    return torch.tensor(state["camera"]["world_to_camera"], dtype=torch.float64)


def position(state: State) -> np.ndarray:
    """The optical centre in the world, [3]."""
    w2c = matrix(state).numpy()
    return -w2c[:3, :3].T @ w2c[:3, 3]


def axes(state: State) -> np.ndarray:
    """Right, down and forward in the world, [3, 3]."""
    return matrix(state).numpy()[:3, :3]


def pivot(state: State) -> np.ndarray:
    """What the camera turns around, [3]."""
    return np.array(state["camera"]["pivot"])


def in_window(state: State, uv: Sequence[float] | Tensor) -> tuple[float, float]:
    """A place in the shown picture, in its pixels, as a place in the window."""
    x, y, width, height = state["picture"]["box"]
    picture = state["picture"]
    u, v = (float(value) for value in uv)
    return x + u / picture["width"] * width, y + v / picture["height"] * height


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean difference of two pictures in levels; of different sizes: that of all pixels."""
    if before.shape != after.shape:
        return 255.0
    return float(np.abs(before.astype(float) - after).mean())


def count(picture: np.ndarray, color: Sequence[int], tolerance: int = CLOSE) -> int:
    """Pixels of about this colour."""
    return int((np.abs(picture.astype(int) - np.array(color[:3])).max(-1) <= tolerance).sum())
