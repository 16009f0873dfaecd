"""``view`` of every renderer returns what ``render`` and ``inspect`` return, bit for bit."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.export.cloud import CloudRenderer
from render.methods.base import Method
from render.methods.gaussians import (
    GaussiansKMethod,
    GaussiansKOptions,
    GaussiansMethod,
    GaussiansOptions,
)
from render.methods.kbuffer import KBufferMethod
from render.methods.npf import Bpcr, Frepcr, NpfOptions
from render.methods.point_radiance import PointRadianceMethod, PointRadianceOptions
from tests.fakes import FakeMethod, FakeOptions
from tests.methods.glass_ball import SMALL, away, glass_ball, make
from tests.scenes.synthetic import cameras_around

BACKGROUND = torch.tensor([0.2, 0.5, 0.9])
NPF = NpfOptions(k=4, dim=4, mlp_width=16, kfn_width=8, unet="pp", unet_levels=2, crop=24)
pytestmark = pytest.mark.usefixtures("one_thread")


def assert_equal(a: object, b: object, name: str = "") -> None:
    """The same values in every tensor, however deep."""
    assert type(a) is type(b), name
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        assert a.shape == b.shape and a.dtype == b.dtype and not a.requires_grad, name
        assert torch.equal(a, b), name
    elif isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_equal(a[key], b[key], f"{name}.{key}")
    elif is_dataclass(a):
        for field in fields(a):
            assert_equal(getattr(a, field.name), getattr(b, field.name), f"{name}.{field.name}")
    else:
        assert a == b, name


def renderer(name: str) -> Method | CloudRenderer:
    scene = glass_ball(400, size=24, views=4)
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    if name == "cloud":
        return CloudRenderer(scene, 4)
    if name == "fake":
        return FakeMethod(FakeOptions(), scene, cpu, generator)
    if name in ("bpcr", "frepcr"):
        return (Bpcr if name == "bpcr" else Frepcr)(NPF, scene, cpu, generator)
    if name == "gaussians":
        return GaussiansMethod(GaussiansOptions(k=4, points=300), scene, cpu, generator)
    if name == "point-radiance":
        discs = PointRadianceMethod(PointRadianceOptions(k=4), scene, cpu, generator)
        discs.harmonics = True
        return discs
    if name in ("layers", "channels"):
        reading = GaussiansKOptions(k=4, points=300, reading=name, features=4, width=8)
        other = GaussiansKMethod(reading, scene, cpu, generator)
        other.network_on = True
        return other
    method = KBufferMethod(replace(SMALL, k=4), scene, cpu, generator)
    method.network_on = name == "kbuffer network"
    return method


@pytest.mark.parametrize("k", [1, 3, None])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        *("cloud", "fake", "bpcr", "frepcr", "kbuffer", "kbuffer network"),
        *("gaussians", "layers", "channels", "point-radiance"),
    ],
)
def test_view_is_render_and_inspect(name: str, seen: bool, k: int | None) -> None:
    camera: Camera = cameras_around(3, 24)[1]
    camera = camera if seen else away(camera)
    it = renderer(name)
    picture, inside = it.view(camera, BACKGROUND, k)
    assert_equal(picture, it.render(camera, BACKGROUND, k))
    assert_equal(inside, it.inspect(camera, k))
    if name != "fake":
        assert bool(inside.kbuffer.valid.any()) is seen
    features = inside.extra.get("features")
    if name in ("cloud", "fake", "gaussians", "point-radiance"):
        assert features is None
    else:
        assert features is not None
        assert features.shape[:3] == inside.weight.shape and features.shape[3] == 4
        assert bool(features.any()) is seen


def test_features_are_those_of_the_points() -> None:
    method = make()
    inside = method.inspect(cameras_around(3, 24)[1])
    features, index = inside.extra["features"], inside.kbuffer.index
    valid = inside.kbuffer.valid
    assert torch.equal(features[valid], method.cloud.features.detach()[index[valid].long()])
    assert inside.feature_norm is not None and not features[~valid].any()
    torch.testing.assert_close(inside.feature_norm, features.norm(dim=-1))


def test_no_features_without_a_network() -> None:
    scene = glass_ball(400, size=24, views=4)
    options = replace(SMALL, network=False)
    generator = torch.Generator().manual_seed(0)
    method = KBufferMethod(options, scene, torch.device("cpu"), generator)
    assert "features" not in method.inspect(scene.views[0].camera).extra
