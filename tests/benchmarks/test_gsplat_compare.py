"""The comparison with gsplat, on the CPU with a stand-in for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gsplat_compare as compare
from benchmarks.curves import curves
from benchmarks.gsplat_baseline import Baseline, scene_size
from render.camera import Camera
from render.errors import UserError
from render.kbuffer import gaussians
from tests.methods.glass_ball import glass_ball

KEYS = {"means", "scales", "quats", "opacities", "sh0", "shN"}


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, *, sh_degree: int, packed: bool,
    backgrounds: Tensor,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """gsplat's function of that name by the kernels of the CPU."""
    assert not packed and viewmats.shape == (1, 4, 4) and Ks.shape == (1, 3, 3)
    camera = Camera(viewmats[0].double(), Ks[0].double(), width, height)
    rest = colors[:, 1 : (sh_degree + 1) ** 2]
    p = gaussians.project(means, quats, scales.log(), opacities.logit(), colors[:, 0], rest, camera)
    means2d = p.splats[None, :, :2]
    p = p._replace(splats=torch.cat([means2d[0], p.splats[:, 2:]], 1))
    seen = gaussians.splat(p, p.rgb, width, height, 0)
    image = seen.image + (1 - seen.alpha)[..., None] * backgrounds[0]
    return image[None], seen.alpha[None, ..., None], {"means2d": means2d}


@dataclass
class Strategy:
    """The calls that both strategies of gsplat get."""

    cap_max: int = 0
    reset_every: int = 2
    refine_stop_iter: int = 5
    prune_opa: float = 0.005
    calls: int = 0

    def initialize_state(self, scene_scale: float = 0.0) -> dict[str, Any]:
        return {"scene_scale": scene_scale}

    def check_sanity(self, params: Any, optimizers: dict[str, torch.optim.Adam]) -> None:
        assert set(params) == set(optimizers) == KEYS
        assert all(len(o.param_groups) == 1 for o in optimizers.values())

    def step_pre_backward(self, params, optimizers, state, step, info) -> None:
        info["means2d"].retain_grad()

    def step_post_backward(self, params, optimizers, state, step, info, **more: Any) -> None:
        if "lr" in more:
            assert self.cap_max > 0 and 0 < more["lr"] < 1e-3
        else:
            assert more == {"packed": False} and state["scene_scale"] > 0
            assert info["means2d"].grad.abs().sum() > 0
        assert step == self.calls
        self.calls += 1


def fake(lowered: list[float]) -> Any:
    def reset_opa(params, optimizers, state, value: float) -> None:
        lowered.append(value)

    return SimpleNamespace(
        rasterization=rasterization,
        DefaultStrategy=Strategy,
        MCMCStrategy=Strategy,
        strategy=SimpleNamespace(ops=SimpleNamespace(reset_opa=reset_opa)),
    )


def test_all_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = glass_ball(300, size=24, views=4)
    monkeypatch.setattr(compare, "load_scene", lambda *args, **more: scene)
    monkeypatch.setattr(compare, "set_threads", lambda method: None)
    monkeypatch.setattr(compare, "gsplat_module", lambda options, device: fake([]))
    path = tmp_path / "found.json"
    options = compare.Options(at=[0.1, 0.05], set=["points=200"], device="cpu", json=path)
    results = compare.main(options)
    assert [result["entry"] for result in results] == list(compare.ENTRIES)
    for result in results:
        rows = result["rows"]
        assert [row["seconds"] for row in rows] == [0.0, 0.05, 0.1]
        assert rows[-1]["psnr"] > rows[0]["psnr"] > 0 and rows[-1]["step"] > 1
        assert rows[-1]["gaussians"] >= 200
    assert {result["rows"][0]["gaussians"] for result in results} == {200, 300}
    assert json.loads(path.read_text())["results"] == results
    assert len(curves([path])[scene.name]) == len(compare.ENTRIES)


@pytest.mark.parametrize("reset", [False, True])
def test_opacities_are_lowered_if_asked(reset: bool) -> None:
    lowered: list[float] = []
    scene, cpu = glass_ball(100, size=24, views=3), torch.device("cpu")
    baseline = Baseline(fake(lowered), "default", scene, cpu, 0, reset=reset)
    for _ in range(8):
        baseline.step()
    assert lowered == ([0.01, 0.01] if reset else [])  # after steps 2 and 4, not 0 nor 6


def test_the_baseline_learns() -> None:
    scene, cpu = glass_ball(300, size=24, views=4), torch.device("cpu")
    model = Baseline(fake([]), "mcmc", scene, cpu, 0)
    view, white = scene.split("train")[0], torch.ones(3)

    def error() -> float:
        rgb = model.render(view.camera, white).rgb
        return float((rgb - view.target(white)).square().mean())

    before = error()
    for _ in range(60):
        model.step()
    assert error() < 0.5 * before and model.seconds > 0
    assert model.size == pytest.approx(scene_size(scene.split("train")))
    assert model.size > 1.1 * 3  # cameras all around at more than 3 from the middle


@pytest.mark.parametrize(
    ("level", "seconds"), [(20.0, 0.0), (25.0, 4.5), (30.0, 9.0), (31.0, 21.0), (40.0, None)]
)
def test_time_to_a_level(level: float, seconds: float | None) -> None:
    rows = [{"measured": s, "psnr": p} for s, p in ((0, 20), (9, 30), (11, 29), (31, 33))]
    assert compare.time_to(rows, level) == seconds  # 30 dB was lost again; that does not count


def test_without_gsplat_it_says_what_to_do() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="it needs a GPU; choose others with --entries"):
        compare.gsplat_module(compare.Options(), cpu)
    assert compare.gsplat_module(compare.Options(entries=["gaussians"]), cpu) is None
    with pytest.raises(UserError, match="--entries gsplot: expected some of gsplat, gsplat-mcmc"):
        compare.main(compare.Options(entries=["gsplot"]))
