"""Where the time of a training step goes: named stages, counted by whoever asks.

Code marks its parts with ``with stage("rasterise"):``. Without a collector on its thread that
costs a look-up; with one, a clock reading and an addition on entering and leaving. A stage inside
another interrupts it, so the times of a step add up to the step.

A GPU works on while Python has gone ahead, so its stages end only when the GPU is waited for. That
slows training down: there only one step is timed after every :meth:`Stages.take`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

OTHER = "other"
STAGES = ("data", "rasterise", "network", "loss", "backward", "optimiser", "refine", OTHER)


class _Current(threading.local):
    collector: Stages | None = None


_current = _Current()


class Stages:
    """Times of the steps that ran within :meth:`step`, by the names of :data:`STAGES`.

    Args:
        device: where the steps compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._wanted = True
        self._clear()

    def _clear(self) -> None:
        self._seconds: dict[str, float] = {name: 0.0 for name in STAGES}
        self._steps = 0
        self._names: list[str] = []  # of the stages that are open, innermost last
        self._since = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step; on a GPU it is timed only after :meth:`take`."""
        if self._cuda is not None and not self._wanted:
            yield
            return
        self._names = [OTHER]
        self._since = time.perf_counter()
        _current.collector = self
        try:
            yield
        finally:
            _current.collector = None
            self.switch()
            self._steps += 1
            self._wanted = False

    def take(self) -> dict[str, float]:
        """Mean milliseconds a step of every stage that took any, in their usual order; starts anew.

        Empty where no step was timed.
        """
        count = max(1, self._steps)
        times = {name: 1000 * s / count for name, s in self._seconds.items() if s > 0}
        self._clear()
        self._wanted = True
        return times

    def enter(self, name: str) -> None:
        """Until :meth:`leave`, time counts for ``name``."""
        self.switch()
        self._names.append(name)

    def leave(self) -> None:
        """The stage around counts again."""
        self.switch()
        self._names.pop()

    def switch(self) -> None:
        """Charge the time so far to the innermost stage."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        now = time.perf_counter()
        name = self._names[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


class stage:
    """``with stage("network"): ...`` counts for that stage where somebody collects."""

    __slots__ = ("_collector", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._collector: Stages | None = None

    def __enter__(self) -> None:
        self._collector = collector = _current.collector
        if collector is not None:
            collector.enter(self._name)

    def __exit__(self, *_: object) -> None:
        if self._collector is not None:
            self._collector.leave()
