"""Where points land: right for scenes that are right, and worse for those that are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.reprojection import measure, observed_error, overlay
from render.camera import Camera
from render.scenes.load import load_scene
from render.scenes.types import Scene
from tests.scenes.healthy import COUNT, SIZE, write_colmap, write_dtu


@pytest.fixture
def colmap(tmp_path: Path) -> Scene:
    write_colmap(tmp_path)
    return load_scene(tmp_path)


def moved(camera: Camera) -> Camera:
    """A fifth of a unit to the side: about a pixel."""
    w2c = camera.world_to_camera.clone()
    w2c[0, 3] += 0.2
    return replace(camera, world_to_camera=w2c)


def test_observations_of_colmap(colmap: Scene) -> None:
    assert len(colmap.views) == COUNT
    assert observed_error(colmap) == pytest.approx(0, abs=1e-6)
    for view in colmap.views:
        view.camera = moved(view.camera)
    assert observed_error(colmap) == pytest.approx(0.2 * 21.9 / 4, rel=0.2)


@pytest.mark.parametrize("normalize", ["on", "off"])
def test_the_way_back_is_part_of_it(tmp_path: Path, normalize: str) -> None:
    write_colmap(tmp_path)
    scene = load_scene(tmp_path, normalize=normalize)  # pyright: ignore[reportArgumentType]
    assert observed_error(scene) == pytest.approx(0, abs=1e-5)


def test_masks_and_colours(tmp_path: Path) -> None:
    write_dtu(tmp_path)
    scene = load_scene(tmp_path, point_budget=3000)
    fit = measure(scene)
    assert fit.visible > 0.9 and fit.inside is not None and fit.inside > 0.8
    assert fit.color is not None and fit.color_shifted is not None and fit.color < 60
    assert fit.observed is None
    assert scene.points is not None
    far = replace(scene.points, xyz=scene.points.xyz + torch.tensor([0.5, 0.0, 0.0]))
    assert (measure(replace(scene, points=far)).inside or 0) < fit.inside - 0.2


def test_the_picture_shows_each_view_three_times(colmap: Scene) -> None:
    picture = overlay(colmap)
    assert picture.size == (3 * SIZE, 4 * SIZE)
