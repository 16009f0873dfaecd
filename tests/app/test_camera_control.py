"""Where every operation takes the window's camera."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from app.camera_control import CameraControl
from render.camera import Camera
from tests.window_camera import (
    F64,
    Z,
    axes,
    check_sane,
    distance,
    make,
    photograph,
    photographs,
    pixels,
    pose,
    position,
    quick,
    settle,
    upright,
    vec,
)


# ------------------------------------------------------------------ the start camera
@pytest.mark.parametrize("radius", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize("up", [vec(0, 0, 1), vec(0, -1, 0), vec(1, 2, -3)])
def test_the_start_camera_sees_the_whole_bounds_from_slightly_above(
    radius: float, up: Tensor
) -> None:
    control = make(radius, up=up)
    center = vec(0.5, -1.0, 0.25) * radius
    torch.testing.assert_close(control.pivot, center, rtol=1e-9, atol=1e-9 * radius)
    directions = torch.nn.functional.normalize(
        torch.randn(200, 3, dtype=F64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    uv, z = control.camera(300, 300).project(center + radius * directions)
    assert bool((z > 0).all()) and float(uv.min()) >= 0 and float(uv.max()) <= 300
    unit_up = torch.nn.functional.normalize(up, dim=0)
    above = float((position(control) - center) @ unit_up)
    assert 0 < above < 0.6 * distance(control)
    assert upright(control, unit_up)


def test_pixels_are_square_and_the_principal_point_is_in_the_middle() -> None:
    camera = make().camera(321, 200)
    assert camera.K[0, 0] == camera.K[1, 1]
    assert camera.center.tolist() == [160.5, 100.0]
    assert 2 * math.atan(100 / float(camera.K[1, 1])) == pytest.approx(math.radians(45))


# ------------------------------------------------------------------ orbit and look
@quick
@given(pixels, pixels)
def test_orbit_keeps_pivot_distance_and_horizon(dx: float, dy: float) -> None:
    control = make()
    pivot, before = control.pivot, distance(control)
    control.orbit(dx, dy)
    torch.testing.assert_close(control.pivot, pivot, rtol=0, atol=1e-9)
    assert distance(control) == pytest.approx(before)
    assert upright(control)


def test_orbiting_follows_the_mouse() -> None:
    """What lies between camera and pivot moves the way of the mouse."""
    control = make()
    front = control.pivot + 0.2 * (position(control) - control.pivot)
    before, _ = control.camera(300, 300).project(front)
    control.orbit(10, 0)
    right, _ = control.camera(300, 300).project(front)
    assert float(right[0] - before[0]) > 0.1
    control.orbit(-10, 10)
    down, _ = control.camera(300, 300).project(front)
    assert float(down[1] - before[1]) > 0.1


def test_a_long_drag_stops_short_of_the_poles() -> None:
    for dy in (400.0, -400.0):
        control = make()
        for _ in range(20):
            control.orbit(3.0, dy)
            assert upright(control)
        steep = float(axes(control)[2] @ Z) * -math.copysign(1, dy)
        assert 0.999 < steep < 1.0


def test_looking_keeps_the_place_and_turns_the_way_of_the_mouse() -> None:
    control = make()
    right, down, _ = axes(control)
    eye = position(control)
    control.look(20, 10)
    torch.testing.assert_close(position(control), eye)
    forward = axes(control)[2]
    assert float(forward @ right) > 0.01 and float(forward @ down) > 0.01
    assert upright(control)


@quick
@given(st.floats(-3.1, 3.1), pixels, st.floats(-100, 100))
def test_the_roll_survives_orbit_look_and_focus(roll: float, dx: float, dy: float) -> None:
    def rolled(control: CameraControl) -> float:
        right, down, _ = axes(control)
        return math.atan2(float(right @ Z), -float(down @ Z))

    control = make()
    control.roll(roll)
    expected = rolled(control)
    control.orbit(dx, 0)
    assert rolled(control) == pytest.approx(expected, abs=1e-9)

    def level_roll() -> float:  # measured on the horizon, where elevation does not foreshorten
        clean = make()
        clean.go_to(control.camera(10, 10))
        clean.set_up("auto")
        return float(torch.linalg.cross(axes(clean)[0], axes(control)[0]) @ axes(clean)[2])

    tilt = level_roll()
    control.look(dx, dy)
    assert level_roll() == pytest.approx(tilt, abs=1e-9)
    control.focus(vec(3.0, 4.0, 0.5))
    assert level_roll() == pytest.approx(tilt, abs=1e-9)


def test_a_rolled_picture_still_follows_the_mouse() -> None:
    control = make()
    control.roll(math.pi / 2)
    front = control.pivot + 0.2 * (position(control) - control.pivot)
    before, _ = control.camera(300, 300).project(front)
    control.orbit(10, 0)
    after, _ = control.camera(300, 300).project(front)
    moved = after - before
    assert float(moved[0]) > 0.1 and abs(float(moved[1])) < 0.3 * float(moved[0])


def test_roll_turns_clockwise() -> None:
    control = make()
    right, down, forward = axes(control)
    control.roll(0.1)
    torch.testing.assert_close(axes(control)[0], math.cos(0.1) * right + math.sin(0.1) * down)
    torch.testing.assert_close(axes(control)[2], forward)


# ------------------------------------------------------------------ pan, dolly, fly, focus
@quick
@given(pixels, pixels, st.floats(0.2, 2.0), photographs())
def test_pan_keeps_what_is_at_the_pivot_under_the_mouse(
    dx: float, dy: float, fov: float, photo: Camera
) -> None:
    control = make()
    control.go_to(photo)
    control.fov_y = fov
    right, down, _ = axes(control)
    beside = control.pivot + 0.3 * right - 0.2 * down
    before, depth = control.camera(400, 300).project(beside)
    control.pan(dx, dy, 300)
    after, same_depth = control.camera(400, 300).project(beside)
    torch.testing.assert_close(after - before, vec(dx, dy), atol=1e-6, rtol=1e-9)
    torch.testing.assert_close(depth, same_depth)


def test_dolly_is_exponential_and_never_passes_the_pivot() -> None:
    control = make()
    pivot, start = control.pivot, distance(control)
    control.dolly(3)
    near = distance(control)
    control.dolly(3)
    assert near / start == pytest.approx(distance(control) / near)
    assert near < start
    control.dolly(-6)
    assert distance(control) == pytest.approx(start)
    forward = axes(control)[2]
    for notches in (1000.0, math.inf):
        control.dolly(notches)
        assert distance(control) > 1e-4 * 2.0
        assert float((control.pivot - position(control)) @ forward) > 0
        torch.testing.assert_close(control.pivot, pivot, rtol=0, atol=1e-9)
    control.dolly(-math.inf)
    assert distance(control) < 1e4 * 2.0


@pytest.mark.parametrize("radius", [1e-4, 2.0, 1e6])
def test_flying_covers_one_radius_per_second_and_takes_the_pivot_along(radius: float) -> None:
    control = make(radius)
    eye, offset, forward = position(control), control.pivot - position(control), axes(control)[2]
    for _ in range(10):
        control.fly((0, 0, 1), 0.1)
    torch.testing.assert_close(position(control) - eye, radius * forward)
    torch.testing.assert_close(control.pivot - position(control), offset)
    control.speed = 2.0
    eye = position(control)
    control.fly((1, 0, 0), 0.1, 4.0)
    torch.testing.assert_close(position(control) - eye, 0.8 * radius * axes(control)[0])
    eye = position(control)
    control.fly((0, -1, 0), 0.1, 1.0)
    torch.testing.assert_close(position(control) - eye, -0.2 * radius * Z)


def test_flying_across_is_no_faster_and_a_stall_flings_nothing() -> None:
    control = make(1.0)
    eye = position(control)
    control.fly((1, 0, 1), 0.1)
    assert float((position(control) - eye).norm()) == pytest.approx(0.1)
    eye = position(control)
    control.fly((0, 0, 1), 1e9)
    assert float((position(control) - eye).norm()) < 0.5


def test_flying_out_ends_somewhere() -> None:
    control = make(1.0)
    control.speed = math.inf
    for _ in range(200):
        control.fly((0, 0, -1), 1.0, 100.0)
    assert float(position(control).norm()) < 1.1e4
    eye = position(control)
    control.fly((0, 0, 1), 0.1)
    assert float((position(control) - eye).norm()) > 1.0


def test_focus_turns_in_place_and_makes_the_point_the_pivot() -> None:
    control = make()
    eye, point = position(control), vec(1.5, 2.5, -0.5)
    control.focus(point)
    torch.testing.assert_close(position(control), eye)
    torch.testing.assert_close(control.pivot, point)
    uv, _ = control.camera(300, 200).project(point)
    torch.testing.assert_close(uv, vec(150, 100))
    assert upright(control)
    control.orbit(100, 20)
    torch.testing.assert_close(control.pivot, point)


def test_focus_on_the_camera_itself_backs_off() -> None:
    control = make()
    here = position(control)
    control.focus(here.tolist())
    torch.testing.assert_close(control.pivot, here)
    assert distance(control) > 1e-4
    check_sane(control)


def test_focus_straight_up_and_down_stays_orthonormal() -> None:
    for height in (5.0, -5.0):
        control = make()
        control.focus(position(control) + height * Z)
        check_sane(control)
        assert float(axes(control)[2] @ Z) == pytest.approx(math.copysign(1, height))
        control.orbit(40, math.copysign(200, height))  # away from the pole again
        assert upright(control)


# ------------------------------------------------------------------ go_to, reset, up
@quick
@given(photographs())
def test_go_to_reproduces_the_photographs_pose(photo: Camera) -> None:
    control = make(smoothing=0.1)
    control.go_to(photo)
    assert control.moving
    settle(control)
    camera = control.camera(160, 120)
    torch.testing.assert_close(camera.world_to_camera, photo.world_to_camera, atol=1e-9, rtol=0)
    torch.testing.assert_close(camera.K[1, 1], photo.K[1, 1])
    center = vec(1.0, -2.0, 0.5)
    along = float((center - photo.position) @ photo.forward)
    if along > 0.1:
        torch.testing.assert_close(control.pivot, photo.position + along * photo.forward)
    assert float((control.pivot - photo.position) @ photo.forward) > 0


def test_go_to_without_smoothing_is_there_at_once() -> None:
    control = make(smoothing=0.2)
    photo = photograph(vec(1, 2, 3, 4), vec(1, 2, 3))
    control.go_to(photo, smooth=False)
    assert not control.moving
    torch.testing.assert_close(pose(control), photo.world_to_camera, atol=1e-12, rtol=0)


def test_go_to_keeps_the_rounding_of_the_file() -> None:
    """The picture must be the very one that evaluation renders."""
    photo = photograph(vec(1, 2, 3, 4), vec(1, 2, 3))
    rounded = Camera(photo.world_to_camera.float().double(), photo.K, 160, 120)
    control = make()
    control.go_to(rounded)
    assert torch.equal(pose(control), rounded.world_to_camera)
    control.fov_y = 1.0
    assert torch.equal(pose(control), rounded.world_to_camera)
    control.orbit(1, 0)
    check_sane(control)


def test_go_to_takes_over_a_long_lens() -> None:
    control = make()
    control.go_to(photograph(vec(1, 0, 0, 0), vec(0, 0, -5), fov_y=math.radians(2)))
    assert control.fov_y == pytest.approx(math.radians(2))
    control.fov_y = control.fov_y
    assert control.fov_y == pytest.approx(math.radians(5))


@pytest.mark.parametrize("change", [("nan", math.nan), ("mirrored", -1.0), ("no focal", 0.0)])
def test_go_to_refuses_what_is_no_camera(change: tuple[str, float]) -> None:
    name, value = change
    photo = photograph(vec(1, 0, 0, 0), vec(0, 0, -5))
    w2c, K = photo.world_to_camera.clone(), photo.K.clone()
    (K if name == "no focal" else w2c)[1, 1] = value
    control = make()
    before = pose(control)
    with pytest.raises(ValueError, match="camera pose"):
        control.go_to(Camera(w2c, K, 160, 120))
    assert torch.equal(pose(control), before)


def test_reset_comes_back_to_the_start() -> None:
    control = make()
    start = pose(control)
    control.orbit(300, 20)
    control.fly((1, 1, 1), 0.2)
    control.fov_y = 1.5
    control.reset()
    torch.testing.assert_close(pose(control), start)
    assert control.fov_y == pytest.approx(math.radians(45))


@quick
@given(photographs(), st.sampled_from(["auto", "+x", "-x", "+y", "-y", "+z", "-z"]))
def test_set_up_rolls_upright_in_place(photo: Camera, axis: Any) -> None:
    control = make(up=vec(1, 1, 1))
    control.go_to(photo)
    pivot = control.pivot
    control.set_up(axis)
    torch.testing.assert_close(position(control), photo.position, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(control.pivot, pivot, atol=1e-9, rtol=1e-9)
    expected = vec(1, 1, 1) / math.sqrt(3)
    if axis != "auto":
        expected = vec(*((-1.0 if axis[0] == "-" else 1.0) * (c == axis[1]) for c in "xyz"))
    torch.testing.assert_close(control.up, expected)
    if abs(float(photo.forward @ control.up)) < 0.999:
        assert upright(control, control.up)
    check_sane(control)


def test_unknown_axis_and_useless_up_are_refused() -> None:
    wrong: Any = "+w"
    with pytest.raises(ValueError, match="up axis"):
        make().set_up(wrong)
    with pytest.raises(ValueError, match="length zero"):
        make(up=vec(0, 0, 0))
    with pytest.raises(ValueError, match="finite"):
        make().focus([0.0, math.nan, 0.0])


def test_settings_stay_in_range() -> None:
    control = make()
    for value, expected in ((0.0, 5.0), (10.0, 120.0), (math.nan, 5.0)):
        control.fov_y = value
        assert math.degrees(control.fov_y) == pytest.approx(expected)
    control.speed = -3.0
    assert control.speed > 0
    control.smoothing = -1.0
    assert control.smoothing == 0.0
