"""Frames for the tests of the CUDA rasteriser, with and without a GPU."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, cuda_impl, cuda_nvrtc
from render.kbuffer.axes import PixelAxis, pixel_axis
from render.kbuffer.cuda_impl import Input, Kernels, Output
from render.kbuffer.types import KBuffer

# mode -> a radius that covers a pixel or more of `camera()`
RADIUS = {"ndc": 0.08, "px": 1.6, "world": 0.12, "pixel": 1.0}


def cloud(n: int, width: int, height: int, seed: int, levels: int = 0) -> Tensor:
    """(u, v, depth) around an image, some behind it and some not finite; ``levels`` make ties."""
    g = torch.Generator().manual_seed(seed)
    uvz = torch.rand(n, 3, generator=g) * torch.tensor([width * 1.4, height * 1.4, 4.0])
    uvz -= torch.tensor([width * 0.2, height * 0.2, 0.5])
    if levels:
        uvz[:, 2] = (uvz[:, 2] * levels / 4).round() * 4 / levels
    uvz[7::31, :2] = uvz[7::31, :2].round()  # corners of pixels: equal distances
    for axis, value in enumerate((math.nan, math.inf, -0.0)):
        uvz[11 + axis :: 97, axis] = value
    return uvz


def camera(width: int = 57, height: int = 38) -> Camera:
    """Looks at the origin from 3.9 away."""
    return Camera.look_at((2.0, -3.0, 1.5), (0.0, 0.0, 0.1), fov_x=0.7, width=width, height=height)


def world(n: int = 1500) -> Tensor:
    """Points around the origin, some behind ``camera()``."""
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(7)) * 1.5


def assert_same(found: KBuffer, wanted: KBuffer) -> None:
    """Bit for bit, wherever the two are."""
    for a, b in (
        (found.index, wanted.index),
        (found.depth.view(torch.int32), wanted.depth.view(torch.int32)),
        (found.distance.view(torch.int32), wanted.distance.view(torch.int32)),
    ):
        assert torch.equal(a.cpu(), b.cpu())


def empty(width: int, height: int, k: int, device: str = "cpu") -> KBuffer:
    """Filled with what no rasteriser writes."""
    found = cuda_impl.allocate((height, width, k), torch.device(device))
    found.index.fill_(-7)
    found.depth.fill_(math.nan)
    found.distance.fill_(math.nan)
    return found


def draw(
    kernels: Kernels,
    uvz: Tensor,
    radius: float | Tensor,
    axes: tuple[PixelAxis, PixelAxis] | tuple[int, int],
    k: int,
    **options: Any,
) -> tuple[KBuffer, Output]:
    """A frame from screen points on their device; ``axes`` or the (width, height) in pixels."""
    xs, ys = (pixel_axis(a) if isinstance(a, int) else a for a in axes)
    out = empty(len(xs.centers), len(ys.centers), k, str(uvz.device))
    options = {"near": 0.0, "footprint": "disc", **options}
    return out, cuda_impl.rasterize(kernels, uvz, radius, xs, ys, out, **options)


# ---------------------------------------------------------------------------- without a GPU
def emulator_library() -> ctypes.CDLL | None:
    """``cuda/kb_emu.cpp``; None without a compiler."""
    library = build.load("kb_emu")
    if library is not None:
        library.kb_emu_rasterize.argtypes = (ctypes.POINTER(Input), ctypes.POINTER(Output))
        library.kb_emu_pairs.argtypes = (ctypes.POINTER(Input), ctypes.c_int, ctypes.c_int)
        library.kb_emu_pairs.restype = ctypes.c_int64
        library.kb_emu_launch.argtypes = (ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p)
    return library


class Emulator:
    """The library's road on the CPU: the same structs, host part and steps of the kernels."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def rasterize(self, task: Input, result: Output) -> int:
        """See ``cuda_impl.Kernels``."""
        return self.library.kb_emu_rasterize(ctypes.byref(task), ctypes.byref(result))

    def error_text(self, code: int) -> str:
        """See ``cuda_impl.Kernels``."""
        return f"emulated error {code}"


class NvrtcEmulator(Emulator):
    """NVRTC's road on the CPU: its host part and arguments, with emulated kernels."""

    def rasterize(self, task: Input, result: Output) -> int:
        """See ``cuda_impl.Kernels``."""
        return cuda_nvrtc.draw(self.launch, task, result, torch.device("cpu"))

    def launch(self, name: str, blocks: int, arguments: Sequence[Any]) -> int:
        """Stands in for cuLaunchKernel."""
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        return self.library.kb_emu_launch(name.encode(), blocks, pointers)
