"""What the worker does when memory runs out: smaller pictures, saved training, a live session."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app import headless
from app.options import Options
from app.session import Session
from app.snapshot import Snapshot, State, ViewRequest, ViewResult
from render import memory
from render.camera import Camera
from render.errors import UserError
from render.training.checkpoint import load_checkpoint
from tests.fakes import FakeMethod

pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 20
CAMERA = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=400, height=300)
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes."


@pytest.fixture
def options(tiny_scene: Path) -> Options:
    return Options(scene=str(tiny_scene), method="fake", device="cpu", eval_every="never")


def opened(options: Options) -> Session:
    session = Session(options, autostart=False)
    session.open()
    assert session.wait([State.READY, State.FAILED], SECONDS).state is State.READY
    return session


def closed(session: Session) -> Snapshot:
    session.stop()
    assert session.join(SECONDS)
    return session.snapshot()


def picture(session: Session, number: int, **changes: object) -> ViewResult:
    session.request_view(
        replace(ViewRequest(CAMERA, (3,), number=number), **changes)  # pyright: ignore
    )
    snapshot = session.wait_for(
        lambda s: s.error is not None or (s.view is not None and s.view.request.number == number),
        SECONDS,
    )
    assert snapshot.error is None
    assert snapshot.view is not None
    return snapshot.view


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures of more than 40,000 pixels fail; the widths that were tried."""
    widths: list[int] = []
    real = FakeMethod.render

    def render(self: FakeMethod, camera: Camera, *rest: object):
        widths.append(camera.width)
        if camera.width * camera.height > 40_000:
            raise RuntimeError(NO_MEMORY)
        return real(self, camera, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(FakeMethod, "render", render)
    return widths


def test_a_picture_without_memory_is_made_smaller(options: Options, tried: list[int]) -> None:
    session = opened(options)
    session.start()
    view = picture(session, 1)
    assert (view.request.camera.width, view.request.camera.height) == (200, 150)
    assert view.renders[3].rgb.shape == (150, 200, 3)
    assert picture(session, 2).request.camera.width == 200
    assert tried[:3] == [400, 200, 200]  # the large one is not tried again
    snapshot = session.snapshot()
    assert snapshot.state is State.RUNNING
    said = [note for note in snapshot.notes if "Out of memory" in note]
    assert len(said) == 1 and "400x300" in said[0] and "200x150" in said[0]
    small = CAMERA.resize(100, 75)
    assert picture(session, 3, camera=small).request.camera.width == 100
    closed(session)


def test_the_same_picture_again_is_no_new_wish(options: Options, tried: list[int]) -> None:
    session = opened(options)
    session.start()
    session.view_share = 0.01  # after the first picture others of the same wait for long
    picture(session, 1)
    count = len(tried)
    session._view_not_before = float("inf")
    session.request_view(ViewRequest(CAMERA, (3,), number=2))
    session.submit(lambda bench: None).result(SECONDS)
    session.submit(lambda bench: None).result(SECONDS)
    assert len(tried) == count
    closed(session)


def test_a_picture_that_would_not_fit_is_not_tried(
    options: Options, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(options)
    monkeypatch.setattr(memory, "NO_CHECK", 0)
    monkeypatch.setattr(memory, "free_bytes", lambda device="cpu": 10_000_000)
    view = picture(session, 1)
    assert tried == [view.request.camera.width] == [100]
    closed(session)


def test_no_size_is_small_enough(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FakeMethod, "render", render)
    session = opened(options)
    session.start()
    session.request_view(ViewRequest(CAMERA, (3,)))
    snapshot = session.wait_for(lambda s: s.error is not None, SECONDS)
    assert "Out of memory: use a larger --downscale" in (snapshot.error or "")
    assert snapshot.state is State.RUNNING
    closed(session)


def exhausted_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Training runs out of memory, once."""
    real, left = FakeMethod.train_step, [True]

    def train_step(self: FakeMethod, now: int, *rest: object):
        if now == step and left.pop():
            left.append(False)
            raise RuntimeError(NO_MEMORY)
        return real(self, now, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(FakeMethod, "train_step", train_step)


def test_training_without_memory_is_saved_and_can_go_on(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted_at(monkeypatch, 5)
    session = opened(replace(options, steps=9))
    session.start()
    snapshot = session.wait([State.FAILED, State.FINISHED], SECONDS)
    assert snapshot.state is State.FAILED
    assert snapshot.error is not None and snapshot.saved is not None
    assert "4.0 GB more could not be had" in snapshot.error and snapshot.saved in snapshot.error
    assert load_checkpoint(Path(snapshot.saved))["step"] == 5
    picture_now = ViewRequest(CAMERA.resize(40, 30), (3,), number=4)
    session.request_view(picture_now)  # the window is alive
    assert session.wait_for(lambda s: s.view is not None, SECONDS).view is not None
    session.start()
    assert session.wait([State.FINISHED], SECONDS).step == 9
    closed(session)


def test_a_state_that_does_not_belong_together_is_not_saved(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_step(self: FakeMethod, step: int, *_: object) -> None:
        if step == 6:
            self.bias = torch.nn.Parameter(torch.zeros(5))  # and not in the optimiser
            raise MemoryError

    monkeypatch.setattr(FakeMethod, "after_step", after_step)
    session = opened(options)
    session.start()
    snapshot = session.wait([State.FAILED], SECONDS)
    assert snapshot.saved is None
    assert "Out of memory" in (snapshot.error or "")
    closed(session)


def test_headless_ends_with_the_sentence_and_the_checkpoint(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exhausted_at(monkeypatch, 4)
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"Out of memory.*step_0000004\.pt"):
        headless.run(replace(options, headless=True, steps=9, out=out))
    assert (out / "checkpoints" / "step_0000004.pt").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
@pytest.mark.parametrize("stated", [True, False])
def test_a_true_limit(tiny_scene: Path, tmp_path: Path, stated: bool) -> None:
    """With formulas that say the picture does not fit, and with ones that fail to say so."""
    code = f"""
import resource, sys
import psutil
import torch
torch.set_num_threads(1)
import render.methods
from app.options import Options
from app.session import Session
from app.snapshot import State, ViewRequest
from render.camera import Camera
import app.views
render.methods._METHODS["fake"] = "tests.fakes:FakeMethod"
if not {stated}:
    app.views.fits = lambda needed, device: True
session = Session(Options(scene={str(tiny_scene)!r}, method="fake", device="cpu"), autostart=False)
session.open()
session.wait([State.READY, State.FAILED], 20)
camera = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=4000, height=3000)
session.request_view(ViewRequest(camera.resize(64, 48), (3,), (3,), number=1))
session.wait_for(lambda s: s.view is not None, 20)
most = psutil.Process().memory_info().vms + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
session.step(2)
session.request_view(ViewRequest(camera, (3,), (3,), number=2))
session.wait_for(lambda s: s.error is not None or s.view.request.number == 2, 20)
snapshot = session.wait([State.PAUSED], 20)
print(snapshot.error, snapshot.view.request.camera.width, snapshot.step)
session.stop()
print(session.join(20))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]), MALLOC_ARENA_MAX="1"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()[-2:]
    error, width, step = first.rsplit(" ", 2)
    assert error == "None" and int(step) == 2 and 64 < int(width) <= 2000
    assert second == "True"
