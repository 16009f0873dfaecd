"""Gaussian footprints: projection, compositing and the K heaviest contributions of each pixel.

Three differentiable functions, each with a plain twin of the same name in
``gaussians_torch.py``:

* :func:`project` -- 3D Gaussians and spherical harmonics to screen-space splats and colours,
* :func:`splat` -- the composite of *all* contributions, N channels, with the K-buffer,
* :func:`splat_layers` -- the picture made from the K layers alone.

The kernels run on the CPU (``cuda/gs_cpu.cpp``); tensors of other devices are copied there and
back. Without a compiler the twins run instead: same values, much slower.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, gaussians_torch
from render.kbuffer.types import KBuffer

MAX_LAYERS = 64


class Projected(NamedTuple):
    """Splats on the screen. Rows of Gaussians that cannot be seen have extent 0."""

    splats: Tensor  # [N, 6] x, y (px), conic a, b, c, opacity; differentiable
    depth: Tensor  # [N] camera z
    extent: Tensor  # [N, 2] half size in px of the region with alpha >= 1/255
    rgb: Tensor  # [N, 3] >= 0; differentiable


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
    kbuffer: KBuffer


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

    Raises:
        ValueError: for wrong shapes.
    """
    _check_gaussians(means, quats, log_scales, logits, sh0, sh_rest)
    tensors = (means, quats, log_scales, logits, sh0, sh_rest)
    if _native() is None:
        return Projected(
            *gaussians_torch.project(*tensors, camera, near=near, eps2d=eps2d, antialias=antialias)
        )
    return Projected(*_Project.apply(*tensors, _pack(camera, near, eps2d), camera, antialias))


def splat(projected: Projected, values: Tensor, width: int, height: int, k: int) -> Splatted:
    """Composite all contributions front to back, and keep each pixel's K heaviest.

    Args:
        values: [N, C] colours or features, any C >= 1.
        k: layers of the K-buffer, 0 for none.
    """
    _check_values(projected, values, k, least=0)
    if _native() is None:
        return Splatted(*gaussians_torch.splat(projected, values, width, height, k))
    p = projected
    image, alpha, *buffers = _Splat.apply(p.splats, values, p.depth, p.extent, width, height, k)
    return Splatted(image, alpha, KBuffer(*buffers))


def splat_layers(
    projected: Projected, values: Tensor, width: int, height: int, k: int, features: int = 0
) -> Layers:
    """The picture made from each pixel's K heaviest contributions.

    With w_k = alpha_k T_k (T through *all* contributions in front), S the sum of the K kept
    weights and A the opacity of all contributions, layer k has the share w_k A / S: the K layers
    stand for the whole pixel. Gradients flow through the kept contributions only.

    Args:
        values: [N, C]; the last ``features`` channels are also returned layer by layer.
    """
    _check_values(projected, values, k, least=1)
    if not 0 <= features <= values.shape[1]:
        raise ValueError(f"features: expected 0..{values.shape[1]}, got {features}")
    if _native() is None:
        return Layers(*gaussians_torch.splat_layers(projected, values, width, height, k, features))
    p = projected
    image, alpha, per_layer, *buffers = _SplatLayers.apply(
        p.splats, values, p.depth, p.extent, width, height, k, features
    )
    return Layers(image, alpha, per_layer, KBuffer(*buffers))


# ------------------------------------------------------------------------------ checks and ABI


def _check_gaussians(
    means: Tensor, quats: Tensor, log_scales: Tensor, logits: Tensor, sh0: Tensor, sh_rest: Tensor
) -> None:
    n = means.shape[0]
    expected = {"means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "logits": (n,)}
    expected["sh0"] = (n, 3)
    given = {"means": means, "quats": quats, "log_scales": log_scales, "logits": logits}
    given["sh0"] = sh0
    for name, shape in expected.items():
        if given[name].shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(given[name].shape)}")
    ok = sh_rest.ndim == 3 and sh_rest.shape[::2] == (n, 3) and sh_rest.shape[1] in (0, 3, 8, 15)
    if not ok:
        raise ValueError(f"sh_rest: expected shape ({n}, 0|3|8|15, 3), got {tuple(sh_rest.shape)}")


