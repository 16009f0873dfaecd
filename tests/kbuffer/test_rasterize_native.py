"""The roads inside ``cuda/kb_cpu.cpp`` that other tests take by chance only.

Discs in windows of eight pixels or larger, entries with and without a radius, lists sorted by
insertion or in buckets, one layer without tiles: each with every instruction set, against torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, native, rasterize
from render.kbuffer.axes import PixelAxis, pixel_axis, pytorch3d_pixel_centers
from render.kbuffer.rasterize import Footprint
from tests.kbuffer.cuda_frames import assert_same, camera, cloud, empty, world

LEVELS = build.LEVELS[build.LEVELS.index(build.cpu_level()) :]
ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, 3e9, 1e38, -1e38]
SIZES = [(1, 1), (17, 3), (16, 16), (33, 40), (8, 50), (61, 7)]


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KBUFFERS_CPU_LEVEL", request.param)
        if native.load() is None:
            pytest.skip(build.status("kb_cpu"))
        yield request.param


def check(
    uvz: Tensor,
    radius: float | Tensor,
    axes: tuple[PixelAxis, PixelAxis],
    k: int,
    footprint: Footprint = "disc",
    near: float = 0.0,
) -> None:
    """1, 2 and 4 threads give torch's bits, wherever the picture lay before."""
    xs, ys = axes
    options = {"footprint": footprint, "near": near}
    wanted = rasterize.rasterize_screen(uvz, radius, xs, ys, k, backend="torch", **options)
    for threads in (1, 2, 4):
        out = empty(len(xs.centers), len(ys.centers), k)
        rasterize.rasterize_screen(
            uvz, radius, xs, ys, k, backend="native", threads=threads, out=out, **options
        )
        assert_same(out, wanted)


def pixels(width: int, height: int) -> tuple[PixelAxis, PixelAxis]:
    return pixel_axis(width), pixel_axis(height)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 7, 8, 9, 60, 500]),
    size=st.sampled_from(SIZES),
    k=st.sampled_from([1, 2, 7, 8, 16, 17, 40]),
    radius=st.sampled_from([0.01, 0.7, 1.0, 2.0, 3.45, 6.0, 1e3, 1e30]),
    spread=st.sampled_from([None, 1, 6]),
    scene=st.sampled_from(["cloud", "ties", "one depth", "one pixel", "odd", "all depths"]),
    footprint=st.sampled_from(["disc", "pixel"]),
    units=st.sampled_from(["px", "ndc"]),
    near=st.sampled_from([0.0, 0.3]),
)
def test_hard_clouds(
    level, seed, n, size, k, radius, spread, scene, footprint, units, near
) -> None:
    width, height = size
    g = torch.Generator().manual_seed(seed)
    uvz = cloud(n, width, height, seed, levels=5 if scene == "ties" else 0)
    if scene == "one depth":
        uvz[:, 2] = 1.5
    elif scene == "one pixel":
        uvz[:, :2] = torch.tensor([width / 2, height / 2])
    elif scene == "all depths":
        uvz[:, 2] = 10.0 ** (torch.rand(n, generator=g) * 80 - 42)
    elif scene == "odd":
        hit = torch.rand(n, 3, generator=g) < 0.1
        uvz[hit] = torch.tensor(ODD)[torch.randint(len(ODD), (int(hit.sum()),), generator=g)]
    radii: float | Tensor = radius
    if spread is not None:  # a power: one size, or a few much larger ones
        several = radius * torch.rand(n, generator=g) ** spread
        odd = torch.randint(len(ODD), (len(several[5::17]),), generator=g)
        several[5::17] = torch.tensor(ODD)[odd]
        radii = several
    axes = pixels(width, height)
    if units == "ndc":
        short = min(width, height)
        uvz = (uvz - torch.tensor([width / 2, height / 2, 0.0])) * torch.tensor(
            [2 / short, 2 / short, 1.0]
        )
        axes = pytorch3d_pixel_centers(height, width)
        radii = radii * 2 / short
    check(uvz, radii, axes, k, footprint, near)


