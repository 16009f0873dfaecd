"""Front-to-back compositing of K layers."""

from __future__ import annotations

import pytest
import torch

from render.kbuffer.composite import alpha_composite


def test_equals_a_loop_over_the_layers() -> None:
    g = torch.Generator().manual_seed(0)
    alpha = torch.rand(4, 5, 3, generator=g)
    values = torch.rand(4, 5, 3, 2, generator=g)
    out, weight, transmittance = alpha_composite(alpha, values)
    passed, total = torch.ones(4, 5), torch.zeros(4, 5, 2)
    for k in range(3):
        assert torch.allclose(weight[..., k], passed * alpha[..., k])
        total += (passed * alpha[..., k])[..., None] * values[..., k, :]
        passed = passed * (1 - alpha[..., k])
    assert torch.allclose(out, total)
    assert torch.allclose(transmittance, passed)
    assert torch.allclose(weight.sum(-1) + transmittance, torch.ones(4, 5))


def test_opaque_layer_hides_what_is_behind() -> None:
    out, weight, transmittance = alpha_composite(
        torch.tensor([[[0.0, 1.0, 0.7]]]), torch.tensor([[[[1.0], [2.0], [3.0]]]])
    )
    assert out.item() == 2
    assert weight.flatten().tolist() == [0, 1, 0]
    assert transmittance.item() == 0


def test_gradient() -> None:
    alpha = torch.rand(2, 2, 3, dtype=torch.float64).mul_(0.9).requires_grad_()
    values = torch.rand(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(alpha_composite, (alpha, values))


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="does not match"):
        alpha_composite(torch.zeros(2, 2, 3), torch.zeros(2, 2, 4, 1))
