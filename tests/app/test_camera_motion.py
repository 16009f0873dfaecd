"""How the window's camera gets to its target, its state in files, and any sequence at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.camera_control import CameraControl
from render.camera import Camera
from tests.window_camera import (
    F64,
    axes,
    check_sane,
    distance,
    make,
    photographs,
    pixels,
    pose,
    position,
    quick,
    settle,
    unit,
    vec,
)


# ------------------------------------------------------------------ smoothing
def test_half_the_way_after_one_half_life() -> None:
    control = make(1.0, smoothing=0.2)
    eye, forward = position(control), axes(control)[2]
    control.fly((0, 0, 1), 0.25)
    torch.testing.assert_close(position(control), eye)
    control.advance(0.2)
    torch.testing.assert_close(position(control), eye + 0.125 * forward)


@quick
@given(photographs(), st.integers(1, 40))
def test_smoothing_does_not_depend_on_the_frame_rate(photo: Camera, frames: int) -> None:
    one, many = make(smoothing=0.3), make(smoothing=0.3)
    for control in (one, many):
        control.go_to(photo)
    one.advance(0.25)
    for _ in range(frames):
        many.advance(0.25 / frames)
    torch.testing.assert_close(pose(one), pose(many), atol=1e-6, rtol=1e-6)


def test_a_smooth_orbit_keeps_its_distance_and_a_smooth_look_its_place() -> None:
    control = make(smoothing=0.1)
    start = distance(control)
    control.orbit(600, 30)  # nearly half a turn
    while control.advance(1 / 60):
        assert distance(control) == pytest.approx(start)
    eye = position(control)
    control.look(300, 30)
    while control.advance(1 / 60):
        torch.testing.assert_close(position(control), eye)


def test_changing_from_orbit_to_look_does_not_jump() -> None:
    control = make(smoothing=0.1)
    control.orbit(200, 0)
    control.advance(0.05)
    before = pose(control)
    control.look(1e-9, 0)
    control.advance(1e-9)
    torch.testing.assert_close(pose(control), before, atol=1e-6, rtol=0)


def test_advance_snaps_exactly_to_the_target() -> None:
    control, direct = make(smoothing=0.1), make()
    for c in (control, direct):
        c.orbit(123, -45)
        c.dolly(2)
    assert control.advance(1 / 60) and control.moving
    settle(control)
    assert not control.moving and torch.equal(pose(control), pose(direct))
    assert control.advance(1 / 60) is False


def test_the_last_step_is_too_small_to_be_seen() -> None:
    control = make(smoothing=0.1)
    points = control.pivot + torch.randn(
        50, 3, dtype=F64, generator=torch.Generator().manual_seed(1)
    )
    control.orbit(200, 40)
    control.fov_y = 1.0
    before = control.camera(1280, 720).project(points)[0]
    while control.advance(1 / 120):
        before = control.camera(1280, 720).project(points)[0]
    after = control.camera(1280, 720).project(points)[0]
    assert float((after - before).abs().max()) < 0.3


def test_operations_without_motion_change_nothing() -> None:
    control = make(smoothing=0.1)
    control.orbit(0, 0)
    control.look(0, 0)
    control.pan(0, 0, 100)
    control.fly((0, 0, 0), 0.1)
    assert not control.moving


# ------------------------------------------------------------------ files
@quick
@given(photographs())
def test_json_restores_the_camera(photo: Camera) -> None:
    control = make()
    control.set_up("-y")
    control.go_to(photo)
    control.orbit(10, 5)
    control.dolly(1)
    other = make(smoothing=0.1)
    other.from_json(json.loads(json.dumps(control.to_json())))
    assert not other.moving
    torch.testing.assert_close(pose(other), pose(control), atol=1e-12, rtol=0)
    torch.testing.assert_close(other.pivot, control.pivot, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(other.up, vec(0, -1, 0))
    assert other.fov_y == pytest.approx(control.fov_y)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("world_to_camera", [[1.0, 2.0]]),
        ("world_to_camera", "hello"),
        ("fov_y", math.nan),
        ("fov_y", None),
        ("pivot", [math.inf, 0.0, 0.0]),
        ("up", [0.0, 0.0, 0.0]),
    ],
)
def test_spoilt_json_is_refused_and_changes_nothing(key: str, value: Any) -> None:
    control = make()
    data = make().to_json() | {key: value}
    control.orbit(10, 10)
    before = control.to_json()
    with pytest.raises(ValueError, match="camera state"):
        control.from_json(data)
    with pytest.raises(ValueError, match="camera state"):
        control.from_json({k: v for k, v in before.items() if k != key})
    assert control.to_json() == before


# ------------------------------------------------------------------ anything at all
wild = st.one_of(pixels, st.sampled_from([0.0, 1e300, math.inf, -math.inf, math.nan]))
Operation = Callable[[CameraControl], object]


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    a, b, c = draw(wild), draw(wild), draw(wild)
    point = vec(*(draw(unit) for _ in range(3)))
    photo = draw(photographs())
    axis: Any = draw(st.sampled_from(["auto", "+x", "-y", "+z", "-z"]))
    choices: list[Operation] = [
        lambda s: s.orbit(a, b),
        lambda s: s.look(a, b),
        lambda s: s.pan(a, b, 300),
        lambda s: s.dolly(a),
        lambda s: s.fly((a, b, c), 0.1, 4.0),
        lambda s: s.focus(s.pivot + 3 * point * float((s.pivot - position(s)).norm())),
        lambda s: s.focus(position(s)),
        lambda s: s.reset(),
        lambda s: s.go_to(photo),
        lambda s: s.set_up(axis),
        lambda s: s.roll(a),
        lambda s: setattr(s, "fov_y", a),
        lambda s: setattr(s, "speed", a),
        lambda s: s.advance(abs(b)),
        lambda s: s.advance(1 / 60),
    ]
    return draw(st.sampled_from(choices))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(operations(), max_size=25),
    st.sampled_from([1e-4, 1.0, 1e6]),
    st.sampled_from([0.0, 0.1]),
)
def test_no_sequence_spoils_the_pose(
    sequence: list[Operation], radius: float, smoothing: float
) -> None:
    control = make(radius, smoothing=smoothing)
    for operation in sequence:
        operation(control)
        check_sane(control)
    settle(control)
    check_sane(control)
    camera = control.camera(64, 48)
    assert float((control.pivot - camera.position) @ camera.forward) > 1e-8 * radius


def test_a_single_point_has_a_camera_too() -> None:
    for center in (vec(0, 0, 0), vec(1e6, 0, 0)):
        control = make(0.0, center)
        control.orbit(10, 10)
        control.dolly(100)
        check_sane(control)
        assert distance(control) > 0
