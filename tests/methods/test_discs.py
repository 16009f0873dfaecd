"""Soft discs through K-buffers: gradients, the kernel against its twin, formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build
from render.kbuffer.threads import set_kernel_threads
from render.kbuffer.types import KBuffer
from render.methods.point_radiance import discs, native

needs_kernel = pytest.mark.skipif(native.load() is None, reason=build.status("disc_cpu"))
K = 5
Parameters = tuple[Tensor, Tensor, Tensor, Tensor]


def camera(width: int = 23, height: int = 17) -> Camera:
    return Camera.look_at((0.3, -4.0, 1.0), (0, 0, 0), width=width, height=height)


def parameters(count: int = 60, harmonics: int = 8, seed: int = 0) -> Parameters:
    """Positions, log radii, base colours and harmonics, float32."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    radius = 0.15 + 0.2 * draw(count)
    return (
        1.6 * draw(count, 3) - 0.8,
        radius.log(),
        draw(count, 3),
        draw(count, 3 * harmonics) - 0.5,
    )


def kbuffer_of(p: Parameters, view: Camera, k: int = K, perspective: bool = True) -> KBuffer:
    screen = discs.on_screen(p[0], p[1], view, perspective=perspective, near=0.1)
    return discs.find(p[0], screen, view, k, 0.1)


@pytest.mark.parametrize("name", ["xyz", "radius", "base", "sh"])
@pytest.mark.parametrize("perspective", [True, False])
def test_gradients_through_the_kbuffer(name: str, perspective: bool) -> None:
    """Analytic against numerical, in float64, with the ids of the rasteriser held."""
    p = parameters(12)
    if not perspective:
        p = (p[0], p[1] - math.log(4), p[2], p[3])
    view = camera(9, 7)
    kbuffer = kbuffer_of(p, view, 4, perspective)
    assert int(kbuffer.count().max()) > 1
    place = ("xyz", "radius", "base", "sh").index(name)

    def picture(value: Tensor) -> tuple[Tensor, Tensor]:
        q = [t.double() for t in p]
        q[place] = value
        screen = discs.on_screen(q[0], q[1], view, perspective=perspective, smallest=0.5, near=0.1)
        return tuple(discs.picture(kbuffer, screen, q[2], q[3], view))  # pyright: ignore

    assert torch.autograd.gradcheck(picture, p[place].double().requires_grad_(True))


def gradients(
    p: Parameters, view: Camera, twin: bool, dtype: torch.dtype = torch.float32, **options: bool
) -> list[Tensor]:
    """Picture, light, and the gradients of all parameters."""
    kbuffer = kbuffer_of(p, view)
    q = [t.detach().to(dtype).requires_grad_(True) for t in p]
    screen = discs.on_screen(q[0], q[1], view, smallest=0.5, near=0.1)
    make = discs.picture_twin if twin else discs.picture
    seen = make(kbuffer, screen, q[2], q[3], view, **options)
    generator = torch.Generator().manual_seed(3)
    towards = torch.randn(*seen.light.shape, 4, generator=generator).to(dtype)
    ((seen.rgb * towards[..., :3]).sum() + (seen.light * towards[..., 3]).sum()).backward()
    found = [t.grad if t.grad is not None else torch.zeros_like(t) for t in q]
    return [seen.rgb.detach(), seen.light.detach(), *found]


@needs_kernel
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("harmonics", [0, 8, 9])
def test_kernel_against_its_twin(harmonics: int, corners: bool) -> None:
    p, view = parameters(300, harmonics), camera(61, 47)
    options = {"constant": harmonics == 9, "corners": corners}
    exact = gradients(p, view, True, torch.float64, **options)
    for ours, truth in zip(gradients(p, view, False, torch.float32, **options), exact, strict=True):
        assert ours.dtype == torch.float32
        if truth.numel():
            assert float((ours - truth).norm() / truth.norm().clamp(min=1e-9)) < 3e-6


@needs_kernel
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(threads: int) -> None:
    p, view = parameters(300), camera(61, 47)
    set_kernel_threads(1)
    alone = gradients(p, view, False)
    set_kernel_threads(threads)  # tests/conftest.py undoes it
    together = gradients(p, view, False)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@needs_kernel
