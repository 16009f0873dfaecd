"""Who is blamed for an error: the probe channels count right, and change nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians
from render.methods import splatting as method_module
from render.methods.kbuffer.method import KBufferMethod
from render.methods.targets import training_window
from render.training.losses import l1
from render.training.sampler import ViewSampler
from tests.methods.glass_ball import SMALL, WHITE, glass_ball, run, trained

pytestmark = pytest.mark.usefixtures("one_thread")


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
            out = method.train_step(step, sampler, generator)
        assert out.probe is not None and float(out.probe) == 0
        self.loss = out.terms["l1"]
        (self.loss + out.probe).backward()
        self.camera, self.target = windows[0]
        assert method._probe is not None and method._probe.grad is not None
        self.probe = method._probe.grad
        self.gradients = {n: t.grad for n, t in method.cloud.tensors().items()}


@pytest.fixture(params=[False, True], ids=["composite", "network"])
def method(request: pytest.FixtureRequest) -> KBufferMethod:
    """Trained a little, without and with the network at work; no layers are dropped."""
    options = replace(
        SMALL, warm_up=3, network_from=6 if request.param else 10**6, layer_dropout=0.0
    )
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
    if gaussians.backend_name() == "torch":
        pytest.skip("no compiler here: the twin runs anyway")
    fast = Step(method, step=12)
    for tensor in method.cloud.tensors().values():
        tensor.grad = None
    monkeypatch.setenv("KBUFFERS_BACKEND", "torch")
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
    trainer, _ = trained(0, options, glass_ball(300, 24))
    method = trainer.method
    assert isinstance(method, KBufferMethod)
    expected = torch.zeros(len(method.cloud), 2)
    for _ in range(4):
        run(trainer, 1)
        assert method._probe is not None and method._probe.grad is not None
        expected += method._probe.grad
    blame = lambda: method.densifier.blame  # noqa: E731 - a new one after each refinement
    assert torch.equal(torch.stack([blame().error, blame().share], 1), expected)
    sums = [float(blame().share.sum())]
    for _ in range(7):
        run(trainer, 1)
        sums.append(float(blame().share.sum()))
        assert blame().error.shape == blame().share.shape == (len(method.cloud),)
    assert sums[0] > 0 and sums[1] == sums[4] == 0  # after steps 4 and 7
    assert 0 < sums[2] < sums[3] and sums[5] > 0
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
