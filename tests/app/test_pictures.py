"""When a picture is asked for, how large, and what becomes of it; no window."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import app.pictures
from app.look import Look, Side
from app.paintbox import Painting, PaintJob
from app.pictures import (
    AUTO_SECONDS,
    LARGEST_PIXELS,
    MOST_PIXELS,
    SETTLE_SECONDS,
    SMALLEST,
    SWEEP_SECONDS,
    SWEEP_TIMES,
    Pictures,
    Wish,
)
from app.snapshot import Sweep, ViewRequest, ViewResult
from render.camera import Camera
from render.export.styles import Style
from render.methods.base import Render
from render.scenes.types import View

LATER = SETTLE_SECONDS + 0.01


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakePainter:
    """Keeps what it is given; paints when told to."""

    def __init__(self) -> None:
        self.jobs: list[PaintJob] = []
        self.done: Painting | None = None

    def submit(self, job: PaintJob) -> None:
        self.jobs.append(job)

    def take(self, wait: float = 0.0) -> Painting | None:
        painting, self.done = self.done, None
        return painting

    def paint(self) -> None:
        self.done = Painting(self.jobs[-1], np.zeros((2, 2, 4), np.float32))


class Table:
    """Pictures with a clock, a painter and a place where requests arrive."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.painter = clock, FakePainter()
        self.pictures = Pictures(self.painter)  # pyright: ignore[reportArgumentType]
        self.requests: list[ViewRequest] = []

    def ask(self, wish: Wish, later: float = 0.0) -> ViewRequest | None:
        """The request that this wish sends, if it does."""
        self.clock.now += later
        count = len(self.requests)
        self.pictures.ask(wish, self.requests.append)
        return self.requests[-1] if len(self.requests) > count else None

    def still(self, wish: Wish) -> ViewRequest:
        """The request of a camera that stands."""
        request = self.ask(replace(wish, moving=False), LATER)
        assert request is not None
        return request

    def answer(self, wish: Wish, seconds: float = 0.01, **changes) -> ViewResult:
        """The newest request is rendered within ``seconds`` and comes back."""
        result = ViewResult(self.requests[-1], {}, {}, torch.ones(3), wish.step, seconds)
        result = replace(result, **changes)
        self.pictures.receive(result, wish)
        return result


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    clock = Clock()
    monkeypatch.setattr(app.pictures, "time", clock)
    return Table(clock)


def camera(angle: float = 0.0, width: int = 600, height: int = 400) -> Camera:
    eye = (3 * math.cos(angle), 3 * math.sin(angle), 1.0)
    return Camera.look_at(eye, (0.0, 0.0, 0.0), width=width, height=height)


def wish(angle: float = 0.0, **changes) -> Wish:
    return replace(Wish(camera(angle), Look(), tall=400), **changes)


def photo(width: int, height: int) -> View:
    return View(camera(0.0, width, height), lambda: torch.zeros(0), "photo")


# ---------------------------------------------------------------------- asking
def test_the_same_wish_is_asked_once(table: Table) -> None:
    first = table.still(wish())
    assert (first.number, first.moving, first.ks, first.inspect) == (1, False, (8,), (8,))
    assert table.ask(wish()) is None
    table.answer(wish())
    assert table.ask(wish()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"pose": camera(1.0)},
        {"look": Look(Side(k=3))},
        {"look": Look(Side(mode="depth"))},
        {"look": Look(other=Side(k=1))},
        {"view": 2},
        {"look": Look(style=Style(shape="ellipse"))},
        {"look": Look(style=Style(0.5))},
    ],
    ids=["camera", "k", "mode", "wipe", "view", "shape", "scale"],
)
def test_what_changes_the_picture_is_asked_for_at_once(table: Table, changes: dict) -> None:
    table.still(wish())
    assert table.ask(wish(**changes)) is not None


@pytest.mark.parametrize(
    "look",
    [Look(Side("model", layer=4)), Look(wipe=0.2), Look(depth_range=(1, 2)),
     Look(percentiles=(5, 95))],
)  # fmt: skip
def test_what_only_the_painter_needs_is_not_rendered_again(table: Table, look: Look) -> None:
    table.still(wish())
    result = table.answer(wish())
    assert table.ask(wish(look=look)) is None
    table.pictures.receive(result, wish(look=look))
    assert [job.look for job in table.painter.jobs] == [Look(), look]


def test_a_step_of_the_model_waits_for_the_picture_before(table: Table) -> None:
    table.still(wish(step=1))
    assert table.ask(wish(step=2)) is None
    table.answer(wish(step=2))
    assert table.ask(wish(step=2)) is not None


def test_a_picture_that_never_came_is_asked_for_again(table: Table) -> None:
    table.still(wish(step=1))
    assert table.ask(wish(step=2), later=1.0) is None
    assert table.ask(wish(step=2), later=10.0) is not None


def test_again(table: Table) -> None:
    table.still(wish())
    table.answer(wish())
    table.pictures.again()
    assert table.ask(wish()) is not None


