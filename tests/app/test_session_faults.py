"""What a session does when a step, a disk or a number fails: nothing trained is lost."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app import workbench
from app.options import Options
from app.session import Session
from app.snapshot import Snapshot, State
from render.training.checkpoint import list_checkpoints, load_latest
from render.training.runfolder import MetricsRow, RunFolder
from tests.fakes import fake_method, tiny_scene

__all__ = ["fake_method", "tiny_scene"]
pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 30.0


@pytest.fixture
def options(tiny_scene: Path, tmp_path: Path) -> Options:
    return Options(
        scene=str(tiny_scene), method="fake", device="cpu", eval_every="never",
        out=tmp_path / "run", steps=9,
    )  # fmt: skip


def trained(options: Options) -> Snapshot:
    session = Session(options)
    session.open()
    snapshot = session.wait([State.FINISHED, State.FAILED], SECONDS)
    session.stop()
    assert session.join(SECONDS)
    return snapshot


def steps(options: Options) -> list[str]:
    assert options.out is not None
    return [path.stem[-2:] for path in list_checkpoints(options.out / "checkpoints")]


@pytest.mark.parametrize(
    ("every", "expected"),
    [("2", ["09", "08", "06"]), ("never", ["09"]), (None, ["09"]), ("0.0001s", ["09", "08", "07"])],
)
def test_save_every(options: Options, every: str | None, expected: list[str]) -> None:
    assert trained(replace(options, save_every=every)).state is State.FINISHED
    assert steps(options) == expected


def test_a_failed_step_is_taken_again_exactly(options: Options, tmp_path: Path) -> None:
    """The step had drawn a view and random numbers when it failed."""
    whole = replace(options, out=tmp_path / "whole")
    assert trained(whole).state is State.FINISHED
    broken = replace(options, out=tmp_path / "broken")
    session = Session(broken, autostart=False)
    session.open()
    session.wait([State.READY], SECONDS)
    assert session.bench is not None and session.bench.method is not None
    method: Any = session.bench.method
    step = method.train_step

    def fail(number: int, sampler: Any, generator: torch.Generator) -> Any:
        out = step(number, sampler, generator)
        if number == 5:
            torch.rand(3)
            raise OSError(errno.EIO, "the photograph is gone")
        return out

    method.train_step = fail
    session.start()
    snapshot = session.wait([State.FAILED], SECONDS)
    session.stop()
    assert session.join(SECONDS)
    assert "Everything is saved in" in str(snapshot.error) and steps(broken) == ["05"]
    assert trained(Options(resume=str(broken.out))).state is State.FINISHED
    ends = [load_latest(tmp_path / name / "checkpoints", print)[1] for name in ("whole", "broken")]
    states = [{k: v for k, v in end["trainer"].items() if k != "seconds"} for end in ends]
    assert repr(states[0]) == repr(states[1])


def test_training_that_diverged_can_go_on(options: Options) -> None:
    snapshot = trained(replace(options, settings=("nan_from=4",), steps=99))
    assert snapshot.state is State.FAILED
    assert "20 steps in a row" in str(snapshot.error) and "saved in" in str(snapshot.error)
    assert options.out is not None
    content = load_latest(options.out / "checkpoints", print)[1]
    assert content["trainer"]["bad_steps"] == 0 and content["trainer"]["skipped_steps"] > 0
    assert bool(content["trainer"]["method"]["grid"].isfinite().all())


def test_a_full_disk_is_told_and_training_goes_on(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, tries = workbench.save_checkpoint, []

    def full(folder: Path, content: dict[str, Any], *, best: bool = False) -> Path:
        tries.append(content["step"])
        if content["step"] < 9:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "step.pt"))
        return save(folder, content, best=best)

    monkeypatch.setattr(workbench, "save_checkpoint", full)
    snapshot = trained(replace(options, save_every="3"))
    assert snapshot.state is State.FINISHED and tries == [3, 6, 9]
    told = [note for note in snapshot.notes if "Not saved" in note]
    assert len(told) == 2 and "No space left on device. Training goes on" in told[0]
    assert steps(options) == ["09"]


def test_lines_of_metrics(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.append_metrics(MetricsRow(3, 1.0, loss=0.5, train_psnr=20.0))
    run.append_metrics(MetricsRow(3, 1.0, test_psnr=19.0))  # as after a resume at the end
    assert run.metrics() == [MetricsRow(3, 1.0, loss=0.5, train_psnr=20.0, test_psnr=19.0)]
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,1.")  # torn by a full disk
    run.append_metrics(MetricsRow(5, 2.0, loss=0.25))
    assert [row.step for row in run.metrics()][-1] == 5
    assert run.trained_seconds() == 2.0
