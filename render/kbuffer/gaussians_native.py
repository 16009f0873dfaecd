"""ctypes binding of ``cuda/gs_cpu.cpp``: the splatting kernels in C++.

All tensors are float32 (indices int32), contiguous and on CPU; ``gaussians.py`` sees to that.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from render.kbuffer import build
from render.kbuffer.threads import kernel_threads

_P, _I, _N = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_ABI = {
    "gs_project": [_P, _I, _I, _I, _N, *[_P] * 6, _I, *[_P] * 4, _I],
    "gs_project_backward": [_P, _I, _I, _I, _N, *[_P] * 4, _I, *[_P] * 10, _I],
    "gs_bins_make": [_N, _P, _P, _P, _I, _I, _I],
    "gs_bins_free": [_P],
    "gs_trim": [],
    "gs_forward": [_P, _I, _P, _I, *[_P] * 7, _I],
    "gs_backward": [_P, _N, _P, _I, *[_P] * 6, _I],
    "gs_layers_forward": [_P, _I, _P, _I, _I, *[_P] * 8, _I],
    "gs_layers_backward": [*[_P] * 5, _N, *[_I] * 5, *[_P] * 5, _I],
}
_library: ctypes.CDLL | None = None


def load() -> ctypes.CDLL | None:
    """The library with its signatures declared, or None (see ``build.status("gs_cpu")``)."""
    global _library
    library = build.load("gs_cpu")
    if library is not None and library is not _library:
        for name, arguments in _ABI.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = {"gs_bins_make": _P, "gs_bins_free": None, "gs_trim": None}.get(
                name, _I
            )
        _library = library
    return library


def _call(name: str, *arguments: object) -> None:
    """Call a kernel; tensors go as pointers, the thread count is appended."""
    library = load()
    assert library is not None  # the caller has seen it
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    status = getattr(library, name)(*pointers, kernel_threads())
    if status == 2:
        raise MemoryError(f"{name}: not enough memory")
    if status != 0:
        raise RuntimeError(f"{name} failed with status {status}")


class Bins:
    """Owns the depth order and the tile lists between forward and backward."""

    def __init__(
        self, splats: Tensor, depth: Tensor, extent: Tensor, width: int, height: int
    ) -> None:
        self.width, self.height = width, height
        library = load()
        assert library is not None
        self._free = library.gs_bins_free
        pointers = (splats.data_ptr(), depth.data_ptr(), extent.data_ptr())
        self.pointer = library.gs_bins_make(len(splats), *pointers, width, height, kernel_threads())
        if not self.pointer:
            raise MemoryError(
                f"not enough memory to sort {len(splats)} Gaussians into tiles of "
                f"{width}x{height} pixels"
            )

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._free(self.pointer)


def project(
    packed: Tensor, size: tuple[int, int], antialias: bool, gaussians: list[Tensor]
) -> list[Tensor]:
    """Splats [N, 6], depth [N], extent [N, 2], rgb [N, 3].

    Args:
        packed: [21] rotation, translation, focal, centre, position, near, eps2d.
        gaussians: means, quats, log_scales, logits, sh0, sh_rest.
    """
    n, count = len(gaussians[0]), gaussians[5].shape[1]
    out = [torch.empty(n, 6), torch.empty(n), torch.empty(n, 2), torch.empty(n, 3)]
    _call("gs_project", packed, *size, int(antialias), n, *gaussians, count, *out)
    return out


def project_backward(
    packed: Tensor,
    size: tuple[int, int],
    antialias: bool,
    shapes: list[Tensor],
    count: int,
    extent: Tensor,
    rgb: Tensor,
    d_splats: Tensor,
    d_rgb: Tensor,
) -> list[Tensor]:
    """Gradients of the six inputs of :func:`project`.

    Args:
        shapes: means, quats, log_scales, logits.
        count: B, the number of harmonics in sh_rest.
        extent, rgb: as :func:`project` gave them.
    """
    n = len(rgb)
    grads = [torch.empty_like(t) for t in shapes] + [torch.empty(n, 3), torch.empty(n, count, 3)]
    given = (extent, rgb, d_splats, d_rgb)
    _call("gs_project_backward", packed, *size, int(antialias), n, *shapes, count, *given, *grads)
    return grads


def forward(bins: Bins, k: int, values: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The composite of all contributions' values [N, C], and the K heaviest of each pixel.

    Returns:
        index, depth, distance, weight [H, W, K]; transmittance [H, W]; image [H, W, C]; for
        :func:`backward` the place of each pixel's last contribution in its tile's list [H, W].
    """
    size = (bins.height, bins.width)
    index, depth, distance, weight = _buffers(size, k)
    transmittance, image = torch.empty(size), torch.empty(*size, values.shape[1])
    last = torch.empty(size, dtype=torch.int32)
    _call(
        "gs_forward", bins.pointer, k, values, values.shape[1], index, weight, depth, distance,
        transmittance, image, last,
    )  # fmt: skip
    return [index, depth, distance, weight], transmittance, image, last


