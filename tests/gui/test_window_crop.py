"""The crop box: drawn over the view, moved with sliders, applied to the points of the scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.theme import DARK
from render.scenes.clouds.pointcloud import write_ply
from render.scenes.types import PointCloud
from tests.driver import WindowDriver
from tests.window_steps import count


@pytest.fixture
def window(open_window: Callable[..., WindowDriver], tmp_path: Path) -> WindowDriver:
    """A cube of 4,000 grey points far from the origin, and its Scene tab."""
    xyz = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    rgb = torch.full((4000, 3), 0.5)
    cloud = PointCloud(torch.from_numpy(xyz).float(), rgb, offset=(500_000.0, 4_000_000.0, 0.0))
    write_ply(tmp_path / "cube.ply", cloud)
    window = open_window("--scene", tmp_path / "cube.ply")
    window.until(lambda state: state["points"] == 4000 and state["picture"])
    window.click("tab_scene")
    window.until(lambda state: "crop" in state["rects"])
    return window


def lines(window: WindowDriver) -> int:
    """Pixels of the box in the view."""
    window.frames()
    return count(window.picture("view"), DARK.warm[:3])


def test_half_of_the_points_are_cut_off_and_come_back(window: WindowDriver) -> None:
    assert lines(window) < 20 and "crop_apply" not in window.state()["rects"]
    window.click((window.rect("crop")[0] + 8, window.center("crop")[1]))
    window.until(lambda state: "crop_x_max" in state["rects"])
    window.until(lambda _: lines(window) > 500)
    start = window.center("crop_x_max", across=0.97)
    window.drag(start, window.center("crop_x_max", across=0.5))
    window.click("crop_apply")
    state = window.until(lambda state: 0 < state["points"] < 4000 and not state["loading"])
    assert 1700 < state["points"] < 2300
    state = window.until(lambda state: "crop_apply" not in state["rects"])
    assert "Crop box" in state["texts"]["scene_text"]
    window.click("crop_reset")
    window.until(lambda state: state["points"] == 4000 and not state["loading"])
