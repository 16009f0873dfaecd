"""Projection, compositing and the K heaviest contributions, against the twins and a naive loop."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians, gaussians_torch
from render.kbuffer.gaussians import Projected
from render.kbuffer.types import KBuffer
from tests.kbuffer.gaussian_scenes import (
    assert_identical,
    assert_same_buffer,
    camera,
    cloud,
    double,
    footprints,
    screen,
    use,
)

SIZES = [(1, 1), (16, 16), (17, 33), (40, 7), (5, 64)]


@pytest.fixture(params=["native", "numba"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return request.param


@pytest.fixture(params=["native", "numba", "torch"])
def any_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return request.param


def values_of(n: int, channels: int, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


def naive(projected: Projected, width: int, height: int, k: int) -> tuple[KBuffer, Tensor]:
    """K-buffer and alpha, one pixel and one Gaussian after the other."""
    n = len(projected.depth)
    order = sorted(range(n), key=lambda i: (float(projected.depth[i]), i))
    shape = (height, width, k)
    index = torch.full(shape, -1, dtype=torch.int32)
    depth, distance, weight = torch.full(shape, -1.0), torch.full(shape, -1.0), torch.zeros(shape)
    alpha = torch.zeros(height, width)
    for y, x in itertools.product(range(height), range(width)):
        T, hits = 1.0, []
        for rank, i in enumerate(order):
            u, v, a, b, c, opacity = projected.splats[i].tolist()
            dx, dy = u - (x + 0.5), v - (y + 0.5)
            sigma = 0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy)
            value = min(opacity * math.exp(-sigma), 0.999)
            if projected.extent[i, 0] <= 0 or value < 1 / 255 or T < 1e-4:
                continue
            hits.append((-value * T, rank, i, sigma / math.log(255 * opacity)))
            T *= 1 - value
        alpha[y, x] = 1 - T
        kept = sorted(sorted(hits)[:k], key=lambda hit: hit[1])
        for slot, (minus_weight, _, i, ratio) in enumerate(kept):
            index[y, x, slot], depth[y, x, slot] = i, projected.depth[i]
            distance[y, x, slot], weight[y, x, slot] = ratio, -minus_weight
    return KBuffer(index, depth, distance, weight), alpha


# ---------------------------------------------------------------------------- projection
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sh", [0, 3, 8, 15])
def test_projection_equals_twin(backend: str, sh: int, antialias: bool) -> None:
    parameters, view = cloud(400, seed=sh, sh=sh, size=0.05), camera(60, 45)
    parameters[0][::5] *= 3  # beside the picture, where the Jacobian is held
    parameters[0][::11] += 2 * view.position.float()  # behind the camera
    parameters[3][::13] = -8.0  # transparent
    found = gaussians.project(*parameters, view, antialias=antialias)
    wanted = gaussians_torch.project(*[p.double() for p in parameters], view, antialias=antialias)
    seen = wanted[2][:, 0] > 0
    assert 250 < int(seen.sum()) < 350
    assert torch.equal(found.extent[:, 0] > 0, seen)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want.float(), rtol=2e-4, atol=1e-5)


def test_projected_centre_and_size(any_backend: str) -> None:
    """A ball on the axis at depth 5: sigma is f s / z, opacity and colour as given."""
    view = Camera(torch.eye(4), torch.tensor([[80.0, 0, 30], [0, 80, 20], [0, 0, 1]]), 60, 40)
    p = gaussians.project(
        torch.tensor([[0.5, -0.25, 5.0]]), torch.tensor([[2.0, 0, 0, 0]]),
        torch.full((1, 3), math.log(0.1)), torch.tensor([1.0]), torch.ones(1, 3),
        torch.zeros(1, 0, 3), view, eps2d=0.0,
    )  # fmt: skip
    x, y, a, b, c, opacity = p.splats[0].tolist()
    assert (x, y, float(p.depth[0])) == pytest.approx((38.0, 16.0, 5.0))
    assert opacity == pytest.approx(1 / (1 + math.exp(-1)))
    assert p.rgb[0].tolist() == pytest.approx([0.5 + 0.28209479] * 3)
    # off the axis the affine approximation stretches by 1 + (x / z)^2, 1 + (y / z)^2
    covariance = torch.linalg.inv(torch.tensor([[a, b], [b, c]]))
    assert covariance.diag().tolist() == pytest.approx([2.56 * 1.01, 2.56 * 1.0025], rel=1e-4)
    rim = math.sqrt(2 * math.log(255 * opacity))
    assert p.extent[0].tolist() == pytest.approx(
        [rim * 1.6 * math.sqrt(1.01), rim * 1.6 * math.sqrt(1.0025)], abs=2e-3
    )


def test_near_plane(any_backend: str) -> None:
    """Exactly at the plane is drawn, one step of a float in front of it is not."""
    near = 0.5
    z = torch.tensor([near, math.nextafter(near, 0), math.nextafter(near, 1), -1.0, 0.0])
    z[1] = torch.nextafter(torch.tensor(near), torch.tensor(0.0))
    means = torch.stack([torch.zeros(5), torch.zeros(5), z], 1)
    view = Camera(torch.eye(4), torch.tensor([[20.0, 0, 4], [0, 20, 4], [0, 0, 1]]), 8, 8)
    other = [torch.ones(5, 4), torch.full((5, 3), -4.0), torch.ones(5), torch.zeros(5, 3)]
    p = gaussians.project(means, *other, torch.zeros(5, 0, 3), view, near=near)
    assert (p.extent[:, 0] > 0).tolist() == [True, False, True, False, False]
    assert p.splats.isfinite().all()


# ---------------------------------------------------------------------------- agreement
@pytest.mark.parametrize(("width", "height", "k"), [(9, 6, 3), (1, 1, 2), (3, 8, 12)])
def test_twin_equals_naive_loop(width: int, height: int, k: int) -> None:
    projected = screen(40, width, height, seed=k)
    wanted, alpha = naive(projected, width, height, k)
    _, found_alpha, found = gaussians_torch.splat(
        double(projected), torch.ones(40, 1).double(), width, height, k
    )
    assert wanted.valid.any()
    assert_same_buffer(found, wanted)
    torch.testing.assert_close(found_alpha.float(), alpha, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 11, 16])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_composite_equals_twin(backend: str, width: int, height: int, k: int) -> None:
    projected, values = screen(150, width, height, seed=k), values_of(150, 1 + k % 5)
    found = gaussians.splat(projected, values, width, height, k)
    image, alpha, buffer = gaussians_torch.splat(
        double(projected), values.double(), width, height, k
    )
    assert_same_buffer(found.kbuffer, buffer)
    torch.testing.assert_close(found.image, image.float(), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found.alpha, alpha.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("k", "channels", "features"), [(1, 3, 0), (2, 5, 5), (8, 11, 8), (16, 4, 1)]
)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_layers_equal_twin(
    backend: str, width: int, height: int, k: int, channels: int, features: int
) -> None:
    projected, values = screen(150, width, height, seed=k + 20), values_of(150, channels)
    found = gaussians.splat_layers(projected, values, width, height, k, features)
    image, alpha, per_layer, buffer, depth = gaussians_torch.splat_layers(
        double(projected), values.double(), width, height, k, features
    )
    torch.testing.assert_close(found.depth, depth.float(), rtol=1e-4, atol=1e-5)
    assert_same_buffer(found.kbuffer, buffer)
    assert found.features.shape == (height, width, k, features)
    torch.testing.assert_close(found.image, image.float(), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found.alpha, alpha.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.features, per_layer.float(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("antialias", [False, True])
def test_whole_chain_equals_twin(backend: str, antialias: bool) -> None:
    """From parameters to layers, all in float32 against all in float64."""
    parameters, view = cloud(150, seed=5, size=0.1), camera(43, 30)
    found = gaussians.project(*parameters, view, antialias=antialias)
    layers = gaussians.splat_layers(found, found.rgb, 43, 30, 8)
    wanted = gaussians_torch.project(*[p.double() for p in parameters], view, antialias=antialias)
    image, alpha, _, buffer, _ = gaussians_torch.splat_layers(wanted, wanted[3], 43, 30, 8)
    assert torch.equal(layers.kbuffer.index, buffer.index)
    torch.testing.assert_close(layers.image, image.float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layers.alpha, alpha.float(), rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------- the K-buffer
def test_k_buffer_invariants(backend: str) -> None:
    projected = screen(300, 50, 37, seed=1)
    out = gaussians.splat(projected, torch.ones(300, 1), 50, 37, 8)
    buffer, valid = out.kbuffer, out.kbuffer.valid
    assert buffer.weight is not None
    assert valid.any() and not valid.all()
    assert (valid.int().diff(dim=-1) <= 0).all()  # empty slots last
    both = valid[..., 1:]
    assert (buffer.depth.diff(dim=-1)[both] >= 0).all()
    assert ((buffer.distance >= 0) & (buffer.distance < 1))[valid].all()
    assert (buffer.weight[valid] > 0).all()
    assert (buffer.weight.sum(-1) <= out.alpha + 1e-6).all()
    for empty, fill in ((buffer.depth, -1), (buffer.distance, -1), (buffer.weight, 0)):
        assert (empty[~valid] == fill).all()
    assert torch.equal(buffer.depth[valid], projected.depth[buffer.index[valid].long()])
    torch.testing.assert_close(out.image[..., 0], out.alpha, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [8, 16])
def test_take_equals_rasterising_with_k(backend: str, most: int) -> None:
    projected = screen(400, 40, 29, seed=2, opacity=0.5)
    whole = gaussians.splat(projected, torch.ones(400, 1), 40, 29, most).kbuffer
    for k in range(1, most + 1):
        own = gaussians.splat(projected, torch.ones(400, 1), 40, 29, k).kbuffer
        assert_identical(whole.take(k), own)


def test_enough_layers_are_the_whole_picture(any_backend: str) -> None:
    projected, values = screen(50, 31, 20, seed=3), values_of(50, 4)
    whole = gaussians.splat(projected, values, 31, 20, 0)
    layers = gaussians.splat_layers(projected, values, 31, 20, 50, features=4)
    assert whole.kbuffer.index.shape == (20, 31, 0)
    torch.testing.assert_close(layers.image, whole.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers.alpha, whole.alpha, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layers.features.sum(2), layers.image, rtol=1e-4, atol=1e-5)


def test_few_layers_stand_for_the_whole_pixel(any_backend: str) -> None:
    """The shares of the kept layers add up to the opacity of all contributions."""
    projected = screen(300, 31, 20, seed=4, opacity=0.3)
    layers = gaussians.splat_layers(projected, torch.ones(300, 1), 31, 20, 2, features=1)
    torch.testing.assert_close(layers.image[..., 0], layers.alpha, rtol=1e-5, atol=1e-6)
    assert layers.kbuffer.weight is not None
    assert (layers.kbuffer.weight.sum(-1) < 0.7 * layers.alpha).any()


def test_ties_in_depth_by_index(any_backend: str) -> None:
    one = screen(60, 20, 20, seed=6)
    projected = one._replace(depth=(one.depth * 1.2).round())
    buffer = gaussians.splat(projected, torch.ones(60, 1), 20, 20, 16).kbuffer
    depth, index = buffer.depth, buffer.index
    tied = (depth[..., 1:] == depth[..., :-1]) & buffer.valid[..., 1:]
    assert tied.sum() > 500
    assert (index.diff(dim=-1)[tied] > 0).all()
    wanted, _ = naive(projected, 20, 20, 16)
    assert torch.equal(index, wanted.index)


def test_ties_in_weight_keep_the_nearer(backend: str) -> None:
    """Opacities 1/4, 1/3 and 1/2 in depth order weigh exactly 1/4 each."""
    projected = footprints(
        torch.full((3, 2), 0.5), torch.ones(3), torch.ones(3), torch.zeros(3),
        torch.tensor([1 / 2, 1 / 4, 1 / 3]), depth=torch.tensor([3.0, 1.0, 2.0]),
    )  # fmt: skip
    weight = gaussians.splat(projected, torch.ones(3, 1), 1, 1, 3).kbuffer.weight
    assert weight is not None and weight.flatten().tolist() == [0.25, 0.25, 0.25]
    for k, kept in ((1, [1]), (2, [1, 2]), (3, [1, 2, 0])):
        buffer = gaussians.splat(projected, torch.ones(3, 1), 1, 1, k).kbuffer
        assert buffer.index.flatten().tolist() == kept


@pytest.mark.parametrize("heavier", [1, 7, 8, 15])
def test_of_equal_weights_the_farther_one_goes(backend: str, heavier: int) -> None:
    """Two equal light contributions, then K - 1 heavier ones: one of the two has to leave."""
    n = 2 + heavier
    opacity = torch.full((n,), 0.06)
    opacity[:2] = torch.tensor([1 / 64, 1 / 63])
    projected = footprints(
        torch.full((n, 2), 0.5), torch.ones(n), torch.ones(n), torch.zeros(n), opacity,
        depth=torch.arange(n) + 1.0,
    )  # fmt: skip
    values = torch.ones(n, 1)
    weight = gaussians.splat(projected, values, 1, 1, n).kbuffer.weight
    assert weight is not None
    assert weight[0, 0, 0] == weight[0, 0, 1] < weight[0, 0, 2:].min()
    buffer = gaussians.splat(projected, values, 1, 1, n - 1).kbuffer
    assert buffer.index.flatten().tolist() == [0, *range(2, n)]


# ---------------------------------------------------------------------------- extremes
def test_alpha_is_clamped(any_backend: str) -> None:
    projected = footprints(
        torch.full((2, 2), 0.5), torch.full((2,), 50.0), torch.full((2,), 50.0), torch.zeros(2),
        torch.ones(2), depth=torch.tensor([1.0, 2.0]),
    )  # fmt: skip
    out = gaussians.splat(projected, torch.tensor([[1.0, 0], [0, 1]]), 1, 1, 2)
    assert out.image[0, 0].tolist() == pytest.approx([0.999, 0.001 * 0.999], rel=1e-3)
    assert out.kbuffer.index[0, 0].tolist() == [0, 1]
    assert float(out.alpha[0, 0]) < 1


def test_opaque_wall_hides_the_rest(any_backend: str) -> None:
    """Behind three clamped layers a pixel is full; behind the wall's edge it is not."""
    wall = footprints(
        torch.full((3, 2), 10.0), torch.full((3,), 4.0), torch.full((3,), 4.0), torch.zeros(3),
        torch.ones(3), depth=torch.tensor([1.0, 1.1, 1.2]),
    )  # fmt: skip
    behind = screen(100, 40, 20, seed=7)
    behind = behind._replace(depth=behind.depth + 5)
    both = Projected(*[torch.cat(pair) for pair in zip(behind, wall, strict=True)])
    values = values_of(103, 3)
    out = gaussians.splat(both, values, 40, 20, 8)
    image, _, buffer = gaussians_torch.splat(double(both), values.double(), 40, 20, 8)
    assert_same_buffer(out.kbuffer, buffer)
    torch.testing.assert_close(out.image, image.float(), rtol=1e-4, atol=2e-5)
    index = out.kbuffer.index
    assert (index[9:11, 9:11] < 0).any()  # K = 8 slots, three at most are filled here
    assert set(index[9:11, 9:11].unique().tolist()) <= {-1, 100, 101, 102}
    alone = gaussians.splat(wall, values[100:], 40, 20, 8)
    assert torch.equal(out.image[9:11, 9:11], alone.image[9:11, 9:11])
    assert (index[:, 30:] < 100).all() and (index[:, 30:] >= 0).any()
    assert out.kbuffer.count().max() > 3


