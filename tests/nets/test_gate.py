"""The gate's kernel against its plain twin: values, gradients, windows, threads, builds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from render.kbuffer import build
from render.kbuffer.threads import kernel_threads, set_kernel_threads
from render.nets import gate_native
from render.nets.gate import Gate

pytestmark = pytest.mark.skipif(gate_native.load() is None, reason=build.status("kfn_cpu"))


def make(k: int, features: int, seed: int = 0) -> Gate:
    """With every weight away from zero."""
    gate = Gate(k, features)
    generator = torch.Generator().manual_seed(seed)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, std=0.7, generator=generator)
    return gate


def pixels(h: int, w: int, k: int, features: int, empty: float = 0.3, seed: int = 0) -> Tensor:
    """Layers [h, w, k, F]; some pixels are empty, some have empty layers behind."""
    generator = torch.Generator().manual_seed(seed)
    layers = torch.randn(h, w, k, features, generator=generator)
    filled = torch.randint(0, k + 1, (h, w), generator=generator)
    layers *= (torch.arange(k) < filled[..., None])[..., None]
    return layers * (torch.rand(h, w, generator=generator) >= empty)[..., None, None]


def gradients(gate: Gate, layers: Tensor, native: bool) -> list[Tensor]:
    """Fused picture and the gradients of layers and weights."""
    layers = layers.detach().requires_grad_(True)
    gate.zero_grad()
    fused = gate(layers) if native else gate.fuse(layers)
    generator = torch.Generator().manual_seed(7)
    fused.backward(torch.randn(fused.shape, generator=generator).to(fused))
    found = [fused.detach(), layers.grad, *(p.grad for p in gate.parameters())]
    return [t.clone() for t in found if t is not None]


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    k=st.integers(1, 20),
    features=st.sampled_from([1, 3, 4, 7]),
    missing=st.integers(0, 19),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_of_the_twin(
    size: tuple[int, int], k: int, features: int, missing: int, empty: float, seed: int
) -> None:
    gate, given_layers = make(k, features, seed), max(1, k - missing)
    layers = pixels(*size, given_layers, features, empty, seed)
    for ours, twin in zip(
        gradients(gate, layers, True), gradients(gate, layers, False), strict=True
    ):
        assert ours.shape == twin.shape
        size = max(float(twin.abs().max()), 1.0)  # sums of large numbers may cancel
        torch.testing.assert_close(ours, twin, rtol=2e-5, atol=1e-5 * size)


def test_no_worse_than_single_precision() -> None:
    """Against the twin in float64; sums over 6,300 pixels keep six digits."""
    gate, layers = make(8, 4), pixels(70, 90, 8, 4)
    exact = gradients(make(8, 4).double(), layers.double(), False)
    for ours, truth in zip(gradients(gate, layers, True), exact, strict=True):
        error = (ours.double() - truth).norm() / truth.norm()
        assert float(error) < 3e-6


def test_large_layers_close_and_open_the_gates() -> None:
    gate = make(3, 4)
    layers = 1e4 * pixels(5, 5, 3, 4)
    fused = gate(layers)
    assert bool(fused.isfinite().all())
    torch.testing.assert_close(fused, gate.fuse(layers), rtol=1e-5, atol=1e-2)


def test_a_window_is_read_where_it_lies() -> None:
    gate, layers = make(4, 4), pixels(30, 40, 4, 4)
    window = layers[3:20, 5:33]
    for ours, copied in zip(
        gradients(gate, window, True), gradients(gate, window.contiguous(), True), strict=True
    ):
        assert torch.equal(ours, copied)
    turned = layers.transpose(0, 1)  # rows are not in one piece
    assert torch.equal(gate(turned), gate(turned.contiguous()))


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(threads: int) -> None:
    gate, layers = make(8, 4), pixels(70, 90, 8, 4)
    before = kernel_threads()
    try:
        set_kernel_threads(1)
        alone = gradients(gate, layers, True)
        set_kernel_threads(threads)
        together = gradients(gate, layers, True)
    finally:
        set_kernel_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("level", ["avx2", "baseline"])
def test_every_build_gives_the_same_bits(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, layers = make(8, 4), pixels(20, 30, 8, 4)
    best = gradients(gate, layers, True)
    monkeypatch.setenv("KBUFFERS_CPU_LEVEL", level)
    assert gate_native.load() is not None
    assert all(torch.equal(a, b) for a, b in zip(best, gradients(gate, layers, True), strict=True))


def test_what_the_kernel_cannot_take_goes_to_the_twin() -> None:
    gate = make(3, 4).double()
    layers = pixels(4, 5, 3, 4).double()
    assert torch.equal(gate(layers), gate.fuse(layers))
    assert make(3, 4)(torch.zeros(0, 5, 3, 4)).shape == (0, 5, 4)


def test_without_kernels_the_twin_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUFFERS_BACKEND", "torch")
    gate, layers = make(3, 4), pixels(4, 5, 3, 4)
    assert torch.equal(gate(layers), gate.fuse(layers))
