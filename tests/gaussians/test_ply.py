"""3DGS files: exact round trips, the layout that others expect, other units, broken ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.gaussians.cloud import Cloud
from render.gaussians.ply import from_points, is_splat_cloud, write_ply
from render.kbuffer.gaussians import splat
from render.scenes.clouds.pointcloud import read_point_cloud
from tests.gaussians.case import Case


def cloud_of(degree: int, n: int = 25) -> Cloud:
    cloud = Case(n).cloud
    tensors = {name: t.detach() for name, t in cloud.tensors().items()}
    generator = torch.Generator().manual_seed(3)
    tensors["sh_rest"] = 0.2 * torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=generator)
    tensors["log_scales"] = tensors["log_scales"] + 4  # 0.13, visible from a few units away
    return Cloud(tensors)


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        ([], (0.3, 1)),
        (["low_pass 0.1 px^2"], (0.1, 1)),
        (["low_pass 0.1 px^2", "samples 3 a side"], (0.1, 3)),
        (["samples 2"], (0.3, 2)),
        (["low_pass 0.1", "samples 99"], (0.1, 1)),
        (["low_pass 0.1", "samples nan"], (0.1, 1)),
        (["low_pass 0.1", "samples -2"], (0.1, 1)),
        (["low_pass -1", "samples 2"], (0.3, 1)),
        (["low_pass inf"], (0.3, 1)),
        (["low_pass", "samples many"], (0.3, 1)),
    ],
)
def test_comments_tell_the_sampling(
    comments: list[str], expected: tuple[float, int], tmp_path: Path
) -> None:
    path = tmp_path / "told.ply"
    write_ply(tmp_path / "out.ply", cloud_of(1))
    rows = PlyData.read(tmp_path / "out.ply").elements
    PlyData(rows, byte_order="<", comments=comments).write(str(path))
    points = read_point_cloud(path)
    assert points.sampling == expected
    assert from_points(points).sampling == expected


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_is_written_is_read_back_bit_for_bit(degree: int, tmp_path: Path) -> None:
    cloud = cloud_of(degree)
    write_ply(tmp_path / "out.ply", cloud)
    points = read_point_cloud(tmp_path / "out.ply")
    assert is_splat_cloud(points)
    back = from_points(points)
    for name, tensor in cloud.tensors().items():
        assert torch.equal(back.tensors()[name], tensor), name
    assert [p.name for p in tmp_path.iterdir()] == ["out.ply"]


def test_the_layout_is_that_of_the_3dgs_program(tmp_path: Path) -> None:
    cloud = cloud_of(3)
    write_ply(tmp_path / "out.ply", cloud)
    vertex = PlyData.read(str(tmp_path / "out.ply"))["vertex"]
    names = [p.name for p in vertex.properties]
    assert names == [
        "x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(45)), "opacity", *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]  # fmt: skip
    # channel-major: the 15 red ones come first
    np.testing.assert_array_equal(vertex["f_rest_1"], cloud.sh_rest[:, 1, 0].detach())
    np.testing.assert_array_equal(vertex["f_rest_15"], cloud.sh_rest[:, 0, 1].detach())
    np.testing.assert_array_equal(vertex["rot_0"], cloud.quats[:, 0].detach())


def picture(cloud: Cloud, camera: Camera) -> Tensor:
    with torch.no_grad():
        projected = cloud.project(camera, 0.01, antialias=False)
        return splat(projected, projected.rgb, camera.width, camera.height, 0).image


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_in_other_units_it_is_the_same_picture(degree: int, tmp_path: Path) -> None:
    """The world is turned, scaled and moved, and the camera with it."""
    cloud = cloud_of(degree)
    camera = Camera.look_at((0.0, -6.0, 2.0), (0.0, 0.0, 0.0), width=64, height=64)
    a, b = 0.7, -1.1
    turn_z = torch.tensor(
        [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]
    )
    turn_x = torch.tensor(
        [[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]]
    )
    rotation = (turn_z @ turn_x).double()
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] = 2.5 * rotation
    similarity[:3, 3] = torch.tensor([3.0, -1.0, 0.5])
    write_ply(tmp_path / "out.ply", cloud, similarity)
    moved = from_points(read_point_cloud(tmp_path / "out.ply"))
    pose = similarity @ camera.camera_to_world
    pose[:3, :3] /= 2.5
    other = Camera(torch.linalg.inv(pose), camera.K, camera.width, camera.height)
    before, after = picture(cloud, camera), picture(moved, other)
    assert float(before.max()) > 0.3
    torch.testing.assert_close(after, before, atol=2e-4, rtol=0)


def test_colours_of_half_a_degree_are_refused(tmp_path: Path) -> None:
    write_ply(tmp_path / "out.ply", cloud_of(1))
    points = read_point_cloud(tmp_path / "out.ply")
    assert points.gaussians is not None
    points.gaussians["f_rest"] = points.gaussians["f_rest"][:, :6]
    with pytest.raises(UserError, match=r"out\.ply.*0, 9, 24 or 45 .* found 6"):
        from_points(points)


@pytest.mark.parametrize("missing", ["opacity", "scale", "rotation"])
def test_points_with_some_splat_attributes_are_points(missing: str, tmp_path: Path) -> None:
    write_ply(tmp_path / "out.ply", cloud_of(0))
    points = read_point_cloud(tmp_path / "out.ply")
    assert points.gaussians is not None
    del points.gaussians[missing]
    assert not is_splat_cloud(points)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["inria_3dgs_iter7000.ply", "no_frest_luigi.ply"])
def test_files_of_other_programs_survive_a_round_trip(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    original = shared_data / "splats" / name
    cloud = from_points(read_point_cloud(original))
    write_ply(tmp_path / name, cloud)
    ours, theirs = (PlyData.read(str(path))["vertex"] for path in (tmp_path / name, original))
    assert len(cloud) == theirs.count
    for prop in theirs.properties:
        if prop.name not in ("nx", "ny", "nz"):
            np.testing.assert_array_equal(ours[prop.name], theirs[prop.name], err_msg=prop.name)
