"""Pictures of `kbuffer`: layers, shares, depth, backgrounds, every size, no state written."""

from __future__ import annotations

import copy

import pytest
import torch

from render.camera import Camera
from tests.methods.glass_ball import (
    SMALL,
    WHITE,
    Grown,
    assert_same,
    away,
    make,
    without_network,
)
from tests.scenes.synthetic import cameras_around

BLACK = torch.zeros(3)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, None])
def test_picture_is_the_composite_of_what_the_inspector_shows(k: int | None) -> None:
    method = make()  # colours are below 1 here: the inspector's are clamped
    camera = cameras_around(3, 33)[1]
    background = torch.tensor([0.2, 0.9, 0.4])
    picture, inside = method.render(camera, background, k), method.inspect(camera, k)
    assert picture.alpha is not None and picture.depth is not None
    assert inside.kbuffer.k == inside.weight.shape[-1] == (k or SMALL.k)
    rgb = (inside.weight[..., None] * inside.color).sum(2)
    rgb = rgb + (1 - picture.alpha)[..., None] * background
    torch.testing.assert_close(picture.rgb, rgb, atol=2e-6, rtol=0)
    mean = (inside.weight * inside.kbuffer.depth).sum(-1) / picture.alpha.clamp_min(1e-6)
    torch.testing.assert_close(picture.depth, mean)


def test_shares_sum_to_alpha(grown: Grown) -> None:
    method, scene, _ = grown
    camera = scene.views[2].camera
    alpha = method.render(camera, WHITE).alpha
    assert alpha is not None and float(alpha.max()) > 0.9 and bool((alpha == 0).any())
    for k in (1, 4, 8):
        inside = method.inspect(camera, k)
        assert bool((inside.weight >= 0).all())
        assert bool((inside.weight > 0).eq(inside.kbuffer.valid).all())
        torch.testing.assert_close(inside.weight.sum(-1), alpha, atol=1e-6, rtol=0)
        assert bool((inside.color >= 0).all()) and bool((inside.color <= 1).all())
        assert inside.feature_norm is not None
        assert inside.feature_norm.shape == inside.weight.shape


def test_depth_lies_within_the_scene(grown: Grown) -> None:
    method, scene, _ = grown
    picture = method.render(scene.views[2].camera, WHITE)  # 4 away from a ball of 0.9
    assert picture.depth is not None and picture.alpha is not None
    assert bool((picture.depth[picture.alpha == 0] == 0).all())
    seen = picture.depth[picture.alpha > 0.5]
    assert 2.9 < float(seen.min()) < 3.5 and 3 < float(seen.max()) < 5.1


def test_pictures_write_no_state(grown: Grown) -> None:
    method, scene, _ = grown
    before = copy.deepcopy(method.state_dict())
    random = torch.get_rng_state()
    camera = scene.views[1].camera
    first = method.render(camera, WHITE)
    method.render(camera, BLACK, 2)
    method.render_all(camera, WHITE)
    method.inspect(camera, 3)
    assert_same(before, method.state_dict())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(first.rgb, method.render(camera, WHITE).rgb)
    assert not first.rgb.requires_grad


def test_background_shows_where_the_picture_is_transparent(grown: Grown) -> None:
    method, scene, _ = grown
    camera = scene.views[5].camera
    for one in (method, without_network(method)):
        white, black = one.render(camera, WHITE), one.render(camera, BLACK)
        assert white.alpha is not None and torch.equal(white.alpha, black.alpha)  # type: ignore[arg-type]
        empty = white.alpha == 0
        assert bool((white.rgb[empty] == 1).all()) and bool((black.rgb[empty] == 0).all())
    # Without the network each pixel stands alone.
    change = (white.rgb - black.rgb).abs().amax(-1)
    assert bool((change <= 1 - white.alpha + 1e-6).all())
    assert float(change[white.alpha > 0.99].max()) < 0.01 and float(change.max()) == 1


def test_nothing_visible_is_the_background(grown: Grown) -> None:
    method, scene, _ = grown
    background = torch.tensor([0.1, 0.5, 0.9])
    picture = method.render(away(scene.views[0].camera), background)
    assert picture.alpha is not None and picture.depth is not None
    assert torch.equal(picture.rgb, background.expand(48, 48, 3))
    assert not bool(picture.alpha.any()) and not bool(picture.depth.any())
    inside = method.inspect(away(scene.views[0].camera))
    assert not bool(inside.kbuffer.valid.any()) and not bool(inside.weight.any())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 3), (47, 31), (64, 17)])
def test_cameras_of_any_size(grown: Grown, size: tuple[int, int]) -> None:
    method = grown[0]
    width, height = size
    camera = Camera.look_at((4.0, 1.0, 1.0), (0.0, 0.0, 0.0), width=width, height=height)
    for k in (1, None):
        picture = method.render(camera, WHITE, k)
        assert picture.rgb.shape == (height, width, 3)
        assert picture.alpha is not None and picture.alpha.shape == (height, width)
        assert picture.depth is not None and picture.depth.shape == (height, width)
        assert float(picture.rgb.min()) >= 0 and float(picture.rgb.max()) <= 1
        assert float(picture.alpha[height // 2, width // 2]) > 0.5
        assert method.inspect(camera, k).color.shape == (height, width, k or 8, 3)
