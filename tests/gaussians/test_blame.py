"""Densification: what a split keeps, where it puts the new rows, and who is blamed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from render.gaussians.cloud import Cloud
from render.gaussians.densify.blame import SPLIT_SHRINK, Blame, refine
from tests.methods.glass_ball import CPU

N = 40
NAMES = ("means", "quats", "log_scales", "logits", "sh0", "sh_rest", "features")
pytestmark = pytest.mark.usefixtures("one_thread")


class Case:
    """N random Gaussians, all alive, and an Adam that has taken two steps on them."""

    def __init__(self, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        shapes = {
            "means": (N, 3), "quats": (N, 4), "log_scales": (N, 3), "logits": (N,),
            "sh0": (N, 3), "sh_rest": (N, 8, 3), "features": (N, 4),
        }  # fmt: skip
        tensors = {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}
        tensors["logits"] = tensors["logits"].abs()
        self.cloud = Cloud(tensors)
        self.network = torch.nn.Parameter(torch.randn(5, generator=g))
        groups = [{"name": n, "params": [t], "lr": 1e-3} for n, t in self.cloud.tensors().items()]
        groups.append({"name": "network", "params": [self.network], "lr": 1e-3})
        self.optimizer = torch.optim.Adam(groups, fused=True)
        for _ in range(2):
            for tensor in (*self.cloud.tensors().values(), self.network):
                tensor.grad = torch.randn(tensor.shape, generator=g)
            self.optimizer.step()
        self.blame = Blame(N, CPU)
        self.blame.error += torch.rand(N, generator=g)
        self.blame.share += 1
        self.old = {name: t.detach().clone() for name, t in self.cloud.tensors().items()}
        self.moments = {n: dict(self.optimizer.state[t]) for n, t in self.cloud.tensors().items()}
        self.generator = g

    def kill(self, *rows: int) -> None:
        """Half of them unseen, the others transparent."""
        for i, row in enumerate(rows):
            if i % 2:
                self.blame.share[row] = 0
            else:
                self.cloud.logits.data[row] = -6
                self.old["logits"][row] = -6

    def refine(self, share: float, limit: int) -> int:
        return refine(self.cloud, self.blame, share, limit, self.optimizer, self.generator)

    def touched(self) -> Tensor:
        """Old rows whose size changed: parents and dead rows that were used again."""
        return (self.cloud.log_scales.detach()[:N] != self.old["log_scales"]).any(1)

    def second_children(self, moved: list[int]) -> list[int]:
        return [*moved, *range(N, len(self.cloud))]

    def parent_of(self, child: int) -> int:
        same = (self.cloud.sh_rest.detach()[child] == self.old["sh_rest"]).flatten(1).all(1)
        return int(same.nonzero()[0, 0])


def state(case: Case, name: str) -> dict[str, Tensor]:
    return case.optimizer.state[case.cloud.tensors()[name]]


@pytest.mark.parametrize("dead", [[], [3, 17], [0, 1, 2, 30, 39]])
def test_a_split_keeps_everything_but_place_and_size(dead: list[int]) -> None:
    case = Case()
    case.kill(*dead)
    count = case.refine(0.1, 10**6)
    assert count == 4 + len(dead) and len(case.cloud) == N + 4
    new = {name: t.detach() for name, t in case.cloud.tensors().items()}
    untouched = ~case.touched()
    assert int(untouched.sum()) == N - count - len(dead)
    for name in NAMES:
        assert torch.equal(new[name][:N][untouched], case.old[name][untouched]), name
    children = case.second_children(dead)
    parents = [case.parent_of(child) for child in children]
    assert len(set(parents)) == count and not set(parents) & set(dead)
    for name in ("quats", "logits", "sh0", "sh_rest", "features"):
        assert torch.equal(new[name][parents], case.old[name][parents]), name
        assert torch.equal(new[name][children], case.old[name][parents]), name
    shrunk = case.old["log_scales"][parents] - math.log(SPLIT_SHRINK)
    for rows in (parents, children):
        torch.testing.assert_close(new["log_scales"][rows], shrunk)
    middle = (new["means"][parents] + new["means"][children]) / 2
    torch.testing.assert_close(middle, case.old["means"][parents])
    apart = new["means"][parents] - new["means"][children]
    assert bool((apart.norm(dim=1) > 0).all())


def test_children_lie_inside_their_parent() -> None:
    """The offset is drawn from the Gaussian itself: flat parents have children in their plane."""
    case = Case()
    case.cloud.log_scales.data[:] = torch.tensor([0.0, 0.0, -20.0])
    case.cloud.quats.data[:] = torch.tensor([1.0, 1.0, 0.0, 0.0])  # z becomes -y
    case.refine(1.0, 10**6)
    parents = [case.parent_of(child) for child in range(N, 2 * N)]
    offset = (case.cloud.means.detach()[N:] - case.old["means"][parents]).abs()  # [N, 3]
    assert float(offset[:, 1].max()) < 1e-5
    assert 0.2 < float(offset[:, 0].mean()) < 0.6 and 0.2 < float(offset[:, 2].mean()) < 0.6


def test_moments_of_children() -> None:
    case = Case()
    dead = [5, 6]
    case.kill(*dead)
    case.refine(0.1, 10**6)
    children = case.second_children(dead)
    parents = [case.parent_of(child) for child in children]
    untouched = ~case.touched()
    for name in NAMES:
        after, before = state(case, name), case.moments[name]
        assert float(after["step"]) == 2
        for key in ("exp_avg", "exp_avg_sq"):
            assert after[key].shape == case.cloud.tensors()[name].shape
            assert torch.equal(after[key][:N][untouched], before[key][untouched])
        for rows in (parents, children):
            assert float(after["exp_avg"][rows].abs().max()) == 0
            assert torch.equal(after["exp_avg_sq"][rows], before["exp_avg_sq"][parents])


def test_optimizer_knows_the_new_leaves_only() -> None:
    case = Case()
    network = {k: v.clone() for k, v in case.optimizer.state[case.network].items()}
    case.refine(0.1, 10**6)
    leaves = [*case.cloud.tensors().values(), case.network]
    held = [p for group in case.optimizer.param_groups for p in group["params"]]
    assert [id(p) for p in held] == [id(p) for p in leaves]
    assert {id(p) for p in case.optimizer.state} == {id(p) for p in leaves}
    for key, value in network.items():
        assert torch.equal(case.optimizer.state[case.network][key], value)
    before = case.cloud.means.detach().clone()
    for leaf in leaves:
        leaf.grad = torch.ones_like(leaf)
    case.optimizer.step()
    assert bool((case.cloud.means.detach() != before).all())


@pytest.mark.parametrize(
    "limit, dead, length, count",
    [(10**6, 0, N + 4, 4), (N + 3, 0, N + 3, 3), (N, 0, N, 0), (N - 9, 0, N, 0), (N, 3, N, 3),
     (N + 1, 3, N + 1, 4), (10**6, N - 3, N, 3), (10**6, N, N, 0)],
)  # fmt: skip
def test_limit_and_dead_rows_first(limit: int, dead: int, length: int, count: int) -> None:
    case = Case()
    case.kill(*range(dead))
    assert case.refine(0.1, limit) == count
    assert len(case.cloud) == length
    assert case.touched()[:dead].sum() == min(dead, count)


def test_nothing_to_do_leaves_everything_alone() -> None:
    case = Case()
    leaves, before = case.cloud.tensors(), case.generator.get_state()
    assert case.refine(0.1, N) == 0
    assert all(case.cloud.tensors()[n] is t for n, t in leaves.items())
    assert torch.equal(case.generator.get_state(), before)


def test_parents_are_drawn_by_their_error() -> None:
    case = Case()
    case.blame.error = torch.zeros(N)
    case.blame.error[[7, 11, 23, 31]] = torch.tensor([1.0, 2.0, 3.0, 400.0])
    case.refine(0.1, 10**6)
    assert case.touched().nonzero()[:, 0].tolist() == [7, 11, 23, 31]


def test_sizes_that_overflow_are_not_split() -> None:
    case = Case()
    case.cloud.log_scales.data[: N // 2] = 200.0
    case.refine(0.5, 10**6)
    for name, tensor in case.cloud.tensors().items():
        assert bool(tensor.isfinite().all()), name


def test_same_generator_same_result() -> None:
    clouds = []
    for seed in (1, 1, 2):
        case = Case()
        case.kill(2, 9)
        case.generator = torch.Generator().manual_seed(seed)
        case.refine(0.2, 10**6)
        clouds.append(case.cloud.means)
    assert torch.equal(clouds[0], clouds[1]) and not torch.equal(clouds[0], clouds[2])
