"""Gradients of the splatting kernels: against the twins, the twins against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians, gaussians_torch
from render.kbuffer.gaussians import Layers, Projected
from tests.kbuffer.gaussian_scenes import PARAMETERS, camera, cloud, double, footprints, screen, use

SIZES = [(1, 1), (17, 33), (40, 7)]


@pytest.fixture(params=["native", "numba"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return request.param


def like(outputs: list[Tensor], seed: int) -> list[Tensor]:
    """Incoming gradients."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=g).to(t) for t in outputs]


def gradients(
    function: Callable[..., tuple[Tensor, ...]], leaves: list[Tensor], seed: int = 0
) -> list[Tensor]:
    """Of all leaves, for random incoming gradients of all outputs of ``function(*leaves)``."""
    leaves = [t.detach().clone().requires_grad_(True) for t in leaves]
    outputs = list(function(*leaves))
    return list(torch.autograd.grad(outputs, leaves, like(outputs, seed)))


def assert_close(found: list[Tensor], wanted: list[Tensor], rtol: float = 1e-4) -> None:
    """Each gradient as a whole; its small entries to 1e-5 of its largest."""
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == torch.float32 and got.shape == want.shape
        if got.numel():
            scale = float(want.abs().max())
            assert scale > 0
            torch.testing.assert_close(got, want.float(), rtol=rtol, atol=1e-5 * scale)


# ---------------------------------------------------------------------------- against the twins
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sh", [0, 3, 8, 15])
def test_projection(backend: str, sh: int, antialias: bool) -> None:
    parameters, view = cloud(300, seed=sh, sh=sh, size=0.05), camera(60, 45)
    parameters[0][::5] *= 3  # beside the picture, where the Jacobian is held
    parameters[0][::11] += 2 * view.position.float()  # behind the camera
    parameters[3][::13] = -8.0  # transparent

    def differentiable(module, *p: Tensor) -> tuple[Tensor, Tensor]:
        projected = Projected(*module.project(*p, view, antialias=antialias))
        return projected.splats, projected.rgb

    found = gradients(lambda *p: differentiable(gaussians, *p), parameters)
    wanted = gradients(
        lambda *p: differentiable(gaussians_torch, *p), [p.double() for p in parameters]
    )
    assert_close(found, wanted, rtol=1e-3)
    unseen = gaussians.project(*parameters, view, antialias=antialias).extent[:, 0] == 0
    assert unseen.sum() > 30
    for grad in found:
        assert not grad[unseen].any()


@pytest.mark.parametrize(("k", "channels"), [(1, 1), (3, 3), (8, 7), (11, 2), (0, 16)])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_composite(backend: str, width: int, height: int, k: int, channels: int) -> None:
    projected = screen(120, width, height, seed=k)
    values = torch.randn(120, channels, generator=torch.Generator().manual_seed(k))

    def image(module, scene: Projected) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        return lambda splats, v: module.splat(scene._replace(splats=splats), v, width, height, k)[
            :2
        ]

    found = gradients(image(gaussians, projected), [projected.splats, values])
    exact = double(projected)
    wanted = gradients(image(gaussians_torch, exact), [exact.splats, values.double()])
    assert_close(found, wanted, rtol=1e-3)