@pytest.mark.parametrize("level", ["avx2", "baseline"])
def test_every_build_gives_the_same_bits(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p, view = parameters(200), camera(31, 27)
    best = gradients(p, view, False)
    monkeypatch.setenv("KBUFFERS_CPU_LEVEL", level)
    assert native.load() is not None
    again = gradients(p, view, False)
    assert all(torch.equal(a, b) for a, b in zip(best, again, strict=True))


@pytest.mark.parametrize("twin", [False, True])
def test_two_discs_by_hand(twin: bool) -> None:
    """A pixel; a disc half a radius away, of share 1/2, in front of one that is centred."""
    view = Camera.look_at((0, 0, 4), (0, 0, 0), up=(0, 1, 0), fov_x=0.5, width=1, height=1)
    uv = torch.tensor([[0.5, 0.5], [0.5, 2.5]])
    size, depth = torch.tensor([4.0, 4.0]), torch.tensor([5.0, 4.0])
    screen = discs.Screen(uv, size, depth, torch.tensor([1.0, 0.5]))
    kbuffer = KBuffer(
        torch.tensor([[[1, 0, -1]]], dtype=torch.int32),
        torch.tensor([[[4.0, 5.0, -1.0]]]),
        torch.tensor([[[0.25, 0.0, -1.0]]]),
    )
    base = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    sh = torch.zeros(2, 24)
    sh[1, 5] = 0.2  # blue of the harmonic that is 0.4886 z
    make = discs.picture_twin if twin else discs.picture
    seen = make(kbuffer, screen, base, sh, view)
    blue = -0.375 * 0.2 * 0.48860251  # the ray looks along -z
    torch.testing.assert_close(seen.rgb, torch.tensor([[[0.375, 0.625, blue]]]))
    assert float(seen.light[0, 0]) == 0.0


def test_small_discs_fade_as_their_area() -> None:
    """What a disc adds to a picture is its area, however small it is."""
    view = camera()
    xyz = torch.zeros(3, 3)
    log_radius = torch.tensor([0.4, 0.04, 0.004]).log()
    screen = discs.on_screen(xyz, log_radius, view, smallest=0.5)
    true = discs.on_screen(xyz, log_radius, view).radius
    torch.testing.assert_close(screen.peak * screen.radius.square(), true.square())
    assert float(screen.radius.min()) >= 0.5 and float(screen.peak[0]) > 0.9


@pytest.mark.parametrize("twin", [False, True])
def test_nothing_in_sight(twin: bool) -> None:
    p = parameters(5)
    away = Camera.look_at((0, -4, 0), (0, -8, 0), width=8, height=6)
    kbuffer = kbuffer_of(p, away)
    assert not bool(kbuffer.valid.any())
    screen = discs.on_screen(p[0].requires_grad_(True), p[1], away, near=0.1)
    make = discs.picture_twin if twin else discs.picture
    seen = make(kbuffer, screen, p[2], p[3], away)
    assert not bool(seen.rgb.any()) and bool((seen.light == 1).all())
    seen.light.sum().backward()
    assert p[0].grad is None or not bool(p[0].grad.any())


def test_colours_are_deferred() -> None:
    """Composited coefficients, then one colour, is the composite of the discs' own colours."""
    p, view = parameters(200), camera()
    kbuffer = kbuffer_of(p, view)
    screen = discs.on_screen(p[0], p[1], view, smallest=0.0, near=0.1)
    index = kbuffer.index.flatten(0, 1)
    centers = view.pixel_centers().view(-1, 2)
    basis = discs.pixel_basis(view, False, False, torch.float32)
    rows = discs.rows_of(index, torch.cat([p[2], p[3]], 1)).flatten(0, 1)
    colors = discs.shade(rows, basis.repeat_interleave(K, 0)).view(*index.shape, 3)
    alpha = discs.disc_alpha(index, screen, centers)
    out = discs.alpha_composite(
        alpha, torch.where(kbuffer.valid.flatten(0, 1)[..., None], colors, 0)
    )
    seen = discs.picture(kbuffer, screen, p[2], p[3], view)
    torch.testing.assert_close(seen.rgb.view(-1, 3), out.out, rtol=1e-5, atol=1e-5)


def test_the_corner_of_a_pixel_lies_half_a_pixel_before_its_centre() -> None:
    view = camera()
    moved = view.crop(0, 0, view.width, view.height)
    K_moved = moved.K.clone()
    K_moved[:2, 2] += 0.5
    shifted = Camera(view.world_to_camera, K_moved, view.width, view.height)
    corners = discs.pixel_basis(view, True, True, torch.float64)
    torch.testing.assert_close(corners, discs.pixel_basis(shifted, True, False, torch.float64))
    assert not torch.allclose(corners, discs.pixel_basis(view, True, False, torch.float64))
    assert float((corners[:, 0] - 0.28209479).abs().max()) < 1e-7


def test_gradient_loss_counts_changes_not_levels() -> None:
    target = torch.zeros(8, 8, 3)
    assert float(discs.gradient_loss(target + 0.3, target)) == 0.0
    step = target.clone()
    step[:, 4:] = 1.0  # one edge: 1 of 7, 2 of 6 and 3 of 5 differences along x
    expected = (1 / 7 + 2 / 6 + 3 / 5) / 3
    assert float(discs.gradient_loss(step, target)) == pytest.approx(expected)
    assert float(discs.gradient_loss(target[:1, :1] + 1, target[:1, :1])) == 0.0


def test_silhouette_on_black_is_the_authors_formula() -> None:
    image = torch.rand(4, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.tanh(5 * image.amax(-1))
    torch.testing.assert_close(discs.silhouette(image, torch.zeros(3)), expected)
    assert float(discs.silhouette(WHITE_PICTURE, torch.ones(3)).abs().max()) == 0.0


WHITE_PICTURE = torch.ones(2, 2, 3)
