"""The probe: filled layers of one pixel, in numbers."""

from __future__ import annotations

import pytest
import torch

from app.probe import ProbeRow, probe
from app.snapshot import ViewRequest, ViewResult
from render.camera import Camera
from render.kbuffer import KBuffer
from render.methods.base import Inspection, Render


def result(alpha: bool = True) -> ViewResult:
    """3 x 2 pixels; the pixel at column 2, row 1 has layers 1 and 2 of 3."""
    index = torch.full((2, 3, 3), -1, dtype=torch.int32)
    depth, distance = torch.full((2, 3, 3), -1.0), torch.full((2, 3, 3), -1.0)
    weight, color = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, 3)
    index[1, 2, :2] = torch.tensor([70000, 4])
    depth[1, 2, :2] = torch.tensor([1.5, 2.5])
    distance[1, 2, :2] = torch.tensor([0.25, 0.0])
    weight[1, 2, :2] = torch.tensor([0.5, 0.25])
    color[1, 2, 0], color[1, 2, 1] = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    inside = Inspection(KBuffer(index, depth, distance, weight), color, weight)
    rgb = torch.zeros(2, 3, 3)
    rgb[1, 2] = torch.tensor([0.25, 0.5, 0.75])
    camera = Camera.look_at((3.0, 0, 0), (0.0, 0, 0), width=3, height=2)
    picture = Render(rgb, 0.75 * torch.ones(2, 3) if alpha else None)
    return ViewResult(ViewRequest(camera), {3: picture}, {3: inside, 2: inside}, rgb[0, 0], 0, 0.0)


def test_rows_of_a_known_pixel() -> None:
    found = probe(result(), 3, 2, 1)
    assert found is not None and (found.x, found.y, found.k) == (2, 1, 3)
    assert found.rows == (
        ProbeRow(1, 70000, 1.5, 0.5, 0.5, (1.0, 0.5, 0.0)),
        ProbeRow(2, 4, 2.5, 0.0, 0.25, (0.0, 0.0, 1.0)),
    )
    assert found.rgb == (0.25, 0.5, 0.75) and found.alpha == 0.75


def test_an_empty_pixel_has_no_rows() -> None:
    found = probe(result(alpha=False), 3, 1, 1)
    assert found is not None and found.rows == () and found.rgb == (0, 0, 0)
    assert found.alpha is None


def test_layers_without_a_picture() -> None:
    found = probe(result(), 2, 2, 1)
    assert found is not None and len(found.rows) == 2
    assert found.rgb is None and found.alpha is None


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (3, 0), (0, 2)])
def test_outside_there_is_nothing(place: tuple[int, int]) -> None:
    assert probe(result(), 3, *place) is None
    assert probe(result(), 8, 0, 0) is None


def test_a_model_that_diverged_can_be_looked_at() -> None:
    diverged = result()
    diverged.renders[3].rgb[1, 2] = float("nan")
    diverged.insides[3].color[1, 2, 0, 1] = float("nan")
    found = probe(diverged, 3, 2, 1)
    assert found is not None and found.rgb == (0, 0, 0)
    assert found.rows[0].color == (1.0, 0.0, 0.0)
