"""The CUDA kernels without a CUDA compiler: NVRTC, which comes with torch, compiles them.

The host's part, ``cuda/kb_frame.h``, is here once more, :func:`draw`; torch sorts and sums instead
of CUB. The kernels and the picture are the same.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from ctypes import byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from render.kbuffer.cuda_impl import BAD_ARGUMENT, OUT_OF_MEMORY, Input, Output
from render.memory import is_shortage

TILE = 16
BLOCK = 256
COUNT_BLOCKS = 2048
SHAPES = ("DISC", "PIXEL")  # by footprint

# Runs `blocks` blocks of the kernel of that name; 0 or a CUDA error.
Launch = Callable[[str, int, Sequence[Any]], int]


class Program(NamedTuple):
    """Kernels as NVRTC wants them."""

    source: str  # a file of ``cuda/``
    headers: tuple[str, ...]  # files of ``cuda/`` that it includes
    texts: tuple[tuple[str, str], ...] = ()  # name and text of others: NVRTC has no C library
    options: tuple[str, ...] = ()


POINTS = Program("kb_kernels.cuh", ("kb_core.h", "kb_tile.h", "kb_device.h"))


# ---------------------------------------------------------------------------- kb_device.h
class _Axis(ctypes.Structure):
    _fields_ = (("half", c_float), ("scale", c_float), ("n", c_int32))


class _Grid(ctypes.Structure):
    _fields_ = (("x", _Axis), ("y", _Axis), ("columns", c_int32), ("rows", c_int32))


class _Cloud(ctypes.Structure):
    _fields_ = (
        ("points", c_void_p),
        ("radius", c_void_p),
        ("n", c_int64),
        ("radius_stride", c_int64),
        ("world_to_screen", c_float * 12),
        ("z_near", c_float),
        ("radius_focal", c_float),
        ("from_world", c_int32),
    )


class _Band(ctypes.Structure):
    _fields_ = tuple(
        (name, c_int32)
        for name in ("first", "last", "first_row", "first_column", "last_row", "last_column")
    )


class _KeyLayout(ctypes.Structure):
    _fields_ = (("nearest", c_uint32), ("depth_bits", c_int32))


class _Picture(ctypes.Structure):
    _fields_ = (
        ("index", c_void_p),
        ("depth", c_void_p),
        ("distance", c_void_p),
        ("k", c_int32),
        ("vector", c_int32),
    )


class _Drawing(ctypes.Structure):
    _fields_ = (
        ("grid", _Grid),
        ("out", _Picture),
        ("points", c_void_p),
        ("order", c_void_p),
        ("ranges", c_void_p),
        ("xs", c_void_p),
        ("ys", c_void_p),
        ("first", c_int32),
    )


def raster_name(k: int, footprint: int) -> str:
    """The kernel that draws ``k`` layers."""
    capacity = next((c for c in (1, 2, 4, 8, 16) if k <= c), None)
    layers = f"kb::RegisterList<{capacity}>" if capacity else "kb::MemoryList"
    return f"kb::kb_raster<{layers}, kb::{SHAPES[footprint]}>"


# ---------------------------------------------------------------------------- kb_frame.h
def draw(launch: Launch, task: Input, result: Output, device: torch.device) -> int:
    """Draw a frame in torch's current stream: ``kb_cuda_rasterize`` on top of ``launch``.

    0, ``BAD_ARGUMENT``, ``OUT_OF_MEMORY`` or what ``launch`` returns.
    """
    result.pairs = result.wanted = result.bands = 0
    if not (task.width >= 1 and task.height >= 1 and 1 <= task.k <= 255 and task.max_pairs >= 1):
        return BAD_ARGUMENT
    try:
        return _draw(launch, task, result, device)
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        return OUT_OF_MEMORY


def _draw(launch: Launch, task: Input, result: Output, device: torch.device) -> int:
    n, tiles_x, tiles_y = task.n, -(-task.width // TILE), -(-task.height // TILE)
    tiles = tiles_x * tiles_y
    grid = _Grid(
        _Axis(task.x_half, task.x_scale, task.width),
        _Axis(task.y_half, task.y_scale, task.height),
        tiles_x,
        tiles_y,
    )
    cloud = _Cloud(
        task.points, task.radius, n, task.radius_stride, task.world_to_screen, task.z_near,
        task.radius_focal, task.from_world,
    )  # fmt: skip
    aligned = ((result.index or 0) | (result.depth or 0) | (result.distance or 0)) % 16 == 0
    picture = _Picture(
        result.index, result.depth, result.distance, task.k, aligned and task.k in (4, 8, 16)
    )
    shape = c_int32(task.footprint)
    result.wanted = n * 24 + tiles * 8
    points = torch.empty(n, 4, dtype=torch.float32, device=device)  # u, v, depth, radius
    counts = torch.empty(n, dtype=torch.int32, device=device)
    ranges = torch.empty(tiles, 2, dtype=torch.int32, device=device)

    first, size = 0, tiles
    while first < tiles:
        last = min(first + size, tiles)
        band = _Band(first, last, *divmod(first, tiles_x), *divmod(last, tiles_x))
        pairs, layout = 0, _KeyLayout()
        if n:
            stats = torch.zeros(2, dtype=torch.int64, device=device)
            blocks = min(-(-n // BLOCK), COUNT_BLOCKS)
            if error := launch(
                "kb::kb_count",
                blocks,
                (cloud, grid, shape, band, *map(_pointer, (points, counts, stats))),
            ):
                return error
            pairs, depths = stats.tolist()  # the only place where the host waits
            nearest, farthest = ~depths & 0xFFFFFFFF, depths >> 32 & 0xFFFFFFFF
            layout = _KeyLayout(nearest, max(farthest - nearest, 0).bit_length())
        divisible = last - first > 1
        if pairs > task.max_pairs and divisible:
            size = (last - first + 1) // 2
            continue
        ranges[: last - first] = 0
        order = None
        if pairs:
            result.wanted = 36 * pairs
            try:
                order = _sorted_pairs(launch, cloud, grid, shape, band, layout, points, counts,
                                      pairs, ranges)  # fmt: skip
            except RuntimeError as error:
                if not (is_shortage(error) and divisible):
                    raise
                size = (last - first + 1) // 2
                continue
            if isinstance(order, int):
                return order
        drawing = _Drawing(
            grid, picture, points.data_ptr(), None if order is None else order.data_ptr(),
            ranges.data_ptr(), task.x_centers, task.y_centers, first,
        )  # fmt: skip
        if error := launch(raster_name(task.k, task.footprint), last - first, (drawing,)):
            return error
        result.pairs += pairs
        result.bands += 1
        first = last
    return 0


def _sorted_pairs(
    launch: Launch, cloud: _Cloud, grid: _Grid, shape: c_int32, band: _Band, layout: _KeyLayout,
    points: Tensor, counts: Tensor, pairs: int, ranges: Tensor,
) -> Tensor | int:  # fmt: skip
    """The points of all tiles, front to back in each, [pairs] int32; fills ``ranges``."""
    ends = counts.cumsum(0, dtype=torch.int32)
    keys = torch.empty(pairs, dtype=torch.int64, device=points.device)
    values = torch.empty(pairs, dtype=torch.int32, device=points.device)
    tensors = (points, counts, ends, keys, values)
    arguments = (c_int64(cloud.n), grid, shape, band, layout, *map(_pointer, tensors))
    if error := launch("kb::kb_emit", -(-cloud.n // BLOCK), arguments):
        return error
    keys, order = keys.sort(stable=True)
    arguments = (layout, _pointer(keys), c_uint32(pairs), _pointer(ranges))
    if error := launch("kb::kb_ranges", -(-pairs // BLOCK), arguments):
        return error
    return values[order]


def _pointer(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())


# ---------------------------------------------------------------------------- NVRTC
class Compiler:
    """``libnvrtc``, as torch brings it along.

    Raises:
        OSError: it is not there.
    """

    def __init__(self) -> None:
        self._library = _open_nvrtc()
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(byref(major), byref(minor)))
        self.version = f"{major.value}.{minor.value}"

    def compile(
        self, folder: Path, architecture: str, name: str, kernels: Program = POINTS
    ) -> tuple[bytes, bytes]:
        """Machine code of the kernels in ``folder`` for "sm_90", and the symbol of ``name``.

        Raises:
            OSError: the compiler refuses; the text is its first error.
        """
        source = (folder / kernels.source).read_bytes()
        texts = {header: (folder / header).read_bytes() for header in kernels.headers}
        texts |= {header: text.encode() for header, text in kernels.texts}
        many = c_char_p * len(texts)
        program = c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(
                byref(program), source, kernels.source.encode(), len(texts),
                many(*texts.values()), many(*(header.encode() for header in texts)),
            )
        )  # fmt: skip
        try:
            expression = name.encode()
            self._check(self._library.nvrtcAddNameExpression(program, expression))
            words = (f"--gpu-architecture={architecture}", "-std=c++17", *kernels.options)
            options = (c_char_p * len(words))(*(word.encode() for word in words))
            if self._library.nvrtcCompileProgram(program, len(options), options):
                log = self._text(program, "ProgramLog").decode(errors="replace").splitlines()
                raise OSError(next((line for line in log if "error" in line), "unknown error"))
            symbol = c_char_p()
            self._check(self._library.nvrtcGetLoweredName(program, expression, byref(symbol)))
            return self._text(program, "CUBIN"), symbol.value or b""
        finally:
            self._library.nvrtcDestroyProgram(byref(program))

    def _text(self, program: c_void_p, what: str) -> bytes:
        size = c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, text))
        return text.raw

    def _check(self, code: int) -> None:
        if code:
            self._library.nvrtcGetErrorString.restype = c_char_p
            raise OSError(f"NVRTC: {self._library.nvrtcGetErrorString(code).decode()}")


def _open_nvrtc() -> ctypes.CDLL:
    """The library of torch's CUDA version, from its wheels or from the system."""
    major = (torch.version.cuda or "13").partition(".")[0]
    windows = sys.platform == "win32"
    name = f"nvrtc64_{major}0_0.dll" if windows else f"libnvrtc.so.{major}"
    folders = [Path(torch.__file__).parent / "lib"]
    for packages in map(Path, sys.path):  # cu13, or cuda_nvrtc in older wheels
        folders += [*packages.glob("nvidia/cu*/lib"), *packages.glob("nvidia/cu*/bin*")]
    for folder in folders:
        if not (folder / name).is_file():
            continue
        # It looks for this one by name only, so it has to be there already.
        for builtins in sorted(folder.glob(f"*nvrtc-builtins*{major}*")):
            if ".alt." not in builtins.name:
                ctypes.CDLL(str(builtins))
        return ctypes.CDLL(str(folder / name))
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise OSError(f"NVRTC ({name}) not found") from None


