"""Training of a workbench: one step after another, and what is due in between.

Lives on the worker thread. :class:`~app.session.Session` decides *whether* to train; this decides
when to write a line, to measure, to save, and when the budget is used up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from app.options import parse_every
from app.progress import Curve, Means, StageTimes
from app.snapshot import CurvePoint, EvalPoint, Refinement
from app.workbench import Workbench, gaussian_sizes
from render.errors import UserError
from render.methods.base import Method
from render.methods.splatting import SplattingMethod
from render.scenes.types import View
from render.training.evaluation import EvalResult, OnImage, Protocol, evaluate, house_protocol
from render.training.metrics import Lpips
from render.training.runfolder import MetricsRow
from render.training.trainer import StepReport, Trainer

SAVE_SECONDS = 60.0  # wall clock between two checkpoints
ROW_SECONDS = 5.0  # of training between two lines of metrics.csv
VAL_VIEWS = 8  # of the val split, for the best checkpoint


class Training:
    """Drives the trainer of a workbench.

    Args:
        bench: with a method and a trainer.
        publish: takes changes of the snapshot by name.
        check: called between two pieces of long work; raises when it shall be abandoned.
        stages: takes the times of the steps.
    """

    def __init__(
        self,
        bench: Workbench,
        publish: Callable[..., None],
        check: Callable[[], None],
        stages: StageTimes,
    ) -> None:
        if bench.method is None or bench.trainer is None:
            raise UserError(f"{bench.scene.name} has no photographs to train on.")
        self.bench = bench
        self.method: Method = bench.method
        self.trainer: Trainer = bench.trainer
        self._publish, self._check, self._stages = publish, check, stages
        self._curve, self._row = Curve(), Means()
        rows = [row for row in bench.folder.metrics() if row.step <= self.trainer.step_count]
        self._curve.begin(
            self.trainer.step_count,
            self.trainer.seconds,
            (
                CurvePoint(row.step, row.seconds, row.loss, row.train_psnr)
                for row in rows
                if row.loss is not None and row.train_psnr is not None
            ),
        )
        earlier = tuple((row.seconds, row.test_psnr) for row in rows if row.test_psnr is not None)
        publish(curve=self._curve.points, earlier=earlier)
        self._saved_step = self.trainer.step_count  # of a resumed run; else 0: nothing to save
        self._history: tuple[EvalPoint, ...] = ()
        self._refinements: tuple[Refinement, ...] = ()
        publish(step=self.trainer.step_count, seconds=self.trainer.seconds)
        self._plan()
        self._publish_settings()

    # ------------------------------------------------------------------ steps
    def step(self) -> bool:
        """One step and whatever is due after it; true when the budget is used up."""
        report = self.trainer.step()
        self._row.add(report)
        if self._curve.add(report):
            stages = self._stages.add(self.trainer.stages.take())
            sizes = {"sizes": self.method.describe()} | gaussian_sizes(self.method)
            self._publish(curve=self._curve.points, stages=stages, **sizes)
            self._publish_settings()
        self._publish_refinements(report)
        self._publish(
            report=report,
            step=report.step,
            seconds=report.seconds,
            loss=self._curve.loss,
            train_psnr=self._curve.psnr,
            steps_per_second=self._curve.steps_per_second,
        )
        if report.seconds >= self._row_due:
            self._write_row()
        if self.used_up():
            self.save()
            return True
        if self.can_measure() and self._measure_is_due(report):
            self.measure()
        elif time.monotonic() >= self._save_due:
            self.save()
        return False

    def used_up(self) -> bool:
        """Publish the share of the budget that is used (by its first limit) and the time to go."""
        options, trainer = self.bench.options, self.trainer
        progress, eta = 0.0, float("nan")
        if options.steps is not None:
            progress = trainer.step_count / options.steps
            if self._curve.steps_per_second > 0:
                eta = max(0, options.steps - trainer.step_count) / self._curve.steps_per_second
        if options.seconds is not None:
            progress = max(progress, trainer.seconds / options.seconds)
            left = max(0.0, options.seconds - trainer.seconds)
            eta = left if eta != eta else min(eta, left)
        self._publish(progress=min(progress, 1.0), eta=eta)
        return progress >= 1

    def set_option(self, name: str, value: Any) -> None:
        """Change budget, evaluations or scales (:data:`app.session.SCALES`) of the run."""
        if name in ("lr_scale", "loss_scale"):
            getattr(self.trainer, name).update(value)
            self._publish_settings()
            return
        self.bench.options = replace(self.bench.options, **{name: value})
        self._plan()

    # ------------------------------------------------------------------ results
    def can_measure(self) -> bool:
        """Whether there are test views."""
        return bool(self.bench.scene.splits.get("test"))

    def measure(self, *, lpips: Lpips | None = None, on_image: OnImage | None = None) -> EvalPoint:
        """Measure the test split into metrics.csv, and the val split, which picks the best.

        The arguments are those of :func:`render.training.evaluation.evaluate`.

        Raises:
            UserError: there is nothing to compare with.
        """
        scene = self.bench.scene
        if not self.can_measure():
            raise UserError(f"{scene.name} has no test photographs to compare with.")
        self._plan_measure()

        protocol = house_protocol(scene.background, lpips_net=lpips.net if lpips else "none")
        look_only = self.bench.look_only
        try:
            result = self._evaluate(scene.split("test"), protocol, lpips, on_image)
            val_psnr = None if look_only else self._measure_val()
        finally:
            self._publish(evaluating=None)
        point = EvalPoint(self.trainer.step_count, self.trainer.seconds, result, val_psnr)
        self._history = (*self._history, point)
        self._publish(evals=self._history)
        if look_only:
            return point
        self._write_row(point)
        if point.val_psnr is not None and point.val_psnr > self.bench.best_val:
            self.bench.best_val = point.val_psnr
            self.save(best=True)
        return point

    def save(self, *, best: bool = False) -> Path:
        """Write a checkpoint."""
        path = self.bench.save(best=best)
        self._saved_step = self.trainer.step_count
        self._save_due = time.monotonic() + SAVE_SECONDS
        self._publish(saved=str(path))
        return path

    def rescue(self) -> Path | None:
        """Save after a step that ran out of memory; the checkpoint, if there was one to write."""
        self.trainer.optimizer.zero_grad(set_to_none=True)
        if self.trainer.step_count <= self._saved_step or not self.trainer.intact():
            return None
        return self.save()

    def close(self) -> None:
        """Save what was trained since the last checkpoint."""
        if self.trainer.step_count > self._saved_step:
            self._write_row()
            self.save()

    # ------------------------------------------------------------------ inside
    def _measure_val(self) -> float | None:
        views = self.bench.scene.split("val")
        if not views:
            return None
        views = views[:: -(-len(views) // VAL_VIEWS)]
        protocol = house_protocol(self.bench.scene.background, "val")
        return self._evaluate(views, protocol).psnr

    def _evaluate(
        self,
        views: Sequence[View],
        protocol: Protocol,
        lpips: Lpips | None = None,
        on_image: OnImage | None = None,
    ) -> EvalResult:
        def tell(done: int) -> None:
            self._publish(evaluating=f"{protocol.split} {done}/{len(views)}")

        def each(i: int, view: View, image: Tensor, target: Tensor) -> None:
            self._check()
            if on_image is not None:
                on_image(i, view, image, target)
            tell(i + 1)

        tell(0)
        return evaluate(self.method, views, protocol, lpips=lpips, on_image=each)

    def _publish_refinements(self, report: StepReport) -> None:
        """What densification did in this step, with the time at which the plots show it."""
        if not isinstance(self.method, SplattingMethod):
            return
        new = self.method.events[len(self._refinements) :]
        if new:
            self._refinements += tuple(
                Refinement(e.step, report.seconds, e.before, e.after, e.note) for e in new
            )
            self._publish(refinements=self._refinements, **gaussian_sizes(self.method))

    def _publish_settings(self) -> None:
        trainer = self.trainer
        scales = {"lr_scale": dict(trainer.lr_scale), "loss_scale": dict(trainer.loss_scale)}
        self._publish(rates=trainer.rates(), loss_weights=trainer.loss_weights(), scales=scales)

    def _plan(self) -> None:
        """When the next line, evaluation and checkpoint are due."""
        self._row_due = self.trainer.seconds + ROW_SECONDS
        self._save_due = time.monotonic() + SAVE_SECONDS
        self._plan_measure()

    def _plan_measure(self) -> None:
        every = parse_every(self.bench.options.eval_every)
        self._measure_due = every.next_after(self.trainer.step_count, self.trainer.seconds)

    def _measure_is_due(self, report: StepReport) -> bool:
        step, seconds = self._measure_due
        return report.step >= step or report.seconds >= seconds

    def _write_row(self, point: EvalPoint | None = None) -> None:
        loss, psnr = self._row.take()
        self.bench.folder.append_metrics(
            MetricsRow(
                step=self.trainer.step_count,
                seconds=self.trainer.seconds,
                loss=loss,
                train_psnr=psnr,
                test_psnr=point and point.result.psnr,
                test_ssim=point and point.result.ssim,
                val_psnr=point and point.val_psnr,
                steps_per_second=self._curve.steps_per_second,
            )
        )
        self._row_due = self.trainer.seconds + ROW_SECONDS
