"""What is looked at and from where: scenes, layers, photographs, camera paths; no window."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import app.viewing
from app.look import MODES, Look, Side
from app.messages import Messages
from app.snapshot import ViewRequest, ViewResult
from app.viewing import Viewing, depth_at
from render.camera import Camera
from render.export.camera_path import CameraPath
from render.export.styles import Style
from render.kbuffer import KBuffer
from render.methods.base import Inspection, Render
from render.scenes.background import Background
from render.scenes.types import Bounds, Scene, View

AREA, ATLAS = (900, 600), (900, 100)
BOUNDS = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 1.0, 6.0)


def camera(angle: float, width: int = 80, height: int = 60) -> Camera:
    eye = (4 * math.cos(angle), 4 * math.sin(angle), 1.0)
    return Camera.look_at(eye, (0.0, 0.0, 0.0), width=width, height=height)


def scene(train: int = 4, test: int = 2, size: tuple[int, int] = (80, 60)) -> Scene:
    """Cameras on a circle, those of the test split between the others."""
    views = [
        View(camera(0.5 * i, *size), lambda: torch.zeros(0), f"v{i}") for i in range(train + test)
    ]
    splits = {"train": list(range(train)), "test": list(range(train, train + test))}
    return Scene("s", views, splits, None, Background(), BOUNDS)  # pyright: ignore


@pytest.fixture
def viewing() -> Viewing:
    """Of a scene with a model of 8 layers, at its first test view, without smoothing."""
    viewing = Viewing(Messages())
    viewing.control.smoothing = 0.0
    viewing.enter(scene(), 8, keep_camera=False)
    settle(viewing)
    return viewing


def settle(viewing: Viewing) -> None:
    viewing.advance(0.1)
    viewing.advance(0.1)
    assert not viewing.moving


def warnings(viewing: Viewing) -> list[str]:
    viewing.messages.collect()
    return [message.text for message in viewing.messages.all if message.level == "warning"]


# ---------------------------------------------------------------------- scenes
def test_a_scene_begins_at_its_first_test_view(viewing: Viewing) -> None:
    assert viewing.at_view == 4 and viewing.view_place() == ("test", 1, 2)
    assert viewing.wish(AREA, ATLAS).pose is viewing.scene.views[4].camera  # pyright: ignore


def test_without_test_views_at_the_first_training_view(viewing: Viewing) -> None:
    viewing.enter(scene(train=1, test=0), 8, keep_camera=False)
    assert viewing.view_place() == ("train", 1, 1)
    viewing.step_view("test", 1)
    assert viewing.at_view == 0 and "no test photographs" in warnings(viewing)[0]
    viewing.step_view("train", 1)
    assert viewing.at_view == 0


def test_a_cloud_alone_is_seen_as_a_whole(viewing: Viewing) -> None:
    viewing.wipe_to(Side("photo"))
    viewing.enter(scene(0, 0), 8, keep_camera=False)
    assert viewing.at_view is None and viewing.look.other is None
    wish = viewing.wish(AREA, ATLAS)
    assert (wish.pose.width, wish.pose.height) == AREA and wish.photo is None
    uv, z = wish.pose.project(torch.zeros(1, 3, dtype=torch.float64))
    assert z[0] > 1 and uv[0].tolist() == pytest.approx([450, 300])
    viewing.toggle_source("photo")
    assert viewing.look.main.source == "model" and "no photographs" in warnings(viewing)[0]


def test_another_model_of_the_same_scene_keeps_the_camera(viewing: Viewing) -> None:
    viewing.look = replace(viewing.look, depth_range=(1.0, 2.0), other=Side(k=8, layer=7))
    viewing.set_layer(6)
    viewing.enter(scene(), 3, keep_camera=True)
    assert viewing.at_view == 4 and viewing.look.depth_range == (1.0, 2.0)
    assert (viewing.look.main.k, viewing.look.main.layer) == (3, 3)
    assert viewing.look.other == Side(k=3, layer=3)
    viewing.enter(scene(), 12, keep_camera=True)
    assert viewing.look.main.k == 12


def test_photographs_that_are_gone_are_not_looked_at(viewing: Viewing) -> None:
    viewing.toggle_source("photo")
    viewing.enter(scene(train=2, test=1), 8, keep_camera=True)
    assert viewing.at_view is None and viewing.look.main.source == "model"
    viewing.wish(AREA, ATLAS)


def test_what_belongs_to_another_scene_is_forgotten(viewing: Viewing) -> None:
    viewing.look = replace(viewing.look, depth_range=(1.0, 2.0))
    viewing.toggle_source("difference")
    viewing.control.speed = 3.0
    viewing.enter(scene(), 8, keep_camera=False)
    assert viewing.look.depth_range is None and viewing.look.main.source == "model"
    assert viewing.control.speed == 3.0  # that belongs to the user


# ---------------------------------------------------------------------- layers
def test_layers_stay_within_the_model(viewing: Viewing) -> None:
    viewing.set_k(99)
    assert viewing.look.main.k == 8
    viewing.set_layer(8)
    viewing.set_k(0)
    assert (viewing.look.main.k, viewing.look.main.layer) == (1, 1)
    viewing.set_layer(5)
    assert viewing.look.main.layer == 1


def test_a_layer_is_shown_in_a_mode_that_has_layers(viewing: Viewing) -> None:
    viewing.set_layer(3)
    assert (viewing.look.main.mode, viewing.look.main.layer) == ("color", 3)
    viewing.set_mode("depth")
    viewing.set_layer(4)
    assert (viewing.look.main.mode, viewing.look.main.layer) == ("depth", 4)
    viewing.gaussians = True
    for number, info in enumerate(MODES, 1):
        viewing.set_mode_number(number)
        assert viewing.look.main.mode == info.mode
    viewing.set_mode_number(len(MODES) + 1)
    assert viewing.look.main.mode == MODES[-1].mode


# ---------------------------------------------------------------------- Gaussians
def test_what_only_gaussians_have_is_refused_elsewhere(viewing: Viewing) -> None:
    before = viewing.look
    viewing.set_mode("normal")
    viewing.set_shape("ellipse")
    viewing.set_scale(0.5)
    viewing.next_shape()
    assert viewing.look == before
    viewing.messages.collect()
    assert len(viewing.messages.all) == 4
    viewing.set_shape("splat")
    viewing.set_scale(1.0)
    viewing.messages.collect()
    assert viewing.look == before and len(viewing.messages.all) == 4


def test_style_of_gaussians(viewing: Viewing) -> None:
    viewing.gaussians = True
    viewing.set_scale(0.5)
    shapes = []
    for _ in range(4):
        viewing.next_shape()
        shapes.append(viewing.look.style.shape)
        assert viewing.look.style.scale == 0.5
    assert shapes == ["ellipse", "point", "splat", "ellipse"]
    for asked, got in ((9.0, 2.0), (-1.0, 0.05), (math.nan, 1.0)):
        viewing.set_scale(asked)
        assert viewing.look.style == Style(got, "ellipse")


def test_a_scene_without_gaussians_has_no_style_and_no_normals(viewing: Viewing) -> None:
    viewing.enter(scene(), 8, keep_camera=False, gaussians=True)
    viewing.set_mode("opacity")
    viewing.set_shape("point")
    viewing.wipe_to(Side(mode="normal", k=2))
    assert viewing.look.values == ("normal", "opacity")
    viewing.enter(scene(), 8, keep_camera=True, gaussians=True)
    assert viewing.look.main.mode == "opacity" and viewing.look.style.shape == "point"
    viewing.enter(scene(), 8, keep_camera=True)
    assert viewing.look.main.mode == "color" and viewing.look.style == Style()
    assert viewing.look.other == Side(mode="color", k=2) and viewing.look.values == ()


def test_values_are_asked_for_where_layers_are_shown() -> None:
    assert Look(Side(mode="normal")).values == ("normal",)
    assert Look(Side("photo", mode="normal")).values == ()
    assert Look(Side(), Side(mode="opacity")).values == ("opacity",)
    assert Look(Side(mode="depth")).values == ()


# ---------------------------------------------------------------------- comparing
def test_the_photograph_comes_and_goes(viewing: Viewing) -> None:
    viewing.toggle_source("photo")
    assert viewing.look.main.source == "photo"
    viewing.toggle_source("difference")
    assert viewing.look.main.source == "difference"
    viewing.toggle_source("difference")
    assert viewing.look.main.source == "model"
    viewing.toggle_source("photo")
    viewing.set_mode("depth")
    assert viewing.look.main == Side("model", "depth", 8, 1)


def test_a_wipe_begins_with_what_there_is_to_compare(viewing: Viewing) -> None:
    viewing.toggle_wipe()
    assert viewing.look.other == Side("photo", k=8)
    viewing.toggle_wipe()
    assert viewing.look.other is None
    viewing.moved()
    viewing.toggle_wipe()
    assert viewing.look.other == Side(k=1)
    viewing.set_wipe(7.0)
    assert viewing.look.wipe == 1.0


def test_leaving_the_photograph_ends_comparing_with_it(viewing: Viewing) -> None:
    viewing.wipe_to(Side("difference"), Side("photo"))
    viewing.moved()
    assert viewing.look == Look(Side(k=8)) and viewing.at_view is None
    viewing.wipe_to(Side(k=1))
    viewing.moved()
    assert viewing.look.other == Side(k=1)  # needs no photograph


def test_comparing_from_a_free_camera_goes_to_the_nearest_photograph(viewing: Viewing) -> None:
    viewing.control.go_to(camera(0.95), smooth=False)
    viewing.moved()
    viewing.toggle_source("photo")
    assert viewing.at_view == 2 and viewing.look.main.source == "photo"


# ---------------------------------------------------------------------- camera
def test_steps_through_a_split_go_round(viewing: Viewing) -> None:
    seen = []
    for _ in range(5):
        viewing.step_view("train", 1)
        seen.append(viewing.at_view)
    assert seen == [0, 1, 2, 3, 0]
    viewing.step_view("train", -1)
    assert viewing.at_view == 3
    viewing.step_view("test", -1)
    assert viewing.at_view == 5
    viewing.moved()
    assert viewing.view_place() is None


def test_the_way_to_a_photograph_is_shown_without_it(viewing: Viewing) -> None:
    viewing.control.smoothing = 0.1
    viewing.step_view("train", 1)
    viewing.advance(0.05)
    wish = viewing.wish(AREA, ATLAS)
    assert viewing.moving and wish.moving and wish.view is None
    assert (wish.pose.width, wish.pose.height) == (80, 60)
    for _ in range(100):
        viewing.advance(0.1)
    wish = viewing.wish(AREA, (0, 0))
    assert not wish.moving and wish.view == 0 and not wish.look.atlas


def test_a_jump_counts_as_a_move(viewing: Viewing) -> None:
    viewing.moved()
    viewing.control.orbit(30, 0)  # without smoothing it is there at once
    viewing.advance(0.02)
    assert viewing.moving
    viewing.advance(0.02)
    assert not viewing.moving


def test_free_pictures_are_as_tall_as_the_photographs(viewing: Viewing) -> None:
    viewing.moved()
    pose = viewing.wish(AREA, ATLAS).pose
    assert (pose.width, pose.height) == (90, 60)
    viewing.enter(scene(size=(4000, 3000)), 8, keep_camera=False)
    viewing.moved()
    pose = viewing.wish(AREA, ATLAS).pose
    assert (pose.width, pose.height) == AREA


def test_a_camera_path_is_flown_to_its_end(
    viewing: Viewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [10.0]
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
    monkeypatch.setattr(app.viewing, "time", clock)
    cameras = [camera(0.1 * i) for i in range(10)]
    viewing.play(CameraPath(cameras, fps=10.0))
    for wanted in (0, 4, 9):
        now[0] = 10.05 + wanted / 10
        viewing.advance(0.03)
        here = viewing.control.camera(80, 60).position
        torch.testing.assert_close(here, cameras[wanted].position)
    viewing.advance(0.03)
    assert not viewing.moving
    viewing.play(CameraPath(cameras, fps=10.0))
    viewing.go_to_view(1, smooth=False)  # taking over ends it
    settle(viewing)


# ---------------------------------------------------------------------- focus
def result(depth: float, alpha: float, layer: float | None) -> ViewResult:
    """One pixel of a picture with ``depth``, over a layer of points."""
    render = Render(torch.zeros(1, 1, 3), torch.full((1, 1), alpha), torch.full((1, 1), depth))
    index = torch.full((1, 1, 1), -1 if layer is None else 0, dtype=torch.int32)
    z = torch.full((1, 1, 1), -1.0 if layer is None else layer)
    inside = Inspection(KBuffer(index, z, z), torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1))
    view = Camera.look_at((4.0, 0.0, 0.0), (0.0, 0.0, 0.0), width=1, height=1)
    return ViewResult(ViewRequest(view), {8: render}, {8: inside}, torch.ones(3), 0, 0.0)


@pytest.mark.parametrize(
    ("depth", "alpha", "layer", "wanted"),
    [(3.0, 1.0, 5.0, 3.0), (3.0, 0.0, 5.0, 5.0), (3.0, 0.0, None, None),
     (math.nan, 1.0, 5.0, 5.0), (math.inf, 1.0, None, None), (-1.0, 1.0, math.nan, None)],
)  # fmt: skip
def test_depth_under_the_mouse(
    depth: float, alpha: float, layer: float | None, wanted: float | None
) -> None:
    assert depth_at(result(depth, alpha, layer), 0, 0) == wanted


def test_focus_turns_around_what_is_seen(viewing: Viewing) -> None:
    viewing.focus(result(3.0, 1.0, None), 0, 0)
    assert viewing.at_view is None
    expected = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(viewing.control.pivot, expected)
    viewing.focus(result(math.nan, 1.0, None), 0, 0)  # nothing there
    torch.testing.assert_close(viewing.control.pivot, expected)
