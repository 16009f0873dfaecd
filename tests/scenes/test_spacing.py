"""Distances between points: in places of a large cloud as in the whole of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor

from render.scenes import spacing


def surface(n: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    ball = torch.nn.functional.normalize(torch.randn(n // 2, 3, generator=g), dim=1)
    flat = torch.cat([2 * torch.rand(n - n // 2, 2, generator=g), torch.zeros(n - n // 2, 1)], 1)
    return torch.cat([ball, flat])[torch.randperm(n, generator=g)]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand points count as many."""
    monkeypatch.setattr(spacing, "_FEW", 50_000)


def true_distances(xyz: Tensor) -> np.ndarray:
    points = xyz.double().numpy()
    return KDTree(points).query(points[::50], k=5)[0][:, 4]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("case", ["surface", "volume", "strays"])
def test_places_are_like_the_whole(case: str) -> None:
    xyz = surface(100_000)
    if case == "volume":
        xyz = torch.rand(100_000, 3, generator=torch.Generator().manual_seed(0))
    if case == "strays":
        xyz = torch.cat([xyz, 1000 * torch.rand(50, 3, generator=torch.Generator().manual_seed(1))])
    found = spacing.neighbour_distances(xyz, 4, 2000)
    assert 1000 < len(found) < 3000
    assert np.median(found) == pytest.approx(np.median(true_distances(xyz)), rel=0.1)


def test_small_clouds_are_measured_as_a_whole() -> None:
    xyz = surface(100_000)
    found = spacing.neighbour_distances(xyz, 4, 2000)
    assert np.array_equal(found, true_distances(xyz))


@pytest.mark.usefixtures("large")
def test_degenerate_clouds() -> None:
    assert spacing.neighbour_distances(torch.zeros(60_000, 3), 4, 100).max() == 0
    line = torch.zeros(60_000, 3)
    line[:, 0] = torch.arange(60_000)
    assert np.median(spacing.neighbour_distances(line, 4, 100)) == pytest.approx(2)