@pytest.mark.parametrize("sigma", [30.0, 1e3, 1e5])
def test_huge_footprints(any_backend: str, sigma: float) -> None:
    """Nearly flat over the picture, with an extent far beyond the range of an int."""
    n = 5
    g = torch.Generator().manual_seed(8)
    center = torch.randn(n, 2, generator=g) * sigma / 2
    projected = footprints(
        center, torch.full((n,), sigma * 3), torch.full((n,), sigma), torch.arange(n) * 0.3,
        torch.full((n,), 0.4), depth=torch.arange(n) + 1.0,
    )  # fmt: skip
    projected.extent[-1] = 6e12
    values = values_of(n, 3)
    out = gaussians.splat(projected, values, 37, 41, 3)
    image, _, buffer = gaussians_torch.splat(double(projected), values.double(), 37, 41, 3)
    torch.testing.assert_close(out.image, image.float(), rtol=1e-3, atol=1e-4)
    assert torch.equal(out.kbuffer.index, buffer.index)
    assert (out.kbuffer.count() == 3).all()


def test_huge_gaussians_in_the_world(any_backend: str) -> None:
    """A ball that fills the view is drawn in every pixel; one too large for a float in none."""
    view = camera(40, 36)
    for log_size in (3.0, 6.0, 9.0, 12.0, 15.0, 30.0, 60.0, 88.0, 100.0):
        for axes in ((1, 1, 1), (1, 0, 0), (0, 1, 1)):
            scales = log_size * torch.tensor([axes], dtype=torch.float32)
            p = gaussians.project(
                torch.zeros(1, 3), torch.tensor([[1.0, 0.2, 0.3, 0.1]]), scales, torch.zeros(1),
                torch.zeros(1, 3), torch.zeros(1, 0, 3), view,
            )  # fmt: skip
            out = gaussians.splat(p, torch.ones(1, 1), 40, 36, 1)
            assert all(t.isfinite().all() for t in p)
            covered = float((out.alpha > 0).float().mean())
            if axes == (1, 1, 1):
                assert covered == (1.0 if log_size < 10 else 0.0)
            assert float(out.alpha.max()) <= 0.51