# ---------------------------------------------------------------------- while the camera moves
def test_small_while_it_moves_sharp_when_it_stands(table: Table) -> None:
    table.still(wish())
    table.answer(wish(), seconds=1.0)
    moving = table.ask(wish(0.1, moving=True))
    assert moving is not None and moving.moving and not moving.sweep
    assert SMALLEST <= moving.camera.height < 400
    assert moving.inspect == ()  # thumbnails come later
    assert table.ask(wish(0.1)) is None  # it may go on in a moment
    still = table.ask(wish(0.1), LATER)
    assert still is not None and not still.moving
    assert (still.camera.width, still.camera.height) == (600, 400) and still.inspect == (8,)


def test_layers_that_are_looked_at_are_there_while_it_moves(table: Table) -> None:
    look = Look(Side(mode="depth", k=5))
    request = table.ask(wish(look=look, moving=True))
    assert request is not None and (request.ks, request.inspect) == ((), (5,))
    look = Look(Side(k=5), Side(mode="id", k=2))
    request = table.ask(wish(0.1, look=look, moving=True))
    assert request is not None and (request.ks, request.inspect) == ((5,), (2,))


def test_the_size_follows_the_measured_time(table: Table) -> None:
    per_pixel, pose = 2e-6, camera()
    sizes = []
    for i in range(6):
        request = table.ask(wish(0.1 * i, moving=True), 0.1)
        assert request is not None
        sizes.append(request.camera.width * request.camera.height)
        table.answer(wish(), seconds=per_pixel * sizes[-1])
    assert sizes[-1] * per_pixel <= AUTO_SECONDS < 2.2 * sizes[-1] * per_pixel
    assert sizes[-1] == sizes[-2] < pose.width * pose.height


def test_no_smaller_than_what_saves_time(table: Table) -> None:
    for i in range(6):  # costs that do not depend on the size
        request = table.ask(wish(0.1 * i, moving=True), 0.1)
        table.answer(wish(), seconds=0.5)
    assert request is not None and request.camera.height == SMALLEST


def test_slow_layers_of_a_still_picture_do_not_shrink_moving_ones(table: Table) -> None:
    table.ask(wish(0.1, moving=True))
    table.answer(wish(), seconds=0.001)
    table.still(wish(0.1))
    table.answer(wish(), seconds=30.0)
    request = table.ask(wish(0.2, moving=True))
    assert request is not None and request.camera.height == 400


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_chosen_size_while_it_moves(table: Table, scale: float) -> None:
    table.pictures.moving_scale = scale
    table.still(wish())
    table.answer(wish(), seconds=9.0)
    request = table.ask(wish(0.1, moving=True))
    assert request is not None and request.camera.height == 400 * scale
    table.pictures.still_scale = 0.25  # never sharper than the still picture
    request = table.ask(wish(0.2, moving=True))
    assert request is not None and request.camera.height == 100


def test_small_while_the_size_of_gaussians_is_dragged(table: Table) -> None:
    table.still(wish())
    table.answer(wish(), seconds=1.0)
    dragged = wish(look=Look(style=Style(0.5)))
    request = table.ask(dragged, LATER)
    assert request is not None and request.moving and request.style == Style(0.5)
    assert request.camera.height < 400
    still = table.ask(dragged, LATER)
    assert still is not None and not still.moving and still.camera.height == 400 and still.sweep
    table.answer(dragged, sweep=Sweep((20.0, math.inf), photo=False))
    assert table.pictures.sweep is not None
    late = table.answer(dragged)
    table.ask(wish(), LATER)
    table.pictures.receive(replace(late, sweep=Sweep((20.0, math.inf), photo=False)), wish())
    assert table.pictures.sweep is None, "it was that of another size"


def test_normals_are_asked_for_with_their_layers(table: Table) -> None:
    look = Look(Side(mode="normal", k=5))
    request = table.still(wish(look=look))
    assert (request.inspect, request.values) == ((5,), ("normal",))
    table.answer(wish(look=look))
    request = table.ask(wish(look=Look(Side(mode="opacity", k=5))))
    assert request is not None and request.values == ("opacity",)


# ---------------------------------------------------------------------- when it stands
def test_as_sharp_as_the_screen_where_that_is_quick(table: Table) -> None:
    table.still(wish(tall=600))
    table.answer(wish(), seconds=0.01)
    assert table.still(wish(0.1, tall=600)).camera.height == 600
    assert table.still(wish(0.2, tall=4000)).camera.height == 800  # twice, not more
    table.answer(wish(), seconds=5.0)
    assert table.still(wish(0.3, tall=600)).camera.height == 400


def test_photographs_are_compared_pixel_by_pixel(table: Table) -> None:
    view = photo(900, 1200)
    request = table.still(wish(pose=view.camera, photo=view, view=0, tall=500))
    assert (request.camera.width, request.camera.height) == (900, 1200)


def test_ellipsoids_are_as_sharp_as_the_screen_at_a_photograph_too(table: Table) -> None:
    view = photo(90, 60)
    here = wish(pose=view.camera, photo=view, view=0, tall=90)
    assert table.still(here).camera.height == 60
    table.answer(here)
    solid = replace(here, look=Look(style=Style(shape="ellipse")))
    assert table.still(solid).camera.height == 90


