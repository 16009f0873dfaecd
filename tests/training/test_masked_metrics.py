"""PSNR, SSIM and evaluation where masks say which pixels count."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from render.scenes.load import load_scene
from render.training.evaluation import evaluate, house_protocol
from render.training.metrics import psnr, ssim, ssim_map
from tests.fakes import FakeMethod, FakeOptions


def picture(seed: int) -> Tensor:
    return torch.rand(40, 32, 3, generator=torch.Generator().manual_seed(seed))


def test_only_pixels_that_count() -> None:
    image, target = picture(0), picture(1)
    mask = torch.zeros(40, 32, dtype=torch.bool)
    mask[:15] = True
    assert psnr(image, target, mask) == pytest.approx(psnr(image[15:], target[15:]))
    # Windows are 11 high: the first that touches no ignored row begins at row 15.
    assert ssim(image, target, mask) == pytest.approx(float(ssim_map(image, target)[15:].mean()))
    target[mask] = 0.0
    assert psnr(image, target, mask) == pytest.approx(psnr(image[15:], target[15:]))
    assert ssim(image, target, mask) == pytest.approx(ssim(image[15:], target[15:]), abs=1e-6)


def test_where_nothing_counts_there_is_no_number() -> None:
    mask = torch.ones(40, 32, dtype=torch.bool)
    assert math.isnan(psnr(picture(0), picture(1), mask))
    assert math.isnan(ssim(picture(0), picture(1), mask))
    mask[:] = False
    mask[::8, ::8] = True  # a hole in every window
    assert math.isnan(ssim(picture(0), picture(1), mask))
    assert math.isfinite(psnr(picture(0), picture(1), mask))


def test_evaluation_leaves_them_out_and_says_so(tiny_scene: Path) -> None:
    scene = load_scene(tiny_scene, needs_points=False)
    method = FakeMethod(FakeOptions(), scene, torch.device("cpu"), torch.Generator().manual_seed(0))
    protocol = house_protocol(scene.background)
    views = scene.split("test")
    plain = evaluate(method, views, protocol)
    assert plain.to_json()["protocol"]["mask"] == "none"
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[:9] = True
    everything = torch.ones(24, 24, dtype=torch.bool)

    def damaged() -> Tensor:
        pixels = views[0].pixels().clone()
        pixels[mask] = 7
        return pixels

    first = replace(views[0], load=damaged, ignored=lambda: mask)
    last = replace(views[2], ignored=lambda: everything)
    result = evaluate(method, [first, views[1], last], protocol)
    assert result.to_json()["protocol"]["mask"] == "ignored"
    clean = evaluate(method, [replace(views[0], ignored=lambda: mask)], protocol)
    assert result.per_image[0] == clean.per_image[0]
    assert result.per_image[1] == plain.per_image[1]
    assert math.isnan(result.per_image[2].psnr)
    mean = (result.per_image[0].psnr + result.per_image[1].psnr) / 2
    assert result.psnr == pytest.approx(mean)
    assert result.to_json()["per_image"][2]["psnr"] is None