class Module:
    """Kernels compiled at run time for one kind of GPU, each at its first launch.

    Raises:
        OSError: there is no NVRTC, or it does not know this GPU.
    """

    def __init__(
        self, folder: Path, capability: tuple[int, int], kernels: Program, first: str
    ) -> None:
        self._folder, self._architecture = folder, f"sm_{capability[0]}{capability[1]}"
        self._kernels = kernels
        self._compiler = Compiler()
        self.version = self._compiler.version
        self._codes: dict[str, tuple[bytes, bytes]] = {}
        self._functions: dict[tuple[str, int], c_void_p] = {}
        self._lock = threading.Lock()
        self._code(first)
        self._driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def launch(
        self, name: str, blocks: int, arguments: Sequence[Any], device: int, stream: int | None
    ) -> int:
        """Run ``blocks`` blocks of a kernel; 0 or a CUDA error."""
        try:
            self._enter(device)
            function = self._function(name, device)
        except _DriverError as error:
            return error.code
        pointers = (c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        # function, grid, block, shared memory, stream, arguments, extra
        return self._driver.cuLaunchKernel(
            function, blocks, 1, 1, BLOCK, 1, 1, 0, c_void_p(stream), pointers, None
        )

    def error_text(self, code: int) -> str:
        """What a positive error means."""
        text = c_char_p()
        self._driver.cuGetErrorString(code, byref(text))
        return (text.value or b"unknown error").decode(errors="replace")

    def _enter(self, device: int) -> None:
        """Make torch's context the current one: in a new thread there may be none yet."""
        context = c_void_p()
        _check_driver(self._driver.cuCtxGetCurrent(byref(context)))
        if not context:
            _check_driver(self._driver.cuDevicePrimaryCtxRetain(byref(context), device))
            _check_driver(self._driver.cuCtxSetCurrent(context))

    def _code(self, name: str) -> tuple[bytes, bytes]:
        if name not in self._codes:
            self._codes[name] = self._compiler.compile(
                self._folder, self._architecture, name, self._kernels
            )
        return self._codes[name]

    def _function(self, name: str, device: int) -> c_void_p:
        with self._lock:
            if (name, device) not in self._functions:
                code, symbol = self._code(name)
                module, function = c_void_p(), c_void_p()
                _check_driver(self._driver.cuModuleLoadData(byref(module), code))
                _check_driver(self._driver.cuModuleGetFunction(byref(function), module, symbol))
                self._functions[name, device] = function
            return self._functions[name, device]


class Nvrtc(Module):
    """The rasteriser of points; see ``cuda_impl.Kernels``.

    Raises:
        OSError: as :class:`Module`.
    """

    def __init__(self, folder: Path, capability: tuple[int, int]) -> None:
        super().__init__(folder, capability, POINTS, "kb::kb_count")

    def rasterize(self, task: Input, result: Output) -> int:
        """See ``cuda_impl.Kernels``."""

        def launch(name: str, blocks: int, arguments: Sequence[Any]) -> int:
            return self.launch(name, blocks, arguments, task.device, task.stream)

        return draw(launch, task, result, torch.device("cuda", task.device))


class _DriverError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _check_driver(code: int) -> None:
    if code:
        raise _DriverError(code)
