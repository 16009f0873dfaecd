"""Densification: what a split keeps, where it puts the new rows, and who is blamed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians
from render.methods.kbuffer import method as method_module
from render.methods.kbuffer.cloud import NAMES, Cloud
from render.methods.kbuffer.method import KBufferMethod
from render.methods.kbuffer.refine import SPLIT_SHRINK, Blame, refine
from render.methods.kbuffer.targets import training_window
from render.training.losses import l1
from render.training.sampler import ViewSampler
from tests.methods.glass_ball import CPU, SMALL, WHITE, glass_ball, run, trained

N = 40
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
    offset = case.cloud.means.detach()[N:] - case.cloud.means.detach()[:N]
    assert offset.shape == (N, 3)
    assert float(offset[:, 1].abs().max()) < 1e-5 < float(offset[:, [0, 2]].abs().min())


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


# ------------------------------------------------------------------ who is blamed
class Step:
    """One training step up to the gradients, and what it was about."""

    def __init__(self, method: KBufferMethod, step: int = 0) -> None:
        windows: list[tuple[Camera, Tensor]] = []

        def window(*arguments: Any) -> tuple[Camera, Tensor]:
            windows.append(training_window(*arguments))
            return windows[-1]

        generator = torch.Generator().manual_seed(4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(method_module, "training_window", window)
            sampler = ViewSampler(len(method.views), generator)
            self.loss = method.train_step(step, sampler, generator).terms["l1"]
        self.loss.backward()
        self.camera, self.target = windows[0]
        assert method._probe is not None and method._probe.grad is not None
        self.probe = method._probe.grad
        self.gradients = {n: t.grad for n, t in method.cloud.tensors().items()}


@pytest.fixture(params=[False, True], ids=["composite", "network"])
def method(request: pytest.FixtureRequest) -> KBufferMethod:
    """Trained a little, without and with the network at work; no layers are dropped."""
    options = replace(SMALL, network_from=6 if request.param else 10**6, layer_dropout=0.0)
    out = trained(12, options, glass_ball(300, 24))[0].method
    assert isinstance(out, KBufferMethod) and out.network_on == request.param
    return out


def picture(method: KBufferMethod, camera: Camera) -> Tensor:
    return method._picture(method._layers(camera, SMALL.k), WHITE)


def test_blame_is_the_sum_of_shares_times_error(method: KBufferMethod) -> None:
    step = Step(method, step=12)
    inside = method.inspect(step.camera)
    error = (picture(method, step.camera).detach() - step.target).abs().mean(-1)  # [H, W]
    expected = torch.zeros(len(method.cloud), 2, dtype=torch.float64)
    index = inside.kbuffer.index
    for row, column, layer in (index >= 0).nonzero().tolist():
        share = float(inside.weight[row, column, layer])
        expected[int(index[row, column, layer])] += torch.tensor(
            [share * float(error[row, column]), share], dtype=torch.float64
        )
    assert float(expected[:, 1].sum()) == pytest.approx(float(inside.weight.sum()), rel=1e-5)
    torch.testing.assert_close(step.probe.double(), expected, rtol=1e-4, atol=1e-5)


def test_blame_and_gradients_are_those_of_the_torch_twin(
    method: KBufferMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gaussians._native() is None:
        pytest.skip("no compiler here: the twin runs anyway")
    fast = Step(method, step=12)
    for tensor in method.cloud.tensors().values():
        tensor.grad = None
    monkeypatch.setattr(gaussians, "_native", lambda: None)
    slow = Step(method, step=12)
    torch.testing.assert_close(fast.probe, slow.probe, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fast.loss, slow.loss, rtol=1e-4, atol=0)


def test_probe_changes_neither_loss_nor_gradients(method: KBufferMethod) -> None:
    step = Step(method, step=12)
    for tensor in method.cloud.tensors().values():
        tensor.grad = None
    plain = l1(picture(method, step.camera), step.target)
    plain.backward()
    assert float(plain.detach()) == float(step.loss.detach())
    for name, tensor in method.cloud.tensors().items():
        ours = step.gradients[name]
        if ours is None or tensor.grad is None:
            assert ours is tensor.grad, name
        else:
            torch.testing.assert_close(ours, tensor.grad, rtol=1e-5, atol=1e-9)


def test_blame_adds_up_and_starts_anew_after_each_refinement() -> None:
    options = replace(SMALL, refine_from=4, refine_every=3, refine_until=9)
    trainer, _ = trained(4, options, glass_ball(300, 24))
    method = trainer.method
    assert isinstance(method, KBufferMethod)
    sums = [float(method.blame.share.sum())]
    for _ in range(7):
        run(trainer, 1)
        sums.append(float(method.blame.share.sum()))
        assert method.blame.error.shape == method.blame.share.shape == (len(method.cloud),)
    assert sums[0] > 0 and sums[1] == sums[4] == 0  # after steps 4 and 7
    assert 0 < sums[2] < sums[3] and 0 < sums[5]
    assert sums[5:] == [sums[5]] * 3  # nothing is collected from refine_until on


def test_gaussians_and_optimizer_agree_during_a_whole_training() -> None:
    options = replace(SMALL, growth=1.3, refine_from=5, refine_every=4, network_from=20)
    trainer, _ = trained(0, options, glass_ball(300, 24))
    method = trainer.method
    assert isinstance(method, KBufferMethod)
    limit, lengths = int(1.3 * options.points), [len(method.cloud)]
    for _ in range(60):
        run(trainer, 1)
        lengths.append(len(method.cloud))
        held = {g["name"]: g["params"] for g in trainer.optimizer.param_groups}
        for name, tensor in method.cloud.tensors().items():
            assert len(held[name]) == 1 and held[name][0] is tensor
            assert tensor.shape[0] == lengths[-1] and bool(tensor.isfinite().all())
            if name in ("means", "logits", "sh0"):
                moments = trainer.optimizer.state[tensor]
                assert moments["exp_avg"].shape == moments["exp_avg_sq"].shape == tensor.shape
                assert float(moments["step"]) == trainer.step_count
    assert lengths == sorted(lengths) and lengths[-1] == max(lengths) <= limit
    assert len(set(lengths)) > 3
