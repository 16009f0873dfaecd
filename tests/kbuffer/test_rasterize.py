"""The three rasterisers agree bit for bit, with each other and with a naive loop over pixels."""

from __future__ import annotations

import functools
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, native, rasterize, torch_impl
from render.kbuffer.axes import PixelAxis, pixel_axis, pytorch3d_pixel_centers
from render.kbuffer.rasterize import Backend, Footprint
from render.kbuffer.types import KBuffer

COMPILED: tuple[Backend, ...] = ("native", "numba")


@pytest.fixture(params=COMPILED)
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        rasterize.backend_name(request.param)
    except RuntimeError as fault:
        pytest.skip(str(fault))
    return request.param


def draw(
    uvz: Tensor, radius: float | Tensor, width: int, height: int, k: int, **options
) -> KBuffer:
    """Rasterise in pixel units."""
    return rasterize.rasterize_screen(
        uvz, radius, pixel_axis(width), pixel_axis(height), k, **options
    )


def assert_same(a: KBuffer, b: KBuffer) -> None:
    assert torch.equal(a.index, b.index)
    assert torch.equal(a.depth, b.depth)
    assert torch.equal(a.distance, b.distance)


def cloud(n: int, width: int, height: int, seed: int, levels: int = 0) -> Tensor:
    """Random points around the image, some of them behind; few depth ``levels`` make ties."""
    g = torch.Generator().manual_seed(seed)
    uvz = torch.rand(n, 3, generator=g) * torch.tensor([width * 1.4, height * 1.4, 4.0])
    uvz -= torch.tensor([width * 0.2, height * 0.2, 0.5])
    if levels:
        uvz[:, 2] = (uvz[:, 2] * levels / 4).round() * 4 / levels
    return uvz


def naive(
    uvz: Tensor,
    radius: float | Tensor,
    width: int,
    height: int,
    k: int,
    footprint: Footprint = "disc",
) -> KBuffer:
    """One pixel after the other, in numpy float32 scalars."""
    points = uvz.numpy()
    r = np.broadcast_to(np.asarray(radius, np.float32), len(points))
    shape = (height, width, k)
    index, depth, distance = np.full(shape, -1), np.full(shape, -1.0), np.full(shape, -1.0)
    for y, x in itertools.product(range(height), range(width)):
        hits = []
        for i, (u, v, z) in enumerate(points):
            if not (np.isfinite([u, v, z]).all() and z >= 0):
                continue
            du, dv = u - np.float32(x + 0.5), v - np.float32(y + 0.5)
            d2, r2 = du * du + dv * dv, r[i] * r[i]
            if footprint == "pixel":
                if math.floor(u) == x and math.floor(v) == y:
                    hits.append((z, i, d2))
            elif r[i] > 0 and d2 < r2:
                hits.append((z, i, d2 / r2))
        for layer, (z, i, d) in enumerate(sorted(hits)[:k]):
            index[y, x, layer], depth[y, x, layer], distance[y, x, layer] = i, z, d
    return KBuffer(
        torch.from_numpy(index).int(),
        torch.from_numpy(depth).float(),
        torch.from_numpy(distance).float(),
    )


# ---------------------------------------------------------------------------- agreement
@pytest.mark.parametrize("footprint", ["disc", "pixel"])
@pytest.mark.parametrize(("width", "height", "k"), [(9, 6, 3), (1, 1, 2), (3, 8, 40)])
def test_torch_equals_naive_loop(width: int, height: int, k: int, footprint: Footprint) -> None:
    uvz = cloud(60, width, height, seed=k, levels=8)
    uvz[:20, :2] = uvz[:20, :2].round()  # pixel corners: equal distances, edges of pixels
    uvz[20:30, :2] = uvz[20:30, :2].floor() + 0.5  # exactly on centres
    radius = torch.linspace(-0.5, 4.0, 60)
    radius[5:15] = 1.5  # passes exactly through centres
    wanted = naive(uvz, radius, width, height, k, footprint)
    assert wanted.valid.any()
    assert_same(draw(uvz, radius, width, height, k, footprint=footprint, backend="torch"), wanted)


