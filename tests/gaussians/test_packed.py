"""Gaussians as .spz and .splat: the same picture to within the bits, in the file's units."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from app.export import export_gaussians
from app.options import Options
from app.session import Session
from render.camera import Camera
from render.errors import UserError
from render.gaussians.cloud import Cloud
from render.gaussians.files import SUFFIXES, write_gaussians
from render.gaussians.ply import from_points
from render.kbuffer.gaussians import splat
from render.scenes.clouds.pointcloud import read_point_cloud
from tests.gaussians.case import Case

CAMERA = Camera.look_at((0.0, -6.0, 2.0), (0.0, 0.0, 0.0), width=96, height=96)


def cloud_of(degree: int, n: int = 60) -> Cloud:
    tensors = {name: t.detach() for name, t in Case(n).cloud.tensors().items()}
    generator = torch.Generator().manual_seed(3)
    tensors["sh_rest"] = 0.2 * torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=generator)
    tensors["log_scales"] = tensors["log_scales"] + 4
    return Cloud(tensors)


@torch.no_grad()
def psnr(a: Cloud, b: Cloud) -> float:
    pictures = []
    for cloud in (a, b):
        projected = cloud.project(CAMERA, 0.01, antialias=False)
        pictures.append(splat(projected, projected.rgb, 96, 96, 0).image)
    assert float(pictures[0].std()) > 0.05
    return -10 * math.log10(float((pictures[0] - pictures[1]).square().mean()) + 1e-12)


@pytest.mark.parametrize(
    ("name", "degree", "least"),
    [("a.ply", 3, 99), ("a.spz", 0, 36), ("a.spz", 3, 34), ("a.SPLAT", 0, 36)],
)
def test_the_same_picture(tmp_path: Path, name: str, degree: int, least: float) -> None:
    cloud = cloud_of(degree)
    write_gaussians(tmp_path / "new" / name, cloud)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]
    back = from_points(read_point_cloud(tmp_path / "new" / name))
    assert back.sh_rest.shape == cloud.sh_rest.shape
    assert psnr(cloud, back) > least


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_in_the_units_of_the_file(tmp_path: Path, suffix: str) -> None:
    """Turned, enlarged and moved; all three formats hold the same Gaussians."""
    cloud = cloud_of(0)
    similarity = torch.eye(4, dtype=torch.float64)
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    similarity[:3, :3] = 3 * turn.double()
    similarity[:3, 3] = torch.tensor([5.0, 6, 7])
    write_gaussians(tmp_path / f"a{suffix}", cloud, similarity)
    back = from_points(read_point_cloud(tmp_path / f"a{suffix}"))
    expected = cloud.means.double() @ similarity[:3, :3].T + similarity[:3, 3]
    order = [np.lexsort(t.detach().numpy().round(3).T) for t in (back.means, expected)]
    a, b = back.means[order[0]], expected[order[1]].float()
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)
    sizes = cloud.log_scales[order[1]] + math.log(3)
    torch.testing.assert_close(back.log_scales[order[0]], sizes, atol=0.04, rtol=0)


def test_a_session_exports_in_each_format(tmp_path: Path) -> None:
    cloud = cloud_of(2)
    write_gaussians(tmp_path / "a.ply", cloud)
    session = Session(Options(scene=str(tmp_path / "a.ply"), out=tmp_path / "run"))
    session.open()
    try:
        for suffix, said in ((".ply", "."), (".spz", "8 to 24 bits"), (".splat", "8 bits")):
            path = tmp_path / f"out{suffix}"
            job = session.submit(lambda bench, path=path: export_gaussians(bench, path))
            assert said in job.result(30)
            assert len(read_point_cloud(path)) == 60
        job = session.submit(lambda bench: export_gaussians(bench, tmp_path / "a.obj"))
        with pytest.raises(UserError, match=r"ends in \.ply or \.spz or \.splat"):
            job.result(30)
    finally:
        session.stop()


def test_points_alone_are_exported_where_the_file_had_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-20, 20, (500, 3)) + np.array([5e5, 4e6, 100])
    np.save(tmp_path / "a.npy", values)
    session = Session(Options(scene=str(tmp_path / "a.npy"), out=tmp_path / "run"))
    session.open()
    try:
        assert "500 points" in session.submit(export_gaussians).result(30)
        back = read_point_cloud(tmp_path / "run" / "export" / "points.ply")
        np.testing.assert_allclose(back.file_xyz(), values, atol=1e-5)
        job = session.submit(lambda bench: export_gaussians(bench, tmp_path / "a.spz"))
        with pytest.raises(UserError, match=r"ends in \.ply"):
            job.result(30)
    finally:
        session.stop()
