"""The splatting kernels give the same bits whatever runs them, and the right one runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from render.kbuffer import build, gaussians, gaussians_native
from tests.kbuffer.gaussian_scenes import camera, cloud, levels, use

WIDTH, HEIGHT = 61, 47  # 12 tiles, the last ones cut


@pytest.fixture(params=["native", "numba"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return request.param


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def everything(k: int, seed: int = 0, n: int = 900) -> list[Tensor]:
    """All outputs and all gradients of a scene with many ties in depth."""
    parameters = cloud(n, seed=seed, sh=8, size=0.06)
    parameters[0] = (parameters[0] * 8).round() / 8
    leaves = [p.requires_grad_(True) for p in parameters]
    p = gaussians.project(*leaves, camera(WIDTH, HEIGHT), antialias=True)
    values = torch.cat([p.rgb, leaves[2], leaves[4]], 1)
    layers = gaussians.splat_layers(p, values, WIDTH, HEIGHT, k, 4)
    whole = gaussians.splat(p, values, WIDTH, HEIGHT, k)
    g = torch.Generator().manual_seed(seed)
    outputs = [layers.image, layers.alpha, layers.features, whole.image, whole.alpha]
    by_layers = torch.autograd.grad(
        outputs[:3], leaves, [torch.randn(t.shape, generator=g) for t in outputs[:3]],
        retain_graph=True,
    )  # fmt: skip
    by_all = torch.autograd.grad(
        outputs[3:], leaves, [torch.randn(t.shape, generator=g) for t in outputs[3:]]
    )
    assert layers.kbuffer.valid.float().mean() > 0.5
    found = [*p, *outputs, *by_layers, *by_all]
    for buffer in (layers.kbuffer, whole.kbuffer):
        assert buffer.weight is not None
        found += [buffer.index, buffer.depth, buffer.distance, buffer.weight]
    return [t.detach() for t in found]


def assert_identical(found: list[Tensor], wanted: list[Tensor]) -> None:
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(a, b), f"tensor {i} differs by {(a - b).abs().max()}"


@pytest.mark.parametrize("k", [1, 8, 11])
def test_number_of_threads(backend: str, k: int) -> None:
    torch.set_num_threads(1)
    wanted = everything(k)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert_identical(everything(k), wanted)


def test_more_threads_than_work(backend: str) -> None:
    torch.set_num_threads(1)
    wanted = gaussians.project(*cloud(2), camera(5, 5))
    torch.set_num_threads(7)
    found = gaussians.project(*cloud(2), camera(5, 5))
    assert_identical(list(found), list(wanted))
    out = gaussians.splat(found, found.rgb, 5, 5, 2)
    assert out.image.isfinite().all()


def test_several_callers_at_once(backend: str) -> None:
    wanted = [everything(4, seed, n=200) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: everything(4, seed, n=200), range(4)))
    for a, b in zip(found, wanted, strict=True):
        assert_identical(a, b)


@pytest.mark.parametrize("k", [3, 8, 11])
def test_instruction_sets(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use("native", monkeypatch)
    wanted = everything(k)
    for level in levels():
        monkeypatch.setenv("KBUFFERS_CPU_LEVEL", level)
        if build.load("gs_cpu") is None:
            pytest.fail(build.status("gs_cpu"))
        assert build.cpu_level() == level
        assert_identical(everything(k), wanted)


@pytest.mark.parametrize("k", [1, 3, 8, 11])
def test_numba_composites_the_bits_of_native(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From equal splats. Numba's projection and distances call exp and log of the platform."""
    use("numba", monkeypatch)
    from render.kbuffer import gaussians_numba

    use("native", monkeypatch)
    p = gaussians.project(*cloud(900, seed=2, size=0.06), camera(WIDTH, HEIGHT))
    values = torch.randn(900, 7, generator=torch.Generator().manual_seed(k))
    found: list[list[Tensor]] = []
    distances = []
    gradients = []
    for kernels in (gaussians_native, gaussians_numba):
        bins = kernels.Bins(p.splats, p.depth, p.extent, WIDTH, HEIGHT)
        (index, depth, distance, weight), T, image, last = kernels.forward(bins, k, values)
        d_image, d_layers = image.sin(), torch.ones(HEIGHT, WIDTH, k, 2)
        by_all = kernels.backward(bins, values, T, last, d_image, T)
        buffers, _, *layers = kernels.layers_forward(bins, k, values, 2, True, True)
        kept = (index, weight, T, values, p.splats)
        by_layers = kernels.layers_backward(*kept, d_image, T, d_layers)
        found.append([index, depth, weight, T, image, *layers[:2], buffers[0], *buffers[3:]])
        distances.append(torch.stack([distance, buffers[2]]))
        gradients.append([*by_all, *by_layers])
    assert_identical(*found)
    torch.testing.assert_close(*distances, rtol=1e-5, atol=1e-6)
    for a, b in zip(*gradients, strict=True):  # sums over pixels in another order
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


def test_numba_projects_like_native(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for backend in ("native", "numba"):
        use(backend, monkeypatch)
        found.append(everything(8, n=300)[:4])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- which one runs
def test_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "numba", "native"):
        monkeypatch.setenv("KBUFFERS_BACKEND", name)
        try:
            assert gaussians.backend_name() == name
        except RuntimeError as fault:
            assert name != "torch" and "not available" in str(fault)
    monkeypatch.setenv("KBUFFERS_BACKEND", "native")
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    with pytest.raises(RuntimeError, match=r"native is not available: .*install g\+\+"):
        gaussians.project(*cloud(3), camera(5, 5))


@pytest.mark.parametrize("numba", [True, False])
def test_without_compiler_it_falls_back_and_says_so(
    numba: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if numba:
        use("numba", monkeypatch)
    else:
        monkeypatch.setattr(gaussians, "_numba", lambda: "No module named 'numba'")
    parameters, view = cloud(60, seed=1), camera(20, 16)

    def picture() -> Tensor:
        p = gaussians.project(*parameters, view)
        return gaussians.splat_layers(p, p.rgb, 20, 16, 4).image

    monkeypatch.setenv("KBUFFERS_BACKEND", "torch")
    wanted = picture()
    monkeypatch.delenv("KBUFFERS_BACKEND")
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    gaussians._warn.cache_clear()
    caplog.clear()
    assert gaussians.backend_name() == ("numba" if numba else "torch")
    torch.testing.assert_close(picture(), wanted, rtol=1e-3, atol=1e-4)
    assert len(caplog.records) == 1  # once, however often it is called
    assert "install g++ or clang" in caplog.text


def test_torch_refuses_large_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUFFERS_BACKEND", "torch")
    p = gaussians.project(*cloud(5000), camera(8, 8))
    for function in (gaussians.splat, gaussians.splat_layers):
        with pytest.raises(MemoryError, match="install a C\\+\\+ compiler or Numba"):
            function(p, p.rgb, 400, 300, 4)
