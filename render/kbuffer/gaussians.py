"""Gaussian footprints: projection, compositing and the K heaviest contributions of each pixel.

Three differentiable functions, each with a plain twin of the same name in
``gaussians_torch.py``:

* :func:`project` -- 3D Gaussians and spherical harmonics to screen-space splats and colours,
* :func:`splat` -- the composite of *all* contributions, N channels, with the K-buffer,
* :func:`splat_layers` -- the picture made from the K layers alone.

The kernels run on the CPU in C++ (``gaussians_native``) or, without a compiler, in Numba
(``gaussians_numba``), and on tensors of a GPU where gsplat is installed (``gaussians_gsplat``);
without it these are copied to the CPU and back. Where nothing else works the twins run: same
values, much slower, and only for small scenes.
"""

from __future__ import annotations

import functools
import logging
import math
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, gaussians_native, gaussians_torch
from render.kbuffer.types import KBuffer

MAX_LAYERS = 64
TWIN_MAX = 1 << 28  # Gaussians x pixels that the dense twin takes on: about 10 GB of matrices

log = logging.getLogger(__name__)


class Projected(NamedTuple):
    """Splats on the screen. Rows of Gaussians that cannot be seen have extent 0."""

    splats: Tensor  # [N, 6] x, y (px), conic a, b, c, opacity; differentiable
    depth: Tensor  # [N] camera z
    extent: Tensor  # [N, 2] half size in px of the region with alpha >= 1/255
    rgb: Tensor  # [N, 3] >= 0 (but for what a network adds to it); differentiable


class Splatted(NamedTuple):
    """A composite of all contributions. ``image`` is premultiplied: no background yet."""

    image: Tensor  # [H, W, C]
    alpha: Tensor  # [H, W]
    kbuffer: KBuffer


class Layers(NamedTuple):
    """The picture of the K layers. ``image`` is premultiplied: no background yet."""

    image: Tensor  # [H, W, C]
    alpha: Tensor  # [H, W] opacity of all contributions
    features: Tensor  # [H, W, K, F] the last F channels of each layer times its share
    kbuffer: KBuffer  # without layers where it was not asked for
    depth: Tensor  # [H, W] mean camera z of the layers by weight, 0 where nothing is


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
) -> Projected:
    """Project 3D Gaussians by the local affine approximation (Zwicker et al., EWA, 2002).

    Args:
        means: [N, 3] world positions.
        quats: [N, 4] (w, x, y, z), any length > 0.
        log_scales: [N, 3]. logits: [N] of the opacity.
        sh0: [N, 3], sh_rest: [N, B, 3] spherical harmonics, B in (0, 3, 8, 15).
        near: smallest camera z that is drawn, scene units.
        eps2d: low-pass added to the screen covariance, px^2.
        antialias: keep the energy of Gaussians smaller than the low-pass (Mip-Splatting).

    Gaussians with a non-finite parameter cannot be seen and get no gradient.

    Raises:
        ValueError: for wrong shapes and ranges, by name.
    """
    _check_gaussians(means, quats, log_scales, logits, sh0, sh_rest)
    if not (near > 0 and math.isfinite(near)):
        raise ValueError(f"near: expected a finite number > 0, got {near}")
    if not (eps2d >= 0 and math.isfinite(eps2d)):
        raise ValueError(f"eps2d: expected a finite number >= 0, got {eps2d}")
    tensors = (means, quats, log_scales, logits, sh0, sh_rest)
    if gpu := _gpu(means.device):
        options = {"near": near, "eps2d": eps2d, "antialias": antialias}
        return Projected(*gpu.project(*tensors, camera, **options))
    kernels = _kernels()
    if kernels is None:
        options = {"near": near, "eps2d": eps2d, "antialias": antialias}
        return Projected(*gaussians_torch.project(*tensors, camera, **options))
    view = (_pack(camera, near, eps2d), (camera.width, camera.height), bool(antialias))
    return Projected(*_Project.apply(*tensors, view, kernels))


def splat(projected: Projected, values: Tensor, width: int, height: int, k: int) -> Splatted:
    """Composite all contributions front to back, and keep each pixel's K heaviest.

    Args:
        values: [N, C] colours or features, any C >= 1.
        k: layers of the K-buffer, 0 for none, at most 64.

    Raises:
        ValueError: for wrong shapes and ranges, by name.
    """
    _check_splats(projected, values, width, height, k, least=0)
    if gpu := _gpu(values.device):
        return Splatted(*gpu.splat(projected, values, width, height, k))
    kernels = _kernels()
    if kernels is None:
        _check_twin(len(values), width, height)
        return Splatted(*gaussians_torch.splat(projected, values, width, height, k))
    p, size = projected, (width, height)
    image, alpha, *buffers = _Splat.apply(p.splats, values, p.depth, p.extent, size, k, kernels)
    return Splatted(image, alpha, KBuffer(*buffers))


