"""The kernels of ``cuda/gs_kernels.cuh`` on tensors of a GPU: projection and the K heaviest.

NVRTC, which comes with torch, compiles them in under a second for the GPU at hand; no compiler is
needed. The tests put an emulator in the GPU's place, which takes CPU tensors.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Protocol

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build
from render.kbuffer.cuda_nvrtc import BLOCK, TILE, Module, Program

# Rounded as on the CPU: nothing is fused.
PROGRAM = Program(
    "gs_kernels.cuh",
    ("gs_core.h", "gs_device.h"),
    (
        ("math.h", ""),
        ("string.h", ""),
        (
            "stdint.h",
            "typedef int int32_t; typedef unsigned int uint32_t; typedef long long int64_t;",
        ),
    ),
    ("--fmad=false",),
)
CAPACITIES = (4, 8, 16)  # layers that fit into registers


class Kernels(Protocol):
    """Something that runs kernels on the device of their tensors."""

    def launch(self, name: str, blocks: int, task: ctypes.Structure) -> None:
        """Run ``blocks`` blocks of a kernel with its one argument.

        Raises:
            RuntimeError: CUDA failed.
        """
        ...


class GpuKernels:
    """On CUDA device ``index``, in torch's current stream there.

    Raises:
        OSError: NVRTC or the driver is missing, or does not know this GPU.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        capability = torch.cuda.get_device_capability(index)
        self._module = Module(build.SOURCE_DIR, capability, PROGRAM, "gs::gs_project")
        self.version = self._module.version

    def launch(self, name: str, blocks: int, task: ctypes.Structure) -> None:
        """See :class:`Kernels`."""
        with torch.cuda.device(self._index):
            stream = torch.cuda.current_stream().cuda_stream
            code = self._module.launch(name, blocks, (task,), self._index, stream)
        if code:
            raise RuntimeError(f"{name} failed: {self._module.error_text(code)} ({code})")


@functools.cache
def load(index: int) -> GpuKernels:
    """Compiled once for each GPU.

    Raises:
        OSError: as :class:`GpuKernels`.
    """
    return GpuKernels(index)


# ---------------------------------------------------------------------------- gs_device.h
class _Camera(ctypes.Structure):
    _fields_ = (
        ("r", c_float * 9),
        ("t", c_float * 3),
        ("focal", c_float * 2),
        ("center", c_float * 2),
        ("position", c_float * 3),
        ("width", c_int32),
        ("height", c_int32),
        ("near", c_float),
        ("eps2d", c_float),
        ("antialias", c_int32),
    )


def _pointers(*names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, c_void_p) for name in names)


_GAUSSIANS = ("means", "quats", "log_scales", "logits")


class _Project(ctypes.Structure):
    _fields_ = (
        ("camera", _Camera),
        ("n", c_int64),
        ("harmonics", c_int64),
        *_pointers(*_GAUSSIANS, "sh0", "sh_rest", "splats", "depth", "extent", "rgb"),
    )


class _ProjectBackward(ctypes.Structure):
    _fields_ = (
        ("camera", _Camera),
        ("n", c_int64),
        ("harmonics", c_int64),
        *_pointers(*_GAUSSIANS, "extent", "rgb", "d_splats", "d_rgb"),
        *_pointers(*(f"d_{name}" for name in _GAUSSIANS), "d_sh0", "d_sh_rest"),
    )


class _Heaviest(ctypes.Structure):
    _fields_ = (
        *_pointers("splats", "depth", "order", "offsets"),
        *_pointers("index", "weight", "depths", "distance", "transmittance", "closing"),
        *((name, c_int32) for name in ("pairs", "width", "height", "columns", "tiles", "k")),
    )


