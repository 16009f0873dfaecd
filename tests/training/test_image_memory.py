"""Training with less memory than photographs: the same steps, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from render.scenes import types
from render.scenes.load import load_scene
from render.scenes.photos.imagecache import ImageCache
from render.training.sampler import ViewSampler
from render.training.trainer import Trainer
from tests.fakes import FakeMethod, FakeOptions

PICTURE = 24 * 24 * 4  # bytes


def train(
    folder: Path, cache: ImageCache, monkeypatch: pytest.MonkeyPatch, steps: int = 20
) -> dict[str, Any]:
    monkeypatch.setattr(types, "CACHE", cache)
    scene = load_scene(folder, needs_points=False)
    generator = torch.Generator().manual_seed(0)
    method = FakeMethod(FakeOptions(), scene, torch.device("cpu"), generator)
    trainer = Trainer(method, scene, 0)
    for _ in range(steps):
        trainer.step()
    assert cache.used <= max(cache.budget or 0, PICTURE)
    return trainer.state_dict() | {"seconds": 0}


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [x for key in value for x in (key, *flat(value[key]))]
    if isinstance(value, (list, tuple)):
        return [x for item in value for x in flat(item)]
    return [value.tolist()] if isinstance(value, torch.Tensor) else [value]


def test_what_is_learnt_does_not_depend_on_what_is_kept(
    tiny_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy, tight = ImageCache(10**6), ImageCache(2 * PICTURE)
    results = [flat(train(tiny_scene, cache, monkeypatch)) for cache in (roomy, tight)]
    assert results[0] == results[1]
    assert roomy.forgotten == 0 and tight.forgotten > 6


def test_the_sampler_tells_what_comes_and_draws_nothing_for_it() -> None:
    sampler = ViewSampler(5, torch.Generator().manual_seed(1))
    assert sampler.coming(3) == []  # the order of an epoch is drawn with its first view
    first = sampler.next()
    told = sampler.coming(9)
    assert len(told) == 4 and sorted([first, *told]) == [0, 1, 2, 3, 4]
    assert [sampler.next() for _ in range(4)] == told
    assert sampler.coming(1) == []
