"""The C++ kernels of ``cuda/``, opened through their C ABI.

:func:`load` looks for ``cuda/<name>.cpp`` in this order: a prebuilt library that was made from
exactly these sources (wheels carry them), the per-user cache, a compiler, which needs some seconds
once. It never raises and nothing is built at import: where there is neither library nor compiler
it returns None, :func:`status` says why in one line, and the caller falls back to Numba or torch.

Environment:
    ``KBUFFERS_BACKEND``      native | numba | torch: anything but native keeps the library unused
    ``KBUFFERS_CACHE``        folder of the built libraries
    ``KBUFFERS_NO_COMPILER``  1: behave as if no compiler were installed
    ``KBUFFERS_NO_PREBUILT``  1: behave as if no library came with the program
    ``KBUFFERS_CPU_LEVEL``    baseline | avx2 | avx512: use less than this CPU has
    ``CXX``                   the compiler to try first
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from render.files import shipped
from render.kbuffer import libraries
from render.kbuffer.compiler import (
    GNU_FLAGS,
    GNU_LEVELS,
    CompileError,
    Compiler,
    compile_library,
    find_compiler,
)

log = logging.getLogger(__name__)

SOURCE_DIR = shipped("cuda")
BACKENDS = ("native", "numba", "torch")
LEVELS = tuple(GNU_LEVELS)  # best first
_SETTINGS = ("BACKEND", "CACHE", "NO_COMPILER", "NO_PREBUILT", "CPU_LEVEL")


@dataclass(frozen=True)
class _Result:
    library: ctypes.CDLL | None
    status: str


_lock = threading.Lock()
_results: dict[tuple[str | None, ...], _Result] = {}


def load(name: str) -> ctypes.CDLL | None:
    """The library of ``cuda/<name>.cpp``, built first if need be; None where that cannot be done.

    The caller declares ``restype`` and ``argtypes``. Safe from several threads and processes; the
    answer is remembered for the life of the process. ctypes releases the GIL during calls.
    """
    return _result(name).library


def opened(name: str) -> ctypes.CDLL | None:
    """The library of ``cuda/<name>.cpp`` if :func:`load` has found it before; builds nothing."""
    with _lock:
        result = _results.get(_key(name))
    return None if result is None else result.library


def status(name: str = "kb_cpu") -> str:
    """One line for ``--doctor``: where ``name`` comes from, or why it is missing and what helps."""
    return _result(name).status


def cache_folder() -> Path | None:
    """The user's folder of compiled kernels; None where there is no home."""
    return libraries.user_cache()


def forced_backend() -> str | None:
    """``$KBUFFERS_BACKEND`` if it names a backend, else None."""
    value = os.environ.get("KBUFFERS_BACKEND", "").strip().lower()
    return value if value in BACKENDS else None


def cpu_level() -> str:
    """Instruction set to use: ``avx512``, ``avx2`` or ``baseline``, which on ARM includes NEON.

    torch's own detection decides; ``$KBUFFERS_CPU_LEVEL`` can only lower it.
    """
    # AVX-512 means F, BW, DQ, VL and FMA here; AVX2 means AVX2 and FMA (ATen's DispatchStub).
    found = torch.backends.cpu.get_cpu_capability().lower()
    found = found if found in LEVELS else "baseline"
    asked = os.environ.get("KBUFFERS_CPU_LEVEL", "").strip().lower()
    if asked not in LEVELS:
        return found
    return LEVELS[max(LEVELS.index(found), LEVELS.index(asked))]


def prebuilt_key(source: Path, level: str) -> str:
    """Digest that a prebuilt library of ``source`` carries: its text, its headers and the flags."""
    return libraries.source_digest(source, (*GNU_FLAGS, *GNU_LEVELS[level]))


def _key(name: str) -> tuple[str | None, ...]:
    """What decides which library ``name`` is."""
    settings = (os.environ.get(f"KBUFFERS_{setting}") for setting in _SETTINGS)
    return (name, str(SOURCE_DIR), os.environ.get("CXX"), *settings)


def _result(name: str) -> _Result:
    key = _key(name)
    with _lock:
        if key not in _results:
            try:
                _results[key] = _find_or_build(name)
            except Exception as error:  # a missing kernel must never stop the program
                log.debug("building %s failed", name, exc_info=True)
                reason = " ".join(str(error).split()) or type(error).__name__
                _results[key] = _Result(None, f"not built: {reason}")
        return _results[key]


def _find_or_build(name: str) -> _Result:
    forced = forced_backend()
    if forced not in (None, "native"):
        return _Result(None, f"not used: KBUFFERS_BACKEND={forced}")
    source = SOURCE_DIR / f"{name}.cpp"
    if not source.is_file():
        return _Result(None, f"source {source} not found; install again")
    levels = LEVELS[LEVELS.index(cpu_level()) :]
    why = ""
    if os.environ.get("KBUFFERS_NO_PREBUILT", "") in ("", "0"):
        keys = [(level, prebuilt_key(source, level)) for level in levels]
        library, found = libraries.open_prebuilt(SOURCE_DIR / "prebuilt", name, keys)
        if library is not None:
            return _Result(library, f"native (prebuilt, {_label(found)})")
        why = f" ({found})" if found else ""
    compiler = find_compiler()
    if compiler is None:
        return _Result(None, f"no C++ compiler found; install g++ or clang for full speed{why}")
    return _cached_or_compiled(source, compiler, levels)


def _cached_or_compiled(source: Path, compiler: Compiler, levels: tuple[str, ...]) -> _Result:
    reason = ""
    for level in levels:  # an old compiler may not know AVX-512
        stem = f"{source.stem}-{level}-{_cache_key(source, compiler, level)}"
        label = f"{compiler.label}, {_label(level)}"
        for folder in libraries.cache_folders():
            library = libraries.open_cached(folder, stem)
            if library is not None:
                return _Result(library, f"native ({label}, cached)")
            started = time.perf_counter()
            try:
                path = compile_library(source, compiler, level, folder, stem)
                library = ctypes.CDLL(str(path))
            except CompileError as error:
                reason = str(error)
                break  # another folder will not help, a plainer instruction set may
            except OSError as error:  # read-only or noexec folder, full disk
                reason = " ".join(str(error).split())
                continue
            seconds = time.perf_counter() - started
            return _Result(library, f"native ({label}, built in {seconds:.1f} s)")
    return _Result(None, f"{compiler.label} could not build {source.name}: {reason}")


def _cache_key(source: Path, compiler: Compiler, level: str) -> str:
    machine = (platform.system(), platform.machine(), str(sys.maxsize))
    words = (*compiler.command, compiler.version, *compiler.flags(level), *machine)
    return libraries.source_digest(source, words)


def _label(level: str) -> str:
    if level == "baseline" and libraries.platform_name().endswith("-aarch64"):
        return "NEON"
    return {"avx512": "AVX-512", "avx2": "AVX2"}.get(level, level)
