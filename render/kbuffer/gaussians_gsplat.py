"""Gaussians on a GPU: gsplat composites, kernels of ours do what it lacks or does differently.

The three functions of ``gaussians.py`` for CUDA tensors, which stay where they are. gsplat 1.5
(github.com/nerfstudio-project/gsplat, Apache-2.0) sorts splats into tiles and composites all
contributions, forward and backward, from any splats that it is given. Its conventions are those
of ``gaussians.py`` in pixel centres, alpha >= 1/255 and its clamp at 0.999, sorting by depth and
order of the conic. Where it differs we keep ours, so that CPU and GPU show the same picture:

* *Projection* is ours, with the lines of the CPU (``cuda/gs_core.h``). gsplat's has the same
  frustum clamp and low-pass, but takes the determinant of the 2D covariance as xx yy - xy^2, which
  cancels in float32: footprints 2000 px long and half a pixel wide came out up to 6 % too wide or
  too thin (tests/kbuffer/test_gsplat_conventions.py); all others are equal to 2e-6. It also lets
  NaN through, leaves rows of culled Gaussians unwritten, and has no least compensation (ours:
  0.005) for ``antialias``. Its bound, the lesser of 3.33 sigma and alpha = 1/255, is no
  difference: at 3.33 sigma alpha is below 1/255. Harmonics have equal order and sign; we take
  their directions as constant, gsplat gives them a gradient if asked.
* *The last contribution*: gsplat stops before the one that would leave 1e-4 or less and drops it,
  with a weight of up to 0.1 (alpha is at most 0.999). We count it, so it is added here, with its
  gradients: :func:`_closed`.
* *The K heaviest* of a pixel gsplat does not know at all: ``gs_heaviest``.

gsplat is compiled with fast arithmetic, so alpha has about 1e-6 of its own, and where it lies at
1/255 a contribution may be counted by one and not by the other. Stated tolerance against the CPU:
2e-4 for values of size 1, except in one of 1000 pixels, where it is 1/128. K-buffers come from
our kernel: equal ids, weights to 1e-6.

Whether all of this can be used: :mod:`.gsplat_found`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import gaussians_cuda, gsplat_found
from render.kbuffer.cuda_nvrtc import TILE
from render.kbuffer.gaussians_cuda import Kernels, View
from render.kbuffer.gaussians_torch import ALPHA_MAX
from render.kbuffer.types import KBuffer

CHANNELS = 32  # composited at a time: gsplat holds them in registers


@functools.cache
def _gsplat() -> Any:
    import gsplat  # pyright: ignore[reportMissingImports]

    return gsplat


def _kernels(device: torch.device) -> Kernels:
    return gaussians_cuda.load(gsplat_found.index_of(device))


# ------------------------------------------------------------------------------ projection
def project(
    means: Tensor,
    quats: Tensor,
    log_scales: Tensor,
    logits: Tensor,
    sh0: Tensor,
    sh_rest: Tensor,
    camera: Camera,
    *,
    near: float = 0.01,
    eps2d: float = 0.3,
    antialias: bool = False,
) -> tuple[Tensor, ...]:
    """Splats [N, 6], depth [N], extent [N, 2], rgb [N, 3]; see ``gaussians.project``."""
    view = View(camera, near, eps2d, antialias)
    return _Project.apply(
        means, quats, log_scales, logits, sh0, sh_rest, view, _kernels(means.device)
    )


def _plain(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().float().contiguous() for t in tensors]


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, logits, sh0, sh_rest, view, kernels):
        inputs = _plain(means, quats, log_scales, logits, sh0, sh_rest)
        out = gaussians_cuda.project(kernels, view, inputs)
        ctx.view, ctx.kernels, ctx.harmonics = view, kernels, sh_rest.shape[1]
        ctx.save_for_backward(*inputs[:4], *out[2:])
        ctx.mark_non_differentiable(out[1], out[2])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_splats, _d_depth, _d_extent, d_rgb):
        *shapes, extent, rgb = ctx.saved_tensors
        given = (ctx.harmonics, extent, rgb, *_plain(d_splats, d_rgb))
        grads = gaussians_cuda.project_backward(ctx.kernels, ctx.view, shapes, *given)
        return (*grads, None, None)


# ------------------------------------------------------------------------------ compositing
def splat(
    projected: tuple[Tensor, Tensor, Tensor, Tensor],
    values: Tensor,
    width: int,
    height: int,
    k: int,
) -> tuple[Tensor, Tensor, KBuffer]:
    """Image [H, W, C] of all contributions, alpha [H, W], K-buffer; see ``gaussians.splat``."""
    splats = projected[0]
    order, offsets = _tiles(projected, width, height)
    buffers, _, closing = _walk(projected, order, offsets, width, height, k)
    if len(order) == 0:
        nothing = splats[:0].sum() + values[:0].sum()  # zero, with gradients of zero
        image = nothing + splats.new_zeros(height, width, values.shape[1])
        return image, nothing + splats.new_zeros(height, width), KBuffer(*buffers)
    parts, alpha = [], splats[:0]
    for part in values.float().split(CHANNELS, 1):
        image, alpha = _gsplat().rasterize_to_pixels(
            splats[None, :, :2],
            splats[None, :, 2:5],
            part[None],
            splats[None, :, 5],
            width,
            height,
            TILE,
            offsets[None],
            order,
        )  # [1, H, W, C], [1, H, W, 1]
        parts.append(image[0])
    image, alpha = _closed(torch.cat(parts, 2), alpha[0, :, :, 0], splats, values, closing)
    return image, alpha, KBuffer(*buffers)


def splat_layers(
    projected: tuple[Tensor, Tensor, Tensor, Tensor],
    values: Tensor,
    width: int,
    height: int,
    k: int,
    features: int = 0,
) -> tuple[Tensor, Tensor, Tensor, KBuffer, Tensor]:
    """Image, alpha, per-layer features, K-buffer and mean depth; see ``gaussians.splat_layers``."""
    splats, channels = projected[0], values.shape[1]
    order, offsets = _tiles(projected, width, height)
    buffers, through, _ = _walk(projected, order, offsets, width, height, k)
    buffer = KBuffer(*buffers)
    w, T = buffers[3].reshape(-1, k), through.reshape(-1, 1)  # [P, K], [P, 1]
    if len(splats) == 0:
        splats, values = splats.new_zeros(1, 6) + splats.sum(), values.new_zeros(1, channels)
    rows = _rows(buffer.index, w > 0, len(splats))  # [P * K]
    if torch.is_grad_enabled() and splats.requires_grad:
        w, T = _with_gradients(w, T, splats.index_select(0, rows), width)
    total = w.sum(1, keepdim=True)
    share = torch.where(total > 0, w * (1 - T) / total.clamp(min=1e-30), torch.zeros_like(w))
    per_layer = share[..., None] * values.float().index_select(0, rows).reshape(-1, k, channels)
    image = per_layer.sum(1).reshape(height, width, channels)
    per_layer = per_layer[..., channels - features :].reshape(height, width, k, features)
    depth = (buffers[3] * buffers[1]).sum(-1) / buffers[3].sum(-1).clamp(min=1e-30)
    return image, (1 - T).reshape(height, width), per_layer, buffer, depth


def _with_gradients(w: Tensor, T: Tensor, splats: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Weights [P, K] and transmittance [P, 1] as the kernel found them, with their gradients.

    These come from the alphas of the kept contributions, computed again. Transmittance is a product
    over all contributions: those that were not kept are the constant ratio between the kernel's and
    the product over the kept ones.

    Args:
        splats: [P * K, 6] of the layers; of empty ones any.
    """
    k, valid = w.shape[1], w > 0
    centers = _centers(torch.arange(len(w), device=w.device), width)
    # Zeros before any arithmetic: that of a splat far away may overflow, and 0 * inf is a gradient.
    splats = torch.where(valid[..., None], splats.reshape(-1, k, 6), 0.0)
    alpha = _alpha(splats, centers[:, None])  # [P, K], 0 where empty
    passed = torch.log1p(-alpha)  # [P, K]
    before = passed.cumsum(1) - passed
    w = torch.where(valid, w * _ratio(alpha.clamp(min=1e-6).log() + before), w)
    return w, T * _ratio(passed.sum(1, keepdim=True))


