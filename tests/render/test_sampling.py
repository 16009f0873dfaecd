"""Pixels of several samples: the same filter, exact means, pictures that are what they say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.gaussians.cloud import Cloud
from render.kbuffer.gaussians import splat
from render.sampling import AREA, LEAST, PUBLISHED, Sampling

SIZE = (14, 11)


def camera(shift: tuple[float, float] = (0.0, 0.0)) -> Camera:
    """At distance 4; its pixels' centres look where others' do that are ``shift`` px farther."""
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[2, 3] = 4
    K = torch.tensor([[20.0, 0, 7.2 - shift[0]], [0, 20.0, 5.4 - shift[1]], [0, 0, 1]])
    return Camera(w2c, K.double(), *SIZE)


def cloud(sampling: Sampling) -> Cloud:
    g = torch.Generator().manual_seed(2)
    n = 60
    return Cloud(
        {
            "means": torch.rand(n, 3, generator=g) * 2 - 1,
            "quats": torch.randn(n, 4, generator=g),
            "log_scales": torch.randn(n, 3, generator=g) * 0.5 - 3,
            "logits": torch.randn(n, generator=g) + 1,
            "sh0": torch.randn(n, 3, generator=g),
            "sh_rest": torch.zeros(n, 0, 3),
        },
        sampling,
    )


def picture(seen: Cloud, view: Camera) -> Tensor:
    """[H, W, 4] of the finer grid, premultiplied, with alpha."""
    projected = seen.project(view, 0.1, antialias=False)
    finer = seen.sampling.finer(view)
    found = splat(projected, projected.rgb, finer.width, finer.height, 0)
    return torch.cat([found.image, found.alpha[..., None]], -1)


def test_one_sample_is_3d_gaussian_splatting() -> None:
    assert PUBLISHED == (0.3, 1)
    assert PUBLISHED.blur() == 0.3
    assert PUBLISHED.finer(view := camera()) is view
    image = torch.rand(4, 6, 3)
    assert PUBLISHED.mean(image) is image


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("low_pass", [0.1, 0.3])
def test_a_pixel_keeps_its_filter(low_pass: float, samples: int) -> None:
    """Variances of a blur and of the spread of independent spots add up."""
    spots = (torch.arange(samples) + 0.5) / samples - 0.5  # of a pixel
    # Each spot stands for its cell, whose own variance the finer grid leaves to the blur.
    spread = float(spots.square().mean())
    assert math.isclose(spread, AREA * (1 - samples**-2), rel_tol=1e-6)
    blur = Sampling(low_pass, samples).blur()
    assert math.isclose(blur / samples**2 + spread, low_pass, rel_tol=1e-6)
    assert Sampling(0.01, samples).blur() == LEAST  # narrower than a pixel: no negative blur


@pytest.mark.parametrize("samples", [2, 3])
def test_a_pixel_is_the_mean_of_pictures_a_part_of_it_apart(samples: int) -> None:
    finer = Sampling(0.3, samples)
    seen = finer.mean(picture(cloud(finer), camera()))
    assert seen.shape == (SIZE[1], SIZE[0], 4)
    assert float(seen[..., 3].max()) > 0.9
    once = cloud(Sampling(finer.blur() / samples**2))
    spots = [(i + 0.5) / samples - 0.5 for i in range(samples)]
    apart = torch.stack([picture(once, camera((x, y))) for y in spots for x in spots])
    # Contributions below 1/255 are left out of every spot by itself, in the same way.
    torch.testing.assert_close(seen, apart.mean(0), atol=2e-4, rtol=0)
    assert float((picture(cloud(finer.once()), camera()) - seen).abs().max()) > 0.02


@pytest.mark.parametrize("rest", [(), (3,), (2, 5)])
@pytest.mark.parametrize("samples", [2, 3])
def test_means_and_their_gradients(samples: int, rest: tuple[int, ...]) -> None:
    sampling = Sampling(0.1, samples)
    size = (2 * samples, 4 * samples, *rest)
    image = torch.rand(size, dtype=torch.float64, requires_grad=True)
    blocks = image.reshape(2, samples, 4, samples, *rest)
    torch.testing.assert_close(sampling.mean(image), blocks.mean((1, 3)))
    assert torch.autograd.gradcheck(sampling.mean, (image,))
    shuffled = image.detach().transpose(0, 1)  # not contiguous
    expected = shuffled.reshape(4, samples, 2, samples, *rest).mean((1, 3))
    torch.testing.assert_close(sampling.mean(shuffled), expected)


def test_depth_is_that_of_what_is_there() -> None:
    depth = torch.tensor([[2.0, 4.0], [0.0, 0.0]])
    alpha = torch.tensor([[0.75, 0.25], [0.0, 0.0]])
    assert float(Sampling(0.1, 2).mean_depth(depth, alpha)) == pytest.approx(2.5)
    assert float(Sampling(0.1, 2).mean_depth(0 * depth, 0 * alpha)) == 0.0
    assert Sampling(0.1, 1).mean_depth(depth, alpha) is depth


@pytest.mark.parametrize(
    "broken", [(0.0, 1), (-1.0, 2), (math.nan, 1), (math.inf, 2), (0.1, 0), (0.1, 5)]
)
def test_what_the_kernels_cannot_take(broken: tuple[float, int]) -> None:
    assert not Sampling(*broken).usable
    assert Sampling(0.1, 4).usable


def test_a_draft_has_one_sample_and_leaves_no_trace() -> None:
    seen = cloud(Sampling(0.1, 3))
    with pytest.raises(ZeroDivisionError), seen.sampled_once():
        assert seen.sampling == (0.1, 1)
        raise ZeroDivisionError
    assert seen.sampling == (0.1, 3)
