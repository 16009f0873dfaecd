"""`kbuffer` repeats itself: exact resume across refinements and the start of the network, seeds."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from render.methods import targets
from render.methods.kbuffer.method import KBufferMethod
from render.scenes.background import Background
from render.scenes.types import Scene
from render.training.checkpoint import load_checkpoint, save_checkpoint
from render.training.trainer import Trainer, TrainingDivergedError
from tests.methods.glass_ball import SMALL, WHITE, assert_same, glass_ball, make, run, trained

# Refinements after steps 8, 13, 18, 23; the network from step 16, 4 samples a pixel from 18; all
# kinds of windows.
BUSY = replace(
    SMALL, refine_from=8, refine_every=5, refine_until=26, network_from=16, max_pixels=300,
    layer_dropout=0.5, coarse_steps=6, samples=2, samples_from=18,
)  # fmt: skip
AFTER = 20
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def halved_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse-to-fine on tiny pictures: 8, 16 and then 32 pixels."""
    monkeypatch.setattr(targets, "SMALLEST_SIDE", 8)


def through_file(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As the program does it; read with ``weights_only=True``."""
    path = save_checkpoint(folder, {"step": state["step"], "trainer": state})
    return load_checkpoint(path)["trainer"]


def scene() -> Scene:
    return glass_ball(300, background=Background("random"))


@pytest.mark.parametrize(
    "before, file",
    [pytest.param(3, True, id="coarse"), pytest.param(9, True, id="between refinements"),
     pytest.param(14, True, id="before the network"), pytest.param(14, False, id="from memory"),
     pytest.param(16, True, id="as the network starts"),
     pytest.param(27, True, id="after densification")],
)  # fmt: skip
def test_resume_is_exact(before: int, file: bool, tmp_path: Path) -> None:
    first, _ = trained(before, BUSY, scene())
    state = first.state_dict()
    state = through_file(state, tmp_path) if file else copy.deepcopy(state)
    expected = run(first, AFTER)
    assert all(map(math.isfinite, expected))

    other = scene()
    second = Trainer(make(BUSY, other, seed=9), other, seed=4)
    run(second, 11)  # another number of Gaussians, another place in the epoch
    torch.manual_seed(99)
    second.load_state_dict(state)
    assert run(second, AFTER) == expected
    assert_same(first.method.state_dict(), second.method.state_dict())


def test_a_loaded_model_renders_the_same_bits(tmp_path: Path) -> None:
    trainer, _ = trained(20, BUSY, scene())
    camera = trainer.scene.views[-1].camera
    fresh = make(BUSY, seed=5)
    fresh.load_state_dict(through_file(trainer.state_dict(), tmp_path)["method"])
    for k in (1, 3, None):
        ours, theirs = (m.render(camera, WHITE, k) for m in (trainer.method, fresh))
        assert torch.equal(ours.rgb, theirs.rgb)
    assert fresh.network_on and fresh.describe() == trainer.method.describe()


def test_seeds_decide_everything() -> None:
    one, two = trained(20, BUSY, scene())[1], trained(20, BUSY, scene())[1]
    assert one == two
    assert trained(3, BUSY, scene(), seed=1)[1] != one[:3]


def test_training_neither_uses_nor_moves_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trainer, losses = trained(20, BUSY, scene())
    trainer.method.render(trainer.scene.views[0].camera, WHITE)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert trained(20, BUSY, scene())[1] == losses


def test_construction_follows_its_generator() -> None:
    states = [make(scene=glass_ball(900), seed=seed).state_dict() for seed in (1, 1, 2)]
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["cloud"]["means"], states[2]["cloud"]["means"])
    assert not torch.equal(states[0]["fusion"]["enter.weight"], states[2]["fusion"]["enter.weight"])


# ------------------------------------------------------------------ when numbers go wrong
RATES = (
    "surface_lr_means",
    "volume_lr_means",
    "lr_scales",
    "lr_quats",
    "lr_logits",
    "lr_colors",
    "lr_network",
)


@pytest.mark.parametrize("rate", [1.0, 30.0, 1e2, 1e5])
def test_extreme_learning_rates_never_reach_the_picture(rate: float) -> None:
    """Beyond e^50 in size or 1e20 in place single Gaussians may be lost, the picture is not."""
    options = replace(SMALL, refine_from=4, refine_every=5, network_from=15)
    options = replace(options, **{name: rate for name in RATES})
    trainer, losses = trained(30, options, glass_ball(300))
    method = trainer.method
    assert isinstance(method, KBufferMethod) and method.fusion is not None
    assert all(map(math.isfinite, losses)) and trainer.skipped_steps == 0
    for k in (1, None):
        picture = method.render(trainer.scene.views[0].camera, WHITE, k)
        assert picture.depth is not None
        assert bool(picture.rgb.isfinite().all()) and bool(picture.depth.isfinite().all())
    if rate == 1:
        for name, tensor in (*method.cloud.tensors().items(), *method.fusion.named_parameters()):
            assert bool(tensor.isfinite().all()), name


def test_steps_without_a_finite_loss_change_nothing_and_then_stop_the_training() -> None:
    trainer, _ = trained(20, BUSY, scene())
    method = trainer.method
    assert isinstance(method, KBufferMethod) and method.fusion is not None
    method.fusion.leave.weight.data[:] = math.nan  # the worst layer: nothing behind it is safe
    before = copy.deepcopy(method.state_dict())
    moments = copy.deepcopy(trainer.optimizer.state[method.cloud.means])
    with pytest.raises(TrainingDivergedError, match="lower the learning rates"):
        run(trainer, 30)
    assert trainer.skipped_steps == trainer.bad_steps == 20
    after = method.state_dict()
    assert before["fusion"].pop("leave.weight").isnan().all()
    assert after["fusion"].pop("leave.weight").isnan().all()
    assert_same(before, after)
    assert_same(moments, trainer.optimizer.state[method.cloud.means])


def test_gaussians_that_are_not_finite_are_invisible() -> None:
    trainer, _ = trained(20, BUSY, scene())
    method = trainer.method
    assert isinstance(method, KBufferMethod)
    method.cloud.means.data[::3] = math.nan
    losses = run(trainer, 5)
    picture = method.render(trainer.scene.views[0].camera, WHITE).rgb
    assert all(map(math.isfinite, losses)) and bool(picture.isfinite().all())
