"""The stages that are measured on a GPU, on the stand-in for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks import gaussians_cuda
from render.camera import Camera
from render.kbuffer import gaussians
from tests.kbuffer.gaussian_roads import emulated

CPU = torch.device("cpu")


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, *, sh_degree: int, packed: bool,
) -> tuple[Tensor]:  # fmt: skip
    assert sh_degree == 2 and not packed and colors.shape[1:] == (9, 3)
    view = Camera(viewmats[0].double(), Ks[0].double(), width, height)
    geometry = (means, quats, scales.log(), opacities.logit())
    p = gaussians.project(*geometry, colors[:, 0], colors[:, 1:], view)
    return (gaussians.splat(p, p.rgb, width, height, 0).image[None],)


def test_every_stage_runs_and_the_pictures_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    road, gsplat = emulated(monkeypatch), SimpleNamespace(rasterization=rasterization)
    with road.taken():
        times, errors = gaussians_cuda.tabulate([(120, 32, 4)], 0.0, CPU, gsplat)
    assert [len(t.rows) for t in (times, errors)] == [1, 1]
    assert len(times.columns) == 3 + len(gaussians_cuda.STAGES)
    with road.taken():
        task = gaussians_cuda.Task(120, 32, 4, CPU, gsplat)
        mine = gaussians.splat(task.project(), task.project().rgb, 32, 32, 0).image
        torch.testing.assert_close(mine, task.by_gsplat(), rtol=0, atol=2e-4)
    assert mine.mean() > 0.1 and task.distance_from_cpu() == (0.0, 0.0)  # both by the CPU
