"""From single steps to what can be shown: means between rows, smoothed numbers, thinned curves."""

from __future__ import annotations

import math
from collections.abc import Iterable

from app.snapshot import CurvePoint, Snapshot
from render.training.trainer import StepReport

CURVE_SECONDS = 0.25  # of training between two points of a curve, at least
CURVE_POINTS = 2000  # more than a screen is wide
_KEEP = 0.9  # share of the old value in a smoothed one, per curve point


class Means:
    """Mean loss and PSNR over the steps since :meth:`take`; skipped steps don't count."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._psnrs: list[float] = []

    def add(self, report: StepReport) -> None:
        """Count one step."""
        if math.isfinite(report.loss):
            self._losses.append(report.loss)
        if math.isfinite(report.psnr):
            self._psnrs.append(report.psnr)

    def take(self) -> tuple[float, float]:
        """(loss, psnr), NaN without a step; starts anew."""
        result = _mean(self._losses), _mean(self._psnrs)
        self._losses, self._psnrs = [], []
        return result


class Curve:
    """Loss and training PSNR over time, with smoothed values for the status line."""

    def __init__(self) -> None:
        self.points: tuple[CurvePoint, ...] = ()
        self.loss = self.psnr = math.nan
        self.steps_per_second = 0.0
        self._means = Means()
        self._step, self._seconds = 0, 0.0
        self._gap = CURVE_SECONDS

    def begin(self, step: int, seconds: float, points: Iterable[CurvePoint] = ()) -> None:
        """Where the clock stands before the first step, and the curve of a resumed run so far."""
        self._step, self._seconds = step, seconds
        self.points = tuple(points)[-CURVE_POINTS:]

    def add(self, report: StepReport) -> bool:
        """Count one step; true when the curve grew."""
        self._means.add(report)
        elapsed = report.seconds - self._seconds
        if elapsed < self._gap and self.points:
            return False
        loss, psnr = self._means.take()
        self.loss, self.psnr = _smooth(self.loss, loss), _smooth(self.psnr, psnr)
        rate = (report.step - self._step) / max(elapsed, 1e-9)
        self.steps_per_second = _smooth(self.steps_per_second or math.nan, rate)
        self._step, self._seconds = report.step, report.seconds
        self.points = (*self.points, CurvePoint(report.step, report.seconds, loss, psnr))
        if len(self.points) > CURVE_POINTS:  # every second one, and half as many from now on
            self.points = self.points[::2]
            self._gap *= 2
        return True


class StageTimes:
    """Smoothed milliseconds by stage, for the panel."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}

    def add(self, times: dict[str, float]) -> dict[str, float]:
        """Count new ones; returns all, a copy."""
        for name, value in times.items():
            self._times[name] = _smooth(self._times.get(name, math.nan), value)
        return dict(self._times)


def count_curve(snapshot: Snapshot) -> list[list[float]]:
    """Seconds and how many Gaussians there were, for a curve of stairs; [[], []] of none."""
    events, now = snapshot.refinements, float(snapshot.gaussians)
    if not now or not snapshot.curve:
        return [[], []]
    first = float(events[0].before) if events else now
    begin, end = snapshot.curve[0].seconds, max(snapshot.seconds, snapshot.curve[-1].seconds)
    seconds = [begin, *(event.seconds for event in events), end]
    return [seconds, [first, *(float(event.after) for event in events), now]]


def count_text(snapshot: Snapshot) -> str:
    """What is counted while a scene loads: "photographs 120 of 300"; else nothing."""
    if snapshot.counted is None:
        return ""
    what, done, total = snapshot.counted
    return f"{what} {done:,} of {total:,}"


def count_share(snapshot: Snapshot) -> float | None:
    """How much of what is counted is done, 0..1; None where nothing is."""
    if snapshot.counted is None:
        return None
    _, done, total = snapshot.counted
    return done / total


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _smooth(old: float, new: float) -> float:
    if math.isnan(new):
        return old
    return new if math.isnan(old) else _KEEP * old + (1 - _KEEP) * new
