"""One training step after another: the method proposes, the optimiser disposes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from render.methods.base import Method
from render.scenes.photos.imagecache import Ahead
from render.scenes.types import Scene
from render.training.sampler import ViewSampler
from render.training.stages import Stages, stage

MAX_BAD_STEPS = 20  # consecutive steps with a non-finite loss or gradient before training stops


class TrainingDivergedError(RuntimeError):
    """Loss or gradients were not finite for ``MAX_BAD_STEPS`` steps in a row."""


@dataclass(frozen=True)
class StepReport:
    """What a step was: ``seconds`` is the training wall clock so far, evaluation excluded."""

    step: int
    seconds: float
    loss: float
    terms: dict[str, float]
    psnr: float
    skipped: str | None = None


class Trainer:
    """Owns method, optimiser and random numbers. Not thread-safe: one worker drives it.

    Args:
        method: built on ``scene``.
        scene: its ``train`` split is learnt from.
        seed: of the sampler and of everything random during training.

    Attributes:
        lr_scale: factor on the learning rate of every parameter group, 1 unless changed.
        loss_scale: factor on the weight of loss terms; those that are not named have 1.
        stages: collects the times of the steps.
    """

    def __init__(self, method: Method, scene: Scene, seed: int) -> None:
        self.method = method
        self.scene = scene
        self.generator = torch.Generator().manual_seed(seed)
        views = scene.split("train")
        self.sampler = ViewSampler(len(views), self.generator)
        self.ahead = Ahead(views)
        self.optimizer = self._build_optimizer()
        self.lr_scale = {group["name"]: 1.0 for group in self.optimizer.param_groups}
        self.loss_scale: dict[str, float] = {}
        self.stages = Stages(method.device)
        self.step_count = 0
        self.seconds = 0.0
        self.bad_steps = 0  # in a row
        self.skipped_steps = 0  # in all

    def _build_optimizer(self) -> torch.optim.Adam:
        fused = self.method.device.type in ("cpu", "cuda")
        return torch.optim.Adam(self.method.parameter_groups(), eps=1e-15, fused=fused)

    def step(self) -> StepReport:
        """Run one step. A non-finite loss or gradient leaves all parameters as they were.

        Raises:
            TrainingDivergedError: when that happened ``MAX_BAD_STEPS`` times in a row.
        """
        before = self.sampler.state_dict(), self.generator.get_state(), torch.get_rng_state()
        try:
            with self.stages.step():
                return self._step()
        except Exception:  # what is saved now takes this very step again
            self.sampler.load_state_dict(before[0])
            self.generator.set_state(before[1])
            torch.set_rng_state(before[2])
            raise

    def rates(self) -> dict[str, float]:
        """Learning rate of every parameter group at the coming step."""
        rates = self.method.learning_rates(self.step_count)
        return {name: rates[name] * scale for name, scale in self.lr_scale.items()}

    def loss_weights(self) -> dict[str, float]:
        """Weight of every known loss term at the coming step."""
        weights = self.method.loss_weights(self.step_count)
        names = dict.fromkeys([*weights, *self.loss_scale])
        return {n: weights.get(n, 1.0) * self.loss_scale.get(n, 1.0) for n in names}

    def _step(self) -> StepReport:
        start = time.perf_counter()
        step = self.step_count
        rates = self.rates()
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        self.ahead.want(self.sampler.coming(self.ahead.reach))
        out = self.method.train_step(step, self.sampler, self.generator)
        loss, skipped = math.nan, out.skipped
        if skipped is None:
            with stage("loss"):
                for name in out.terms:
                    self.loss_scale.setdefault(name, 1.0)
                weights = self.loss_weights()
                total = torch.stack([weights[n] * t for n, t in out.terms.items()]).sum()
                loss = float(total.detach())
                if out.probe is not None:
                    total = total + out.probe
            skipped = self._learn(total) if math.isfinite(loss) else "the loss is not finite"
            self.bad_steps = 0 if skipped is None else self.bad_steps + 1
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped_steps += skipped is not None
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainingDivergedError(
                f"{skipped} for {MAX_BAD_STEPS} steps in a row (step {step}); "
                "lower the learning rates or look for broken images in the scene"
            )
        if skipped is None:
            with stage("refine"):
                self.method.after_step(step, self.optimizer, self.generator)
        self.step_count += 1
        self.seconds += time.perf_counter() - start
        psnr = -10 * math.log10(out.mse) if out.mse > 0 else math.nan
        terms = {name: float(term.detach()) for name, term in out.terms.items()}
        return StepReport(self.step_count, self.seconds, loss, terms, psnr, skipped)

    def _learn(self, total: Tensor) -> str | None:
        """Backward and optimiser; why there was nothing to learn, if so."""
        with stage("backward"):
            total.backward()
        with stage("optimiser"):
            if not self._gradients_finite():
                return "a gradient is not finite"
            self.optimizer.step()
        return None

    def _gradients_finite(self) -> bool:
        """A sum is not finite where one of its terms is not: one pass, nothing kept."""
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        sums = [p.grad.sum() for p in params if p.grad is not None]
        return not sums or bool(torch.stack(sums).isfinite().all())

    def intact(self) -> bool:
        """Whether optimiser and method belong together.

        A step that was broken off while it exchanged the parameters may leave them apart: such a
        state must not be saved.
        """
        ours = [p for group in self.optimizer.param_groups for p in group["params"]]
        theirs = [p for group in self.method.parameter_groups() for p in group["params"]]
        if [id(p) for p in ours] != [id(p) for p in theirs]:
            return False
        return all(
            moment.shape == parameter.shape
            for parameter in ours
            for name, moment in self.optimizer.state.get(parameter, {}).items()
            if name.startswith("exp_avg")
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the next step, as tensors and plain numbers."""
        state = {
            "step": self.step_count,
            "seconds": self.seconds,
            "bad_steps": self.bad_steps,
            "skipped_steps": self.skipped_steps,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "lr_scale": dict(self.lr_scale),
            "loss_scale": dict(self.loss_scale),
        }
        if self.method.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.method.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` stood; older states have no scales."""
        self.method.load_state_dict(state["method"])
        self.optimizer = self._build_optimizer()  # the number of primitives may have changed
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if self.method.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.method.device)
        self.lr_scale = dict.fromkeys(self.lr_scale, 1.0) | dict(state.get("lr_scale", {}))
        self.loss_scale = dict(state.get("loss_scale", {}))
        self.step_count = int(state["step"])
        self.seconds = float(state["seconds"])
        self.bad_steps = int(state["bad_steps"])
        self.skipped_steps = int(state["skipped_steps"])
