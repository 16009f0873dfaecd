"""What the window changes and needs to know in a run, starting again, and closing at any moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.options import Options
from app.session import Cancelled, Session
from app.snapshot import State
from render.errors import UserError
from render.scenes.types import Scene
from tests.fakes import FakeMethod

pytestmark = pytest.mark.usefixtures("fake_method")
SECONDS = 20  # far more than anything here takes
CLOUD = "\n".join(f"{x / 10} {y / 10} 0 200 {20 * x} 0" for x in range(-4, 5) for y in range(-4, 5))
Open = Callable[..., Session]


@pytest.fixture
def options(tiny_scene: Path) -> Options:
    return Options(scene=str(tiny_scene), method="fake", device="cpu", eval_every="never")


@pytest.fixture
def opened() -> Open:
    def open_(options: Options, scene: Scene | None = None) -> Session:
        session = Session(options, autostart=False, scene=scene)
        session.open()
        snapshot = session.wait([State.READY, State.FAILED], SECONDS)
        assert snapshot.state is State.READY, snapshot.error
        return session

    return open_


def closed(session: Session) -> None:
    session.stop()
    assert session.join(SECONDS)


def scene_of(session: Session) -> Scene:
    assert session.bench is not None
    return session.bench.scene


# ------------------------------------------------------------------------ live settings
def test_scales_of_rates_and_losses(options: Options, opened: Open) -> None:
    session = opened(options)
    assert session.snapshot().rates == {"grid": 0.02, "bias": 0.02}
    assert session.snapshot().scales["lr_scale"] == {"grid": 1.0, "bias": 1.0}
    session.set_option("lr_scale", {"grid": 0.5})
    session.set_option("lr_scale", {"bias": 0})
    session.step(2)
    session.wait([State.PAUSED], SECONDS)
    assert session.snapshot().scales == {
        "lr_scale": {"grid": 0.5, "bias": 0.0}, "loss_scale": {"mse": 1.0},
    }  # fmt: skip
    assert session.snapshot().rates["bias"] == 0
    assert session.snapshot().rates["grid"] == pytest.approx(0.01, rel=0.01)
    session.set_option("loss_scale", {"mse": 2})
    session.submit(lambda bench: None).result(SECONDS)
    assert session.snapshot().loss_weights == {"mse": 2.0}
    closed(session)
    resumed = opened(Options(resume=session.snapshot().saved))
    assert resumed.snapshot().scales == session.snapshot().scales
    closed(resumed)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lr_scale", {"means": 1.0}, "among grid, bias, found means"),
        ("lr_scale", {"grid": -0.1}, "lr_scale of grid: expected a number from 0"),
        ("lr_scale", {"grid": float("inf")}, "found inf"),
        ("lr_scale", {"grid": float("nan")}, "found nan"),
        ("loss_scale", {"mse": 1.0}, "among none so far"),
    ],
)
def test_scales_that_cannot_be(
    options: Options, opened: Open, name: str, value: dict[str, float], sentence: str
) -> None:
    session = opened(options)
    with pytest.raises(UserError, match=sentence):
        session.set_option(name, value)
    assert session.snapshot().scales["lr_scale"] == {"grid": 1.0, "bias": 1.0}
    closed(session)


def test_snapshot_says_what_is_loaded(options: Options, opened: Open) -> None:
    session = opened(options)
    snapshot = session.snapshot()
    assert session.bench is not None
    assert snapshot.folder == str(session.bench.folder.path)
    assert (snapshot.scene_name, snapshot.method, snapshot.k) == ("tiny", "fake", 3)
    assert snapshot.views == {"train": 6, "val": 2, "test": 3} and snapshot.points == 0
    assert snapshot.device.startswith("CPU") and snapshot.loading is None
    assert snapshot.sizes == {"bias": 1}
    session.step()
    session.wait([State.PAUSED], SECONDS)
    assert {"backward", "optimiser"} <= session.snapshot().stages.keys()
    closed(session)


# ------------------------------------------------------------------------ another session
def test_same_scene_is_not_loaded_again(options: Options, opened: Open) -> None:
    first = opened(options)
    changed = replace(first.options_in_use, k=2, background="black")
    second = opened(changed, scene_of(first))
    assert scene_of(second).views is scene_of(first).views
    assert scene_of(second).background.kind == "black"
    assert scene_of(first).background.kind == "white"
    assert second.snapshot().k == 2
    closed(first)
    closed(second)


def test_other_points_keep_the_photographs(options: Options, opened: Open, tmp_path: Path) -> None:
    (tmp_path / "cloud.xyz").write_text(CLOUD)
    first = opened(options)
    kept = scene_of(first).split("train")[0]
    second = opened(replace(options, points=tmp_path / "cloud.xyz"), scene_of(first))
    assert scene_of(second).points is not None and scene_of(first).points is None
    assert scene_of(second).split("train")[0] is kept
    closed(first)
    closed(second)


def test_another_scene_or_size_is_loaded_afresh(options: Options, opened: Open) -> None:
    first = opened(options)
    second = opened(replace(options, downscale=2), scene_of(first))
    view = scene_of(second).views[0]
    assert view is not scene_of(first).views[0] and view.camera.width == 12
    assert view.pixels().shape == (12, 12, 4)
    closed(first)
    closed(second)


def test_scene_that_changed_on_disk_is_loaded_afresh(
    options: Options, opened: Open, tiny_scene: Path
) -> None:
    first = opened(options)
    path = tiny_scene / "transforms_train.json"
    path.write_text(path.read_text().replace("0.69", "0.80"))
    second = opened(options, scene_of(first))
    assert scene_of(second).fingerprint() != scene_of(first).fingerprint()
    train = scene_of(second).split("train")[0]
    assert not torch.equal(train.camera.K, scene_of(first).split("train")[0].camera.K)
    closed(first)
    closed(second)


def test_options_in_use_are_those_of_the_run(options: Options, opened: Open) -> None:
    first = opened(replace(options, seed=5))
    first.step(2)
    first.wait([State.PAUSED], SECONDS)
    closed(first)
    second = Session(Options(resume=first.snapshot().saved), autostart=False)
    assert second.options_in_use.seed == 0  # not known before it is read
    second.open()
    second.wait([State.READY], SECONDS)
    second.set_option("steps", 7)
    second.submit(lambda bench: None).result(SECONDS)
    assert second.options_in_use.seed == 5 and second.options_in_use.steps == 7
    assert second.options_in_use.resume is None
    closed(second)


# ------------------------------------------------------------------------ closing
def test_closing_while_loading(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []

    def log(text: str) -> None:
        told.append(session.snapshot().loading)
        session.stop()

    session = Session(options, log=log)
    session.open()
    assert session.join(SECONDS)
    assert session.bench is None
    assert session.snapshot().state is State.IDLE and session.snapshot().error is None
    assert len(told) == 1 and told[0] is not None and "tiny" in told[0]


def test_closing_while_photographs_are_read(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()

    def hull(*args: object, check: Callable[[], None], **rest: object) -> None:
        entered.set()
        go.wait(SECONDS)
        check()
        raise AssertionError("the check should have ended it")

    monkeypatch.setattr(FakeMethod, "needs_points", True)
    monkeypatch.setattr("render.scenes.startpoints.visual_hull", hull)
    session = Session(options)
    session.open()
    assert entered.wait(SECONDS)
    session.stop()
    go.set()
    assert session.join(SECONDS)
    assert session.snapshot().state is State.IDLE and session.snapshot().error is None


def test_closing_in_an_evaluation_of_training_saves(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()
    render = FakeMethod.render

    def slow(self: FakeMethod, *args, **more):
        entered.set()
        go.wait(SECONDS)
        return render(self, *args, **more)

    monkeypatch.setattr(FakeMethod, "render", slow)
    session = Session(replace(options, eval_every="4"))
    session.open()
    assert entered.wait(SECONDS)
    assert session.snapshot().evaluating == "test 0/3"
    session.stop()
    go.set()
    assert session.join(SECONDS)
    snapshot = session.snapshot()
    assert snapshot.state is State.IDLE and snapshot.evals == () and snapshot.evaluating is None
    assert snapshot.saved is not None and snapshot.saved.endswith("step_0000004.pt")


def test_closing_what_was_never_opened(options: Options) -> None:
    session = Session(options)
    session.stop()
    assert session.join(0)
    with pytest.raises(Cancelled):
        session.check()
