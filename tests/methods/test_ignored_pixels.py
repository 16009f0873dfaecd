"""Pixels that a scene's masks leave out: whatever stands there, nothing is learnt from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.methods import method_class
from render.methods.targets import (
    coarse_view,
    content_box,
    counted_mean,
    leave_out,
    marked_target,
)
from render.scenes.types import Scene, View
from render.training.losses import dssim, l1
from render.training.trainer import Trainer
from tests.methods.glass_ball import assert_same, glass_ball

CPU = torch.device("cpu")
WHITE = torch.ones(3)
OPTIONS: dict[str, dict[str, Any]] = {
    "kbuffer": {
        "points": 300, "warm_up": 3, "refine_from": 5, "refine_every": 4, "network_from": 6,
        "ssim": 0.2, "coarse_steps": 3,
    },
    "gaussians": {"points": 300, "ssim": 0.2, "coarse_steps": 3},
    "gaussians-k": {"points": 300, "ssim": 0.2, "coarse_steps": 3},
    "bpcr": {
        "k": 2, "dim": 4, "mlp_width": 16, "kfn_width": 8, "unet": "pp", "unet_levels": 2,
        "crop": 24, "lpips_weight": 0.0,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def hole(view: View) -> Tensor:
    """[H, W]: the lower left quarter, in the middle of the object."""
    mask = torch.zeros(view.camera.height, view.camera.width, dtype=torch.bool)
    mask[view.camera.height // 2 :, : view.camera.width // 2] = True
    return mask


def damaged(scene: Scene, seed: int, masked: bool) -> Scene:
    """Noise of this seed, colour and alpha, in the holes of all photographs."""

    def damage(view: View) -> View:
        pixels, mask = view.pixels().clone(), hole(view)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randint(256, pixels.shape, generator=generator, dtype=torch.uint8)
        pixels[mask] = noise[mask]
        ignored = (lambda: mask) if masked else None
        return View(view.camera, lambda: pixels, view.name, ignored=ignored)

    return replace(scene, views=[damage(view) for view in scene.views])


def learnt(name: str, scene: Scene, steps: int = 9) -> dict[str, Any]:
    """What the method is after a few steps."""
    cls = method_class(name)
    options = replace(cls.Options(), **OPTIONS[name])
    torch.manual_seed(0)
    method = cls(options, scene, CPU, torch.Generator().manual_seed(0))
    trainer = Trainer(method, scene, 0)
    for _ in range(steps):
        report = trainer.step()
        assert report.skipped is None and math.isfinite(report.psnr)
    return method.state_dict()


@pytest.mark.parametrize("name", OPTIONS)
def test_what_stands_under_the_mask_changes_nothing(name: str) -> None:
    scene = glass_ball(300, size=40, views=4)
    first, second = (learnt(name, damaged(scene, seed, masked=True)) for seed in (1, 2))
    assert_same(first, second)
    with pytest.raises(AssertionError):  # without a mask it does change something
        assert_same(learnt(name, damaged(scene, 1, masked=False)), first)


def picture(seed: int) -> Tensor:
    return torch.rand(30, 26, 3, generator=torch.Generator().manual_seed(seed))


def marked(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(mask[..., None], math.nan)


@pytest.mark.parametrize("loss", [l1, dssim])
def test_no_gradient_under_the_mask_and_none_from_it(loss: Any) -> None:
    mask = torch.zeros(30, 26, dtype=torch.bool)
    mask[4:15, 10:22] = True
    image = picture(0).requires_grad_()
    rgb, target, share = leave_out(image, marked(picture(1), mask))
    assert share == pytest.approx(1 - 11 * 12 / (30 * 26))
    loss(rgb, target).backward()
    assert image.grad is not None
    assert not image.grad[mask].any() and image.grad.isfinite().all()
    far = image.grad[16:, :9]
    assert far.abs().min() > 0 or (loss is dssim and far.any())


def test_far_from_the_mask_gradients_are_those_without_one() -> None:
    """Each pixel weighs the same, whatever share of its picture is ignored."""
    mask = torch.zeros(30, 26, dtype=torch.bool)
    mask[:3, :3] = True
    for loss in (l1, dssim):
        gradients = []
        for target in (picture(1), marked(picture(1), mask)):
            image = picture(0).requires_grad_()
            rgb, target, _ = leave_out(image, target)
            loss(rgb, target).backward()
            assert image.grad is not None
            gradients.append(image.grad)
        assert torch.allclose(gradients[0][13:, 13:], gradients[1][13:, 13:], atol=1e-9)


def test_without_a_mask_nothing_is_copied() -> None:
    image, target = picture(0), picture(1)
    assert leave_out(image, target) == (image, target, 1.0)


def test_errors_are_means_over_what_counts() -> None:
    mask = torch.zeros(30, 26, dtype=torch.bool)
    mask[:, :13] = True
    rgb, target, share = leave_out(picture(0), marked(picture(1), mask))
    mse = counted_mean(float((rgb - target).square().mean()), share)
    assert mse == pytest.approx(float((picture(0) - picture(1))[:, 13:].square().mean()))
    rgb, target, share = leave_out(picture(0), marked(picture(1), torch.ones_like(mask)))
    assert share == 0 and counted_mean(0.0, share) == 0 and torch.equal(rgb, target)


def test_a_block_with_an_ignored_pixel_is_ignored() -> None:
    camera = Camera.look_at((3.0, 1.0, 2.0), (0.0, 0.0, 0.0), width=16, height=12)
    mask = torch.zeros(12, 16, dtype=torch.bool)
    mask[5, 9] = True
    pixels = torch.full((12, 16, 4), 200, dtype=torch.uint8)
    pixels[5, 9] = 0
    view = View(camera, lambda: pixels, "a", has_alpha=False, ignored=lambda: mask)
    assert marked_target(view, WHITE).isnan().any(-1).equal(mask)
    _, small = coarse_view(view, 2, WHITE)
    assert small.isnan().any(-1).nonzero().tolist() == [[1, 2]]
    assert small[~small.isnan()].unique().tolist() == pytest.approx([200 / 255])


def test_what_is_ignored_is_no_content() -> None:
    camera = Camera.look_at((3.0, 1.0, 2.0), (0.0, 0.0, 0.0), width=100, height=100)
    pixels = torch.zeros(100, 100, 4, dtype=torch.uint8)
    pixels[20:30, 40:60, 3] = 255
    pixels[90:, :, 3] = 255
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[85:] = True
    view = View(camera, lambda: pixels, "a", ignored=lambda: mask)
    assert content_box(view) == pytest.approx((0.17, 0.33, 0.37, 0.63))
