"""Gaussians on a GPU give the CPU's pictures, K-buffers and gradients. ``pytest -m cuda``.

Everything but the last few tests runs on a stand-in, too, which needs no GPU: see
``gaussian_roads``. Stated tolerances of the real one: 2e-4 for images in all but one pixel of
1000, which may be 1/128 off (``gaussians_gsplat``), 2e-3 of the length of a gradient.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians, gaussians_gsplat, gaussians_torch
from render.kbuffer.gaussians import Projected
from render.kbuffer.types import KBuffer
from tests.kbuffer.gaussian_roads import Road, emulated, real
from tests.kbuffer.gaussian_scenes import PARAMETERS, camera, cloud, double, footprints, screen

WIDTH, HEIGHT = 61, 47  # 12 tiles, the last ones cut
Outputs = dict[str, Tensor]


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.cuda)])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Road:
    monkeypatch.delenv("KBUFFERS_BACKEND", raising=False)
    return emulated(monkeypatch) if request.param == "emulated" else real()


# ---------------------------------------------------------------------------- comparisons
def pictures(p: Projected, values: Tensor, k: int, width: int = WIDTH, height: int = HEIGHT):
    """Outputs by name of both functions that draw, and their K-buffers."""
    whole = gaussians.splat(p, values, width, height, k)
    out = {"image": whole.image, "alpha": whole.alpha}
    buffers = [whole.kbuffer]
    if k:
        layers = gaussians.splat_layers(p, values, width, height, k, 2)
        out |= {"layers": layers.image, "opacity": layers.alpha, "features": layers.features}
        buffers.append(layers.kbuffer)
    return out, buffers


def weights_like(out: Outputs) -> list[Tensor]:
    """What the gradient of each output is; zero on the left half, as under a mask."""
    g = torch.Generator().manual_seed(1)
    found = []
    for t in out.values():
        w = torch.randn(t.shape, generator=g)
        w[:, : t.shape[1] // 2] = 0
        found.append(w.to(t.device, t.dtype))
    return found


def everything(
    parameters: list[Tensor], view: Camera, k: int, device: torch.device, antialias: bool = False
) -> tuple[Outputs, list[KBuffer], Outputs]:
    """Pictures, K-buffers and the gradient of every parameter."""
    leaves = [t.detach().to(device).requires_grad_(True) for t in parameters]
    p = gaussians.project(*leaves, view, antialias=antialias)
    assert p.splats.device.type == device.type
    out, buffers = pictures(p, torch.cat([p.rgb, leaves[4]], 1), k, view.width, view.height)
    gradients = torch.autograd.grad(list(out.values()), leaves, weights_like(out))
    shown = {"splats": p.splats, "depth": p.depth, "extent": p.extent, "rgb": p.rgb}
    return shown | out, buffers, dict(zip(PARAMETERS, gradients, strict=True))


def by_twin(parameters: list[Tensor], view: Camera, k: int) -> tuple[Outputs, Outputs]:
    """The same pictures and gradients from plain torch, in float64."""
    leaves = [t.detach().double().requires_grad_(True) for t in parameters]
    p = Projected(*gaussians_torch.project(*leaves, view))
    values = torch.cat([p.rgb, leaves[4]], 1)
    image, alpha, _ = gaussians_torch.splat(p, values, view.width, view.height, k)
    layers, opacity, features, *_ = gaussians_torch.splat_layers(
        p, values, view.width, view.height, k, 2
    )
    out = {"image": image, "alpha": alpha, "layers": layers, "opacity": opacity}
    out["features"] = features
    gradients = torch.autograd.grad(list(out.values()), leaves, weights_like(out))
    return out, dict(zip(PARAMETERS, gradients, strict=True))


def assert_close(road: Road, name: str, found: Tensor, wanted: Tensor) -> None:
    """Within the stated tolerance of values whose size is about 1."""
    error = (found.detach().cpu().double() - wanted.double()).abs()
    assert error.isfinite().all(), name
    if not error.numel():
        return
    scale = max(1.0, float(wanted.detach().abs().max()))
    if road.exact or name not in ("image", "alpha"):
        assert error.max() <= 2e-4 * scale, f"{name}: {error.max()}"
        return
    assert error.max() <= scale / 128, f"{name}: {error.max()}"
    assert (error > 2e-4 * scale).double().mean() <= 1e-3, name


def assert_same_buffers(found: list[KBuffer], wanted: list[KBuffer]) -> None:
    """Equal ids; depth, distance and weight to float32. From equal splats."""
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.index.cpu(), b.index)
        for x, y in ((a.depth, b.depth), (a.distance, b.distance), (a.weight, b.weight)):
            assert x is not None and y is not None
            torch.testing.assert_close(x.cpu(), y, rtol=1e-5, atol=1e-6)


def assert_same_gradients(road: Road, found: Outputs, wanted: Outputs) -> None:
    limit = 2e-4 if road.exact else 2e-3
    for name, gradient in wanted.items():
        mine = found[name].detach().cpu().double()
        assert mine.isfinite().all(), name
        error, size = (mine - gradient.double()).norm(), gradient.double().norm()
        assert error <= limit * size + 1e-7, f"{name}: {error / size:.2e} of {size:.2e}"


def compare(
    road: Road, parameters: list[Tensor], view: Camera, k: int, antialias: bool = False
) -> Outputs:
    """The road against the CPU's kernels in everything; what the CPU found."""
    with road.taken():
        out, buffers, gradients = everything(parameters, view, k, road.device, antialias)
    wanted, wanted_buffers, wanted_gradients = everything(
        parameters, view, k, torch.device("cpu"), antialias
    )
    for name, tensor in wanted.items():
        assert_close(road, name, out[name], tensor)
    assert_same_buffers(buffers, wanted_buffers)
    assert_same_gradients(road, gradients, wanted_gradients)
    return wanted