@pytest.mark.parametrize("antialias", [False, True])
def test_needles(backend: str, antialias: bool) -> None:
    """1000 times longer than wide, in all directions: as in float64."""
    parameters, view = cloud(60, seed=9, size=1.0), camera(64, 50)
    parameters[2] = torch.tensor([0.5, -6.5, -6.5]).repeat(60, 1)
    parameters[3] += 4
    found = gaussians.project(*parameters, view, antialias=antialias)
    wanted = Projected(
        *gaussians_torch.project(*[p.double() for p in parameters], view, antialias=antialias)
    )
    assert torch.equal(found.extent > 0, wanted.extent > 0)
    torch.testing.assert_close(found.splats, wanted.splats.float(), rtol=5e-3, atol=1e-5)
    out = gaussians.splat(found, found.rgb, 64, 50, 4)
    image, alpha, _ = gaussians_torch.splat(wanted, wanted.rgb, 64, 50, 4)
    assert (out.image - image).abs().max() < 0.01
    assert (out.alpha - alpha).abs().mean() < 1e-4


def test_tiny_gaussians(any_backend: str) -> None:
    """Scale 0: only the low-pass is left; antialiased, almost nothing."""
    parameters, view = cloud(40, seed=10), camera(30, 30)
    parameters[2][:] = -80.0
    plain = gaussians.project(*parameters, view)
    seen = plain.extent[:, 0] > 0
    conic = torch.tensor([1 / 0.3, 0.0, 1 / 0.3]).expand(int(seen.sum()), 3)
    torch.testing.assert_close(plain.splats[seen][:, 2:5], conic)
    blurred = gaussians.project(*parameters, view, antialias=True)
    assert (blurred.splats[:, 5] <= 0.0051).all()


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("k", [1, 11])
def test_nothing_to_draw(any_backend: str, n: int, k: int) -> None:
    """No Gaussian at all, or one that is behind the camera or transparent."""
    view = camera(19, 18)
    behind, clear = cloud(n), cloud(n)
    behind[0][:] = view.position.float() - view.forward.float()
    clear[3][:] = -20.0
    for parameters in (behind, clear):
        leaves = [p.requires_grad_(True) for p in parameters]
        p = gaussians.project(*leaves, view)
        values = torch.cat([p.rgb, torch.ones(n, 1)], 1)
        layers = gaussians.splat_layers(p, values, 19, 18, k, 2)
        whole = gaussians.splat(p, values, 19, 18, k)
        for out in (layers, whole):
            assert out.image.shape == (18, 19, 4)
            assert not out.image.any() and not out.alpha.any()
            assert out.kbuffer.index.shape == (18, 19, k)
            assert not out.kbuffer.valid.any()
            assert (out.kbuffer.depth == -1).all()
        assert not layers.features.any()
        (
            layers.image.sum() + layers.features.sum() + whole.image.sum() + whole.alpha.sum()
        ).backward()
        for leaf in leaves:
            assert leaf.grad is not None and not leaf.grad.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_parameters_are_not_seen(any_backend: str, bad: float) -> None:
    """Such a Gaussian is as if it were not there: for the picture and for all gradients."""
    view = camera(24, 21)

    def render(parameters: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        leaves = [p.clone().requires_grad_(True) for p in parameters]
        p = gaussians.project(*leaves, view, antialias=True)
        layers = gaussians.splat_layers(p, p.rgb, 24, 21, 4, 3)
        whole = gaussians.splat(p, p.rgb, 24, 21, 4)
        loss = (layers.image + whole.image).square().sum() + layers.features.sum()
        grads = torch.autograd.grad(loss, leaves)
        return torch.cat([layers.image, whole.image, layers.features[..., 0]], -1), list(grads)

    clean = cloud(31, seed=11)
    rest = torch.arange(31) != 7
    wanted, wanted_grads = render([p[rest] for p in clean])
    for i, parameter in enumerate(clean):
        for column in (0, -1):
            dirty = [p.clone() for p in clean]
            dirty[i].view(31, -1)[7, column] = bad
            image, grads = render(dirty)
            assert torch.equal(image, wanted)
            for grad, want in zip(grads, wanted_grads, strict=True):
                assert grad.isfinite().all()
                torch.testing.assert_close(grad[rest], want, rtol=1e-5, atol=1e-6)
                assert not grad[7].any()
        assert parameter.isfinite().all()


def test_not_finite_splats_are_not_drawn(backend: str) -> None:
    """The compositing does not rely on the projection for it."""
    clean = screen(20, 24, 21, seed=12)
    rest = torch.arange(20) != 5
    wanted = gaussians.splat(Projected(*[t[rest] for t in clean]), torch.ones(19, 2), 24, 21, 4)
    for column, bad in itertools.product(range(6), (math.nan, math.inf)):
        splats = clean.splats.clone()
        splats[5, column] = bad
        out = gaussians.splat(clean._replace(splats=splats), torch.ones(20, 2), 24, 21, 4)
        assert torch.equal(out.image, wanted.image)
        assert not (out.kbuffer.index == 5).any()


# ---------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("means", (5, 2)), ("means", ()), ("means", (5,)), ("quats", (5, 3)), ("quats", (4, 4)),
        ("log_scales", (5,)), ("logits", (5, 1)), ("sh0", (5, 4)), ("sh_rest", (5, 4, 3)),
        ("sh_rest", (5, 9)), ("sh_rest", (4, 3, 3)),
    ],
)  # fmt: skip
def test_wrong_shapes_of_parameters(name: str, shape: tuple[int, ...]) -> None:
    names = ("means", "quats", "log_scales", "logits", "sh0", "sh_rest")
    given = dict(zip(names, cloud(5), strict=True))
    given[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=name):
        gaussians.project(**given, camera=camera(8, 8))