def test_huge_photographs_are_shown_as_large_as_the_screen(table: Table) -> None:
    view = photo(4000, 3000)
    assert MOST_PIXELS < 4000 * 3000
    huge = wish(pose=view.camera, photo=view, view=0, tall=600)
    request = table.still(huge)
    assert (request.camera.width, request.camera.height) == (800, 600)
    moving = table.ask(replace(huge, pose=camera(0.1, 4000, 3000), view=None, moving=True))
    assert moving is not None and moving.camera.height <= 600
    table.pictures.still_scale = 1.0  # asked for by hand
    request = table.still(huge)
    pixels = request.camera.width * request.camera.height
    assert pixels == pytest.approx(LARGEST_PIXELS, rel=1e-2)


# ---------------------------------------------------------------------- sweeps
def test_one_sweep_for_a_camera_without_a_photograph(table: Table) -> None:
    assert table.still(wish(step=1, running=True)).sweep
    for step in range(2, 9):
        table.answer(wish(step=step))
        again = table.ask(wish(step=step, running=True), SWEEP_SECONDS)
        assert again is not None and not again.sweep
    assert table.still(wish(0.1, step=9, running=True)).sweep


def test_sweeps_against_a_photograph_come_now_and_then(table: Table) -> None:
    view = photo(60, 40)
    here = wish(pose=view.camera, photo=view, view=3, running=True)
    assert table.still(replace(here, step=1)).sweep
    swept = []
    last = 4 * int(SWEEP_SECONDS)
    for step in range(2, last):
        table.answer(here, seconds=0.01)
        request = table.ask(replace(here, step=step), 1.0)
        assert request is not None
        swept.append(request.sweep)
    pauses = np.diff(np.flatnonzero(swept))
    assert (pauses >= SWEEP_SECONDS).all() and len(pauses) >= 2
    table.answer(here, seconds=0.01)
    paused = table.ask(replace(here, step=last, running=False))  # then it costs no training
    assert paused is not None and paused.sweep


def test_slow_methods_sweep_less_often(table: Table) -> None:
    view = photo(60, 40)
    here = wish(pose=view.camera, photo=view, view=3, running=True)
    assert table.still(replace(here, step=1)).sweep
    table.answer(here, seconds=1.0)
    round_of_all = 8 * 1.0
    early = table.ask(replace(here, step=2), 0.9 * SWEEP_TIMES * round_of_all)
    assert early is not None and not early.sweep
    table.answer(here, seconds=1.0)
    late = table.ask(replace(here, step=3), 0.2 * SWEEP_TIMES * round_of_all)
    assert late is not None and late.sweep


def test_a_sweep_belongs_to_its_camera(table: Table) -> None:
    table.still(wish())
    result = table.answer(wish())
    numbers = Sweep((20.0, math.inf), photo=False)
    table.pictures.receive(replace(result, sweep=numbers), wish())
    assert table.pictures.sweep is numbers
    assert len(table.painter.jobs) == 1  # the picture is the same
    table.ask(wish(look=Look(Side(mode="depth"))))
    assert table.pictures.sweep is numbers
    table.ask(wish(0.1))
    assert table.pictures.sweep is None


# ---------------------------------------------------------------------- receiving
def test_a_painting_is_taken_once(table: Table) -> None:
    table.still(wish())
    table.answer(wish())
    assert table.pictures.take() is None and table.pictures.shown is None
    table.painter.paint()
    painting = table.pictures.take()
    assert painting is not None and table.pictures.shown is painting
    assert table.pictures.take() is None and table.pictures.shown is painting
    assert table.pictures.fps > 0


def test_latency_counts_from_the_move(table: Table) -> None:
    assert math.isnan(table.pictures.latency)
    table.ask(wish(0.1, moving=True))
    table.answer(wish())
    table.clock.now += 0.125
    table.painter.paint()
    table.pictures.take()
    assert table.pictures.latency == pytest.approx(0.125)


def test_only_the_photograph_of_this_camera_is_painted(table: Table) -> None:
    view = photo(60, 40)
    here = wish(pose=view.camera, photo=view, view=3)
    table.still(here)
    table.answer(here)
    assert table.painter.jobs[-1].photo is view
    other = replace(here, view=4, photo=photo(60, 40))
    table.pictures.receive(table.pictures.latest, replace(other, look=Look(wipe=0.1)))
    assert table.painter.jobs[-1].photo is None


def test_nothing_of_the_scene_before_is_shown(table: Table) -> None:
    table.still(wish())
    old = table.answer(wish(), renders={8: Render(torch.zeros(2, 2, 3))})
    table.painter.paint()
    table.pictures.forget()
    assert table.pictures.take() is None and table.pictures.shown is None  # was being painted
    table.pictures.receive(replace(old, step=3), wish())  # was being rendered
    assert table.pictures.latest is None
    request = table.ask(wish())
    assert request is not None and request.number > old.request.number
    new = table.answer(wish())
    table.painter.paint()
    table.pictures.take()
    assert table.pictures.shown is not None and table.pictures.shown.job.result is new