# ---------------------------------------------------------------------------- pictures
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("k", [0, 1, 3, 4, 8, 11, 16, 20, 64])
def test_small_scenes_as_on_the_cpu(road: Road, k: int, antialias: bool) -> None:
    """Every kernel once; what compute-sanitizer runs."""
    parameters = cloud(300, seed=k, sh=8, size=0.1)
    parameters[0] = (parameters[0] * 8).round() / 8  # ties in depth
    wanted = compare(road, parameters, camera(WIDTH, HEIGHT), k, antialias)
    assert wanted["alpha"].mean() > 0.5


@pytest.mark.parametrize("sh", [0, 3, 8, 15])
def test_small_scenes_as_the_twin_in_float64(road: Road, sh: int) -> None:
    parameters, view, k = cloud(60, seed=sh, sh=sh, size=0.2), camera(37, 29), 4
    with road.taken():
        out, _, gradients = everything(parameters, view, k, road.device)
    wanted, wanted_gradients = by_twin(parameters, view, k)
    for name, tensor in wanted.items():
        assert_close(road, name, out[name], tensor)
    assert_same_gradients(road, gradients, wanted_gradients)
    assert all(g.norm() > 0 for name, g in wanted_gradients.items() if sh or name != "sh_rest")


@pytest.mark.parametrize("channels", [1, 2, 31, 32, 33, 70])
def test_any_number_of_channels(road: Road, channels: int) -> None:
    p = screen(200, WIDTH, HEIGHT, seed=channels)
    values = torch.randn(200, channels, generator=torch.Generator().manual_seed(channels))
    wanted = gaussians.splat(p, values, WIDTH, HEIGHT, 0)
    with road.taken():
        on_device = Projected(*[t.to(road.device) for t in p])
        found = gaussians.splat(on_device, values.to(road.device), WIDTH, HEIGHT, 0)
    assert_close(road, "image", found.image, wanted.image)
    assert_close(road, "alpha", found.alpha, wanted.alpha)


