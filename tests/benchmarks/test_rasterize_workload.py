"""The counts that the cost model divides by."""

from __future__ import annotations

import pytest
import torch

from benchmarks.workload import Frame, count_fragments, object_cloud, on_screen, view
from render.kbuffer.rasterize import rasterize


@pytest.mark.parametrize("radius", [0.4, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("size", [(64, 64), (71, 40)])
def test_fragments_are_the_layers_of_an_unlimited_kbuffer(
    radius: float, size: tuple[int, int]
) -> None:
    camera = view(*size)
    xyz = object_cloud(400)
    counted = count_fragments(on_screen(xyz, camera), radius, *size)
    kbuffer = rasterize(xyz, camera, 255, radius=radius, mode="px")
    assert int(kbuffer.valid[..., -1].sum()) == 0  # no pixel is full: none was left out
    assert counted == int(kbuffer.valid.sum()) > 0


def test_points_behind_the_camera_and_outside_make_no_fragments() -> None:
    inside = torch.tensor([[5.0, 5.0, 1.0]])
    assert count_fragments(inside, 1.0, 10, 10) == 4
    others = torch.tensor([[5.0, 5.0, -1.0], [30.0, 5.0, 1.0], [5.0, -3.0, 1.0]])
    assert count_fragments(torch.cat([inside, others]), 1.0, 10, 10) == 4


def test_the_floor_counts_points_and_slots() -> None:
    assert Frame(1000, 2, width=10, height=20).least_bytes == 12 * 1000 + 12 * 10 * 20 * 2
