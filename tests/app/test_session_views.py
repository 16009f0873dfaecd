"""Pictures for the window: what a request gets, and when, while the worker does other things."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import app.session
from app.options import Options
from app.session import Session
from app.snapshot import EvalPoint, Snapshot, State, ViewRequest, ViewResult
from render.camera import Camera
from render.methods.base import Render
from render.scenes.background import Background
from render.training.metrics import psnr
from tests.fakes import FakeMethod

pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 20  # far more than anything here takes
CAMERA = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=20, height=10)


@pytest.fixture
def session(tiny_scene: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Loaded, not started; its pictures grow brighter with k."""

    def render(self: FakeMethod, camera: Camera, background: Tensor, k: int | None = None):
        layers = k or self.options.k
        return Render((self._image(camera) * layers / self.options.k).clamp(0, 1).detach())

    monkeypatch.setattr(FakeMethod, "render", render)
    session = Session(
        Options(scene=str(tiny_scene), method="fake", device="cpu", eval_every="never"),
        autostart=False,
    )
    session.open()
    session.wait([State.READY, State.FAILED], SECONDS)
    yield session
    session.stop()
    assert session.join(SECONDS)


def answered(session: Session, request: ViewRequest) -> ViewResult:
    session.request_view(request)

    def done(snapshot: Snapshot) -> bool:
        view = snapshot.view
        swept = view is not None and (view.sweep is not None or not request.sweep)
        return view is not None and view.request.number == request.number and swept

    view = session.wait_for(done, SECONDS).view
    assert view is not None and view.request.number == request.number
    return view


def test_everything_that_was_asked_for_and_nothing_else(session: Session) -> None:
    view = answered(session, ViewRequest(CAMERA, ks=(1, 3), inspect=(3, 2), number=1))
    assert set(view.renders) == {1, 3} and set(view.insides) == {2, 3}
    assert {k: inside.kbuffer.k for k, inside in view.insides.items()} == {2: 2, 3: 3}
    assert not torch.equal(view.renders[1].rgb, view.renders[3].rgb)
    assert view.sweep is None
    assert torch.equal(view.background, torch.ones(3))
    assert session.snapshot().stages["render"] > 0


def test_more_layers_than_the_model_has(session: Session) -> None:
    view = answered(session, ViewRequest(CAMERA, (3, 9), (99, 0), Background("black"), number=2))
    assert view.renders[9] is view.renders[3]
    assert view.insides[99].kbuffer.k == 3 and view.insides[0].kbuffer.k == 1
    assert torch.equal(view.background, torch.zeros(3))


def test_sweep_against_the_photograph(session: Session) -> None:
    assert session.bench is not None
    photo = session.bench.scene.views[4]
    request = ViewRequest(photo.camera, (2,), view=4, sweep=True, number=3)
    view = answered(session, request)
    assert view.sweep is not None and view.sweep.photo and len(view.sweep.psnr) == 3
    expected = psnr(view.renders[2].rgb, photo.target(torch.ones(3)))
    assert view.sweep.psnr[1] == expected


@pytest.mark.parametrize("number", [None, 4, 999])
def test_sweep_without_a_photograph_of_this_size(session: Session, number: int | None) -> None:
    view = answered(session, ViewRequest(CAMERA, view=number, sweep=True, number=4))
    assert view.sweep is not None and not view.sweep.photo
    assert view.sweep.psnr[-1] == math.inf
    assert view.sweep.psnr[0] < view.sweep.psnr[1] < math.inf


