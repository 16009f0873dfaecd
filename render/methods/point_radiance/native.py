"""ctypes binding of ``cuda/disc_cpu.cpp``: soft discs composited and shaded, and their gradients.

All tensors are float32 and on the CPU; ``discs.py`` has the twin in torch for all others.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_float, c_int, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from render.kbuffer import build
from render.kbuffer.threads import kernel_threads

MOST_LAYERS = 64
HARMONICS = (0, 8, 9)  # what the kernel has


class _Picture(ctypes.Structure):
    """``DiscPicture`` of disc_cpu.cpp."""

    _fields_ = (
        ("index", c_void_p),
        ("discs", c_void_p),
        ("base", c_void_p),
        ("sh", c_void_p),
        ("ray", c_void_p),
        ("count", c_int64),
        ("width", c_int32),
        ("height", c_int32),
        ("layers", c_int32),
        ("harmonics", c_int32),
        ("corner", c_float),
        ("threads", c_int32),
    )


def load() -> ctypes.CDLL | None:
    """The library with its signatures declared, or None (see ``build.status("disc_cpu")``)."""
    library = build.load("disc_cpu")
    if library is not None:
        library.disc_forward.restype = library.disc_backward.restype = c_int
        library.disc_forward.argtypes = [POINTER(_Picture), *[c_void_p] * 2]
        library.disc_backward.argtypes = [POINTER(_Picture), *[c_void_p] * 5]
    return library


def serves(index: Tensor, discs: Tensor, base: Tensor, sh: Tensor) -> bool:
    """Whether the kernels can take these: see :func:`composite` for the shapes."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (discs, base, sh))
        and sh.shape[1] // 3 in HARMONICS
        and index.shape[2] <= MOST_LAYERS
        and index.numel() < 2**31
        and len(discs) > 0
        and load() is not None
    )


def composite(
    index: Tensor, discs: Tensor, base: Tensor, sh: Tensor, ray: Tensor, corner: float
) -> tuple[Tensor, Tensor]:
    """Picture [H, W, 3] over black, and the light [H, W] that no disc takes. Differentiable.

    Args:
        index: [H, W, K] int32 ids, nearest first; -1 in empty slots, which are the last ones.
        discs: [N, 4] u, v in pixels, 1 / r^2 and the share in the middle.
        base: [N, 3] base colours. sh: [N, 3 B] with B of :data:`HARMONICS`.
        ray: [3, 3] float32 that turns (column, row, 1) into a world direction of any length.
        corner: where in a pixel its ray goes through; 0.5 is the centre.
    """
    return _Composite.apply(index, discs, base, sh, ray, corner)  # pyright: ignore


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, index, discs, base, sh, ray, corner):
        tensors = [t.detach().contiguous() for t in (index, discs, base, sh, ray)]
        height, width, _ = index.shape
        rgb, light = discs.new_empty(height, width, 3), discs.new_empty(height, width)
        _call("disc_forward", tensors, corner, rgb, light)
        ctx.save_for_backward(*tensors)
        ctx.corner = corner
        return rgb, light

    @staticmethod
    def backward(ctx, *gradients):
        d_rgb, d_light = (gradient.contiguous() for gradient in gradients)
        tensors = ctx.saved_tensors
        d_points = [torch.empty_like(tensor) for tensor in tensors[1:4]]
        _call("disc_backward", tensors, ctx.corner, d_rgb, d_light, *d_points)
        return None, *d_points, None, None


def _call(name: str, tensors, corner: float, *more: Tensor) -> None:
    library = load()
    assert library is not None  # the caller has asked `serves`
    index, discs, _, sh, _ = tensors
    height, width, layers = index.shape
    picture = _Picture(
        *(t.data_ptr() for t in tensors),
        len(discs),
        width,
        height,
        layers,
        sh.shape[1] // 3,
        corner,
        kernel_threads(),
    )
    status = getattr(library, name)(byref(picture), *(t.data_ptr() for t in more))
    if status == 2:
        raise MemoryError(f"{name}: not enough memory for {width}x{height} pixels")
    if status != 0:
        raise RuntimeError(f"{name} failed with status {status}")
