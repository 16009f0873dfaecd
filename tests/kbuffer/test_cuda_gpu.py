"""The CUDA rasteriser on a GPU: the picture of the CPU's, bit by bit. ``pytest -m cuda``."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from render.kbuffer import build, cuda_build, cuda_impl
from render.kbuffer.axes import pixel_axis, pytorch3d_pixel_centers
from render.kbuffer.cuda_impl import Kernels
from render.kbuffer.rasterize import rasterize, rasterize_screen
from render.kbuffer.types import KBuffer
from tests.kbuffer.cuda_frames import RADIUS, assert_same, camera, cloud, draw, empty, world

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(autouse=True)
def _on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests must not pass by falling back to the CPU."""
    monkeypatch.delenv("KBUFFERS_BACKEND", raising=False)
    monkeypatch.delenv("KBUFFERS_CUDA", raising=False)
    assert cuda_build.load(0) is not None, cuda_build.status(0)


@pytest.fixture(scope="module", params=["nvcc", "nvrtc"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Each road that this machine has."""
    with pytest.MonkeyPatch.context() as m:
        m.setenv("KBUFFERS_CUDA", request.param)
        found = cuda_build.load(0)
        if found is None:
            pytest.skip(cuda_build.status(0))
    return found


def on_cpu(uvz, radius, axes, k, near=0.0, footprint="disc") -> KBuffer:
    xs, ys = (pixel_axis(a) if isinstance(a, int) else a for a in axes)
    radius = radius.cpu() if isinstance(radius, torch.Tensor) else radius
    return rasterize_screen(uvz.cpu(), radius, xs, ys, k, near=near, footprint=footprint)


def test_small_frames(kernels: Kernels) -> None:
    """Every kernel once; what compute-sanitizer runs."""
    for k in (1, 2, 3, 4, 8, 16, 17, 32):
        for footprint in ("disc", "pixel"):
            uvz = cloud(700, 53, 35, seed=k, levels=5).cuda()
            options = {"footprint": footprint}
            found, _ = draw(kernels, uvz, 2.5, (53, 35), k, max_pairs=400, **options)
            assert_same(found, on_cpu(uvz, 2.5, (53, 35), k, **options))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 3000),
    width=st.integers(1, 300),
    height=st.integers(1, 200),
    k=st.integers(1, 32),
    radius=st.floats(0.0625, 300, width=32),
    per_point=st.booleans(),
    levels=st.sampled_from([0, 1, 5]),
    footprint=st.sampled_from(["disc", "pixel"]),
    max_pairs=st.sampled_from([1000, 1 << 27]),
    units=st.sampled_from(["pixels", "PyTorch3D"]),
)
def test_any_cloud(
    kernels, seed, n, width, height, k, radius, per_point, levels, footprint, max_pairs, units
) -> None:
    uvz = cloud(n, width, height, seed, levels)
    radii: float | torch.Tensor = radius
    if per_point:
        radii = torch.rand(n, generator=torch.Generator().manual_seed(seed)) ** 4 * radius - 0.01
    axes = (pixel_axis(width), pixel_axis(height))
    if units == "PyTorch3D":
        axes = pytorch3d_pixel_centers(height, width)
        uvz[:, :2] = uvz[:, :2] * (2 / min(width, height)) - 1
        radii = radii * (2 / min(width, height))
    found, _ = draw(kernels, uvz.cuda(), radii, axes, k, footprint=footprint, max_pairs=max_pairs)
    assert_same(found, on_cpu(uvz, radii, axes, k, footprint=footprint))


@pytest.mark.parametrize("mode", RADIUS)
@pytest.mark.parametrize("per_point", [False, True])
@pytest.mark.parametrize("k", [1, 5, 8, 32])
def test_through_the_front_door(mode, per_point: bool, k: int) -> None:
    view, xyz = camera(), world()
    radius = torch.linspace(0.2, 2.0, len(xyz)) * RADIUS[mode] if per_point else RADIUS[mode]
    wanted = rasterize(xyz, view, k, radius=radius, mode=mode)
    found = rasterize(xyz.cuda(), view, k, radius=radius, mode=mode)
    assert found.index.is_cuda
    assert_same(found, wanted)
    if per_point:
        assert_same(rasterize(xyz.cuda(), view, k, radius=radius.cuda(), mode=mode), wanted)
    out = empty(view.width, view.height, k, "cuda:0")
    assert rasterize(xyz.cuda(), view, k, radius=radius, mode=mode, out=out) is out
    assert_same(out, wanted)


def test_a_large_frame(kernels: Kernels) -> None:
    uvz = cloud(1_000_000, 800, 800, seed=1)
    found, result = draw(kernels, uvz.cuda(), 2.0, (800, 800), 8)
    assert_same(found, on_cpu(uvz, 2.0, (800, 800), 8))
    assert result.bands == 1


@pytest.mark.parametrize("far", [0.0, 3.0, 1e3, 1e6])
def test_discs_that_barely_reach_a_centre(kernels: Kernels, far: float) -> None:
    g = torch.Generator().manual_seed(2)
    xs, ys = pytorch3d_pixel_centers(30, 47)
    column = torch.randint(30, (500,), generator=g)
    u = torch.rand(500, generator=g) * 4 - 2
    u += torch.where(u < 0, -far, far) * (1 + torch.rand(500, generator=g))
    radius = torch.nextafter((u - xs.centers[column]).abs(), torch.tensor(torch.inf))
    uvz = torch.stack([u, torch.zeros(500), torch.rand(500, generator=g)], 1)
    found, _ = draw(kernels, uvz.cuda(), radius, (xs, ys), 255)
    assert_same(found, on_cpu(uvz, radius, (xs, ys), 255))


@pytest.mark.parametrize("what", ["empty", "behind", "outside", "huge"])
def test_unusual_clouds(kernels: Kernels, what: str) -> None:
    uvz, radius = cloud(200, 90, 70, seed=3), 2.0
    if what == "empty":
        uvz = uvz[:0]
    elif what == "behind":
        uvz[:, 2] = -1.0
    elif what == "outside":
        uvz[:, 0] += 1e4
    else:
        radius = 1e30
    found, _ = draw(kernels, uvz.cuda(), radius, (90, 70), 8)
    assert_same(found, on_cpu(uvz, radius, (90, 70), 8))


def test_streams_of_their_own(kernels: Kernels) -> None:
    """Frames in several streams at once, their inputs made there a moment before."""
    clouds = [cloud(20_000, 200, 150, seed) for seed in range(6)]
    streams = [torch.cuda.Stream() for _ in clouds]
    found = []
    for uvz, stream in zip(clouds, streams, strict=True):
        with torch.cuda.stream(stream):
            pinned = uvz.pin_memory()
            found.append(draw(kernels, pinned.cuda(non_blocking=True), 3.0, (200, 150), 8)[0])
    torch.cuda.synchronize()
    for frame, uvz in zip(found, clouds, strict=True):
        assert_same(frame, on_cpu(uvz, 3.0, (200, 150), 8))


def test_threads_of_their_own(kernels: Kernels) -> None:
    clouds = [cloud(20_000, 200, 150, seed) for seed in range(4)]
    found: dict[int, KBuffer] = {}

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(5):
                found[i] = draw(kernels, clouds[i].cuda(), 3.0, (200, 150), 8)[0]
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(clouds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, uvz in enumerate(clouds):
        assert_same(found[i], on_cpu(uvz, 3.0, (200, 150), 8))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_every_device() -> None:
    view, xyz = camera(), world()
    wanted = rasterize(xyz, view, 8, radius=0.05)
    for device in range(torch.cuda.device_count()):
        found = rasterize(xyz.to(f"cuda:{device}"), view, 8, radius=0.05)
        assert found.index.device.index == device
        assert torch.cuda.current_device() == 0
        assert_same(found, wanted)


def test_the_same_bits_every_time(kernels: Kernels) -> None:
    uvz = cloud(300_000, 400, 400, seed=9, levels=40).cuda()
    first, _ = draw(kernels, uvz, 2.0, (400, 400), 8)
    for _ in range(10):
        assert_same(draw(kernels, uvz, 2.0, (400, 400), 8)[0], first)


def test_scratch_memory_is_given_back_and_was_announced(kernels: Kernels) -> None:
    n = 2_000_000
    uvz = cloud(n, 800, 800, seed=1).cuda()
    out = empty(800, 800, 8, "cuda:0")
    axes = pixel_axis(800), pixel_axis(800)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    options = {"near": 0.0, "footprint": "disc"}
    result = cuda_impl.rasterize(kernels, uvz, 2.0, *axes, out, **options)
    # views of pixel centres stay
    assert torch.cuda.memory_allocated() - before < 1 << 20
    used = torch.cuda.max_memory_allocated() - before
    if isinstance(kernels, cuda_build.Library):  # torch's own sort takes more
        assert used < 1.1 * cuda_impl.scratch_bytes(n, result.pairs) + (1 << 22)


def test_out_of_memory_is_answered_by_bands_or_a_sentence() -> None:
    """With half of what a frame wants it is drawn in bands; with nothing, there is a sentence."""
    kernels = cuda_build.load(0)
    assert kernels is not None
    uvz = cloud(200_000, 640, 480, seed=1).cuda()
    wanted, result = draw(kernels, uvz, 30.0, (640, 480), 4)
    pairs = result.pairs
    out = empty(640, 480, 4, "cuda:0")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    options = {"near": 0.0, "footprint": "disc"}
    axes = pixel_axis(640), pixel_axis(480)
    try:
        room = torch.cuda.memory_reserved() + cuda_impl.scratch_bytes(len(uvz), pairs) // 2
        torch.cuda.set_per_process_memory_fraction(room / total)
        result = cuda_impl.rasterize(kernels, uvz, 30.0, *axes, out, **options)
        assert result.bands > 1
        assert_same(out, wanted)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        with pytest.raises(MemoryError, match=r"not enough memory on cuda:0 .* use fewer points"):
            cuda_impl.rasterize(kernels, uvz, 30.0, *axes, out, **options)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_same(rasterize_screen(uvz, 30.0, *axes, 4), wanted)


def test_fallback_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    view, xyz = camera(), world().cuda()
    wanted = rasterize(xyz, view, 4)
    monkeypatch.setenv("KBUFFERS_CUDA", "off")
    found = rasterize(xyz, view, 4)
    assert found.index.is_cuda
    assert_same(found, wanted)
    out = empty(view.width, view.height, 4, "cuda:0")
    assert rasterize(xyz, view, 4, out=out) is out
    assert_same(out, wanted)


def test_prebuilt_library_runs_here(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wheels would carry: all architectures in one."""
    if cuda_build.find_nvcc() is None:
        pytest.skip("nvcc not found")
    import shutil

    sources = tmp_path / "cuda"
    shutil.copytree(build.SOURCE_DIR, sources)
    monkeypatch.setattr(build, "SOURCE_DIR", sources)
    cuda_build.make_prebuilt(sources / "prebuilt")
    found = cuda_build.find(torch.cuda.get_device_capability(), lambda library: library.probe(0))
    assert found.status == "prebuilt"
    assert found.kernels is not None
    uvz = cloud(5000, 200, 100, seed=1)
    frame, _ = draw(found.kernels, uvz.cuda(), 3.0, (200, 100), 8)
    assert_same(frame, on_cpu(uvz, 3.0, (200, 100), 8))
