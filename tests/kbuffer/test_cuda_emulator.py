"""The CUDA rasteriser without a GPU: its lines, run on the CPU, give the CPU's picture bit by bit.

Everything but the kernels' control flow and the sort is the code that a GPU runs: see
``cuda/kb_emu.cpp``. Both roads are tested, the library's and NVRTC's.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from render.kbuffer import build, cuda_impl
from render.kbuffer.axes import pixel_axis, pytorch3d_pixel_centers
from render.kbuffer.cuda_impl import Allocate, Input, Kernels, Output
from render.kbuffer.rasterize import rasterize, rasterize_screen
from render.kbuffer.types import KBuffer
from tests.kbuffer.cuda_frames import (
    RADIUS,
    Emulator,
    NvrtcEmulator,
    assert_same,
    camera,
    cloud,
    draw,
    empty,
    emulator_library,
    world,
)

ROADS = {"library": Emulator, "nvrtc": NvrtcEmulator}


@pytest.fixture(scope="module", params=ROADS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    library = emulator_library()
    if library is None:
        pytest.skip(build.status("kb_emu"))
    return ROADS[request.param](library)


def on_cpu(uvz, radius, axes, k, near=0.0, footprint="disc") -> KBuffer:
    xs, ys = (pixel_axis(a) if isinstance(a, int) else a for a in axes)
    return rasterize_screen(uvz, radius, xs, ys, k, near=near, footprint=footprint)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 900),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    k=st.integers(1, 33),
    radius=st.floats(0.0625, 90, width=32),
    per_point=st.booleans(),
    levels=st.sampled_from([0, 1, 5]),
    near=st.sampled_from([0.0, 0.5]),
    footprint=st.sampled_from(["disc", "pixel"]),
    max_pairs=st.sampled_from([1, 50, 1000, 1 << 27]),
    units=st.sampled_from(["pixels", "PyTorch3D"]),
)
def test_any_cloud(
    kernels, seed, n, width, height, k, radius, per_point, levels, near, footprint, max_pairs, units
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
    options = {"near": near, "footprint": footprint}
    found, result = draw(kernels, uvz, radii, axes, k, max_pairs=max_pairs, **options)
    assert_same(found, on_cpu(uvz, radii, axes, k, **options))
    assert result.bands >= 1


@pytest.mark.parametrize("k", [1, 2, 3, 4, 8, 16, 17, 40, 255])
def test_deep_tiles(kernels: Kernels, k: int) -> None:
    """Many batches in a tile, pixels that fill early and late, and a wide range of depths."""
    uvz = cloud(4000, 40, 20, seed=k)
    uvz[17, 2] = 1e30
    uvz[18, 2] = 1e-30
    for radius in (0.9, 6.0):
        found, _ = draw(kernels, uvz, radius, (40, 20), k)
        assert_same(found, on_cpu(uvz, radius, (40, 20), k))


@pytest.mark.parametrize("mode", RADIUS)
@pytest.mark.parametrize("per_point", [False, True])
def test_from_the_world(kernels: Kernels, mode, per_point: bool) -> None:
    view, xyz, scale = camera(), world(), 1.0
    radius = torch.linspace(0.2, 2.0, len(xyz)) * RADIUS[mode] if per_point else RADIUS[mode]
    wanted = rasterize(xyz, view, 5, radius=radius, mode=mode)
    scale = 0.5 * view.height if mode == "ndc" else 1.0
    found, _ = draw(
        kernels, xyz, radius * scale, (view.width, view.height), 5, near=0.01,
        footprint="pixel" if mode == "pixel" else "disc",
        world_to_screen=(view.K @ view.world_to_camera[:3]).float(),
        radius_focal=float(view.focal.mean()) if mode == "world" else 0.0,
    )  # fmt: skip
    assert_same(found, wanted)
    assert wanted.count().float().mean() > 0.2


@pytest.mark.parametrize("far", [0.0, 3.0, 1e3, 1e6])
def test_discs_that_barely_reach_a_centre(kernels: Kernels, far: float) -> None:
    """No warp may drop a point whose disc ends a last bit beyond one of its pixel centres."""
    g = torch.Generator().manual_seed(2)
    xs, ys = pytorch3d_pixel_centers(30, 47)
    n = 500
    edges = torch.tensor([0, 3, 4, 7, 8, 15, 16, 29])  # of warps, tiles and the image
    column, line = edges[torch.randint(len(edges), (2, n), generator=g)]
    u = torch.rand(n, generator=g) * 4 - 2
    u += torch.where(u < 0, -far, far) * (1 + torch.rand(n, generator=g))
    v = ys.centers[line] if far < 1e3 else torch.zeros(n)
    radius = torch.nextafter((u - xs.centers[column]).abs(), torch.tensor(torch.inf))
    uvz = torch.stack([u, v, torch.rand(n, generator=g)], 1)
    uvz[n // 2 :] = uvz[n // 2 :, [1, 0, 2]]
    found, _ = draw(kernels, uvz, radius, (xs, ys), 255)
    wanted = on_cpu(uvz, radius, (xs, ys), 255)
    assert wanted.valid.any()
    assert_same(found, wanted)


def test_coordinates_at_the_end_of_float32(kernels: Kernels) -> None:
    far = torch.tensor([1e5, 3e6, 1e7, 1e12, 1e18, 3e19, 1e30, 3e38])
    g = torch.Generator().manual_seed(1)
    uvz = torch.stack([-far, torch.rand(8, generator=g) * 20, torch.rand(8, generator=g)], 1)
    for factor in (1.0, 1.000001, 1.1, 5.0, torch.inf):
        radius = far * factor
        found, _ = draw(kernels, uvz, radius, (30, 20), 8)
        assert_same(found, on_cpu(uvz, radius, (30, 20), 8))


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_outputs_that_vectors_cannot_be_stored_to(kernels: Kernels, offset: int) -> None:
    uvz = cloud(600, 21, 19, seed=4)
    memory = [torch.empty(19 * 21 * 8 + offset, dtype=d) for d in (torch.int32, torch.float32)]
    memory.append(torch.empty_like(memory[1]))
    out = KBuffer(*(m[offset:].view(19, 21, 8) for m in memory))
    axes = pixel_axis(21), pixel_axis(19)
    cuda_impl.rasterize(kernels, uvz, 3.0, *axes, out, near=0.0, footprint="disc")
    assert_same(out, on_cpu(uvz, 3.0, axes, 8))


# ---------------------------------------------------------------------------- memory
class Cramped:
    """Kernels whose allocator refuses blocks of more bytes, after the first if ``spared``."""

    def __init__(self, kernels: Kernels, limit: int, spared: int = 0) -> None:
        self.kernels, self.limit, self.spared = kernels, limit, spared

    def rasterize(self, task: Input, result: Output) -> int:
        # a copy: the struct's own would become the limited one
        memory = Allocate(ctypes.cast(task.allocate, ctypes.c_void_p).value or 0)
        calls = itertools.count()

        def limited(size: int, _: int | None) -> int | None:
            return memory(size, None) if next(calls) < self.spared or size <= self.limit else None

        task.allocate = Allocate(limited)
        return self.kernels.rasterize(task, result)

    def error_text(self, code: int) -> str:
        return self.kernels.error_text(code)


def library_kernels() -> Emulator:
    library = emulator_library()
    if library is None:
        pytest.skip(build.status("kb_emu"))
    return Emulator(library)


def test_too_little_memory_for_the_frame_draws_it_in_bands() -> None:
    uvz = cloud(800, 70, 50, seed=2, levels=30)
    whole, result = draw(library_kernels(), uvz, 9.0, (70, 50), 6)
    assert result.bands == 1
    pairs = result.pairs
    assert cuda_impl.scratch_bytes(len(uvz), pairs) > 60_000
    banded, result = draw(Cramped(library_kernels(), 30_000), uvz, 9.0, (70, 50), 6)
    assert result.bands > 1
    assert result.pairs == pairs
    assert_same(banded, whole)


@pytest.mark.parametrize("spared", [0, 1])  # not even the points | not even one tile
def test_too_little_memory_for_a_tile_is_a_sentence(spared: int) -> None:
    kernels = Cramped(library_kernels(), 1000, spared)
    with pytest.raises(MemoryError, match=r"800 points at 70x50: another \d+ MiB .* use fewer"):
        draw(kernels, cloud(800, 70, 50, seed=2), 90.0, (70, 50), 6)


def test_out_of_memory_in_torch_is_the_same(kernels: Kernels, monkeypatch) -> None:
    real = torch.empty

    def refusing(*size, **options):
        if options.get("dtype") in (torch.uint8, torch.int64):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(*size, **options)

    uvz, out = cloud(800, 70, 50, seed=2), empty(70, 50, 6)
    monkeypatch.setattr(torch, "empty", refusing)
    with pytest.raises(MemoryError, match="use fewer points"):
        cuda_impl.rasterize(
            kernels, uvz, 9.0, pixel_axis(70), pixel_axis(50), out, near=0.0, footprint="disc"
        )


def test_scratch_memory_is_given_back_with_the_frame(kernels: Kernels, monkeypatch) -> None:
    """At once, not when Python's collector comes by: on a GPU that would be many frames later."""
    real, blocks = torch.empty, []

    def watched(*size, **options):
        block = real(*size, **options)
        blocks.append(weakref.ref(block))
        return block

    uvz, out = cloud(800, 70, 50, seed=2), empty(70, 50, 6)
    monkeypatch.setattr(torch, "empty", watched)
    gc.disable()
    try:
        cuda_impl.rasterize(
            kernels, uvz, 9.0, pixel_axis(70), pixel_axis(50), out, near=0.0, footprint="disc"
        )
        assert len(blocks) >= 2
        assert not any(block() is not None for block in blocks)
    finally:
        gc.enable()


