"""One training step after another: the method proposes, the optimiser disposes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from render.methods.base import Method
from render.scenes.types import Scene
from render.training.sampler import ViewSampler

MAX_BAD_STEPS = 20  # consecutive steps with a non-finite loss before training stops


class TrainingDivergedError(RuntimeError):
    """The loss was not finite for ``MAX_BAD_STEPS`` steps in a row."""


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
    """

    def __init__(self, method: Method, scene: Scene, seed: int) -> None:
        self.method = method
        self.scene = scene
        self.generator = torch.Generator().manual_seed(seed)
        self.sampler = ViewSampler(len(scene.splits["train"]), self.generator)
        self.optimizer = self._build_optimizer()
        self.step_count = 0
        self.seconds = 0.0
        self.bad_steps = 0  # in a row
        self.skipped_steps = 0  # in all

    def _build_optimizer(self) -> torch.optim.Adam:
        fused = self.method.device.type in ("cpu", "cuda")
        return torch.optim.Adam(self.method.parameter_groups(), eps=1e-15, fused=fused)

    def step(self) -> StepReport:
        """Run one step. A non-finite loss leaves all parameters as they were.

        Raises:
            TrainingDivergedError: when that happened ``MAX_BAD_STEPS`` times in a row.
        """
        start = time.perf_counter()
        step = self.step_count
        rates = self.method.learning_rates(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        out = self.method.train_step(step, self.sampler, self.generator)
        loss, skipped = math.nan, out.skipped
        if skipped is None:
            weights = self.method.loss_weights(step)
            total = torch.stack([weights.get(n, 1.0) * t for n, t in out.terms.items()]).sum()
            loss = float(total.detach())
            if math.isfinite(loss):
                total.backward()
                self.optimizer.step()
                self.bad_steps = 0
            else:
                skipped = "the loss is not finite"
                self.bad_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped_steps += skipped is not None
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainingDivergedError(
                f"the loss was not finite for {MAX_BAD_STEPS} steps in a row (step {step}); "
                "lower the learning rates or look for broken images in the scene"
            )
        if skipped is None:
            self.method.after_step(step, self.optimizer, self.generator)
        self.step_count += 1
        self.seconds += time.perf_counter() - start
        psnr = -10 * math.log10(out.mse) if out.mse > 0 else math.nan
        terms = {name: float(term.detach()) for name, term in out.terms.items()}
        return StepReport(self.step_count, self.seconds, loss, terms, psnr, skipped)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the next step, as tensors and plain numbers."""
        return {
            "step": self.step_count,
            "seconds": self.seconds,
            "bad_steps": self.bad_steps,
            "skipped_steps": self.skipped_steps,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` stood."""
        self.method.load_state_dict(state["method"])
        self.optimizer = self._build_optimizer()  # the number of primitives may have changed
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        self.step_count = int(state["step"])
        self.seconds = float(state["seconds"])
        self.bad_steps = int(state["bad_steps"])
        self.skipped_steps = int(state["skipped_steps"])
