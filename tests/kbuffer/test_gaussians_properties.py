"""What holds for any scene of splats, large or small: threads, K, sizes, needles, NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from render.kbuffer import gaussians, gaussians_native, gaussians_torch
from render.kbuffer.gaussians import Layers, Projected
from tests.kbuffer.gaussian_scenes import assert_identical as assert_same_slots
from tests.kbuffer.gaussian_scenes import assert_same_buffer, camera, cloud, double, footprints, use


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    use("native", monkeypatch)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def assert_identical(found: list[Tensor], wanted: list[Tensor]) -> None:
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(a, b), f"tensor {i}"


def pictures(out: Layers) -> list[Tensor]:
    """All but the K-buffer."""
    return [out.image, out.alpha, out.features, out.depth]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Projected, int, int]:
    """Splats of all sizes up to the picture's, some in the same place or at the same depth."""
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 50))
    n = draw(st.integers(0, 60))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    long = torch.exp(draw(st.floats(-1, 3)) + torch.rand(n, generator=g))
    short = (long * draw(st.floats(0.02, 1))).clamp(min=0.55)  # the low-pass of the projection
    center = torch.rand(n, 2, generator=g) * (torch.tensor([width, height]) + 8) - 4
    if draw(st.booleans()):
        center[n // 2 :] = center[: n - n // 2].clone()
    depth = 1 + torch.rand(n, generator=g)
    if draw(st.booleans()):
        depth = (depth * 8).round() / 8
    angle = torch.rand(n, generator=g) * math.pi
    opacity = 0.01 + torch.rand(n, generator=g) * draw(st.floats(0.05, 0.98))
    return footprints(center, long, short, angle, opacity, depth=depth), width, height


@settings(max_examples=40, deadline=None)
@given(scene=scenes(), k=st.integers(1, 12), seed=st.integers(0, 1000))
def test_any_scene(scene: tuple[Projected, int, int], k: int, seed: int) -> None:
    """As the twin; all layers together are the whole picture; threads change nothing."""
    projected, width, height = scene
    n = len(projected.splats)
    values = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    torch.set_num_threads(1)
    whole = gaussians.splat(projected, values, width, height, k)
    few = gaussians.splat_layers(projected, values, width, height, k, 2)
    exact, _, _ = gaussians_torch.splat(double(projected), values.double(), width, height, 0)
    # an alpha next to 1/255 may count in one of them only
    assert not n or float((whole.image - exact).abs().max()) < 0.02 * float(values.abs().max())
    everything = gaussians.splat_layers(projected, values, width, height, 60)
    torch.testing.assert_close(everything.image, whole.image, rtol=1e-4, atol=2e-5)
    assert torch.equal(few.alpha, whole.alpha)
    assert_same_slots(few.kbuffer, whole.kbuffer)
    torch.set_num_threads(3)
    again = gaussians.splat_layers(projected, values, width, height, k, 2)
    assert_identical(pictures(again), pictures(few))
    assert_same_slots(again.kbuffer, few.kbuffer)


def step(parameters: list[Tensor], size: int) -> list[Tensor]:
    """Lists, pictures and gradients of one view."""
    leaves = [p.clone().requires_grad_(True) for p in parameters]
    p = gaussians.project(*leaves, camera(size, size))
    few = gaussians.splat_layers(p, p.rgb, size, size, 8, 1, kbuffer=False)
    whole = gaussians.splat(p, p.rgb, size, size, 2)
    loss = few.image.square().sum() + few.features.sum() + whole.image.square().sum()
    grads = torch.autograd.grad(loss, leaves)
    drawn = [few.image, few.alpha, few.features, few.depth, whole.image, whole.kbuffer.index]
    return [t.detach() for t in (*p, *drawn, *grads)]


def test_threads_share_sorting_and_sums() -> None:
    """Enough Gaussians that every thread has keys to sort and rows to add."""
    parameters = cloud(30000, seed=3, sh=8, size=0.012)
    parameters[0][:] = (parameters[0] * 64).round() / 64  # ties in depth
    torch.set_num_threads(1)
    wanted = step(parameters, 96)
    for threads in (2, 4, 7):
        torch.set_num_threads(threads)
        assert_identical(step(parameters, 96), wanted)


@pytest.mark.parametrize("k", [1, 8, 13])
@pytest.mark.parametrize("channels", [3, 9])
def test_without_the_kbuffer(k: int, channels: int) -> None:
    """The same picture and gradients; the K-buffer has no layers then."""
    p = gaussians.project(*cloud(500, seed=4, size=0.07), camera(50, 37))
    values = torch.randn(500, channels, generator=torch.Generator().manual_seed(k))

    def render(kbuffer: bool) -> tuple[Layers, list[Tensor]]:
        leaves = [p.splats.clone().requires_grad_(True), values.clone().requires_grad_(True)]
        out = gaussians.splat_layers(
            p._replace(splats=leaves[0]), leaves[1], 50, 37, k, 2, kbuffer=kbuffer
        )
        return out, list(torch.autograd.grad(out.image.sum() + out.features.sum(), leaves))

    (full, full_grads), (bare, bare_grads) = render(True), render(False)
    assert_identical(pictures(bare) + bare_grads, pictures(full) + full_grads)
    assert bare.kbuffer.index.shape == bare.kbuffer.depth.shape == (37, 50, 0)
    assert full.kbuffer.k == k
    with torch.no_grad():
        frame = gaussians.splat_layers(p, values, 50, 37, k, 2, kbuffer=False)
    assert_identical(pictures(frame), pictures(full))


def test_mean_depth_is_that_of_the_layers() -> None:
    p = gaussians.project(*cloud(12, seed=6), camera(40, 31))
    layers = gaussians.splat_layers(p, p.rgb, 40, 31, 5)
    weight, empty = layers.kbuffer.weight, ~layers.kbuffer.valid.any(-1)
    assert weight is not None and empty.any() and not empty.all()
    mean = (weight * layers.kbuffer.depth).sum(-1) / weight.sum(-1)
    torch.testing.assert_close(layers.depth[~empty], mean[~empty])
    assert not layers.depth[empty].any()


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.2, math.pi / 2, 2.5])
def test_needles_across_many_tiles(angle: float) -> None:
    """Tiles that the ellipse misses are left out of the lists, and none that it touches."""
    n, size = 30, 150
    g = torch.Generator().manual_seed(7)
    projected = footprints(
        torch.rand(n, 2, generator=g) * size, torch.full((n,), 40.0), torch.full((n,), 0.6),
        angle + 0.1 * torch.randn(n, generator=g), torch.full((n,), 0.95), g,
    )  # fmt: skip
    values = torch.rand(n, 3, generator=g)
    found = gaussians.splat(projected, values, size, size, 4)
    image, _, buffer = gaussians_torch.splat(double(projected), values.double(), size, size, 4)
    assert float((found.image - image).abs().max()) < 0.01
    different = (found.kbuffer.index != buffer.index).any(-1)  # alphas next to 1/255
    assert float(different.float().mean()) < 1e-3