@pytest.mark.parametrize("option", ["near", "eps2d"])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_options(option: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{option}: expected"):
        gaussians.project(*cloud(5), camera(8, 8), **{option: bad})


def test_wrong_shapes_of_splats() -> None:
    p = screen(5, 8, 8)
    for values in (torch.ones(5), torch.ones(4, 3), torch.ones(5, 0)):
        with pytest.raises(ValueError, match="values: expected"):
            gaussians.splat(p, values, 8, 8, 4)
        with pytest.raises(ValueError, match="values: expected"):
            gaussians.splat_layers(p, values, 8, 8, 4)
    for name, shape in (("splats", (5, 5)), ("splats", ()), ("depth", (5, 1)), ("extent", (5,))):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            gaussians.splat(p._replace(**{name: torch.ones(shape)}), torch.ones(5, 1), 8, 8, 4)
    for features in (-1, 4):
        with pytest.raises(ValueError, match=r"features: expected 0\.\.3"):
            gaussians.splat_layers(p, torch.ones(5, 3), 8, 8, 4, features)
    with pytest.raises(ValueError, match="width, height"):
        gaussians.splat(p, torch.ones(5, 1), 8, 0, 4)


def test_number_of_layers(any_backend: str) -> None:
    p, values = screen(5, 8, 8), torch.ones(5, 1)
    assert gaussians.splat(p, values, 8, 8, 64).kbuffer.k == 64
    assert gaussians.splat_layers(p, values, 8, 8, 64).kbuffer.k == 64
    for k in (-1, 65):
        with pytest.raises(ValueError, match=r"k: expected 0\.\.64"):
            gaussians.splat(p, values, 8, 8, k)
    for k in (0, 65):
        with pytest.raises(ValueError, match=r"k: expected 1\.\.64"):
            gaussians.splat_layers(p, values, 8, 8, k)
