"""The rasteriser for points on a GPU: raw pointers, torch's allocator, torch's current stream.

The kernels come from ``cuda_build``: a compiled library, or NVRTC where there is no compiler. Both
are called with the two structs of ``cuda/kb_cuda.h``, and so is the emulator of the tests, which
takes CPU tensors.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from ctypes import c_float, c_int32, c_int64, c_size_t, c_void_p
from typing import Protocol

import torch
from torch import Tensor

from render.kbuffer.axes import PixelAxis
from render.kbuffer.native import FOOTPRINTS
from render.kbuffer.types import KBuffer
from render.memory import is_shortage

MAX_PAIRS = 1 << 27  # 3.2 GB of keys and points; frames that need more are drawn in bands
BYTES_PER_POINT = 24
BYTES_PER_PAIR = 24  # key and point, twice
BAD_ARGUMENT, OUT_OF_MEMORY = -1, -2

# void* allocate(size_t bytes, void* context)
Allocate = ctypes.CFUNCTYPE(c_void_p, c_size_t, c_void_p)


class Input(ctypes.Structure):
    """``KbCudaInput`` of kb_cuda.h."""

    _fields_ = (
        ("points", c_void_p),
        ("radius", c_void_p),
        ("x_centers", c_void_p),
        ("y_centers", c_void_p),
        ("allocate", Allocate),
        ("context", c_void_p),
        ("stream", c_void_p),
        ("n", c_int64),
        ("radius_stride", c_int64),
        ("max_pairs", c_int64),
        ("world_to_screen", c_float * 12),
        ("x_half", c_float),
        ("x_scale", c_float),
        ("y_half", c_float),
        ("y_scale", c_float),
        ("z_near", c_float),
        ("radius_focal", c_float),
        ("width", c_int32),
        ("height", c_int32),
        ("k", c_int32),
        ("footprint", c_int32),
        ("from_world", c_int32),
        ("device", c_int32),
    )


class Output(ctypes.Structure):
    """``KbCudaOutput`` of kb_cuda.h."""

    _fields_ = (
        ("index", c_void_p),
        ("depth", c_void_p),
        ("distance", c_void_p),
        ("pairs", c_int64),
        ("wanted", c_int64),
        ("bands", c_int32),
    )


class Kernels(Protocol):
    """One way to draw a frame."""

    def rasterize(self, task: Input, result: Output) -> int:
        """0, ``BAD_ARGUMENT``, ``OUT_OF_MEMORY``, or a positive CUDA error."""
        ...

    def error_text(self, code: int) -> str:
        """What a positive error means."""
        ...


def scratch_bytes(points: int, pairs: int | None = None) -> int:
    """GPU memory that a frame takes beside its K-buffer, about, and gives back.

    ``pairs`` of points and 16 x 16 tiles: 1.4 a point for radii of two pixels, which is the
    default. More than ``MAX_PAIRS`` never exist at once.
    """
    pairs = int(1.4 * points) if pairs is None else pairs
    return BYTES_PER_POINT * points + BYTES_PER_PAIR * min(pairs, MAX_PAIRS)


def allocate(shape: tuple[int, int, int], device: torch.device) -> KBuffer:
    """An unfilled K-buffer [H, W, K].

    Raises:
        MemoryError: says how much it would be.
    """
    try:
        return KBuffer(
            torch.empty(shape, dtype=torch.int32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
        )
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        height, width, k = shape
        raise MemoryError(
            f"not enough memory on {device} for {k} layers at {width}x{height}: "
            f"{12 * width * height * k / 2**20:,.0f} MiB; use fewer layers or a smaller image"
        ) from error


def rasterize(
    kernels: Kernels,
    points: Tensor,
    radius: float | Tensor,
    xs: PixelAxis,
    ys: PixelAxis,
    out: KBuffer,
    *,
    near: float,
    footprint: str,
    world_to_screen: Tensor | None = None,
    radius_focal: float = 0.0,
    max_pairs: int = MAX_PAIRS,
) -> Output:
    """Fill ``out`` [H, W, K] on the device of ``points``, in torch's current stream there.

    Args:
        points: [N, 3] (u, v, depth), or world xyz where ``world_to_screen`` [3, 4] is given.
        radius: one, or [N]; times ``radius_focal`` / depth where that is positive.
        max_pairs: of points and tiles at once, below 2^31.

    Returns:
        The filled struct: ``pairs`` of points and tiles, ``bands`` that the image was cut into.

    Raises:
        MemoryError: not even single tiles fit; says what was wanted.
        RuntimeError: CUDA failed.
    """
    device = points.device
    try:
        points = points.detach().to(torch.float32).contiguous()
        if isinstance(radius, Tensor):
            radii = radius.detach().to(device, torch.float32).reshape(-1).contiguous()
        else:
            radii = torch.full((1,), radius, dtype=torch.float32, device=device)
        columns, rows = _centers(xs, device), _centers(ys, device)
    except RuntimeError as error:
        if is_shortage(error):
            raise _too_much(points, out, 16 * points.shape[0]) from error
        raise
    matrix = (c_float * 12)()
    if world_to_screen is not None:
        matrix[:] = world_to_screen.flatten().tolist()
    memory = _Memory(device)
    callback = Allocate(memory.allocate)  # alive through the call
    task = Input(
        points.data_ptr(),
        radii.data_ptr(),
        columns.data_ptr(),
        rows.data_ptr(),
        callback,
        None,
        _stream(device),
        points.shape[0],
        int(radii.numel() > 1),
        max_pairs,
        matrix,
        xs.half,
        xs.scale,
        ys.half,
        ys.scale,
        near,
        radius_focal,
        xs.centers.numel(),
        ys.centers.numel(),
        out.k,
        FOOTPRINTS[footprint],
        int(world_to_screen is not None),
        device.index or 0,
    )
    result = Output(out.index.data_ptr(), out.depth.data_ptr(), out.distance.data_ptr())
    if device.type == "cuda":
        # torch and the kernels must agree on the current device
        with torch.cuda.device(device):
            code = kernels.rasterize(task, result)
    else:
        code = kernels.rasterize(task, result)
    if memory.fault is not None:
        raise memory.fault
    if code == OUT_OF_MEMORY:
        raise _too_much(points, out, result.wanted)
    if code != 0:
        why = "bad argument" if code == BAD_ARGUMENT else kernels.error_text(code)
        raise RuntimeError(f"rasterising on {device} failed: {why} ({code})")
    return result


def _too_much(points: Tensor, out: KBuffer, wanted: int) -> MemoryError:
    height, width, _ = out.index.shape
    return MemoryError(
        f"not enough memory on {points.device} to rasterise {points.shape[0]:,} points at "
        f"{width}x{height}: another {wanted / 2**20:,.0f} MiB could not be had; use fewer points, "
        "a smaller radius or a smaller image"
    )


class _Memory:
    """Scratch memory of one frame.

    Torch may hand it to others as soon as this object is gone: they get it in the same stream, so
    behind the kernels that still use it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.blocks: list[Tensor] = []
        self.fault: BaseException | None = None

    def allocate(self, size: int, _: int | None) -> int | None:
        """``KbCudaInput.allocate``. What it raised would be lost: it is kept in ``fault``."""
        try:
            self.blocks.append(torch.empty(size, dtype=torch.uint8, device=self.device))
        except BaseException as error:  # Ctrl-C, too
            if not is_shortage(error):
                self.fault = error
            return None
        return self.blocks[-1].data_ptr()


def _stream(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.current_stream(device).cuda_stream


# Pixel centres by device. The CPU tensor is kept too, so that its id stays its own.
_uploads: OrderedDict[tuple[int, torch.device], tuple[Tensor, Tensor]] = OrderedDict()


def _centers(axis: PixelAxis, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return axis.centers
    key = (id(axis.centers), device)
    found = _uploads.get(key)
    if found is None:
        found = axis.centers, axis.centers.to(device)
        _uploads[key] = found
        while len(_uploads) > 64:
            _uploads.popitem(last=False)
    found[1].record_stream(torch.cuda.current_stream(device))  # it may outlive its entry
    return found[1]