# ---------------------------------------------------------------------------- calls
class View:
    """A camera as the kernels read it."""

    def __init__(self, camera: Camera, near: float, eps2d: float, antialias: bool) -> None:
        w2c = camera.world_to_camera
        self.struct = _Camera(
            (c_float * 9)(*w2c[:3, :3].flatten().tolist()),
            (c_float * 3)(*w2c[:3, 3].tolist()),
            (c_float * 2)(*camera.focal.tolist()),
            (c_float * 2)(*camera.center.tolist()),
            (c_float * 3)(*camera.position.tolist()),
            camera.width,
            camera.height,
            near,
            eps2d,
            int(antialias),
        )


def project(kernels: Kernels, view: View, gaussians: list[Tensor]) -> list[Tensor]:
    """Splats [N, 6], depth [N], extent [N, 2], rgb [N, 3].

    Args:
        gaussians: means, quats, log_scales, logits, sh0, sh_rest; float32, contiguous.
    """
    n = len(gaussians[0])
    like = gaussians[0].new_empty
    out = [like(n, 6), like(n), like(n, 2), like(n, 3)]
    given = [t.data_ptr() for t in (*gaussians, *out)]
    if n:
        task = _Project(view.struct, n, gaussians[5].shape[1], *given)
        kernels.launch("gs::gs_project", -(-n // BLOCK), task)
    return out


def project_backward(
    kernels: Kernels,
    view: View,
    shapes: list[Tensor],
    harmonics: int,
    extent: Tensor,
    rgb: Tensor,
    d_splats: Tensor,
    d_rgb: Tensor,
) -> list[Tensor]:
    """Gradients of the six inputs of :func:`project`.

    Args:
        shapes: means, quats, log_scales, logits.
        harmonics: B, how many sh_rest has.
        extent, rgb: as :func:`project` gave them.
    """
    n = len(rgb)
    grads = [torch.empty_like(t) for t in shapes]
    grads += [rgb.new_empty(n, 3), rgb.new_empty(n, harmonics, 3)]
    given = [t.data_ptr() for t in (*shapes, extent, rgb, d_splats, d_rgb, *grads)]
    if n:
        task = _ProjectBackward(view.struct, n, harmonics, *given)
        kernels.launch("gs::gs_project_backward", -(-n // BLOCK), task)
    return grads


def heaviest(
    kernels: Kernels,
    splats: Tensor,
    depth: Tensor,
    order: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    k: int,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Walk every pixel's contributions from front to back.

    Args:
        splats: [N, 6]. depth: [N].
        order: [pairs] int32, the Gaussians of all tiles, front to back in each.
        offsets: [rows, columns] int32, where each tile of 16 x 16 pixels begins in ``order``.
        size: width and height in pixels.
        k: layers, 0 to 64.

    Returns:
        index, depth, distance, weight [H, W, K]; transmittance [H, W] through all contributions;
        [H, W] int32, the contribution at which gsplat stops and that it leaves out, -1 if none.
    """
    width, height = size
    rows, columns = offsets.shape
    if (rows, columns) != (-(-height // TILE), -(-width // TILE)):
        raise ValueError(f"offsets: {rows}x{columns} tiles do not cover {width}x{height} pixels")
    integers = {"dtype": torch.int32, "device": splats.device}
    index = torch.empty(height, width, k, **integers)
    weight, depths, distance = (splats.new_empty(height, width, k) for _ in range(3))
    transmittance = splats.new_empty(height, width)
    closing = torch.empty(height, width, **integers)
    tensors = (splats, depth, order, offsets)
    tensors += (index, weight, depths, distance, transmittance, closing)
    given = [t.data_ptr() for t in tensors]
    task = _Heaviest(*given, len(order), width, height, columns, rows * columns, k)
    kernels.launch(keeper_name(k), rows * columns, task)
    return [index, depths, distance, weight], transmittance, closing


def keeper_name(k: int) -> str:
    """The kernel that keeps ``k`` layers."""
    capacity = next((c for c in CAPACITIES if k <= c), None)
    keeper = f"gs::RegisterKeeper<{capacity}>" if capacity else "gs::MemoryKeeper"
    return f"gs::gs_heaviest<{keeper if k else 'gs::NoKeeper'}>"
