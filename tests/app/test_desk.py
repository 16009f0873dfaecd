"""Sessions on the desk: coming, taking over, going, failing; jobs; the end. No window."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import app.desk
from app.desk import Desk
from app.options import Options
from app.session import Cancelled
from app.settings import Settings
from app.snapshot import Snapshot, State, ViewRequest
from render.camera import Camera
from render.errors import UserError
from render.export.styles import Style
from render.scenes.background import Background
from render.scenes.types import Bounds, PointCloud, Scene, View

AREA, ATLAS = (300, 200), (300, 80)


def scene(name: str, views: int = 3) -> Scene:
    cameras = [
        Camera.look_at((4.0, 0.1 * i, 1.0), (0.0, 0.0, 0.0), width=30, height=20)
        for i in range(views)
    ]
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 1.0, 6.0)
    return Scene(
        name,
        [
            View(camera, lambda: torch.zeros(20, 30, 4, dtype=torch.uint8), "v")
            for camera in cameras
        ],
        {"train": list(range(views))},
        PointCloud(torch.zeros(4, 3)),
        Background(),
        bounds,
        path=Path("/scenes") / name,
    )


class FakeSession:
    """Loads when it is told to and remembers what it was asked for."""

    made: list[FakeSession]

    def __init__(self, options: Options, **arguments: Any) -> None:
        self.options, self.arguments = options, arguments
        self.bench: Any = None
        self.calls: list[str] = []
        self.requests: list[ViewRequest] = []
        self.values: dict[str, Any] = {}
        self.now = Snapshot()
        self.ended = False
        self.view_share, self.pause_while_moving = 0.5, True
        self.made.append(self)

    def loaded(self, scene: Scene, k: int = 8, folder: str | None = None) -> FakeSession:
        self.bench = SimpleNamespace(scene=scene, options=self.options)
        self.now = Snapshot(state=State.READY, k=k, folder=folder)
        return self

    def failed(self, error: str) -> FakeSession:
        self.now = Snapshot(state=State.FAILED, error=error)
        return self

    @property
    def options_in_use(self) -> Options:
        return self.options

    def snapshot(self) -> Snapshot:
        return self.now

    def open(self) -> None:
        assert "open" not in self.calls, "threads can only be started once"
        self.calls.append("open")

    def start(self) -> None:
        self.calls.append("start")
        self.now = replace(self.now, state=State.RUNNING)

    def pause(self) -> None:
        self.calls.append("pause")
        self.now = replace(self.now, state=State.PAUSED)

    def stop(self) -> None:
        self.calls.append("stop")

    def join(self, timeout: float | None = None) -> bool:
        return self.ended

    def request_view(self, request: ViewRequest) -> None:
        self.requests.append(request)

    def set_option(self, name: str, value: Any) -> None:
        if value is not None and value < 0:
            raise UserError("expected a number above 0.")
        self.values[name] = value


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    """Empty."""
    monkeypatch.chdir(tmp_path)
    FakeSession.made = []
    monkeypatch.setattr(app.desk, "Session", FakeSession)
    painter = SimpleNamespace(
        error=None, start=lambda: None, take=lambda wait=0.0: None, submit=lambda job: None,
        close=lambda seconds: True,
    )  # fmt: skip
    monkeypatch.setattr(app.desk, "Painter", lambda wake: painter)
    monkeypatch.setattr(app.desk, "release_memory", lambda **_: None, raising=False)
    return Desk(Settings(smoothing=0.0), None, lambda: None)


def tick(desk: Desk) -> None:
    desk.tick(0.05, AREA, ATLAS)
    desk.messages.collect()


def opened(desk: Desk, name: str = "first", **options: Any) -> FakeSession:
    """A session that is loaded and has taken over."""
    desk.open(Options(scene=name, **options))
    session = FakeSession.made[-1].loaded(scene(name), folder=f"runs/{name}/1")
    tick(desk)
    assert desk.session is session
    return session


def errors(desk: Desk) -> list[str]:
    desk.messages.collect()
    return [message.text for message in desk.messages.all if message.level == "error"]


# ---------------------------------------------------------------------- sessions
def test_a_scene_takes_over_and_trains_when_it_is_loaded(desk: Desk) -> None:
    desk.settings.view_share, desk.settings.pause_while_moving = 0.3, False
    desk.open(Options(scene="first"))
    tick(desk)
    assert desk.session is None and desk.scene is None and desk.coming is FakeSession.made[0]
    session = FakeSession.made[0].loaded(scene("first"))
    tick(desk)
    assert desk.session is session and desk.coming is None and session.calls == ["open", "start"]
    assert (session.view_share, session.pause_while_moving) == (0.3, False)
    assert desk.viewing.at_view == 0 and desk.viewing.trained_k == 8
    assert desk.settings.last_scene == "/scenes/first"
    assert [entry.kind for entry in desk.settings.recent] == ["scene"]
    tick(desk)
    assert session.requests[-1].camera.width == 30 and desk.running


def test_a_cloud_is_looked_at_but_not_trained(desk: Desk) -> None:
    desk.open(Options(scene="points.ply"))
    session = FakeSession.made[0].loaded(scene("points.ply", views=0))
    tick(desk)
    assert desk.session is session and session.calls == ["open"]
    desk.toggle_training()
    desk.step()
    desk.save()
    tick(desk)
    assert session.calls == ["open"]
    assert [m.level for m in desk.messages.all].count("warning") == 2
    assert [entry.kind for entry in desk.settings.recent] == ["cloud"]


def test_a_style_of_gaussians_ends_with_them(desk: Desk) -> None:
    desk.open(Options(scene="first"))
    session = FakeSession.made[-1].loaded(scene("first"))
    session.now = replace(session.now, gaussians=500)
    tick(desk)
    desk.viewing.set_shape("ellipse")
    desk.viewing.set_mode("opacity")
    tick(desk)
    request = session.requests[-1]
    assert (request.style.shape, request.values) == ("ellipse", ("opacity",))
    later = opened(desk, "second")
    tick(desk)
    request = later.requests[-1]
    assert (request.style, request.values) == (Style(), ()) and not desk.viewing.gaussians


def test_an_export_is_told_when_it_is_there(desk: Desk) -> None:
    session, future = opened(desk), Future()
    session.submit = lambda job: future  # type: ignore[attr-defined]
    desk.export_gaussians(Path("a.ply"))
    tick(desk)
    assert not [m for m in desk.messages.all if m.level == "good"]
    future.set_exception(UserError("a.ply: the disk is full."))
    tick(desk)
    assert errors(desk) == ["a.ply: the disk is full."]


def test_the_present_session_trains_on_until_the_next_is_ready(desk: Desk) -> None:
    first = opened(desk)
    desk.open(Options(scene="second"))
    tick(desk)
    assert desk.session is first and "stop" not in first.calls
    second = FakeSession.made[-1].loaded(scene("second"))
    tick(desk)
    assert desk.session is second and first.calls[-1] == "stop"


def test_a_scene_that_cannot_be_opened_costs_nothing(desk: Desk) -> None:
    first = opened(desk)
    desk.viewing.set_layer(3)
    desk.open(Options(scene="broken"))
    broken = FakeSession.made[-1].failed("broken: no cameras.")
    tick(desk)
    tick(desk)
    assert desk.session is first and desk.coming is None and "stop" not in first.calls
    assert errors(desk) == ["broken: no cameras."] and broken.calls == ["open", "stop"]
    assert desk.viewing.look.main.layer == 3


def test_of_two_scenes_the_newest_is_taken(desk: Desk) -> None:
    desk.open(Options(scene="first"))
    desk.open(Options(scene="second"))
    first, second = FakeSession.made
    first.loaded(scene("first"))
    tick(desk)
    assert first.calls == ["open", "stop"] and desk.session is None
    second.loaded(scene("second"))
    tick(desk)
    assert desk.session is second


def test_the_same_scene_anew_keeps_the_camera(desk: Desk) -> None:
    first = opened(desk, steps=50)
    desk.viewing.go_to_view(2)
    desk.restart(method="bpcr", k=3)
    again = FakeSession.made[-1]
    assert again.options == replace(first.options, method="bpcr", k=3)
    assert again.arguments["scene"] is first.bench.scene
    again.loaded(scene("first"), k=3)
    tick(desk)
    assert desk.viewing.at_view == 2 and desk.viewing.trained_k == 3
    opened(desk, "other")
    assert desk.viewing.at_view == 0


def test_scenes_without_a_path_are_not_the_same_place(desk: Desk) -> None:
    for _ in range(2):
        desk.open(Options(scene="made"))
        FakeSession.made[-1].loaded(replace(scene("made"), path=None))
        tick(desk)
        assert desk.viewing.at_view == 0
        desk.viewing.go_to_view(1)


def test_going_back_in_the_present_run_waits_for_its_end(desk: Desk) -> None:
    first = opened(desk)
    desk.resume("runs/first/1/checkpoints/step_0000010.pt")
    back = FakeSession.made[-1]
    tick(desk)
    assert first.calls[-1] == "stop" and back.calls == [] and desk.session is None
    assert not desk.running
    desk.open(Options(scene="second"))  # thought better of it, while the first is still saving
    second = FakeSession.made[-1]
    tick(desk)
    assert back.calls == ["stop"] and second.calls == []
    first.ended = True
    tick(desk)
    assert second.calls == ["open"]
    second.loaded(scene("second"))
    tick(desk)
    tick(desk)
    assert desk.session is second


def test_another_run_loads_beside_the_present_one(desk: Desk) -> None:
    first = opened(desk)
    desk.resume("runs/first/2")
    assert FakeSession.made[-1].calls == ["open"] and "stop" not in first.calls


# ---------------------------------------------------------------------- errors
def test_an_error_of_the_worker_is_told_once(desk: Desk) -> None:
    session = opened(desk)
    session.now = replace(session.now, state=State.FAILED, error="Out of memory.")
    for _ in range(3):
        tick(desk)
    assert errors(desk) == ["Out of memory."]
    session.now = replace(session.now, state=State.RUNNING, error=None)
    tick(desk)
    session.now = replace(session.now, state=State.FAILED, error="Out of memory.")
    tick(desk)
    assert errors(desk) == ["Out of memory."] * 2


def test_a_picture_that_cannot_be_painted_is_told_once(desk: Desk) -> None:
    opened(desk)
    desk.painter.error = "v.png: no such file."  # pyright: ignore
    for _ in range(3):
        tick(desk)
    assert errors(desk) == ["v.png: no such file."]


def test_a_preview_that_fails_is_done_without(desk: Desk) -> None:
    opened(desk)
    asked: list[ViewRequest] = []
    desk.preview = SimpleNamespace(  # pyright: ignore
        error=None, request=asked.append, take=lambda: None
    )
    desk.preview_on = True
    desk.pictures.again()
    tick(desk)
    assert desk.shows_preview and asked[-1].view is None
    desk.preview.error = "The OpenGL preview has stopped: out of memory"  # pyright: ignore
    tick(desk)
    tick(desk)
    assert not desk.shows_preview and errors(desk) == [
        "The OpenGL preview has stopped: out of memory"
    ]


def test_a_value_that_cannot_be_is_told(desk: Desk) -> None:
    session = opened(desk)
    desk.set_live("steps", -1)
    assert errors(desk) == ["expected a number above 0."] and session.values == {}


# ---------------------------------------------------------------------- jobs
def test_results_of_jobs_and_their_errors(desk: Desk) -> None:
    futures: list[Future[int]] = [Future() for _ in range(4)]
    results: list[int] = []
    for future in futures:
        desk.when_done(future, results.append)
    futures[1].set_result(7)
    futures[2].set_exception(UserError("no test photographs."))
    futures[3].set_exception(Cancelled())
    tick(desk)
    tick(desk)
    assert results == [7] and errors(desk) == ["no test photographs."]
    futures[0].set_result(8)
    tick(desk)
    assert results == [7, 8]


def test_what_follows_a_job_happens_once_even_when_it_fails(desk: Desk) -> None:
    def fail(value: int) -> None:
        calls.append(value)
        raise ZeroDivisionError

    calls: list[int] = []
    future: Future[int] = Future()
    future.set_result(1)
    desk.when_done(future, fail)
    with pytest.raises(ZeroDivisionError):  # the window tells it
        tick(desk)
    tick(desk)
    assert calls == [1]


# ---------------------------------------------------------------------- training
def test_start_pause_and_beyond_the_budget(desk: Desk) -> None:
    desk.toggle_training()  # nothing is loaded
    session = opened(desk)
    tick(desk)
    desk.toggle_training()
    tick(desk)
    desk.toggle_training()
    assert session.calls == ["open", "start", "pause", "start"] and session.values == {}
    session.now = replace(session.now, state=State.FINISHED)
    tick(desk)
    desk.toggle_training()
    assert session.values == {"steps": None, "seconds": None} and session.calls[-1] == "start"


# ---------------------------------------------------------------------- the end
def test_the_end_asks_every_session_first_and_then_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(desk)
    desk.open(Options(scene="second"))
    second = FakeSession.made[-1]
    order: list[str] = []
    monkeypatch.setattr(first, "join", lambda timeout: order.append("join") or True)
    monkeypatch.setattr(second, "stop", lambda: order.append("stop"))
    monkeypatch.setattr(second, "join", lambda timeout: order.append("join") or True)
    assert desk.close() and order == ["stop", "join", "join"] and first.calls[-1] == "stop"


def test_the_end_says_when_something_is_still_busy(desk: Desk) -> None:
    opened(desk)
    assert not desk.close()