def test_another_camera_ends_a_sweep(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    started, go = threading.Event(), threading.Event()
    genuine = app.session.sweep

    def slow(*args):
        started.set()
        go.wait(SECONDS)
        yield from genuine(*args)

    monkeypatch.setattr(app.session, "sweep", slow)
    session.request_view(ViewRequest(CAMERA, (1,), sweep=True, number=5))
    assert started.wait(SECONDS)
    other = Camera.look_at((0.0, 3.0, 1.0), (0.0, 0.0, 0.0), width=20, height=10)
    session.request_view(ViewRequest(other, (1,), number=6))
    go.set()
    view = session.wait_for(
        lambda s: s.view is not None and s.view.request.number == 6, SECONDS
    ).view
    session.submit(lambda bench: None).result(SECONDS)
    assert session.snapshot().view is view and view is not None and view.sweep is None
    assert session._sweep is None


def test_sweep_joins_a_newer_picture_of_the_same_camera(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go = threading.Event(), threading.Event()
    genuine = app.session.sweep

    def slow(*args):
        started.set()
        go.wait(SECONDS)
        yield from genuine(*args)

    monkeypatch.setattr(app.session, "sweep", slow)
    session.request_view(ViewRequest(CAMERA, (1,), sweep=True, number=7))
    assert started.wait(SECONDS)
    session.request_view(ViewRequest(CAMERA, (2,), number=8))
    go.set()
    view = session.wait_for(lambda s: s.view is not None and s.view.sweep is not None, SECONDS).view
    assert view is not None and view.request.number == 8 and set(view.renders) == {2}


def steps(session: Session) -> int:
    def count(bench) -> int:
        return bench.trainer.step_count

    return session.submit(count).result(SECONDS)


def test_training_waits_while_the_camera_moves(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.session, "HOLD_SECONDS", 1000.0)
    session.start()
    answered(session, ViewRequest(CAMERA, (1,), moving=True, number=1))
    before = steps(session)
    for number in (2, 3, 4):  # also those that do not move any more come at once
        answered(session, ViewRequest(CAMERA, (number - 1,), moving=number < 4, number=number))
    assert steps(session) == before
    assert session.snapshot().state is State.RUNNING
    session.pause_while_moving = False
    steps(session)  # any command ends the wait
    session.wait_for(lambda s: s.report is not None and s.report.step > before, SECONDS)
    assert steps(session) > before


def test_training_goes_on_after_the_last_move(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.session, "HOLD_SECONDS", 0.01)
    session.start()
    answered(session, ViewRequest(CAMERA, (1,), moving=True, number=1))
    before = steps(session)
    after = session.wait_for(lambda s: s.report is not None and s.report.step > before, SECONDS)
    assert after.report is not None and after.report.step > before


def test_share_of_pictures_holds_for_newer_pictures_of_the_same(session: Session) -> None:
    answered(session, ViewRequest(CAMERA, (1,), number=1))
    session.step(10**9)

    def use_up(bench) -> None:
        session._view_not_before = math.inf

    def trained(more: int) -> None:
        goal = steps(session) + more
        session.wait_for(lambda s: s.report is not None and s.report.step >= goal, SECONDS)

    def shown() -> int:
        view = session.snapshot().view
        return view.request.number if view else -1

    session.submit(use_up).result(SECONDS)
    session.request_view(ViewRequest(CAMERA, (1,), number=2))
    trained(5)
    assert shown() == 1
    answered(session, ViewRequest(CAMERA, (1,), moving=True, number=3))
    session.pause_while_moving = False
    session.request_view(ViewRequest(CAMERA, (1,), moving=True, number=4))
    trained(5)
    assert shown() == 3
    session.pause()  # then there is no share to keep
    session.wait_for(lambda s: s.view is not None and s.view.request.number == 4, SECONDS)
    session.submit(lambda bench: None).result(SECONDS)
    assert shown() == 4


@pytest.mark.parametrize(
    "changed", [{"ks": (2,)}, {"inspect": (1,)}, {"background": Background("black")},
                {"camera": CAMERA.resize(10, 5)}]
)  # fmt: skip
def test_what_was_changed_comes_at_once(session: Session, changed: dict) -> None:
    first = ViewRequest(CAMERA, (1,), number=1)
    answered(session, first)
    session.step(10**9)

    def use_up(bench) -> None:
        session._view_not_before = math.inf

    session.submit(use_up).result(SECONDS)
    answered(session, replace(first, **changed, number=2))
    assert session.snapshot().state is State.RUNNING


def test_pictures_come_during_an_evaluation(session: Session) -> None:
    seen: list[tuple[str | None, int]] = []

    def on_image(i: int, *_: object) -> None:
        view = session.snapshot().view
        seen.append((session.snapshot().evaluating, view.request.number if view else -1))
        session.request_view(ViewRequest(CAMERA, (1,), number=i))

    def job(bench) -> EvalPoint:
        return session.measure(on_image=on_image)

    session.submit(job).result(SECONDS)
    assert seen == [("test 0/3", -1), ("test 1/3", 0), ("test 2/3", 1)]
    assert session.snapshot().evaluating is None


def test_pictures_of_a_cloud_alone(session: Session, tmp_path: Path) -> None:
    lines = "\n".join(f"{x} {y} 0" for x in range(9) for y in range(9))
    (tmp_path / "grid.xyz").write_text(lines)
    cloud = Session(
        replace(session.options, scene=str(tmp_path / "grid.xyz"), k=2), autostart=False
    )
    cloud.open()
    assert cloud.wait([State.READY, State.FAILED], SECONDS).k == 2
    camera = Camera.look_at((4.0, 4.0, 12.0), (4.0, 4.0, 0.0), (0, 1, 0), width=16, height=16)
    view = answered(cloud, ViewRequest(camera, (2,), (2,), sweep=True, number=1))
    assert view.sweep is not None and view.sweep.psnr[1] == math.inf
    assert view.step == 0 and cloud.snapshot().points == 81
    cloud.stop()
    assert cloud.join(SECONDS)
