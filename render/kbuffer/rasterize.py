"""K-buffers of point clouds: for every pixel the K nearest points that cover its centre.

One function over implementations that agree bit for bit: C++ (``native``), Numba and torch on the
CPU, and CUDA for points that are on a GPU. The picture is exact: nothing depends on the order of
the points, except that at equal depth the lower index comes first, nor on the number of threads.
"""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build, native, torch_impl
from render.kbuffer.axes import PixelAxis, pixel_axis, pytorch3d_pixel_centers
from render.kbuffer.threads import kernel_threads
from render.kbuffer.types import KBuffer

if TYPE_CHECKING:  # loaded with the first points that are on a GPU
    from render.kbuffer.cuda_impl import Kernels

__all__ = [
    "Backend",
    "Footprint",
    "Mode",
    "backend_name",
    "pytorch3d_pixel_centers",
    "rasterize",
    "rasterize_screen",
]

Backend = Literal["auto", "native", "numba", "torch"]
Mode = Literal["ndc", "px", "world", "pixel"]
Footprint = Literal["disc", "pixel"]

log = logging.getLogger(__name__)


def rasterize(
    xyz: Tensor,
    camera: Camera,
    k: int = 8,
    *,
    radius: float | Tensor = 0.005,
    mode: Mode = "ndc",
    near: float = 0.01,
    backend: Backend = "auto",
    threads: int | None = None,
    out: KBuffer | None = None,
) -> KBuffer:
    """The K nearest points of every pixel of ``camera``.

    A point covers a pixel if its projection is nearer to the pixel centre than its radius. Points
    with non-finite coordinates or a depth below ``near`` are left out.

    Args:
        xyz: [N, 3] world positions; the K-buffer comes on their device. Points on a GPU are
            rasterised there, in torch's current stream, if ``backend`` is ``auto`` and there are
            kernels for it, else on CPU. No gradient flows: gather parameters with
            ``KBuffer.gather``.
        k: layers, 1 to 255.
        radius: one, or one per point [N]; its unit is the mode's.
        mode: ``ndc``: the short image side has length 2, so r * min(W, H) / 2 pixels (PyTorch3D);
            ``px``: pixels; ``world``: scene units, so r * f / depth pixels with f the mean of fx
            and fy (a disc that faces the camera, perspective distortion of spheres ignored);
            ``pixel``: every point covers the one pixel that it falls in and the radius plays no
            part. There, ``distance`` is the squared distance in pixels, at most 1/2.
        near: smallest camera z, >= 0, scene units.
        backend: ``auto`` takes the fastest there is, or ``$KBUFFERS_BACKEND``.
        threads: default :func:`~render.kbuffer.threads.kernel_threads`.
        out: a K-buffer of this size on the device of ``xyz`` to write into and return. It saves
            the page faults of fresh memory, which for large images cost as much as the
            rasterisation.

    Raises:
        ValueError: a wrong shape, type or range, by name.
        RuntimeError: ``backend`` was named and is not available.
        MemoryError: scratch memory could not be had.
    """
    _check_points("xyz", xyz)
    _check_radius(radius, len(xyz))
    _check_choice("mode", mode, Mode)
    xs, ys = pixel_axis(camera.width), pixel_axis(camera.height)
    world_to_screen = (camera.K @ camera.world_to_camera[:3]).float()
    if not (world_to_screen.isfinite().all() and float(camera.K[2, 2]) == 1.0):
        raise ValueError("camera: intrinsics and pose must be finite and K[2, 2] must be 1")
    radius_focal = 0.0
    if mode == "ndc":
        radius = radius * (0.5 * min(camera.width, camera.height))
    elif mode == "world":
        radius_focal = float(camera.focal.mean())
    footprint = "pixel" if mode == "pixel" else "disc"
    return _run(
        xyz, radius, xs, ys, k, near, footprint, backend, threads, out, world_to_screen,
        radius_focal,
    )  # fmt: skip