@pytest.mark.parametrize("per_point", [False, True])
@pytest.mark.parametrize("radius", [0.49, 1.0, 1.5, 2.0, 2.99, 3.44, 3.5, 3.93, 3.97, 4.1])
def test_windows_hold_discs_wherever_they_are(level: str, radius: float, per_point: bool) -> None:
    """Discs that end a last bit beyond pixel centres, at all places of a tile and its borders."""
    at = torch.cartesian_prod(torch.arange(-6, 38), torch.arange(-6, 24)) + 0.5
    shift = torch.tensor([[radius % 1, 0.0], [-radius % 1, 0.0], [0.0, radius % 1], [0.37, -0.21]])
    uv = (at[:, None] + shift).reshape(-1, 2)
    uvz = torch.cat([uv, torch.rand(len(uv), 1, generator=torch.Generator().manual_seed(0))], 1)
    grown = math.nextafter(radius, 9.0) + 2e-6
    radii: float | Tensor = torch.full((len(uv),), grown) if per_point else grown
    check(uvz, radii, pixels(33, 19), 255)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 63, 64, 65, 66, 129, 5000])
@pytest.mark.parametrize("depths", ["one", "two", "all", "far apart", "steps"])
def test_lists_of_any_length_are_sorted(level: str, n: int, depths: str) -> None:
    g = torch.Generator().manual_seed(n)
    z = torch.rand(n, generator=g)
    z = {
        "one": torch.full((n,), 0.0),
        "two": (z > 0.5) + 1.0,
        "all": z,
        "far apart": torch.cat([z[:1] * 0 + 3e38, z[1:] * 1e-38]),
        "steps": torch.arange(n).flip(0) // 40 + 1.0,  # buckets longer than insertion may sort
    }[depths]
    uvz = torch.cat([torch.rand(n, 2, generator=g) * 3 + 2, z[:, None]], 1)
    check(uvz, 1.7, pixels(9, 7), 255)
    check(uvz, 1.7, pixels(9, 7), 3)
    check(uvz, torch.full((n,), 1.7), pixels(9, 7), 20)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (8, 8), (29, 13), (200, 2)])
def test_one_layer_of_pixels(level: str, width: int, height: int) -> None:
    """Without tiles: many points to a pixel, ties, and more threads than rows."""
    for n, levels in ((3000, 0), (3000, 2), (5, 0), (0, 0)):
        uvz = cloud(n, width, height, seed=n + levels, levels=levels)
        check(uvz, 1.0, pixels(width, height), 1, "pixel")
        check(uvz, 1.0, pixels(width, height), 2, "pixel")


@pytest.mark.parametrize("mode", ["ndc", "px", "world", "pixel"])
@pytest.mark.parametrize("size", [(57, 38), (200, 9)])
def test_world_points(level: str, mode: rasterize.Mode, size: tuple[int, int]) -> None:
    view = camera(*size)
    xyz = world(2001)
    behind = xyz + 2 * (torch.tensor([2.0, -3.0, 1.5]) - xyz)  # through the eye
    for k, near in ((1, 0.01), (5, 0.01), (20, 0.0)):
        _check_world(torch.cat([xyz, behind]), view, k, mode, near)


def _check_world(xyz: Tensor, view: Camera, k: int, mode: rasterize.Mode, near: float) -> None:
    radius = {"ndc": 0.08, "px": 1.6, "world": 0.12, "pixel": 1.0}[mode]
    several = torch.linspace(0.01, 3.0, len(xyz)) * radius
    for radii in (radius, several):
        wanted = rasterize.rasterize(
            xyz, view, k, radius=radii, mode=mode, near=near, backend="torch"
        )
        assert wanted.valid.any()
        for threads in (1, 2, 4):
            found = rasterize.rasterize(
                xyz, view, k, radius=radii, mode=mode, near=near, backend="native", threads=threads
            )
            assert_same(found, wanted)
