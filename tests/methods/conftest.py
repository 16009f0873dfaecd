"""Fixtures of the method tests."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from render.methods.kbuffer import KBufferMethod
from tests.methods.glass_ball import SMALL, Grown, assert_same, glass_ball, trained


@pytest.fixture(scope="session")
def grown() -> Iterator[Grown]:
    """`kbuffer` after 150 steps on a volume of points. Tests must leave it as it is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scene = glass_ball(1200, size=48, views=24)
    assert scene.points is not None
    scene = replace(scene, points=replace(scene.points, fills_volume=True))
    trainer, losses = trained(150, replace(SMALL, points=1200), scene)
    torch.set_num_threads(threads)
    method = trainer.method
    assert isinstance(method, KBufferMethod)
    before = copy.deepcopy(method.state_dict())
    yield method, scene, losses
    assert_same(before, method.state_dict())