def _tiles(
    projected: tuple[Tensor, Tensor, Tensor, Tensor], width: int, height: int
) -> tuple[Tensor, Tensor]:
    """The Gaussians of all tiles, front to back in each [pairs], and where each tile begins."""
    splats, depth, extent, _ = (t.detach() for t in projected)
    columns, rows = -(-width // TILE), -(-height // TILE)
    finite = splats.isfinite().all(1, keepdim=True)
    radii = torch.where(finite, extent.ceil().clamp(max=1 << 30), 0).int()  # [N, 2]
    if len(splats) == 0:
        integers = {"dtype": torch.int32, "device": splats.device}
        return torch.zeros(0, **integers), torch.zeros(rows, columns, **integers)
    gsplat = _gsplat()
    _, keys, order = gsplat.isect_tiles(
        splats[None, :, :2].float(), radii[None], depth[None].float(), TILE, columns, rows
    )
    return order, gsplat.isect_offset_encode(keys, 1, columns, rows).reshape(rows, columns)


def _walk(
    projected: tuple[Tensor, Tensor, Tensor, Tensor],
    order: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
    k: int,
) -> tuple[list[Tensor], Tensor, Tensor]:
    splats, depth = _plain(projected[0], projected[1])
    kernels, size = _kernels(splats.device), (width, height)
    return gaussians_cuda.heaviest(kernels, splats, depth, order, offsets, size, k)


def _closed(
    image: Tensor, alpha: Tensor, splats: Tensor, values: Tensor, closing: Tensor
) -> tuple[Tensor, Tensor]:
    """Image and alpha with the contribution at which gsplat stopped."""
    height, width, channels = image.shape
    pixels = (closing.flatten() >= 0).nonzero()[:, 0]
    ids = closing.flatten()[pixels]
    flat = alpha.flatten()
    weight = _alpha(splats.index_select(0, ids), _centers(pixels, width))
    weight = weight * (1 - flat.index_select(0, pixels))
    added = weight[:, None] * values.index_select(0, ids)
    image = image.reshape(-1, channels).index_add(0, pixels, added.to(image.dtype))
    return image.reshape(height, width, channels), flat.index_add(0, pixels, weight).view_as(alpha)


def _alpha(splats: Tensor, centers: Tensor) -> Tensor:
    """Alpha of splats [..., 6] at pixel centres [..., 2], which they are known to reach."""
    x, y, a, b, c, opacity = splats.unbind(-1)
    dx, dy = x - centers[..., 0], y - centers[..., 1]
    sigma = 0.5 * a * dx * dx + b * dx * dy + 0.5 * c * dy * dy
    return (opacity * torch.exp(-sigma.clamp(min=0))).clamp(max=ALPHA_MAX)


def _centers(pixels: Tensor, width: int) -> Tensor:
    return torch.stack([pixels % width, pixels // width], 1) + 0.5


def _rows(index: Tensor, valid: Tensor, n: int) -> Tensor:
    """Rows of the layers' Gaussians, [P * K]; empty slots read any, and not all the same: their
    gradients, which are zero, would all be added at one place in memory."""
    index = index.flatten()
    spread = torch.arange(len(index), device=index.device, dtype=index.dtype) % n
    return torch.where(valid.flatten(), index, spread)


def _ratio(logarithm: Tensor) -> Tensor:
    """1, with the gradient of exp(logarithm) / its value."""
    return (logarithm - logarithm.detach()).exp()