def test_of_equal_weights_the_nearer_is_kept(road: Road) -> None:
    opacity = torch.tensor([0.25, 0.33333334, 0.9])  # 0.25, 0.75 / 3, 0.45 in front of each other
    center, size = torch.tensor([[8.5, 8.5]]).repeat(3, 1), torch.full((3,), 3.0)
    p = footprints(center, size, size, 0 * size, opacity, depth=torch.tensor([1.0, 2.0, 3.0]))
    with road.taken():
        on_device = Projected(*[t.to(road.device) for t in p])
        for k, wanted in ((1, [2]), (2, [0, 2]), (3, [0, 1, 2]), (5, [0, 1, 2, -1, -1])):
            found = gaussians.splat(on_device, on_device.rgb, 16, 16, k).kbuffer
            assert found.index[8, 8].tolist() == wanted
    assert found.weight is not None and found.weight[8, 8, 0] == found.weight[8, 8, 1] == 0.25


def test_without_gradients_the_picture_is_the_same(road: Road) -> None:
    parameters, view = cloud(200, seed=9, size=0.1), camera(WIDTH, HEIGHT)
    with road.taken():
        wanted = everything(parameters, view, 6, road.device)[0]
        leaves = [t.to(road.device) for t in parameters]
        with torch.no_grad():
            p = gaussians.project(*leaves, view)
            found, _ = pictures(p, torch.cat([p.rgb, leaves[4]], 1), 6)
        values = torch.cat([p.rgb, leaves[4]], 1).requires_grad_(True)
        layers = gaussians.splat_layers(p, values, WIDTH, HEIGHT, 6, 2)
        layers.image.sum().backward()
    for name, tensor in found.items():
        assert_close(road, name, tensor, wanted[name].detach().cpu())
    assert values.grad is not None and values.grad.abs().sum() > 0


# ---------------------------------------------------------------------------- unusual scenes
def test_unusual_none_at_all(road: Road) -> None:
    wanted = compare(road, cloud(0), camera(20, 18), 3)
    assert wanted["image"].abs().max() == 0


def test_unusual_all_behind_the_camera(road: Road) -> None:
    parameters, view = cloud(40, seed=2), camera(20, 18)
    parameters[0] += 3 * view.position.float()
    wanted = compare(road, parameters, view, 3)
    assert wanted["extent"].max() == 0 and wanted["alpha"].max() == 0


def test_unusual_all_beside_the_picture(road: Road) -> None:
    parameters, view = cloud(40, seed=2, size=0.01), camera(20, 18)
    parameters[0] = parameters[0] * 0.05 + torch.tensor([3.5, 0.0, 0.0])
    wanted = compare(road, parameters, view, 3)
    assert wanted["extent"].max() > 0 and wanted["alpha"].max() == 0


def test_unusual_all_transparent(road: Road) -> None:
    parameters = cloud(40, seed=2)
    parameters[3] -= 20
    assert compare(road, parameters, camera(20, 18), 3)["alpha"].max() == 0


def test_unusual_sizes(road: Road) -> None:
    """Some as large as a hundred pictures, some long and thin, some smaller than a pixel."""
    parameters = cloud(90, seed=3, size=0.05)
    parameters[2][:10] += 5.0
    parameters[2][10:40] += torch.tensor([4.0, -3.0, -3.0])
    parameters[2][40:60] -= 6.0
    parameters[3][:10] -= 3.0
    wanted = compare(road, parameters, camera(WIDTH, HEIGHT), 6)
    assert wanted["extent"].max() > 1000


def test_unusual_numbers(road: Road) -> None:
    parameters = cloud(60, seed=4, sh=3)
    for i, tensor in enumerate(parameters):
        tensor.view(60, -1)[3 * i, 0] = (math.nan, math.inf, -math.inf)[i % 3]
    parameters[1][40] = 0  # no rotation at all
    parameters[2][41] = 80.0  # overflows
    wanted = compare(road, parameters, camera(WIDTH, HEIGHT), 4)
    assert (wanted["extent"][:18:3] == 0).all()


