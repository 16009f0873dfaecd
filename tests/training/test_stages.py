"""Stage times: they add up, cost nothing unasked, and wait for a GPU only now and then."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import torch

from render.training import stages
from render.training.stages import STAGES, Stages, stage

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every reading of the clock is one second after the one before."""
    seconds = count()
    monkeypatch.setattr(stages.time, "perf_counter", lambda: float(next(seconds)))
    yield


@pytest.mark.usefixtures("clock")
def test_inner_stages_interrupt_outer_ones() -> None:
    collector = Stages(CPU)
    with collector.step(), stage("data"), stage("rasterise"):
        pass
    # Readings: start, into data, into rasterise, out of it, out of data, end.
    times = collector.take()
    assert times == {"data": 2000.0, "rasterise": 1000.0, "other": 2000.0}
    assert list(times) == sorted(times, key=STAGES.index)


@pytest.mark.usefixtures("clock")
def test_means_over_the_steps_since_the_last_taking() -> None:
    collector = Stages(CPU)
    for _ in range(4):
        with collector.step(), stage("loss"):
            pass
    assert collector.take() == {"loss": 1000.0, "other": 2000.0}
    assert collector.take() == {}


def test_stages_outside_a_step_count_nowhere() -> None:
    collector = Stages(CPU)
    with stage("network"):
        pass
    with collector.step():
        pass
    with stage("network"):
        pass
    assert set(collector.take()) == {"other"}


def test_an_error_ends_the_step() -> None:
    collector = Stages(CPU)
    with pytest.raises(ZeroDivisionError), collector.step(), stage("network"):
        raise ZeroDivisionError
    with stage("backward"):
        pass
    assert set(collector.take()) == {"network", "other"}


def test_a_gpu_is_waited_for_in_one_step_per_taking(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    collector = Stages(torch.device("cuda"))

    def steps() -> int:
        waits.clear()
        for _ in range(3):
            with collector.step(), stage("network"):
                pass
        return len(waits)

    assert steps() == 3  # into the stage, out of it, end of the step: of the first one only
    assert steps() == 0
    assert set(collector.take()) == {"network", "other"}
    assert steps() == 3
