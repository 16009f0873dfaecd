"""Discs as Gaussians: the same colours, about the same picture, and files that come back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from render.gaussians.ply import from_points, write_ply
from render.kbuffer.gaussians import splat
from render.kbuffer.gaussians_torch import sh_basis
from render.methods.point_radiance import FaithfulOptions, PointRadianceFaithful
from render.methods.point_radiance.export import gaussians_of
from render.methods.point_radiance.points import Points
from render.methods.splatting import over
from render.scenes.clouds.pointcloud import read_point_cloud
from tests.methods.disc_scenes import CPU, SMALL, WHITE, make, sphere_scene

pytestmark = pytest.mark.usefixtures("one_thread")


def test_colours_of_every_direction_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    points = Points(
        {
            "xyz": torch.rand(50, 3, generator=generator) - 0.5,
            "radius": torch.full((50,), math.log(0.1)),
            "base": torch.rand(50, 3, generator=generator),
            "sh": 0.1 * torch.rand(50, 27, generator=generator),
        }
    )
    cloud = gaussians_of(points, points.radius.detach().exp(), constant=True)
    camera = sphere_scene().views[0].camera
    projected = cloud.project(camera, 0.1, antialias=False)
    direction = torch.nn.functional.normalize(points.xyz - camera.position.float(), dim=1)
    basis = torch.cat([torch.full((50, 1), 0.28209479), sh_basis(direction, 8)], 1)
    expected = points.base + torch.einsum("nb,nbc->nc", basis, points.sh.unflatten(1, (9, 3)))
    seen = projected.extent[:, 0] > 0
    torch.testing.assert_close(projected.rgb[seen], expected[seen].clamp(min=0), atol=1e-4, rtol=0)


def test_the_picture_of_the_gaussians_is_much_like_ours() -> None:
    scene = sphere_scene()
    method = make(replace(SMALL, k=30, points=3000), scene)
    camera = scene.views[0].camera.resize(96, 96)
    projected = method.as_gaussians().project(camera, method.near, antialias=True)
    seen = splat(projected, projected.rgb, 96, 96, 0)
    theirs = over(seen.image, seen.alpha, WHITE).detach().clamp(0, 1)
    ours = method.render(camera, WHITE).rgb
    error = float((theirs - ours).square().mean())
    level = float((ours - 1).square().mean())
    assert error < 0.05 * level


def test_ndc_radii_become_world_radii_and_files_come_back(tmp_path: Path) -> None:
    scene = sphere_scene(10)
    options = FaithfulOptions(k=6, data_r=0.002)
    method = PointRadianceFaithful(options, scene, CPU, torch.Generator().manual_seed(0))
    cloud = method.as_gaussians()
    assert len(cloud) == method.exported == len(method.points)
    camera = scene.views[0].camera
    depth = min(float(v.camera.position.norm()) for v in scene.split("train"))
    tangent = float(method.points.radius.detach()[0].exp())
    pixels = 2 * cloud.log_scales.detach().exp().median() * float(camera.focal.mean()) / depth
    assert float(pixels) == pytest.approx(tangent * float(camera.focal.mean()), rel=0.25)
    write_ply(tmp_path / "discs.ply", cloud)
    again = from_points(read_point_cloud(tmp_path / "discs.ply"))
    for name, tensor in cloud.tensors().items():
        assert torch.equal(getattr(again, name).detach(), tensor.detach()), name