def backward(
    bins: Bins,
    values: Tensor,
    transmittance: Tensor,
    last: Tensor,
    d_image: Tensor,
    d_alpha: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the splats [N, 6] and the values [N, C] through the composite of all."""
    n, channels = values.shape
    d_splats, d_values = torch.empty(n, 6), torch.empty_like(values)
    given = (transmittance, last, d_image, d_alpha)
    _call("gs_backward", bins.pointer, n, values, channels, *given, d_splats, d_values)
    return d_splats, d_values


def layers_forward(
    bins: Bins, k: int, values: Tensor, features: int, kbuffer: bool, kept: bool
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """The picture of the K heaviest contributions of each pixel.

    Args:
        values: [N, C].
        kbuffer: the caller wants depth and distance of the K-buffer.
        kept: the caller wants index and weight, for :func:`layers_backward`.

    Returns:
        index, depth, distance, weight [H, W, K], with K = 0 where not wanted; transmittance
        [H, W]; image [H, W, C]; the last F channels layer by layer [H, W, K, F]; the mean depth of
        the layers [H, W].
    """
    size = (bins.height, bins.width)
    index, _, _, weight = _buffers(size, k if kept or kbuffer else 0)
    depth, distance = _buffers(size, k if kbuffer else 0)[1:3]
    transmittance, mean_depth = torch.empty(size), torch.empty(size)
    image, per_layer = torch.empty(*size, values.shape[1]), torch.empty(*size, k, features)
    wanted = [t if t.numel() else None for t in (index, weight, depth, distance)]
    _call(
        "gs_layers_forward", bins.pointer, k, values, values.shape[1], features, *wanted,
        transmittance, image, per_layer, mean_depth,
    )  # fmt: skip
    return [index, depth, distance, weight], transmittance, image, per_layer, mean_depth


def trim() -> None:
    """Free the memory that the kernels keep for the calling thread."""
    library = build.opened("gs_cpu")  # nothing was drawn yet: nothing to free
    if library is not None:
        library.gs_trim()


def _buffers(size: tuple[int, int], k: int) -> list[Tensor]:
    """Index, depth, distance, weight [H, W, K]."""
    return [torch.empty(*size, k, dtype=torch.int32), *(torch.empty(*size, k) for _ in range(3))]


def layers_backward(
    index: Tensor,
    weight: Tensor,
    transmittance: Tensor,
    values: Tensor,
    splats: Tensor,
    d_image: Tensor,
    d_alpha: Tensor,
    d_layers: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the splats [N, 6] and the values [N, C] through the K layers."""
    height, width, k = index.shape
    d_splats, d_values = torch.empty_like(splats), torch.empty_like(values)
    size = (width, height, k, values.shape[1], d_layers.shape[3])
    _call(
        "gs_layers_backward", index, weight, transmittance, values, splats, len(splats), *size,
        d_image, d_alpha, d_layers, d_splats, d_values,
    )  # fmt: skip
    return d_splats, d_values
