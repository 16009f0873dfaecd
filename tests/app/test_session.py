"""The session: states, commands, snapshots, and errors that never kill it silently."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from app.options import Options
from app.session import Cancelled, Session
from app.snapshot import Snapshot, State, ViewRequest
from render.camera import Camera
from render.errors import UserError
from render.scenes.background import Background

pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 20  # far more than anything here takes
SETTLED = (State.READY, State.PAUSED, State.FINISHED, State.FAILED, State.IDLE)


@pytest.fixture
def options(tiny_scene: Path) -> Options:
    return Options(scene=str(tiny_scene), method="fake", device="cpu", eval_every="never")


def opened(options: Options, *, autostart: bool = False) -> Session:
    session = Session(options, autostart=autostart)
    session.open()
    wanted = SETTLED if not autostart else (State.FINISHED, State.FAILED)
    session.wait(wanted, SECONDS)
    return session


def closed(session: Session) -> Snapshot:
    session.stop()
    assert session.join(SECONDS)
    return session.snapshot()


def test_trains_to_its_budget_and_saves(options: Options) -> None:
    session = opened(replace(options, steps=12), autostart=True)
    snapshot = session.snapshot()
    assert snapshot.state is State.FINISHED
    assert snapshot.report is not None and snapshot.report.step == 12
    assert snapshot.progress == 1.0
    assert snapshot.saved is not None and snapshot.saved.endswith("step_0000012.pt")
    assert Path(snapshot.saved).is_file()
    assert snapshot.curve and snapshot.sizes == {"bias": snapshot.sizes["bias"]}
    assert closed(session).state is State.IDLE


def test_loads_without_starting_and_steps_on_request(options: Options) -> None:
    session = opened(options)
    assert session.snapshot().state is State.READY
    assert session.snapshot().report is None
    session.step(3)
    snapshot = session.wait([State.PAUSED], SECONDS)
    assert snapshot.report is not None and snapshot.report.step == 3
    session.step()
    session.submit(lambda bench: None).result(SECONDS)  # everything before it is done
    snapshot = session.wait([State.PAUSED], SECONDS)
    assert snapshot.report is not None and snapshot.report.step == 4
    closed(session)


def test_pause_and_start(options: Options) -> None:
    session = opened(options)
    session.start()
    assert session.wait([State.RUNNING], SECONDS).state is State.RUNNING
    session.pause()
    first = session.wait([State.PAUSED], SECONDS)
    assert first.state is State.PAUSED
    session.start()
    session.wait([State.RUNNING], SECONDS)
    session.pause()
    second = session.wait([State.PAUSED], SECONDS)
    assert first.report is None or (
        second.report is not None and second.report.step >= first.report.step
    )
    closed(session)


def test_finished_run_goes_on_with_a_larger_budget(options: Options) -> None:
    session = opened(replace(options, steps=2), autostart=True)
    session.start()
    session.submit(lambda bench: None).result(SECONDS)
    assert session.snapshot().state is State.FINISHED
    session.set_option("steps", 5)
    session.start()
    session.submit(lambda bench: None).result(SECONDS)
    snapshot = session.wait([State.FINISHED], SECONDS)
    assert snapshot.report is not None and snapshot.report.step == 5
    closed(session)


def test_set_option_refuses_what_cannot_change(options: Options) -> None:
    session = opened(options)
    with pytest.raises(UserError, match="eval_every"):
        session.set_option("seed", 3)
    with pytest.raises(UserError, match="30s"):
        session.set_option("eval_every", "soon")
    with pytest.raises(UserError, match="above 0"):
        session.set_option("steps", 0)
    closed(session)


def test_newest_view_wins(options: Options) -> None:
    session = opened(options)
    gate = threading.Event()
    blocked = session.submit(lambda bench: gate.wait(SECONDS))
    camera = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=20, height=10)
    for number in range(5):
        session.request_view(ViewRequest(camera, (2,), (2,) if number == 4 else (), number=number))
    gate.set()
    blocked.result(SECONDS)
    session.submit(lambda bench: None).result(SECONDS)
    session.submit(lambda bench: None).result(SECONDS)  # a picture comes between two commands
    view = session.snapshot().view
    assert view is not None and view.request.number == 4
    assert view.renders[2].rgb.shape == (10, 20, 3)
    assert view.insides[2].kbuffer.k == 2
    closed(session)


def test_pictures_come_while_training(options: Options) -> None:
    session = opened(options)
    session.start()
    camera = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=20, height=10)
    session.request_view(ViewRequest(camera, (3,), background=Background("black"), number=7))
    assert session.wait_for(lambda snapshot: snapshot.view is not None, SECONDS).view is not None
    assert session.snapshot().state is State.RUNNING
    closed(session)


def test_failed_picture_leaves_training_alone(options: Options) -> None:
    session = opened(options)
    session.start()
    session.request_view(ViewRequest("not a camera", (1,)))  # pyright: ignore[reportArgumentType]
    assert session.wait_for(lambda snapshot: snapshot.error is not None, SECONDS).error
    assert session.snapshot().state is State.RUNNING
    assert "AttributeError" in (session.snapshot().error or "")
    closed(session)


def test_exception_in_training_becomes_a_sentence(options: Options) -> None:
    session = opened(replace(options, settings=("fail_at=4",)), autostart=True)
    snapshot = session.snapshot()
    assert snapshot.state is State.FAILED
    assert snapshot.error is not None and "the fake was told to fail" in snapshot.error
    assert isinstance(session.exception, ZeroDivisionError)
    assert session.bench is not None
    assert "Traceback" in session.bench.folder.log_path.read_text()
    # The worker lives on: pictures and jobs are still served.
    assert session.submit(lambda bench: bench.trainer is not None).result(SECONDS)
    assert closed(session).state is State.FAILED


def test_divergence_is_told(options: Options) -> None:
    session = opened(replace(options, settings=("nan_from=3",)), autostart=True)
    snapshot = session.snapshot()
    assert snapshot.state is State.FAILED
    assert "not finite" in (snapshot.error or "")
    closed(session)


def test_no_exception_leaves_anybody_waiting(options: Options) -> None:
    def log(text: str) -> None:
        raise SystemExit(1)  # as rich does when its pipe is closed

    session = Session(options, autostart=False, log=log)
    session.open()
    assert session.wait([State.READY, State.FAILED], SECONDS).state is State.FAILED
    closed(session)


def test_missing_scene_fails_with_the_sentence(options: Options, tmp_path: Path) -> None:
    session = opened(replace(options, scene=str(tmp_path / "nowhere" / "at-all")))
    snapshot = session.snapshot()
    assert snapshot.state is State.FAILED
    assert "nowhere" in (snapshot.error or "")
    session.start()  # tells nothing new and breaks nothing
    with pytest.raises(UserError, match="Nothing is loaded"):
        session.submit(lambda bench: None).result(SECONDS)
    assert "nowhere" in (closed(session).error or "")


def test_error_of_a_job_goes_to_its_future(options: Options) -> None:
    session = opened(options)
    with pytest.raises(KeyError):
        session.submit(lambda bench: {}["missing"]).result(SECONDS)
    assert session.snapshot().state is State.READY
    closed(session)


def test_stop_ends_a_running_evaluation(options: Options) -> None:
    session = opened(options)
    entered, go = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        entered.set()
        go.wait(SECONDS)

    future = session.submit(lambda bench: session.measure(on_image=slow))
    assert entered.wait(SECONDS)
    session.stop()
    go.set()
    with pytest.raises(Cancelled):
        future.result(SECONDS)
    assert session.join(SECONDS)


def test_stop_saves_and_late_jobs_are_answered(options: Options) -> None:
    session = opened(options)
    session.step(3)
    session.wait([State.PAUSED], SECONDS)
    session.stop()  # twice is once
    snapshot = closed(session)
    assert snapshot.state is State.IDLE
    assert snapshot.saved is not None and "step_0000003" in snapshot.saved
    session.start()
    with pytest.raises(Cancelled):
        session.submit(lambda bench: None).result(SECONDS)
    assert session.snapshot().state is State.IDLE


def test_evaluations_go_to_metrics_and_pick_the_best(options: Options) -> None:
    session = opened(replace(options, steps=9, eval_every="4"), autostart=True)
    snapshot = session.snapshot()
    assert [point.step for point in snapshot.evals] == [4, 8]
    assert all(point.val_psnr is not None for point in snapshot.evals)
    assert session.bench is not None
    folder = session.bench.folder
    best = (folder.checkpoints / "best").read_text().strip()
    winner = max(snapshot.evals, key=lambda point: point.val_psnr or 0)
    assert best == f"step_{winner.step:07d}.pt"
    rows = (folder.path / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("step,seconds,loss,train_psnr,test_psnr,test_ssim")
    assert [row.split(",")[0] for row in rows[1:]] == ["4", "8"]
    closed(session)


def test_saving_to_a_vanished_folder_fails_with_a_sentence(options: Options) -> None:
    import shutil

    session = opened(options)
    assert session.bench is not None
    shutil.rmtree(session.bench.folder.path)
    with pytest.raises(FileNotFoundError):
        session.save().result(SECONDS)
    session.step(1)
    session.wait([State.PAUSED], SECONDS)
    assert closed(session).state is State.FAILED


def test_two_sessions_do_not_share_a_folder(options: Options) -> None:
    first, second = opened(options), opened(options)
    assert first.bench is not None and second.bench is not None
    assert first.bench.folder.path != second.bench.folder.path
    closed(first), closed(second)


def test_resumed_run_shows_its_past(options: Options, tmp_path: Path) -> None:
    out = tmp_path / "out"
    closed(opened(replace(options, steps=12, eval_every="5", out=out), autostart=True))
    session = opened(Options(resume=str(out)))
    snapshot = closed(session)
    assert [point.step for point in snapshot.curve] == [5, 10]
    assert [seconds for seconds, _ in snapshot.earlier] == [p.seconds for p in snapshot.curve]