def _check_values(projected: Projected, values: Tensor, k: int, least: int) -> None:
    n = projected.splats.shape[0]
    if values.ndim != 2 or values.shape[0] != n or values.shape[1] < 1:
        raise ValueError(f"values: expected shape ({n}, C >= 1), got {tuple(values.shape)}")
    if not least <= k <= MAX_LAYERS:
        raise ValueError(f"k: expected {least}..{MAX_LAYERS}, got {k}")


_P, _I, _N = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_ABI = {
    "gs_project": [_P, _I, _I, _I, _N, *[_P] * 6, _I, *[_P] * 4, _I],
    "gs_project_backward": [_P, _I, _I, _I, _N, *[_P] * 4, _I, *[_P] * 10, _I],
    "gs_bins_make": [_N, _P, _P, _P, _I, _I, _I],
    "gs_bins_free": [_P],
    "gs_forward": [_P, _I, _P, _I, *[_P] * 7, _I],
    "gs_backward": [_P, _N, _P, _I, *[_P] * 6, _I],
    "gs_layers_forward": [*[_P] * 4, *[_I] * 5, _P, _P, _I],
    "gs_layers_backward": [*[_P] * 5, _N, *[_I] * 5, *[_P] * 5, _I],
}
_library: ctypes.CDLL | None = None


def _native() -> ctypes.CDLL | None:
    """The compiled kernels with their signatures set, or None."""
    global _library
    library = build.load("gs_cpu")
    if library is not None and library is not _library:
        for name, arguments in _ABI.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = {"gs_bins_make": _P, "gs_bins_free": None}.get(name, _I)
        _library = library
    return library


def _call(name: str, *arguments: object) -> None:
    """Call a kernel; tensors go as pointers, the thread count is appended."""
    library = _native()
    assert library is not None
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    status = getattr(library, name)(*pointers, torch.get_num_threads())
    if status == 2:
        raise MemoryError(f"{name}: not enough memory")
    if status != 0:
        raise RuntimeError(f"{name}: bad arguments (status {status})")


def _cpu(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().to("cpu", torch.float32).contiguous() for t in tensors]


def _pack(camera: Camera, near: float, eps2d: float) -> Tensor:
    """Camera as the kernels read it, [21] float32."""
    w2c = camera.world_to_camera
    rest = torch.tensor([near, eps2d], dtype=torch.float64)
    parts = [w2c[:3, :3].reshape(9), w2c[:3, 3], camera.focal, camera.center, camera.position, rest]
    return torch.cat(parts).float()


class _Bins:
    """Owns the native depth order and tile lists between forward and backward."""

    def __init__(self, splats: Tensor, depth: Tensor, extent: Tensor, width: int, height: int):
        library = _native()
        assert library is not None
        self._free = library.gs_bins_free
        self.pointer = library.gs_bins_make(
            splats.shape[0],
            splats.data_ptr(),
            depth.data_ptr(),
            extent.data_ptr(),
            width,
            height,
            torch.get_num_threads(),
        )
        if not self.pointer:
            raise MemoryError(
                f"not enough memory to sort {splats.shape[0]} Gaussians into tiles of "
                f"{width}x{height} pixels"
            )

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._free(self.pointer)