SIZES = [(1, 1), (16, 16), (17, 33), (40, 7), (5, 64), (61, 47)]


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_backends_agree(backend: Backend, width: int, height: int, k: int) -> None:
    for seed, radius in enumerate([0.3, 1.7, 6.0, 100.0]):
        uvz = cloud(120 if radius > 50 else 700, width, height, seed, levels=6 * (seed % 2))
        wanted = draw(uvz, radius, width, height, k, backend="torch")
        assert_same(draw(uvz, radius, width, height, k, backend=backend, threads=2), wanted)


@pytest.mark.parametrize("levels", [0, 3])
def test_per_point_radii(backend: Backend, levels: int) -> None:
    uvz = cloud(900, 50, 37, seed=3, levels=levels)
    radius = torch.rand(900, generator=torch.Generator().manual_seed(4)) ** 4 * 40
    radius[::50] = torch.tensor([0.0, -3.0, math.nan]).repeat(6)
    wanted = draw(uvz, radius, 50, 37, 6, backend="torch")
    assert_same(draw(uvz, radius, 50, 37, 6, backend=backend), wanted)
    assert not torch.isin(wanted.index[wanted.valid], torch.arange(0, 900, 50).int()).any()


def test_deep_tiles_are_sorted_in_buckets(backend: Backend) -> None:
    """Thousands of points in each tile, with one far away that spreads the depth range."""
    uvz = cloud(9000, 20, 20, seed=11)
    uvz[17, 2] = 1e30
    uvz[18, 2] = 1e-30
    for radius, k in ((0.9, 255), (5.0, 30)):
        wanted = draw(uvz, radius, 20, 20, k, backend="torch")
        assert_same(draw(uvz, radius, 20, 20, k, backend=backend), wanted)


def test_pixel_footprint(backend: Backend) -> None:
    uvz = cloud(4000, 45, 30, seed=5, levels=9)
    uvz[::7, :2] = uvz[::7, :2].round()
    wanted = draw(uvz, 1.0, 45, 30, 5, footprint="pixel", backend="torch")
    assert_same(draw(uvz, 1.0, 45, 30, 5, footprint="pixel", backend=backend), wanted)
    assert wanted.distance.max() <= 0.5


