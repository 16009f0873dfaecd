"""MCMC densification: copies keep the picture, the dead move, noise shakes the faint."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from render.gaussians.densify.mcmc import McmcDensifier, McmcOptions, split_evenly
from tests.gaussians.case import Case

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = McmcOptions(first=10, every=10, last=100, noise=0.0)
N = 40


def equation_9(opacity: float, count: int) -> float:
    """The factor on the size, as the paper has it."""
    new = 1 - (1 - opacity) ** (1 / count)
    total = sum(
        math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1)
        for i in range(1, count + 1)
        for k in range(i)
    )
    return opacity / total


@pytest.mark.parametrize("opacity", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("count", [1, 2, 5, 20, 51])
def test_copies_have_the_opacity_of_one(opacity: float, count: int) -> None:
    new, factor = split_evenly(torch.tensor([opacity]), torch.tensor([count]))
    assert 1 - (1 - float(new)) ** count == pytest.approx(opacity, rel=1e-4)
    assert float(factor) == pytest.approx(equation_9(opacity, count), rel=1e-4)


def test_one_alone_stays_as_it_is() -> None:
    opacity = torch.rand(9, generator=torch.Generator().manual_seed(0)) * 0.9
    new, factor = split_evenly(opacity, torch.ones(9, dtype=torch.int64))
    torch.testing.assert_close(new, opacity)
    torch.testing.assert_close(factor, torch.ones(9))


def test_the_dead_move_onto_the_living_and_some_are_added() -> None:
    case, d = Case(N), McmcDensifier(OPTIONS, 1.0)
    case.cloud.logits.data[:5] = -8.0
    old = case.now() | {}
    event = d.after_step(10, case.cloud, case.optimizer, case.generator)
    assert event is not None and (event.before, event.after) == (N, N + 2)
    assert event.note == "5 moved, 2 added"
    new = case.now()
    assert float(new["logits"].sigmoid().min()) >= 0.004
    places = torch.cdist(new["means"][[0, 1, 2, 3, 4, N, N + 1]], old["means"])
    parents = places.argmin(1)
    assert float(places.min(1).values.max()) == 0 and int(parents.min()) >= 5
    for parent in parents.unique().tolist():
        together = (new["means"] == old["means"][parent]).all(1)
        o = float(old["logits"][parent].sigmoid())
        assert 1 - float((1 - new["logits"][together].sigmoid()).prod()) == pytest.approx(
            o, abs=1e-4
        )
        fresh = case.optimizer.state[case.cloud.means]["exp_avg"][together]
        assert not bool(fresh.any())
    alone = [i for i in range(5, N) if i not in parents.tolist()]
    for name in new:
        assert torch.equal(new[name][alone], old[name][alone]), name


def test_the_limit_holds_and_all_dead_is_no_error() -> None:
    case = Case(N)
    McmcDensifier(replace(OPTIONS, limit=N + 1), 1.0).after_step(
        10, case.cloud, case.optimizer, case.generator
    )
    assert len(case.cloud) == N + 1
    case.cloud.logits.data[:] = -9.0
    event = McmcDensifier(OPTIONS, 1.0).after_step(20, case.cloud, case.optimizer, case.generator)
    assert event is None and len(case.cloud) == N + 1


def test_noise_shakes_the_faint_inside_their_own_shape() -> None:
    case, d = Case(N), McmcDensifier(replace(OPTIONS, noise=1e3), 1.0)
    case.cloud.logits.data[:20] = -7.0
    case.cloud.logits.data[20:] = 3.0
    case.cloud.log_scales.data[:] = torch.tensor([0.0, -12.0, -12.0])
    case.cloud.quats.data[:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    before = case.now()["means"].clone()
    d.after_step(1, case.cloud, case.optimizer, case.generator)
    step = (case.now()["means"] - before).abs()
    assert float(step[:20, 0].mean()) > 0.05 and float(step[:, 1:].max()) < 1e-6
    assert float(step[20:].max()) < 1e-6


def test_regularisers_are_means_and_have_gradients() -> None:
    case, d = Case(N), McmcDensifier(OPTIONS, 2.0)
    terms = d.regularisation(case.cloud)
    assert {name: weight for name, (weight, _) in terms.items()} == {"opacity": 0.01, "scale": 0.01}
    torch.testing.assert_close(terms["opacity"][1], case.cloud.logits.sigmoid().mean())
    torch.testing.assert_close(terms["scale"][1], case.cloud.log_scales.exp().mean() / 2)
    (gradient,) = torch.autograd.grad(terms["scale"][1], case.cloud.log_scales)
    assert bool((gradient > 0).all())