def _forward(
    bins: _Bins, width: int, height: int, k: int, values: Tensor | None
) -> tuple[list[Tensor], Tensor, Tensor | None, Tensor | None]:
    """K-buffer tensors, transmittance, and with ``values`` the full composite and last ranks."""
    index = torch.empty(height, width, k, dtype=torch.int32)
    weight, depth, distance = (torch.empty(height, width, k) for _ in range(3))
    transmittance = torch.empty(height, width)
    image = last = None
    channels = 0
    if values is not None:
        channels = values.shape[1]
        image = torch.empty(height, width, channels)
        last = torch.empty(height, width, dtype=torch.int32)
    _call(
        "gs_forward", bins.pointer, k, values, channels, index, weight, depth, distance,
        transmittance, image, last,
    )  # fmt: skip
    return [index, depth, distance, weight], transmittance, image, last


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, logits, sh0, sh_rest, packed, camera, antialias):  # noqa: ANN001
        inputs = _cpu(means, quats, log_scales, logits, sh0, sh_rest)
        n, count = means.shape[0], sh_rest.shape[1]
        head = (packed, camera.width, camera.height, int(antialias), n)
        splats, depth = torch.empty(n, 6), torch.empty(n)
        extent, rgb = torch.empty(n, 2), torch.empty(n, 3)
        _call("gs_project", *head, *inputs, count, splats, depth, extent, rgb)
        ctx.save_for_backward(*inputs[:4], extent, rgb)
        ctx.head, ctx.count, ctx.device = head, count, means.device
        out = [t.to(means.device) for t in (splats, depth, extent, rgb)]
        ctx.mark_non_differentiable(out[1], out[2])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_splats, _d_depth, _d_extent, d_rgb):  # noqa: ANN001
        means, quats, log_scales, logits, extent, rgb = ctx.saved_tensors
        n = means.shape[0]
        d_splats, d_rgb = _cpu(d_splats, d_rgb)
        grads = [torch.empty_like(t) for t in (means, quats, log_scales, logits)]
        grads += [torch.empty(n, 3), torch.empty(n, ctx.count, 3)]
        _call(
            "gs_project_backward", *ctx.head, means, quats, log_scales, logits, ctx.count,
            extent, rgb, d_splats, d_rgb, *grads,
        )  # fmt: skip
        return (*[g.to(ctx.device) for g in grads], None, None, None)


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, splats, values, depth, extent, width, height, k):  # noqa: ANN001
        device = splats.device
        splats, values, depth, extent = _cpu(splats, values, depth, extent)
        bins = _Bins(splats, depth, extent, width, height)
        buffers, transmittance, image, last = _forward(bins, width, height, k, values)
        ctx.bins, ctx.device = bins, device
        ctx.save_for_backward(values, transmittance, last)
        out = [t.to(device) for t in (image, 1 - transmittance, *buffers)]
        ctx.mark_non_differentiable(*out[2:])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_image, d_alpha, *_):  # noqa: ANN001
        values, transmittance, last = ctx.saved_tensors
        d_image, d_alpha = _cpu(d_image, d_alpha)
        n, channels = values.shape
        d_splats, d_values = torch.empty(n, 6), torch.empty_like(values)
        _call(
            "gs_backward", ctx.bins.pointer, n, values, channels, transmittance, last, d_image,
            d_alpha, d_splats, d_values,
        )  # fmt: skip
        return (d_splats.to(ctx.device), d_values.to(ctx.device), *[None] * 5)


class _SplatLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx, splats, values, depth, extent, width, height, k, features):  # noqa: ANN001
        device = splats.device
        splats, values, depth, extent = _cpu(splats, values, depth, extent)
        bins = _Bins(splats, depth, extent, width, height)
        buffers, transmittance, _, _ = _forward(bins, width, height, k, None)
        index, weight = buffers[0], buffers[3]
        size = (width, height, k, values.shape[1], features)
        image = torch.empty(height, width, values.shape[1])
        per_layer = torch.empty(height, width, k, features)
        _call("gs_layers_forward", index, weight, transmittance, values, *size, image, per_layer)
        ctx.save_for_backward(splats, values, index, weight, transmittance)
        ctx.size, ctx.device = size, device
        out = [t.to(device) for t in (image, 1 - transmittance, per_layer, *buffers)]
        ctx.mark_non_differentiable(*out[3:])
        return tuple(out)

    @staticmethod
    def backward(ctx, d_image, d_alpha, d_per_layer, *_):  # noqa: ANN001
        splats, values, index, weight, transmittance = ctx.saved_tensors
        d_image, d_alpha, d_per_layer = _cpu(d_image, d_alpha, d_per_layer)
        d_splats, d_values = torch.empty_like(splats), torch.empty_like(values)
        _call(
            "gs_layers_backward", index, weight, transmittance, values, splats, splats.shape[0],
            *ctx.size, d_image, d_alpha, d_per_layer, d_splats, d_values,
        )  # fmt: skip
        return (d_splats.to(ctx.device), d_values.to(ctx.device), *[None] * 6)
