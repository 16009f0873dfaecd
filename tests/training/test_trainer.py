"""The step loop: bad gradients, live scales, and what of them a checkpoint keeps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from render.methods.base import StepOutput
from render.scenes.load import load_scene
from render.training.sampler import ViewSampler
from render.training.trainer import MAX_BAD_STEPS, Trainer, TrainingDivergedError
from tests.fakes import FakeMethod, FakeOptions


class SharpCorner(FakeMethod):
    """A finite loss whose gradient is not."""

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        out = super().train_step(step, sampler, generator)
        if step >= 1:
            out.terms["corner"] = (self.bias - self.bias.detach()).abs().sqrt().sum()
        return out


def make(
    folder: Path, cls: type[FakeMethod] = FakeMethod, options: FakeOptions | None = None
) -> Trainer:
    scene = load_scene(folder, needs_points=False)
    generator = torch.Generator().manual_seed(0)
    method = cls(options or FakeOptions(), scene, torch.device("cpu"), generator)
    return Trainer(method, scene, seed=1)


def fake(trainer: Trainer) -> FakeMethod:
    assert isinstance(trainer.method, FakeMethod)
    return trainer.method


def test_gradient_that_is_not_finite_is_not_learnt(tiny_scene: Path) -> None:
    trainer = make(tiny_scene, SharpCorner)
    assert trainer.step().skipped is None
    before = copy.deepcopy(trainer.state_dict())
    report = trainer.step()
    assert report.skipped == "a gradient is not finite"
    assert torch.isfinite(torch.tensor(report.loss))
    after = trainer.state_dict()
    assert torch.equal(before["method"]["grid"], after["method"]["grid"])
    assert torch.equal(before["method"]["bias"], after["method"]["bias"])
    moments = after["optimizer"]["state"]
    assert all(torch.isfinite(m["exp_avg"]).all() for m in moments.values())
    assert (trainer.bad_steps, trainer.skipped_steps) == (1, 1)


def test_many_bad_gradients_end_training(tiny_scene: Path) -> None:
    trainer = make(tiny_scene, SharpCorner)
    with pytest.raises(TrainingDivergedError, match="gradient is not finite for 20 steps"):
        for _ in range(2 * MAX_BAD_STEPS):
            trainer.step()
    assert trainer.step_count == MAX_BAD_STEPS


def test_scales_multiply_rates_and_weights(tiny_scene: Path) -> None:
    plain, scaled = make(tiny_scene), make(tiny_scene)
    scaled.lr_scale["grid"] = 0.0
    scaled.loss_scale["mse"] = 3.0
    grid = fake(scaled).grid.detach().clone()
    a, b = plain.step(), scaled.step()
    assert torch.equal(fake(scaled).grid, grid)  # stands still
    assert not torch.equal(fake(plain).grid, grid)
    assert torch.allclose(fake(plain).bias, fake(scaled).bias)  # Adam's first step is lr long
    assert b.loss == pytest.approx(3 * a.loss)
    assert b.terms == a.terms  # unweighted
    assert scaled.rates() == {"grid": 0.0, "bias": FakeOptions().lr}
    assert scaled.loss_weights() == {"mse": 3.0}


def test_scales_of_one_change_no_bit(tiny_scene: Path) -> None:
    plain, scaled = make(tiny_scene), make(tiny_scene)
    scaled.lr_scale = {"grid": 1.0, "bias": 1.0}
    scaled.loss_scale = {"mse": 1.0}
    assert [plain.step().loss for _ in range(9)] == [scaled.step().loss for _ in range(9)]


def test_scales_survive_a_resume(tiny_scene: Path) -> None:
    trainer = make(tiny_scene)
    trainer.lr_scale["grid"], trainer.loss_scale["mse"] = 0.25, 2.0
    trainer.step()
    state = copy.deepcopy(trainer.state_dict())
    expected = [trainer.step().loss for _ in range(8)]
    resumed = make(tiny_scene)
    resumed.load_state_dict(state)
    assert resumed.lr_scale == {"grid": 0.25, "bias": 1.0} and resumed.loss_scale == {"mse": 2.0}
    assert [resumed.step().loss for _ in range(8)] == expected


def test_states_from_before_the_scales_still_load(tiny_scene: Path) -> None:
    trainer = make(tiny_scene)
    trainer.step()
    state = trainer.state_dict()
    del state["lr_scale"], state["loss_scale"]
    resumed = make(tiny_scene)
    resumed.lr_scale["grid"] = 0.5
    resumed.load_state_dict(state)
    assert resumed.lr_scale == {"grid": 1.0, "bias": 1.0} and resumed.loss_scale == {}
    assert resumed.step().skipped is None


def test_steps_are_timed_by_stage(tiny_scene: Path) -> None:
    trainer = make(tiny_scene, options=FakeOptions(grow=False))
    for _ in range(3):
        trainer.step()
    assert {"loss", "backward", "optimiser", "refine", "other"} == set(trainer.stages.take())
    assert trainer.stages.take() == {}