def splat_layers(
    projected: Projected,
    values: Tensor,
    width: int,
    height: int,
    k: int,
    features: int = 0,
    *,
    kbuffer: bool = True,
) -> Layers:
    """The picture made from each pixel's K heaviest contributions.

    With w_k = alpha_k T_k (T through *all* contributions in front), S the sum of the K kept
    weights and A the opacity of all contributions, layer k has the share w_k A / S: the K layers
    stand for the whole pixel. Gradients flow through the kept contributions only.

    Args:
        values: [N, C]; the last ``features`` channels are also returned layer by layer.
        k: layers, 1 to 64.
        kbuffer: False where the K-buffer is not looked at, which saves the time to write it.

    Raises:
        ValueError: for wrong shapes and ranges, by name.
    """
    _check_splats(projected, values, width, height, k, least=1)
    if not 0 <= features <= values.shape[1]:
        raise ValueError(f"features: expected 0..{values.shape[1]}, got {features}")
    if gpu := _gpu(values.device):
        return Layers(*gpu.splat_layers(projected, values, width, height, k, features))
    kernels = _kernels()
    if kernels is None:
        _check_twin(len(values), width, height)
        return Layers(*gaussians_torch.splat_layers(projected, values, width, height, k, features))
    p = projected
    learns = torch.is_grad_enabled() and (p.splats.requires_grad or values.requires_grad)
    options = (width, height, k, features, kbuffer, learns)
    image, alpha, per_layer, depth, *buffers = _SplatLayers.apply(
        p.splats, values, p.depth, p.extent, options, kernels
    )
    return Layers(image, alpha, per_layer, KBuffer(*buffers), depth)


# ------------------------------------------------------------------------------ backends


def backend_name() -> str:
    """Which implementation runs here: native, numba or torch."""
    kernels = _kernels()
    if kernels is None:
        return "torch"
    return "native" if kernels is gaussians_native else "numba"


def gpu_ready() -> bool:
    """Whether Gaussians can be expected to stay on a GPU. Cheap: nothing is imported or built."""
    from render.kbuffer import gsplat_found

    return build.forced_backend() is None and not gsplat_found.expected()


def _gpu(device: torch.device) -> ModuleType | None:
    """What works on tensors of ``device`` where they are; None: they are copied to the CPU."""
    if device.type != "cuda" or build.forced_backend() is not None:
        return None
    from render.kbuffer import gaussians_gsplat, gsplat_found

    if gsplat_found.usable(device):
        return gaussians_gsplat
    why = gsplat_found.status(device)
    _warn(f"splatting: on the CPU, tensors are copied there and back ({why})")
    return None


def _kernels() -> ModuleType | None:
    """The module of kernels that runs here, None for the twins.

    Raises:
        RuntimeError: ``$KBUFFERS_BACKEND`` names one that is not available.
    """
    forced = build.forced_backend()
    if forced == "torch":
        return None
    if forced != "numba" and gaussians_native.load() is not None:
        return gaussians_native
    status = build.status("gs_cpu")
    if forced == "native":
        raise RuntimeError(f"backend native is not available: {status}")
    numba = _numba()
    if isinstance(numba, ModuleType):
        _warn(f"splatting: Numba, about a third of full speed (C++: {status})")
        return numba
    if forced == "numba":
        raise RuntimeError(f"backend numba is not available: {numba}")
    _warn(f"splatting: plain torch, for small scenes only (C++: {status}; Numba: {numba})")
    return None


@functools.cache
def _numba() -> ModuleType | str:
    """The Numba kernels, or why they cannot be used."""
    try:
        from render.kbuffer import gaussians_numba
    except Exception as error:  # absent, built for another numpy, no folder for its cache, ...
        return " ".join(str(error).split()) or type(error).__name__
    return gaussians_numba


@functools.cache
def _warn(text: str) -> None:
    log.warning(text)


# ------------------------------------------------------------------------------ checks


def _check_gaussians(
    means: Tensor, quats: Tensor, log_scales: Tensor, logits: Tensor, sh0: Tensor, sh_rest: Tensor
) -> None:
    n = means.shape[0] if means.ndim else 0
    _check_shape("means", means, (n, 3))
    _check_shape("quats", quats, (n, 4))
    _check_shape("log_scales", log_scales, (n, 3))
    _check_shape("logits", logits, (n,))
    _check_shape("sh0", sh0, (n, 3))
    ok = sh_rest.ndim == 3 and sh_rest.shape[::2] == (n, 3) and sh_rest.shape[1] in (0, 3, 8, 15)
    if not ok:
        raise ValueError(f"sh_rest: expected shape ({n}, 0|3|8|15, 3), got {tuple(sh_rest.shape)}")


