"""Scenes of random Gaussians for the tests of the splatting kernels."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, gaussians
from render.kbuffer.gaussians import Projected
from render.kbuffer.types import KBuffer

PARAMETERS = ("means", "quats", "log_scales", "logits", "sh0", "sh_rest")


def use(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Force the backend, or skip where it is not available."""
    monkeypatch.setenv("KBUFFERS_BACKEND", backend)
    try:
        assert gaussians.backend_name() == backend
    except RuntimeError as fault:
        pytest.skip(str(fault))


def camera(width: int, height: int) -> Camera:
    """4 units in front of the origin, principal point off the middle."""
    view = Camera.look_at((1.0, -3.7, 1.2), (0.0, 0.0, 0.0), fov_x=0.7, width=width, height=height)
    view.K[:2, 2] += torch.tensor([0.3, -0.2])
    return view


def cloud(n: int, seed: int = 0, sh: int = 3, size: float = 0.15) -> list[Tensor]:
    """Parameters in the order of ``PARAMETERS``; most in view, some beside and behind."""
    g = torch.Generator().manual_seed(seed)
    log_scales = math.log(size) + 0.7 * torch.randn(n, 3, generator=g)
    return [
        0.9 * torch.randn(n, 3, generator=g),
        torch.randn(n, 4, generator=g) * 3,
        log_scales,
        1.5 * torch.randn(n, generator=g),
        torch.randn(n, 3, generator=g),
        0.3 * torch.randn(n, sh, 3, generator=g),
    ]


def screen(n: int, width: int, height: int, seed: int = 0, opacity: float = 0.9) -> Projected:
    """Splats in and around the picture, without the projection."""
    g = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height])
    center = torch.rand(n, 2, generator=g) * (size + 8) - 4
    long, short = torch.exp(torch.randn(2, n, generator=g) * 0.8 + 0.7).sort(0, descending=True)[0]
    angle = torch.rand(n, generator=g) * math.pi
    return footprints(center, long, short, angle, torch.rand(n, generator=g) * opacity + 0.05, g)


def footprints(
    center: Tensor,
    long: Tensor,
    short: Tensor,
    angle: Tensor,
    opacity: Tensor,
    generator: torch.Generator | None = None,
    depth: Tensor | None = None,
) -> Projected:
    """Splats of standard deviations ``long``, ``short`` (px) along ``angle``; random depths."""
    c, s = angle.double().cos(), angle.double().sin()
    p, q = long.double() ** -2, short.double() ** -2
    conic = torch.stack([c * c * p + s * s * q, c * s * (p - q), s * s * p + c * c * q], 1)
    var = torch.stack([(c * long) ** 2 + (s * short) ** 2, (s * long) ** 2 + (c * short) ** 2], 1)
    rim = 2 * (255 * opacity.double()).clamp(min=1).log()
    extent = (rim[:, None] * var).sqrt() * 1.00001 + 1e-3
    n = len(center)
    if depth is None:
        depth = 1 + torch.rand(n, generator=generator) * 4
    splats = torch.cat([center.double(), conic, opacity.double()[:, None]], 1).float()
    return Projected(splats, depth, extent.float(), torch.zeros(n, 3))


def double(projected: Projected) -> Projected:
    """The same splats for the twin in float64."""
    return Projected(*[t.double() for t in projected])


def assert_same_buffer(found: KBuffer, wanted: KBuffer) -> None:
    """Equal indices; depth, distance and weight to float32."""
    assert torch.equal(found.index, wanted.index)
    assert found.weight is not None and wanted.weight is not None
    close = functools.partial(torch.testing.assert_close, check_dtype=False)
    close(found.depth, wanted.depth, rtol=1e-6, atol=0)
    close(found.distance, wanted.distance, rtol=1e-4, atol=1e-5)
    close(found.weight, wanted.weight, rtol=1e-4, atol=1e-6)


def assert_identical(a: KBuffer, b: KBuffer) -> None:
    """The same bits."""
    assert a.weight is not None and b.weight is not None
    for x, y in zip(
        (a.index, a.depth, a.distance, a.weight),
        (b.index, b.depth, b.distance, b.weight),
        strict=True,
    ):
        assert torch.equal(x, y)


def levels() -> list[str]:
    """Instruction sets that this CPU has, plainest first."""
    known = ["baseline", "avx2", "avx512"]
    return known[: known.index(build.cpu_level()) + 1]