def test_interrupt_in_the_allocator_is_not_lost(monkeypatch) -> None:
    def interrupted(*size, **options):
        raise KeyboardInterrupt

    kernels, uvz, out = library_kernels(), cloud(10, 7, 5, seed=2), empty(7, 5, 2)
    monkeypatch.setattr(torch, "empty", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cuda_impl.rasterize(
            kernels, uvz, 1.0, pixel_axis(7), pixel_axis(5), out, near=0.0, footprint="disc"
        )


def test_a_kbuffer_that_does_not_fit_is_a_sentence(monkeypatch) -> None:
    def full(*size, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(MemoryError, match="8 layers at 1000x500: 46 MiB; use fewer layers"):
        cuda_impl.allocate((500, 1000, 8), torch.device("cpu"))


def task_for(uvz: torch.Tensor, radius: torch.Tensor, width: int, height: int) -> Input:
    task = Input(points=uvz.data_ptr(), radius=radius.data_ptr(), n=len(uvz), max_pairs=1 << 27)
    task.width, task.height, task.k, task.x_scale, task.y_scale = width, height, 1, 1.0, 1.0
    task.allocate = Allocate(lambda size, _: None)
    return task


def test_more_pairs_than_32_bits_are_counted_right() -> None:
    library = library_kernels().library
    uvz, radius = torch.tensor([[10.0, 10.0, 1.0]]).repeat(700, 1), torch.tensor([1e6])
    task = task_for(uvz, radius, 46_000, 46_000)
    columns = 46_000 // 16
    tiles = columns**2
    count = library.kb_emu_pairs
    assert count(ctypes.byref(task), 0, tiles) == 700 * tiles > 2**32
    # parts of the image, within a row of tiles and across rows
    cuts = [0, 1, 5, columns - 1, columns, columns + 3, 7 * columns - 2, tiles - 1, tiles]
    for first, last in itertools.pairwise(cuts):
        assert count(ctypes.byref(task), first, last) == 700 * (last - first)
    assert draw_code(library, task) == cuda_impl.OUT_OF_MEMORY


def draw_code(library: ctypes.CDLL, task: Input) -> int:
    return library.kb_emu_rasterize(ctypes.byref(task), ctypes.byref(Output()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0), ("height", -1), ("width", 2**31 - 1), ("k", 0), ("k", 256), ("n", -1),
        ("n", 2**31), ("max_pairs", 0), ("max_pairs", 2**31), ("footprint", 2), ("z_near", -1.0),
        ("x_scale", 0.0), ("radius_stride", 2),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(field: str, value: float) -> None:
    library = library_kernels().library
    uvz, radius = torch.ones(3, 3), torch.ones(1)
    task = task_for(uvz, radius, 20, 20)
    assert draw_code(library, task) == cuda_impl.OUT_OF_MEMORY  # valid so far
    setattr(task, field, value)
    assert draw_code(library, task) == cuda_impl.BAD_ARGUMENT


def test_error_of_the_kernels_is_told() -> None:
    class Broken(Emulator):
        def rasterize(self, task: Input, result: Output) -> int:
            return 700

    with pytest.raises(RuntimeError, match=r"rasterising on cpu failed: emulated error 700 \(700"):
        draw(Broken(library_kernels().library), torch.ones(3, 3), 1.0, (4, 4), 1)
