"""The camera's conventions, property by property (docs/conventions.md)."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from render.camera import (
    Camera,
    intrinsics,
    orbit_path,
    quat_to_rotation,
    rotation_to_quat,
)

F64 = torch.float64
quick = settings(deadline=None, max_examples=25)
unit = st.floats(-1.0, 1.0, allow_nan=False)


@st.composite
def rotations(draw: st.DrawFn) -> Tensor:
    quat = torch.tensor([draw(unit) for _ in range(4)], dtype=F64)
    assume(float(quat.norm()) > 0.05)
    return quat_to_rotation(quat)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    """Any rigid pose, non-square images and pixels, a principal point off the middle."""
    w2c = torch.eye(4, dtype=F64)
    w2c[:3, :3] = draw(rotations())
    w2c[:3, 3] = torch.tensor([10 * draw(unit) for _ in range(3)], dtype=F64)
    width, height = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    focal = [draw(st.floats(20, 2000)) for _ in range(2)]
    center = [width * draw(st.floats(0.2, 0.8)), height * draw(st.floats(0.2, 0.8))]
    return Camera(w2c, intrinsics(focal, center), width, height)


def same_camera(a: Camera, b: Camera, atol: float = 1e-9) -> None:
    torch.testing.assert_close(a.world_to_camera, b.world_to_camera, atol=atol, rtol=1e-9)
    torch.testing.assert_close(a.K, b.K, atol=atol, rtol=1e-9)
    assert (a.width, a.height) == (b.width, b.height)


# ------------------------------------------------------------------ projection
@quick
@given(cameras(), st.integers(0, 2**31))
def test_project_inverts_unproject(camera: Camera, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([camera.width, camera.height], dtype=F64)
    uv = (torch.rand(50, 2, generator=generator, dtype=F64) * 3 - 1) * size
    z = 0.05 + 20 * torch.rand(50, generator=generator, dtype=F64)
    back, depth = camera.project(camera.unproject(uv, z))
    torch.testing.assert_close(back, uv, atol=1e-6, rtol=0)
    torch.testing.assert_close(depth, z, atol=1e-9, rtol=1e-9)


@quick
@given(cameras())
def test_rays_go_through_the_pixel_centres(camera: Camera) -> None:
    camera = camera.resize(min(camera.width, 40), min(camera.height, 30))
    origin, direction, cos = camera.rays(F64)
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones_like(cos), atol=1e-12, rtol=0)
    torch.testing.assert_close(origin, camera.position)
    depth = 3.5
    points = origin + (depth / cos)[..., None] * direction  # [H, W, 3]
    uv, z = camera.project(points)
    torch.testing.assert_close(uv, camera.pixel_centers(F64), atol=1e-6, rtol=0)
    torch.testing.assert_close(z, torch.full_like(z, depth), atol=1e-9, rtol=0)


def test_pixel_centres_are_at_halves() -> None:
    camera = Camera(torch.eye(4, dtype=F64), intrinsics((10, 10), (2, 1.5)), 4, 3)
    centres = camera.pixel_centers()
    assert centres.shape == (3, 4, 2)
    assert centres[0, 0].tolist() == [0.5, 0.5]
    assert centres[2, 3].tolist() == [3.5, 2.5]
    # A point on the axis falls on the image's middle: the border between columns 1 and 2.
    uv, z = camera.project(torch.tensor([0.0, 0.0, 7.0]))
    assert uv.tolist() == [2.0, 1.5] and float(z) == 7.0


def test_axes_are_opencv() -> None:
    camera = Camera(torch.eye(4, dtype=F64), intrinsics((10, 10), (5, 5)), 10, 10)
    right, _ = camera.project(torch.tensor([1.0, 0.0, 10.0]))
    down, _ = camera.project(torch.tensor([0.0, 1.0, 10.0]))
    assert right.tolist() == [6.0, 5.0]
    assert down.tolist() == [5.0, 6.0]
    assert camera.forward.tolist() == [0.0, 0.0, 1.0]


# ------------------------------------------------------------------ crop and resize
def checker_edges(camera: Camera, row: int) -> np.ndarray:
    """Sub-pixel columns where a row of the camera crosses the lines of a checker on z = 0."""
    origin, direction, _ = camera.rays(F64)
    ray = direction[row]  # [W, 3]
    hit = origin + (-origin[2] / ray[:, 2])[:, None] * ray
    x = (hit[:, 0] * 4).numpy()  # squares of a quarter of a unit
    columns = np.arange(camera.width) + 0.5
    edges = []
    for left in range(camera.width - 1):
        low, high = sorted((x[left], x[left + 1]))
        for line in range(math.ceil(low), math.floor(high) + 1):
            edges.append(columns[left] + (line - x[left]) / (x[left + 1] - x[left]))
    return np.array(edges)


CHECKER = Camera.look_at((0.4, -2.0, 3.0), (0.1, 0.0, 0.0), width=231, height=153)


@quick
@given(st.integers(-30, 60), st.integers(-20, 40), st.integers(40, 120), st.integers(20, 80))
def test_crop_keeps_checker_edges(x: int, y: int, width: int, height: int) -> None:
    crop = CHECKER.crop(x, y, width, height)
    row = height // 2
    # The same row of a frame that is wide enough for crops which reach outside.
    wide = CHECKER.crop(-40, y + row, 320, 1)
    full = checker_edges(wide, 0) - 40
    full = full[(full > x + 0.5) & (full < x + width - 0.5)]
    np.testing.assert_allclose(checker_edges(crop, row) + x, full, atol=1e-6)
    assert len(full) >= 1


@pytest.mark.parametrize("factor", [3, 7, 9])
def test_resize_keeps_checker_edges(factor: int) -> None:
    """With an odd factor row r of the small image lies on row factor * r + factor // 2."""
    large = CHECKER.resize(factor * 63, factor * 45)
    small = CHECKER.resize(63, 45)
    for row in range(45):
        coarse = checker_edges(small, row) * factor
        fine = checker_edges(large, factor * row + factor // 2)
        fine = fine[(fine > factor / 2) & (fine < factor * 62.5)]
        # Linear interpolation between pixel centres errs by far less than the 0.01 px asked for.
        np.testing.assert_allclose(coarse, fine, atol=0.01)


@quick
@given(cameras(), st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**31))
def test_resize_scales_pixel_positions(camera: Camera, width: int, height: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([camera.width, camera.height], dtype=F64)
    uv = torch.rand(20, 2, generator=generator, dtype=F64) * size
    points = camera.unproject(uv, torch.full((20,), 2.0, dtype=F64))
    resized, _ = camera.resize(width, height).project(points)
    scale = torch.tensor([width, height], dtype=F64) / size
    torch.testing.assert_close(resized, uv * scale, atol=1e-6, rtol=0)


@quick
@given(cameras(), st.integers(-50, 50), st.integers(-50, 50))
def test_crop_of_crop_is_one_crop(camera: Camera, x: int, y: int) -> None:
    twice = camera.crop(x, y, 40, 30).crop(7, -3, 10, 12)
    same_camera(twice, camera.crop(x + 7, y - 3, 10, 12))


def test_crop_takes_the_rays_of_its_window() -> None:
    _, full, _ = CHECKER.rays(F64)
    _, part, _ = CHECKER.crop(20, 11, 50, 40).rays(F64)
    torch.testing.assert_close(part, full[11:51, 20:70], atol=1e-12, rtol=0)


# ------------------------------------------------------------------ other conventions
@quick
@given(cameras())
def test_opengl_round_trip(camera: Camera) -> None:
    back = Camera.from_opengl(camera.to_opengl(), camera.K, camera.width, camera.height)
    same_camera(back, camera)


def test_opengl_axes() -> None:
    """Blender's default camera looks along -z with y up: what is up lands high in the image."""
    camera = Camera.from_opengl(torch.eye(4, dtype=F64), intrinsics((10, 10), (5, 5)), 10, 10)
    uv, z = camera.project(torch.tensor([1.0, 2.0, -10.0]))
    assert uv.tolist() == [6.0, 3.0] and float(z) == 10.0


@quick
@given(cameras())
def test_colmap_round_trip(camera: Camera) -> None:
    quat, translation = camera.to_colmap()
    assert float(quat[0]) >= 0
    assert math.isclose(float(quat.norm()), 1.0, abs_tol=1e-12)
    back = Camera.from_colmap(quat, translation, camera.K, camera.width, camera.height)
    same_camera(back, camera)


@quick
@given(rotations())
def test_quaternions_agree_with_scipy(rotation: Tensor) -> None:
    quat = rotation_to_quat(rotation).numpy()
    expected = Rotation.from_matrix(rotation.numpy()).as_quat()[[3, 0, 1, 2]]  # w first
    assert min(np.abs(quat - expected).max(), np.abs(quat + expected).max()) < 1e-9
    torch.testing.assert_close(
        quat_to_rotation(torch.from_numpy(quat)), rotation, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("axis", range(3))
def test_quaternion_of_half_turns(axis: int) -> None:
    rotation = -torch.eye(3, dtype=F64)
    rotation[axis, axis] = 1.0
    torch.testing.assert_close(quat_to_rotation(rotation_to_quat(rotation)), rotation)


@quick
@given(cameras())
def test_pytorch3d_round_trip(camera: Camera) -> None:
    R, T, focal, center = camera.to_pytorch3d()
    back = Camera.from_pytorch3d(R, T, focal, center, camera.width, camera.height)
    same_camera(back, camera, atol=1e-8)


@quick
@given(cameras(), st.integers(0, 2**31))
def test_pytorch3d_formula(camera: Camera, seed: int) -> None:
    """PyTorch3D's own: X_cam = X R + T; x_ndc = f X / Z + p; pixel = (W - x_ndc min(W, H)) / 2.

    Documentation: pytorch3d/docs/notes/cameras.md (NDC: +x left, +y up, short side is [-1, 1]).
    """
    generator = torch.Generator().manual_seed(seed)
    uv = torch.rand(20, 2, generator=generator, dtype=F64) * 500
    points = camera.unproject(uv, 1 + torch.rand(20, generator=generator, dtype=F64))
    R, T, focal, center = camera.to_pytorch3d()
    in_camera = points @ R + T
    ndc = focal * in_camera[:, :2] / in_camera[:, 2:] + center
    size = torch.tensor([camera.width, camera.height], dtype=F64)
    pixel = (size - ndc * min(camera.width, camera.height)) / 2
    torch.testing.assert_close(pixel, uv, atol=1e-6, rtol=0)


# ------------------------------------------------------------------ construction and paths
@quick
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.2, 2.0))
def test_look_at(eye: list[float], fov: float) -> None:
    assume(math.dist(eye, (0.5, 0.2, -0.1)) > 0.2)
    camera = Camera.look_at(eye, (0.5, 0.2, -0.1), fov_x=fov, width=80, height=60)  # pyright: ignore
    uv, z = camera.project(torch.tensor([0.5, 0.2, -0.1], dtype=F64))
    torch.testing.assert_close(uv, torch.tensor([40.0, 30.0], dtype=F64), atol=1e-6, rtol=0)
    assert math.isclose(float(z), math.dist(eye, (0.5, 0.2, -0.1)), rel_tol=1e-9)
    rotation = camera.world_to_camera[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=F64), atol=1e-9, rtol=0)
    assert math.isclose(float(torch.linalg.det(rotation)), 1.0, abs_tol=1e-9)
    torch.testing.assert_close(camera.position, torch.tensor(eye, dtype=F64), atol=1e-8, rtol=0)
    assert math.isclose(2 * math.atan(40 / float(camera.focal[0])), fov, rel_tol=1e-9)


