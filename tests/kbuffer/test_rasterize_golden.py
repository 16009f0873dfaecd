"""PyTorch3D's point rasteriser: its own output, and its rules written down once more."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from render.kbuffer.axes import pytorch3d_pixel_centers
from render.kbuffer.rasterize import Backend, backend_name, rasterize_screen
from render.kbuffer.types import KBuffer

SHARED = Path(os.environ.get("KBUFFERS_SHARED", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = SHARED / "golden" / "pytorch3d_points.npz"
CASES = [
    "behind_and_zero", "lego_view0", "lego_view40_wide", "per_point_radius",
    "random_square_k1", "random_tall_k16", "sparse_empty", "ties_k8",
]  # fmt: skip


def as_pytorch3d(
    points_ndc: np.ndarray, radius: np.ndarray, height: int, width: int, k: int, backend: Backend
) -> KBuffer:
    """PyTorch3D looks along +z with +x left and +y up."""
    try:
        backend_name(backend)
    except RuntimeError as fault:
        pytest.skip(str(fault))
    uvz = torch.from_numpy(points_ndc) * torch.tensor([-1.0, -1.0, 1.0])
    xs, ys = pytorch3d_pixel_centers(height, width)
    return rasterize_screen(uvz, torch.from_numpy(radius), xs, ys, k, near=0.0, backend=backend)


def compare(found: KBuffer, radius: np.ndarray, index, depth, dist2) -> None:
    assert (found.index.numpy() != index).sum() == 0
    assert (found.depth.numpy() != depth).sum() == 0
    r2 = radius[index] * radius[index]
    with np.errstate(invalid="ignore"):
        wanted = np.where(index >= 0, dist2 / r2, np.float32(-1))
    assert (found.distance.numpy() != wanted).sum() == 0


@pytest.mark.shared_data
@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"{GOLDEN} is missing")
@pytest.mark.parametrize("backend", ["native", "numba", "torch"])
@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch3d(case: str, backend: Backend) -> None:
    with np.load(GOLDEN) as file:
        points, radius, size, index, depth, dist2 = (
            file[f"{case}/{name}"]
            for name in ("points_ndc", "radius", "size_hwk", "index", "depth", "dist2")
        )
    height, width, k = map(int, size)
    found = as_pytorch3d(points, radius, height, width, k, backend)
    compare(found, radius, index, depth, dist2)


def pytorch3d_rules(points: np.ndarray, radius: np.ndarray, height: int, width: int, k: int):
    """Pixel by pixel as in PyTorch3D's rasterize_points_cpu.cpp, in float32 scalars."""
    f = np.float32

    def pixel_to_ndc(i: int, s1: int, s2: int) -> np.float32:
        span = f(2) if s1 <= s2 else (f(s1) * f(2)) / f(s2)
        offset = span / f(2)
        return -offset + (span * f(i) + offset) / f(s1)

    shape = (height, width, k)
    index, depth, dist2 = np.full(shape, -1), np.full(shape, f(-1)), np.full(shape, f(-1))
    for row in range(height):
        y = pixel_to_ndc(height - 1 - row, height, width)  # row 0 is at the top: largest y
        for column in range(width):
            x = pixel_to_ndc(width - 1 - column, width, height)  # and column 0 has the largest x
            hits = []
            for i, (px, py, pz) in enumerate(points):
                d2 = (px - x) * (px - x) + (py - y) * (py - y)
                if pz >= 0 and d2 < radius[i] * radius[i]:
                    hits.append((pz, i, d2))
            for layer, hit in enumerate(sorted(hits)[:k]):
                depth[row, column, layer], index[row, column, layer] = hit[:2]
                dist2[row, column, layer] = hit[2]
    return index, depth, dist2


@pytest.mark.parametrize("backend", ["native", "numba", "torch"])
@pytest.mark.parametrize(("height", "width", "k"), [(7, 5, 4), (6, 13, 2), (8, 8, 16), (1, 1, 1)])
def test_equals_pytorch3d_rules(height: int, width: int, k: int, backend: Backend) -> None:
    rng = np.random.default_rng(height)
    points = rng.uniform(-1.6, 1.6, (80, 3)).astype(np.float32)
    points[:, 2] = np.round(points[:, 2] * 4) / 4 + np.float32(0.5)  # many ties, some behind
    xs, ys = pytorch3d_pixel_centers(height, width)
    points[:10, 0] = -xs.centers.numpy()[rng.integers(0, width, 10)]  # exactly on centres
    points[:10, 1] = -ys.centers.numpy()[rng.integers(0, height, 10)]
    radius = rng.uniform(0.02, 0.9, 80).astype(np.float32)
    radius[5:10] = xs.centers[-1] - xs.centers[0] if width > 1 else 0.5  # through centres
    wanted = pytorch3d_rules(points, radius, height, width, k)
    assert (wanted[0] >= 0).any()
    compare(as_pytorch3d(points, radius, height, width, k, backend), radius, *wanted)