def rasterize_screen(
    uvz: Tensor,
    radius: float | Tensor,
    xs: PixelAxis,
    ys: PixelAxis,
    k: int,
    *,
    near: float = 0.0,
    footprint: Footprint = "disc",
    backend: Backend = "auto",
    threads: int | None = None,
    out: KBuffer | None = None,
) -> KBuffer:
    """The K nearest points of every pixel, for points that are already on the screen.

    Args:
        uvz: [N, 3] (u to the right, v downwards, depth). u, v and ``radius`` are in the unit of
            the pixel centres ``xs`` [W] and ``ys`` [H]: ``pixel_axis(n)`` for pixels,
            ``pytorch3d_pixel_centers(H, W)`` for PyTorch3D's NDC.
        near: smallest depth that is kept, >= 0; with 0, a depth of exactly 0 is kept.
        footprint: ``disc``: all pixel centres strictly within the radius; ``pixel``: the pixel
            that the point falls in.

    The other arguments and the errors are those of :func:`rasterize`.
    """
    _check_points("uvz", uvz)
    _check_radius(radius, len(uvz))
    _check_choice("footprint", footprint, Footprint)
    return _run(uvz, radius, xs, ys, k, near, footprint, backend, threads, out)


def backend_name(backend: Backend = "auto") -> str:
    """Which implementation ``backend`` stands for on CPU here: native, numba or torch."""
    return _resolve(backend)


