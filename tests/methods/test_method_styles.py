"""Styles of the methods with Gaussians: looking never changes what is trained or measured."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from render.export.styles import SolidRenderer, Style, styled, with_values
from render.methods import method_class
from render.methods.splatting import SplattingMethod
from render.training.trainer import Trainer
from tests.methods.glass_ball import CPU, WHITE, assert_same, glass_ball

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS: dict[str, dict[str, Any]] = {
    "kbuffer": {"network_from": 2, "warm_up": 1, "features": 4},
    "gaussians": {},
    "gaussians-k": {"network_from": 2, "width": 8},
}


def trainer(name: str, **settings: Any) -> tuple[Trainer, SplattingMethod]:
    cls, scene = method_class(name), glass_ball(200)
    shared = {"points": 200, "refine_from": 3, "refine_every": 2, "k": 4}
    options = replace(cls.Options(), **shared, **SETTINGS[name] | settings)  # type: ignore[arg-type]
    method = cls(options, scene, CPU, torch.Generator().manual_seed(0))
    assert isinstance(method, SplattingMethod)
    return Trainer(method, scene, 0), method


@pytest.mark.parametrize("name", SETTINGS)
def test_looking_in_any_style_leaves_training_alone(name: str) -> None:
    watched, method = trainer(name)
    alone, other = trainer(name)
    camera = watched.scene.views[0].camera
    styles = [Style(s, shape) for shape in ("splat", "ellipse", "point") for s in (0.5, 1.0)]
    for _ in range(8):
        assert watched.step().loss == alone.step().loss
        state, picture = copy.deepcopy(method.state_dict()), method.render(camera, WHITE).rgb
        for style in styles:
            render, inside = styled(method, style).view(camera, WHITE, 3)
            assert render.rgb.isfinite().all() and not render.rgb.requires_grad
            with_values(inside, method.cloud, camera, ("normal", "opacity"))
        assert_same(state, method.state_dict())
        assert torch.equal(method.render(camera, WHITE).rgb, picture)
    assert_same(method.state_dict(), other.state_dict())
    assert method.events == other.events and len(method.events) >= 2


@pytest.mark.parametrize("name", SETTINGS)
def test_styles_of_a_method(name: str) -> None:
    training, method = trainer(name)
    training.step()
    camera = training.scene.views[0].camera.resize(160, 160)  # or the low-pass sets the size
    assert styled(method, Style()) is method
    plain = method.render(camera, WHITE)
    thin = styled(method, Style(0.2)).render(camera, WHITE)
    assert thin.alpha is not None and plain.alpha is not None
    assert thin.alpha.mean() < 0.8 * plain.alpha.mean(), "smaller ones cover less"
    solid = styled(method, Style(shape="ellipse"))
    assert isinstance(solid, SolidRenderer) and solid.k == method.k
    alpha = solid.render(camera, WHITE).alpha
    assert alpha is not None and ((alpha == 0) | (alpha > 0.99)).all()


def test_ellipsoids_of_channels_without_colours() -> None:
    """Even where only a network knows what the picture is."""
    training, method = trainer("gaussians-k", reading="channels", features=8)
    training.step()
    camera = training.scene.views[0].camera
    image = styled(method, Style(shape="ellipse")).render(camera, WHITE).rgb
    assert image.shape == (camera.height, camera.width, 3) and image.std() > 0.01