def test_look_at_keeps_up_upwards() -> None:
    camera = Camera.look_at((3, 0, 1), (0, 0, 0), width=100, height=100)
    above, _ = camera.project(torch.tensor([0.0, 0.0, 0.5]))
    assert float(above[0]) == pytest.approx(50) and float(above[1]) < 50


def test_look_straight_down() -> None:
    camera = Camera.look_at((0, 0, 4), (0, 0, 0))
    assert camera.forward.tolist() == [0.0, 0.0, -1.0]
    assert bool(torch.isfinite(camera.world_to_camera).all())


def test_orbit_path_turns_once_around_the_centre() -> None:
    start = Camera.look_at((3, 1, 2), (0.3, 0.1, 0.0))
    center = torch.tensor([0.3, 0.1, 0.0], dtype=F64)
    path = orbit_path(start, center, 8)
    assert len(path) == 8
    same_camera(path[0], start)
    for camera in path:
        assert float(camera.position[2]) == pytest.approx(2.0)
        assert float((camera.position - center).norm()) == pytest.approx(
            float((start.position - center).norm())
        )
        uv, _ = camera.project(center)
        torch.testing.assert_close(uv, torch.tensor([128.0, 128.0], dtype=F64), atol=1e-6, rtol=0)
    turned = path[4].position - center
    torch.testing.assert_close(turned[:2], -(start.position - center)[:2], atol=1e-9, rtol=0)
    gaps = [float((path[i].position - path[i - 1].position).norm()) for i in range(8)]
    assert max(gaps) - min(gaps) < 1e-9  # the last step closes the circle


def test_orbit_about_another_axis() -> None:
    start = Camera.look_at((0, 1, 3), (0, 0, 0), up=(0, 1, 0))
    for camera in orbit_path(start, torch.zeros(3), 5, up=(0, 1, 0)):
        assert float(camera.position[1]) == pytest.approx(1.0)


@quick
@given(cameras())
def test_json_round_trip(camera: Camera) -> None:
    back = Camera.from_json(json.loads(json.dumps(camera.to_json())))
    same_camera(back, camera, atol=0.0)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="world_to_camera"):
        Camera(torch.eye(3), torch.eye(3), 4, 4)
    with pytest.raises(ValueError, match="image size"):
        Camera(torch.eye(4), torch.eye(3), 0, 4)


def test_in_frame_is_in_front_and_inside_the_half_open_picture() -> None:
    camera = Camera(torch.eye(4), torch.eye(3), 4, 3)
    uv = torch.tensor([[0.0, 0.0], [3.9, 2.9], [4.0, 1.0], [1.0, 3.0], [-0.1, 1.0], [1.0, 1.0]])
    z = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    assert camera.in_frame(uv, z).tolist() == [True, True, False, False, False, False]
