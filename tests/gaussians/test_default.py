"""Adaptive density control: who is cloned, split, removed; opacities; limits; state."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from render.gaussians.densify.default import SPLIT_SHRINK, DefaultDensifier, DefaultOptions
from tests.gaussians.case import Case

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
OPTIONS = DefaultOptions(first=10, every=10, last=100, reset_every=30)
N = 40
SIZE = (200, 100)


def densifier(options: DefaultOptions = OPTIONS, radius: float = 1.0) -> DefaultDensifier:
    return DefaultDensifier(options, N, radius, CPU)


def pull(d: DefaultDensifier, rows: list[int], gradient: float = 1.0, times: int = 1) -> None:
    """Gradients on the screen of some Gaussians, in every one of ``times`` pictures."""
    splats = torch.zeros(N, 6)
    splats[rows, 0] = gradient
    for _ in range(times):
        d.observe(splats, torch.ones(N, dtype=torch.bool), SIZE, None)


def test_small_ones_are_cloned_and_large_ones_split() -> None:
    case, d = Case(), densifier()
    case.cloud.log_scales.data[:20] = math.log(0.001)  # small
    case.cloud.log_scales.data[20:] = math.log(0.05)  # large
    old = case.now() | {}
    pull(d, [3, 5, 25])
    event = d.after_step(10, case.cloud, case.optimizer, case.generator)
    assert event is not None and (event.before, event.after) == (N, N + 3)
    assert event.note == "1 split, 2 cloned, 0 removed"
    new = case.now()
    assert torch.equal(new["means"][N : N + 2], old["means"][[3, 5]])  # copies in the same place
    for row in (25, N + 2):
        assert torch.equal(new["quats"][row], old["quats"][25])
        torch.testing.assert_close(
            new["log_scales"][row], old["log_scales"][25] - math.log(SPLIT_SHRINK)
        )
        assert 0 < float((new["means"][row] - old["means"][25]).norm()) < 0.5
    others = [i for i in range(N) if i != 25]
    for name in new:
        assert torch.equal(new[name][others], old[name][others]), name


def test_the_gradient_is_a_mean_over_the_pictures_that_saw_it_in_half_picture_widths() -> None:
    case, d = Case(), densifier(replace(OPTIONS, gradient=1.0))
    splats = torch.zeros(N, 6)
    splats[0, 0], splats[1, 1], splats[2, 0] = 0.0101, 0.0101, 0.021
    seen = torch.ones(N, dtype=torch.bool)
    d.observe(splats, seen, SIZE, None)  # x: half of 200, y: half of 100
    seen[2] = True
    splats[2, 0] = 0.0
    d.observe(splats, seen, SIZE, None)  # the mean of 2.1 and 0
    event = d.after_step(10, case.cloud, case.optimizer, case.generator)
    assert event is not None and event.after == N + 2  # 0 and 2; 1 only has 0.5
    seen = torch.zeros(N, dtype=torch.bool)
    assert not bool(d.pull.any()) and d.pull.shape == (N + 2,)


def test_faint_broken_and_huge_ones_are_removed() -> None:
    case, d = Case(), densifier(replace(OPTIONS, reset_every=15))
    case.cloud.logits.data[:3] = -6.0
    case.cloud.means.data[3, 1] = math.nan
    case.cloud.log_scales.data[4] = math.log(0.5)
    event = d.after_step(10, case.cloud, case.optimizer, case.generator)
    assert event is not None and event.after == N - 4  # before opacities were lowered, size is free
    event = d.after_step(20, case.cloud, case.optimizer, case.generator)
    assert event is not None and event.after == N - 5


def test_opacities_are_lowered_but_not_at_step_zero() -> None:
    """gsplat 1.2 lowers them at step 0 too, so that 0.1 at the start becomes 0.01."""
    case, d = Case(), densifier(replace(OPTIONS, first=50))
    assert d.after_step(0, case.cloud, case.optimizer, case.generator) is None
    assert torch.equal(case.cloud.logits, case.old["logits"])
    event = d.after_step(30, case.cloud, case.optimizer, case.generator)
    assert event is not None and event.note == "opacities lowered"
    torch.testing.assert_close(case.cloud.logits.sigmoid(), torch.full((N,), 0.01))
    state = case.optimizer.state[case.cloud.logits]
    assert not bool(state["exp_avg"].any()) and not bool(state["exp_avg_sq"].any())
    assert bool(case.optimizer.state[case.cloud.means]["exp_avg"].any())


def test_never_more_than_the_limit_and_the_strongest_first() -> None:
    case, d = Case(), densifier(replace(OPTIONS, limit=N + 2))
    pull(d, [1, 2, 3], 1.0)
    pull(d, [7, 9], 2.0)
    event = d.after_step(10, case.cloud, case.optimizer, case.generator)
    assert event is not None and event.after == N + 2
    assert torch.equal(case.now()["sh0"][N:], case.old["sh0"][[7, 9]])


@pytest.mark.parametrize("step", [9, 11, 100, 5000])
def test_nothing_happens_between_and_after(step: int) -> None:
    case, d = Case(), densifier(replace(OPTIONS, reset_every=10**6))
    pull(d, [1, 2, 3])
    assert d.after_step(step, case.cloud, case.optimizer, case.generator) is None
    assert len(case.cloud) == N


def test_a_resumed_densifier_goes_on() -> None:
    one, other, first, second = densifier(), densifier(), Case(), Case()
    pull(one, [4, 8, 30], times=3)
    other.load_state_dict(one.state_dict())
    for d, case in ((one, first), (other, second)):
        pull(d, [4, 11])
        d.after_step(10, case.cloud, case.optimizer, case.generator)
    for name in first.now():
        assert torch.equal(first.now()[name], second.now()[name])
