"""Training of a workbench: one step after another, and what is due in between.

Lives on the worker thread. :class:`~app.session.Session` decides *whether* to train; this decides
when to write a line, to measure, to save, and when the budget is used up.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from app.options import parse_every
from app.progress import Curve, Means, StageTimes
from app.runtime import error_sentence
from app.snapshot import CurvePoint, EvalPoint, Refinement
from app.workbench import Workbench, gaussian_sizes
from render.errors import UserError
from render.methods.base import Method
from render.scenes.types import View
from render.training.checkpoint import list_checkpoints
from render.training.evaluation import EvalResult, OnImage, Protocol, evaluate, house_protocol
from render.training.metrics import Lpips
from render.training.runfolder import MetricsRow
from render.training.trainer import StepReport, Trainer

SAVE_SECONDS = 60.0  # wall clock between two checkpoints, unless --save-every says otherwise
ROW_SECONDS = 5.0  # of training between two lines of metrics.csv
VAL_VIEWS = 8  # of the val split, for the best checkpoint


class Training:
    """Drives the trainer of a workbench.

    Args:
        bench: with a method and a trainer.
        publish: takes changes of the snapshot by name.
        check: called between two pieces of long work; raises when it shall be abandoned.
        stages: takes the times of the steps.
        note: takes sentences for the user.
    """

    def __init__(
        self,
        bench: Workbench,
        publish: Callable[..., None],
        check: Callable[[], None],
        stages: StageTimes,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        if bench.method is None or bench.trainer is None:
            raise UserError(f"{bench.scene.name} has no photographs to train on.")
        self.bench = bench
        self.method: Method = bench.method
        self.trainer: Trainer = bench.trainer
        self._publish, self._check, self._stages, self._note = publish, check, stages, note
        self._every = parse_every(bench.options.save_every, "save-every")
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
        if self._save_is_due():
            self._save_or_tell()
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

    def measure(
        self,
        *,
        protocol: Protocol | None = None,
        lpips: Lpips | None = None,
        on_image: OnImage | None = None,
    ) -> EvalPoint:
        """Measure the test split into metrics.csv, and the val split, which picks the best.

        The arguments are those of :func:`render.training.evaluation.evaluate`; without
        ``protocol`` it is the house's, which alone enters metrics.csv.

        Raises:
            UserError: there is nothing to compare with.
        """
        scene = self.bench.scene
        if not self.can_measure():
            raise UserError(f"{scene.name} has no test photographs to compare with.")
        self._plan_measure()

        if protocol is None:
            protocol = house_protocol(scene.background, lpips_net=lpips.net if lpips else "none")
        look_only = self.bench.look_only or protocol.name != "house"
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
        self._plan_save()
        self._publish(saved=str(path))
        return path

    def rescue(self) -> str:
        """Save after a step that failed, and say where everything or most of it is saved."""
        self.trainer.optimizer.zero_grad(set_to_none=True)
        if self.trainer.step_count > self._saved_step and self._fit_to_save():
            self.trainer.bad_steps = 0  # who goes on has all tries again
            with contextlib.suppress(Exception):  # no room for that either
                self.save()
        files = list_checkpoints(self.bench.folder.checkpoints)
        if not files:
            return ""
        if self._saved_step == self.trainer.step_count:
            return f"Everything is saved in {files[0]}."
        return f"The last checkpoint is {files[0]}."

    def close(self) -> None:
        """Save what was trained since the last checkpoint."""
        if self.trainer.step_count > self._saved_step:
            self._write_row()
            self.save()

    # ------------------------------------------------------------------ inside
    def _fit_to_save(self) -> bool:
        """Whether a failed step has left parameters that another run can begin with."""
        groups = self.trainer.optimizer.param_groups
        finite = all(bool(p.isfinite().all()) for group in groups for p in group["params"])
        return finite and self.trainer.intact()

    def _save_or_tell(self) -> None:
        """A full disk ends no training: somebody may make room until the next try."""
        try:
            self.save()
        except OSError as error:
            self._plan_save()
            self._note(f"Not saved: {error_sentence(error)} Training goes on and tries again.")

    def _save_is_due(self) -> bool:
        if self._every.steps is not None:
            return self.trainer.step_count % self._every.steps == 0
        return time.monotonic() >= self._save_due

    def _plan_save(self) -> None:
        seconds = math.inf if self._every.never else self._every.seconds or SAVE_SECONDS
        self._save_due = time.monotonic() + seconds

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
        self._plan_save()
        self._plan_measure()

    def _plan_measure(self) -> None:
        every = parse_every(self.bench.options.eval_every)
        self._measure_due = every.next_after(self.trainer.step_count, self.trainer.seconds)

    def _measure_is_due(self, report: StepReport) -> bool:
        step, seconds = self._measure_due
        return report.step >= step or report.seconds >= seconds

    def _write_row(self, point: EvalPoint | None = None) -> None:
        loss, psnr = self._row.take()
        row = MetricsRow(
            step=self.trainer.step_count,
            seconds=self.trainer.seconds,
            loss=loss,
            train_psnr=psnr,
            test_psnr=point and point.result.psnr,
            test_ssim=point and point.result.ssim,
            val_psnr=point and point.val_psnr,
            steps_per_second=self._curve.steps_per_second,
        )
        try:
            self.bench.folder.append_metrics(row)
        except OSError as error:
            self._note(f"A line of metrics.csv is lost: {error_sentence(error)}")
        self._row_due = self.trainer.seconds + ROW_SECONDS
