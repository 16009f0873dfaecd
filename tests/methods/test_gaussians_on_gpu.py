"""The methods with Gaussians learn on a GPU what they learn on the CPU. ``pytest -m cuda``.

The first steps also run on a stand-in for the GPU (``tests/kbuffer/gaussian_roads.py``).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from render.methods import method_class
from render.methods.base import MethodOptions
from render.methods.gaussians import GaussiansKOptions, GaussiansOptions
from render.methods.kbuffer import KBufferOptions
from render.training.evaluation import evaluate, house_protocol
from render.training.trainer import Trainer
from tests.kbuffer.gaussian_roads import Road, emulated, real
from tests.methods.glass_ball import glass_ball

SHORT: dict[str, Any] = {"points": 300, "refine_from": 4, "refine_every": 3, "sh_every": 2}
CASES: dict[str, tuple[str, MethodOptions]] = {
    "kbuffer": ("kbuffer", KBufferOptions(points=300)),
    "blame": ("gaussians", GaussiansOptions(**SHORT, strategy="blame")),
    "default": ("gaussians", GaussiansOptions(**SHORT, strategy="default", reset_every=5)),
    "mcmc": ("gaussians", GaussiansOptions(**SHORT, strategy="mcmc", antialias=True)),
    "layers": ("gaussians-k", GaussiansKOptions(**SHORT, network_from=2, width=8)),
    "channels": ("gaussians-k", GaussiansKOptions(**SHORT, reading="channels", features=8)),
}


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.cuda)])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Road:
    monkeypatch.delenv("KBUFFERS_BACKEND", raising=False)
    return emulated(monkeypatch) if request.param == "emulated" else real()


def start(case: str, device: torch.device) -> Trainer:
    name, options = CASES[case]
    scene = glass_ball(400, size=32, views=8)
    generator = torch.Generator().manual_seed(0)
    return Trainer(method_class(name)(options, scene, device, generator), scene, 0)


@pytest.mark.parametrize("case", CASES)
def test_the_first_steps_are_those_of_the_cpu(case: str, road: Road) -> None:
    with road.taken():
        mine = start(case, road.device)
        losses = [mine.step().loss for _ in range(8)]
    other = start(case, torch.device("cpu"))
    wanted = [other.step().loss for _ in range(8)]
    assert losses[:4] == pytest.approx(wanted[:4], rel=1e-2)  # until the first refinement
    assert losses == pytest.approx(wanted, rel=0.1) and mine.skipped_steps == 0


@pytest.mark.cuda
@pytest.mark.parametrize("case", CASES)
def test_it_learns_what_it_has_not_seen(case: str) -> None:
    trainer = start(case, real().device)
    views, protocol = trainer.scene.split("test"), house_protocol(trainer.scene.background)
    before = evaluate(trainer.method, views, protocol).psnr
    losses = [trainer.step().loss for _ in range(150)]
    assert all(map(math.isfinite, losses)) and trainer.skipped_steps == 0
    assert evaluate(trainer.method, views, protocol).psnr > before + 1
