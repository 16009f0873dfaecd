"""ctypes binding of ``cuda/kfn_cpu.cpp``: the gate of the fusion network, forward and backward.

All tensors are float32 and on CPU; ``gate.py`` sees to that.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from render.kbuffer import build
from render.kbuffer.threads import kernel_threads

WIDTH = 16  # of the hidden layer, fixed in the kernel
MOST_LAYERS, MOST_INPUTS = 64, 1024


class _Gate(ctypes.Structure):
    """``KfnGate`` of kfn_cpu.cpp."""

    _fields_ = (
        ("mix", c_void_p),
        ("mix_bias", c_void_p),
        ("gate", c_void_p),
        ("gate_bias", c_void_p),
        ("most_layers", c_int32),
        ("features", c_int32),
    )


class _Pixels(ctypes.Structure):
    """``KfnPixels`` of kfn_cpu.cpp."""

    _fields_ = (
        ("layers", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
        ("row_stride", c_int64),
        ("layers_given", c_int32),
        ("threads", c_int32),
    )


def load() -> ctypes.CDLL | None:
    """The library with its signatures declared, or None (see ``build.status("kfn_cpu")``)."""
    library = build.load("kfn_cpu")
    if library is not None:
        library.kfn_gate_forward.restype = library.kfn_gate_backward.restype = c_int
        pixels = [POINTER(_Gate), POINTER(_Pixels)]
        library.kfn_gate_forward.argtypes = [*pixels, c_void_p]
        library.kfn_gate_backward.argtypes = [*pixels, *[c_void_p] * 6]
    return library


def serves(layers: Tensor, weights: tuple[Tensor, ...]) -> bool:
    """Whether the kernels can take these: see :func:`forward` for the shapes."""
    mix, gate = weights[0], weights[2]
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (layers, *weights))
        and mix.shape[0] == WIDTH
        and gate.shape[0] <= MOST_LAYERS
        and mix.shape[1] <= MOST_INPUTS
        and layers.numel() > 0
        and load() is not None
    )


def forward(layers: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """Fused features [h, w, F].

    Args:
        layers: [h, w, k, F] with k <= K; a window of a larger picture is taken as it lies.
        weights: mix [16, K * F] and its bias [16], gate [K, 16] and its bias [K].
    """
    layers = _rows(layers)
    weights = tuple(w.contiguous() for w in weights)
    fused = layers.new_empty(*layers.shape[:2], layers.shape[3])
    _call("kfn_gate_forward", layers, weights, fused)
    return fused


def backward(layers: Tensor, weights: tuple[Tensor, ...], d_fused: Tensor) -> list[Tensor]:
    """Gradients of the layers [h, w, k, F] and of the four weights."""
    layers = _rows(layers)
    weights = tuple(w.contiguous() for w in weights)
    d_layers = layers.new_empty(layers.shape)
    d_weights = [torch.empty_like(w) for w in weights]
    _call("kfn_gate_backward", layers, weights, d_fused.contiguous(), d_layers, *d_weights)
    return [d_layers, *d_weights]


def _rows(layers: Tensor) -> Tensor:
    """The same if its rows lie in one piece each, else a copy."""
    _, w, k, f = layers.shape
    whole = layers.stride()[1:] == (k * f, f, 1) and layers.stride(0) % (k * f) == 0
    return layers if whole and layers.stride(0) >= w * k * f else layers.contiguous()


def _call(name: str, layers: Tensor, weights: tuple[Tensor, ...], *out: Tensor) -> None:
    library = load()
    assert library is not None  # the caller has asked `serves`
    h, w, k, f = layers.shape
    net = _Gate(*(t.data_ptr() for t in weights), weights[2].shape[0], f)
    row_stride = layers.stride(0) // (k * f) if h > 1 else w
    pixels = _Pixels(layers.data_ptr(), h, w, row_stride, k, kernel_threads())
    status = getattr(library, name)(byref(net), byref(pixels), *(t.data_ptr() for t in out))
    if status == 2:
        raise MemoryError(f"{name}: not enough memory for {w}x{h} pixels")
    if status != 0:
        raise RuntimeError(f"{name} failed with status {status}")
