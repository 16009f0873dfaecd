"""A resumed run takes the very same steps as one that was never interrupted, for every method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.options import Options, parse
from app.session import Session
from app.snapshot import State
from app.workbench import Workbench, build
from render.errors import UserError
from render.methods import method_names
from render.training.checkpoint import load_checkpoint, save_checkpoint
from tests.fakes import FakeOptions

pytestmark = pytest.mark.usefixtures("fake_method")
BUNDLED = Path(__file__).parents[2] / "assets" / "scenes" / "lego"
BEFORE, AFTER = 5, 20


def options_for(name: str, tiny_scene: Path) -> Options:
    if name == "fake":
        return Options(scene=str(tiny_scene), method=name, device="cpu", seed=3)
    return Options(scene=str(BUNDLED), method=name, device="cpu", seed=3, k=2, downscale=8)


def losses(bench: Workbench, steps: int) -> list[tuple[float, dict[str, float], float]]:
    assert bench.trainer is not None
    reports = [bench.trainer.step() for _ in range(steps)]
    return [(r.loss, r.terms, r.psnr) for r in reports]


@pytest.mark.parametrize("name", ["fake", *method_names()])
def test_losses_after_a_resume_are_the_same_bits(name: str, tiny_scene: Path) -> None:
    bench = build(options_for(name, tiny_scene), print)
    losses(bench, BEFORE)
    path = bench.save()
    expected = losses(bench, AFTER)

    torch.manual_seed(99)  # nothing may depend on what happened in the process before
    resumed = build(Options(resume=str(path), device="cpu"), print)
    assert resumed.folder.path.resolve() == bench.folder.path.resolve()
    assert resumed.trainer is not None and resumed.trainer.step_count == BEFORE
    assert repr(losses(resumed, AFTER)) == repr(expected)  # repr: NaN equals NaN


@pytest.mark.parametrize("name", ["fake", *method_names()])
def test_checkpoint_measures_the_same_to_the_last_digit(name: str, tiny_scene: Path) -> None:
    session = Session(replace(options_for(name, tiny_scene), steps=4))
    session.open()
    snapshot = session.wait([State.FINISHED, State.FAILED], 60)
    assert snapshot.state is State.FINISHED, snapshot.error
    trained = session.evaluate().result(60)
    session.stop()
    session.join(60)

    again = Session(Options(resume=snapshot.saved, device="cpu"), autostart=False)
    again.open()
    again.wait([State.READY, State.FAILED], 60)
    measured = again.evaluate().result(60)
    again.stop()
    again.join(60)
    assert measured.result.per_image == trained.result.per_image
    assert (measured.step, measured.seconds) == (trained.step, trained.seconds)


def trained_run(tiny_scene: Path, steps: int = 5) -> Workbench:
    bench = build(options_for("fake", tiny_scene), print)
    losses(bench, steps)
    bench.save()
    return bench


def test_latest_is_the_newest_run_of_the_scene(tiny_scene: Path) -> None:
    bench = trained_run(tiny_scene)
    for resume in ("latest", str(bench.folder.path), str(bench.folder.checkpoints)):
        resumed = build(Options(resume=resume, scene=str(tiny_scene)), print)
        assert resumed.folder.path.resolve() == bench.folder.path.resolve()
    assert build(Options(resume="latest", scene="tiny"), print).trainer is not None
    with pytest.raises(UserError, match="of scene other"):
        build(Options(resume="latest", scene="other"), print)


def test_resume_keeps_what_the_run_is(tiny_scene: Path) -> None:
    trained_run(tiny_scene)
    with pytest.raises(UserError, match="--seed 4: this run was trained with 3"):
        build(Options(resume="latest", seed=4), print)
    resumed = build(Options(resume="latest", steps=99, eval_every="50"), print)
    assert resumed.options.steps == 99 and resumed.options.seed == 3
    assert resumed.options.eval_every == "50"


def test_what_the_command_line_names_counts_even_if_it_is_the_default(tiny_scene: Path) -> None:
    run = str(trained_run(tiny_scene).folder.path)  # with seed 3
    with pytest.raises(UserError, match="--seed 0: this run was trained with 3"):
        build(parse(["--resume", run, "--seed", "0"]), print)
    with pytest.raises(UserError, match="--k 4: this run was trained with 3"):
        build(parse(["--resume", run, "--k", "4"]), print)
    assert build(parse(["--resume", run, "--k", "3", "--seed=3"]), print).options.seed == 3
    with pytest.raises(UserError, match="leave --out out"):
        build(parse(["--resume", run, "--out", "elsewhere"]), print)


def test_new_budget_replaces_the_old_one(tiny_scene: Path) -> None:
    bench = build(replace(options_for("fake", tiny_scene), steps=5), print)
    losses(bench, 5)
    path = str(bench.save())
    assert build(Options(resume=path), print).options.steps == 5
    resumed = build(Options(resume=path, seconds=9.0), print).options
    assert (resumed.steps, resumed.seconds) == (None, 9.0)


def test_checkpoint_with_parts_missing(tiny_scene: Path) -> None:
    bench = trained_run(tiny_scene)
    save_checkpoint(bench.folder.checkpoints, {"step": 9, "options": bench.options.to_json()})
    with pytest.raises(UserError, match="parts missing"):
        build(Options(resume=str(bench.folder.path)), print)


def test_changed_scene_is_refused(tiny_scene: Path) -> None:
    trained_run(tiny_scene)
    text = (tiny_scene / "transforms_train.json").read_text()
    (tiny_scene / "transforms_train.json").write_text(text.replace("0.69", "0.70"))
    with pytest.raises(UserError, match="have changed"):
        build(Options(resume="latest"), print)


def test_torn_newest_checkpoint_falls_back_and_says_so(tiny_scene: Path) -> None:
    bench = trained_run(tiny_scene)
    losses(bench, 3)
    newest = bench.save()
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    resumed = build(Options(resume="latest"), said.append)
    assert resumed.trainer is not None and resumed.trainer.step_count == 5
    assert any("step_0000008.pt" in line for line in said)


def test_metrics_continue_without_the_lost_rows(tiny_scene: Path) -> None:
    options = replace(options_for("fake", tiny_scene), eval_every="2", steps=6)
    session = Session(options)
    session.open()
    session.wait([State.FINISHED, State.FAILED], 60)
    session.stop()
    assert session.join(60)
    assert session.bench is not None
    folder = session.bench.folder
    first = folder.checkpoints / "step_0000004.pt"
    assert load_checkpoint(first)["options"]["eval_every"] == "2"
    again = Session(Options(resume=str(first), steps=8))
    again.open()
    again.wait([State.FINISHED, State.FAILED], 60)
    again.stop()
    assert again.join(60)
    rows = (folder.path / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == [2, 4, 6]


def test_checkpoint_holds_what_it_must(tiny_scene: Path) -> None:
    path = trained_run(tiny_scene).save()
    content = load_checkpoint(path)
    assert content["method"] == "fake" and content["k"] == FakeOptions().k
    assert {"trainer", "options", "scene", "versions", "step"} <= content.keys()
    assert content["scene"]["fingerprint"] and content["versions"]["torch"] == torch.__version__