def test_unusual_places(road: Road) -> None:
    """So far beside the picture that the square of the distance is no number of float32."""
    K = torch.tensor([[30.0, 0, 10], [0, 30, 9], [0, 0, 1]])
    view, parameters = Camera(torch.eye(4), K, 20, 18), cloud(8, seed=2)
    parameters[0] = torch.tensor([[1e30, 0.0, 4.0], [0.0, -1e25, 4.0]] + [[0.0, 0.0, 4.0]] * 6)
    wanted = compare(road, parameters, view, 5)
    assert wanted["extent"][:2].min() > 0 and wanted["alpha"].max() > 0


def test_unusual_opacities(road: Road) -> None:
    """Opaque ones in a row, as in every finished model: gsplat leaves out the last that counts."""
    g = torch.Generator().manual_seed(5)
    n = 120
    center = torch.rand(n, 2, generator=g) * torch.tensor([WIDTH, HEIGHT])
    size = torch.full((n,), 6.0)
    p = footprints(center, size, size / 2, torch.rand(n, generator=g) * 3, 0.9995 + 0 * size, g)
    values = torch.rand(n, 3, generator=g)

    def run(device: torch.device) -> tuple[Outputs, list[KBuffer], Outputs]:
        splats = p.splats.to(device).requires_grad_(True)
        mine = values.to(device).requires_grad_(True)
        out, buffers = pictures(
            Projected(splats, p.depth.to(device), p.extent.to(device), p.rgb.to(device)), mine, 8
        )
        d_splats, d_values = torch.autograd.grad(
            list(out.values()), [splats, mine], weights_like(out)
        )
        return out, buffers, {"splats": d_splats, "values": d_values}

    with road.taken():
        out, buffers, gradients = run(road.device)
    wanted, wanted_buffers, wanted_gradients = run(torch.device("cpu"))
    for name, tensor in wanted.items():
        assert_close(road, name, out[name], tensor)
    assert_same_buffers(buffers, wanted_buffers)
    assert_same_gradients(road, gradients, wanted_gradients)
    assert ((1 - wanted["alpha"]) < 1e-4).double().mean() > 0.2
    with pytest.MonkeyPatch.context() as m, road.taken():  # gsplat alone would be seen to differ
        m.setattr(gaussians_gsplat, "_closed", lambda image, alpha, *_: (image, alpha))
        alone = run(road.device)[0]["image"].cpu()
    assert (alone - wanted["image"]).abs().max() > 0.01


def test_unusual_tile_with_many(road: Road) -> None:
    """More than a batch in a tile, faint enough that the last ones are seen."""
    p = screen(1500, 16, 16, seed=6, opacity=0.02)
    values = torch.rand(1500, 3, generator=torch.Generator().manual_seed(6))
    wanted, wanted_buffers = pictures(p, values, 8, 16, 16)
    with road.taken():
        on_device = Projected(*[t.to(road.device) for t in p])
        out, buffers = pictures(on_device, values.to(road.device), 8, 16, 16)
    for name, tensor in wanted.items():
        assert_close(road, name, out[name], tensor)
    assert_same_buffers(buffers, wanted_buffers)
    exact = gaussians_torch.splat(double(p), values.double(), 16, 16, 8)
    assert_close(road, "image", out["image"], exact[0])


# ---------------------------------------------------------------------------- on the GPU alone
@pytest.fixture
def gpu() -> Road:
    return real()


@pytest.mark.cuda
def test_two_streams_at_once(gpu: Road) -> None:
    """Kernels go into the current stream: nobody reads what is not yet written."""
    parameters, view = cloud(3000, seed=7, size=0.05), camera(256, 256)
    wanted = everything(parameters, view, 4, torch.device("cpu"))[0]["layers"]
    streams = [torch.cuda.Stream() for _ in range(2)]
    found = []
    for stream in streams * 3:
        with torch.cuda.stream(stream):
            found.append(everything(parameters, view, 4, gpu.device)[0]["layers"])
    torch.cuda.synchronize()
    for image in found:
        assert_close(gpu, "layers", image, wanted)


@pytest.mark.cuda
def test_large_scene(gpu: Road) -> None:
    parameters, view = cloud(100_000, seed=8, size=0.01), camera(800, 800)
    compare(gpu, parameters, view, 8)