def test_many_layers_of_many_contributions() -> None:
    """Blocks in which some pixels give slots up while others still fill theirs."""
    n = 200
    g = torch.Generator().manual_seed(8)
    projected = footprints(
        torch.rand(n, 2, generator=g) * 12, torch.full((n,), 5.0), torch.full((n,), 2.0),
        torch.rand(n, generator=g) * 3, 0.02 + 0.2 * torch.rand(n, generator=g), g,
    )  # fmt: skip
    for k in (1, 2, 5, 8, 16, 33, 64):
        found = gaussians.splat(projected, torch.ones(n, 1), 12, 12, k).kbuffer
        _, _, wanted = gaussians_torch.splat(
            double(projected), torch.ones(n, 1).double(), 12, 12, k
        )
        assert_same_buffer(found, wanted)


def test_a_value_that_is_not_a_number_stays_in_its_footprint() -> None:
    projected = footprints(
        torch.tensor([[6.5, 6.5], [24.5, 6.5]]), torch.ones(2), torch.ones(2), torch.zeros(2),
        torch.full((2,), 0.8), depth=torch.tensor([1.0, 2.0]),
    )  # fmt: skip
    values = torch.tensor([[math.nan], [1.0]])
    for out in (
        gaussians.splat(projected, values, 32, 16, 2),
        gaussians.splat_layers(projected, values, 32, 16, 2),
    ):
        assert out.image[:, :12].isnan().any()
        assert out.image[:, 13:].isfinite().all() and (out.image[:, 13:] > 0).any()


def test_trimmed_memory_is_made_anew() -> None:
    parameters = cloud(5000, seed=9)
    wanted = step(parameters, 24)
    gaussians_native.trim()
    assert_identical(step(parameters, 24), wanted)