@pytest.mark.parametrize(
    ("k", "channels", "features"),
    [(1, 3, 0), (2, 5, 5), (3, 4, 1), (8, 11, 8), (11, 1, 0), (16, 6, 2)],
)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_layers(
    backend: str, width: int, height: int, k: int, channels: int, features: int
) -> None:
    projected = screen(120, width, height, seed=k + 20)
    values = torch.randn(120, channels, generator=torch.Generator().manual_seed(k))

    def image(module, scene: Projected) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        def render(splats: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            moved = scene._replace(splats=splats)
            layers = Layers(*module.splat_layers(moved, v, width, height, k, features))
            return (layers.image, layers.alpha, layers.features)[: 3 if features else 2]

        return render

    found = gradients(image(gaussians, projected), [projected.splats, values])
    exact = double(projected)
    wanted = gradients(image(gaussians_torch, exact), [exact.splats, values.double()])
    assert_close(found, wanted, rtol=1e-3)


@pytest.mark.parametrize("antialias", [False, True])
def test_whole_chain(backend: str, antialias: bool) -> None:
    """Every parameter through projection and layers, float32 against float64."""
    parameters, view = cloud(120, seed=3, sh=8, size=0.1), camera(33, 26)

    def render(module, *p: Tensor) -> tuple[Tensor, ...]:
        projected = Projected(*module.project(*p, view, antialias=antialias))
        layers = Layers(*module.splat_layers(projected, projected.rgb, 33, 26, 8))
        return layers.image, layers.alpha

    found = gradients(lambda *p: render(gaussians, *p), parameters)
    wanted = gradients(lambda *p: render(gaussians_torch, *p), [p.double() for p in parameters])
    assert_close(found, wanted, rtol=5e-3)


@pytest.mark.parametrize("antialias", [False, True])
def test_needles(backend: str, antialias: bool) -> None:
    """1000 times longer than wide, in all directions."""
    parameters, view = cloud(60, seed=9, size=1.0), camera(64, 50)
    parameters[2] = torch.tensor([0.5, -6.5, -6.5]).repeat(60, 1)

    def render(module, *p: Tensor) -> tuple[Tensor, ...]:
        projected = Projected(*module.project(*p, view, antialias=antialias))
        return (projected.splats[:, 2:],)

    leaves = parameters[:4]
    rest = parameters[4:]
    found = gradients(lambda *p: render(gaussians, *p, *rest), leaves)
    exact = [r.double() for r in rest]
    wanted = gradients(lambda *p: render(gaussians_torch, *p, *exact), [p.double() for p in leaves])
    for got, want in zip(found, wanted, strict=True):
        error = (got - want).norm(dim=-1) if got.ndim > 1 else (got - want).abs()
        size = want.norm(dim=-1) if got.ndim > 1 else want.abs()
        assert float((error / (size + 1e-3 * size.max())).max()) < 0.02


def test_alpha_only_and_image_only(backend: str) -> None:
    """Outputs that take no part in the loss count as gradient zero."""
    projected, values = screen(80, 20, 18, seed=4), torch.ones(80, 3)
    splats = projected.splats.clone().requires_grad_(True)
    layers = gaussians.splat_layers(projected._replace(splats=splats), values, 20, 18, 4, 2)
    by_alpha = torch.autograd.grad(layers.alpha.sum(), splats, retain_graph=True)[0]
    by_image = torch.autograd.grad(layers.image[..., 0].sum(), splats, retain_graph=True)[0]
    by_feature = torch.autograd.grad(layers.features[..., 0].sum(), splats)[0]
    # with all values 1, each channel is the alpha
    torch.testing.assert_close(by_image, by_alpha, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(by_feature, by_alpha, rtol=1e-3, atol=1e-4)
    assert by_alpha.any()


def test_clamped_alpha_is_flat(backend: str) -> None:
    projected = footprints(
        torch.full((1, 2), 0.6), torch.full((1,), 30.0), torch.full((1,), 30.0), torch.zeros(1),
        torch.ones(1), depth=torch.ones(1),
    )  # fmt: skip
    splats = projected.splats.clone().requires_grad_(True)
    values = torch.ones(1, 1, requires_grad=True)
    for out in (
        gaussians.splat(projected._replace(splats=splats), values, 1, 1, 1),
        gaussians.splat_layers(projected._replace(splats=splats), values, 1, 1, 1),
    ):
        d_splats, d_values = torch.autograd.grad(out.image.sum(), (splats, values))
        assert not d_splats.any()
        assert float(d_values) == pytest.approx(0.999)


def test_inputs_of_float64_get_their_gradient(backend: str) -> None:
    parameters = [p.double().requires_grad_(True) for p in cloud(20)]
    p = gaussians.project(*parameters, camera(12, 12))
    gaussians.splat(p, p.rgb, 12, 12, 2).image.sum().backward()
    for parameter in parameters:
        assert parameter.grad is not None and parameter.grad.dtype == torch.float64
        assert parameter.grad.any()


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("spread", [(0.3, 2.0), (3.0, 10.0), (10.0, 20.0)])
def test_extreme_parameters_have_finite_gradients(
    backend: str, spread: tuple[float, float], antialias: bool
) -> None:
    """Positions, lengths and colours over many powers of ten."""
    n = 5000
    g = torch.Generator().manual_seed(1)

    def stretched(parameter: Tensor, decades: float) -> Tensor:
        return parameter * 10 ** (decades * torch.randn(n, 1, generator=g))

    means, quats, log_scales, logits, sh0, sh_rest = cloud(n)
    parameters = [
        stretched(means, spread[0]), stretched(quats, 6), log_scales * spread[1], logits * 20,
        stretched(sh0, 6), stretched(sh_rest.flatten(1), 6).view(n, 3, 3),
    ]  # fmt: skip

    def outputs(*p: Tensor) -> tuple[Tensor, Tensor]:
        projected = gaussians.project(*p, camera(20, 15), antialias=antialias)
        assert 1000 < int((projected.extent[:, 0] > 0).sum()) < 4500
        return projected.splats, projected.rgb

    for grad in gradients(outputs, parameters):
        assert grad.isfinite().all()


# ---------------------------------------------------------------------------- finite differences
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sh", [0, 3, 8])
def test_gradcheck_of_projection(sh: int, antialias: bool) -> None:
    """All parameters; the viewing direction is a constant by design, so means without colour."""
    view = camera(12, 9)
    parameters = [p.double().requires_grad_(True) for p in cloud(4, seed=1, sh=sh, size=0.3)]
    with torch.no_grad():
        parameters[0] *= 0.5
        parameters[0][3, 0] += 8  # held: beside the widened frustum

    def splats(*shape: Tensor) -> Tensor:
        return gaussians_torch.project(*shape, *parameters[4:], view, antialias=antialias)[0]

    def colors(sh0: Tensor, sh_rest: Tensor) -> Tensor:
        return gaussians_torch.project(*parameters[:4], sh0, sh_rest, view)[3]

    assert (gaussians_torch.project(*parameters, view)[2] > 0).all()
    assert torch.autograd.gradcheck(splats, parameters[:4])
    assert torch.autograd.gradcheck(colors, parameters[4:])


def tiny() -> tuple[Projected, Tensor]:
    """Five overlapping splats on 3x2 pixels, none near a threshold."""
    projected = footprints(
        torch.tensor([[1.0, 1.0], [2.1, 0.7], [0.4, 1.6], [1.7, 1.4], [1.4, 0.4]]),
        torch.tensor([2.0, 1.7, 2.2, 1.9, 2.4]), torch.tensor([1.5, 1.6, 1.8, 1.4, 1.7]),
        torch.arange(5) * 0.5, torch.tensor([0.5, 0.7, 0.3, 0.8, 0.6]),
        depth=torch.tensor([2.0, 1.0, 4.0, 3.0, 5.0]),
    )  # fmt: skip
    exact = double(projected)
    return exact, torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()


def test_gradcheck_of_composite() -> None:
    scene, values = tiny()
    inputs = (scene.splats.requires_grad_(True), values.requires_grad_(True))
    assert torch.autograd.gradcheck(
        lambda s, v: gaussians_torch.splat(scene._replace(splats=s), v, 3, 2, 2)[:2], inputs
    )


def test_gradcheck_of_all_layers() -> None:
    """With K = N nothing is held constant, so the layers are a plain function."""
    scene, values = tiny()
    inputs = (scene.splats.requires_grad_(True), values.requires_grad_(True))
    assert torch.autograd.gradcheck(
        lambda s, v: gaussians_torch.splat_layers(scene._replace(splats=s), v, 3, 2, 5, 1)[:3],
        inputs,
    )


def test_gradient_of_few_layers_is_partial() -> None:
    """Finite differences of the twin with the alphas that were not kept frozen at their values."""
    scene, values = tiny()
    splats = scene.splats.clone().requires_grad_(True)
    image, _, _, buffer, _ = gaussians_torch.splat_layers(
        scene._replace(splats=splats), values, 1, 1, 2
    )
    grad = torch.autograd.grad(image.sum(), splats)[0]
    kept = buffer.index[0, 0].tolist()
    others = [i for i in range(5) if i not in kept]
    assert not grad[others].any() and grad[kept].any()

    def picture(opacity: Tensor) -> Tensor:  # the formula, for the one pixel
        centre = torch.tensor([0.5, 0.5]).double()
        alphas, T, weight = [], torch.ones(()).double(), {}
        for i in scene.depth.argsort().tolist():
            u, v, a, b, c, _ = scene.splats[i]
            dx, dy = u - centre[0], v - centre[1]
            alphas.append(opacity[i] * (-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy)).exp())
            weight[i], T = alphas[-1] * T, T * (1 - alphas[-1])
        total = sum(weight[i] for i in kept)
        return sum((weight[i] * (1 - T) / total * values[i].sum() for i in kept), 0 * T)

    for i in kept:
        step = torch.zeros(5).double()
        step[i] = 1e-6
        opacity = scene.splats[:, 5].detach()
        slope = (picture(opacity + step) - picture(opacity - step)) / 2e-6
        assert float(grad[i, 5]) == pytest.approx(float(slope), rel=1e-6)


# ---------------------------------------------------------------------------- fitting
def test_adam_recovers_a_small_scene(backend: str) -> None:
    """Eight balls of known colour, seen from six sides: from a disturbed start to > 35 dB."""
    g = torch.Generator().manual_seed(0)
    n, size = 8, 32
    views = []
    for i in range(6):
        angle = math.tau * i / 6
        eye = (3 * math.cos(angle), 3 * math.sin(angle), 0.8 * (-1) ** i)
        views.append(Camera.look_at(eye, (0, 0, 0), fov_x=0.8, width=size, height=size))
    truth = [
        torch.randn(n, 3, generator=g) * 0.35, torch.randn(n, 4, generator=g),
        math.log(0.15) + 0.3 * torch.randn(n, 3, generator=g), torch.full((n,), 2.0),
        torch.randn(n, 3, generator=g), torch.zeros(n, 0, 3),
    ]  # fmt: skip

    def render(parameters: list[Tensor], i: int) -> Tensor:
        p = gaussians.project(*parameters, views[i])
        layers = gaussians.splat_layers(p, p.rgb, size, size, 4)
        return torch.cat([layers.image, layers.alpha[..., None]], -1)

    def psnr(parameters: list[Tensor]) -> float:
        with torch.no_grad():
            error = [(render(parameters, i) - pictures[i]).square().mean() for i in range(6)]
        return -10 * math.log10(float(torch.stack(error).mean()))

    with torch.no_grad():
        pictures = [render(truth, i) for i in range(6)]
    start = [t + 0.1 * torch.randn(t.shape, generator=g) for t in truth]
    start[4] = torch.zeros(n, 3)
    start[3] -= 2
    leaves = [t.requires_grad_(True) for t in start]
    before = psnr(leaves)
    rates = dict(zip(PARAMETERS, (0.005, 0.02, 0.02, 0.05, 0.05, 0.01), strict=True))
    optimizer = torch.optim.Adam(
        [{"params": [p], "lr": rate} for p, rate in zip(leaves, rates.values(), strict=True)]
    )
    for step in range(360):
        optimizer.zero_grad()
        (render(leaves, step % 6) - pictures[step % 6]).square().mean().backward()
        optimizer.step()
    after = psnr(leaves)
    assert before < 22 and after > 35, (before, after)
