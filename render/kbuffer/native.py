"""ctypes binding of ``cuda/kb_cpu.cpp``."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_void_p

from torch import Tensor

from render.kbuffer import build
from render.kbuffer.axes import PixelAxis
from render.kbuffer.types import KBuffer

MAX_K = 255
MAX_PAIRS = 1 << 25  # 512 MB of records, 800 with radii; larger frames are drawn in bands
FEWEST_PAIRS = 1 << 17  # 2 MB: the last try where memory is short
OUT_OF_MEMORY = 2  # kb::Status
FOOTPRINTS = {"disc": 0, "pixel": 1}


class _Input(ctypes.Structure):
    """``KbInput`` of kb_cpu.cpp."""

    _fields_ = (
        ("points", c_void_p),
        ("radius", c_void_p),
        ("world_to_screen", c_void_p),
        ("x_centers", c_void_p),
        ("y_centers", c_void_p),
        ("n", c_int64),
        ("radius_stride", c_int64),
        ("max_pairs", c_int64),
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
        ("threads", c_int32),
    )


class _Output(ctypes.Structure):
    """``KbOutput`` of kb_cpu.cpp."""

    _fields_ = (("index", c_void_p), ("depth", c_void_p), ("distance", c_void_p))


def load() -> ctypes.CDLL | None:
    """The library with its signatures declared, or None (see ``build.status("kb_cpu")``)."""
    library = build.load("kb_cpu")
    if library is not None:
        library.kb_rasterize.restype = c_int
        library.kb_rasterize.argtypes = (POINTER(_Input), POINTER(_Output))
        library.kb_trim.restype = None
        library.kb_trim.argtypes = ()
    return library


def rasterize(
    library: ctypes.CDLL,
    points: Tensor,
    radius: Tensor,
    xs: PixelAxis,
    ys: PixelAxis,
    out: KBuffer,
    *,
    near: float,
    footprint: str,
    threads: int,
    world_to_screen: Tensor | None = None,
    radius_focal: float = 0.0,
    max_pairs: int = MAX_PAIRS,
) -> None:
    """Fill ``out`` [H, W, K]. The caller has made all arguments float32, contiguous and on CPU.

    Args:
        points: [N, 3] (u, v, depth), or world xyz where ``world_to_screen`` [3, 4] is given.
        radius: [1] or [N]; times ``radius_focal`` / depth where that is positive.
    """
    task = _Input(
        points.data_ptr(),
        radius.data_ptr(),
        None if world_to_screen is None else world_to_screen.data_ptr(),
        xs.centers.data_ptr(),
        ys.centers.data_ptr(),
        points.shape[0],
        int(radius.numel() > 1),
        max_pairs,
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
        threads,
    )
    result = _Output(out.index.data_ptr(), out.depth.data_ptr(), out.distance.data_ptr())
    code = library.kb_rasterize(ctypes.byref(task), ctypes.byref(result))
    while code == OUT_OF_MEMORY and task.max_pairs > FEWEST_PAIRS:
        library.kb_trim()  # or the smaller bands would lie beside what is there already
        task.max_pairs = max(FEWEST_PAIRS, task.max_pairs // 8)
        code = library.kb_rasterize(ctypes.byref(task), ctypes.byref(result))
    if code == OUT_OF_MEMORY:
        count, (height, width, _) = points.shape[0], out.index.shape
        raise MemoryError(
            f"not enough memory to rasterise {count:,} points at {width}x{height}; "
            "use fewer points or a smaller picture"
        )
    if code != 0:
        raise RuntimeError(f"kb_rasterize failed with status {code}")


def trim() -> None:
    """Free the scratch memory that the calling thread's frames have left behind."""
    library = build.opened("kb_cpu")  # nothing was drawn yet: nothing to free
    if library is not None:
        library.kb_trim()