def test_pytorch3d_units(backend: Backend) -> None:
    for height, width in ((20, 33), (33, 20), (1, 5)):
        uvz = cloud(500, 2, 2, seed=width) - torch.tensor([1.0, 1.0, 0.0])
        xs, ys = pytorch3d_pixel_centers(height, width)
        for footprint in ("disc", "pixel"):
            wanted, found = (
                rasterize.rasterize_screen(uvz, 0.2, xs, ys, 4, footprint=footprint, backend=b)
                for b in ("torch", backend)
            )
            assert wanted.valid.any()
            assert_same(found, wanted)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 300),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    k=st.integers(1, 12),
    radius=st.floats(0.0625, 60, width=32),
    levels=st.sampled_from([0, 1, 5]),
    footprint=st.sampled_from(["disc", "pixel"]),
)
def test_properties(seed, n, width, height, k, radius, levels, footprint) -> None:
    uvz = cloud(n, width, height, seed, levels)
    found = draw(uvz, radius, width, height, k, footprint=footprint)
    valid = found.valid
    assert found.index.shape == found.depth.shape == found.distance.shape == (height, width, k)
    # empty slots come last and hold -1 everywhere
    assert not (valid[..., 1:] & ~valid[..., :-1]).any()
    for plane in (found.index, found.depth, found.distance):
        assert (plane[~valid] == -1).all()
    # ascending in depth, then in index
    near, far, both = found.depth[..., :-1], found.depth[..., 1:], valid[..., 1:]
    ties = both & (near == far)
    assert (near <= far)[both].all()
    assert (found.index[..., :-1] < found.index[..., 1:])[ties].all()
    assert ((found.distance >= 0) & (found.distance < 1))[valid].all()
    assert torch.equal(found.depth[valid], uvz[found.index[valid].long(), 2] + 0.0)
    assert_same(found, draw(uvz, radius, width, height, k, footprint=footprint, backend="torch"))
    fewer = max(1, k // 2)
    assert_same(found.take(fewer), draw(uvz, radius, width, height, fewer, footprint=footprint))


# ---------------------------------------------------------------------------- edges
@pytest.mark.parametrize("name", [*COMPILED, "torch"])
def test_clouds_that_show_nothing(name: Backend) -> None:
    behind = cloud(50, 8, 8, seed=0)
    behind[:, 2] = -behind[:, 2].abs() - 1e-3
    outside = cloud(50, 8, 8, seed=0)
    outside[:, 0] += 1000
    for uvz in (torch.zeros(0, 3), behind, outside):
        for footprint in ("disc", "pixel"):
            found = draw(uvz, 2.0, 9, 7, 3, backend=name, footprint=footprint)
            assert (found.index == -1).all()
            assert (found.depth == -1).all()
            assert (found.distance == -1).all()


@pytest.mark.parametrize("name", [*COMPILED, "torch"])
def test_not_finite_points_are_left_out(name: Backend) -> None:
    good = torch.tensor([4.0, 4.0, 1.0])
    bad = []
    for axis, value in itertools.product(range(3), (math.nan, math.inf, -math.inf)):
        point = good.clone()
        point[axis] = value
        bad.append(point)
    uvz = torch.stack([*bad, good])
    for footprint in ("disc", "pixel"):
        found = draw(uvz, 1.0, 8, 8, 4, backend=name, footprint=footprint)
        assert found.index.unique().tolist() == [-1, len(bad)]


@pytest.mark.parametrize("name", [*COMPILED, "torch"])
def test_near_limit_is_inclusive_and_zero_is_kept(name: Backend) -> None:
    z = torch.tensor([-0.0, 0.0, 1e-40, 0.3, 0.3000001, -1e-30])
    uvz = torch.stack([torch.full((6,), 0.5), torch.full((6,), 0.5), z], 1)
    assert draw(uvz, 1.0, 1, 1, 8, backend=name).index.flatten().tolist() == [
        0, 1, 2, 3, 4, -1, -1, -1,
    ]  # fmt: skip
    limited = draw(uvz, 1.0, 1, 1, 3, backend=name, near=0.3)
    assert limited.index.flatten().tolist() == [3, 4, -1]


def test_coordinates_at_the_end_of_float32(backend: Backend) -> None:
    """Far away points whose discs reach into the image, and arithmetic that overflows."""
    g = torch.Generator().manual_seed(1)
    far = torch.tensor([1e5, 3e6, 1e7, 1e12, 1e18, 3e19, 1e30, 3e38])
    uvz = torch.stack([-far, torch.rand(8, generator=g) * 20, torch.rand(8, generator=g)], 1)
    for factor in (1.0, 1.000001, 1.1, 5.0):
        radius = (far * factor).clamp(max=3.4e38)
        wanted = draw(uvz, radius, 30, 20, 8, backend="torch")
        assert_same(draw(uvz, radius, 30, 20, 8, backend=backend), wanted)
    assert wanted.valid.any()


@pytest.mark.parametrize("far", [0.0, 3.0, 1e3, 1e6])
def test_discs_that_barely_reach_a_centre(backend: Backend, far: float) -> None:
    """No candidate may be lost to rounding: each disc ends a last bit beyond a pixel centre."""
    g = torch.Generator().manual_seed(2)
    xs, ys = pytorch3d_pixel_centers(30, 47)
    n = 500
    edges = torch.tensor([0, 15, 16, 29])  # of tiles and of the image
    column, line = edges[torch.randint(4, (2, n), generator=g)]
    u = torch.rand(n, generator=g) * 4 - 2
    u += torch.where(u < 0, -far, far) * (1 + torch.rand(n, generator=g))
    v = ys.centers[line] if far < 1e3 else torch.zeros(n)
    radius = torch.nextafter((u - xs.centers[column]).abs(), torch.tensor(math.inf))
    uvz = torch.stack([u, v, torch.rand(n, generator=g)], 1)
    uvz[n // 2 :] = uvz[n // 2 :, [1, 0, 2]]  # the same along the other axis
    wanted, found = (
        rasterize.rasterize_screen(uvz, radius, xs, ys, 255, backend=b) for b in ("torch", backend)
    )
    assert wanted.valid.any()
    assert_same(found, wanted)


def test_more_layers_than_points(backend: Backend) -> None:
    uvz = torch.tensor([[1.5, 0.5, 2.0], [0.5, 0.5, 1.0]])
    found = draw(uvz, 5.0, 3, 1, 255, backend=backend)
    assert found.index[0, :, :3].tolist() == [[1, 0, -1]] * 3


# ---------------------------------------------------------------------------- determinism
@pytest.mark.parametrize("footprint", ["disc", "pixel"])
def test_any_number_of_threads(backend: Backend, footprint: Footprint) -> None:
    uvz = cloud(5000, 70, 50, seed=8, levels=20)
    one = draw(uvz, 2.5, 70, 50, 5, backend=backend, threads=1, footprint=footprint)
    for threads in (2, 3, 16):
        more = draw(uvz, 2.5, 70, 50, 5, backend=backend, threads=threads, footprint=footprint)
        assert_same(one, more)
    assert_same(one, draw(uvz[:1], 2.5, 70, 50, 5, backend=backend, threads=1, out=one))


def test_callers_on_several_threads(backend: Backend) -> None:
    clouds = [cloud(3000, 60, 40, seed) for seed in range(6)]
    wanted = [draw(c, 2.0, 60, 40, 4, backend=backend, threads=1) for c in clouds]
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda c: draw(c, 2.0, 60, 40, 4, backend=backend, threads=2), clouds)
    for a, b in zip(found, wanted, strict=True):
        assert_same(a, b)


def test_bands_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames with more (point, tile) pairs than memory may hold are drawn piece by piece."""
    uvz = cloud(800, 70, 50, seed=2, levels=30)
    radius, xs, ys = torch.tensor([9.0]), pixel_axis(70), pixel_axis(50)
    wanted = draw(uvz, 9.0, 70, 50, 6, backend="torch")
    options = {"near": 0.0, "footprint": "disc", "threads": 2}
    implementations = []
    if library := native.load():
        implementations.append(functools.partial(native.rasterize, library))
    if not rasterize._numba_fault():
        from render.kbuffer import numba_impl

        implementations.append(numba_impl.rasterize)
    for implementation, max_pairs in itertools.product(implementations, (1, 700, 3000)):
        out = rasterize._allocate((50, 70, 6))
        implementation(uvz, radius, xs, ys, out, max_pairs=max_pairs, **options)
        assert_same(out, wanted)
    monkeypatch.setattr(torch_impl, "MAX_PAIRS", 5000)
    assert_same(draw(uvz, 9.0, 70, 50, 6, backend="torch"), wanted)


@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_instruction_sets_agree(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if native.load() is None:
        pytest.skip(build.status("kb_cpu"))
    monkeypatch.setenv("KBUFFERS_CPU_LEVEL", level)
    uvz = cloud(3000, 64, 35, seed=6, levels=40)
    for radius, k in ((1.3, 8), (7.0, 3)):
        wanted = draw(uvz, radius, 64, 35, k, backend="torch")
        assert_same(draw(uvz, radius, 64, 35, k, backend="native"), wanted)


# ---------------------------------------------------------------------------- from the world
@pytest.fixture
def camera() -> Camera:
    return Camera.look_at((2.0, -3.0, 1.5), (0.0, 0.0, 0.1), fov_x=0.7, width=57, height=38)


@pytest.fixture
def world() -> Tensor:
    return torch.randn(1500, 3, generator=torch.Generator().manual_seed(7)) * 1.5


@pytest.mark.parametrize("mode", ["ndc", "px", "world", "pixel"])
@pytest.mark.parametrize("per_point", [False, True])
def test_world_points(
    backend: Backend, camera: Camera, world: Tensor, mode: rasterize.Mode, per_point: bool
) -> None:
    size = {"ndc": 0.08, "px": 1.6, "world": 0.12, "pixel": 1.0}[mode]
    radius = torch.linspace(0.2, 2.0, 1500) * size if per_point else size
    wanted, found = (
        rasterize.rasterize(world, camera, 5, radius=radius, mode=mode, backend=b)
        for b in ("torch", backend)
    )
    assert_same(found, wanted)
    assert wanted.count().float().mean() > 0.2


def test_radius_units(camera: Camera, world: Tensor) -> None:
    px = rasterize.rasterize(world, camera, 5, radius=0.05 * 19, mode="px")
    assert_same(rasterize.rasterize(world, camera, 5, radius=0.05, mode="ndc"), px)
    _, z = camera.project(world)
    discs = rasterize.rasterize(world, camera, 5, radius=0.1, mode="world")
    by_hand = torch.where(z > 0, 0.1 * float(camera.focal.mean()) / z, 1.0)
    same = rasterize.rasterize(world, camera, 5, radius=by_hand, mode="px")
    assert (discs.index == same.index).float().mean() > 0.999  # radii differ by a rounding


def test_projection_is_the_cameras(camera: Camera, world: Tensor) -> None:
    matrix = (camera.K @ camera.world_to_camera[:3]).float()
    uvz, _ = torch_impl.project_screen(world, matrix, torch.ones(1))
    uv, z = camera.project(world.double())
    front = z > 0.1
    assert (uvz[front, :2] - uv[front]).abs().max() < 2e-3 * uv[front].abs().max() / 1e3 + 1e-3
    assert torch.allclose(uvz[:, 2].double(), z, atol=1e-5)


def test_nearest_pixel_holds_the_projection(camera: Camera, world: Tensor) -> None:
    found = rasterize.rasterize(world, camera, 30, mode="pixel")
    uv, z = camera.project(world)
    for y, x, layer in found.valid.nonzero()[::37].tolist():
        i = found.index[y, x, layer]
        assert uv[i].floor().tolist() == [x, y]
        assert found.depth[y, x, layer] == pytest.approx(float(z[i]), abs=1e-5)


def test_near_in_scene_units(camera: Camera, world: Tensor) -> None:
    found = rasterize.rasterize(world, camera, 3, near=3.0, radius=0.1)
    assert found.valid.any()
    assert found.depth[found.valid].min() >= 3.0


# ---------------------------------------------------------------------------- interface
def test_out_is_reused(backend: Backend, camera: Camera, world: Tensor) -> None:
    first = rasterize.rasterize(world, camera, 4, backend=backend)
    wanted = rasterize.rasterize(-world, camera, 4, backend=backend)
    second = rasterize.rasterize(-world, camera, 4, backend=backend, out=first)
    assert second is first
    assert_same(first, wanted)


def test_input_is_accepted_as_it_comes(camera: Camera, world: Tensor) -> None:
    wanted = rasterize.rasterize(world, camera, 4, radius=0.05)
    strided = torch.cat([world, world], 1)[:, :3].requires_grad_()
    assert_same(rasterize.rasterize(strided, camera, 4, radius=torch.tensor(0.05)), wanted)
    assert_same(rasterize.rasterize(world.double(), camera, 4, radius=0.05), wanted)


def test_trim_frees_and_goes_on(camera: Camera, world: Tensor) -> None:
    wanted = rasterize.rasterize(world, camera, 4)
    native.trim()
    native.trim()
    assert_same(rasterize.rasterize(world, camera, 4), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be from 1 to 255, got 0"),
        ({"k": 256}, "k must be from 1 to 255"),
        ({"radius": 0.0}, "radius must be positive"),
        ({"radius": math.inf}, "radius must be positive and finite"),
        ({"radius": torch.tensor(-1.0)}, "radius must be positive"),
        ({"radius": torch.ones(7)}, r"radius: expected a number or \[1500\], got shape \[7\]"),
        ({"mode": "inch"}, "mode must be one of ndc, px, world, pixel, got 'inch'"),
        ({"backend": "cuda"}, "backend must be one of auto, native, numba, torch"),
        ({"near": -1.0}, "near must be >= 0"),
        ({"near": math.nan}, "near must be >= 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"xyz": torch.zeros(5, 2)}, r"xyz: expected \[N, 3\] floating point, got .*\[5, 2\]"),
        ({"xyz": torch.zeros(5, 3).int()}, "xyz: expected .* floating point, got torch.int32"),
        ({"out": rasterize._allocate((38, 57, 3))}, r"out.index: .* \[38, 57, 8\] on cpu"),
    ],
)
def test_bad_arguments(camera: Camera, world: Tensor, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize.rasterize(**{"xyz": world, "camera": camera, **change})


def test_bad_camera_and_axis(camera: Camera, world: Tensor) -> None:
    pose = camera.world_to_camera.clone()
    pose[0, 3] = math.nan
    with pytest.raises(ValueError, match="camera: intrinsics and pose must be finite"):
        rasterize.rasterize(world, Camera(pose, camera.K, 5, 5))
    with pytest.raises(ValueError, match="centers differ"):
        PixelAxis(torch.tensor([0.5, 1.5, 2.6]), half=0.0, scale=1.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        PixelAxis(torch.tensor([0.5]), half=0.0, scale=-1.0)


@pytest.mark.parametrize("forced", ["numba", "torch"])
def test_forced_backend(
    forced: Backend, camera: Camera, world: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = rasterize.rasterize(world, camera, 4)
    monkeypatch.setenv("KBUFFERS_BACKEND", forced)
    if forced == "numba" and rasterize._numba_fault():
        pytest.skip(rasterize._numba_fault())
    assert rasterize.backend_name() == forced
    assert_same(rasterize.rasterize(world, camera, 4), wanted)
    with pytest.raises(RuntimeError, match=f"KBUFFERS_BACKEND={forced}"):
        rasterize.backend_name("native")


def test_without_compiler_it_falls_back_and_says_so(
    camera: Camera, world: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = rasterize.rasterize(world, camera, 4)
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    monkeypatch.delenv("KBUFFERS_BACKEND", raising=False)
    for fault, name in (("", "numba"), ("No module named 'numba'", "torch")):
        if name == "numba" and rasterize._numba_fault():
            continue
        with monkeypatch.context() as m:
            if fault:
                m.setattr(rasterize, "_numba_fault", lambda fault=fault: fault)
            rasterize._announce.cache_clear()
            caplog.clear()
            assert_same(rasterize.rasterize(world, camera, 4), wanted)
            assert_same(rasterize.rasterize(world, camera, 4), wanted)
            assert rasterize.backend_name() == name
        assert len(caplog.records) == 1  # once, however often it is called
        assert "install g++ or clang" in caplog.text


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_points_come_back_on_cuda(camera: Camera, world: Tensor) -> None:
    found = rasterize.rasterize(world.cuda(), camera, 4)
    assert found.index.is_cuda
    wanted = rasterize.rasterize(world, camera, 4)
    assert torch.equal(found.index.cpu(), wanted.index)