def _run(
    points: Tensor,
    radius: float | Tensor,
    xs: PixelAxis,
    ys: PixelAxis,
    k: int,
    near: float,
    footprint: Footprint,
    backend: Backend,
    threads: int | None,
    out: KBuffer | None,
    world_to_screen: Tensor | None = None,
    radius_focal: float = 0.0,
) -> KBuffer:
    if not 1 <= k <= native.MAX_K:
        raise ValueError(f"k must be from 1 to {native.MAX_K}, got {k}")
    if not (near >= 0 and math.isfinite(near)):
        raise ValueError(f"near must be >= 0 and finite, got {near}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    shape = (ys.centers.numel(), xs.centers.numel(), k)
    device = points.device
    if out is not None:
        _check_out(out, shape, device)
    options: dict[str, Any] = {"near": near, "footprint": footprint}
    if device.type == "cuda" and backend == "auto":
        kernels = _cuda_kernels(device)
        if kernels is not None:
            from render.kbuffer import cuda_impl

            result = cuda_impl.allocate(shape, device) if out is None else out
            cuda_impl.rasterize(
                kernels, points, radius, xs, ys, result, **options,
                world_to_screen=world_to_screen, radius_focal=radius_focal,
            )  # fmt: skip
            return result

    points = points.detach().to("cpu", torch.float32).contiguous()
    if isinstance(radius, Tensor):
        radius = radius.detach().to("cpu", torch.float32).reshape(-1).contiguous()
    else:
        radius = torch.tensor([radius], dtype=torch.float32)
    options["near"] = float(torch.tensor(near, dtype=torch.float32))  # one rounding for all

    name = _resolve(backend)
    if name != "native" and world_to_screen is not None:
        points, radius = torch_impl.project_screen(points, world_to_screen, radius, radius_focal)
    if name == "torch":
        result = torch_impl.rasterize_screen_torch(points, radius, xs, ys, k, **options)
        if out is not None:
            return _copy(result, out)
    else:
        result = out if out is not None and device.type == "cpu" else _allocate(shape)
        options["threads"] = threads or kernel_threads()
        if name == "numba":
            from render.kbuffer import numba_impl

            numba_impl.rasterize(points, radius, xs, ys, result, **options)
        else:
            library = native.load()
            assert library is not None  # _resolve has seen it
            native.rasterize(
                library, points, radius, xs, ys, result, **options,
                world_to_screen=world_to_screen, radius_focal=radius_focal,
            )  # fmt: skip
    if device.type == "cpu":
        return result
    if out is not None:
        return _copy(result, out)
    return KBuffer(*(t.to(device) for t in (result.index, result.depth, result.distance)))


# ---------------------------------------------------------------------------- backends
def _resolve(backend: str) -> str:
    _check_choice("backend", backend, Backend)
    chosen = (build.forced_backend() or "auto") if backend == "auto" else backend
    if chosen == "native" and native.load() is None:
        raise RuntimeError(f"backend native is not available: {build.status('kb_cpu')}")
    if chosen == "numba" and (fault := _numba_fault()):
        raise RuntimeError(f"backend numba is not available: {fault}")
    if chosen != "auto":
        return chosen
    name = "native" if native.load() else ("torch" if _numba_fault() else "numba")
    _announce(name)
    return name


def _cuda_kernels(device: torch.device) -> Kernels | None:
    """What rasterises on that GPU; None if it has to be done on the CPU."""
    if build.forced_backend() is not None:
        return None
    from render.kbuffer import cuda_build

    index = torch.cuda.current_device() if device.index is None else device.index
    kernels = cuda_build.load(index)
    _announce_cuda(kernels is not None, cuda_build.status(index))
    return kernels


@functools.cache
def _announce_cuda(found: bool, status: str) -> None:
    """Say once whether frames are drawn on the GPU."""
    if found:
        log.info("point rasteriser on CUDA: %s", status)
    else:
        log.info("point rasteriser on CPU although the points are on a GPU: %s", status)


@functools.cache
def _numba_fault() -> str:
    """Why Numba cannot be used; empty if it can."""
    try:
        from render.kbuffer import numba_impl  # noqa: F401
    except Exception as error:  # absent, built for another numpy, no folder for its cache, ...
        return " ".join(str(error).split()) or type(error).__name__
    return ""


@functools.cache
def _announce(name: str) -> None:
    """Say once which implementation runs and what would make it faster."""
    status = build.status("kb_cpu")
    if name == "native":
        log.info("point rasteriser: %s", status)
    elif name == "numba":
        log.warning("point rasteriser: Numba, about half of full speed (C++: %s)", status)
    else:
        log.warning(
            "point rasteriser: plain torch, 10 to 100 times slower than it could be (C++: %s; "
            "Numba: %s). pip install numba helps too.", status, _numba_fault(),
        )  # fmt: skip


def _allocate(shape: tuple[int, int, int]) -> KBuffer:
    return KBuffer(torch.empty(shape, dtype=torch.int32), torch.empty(shape), torch.empty(shape))


def _copy(source: KBuffer, to: KBuffer) -> KBuffer:
    to.index.copy_(source.index)
    to.depth.copy_(source.depth)
    to.distance.copy_(source.distance)
    return to


# ---------------------------------------------------------------------------- checks
def _check_points(name: str, points: Tensor) -> None:
    if points.dim() != 2 or points.shape[1] != 3 or not points.is_floating_point():
        raise ValueError(
            f"{name}: expected [N, 3] floating point, got {points.dtype} {[*points.shape]}"
        )
    if len(points) >= 2**31 - 1:
        raise ValueError(f"{name}: at most 2^31 - 2 points, got {len(points)}")


def _check_radius(radius: float | Tensor, n: int) -> None:
    if not isinstance(radius, Tensor) or radius.dim() == 0:
        if not (float(radius) > 0 and math.isfinite(radius)):
            raise ValueError(f"radius must be positive and finite, got {float(radius)}")
    elif radius.shape != (n,):
        raise ValueError(f"radius: expected a number or [{n}], got shape {[*radius.shape]}")


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _check_out(out: KBuffer, shape: tuple[int, int, int], device: torch.device) -> None:
    wanted = {"index": torch.int32, "depth": torch.float32, "distance": torch.float32}
    for name, dtype in wanted.items():
        t: Tensor = getattr(out, name)
        if t.shape != shape or t.dtype != dtype or t.device != device or not t.is_contiguous():
            raise ValueError(
                f"out.{name}: expected contiguous {dtype} {[*shape]} on {device}, "
                f"got {t.dtype} {[*t.shape]} on {t.device}"
            )
    if out.weight is not None:
        raise ValueError("out.weight: points have no weight, pass a K-buffer without")