def _check_splats(
    projected: Projected, values: Tensor, width: int, height: int, k: int, least: int
) -> None:
    n = projected.splats.shape[0] if projected.splats.ndim else 0
    _check_shape("splats", projected.splats, (n, 6))
    _check_shape("depth", projected.depth, (n,))
    _check_shape("extent", projected.extent, (n, 2))
    if values.ndim != 2 or values.shape[0] != n or values.shape[1] < 1:
        raise ValueError(f"values: expected shape ({n}, C >= 1), got {tuple(values.shape)}")
    if width < 1 or height < 1:
        raise ValueError(f"width, height: expected at least 1, got {width}, {height}")
    if not least <= k <= MAX_LAYERS:
        raise ValueError(f"k: expected {least}..{MAX_LAYERS}, got {k}")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")


def _check_twin(n: int, width: int, height: int) -> None:
    if n * width * height > TWIN_MAX:
        raise MemoryError(
            f"{n} Gaussians on {width}x{height} pixels are too many for plain torch; "
            "install a C++ compiler or Numba"
        )


# ------------------------------------------------------------------------------ autograd


def _cpu(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().to("cpu", torch.float32).contiguous() for t in tensors]


def _pack(camera: Camera, near: float, eps2d: float) -> Tensor:
    """Camera as the kernels read it, [21] float32."""
    w2c = camera.world_to_camera
    rest = torch.tensor([near, eps2d], dtype=torch.float64)
    parts = [w2c[:3, :3].reshape(9), w2c[:3, 3], camera.focal, camera.center, camera.position, rest]
    return torch.cat(parts).float()


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, logits, sh0, sh_rest, view, kernels):
        inputs = _cpu(means, quats, log_scales, logits, sh0, sh_rest)
        splats, depth, extent, rgb = kernels.project(*view, inputs)
        ctx.view, ctx.kernels = view, kernels
        ctx.count, ctx.device = sh_rest.shape[1], means.device
        ctx.save_for_backward(*inputs[:4], extent, rgb)
        out = [t.to(means.device) for t in (splats, depth, extent, rgb)]
        ctx.mark_non_differentiable(out[1], out[2])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_splats, _d_depth, _d_extent, d_rgb):
        *shapes, extent, rgb = ctx.saved_tensors
        given = (extent, rgb, *_cpu(d_splats, d_rgb))
        grads = ctx.kernels.project_backward(*ctx.view, shapes, ctx.count, *given)
        return (*[g.to(ctx.device) for g in grads], None, None)


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, splats, values, depth, extent, size, k, kernels):
        device = splats.device
        splats, values, depth, extent = _cpu(splats, values, depth, extent)
        bins = kernels.Bins(splats, depth, extent, *size)
        buffers, transmittance, image, last = kernels.forward(bins, k, values)
        ctx.kernels, ctx.bins, ctx.device = kernels, bins, device
        ctx.save_for_backward(values, transmittance, last)
        out = [t.to(device) for t in (image, 1 - transmittance, *buffers)]
        ctx.mark_non_differentiable(*out[2:])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_image, d_alpha, *_):
        given = (*ctx.saved_tensors, *_cpu(d_image, d_alpha))
        d_splats, d_values = ctx.kernels.backward(ctx.bins, *given)
        return (d_splats.to(ctx.device), d_values.to(ctx.device), *[None] * 5)


class _SplatLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx, splats, values, depth, extent, options, kernels):
        width, height, k, features, kbuffer, learns = options
        device = splats.device
        splats, values, depth, extent = _cpu(splats, values, depth, extent)
        bins = kernels.Bins(splats, depth, extent, width, height)
        buffers, transmittance, image, per_layer, mean_depth = kernels.layers_forward(
            bins, k, values, features, kbuffer, learns
        )
        ctx.kernels, ctx.device = kernels, device
        if learns:
            ctx.save_for_backward(buffers[0], buffers[3], transmittance, values, splats)
        if not kbuffer:
            buffers = [b[..., :0] for b in buffers]
        out = [image, 1 - transmittance, per_layer, mean_depth, *buffers]
        out = [t.to(device) for t in out]
        ctx.mark_non_differentiable(*out[3:])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_image, d_alpha, d_per_layer, *_):
        given = (*ctx.saved_tensors, *_cpu(d_image, d_alpha, d_per_layer))
        d_splats, d_values = ctx.kernels.layers_backward(*given)
        return (d_splats.to(ctx.device), d_values.to(ctx.device), *[None] * 4)
