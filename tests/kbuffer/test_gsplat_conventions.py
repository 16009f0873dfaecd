"""gsplat's conventions are those that ``gaussians_gsplat`` says. Needs gsplat, but no GPU.

What is compared is gsplat's own reference code in torch, which its tests hold its kernels against.
"""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians, gaussians_torch, gsplat_found
from tests.kbuffer.gaussian_scenes import camera, cloud

gsplat = pytest.importorskip("gsplat", reason="gsplat is not installed")


def projected(parameters: list[Tensor], view: Camera) -> tuple[Tensor, ...]:
    """Radii [N, 2], centres [N, 2], conics [N, 3], compensations [N] by gsplat, in float32."""
    from gsplat.cuda import _torch_impl as reference

    means, quats, log_scales = parameters[:3]
    quats = torch.nn.functional.normalize(quats, dim=1)
    covariances, _ = reference._quat_scale_to_covar_preci(quats, log_scales.exp(), True, False)
    radii, centers, _, conics, compensations = reference._fully_fused_projection(
        means, covariances, view.world_to_camera.float()[None], view.K.float()[None], view.width,
        view.height, calc_compensations=True,
    )  # fmt: skip
    return radii[0], centers[0], conics[0], compensations[0]


def test_equal_footprints() -> None:
    parameters, view = cloud(400, seed=1, size=0.1), camera(61, 47)
    radii, centers, conics, compensations = projected(parameters, view)
    mine = gaussians.project(*parameters, view)
    faded = gaussians.project(*parameters, view, antialias=True)
    seen = (radii > 0).all(1) & (faded.extent[:, 0] > 0)
    assert seen.sum() > 200
    torch.testing.assert_close(mine.splats[seen, :2], centers[seen], rtol=0, atol=1e-4)
    largest = conics[seen].abs().amax(1, keepdim=True)
    torch.testing.assert_close(
        mine.splats[seen, 2:5] / largest, conics[seen] / largest, rtol=0, atol=1e-4
    )
    ratio = (faded.splats[:, 5] / mine.splats[:, 5])[seen]
    torch.testing.assert_close(ratio, compensations[seen], rtol=0, atol=1e-4)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_equal_harmonics(degree: int) -> None:
    from gsplat.cuda import _torch_impl as reference

    parameters = cloud(200, seed=2, sh=(degree + 1) ** 2 - 1)
    view = camera(61, 47)
    coefficients = torch.cat([parameters[4][:, None], parameters[5]], 1)
    directions = parameters[0] - view.position.float()
    wanted = (reference._spherical_harmonics(degree, directions, coefficients) + 0.5).clamp(min=0)
    mine = gaussians.project(*parameters, view)
    seen = mine.extent[:, 0] > 0
    torch.testing.assert_close(mine.rgb[seen], wanted[seen], rtol=0, atol=1e-5)


def test_needles_lose_their_width_there_but_not_here() -> None:
    """Why projection is ours: 2 m long, 1 mm thick, seen from 4 m at 800 x 800."""
    g = torch.Generator().manual_seed(0)
    n, view = 200, camera(800, 800)
    parameters = [
        0.3 * torch.randn(n, 3, generator=g),
        torch.randn(n, 4, generator=g),
        torch.tensor([[3.0, 1e-3, 1e-3]]).log().repeat(n, 1),
        torch.zeros(n), torch.zeros(n, 3), torch.zeros(n, 0, 3),
    ]  # fmt: skip
    exact = width(gaussians_torch.project(*[t.double() for t in parameters], view)[0][:, 2:5])
    mine = gaussians.project(*parameters, view)
    seen = mine.extent[:, 0] > 0
    error = (width(mine.splats[:, 2:5]) / exact - 1)[seen].abs()
    theirs = (width(projected(parameters, view)[2]) / exact - 1)[seen].abs()
    assert error.max() < 1e-5 and theirs.max() > 0.01


def width(conics: Tensor) -> Tensor:
    """Least standard deviation [N] of footprints, px."""
    a, b, c = conics.double().unbind(1)
    largest = (a + c) / 2 + (((a - c) / 2) ** 2 + b * b).sqrt()
    return largest**-0.5


def test_functions_are_called_as_they_are_declared() -> None:
    """The stand-in of the tests takes what gsplat takes, by position."""
    from tests.kbuffer.gaussian_roads import Gsplat

    assert gsplat_found.installed().startswith("1.5.")
    for name in ("isect_tiles", "isect_offset_encode", "rasterize_to_pixels"):
        mine = list(inspect.signature(getattr(Gsplat(), name)).parameters)
        theirs = list(inspect.signature(getattr(gsplat, name)).parameters)
        assert len(mine) <= len(theirs)
        required = [
            p for p in inspect.signature(getattr(gsplat, name)).parameters.values()
            if p.default is p.empty
        ]  # fmt: skip
        assert len(mine) == len(required), name


def test_its_default_strategy_never_lowers_opacities() -> None:
    """``benchmarks/gsplat_baseline.py`` says so; a version that does must be compared as it is."""
    source = inspect.getsource(gsplat.DefaultStrategy.step_post_backward)
    assert "step % self.reset_every == 0 & step > 0" in source
    every = 3000
    assert not any(step % every == 0 & step > 0 for step in range(1, 4 * every))
    assert math.isclose(gsplat.DefaultStrategy().prune_opa, 0.005)
