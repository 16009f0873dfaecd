"""Find or build the CUDA kernels of ``cuda/kb_cuda.cu``.

:func:`load` looks, in this order, for a prebuilt library that was made from exactly these sources,
a library in the user's cache, nvcc, which needs about ten seconds once, and NVRTC, which comes with
torch and needs no compiler. It never raises: where nothing works it returns None, :func:`status`
says why in one line, and the caller rasterises on the CPU.

Environment:
    ``KBUFFERS_CUDA``  prebuilt | nvcc | nvrtc | off: only that road
    ``NVCC``           the CUDA compiler to use
    ``CUDA_HOME``      where CUDA is installed
    and ``KBUFFERS_CACHE``, ``KBUFFERS_NO_COMPILER``, ``KBUFFERS_NO_PREBUILT`` of ``build``
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from render.kbuffer import build, cuda_nvrtc, libraries
from render.kbuffer.compiler import CompileError
from render.kbuffer.cuda_impl import Input, Kernels, Output

log = logging.getLogger(__name__)

Capability = tuple[int, int]  # (9, 0) for sm_90
ROADS = ("prebuilt", "nvcc", "nvrtc")
# What prebuilt libraries hold: code for these, and PTX of the last for what comes after them.
ARCHITECTURES = ("75", "80", "86", "89", "90")
PREBUILT_LEVEL = "all"  # where libraries of the CPU kernels name their instruction set
_COMPILE_SECONDS = 600


@dataclass(frozen=True)
class _Result:
    kernels: Kernels | None
    status: str


class Library:
    """Kernels behind the C ABI of kb_cuda.h."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.kb_cuda_abi.restype = ctypes.c_int
        library.kb_cuda_probe.restype = library.kb_cuda_rasterize.restype = ctypes.c_int
        library.kb_cuda_probe.argtypes = (ctypes.c_int,)
        library.kb_cuda_rasterize.argtypes = (ctypes.POINTER(Input), ctypes.POINTER(Output))
        library.kb_cuda_error.restype = ctypes.c_char_p
        library.kb_cuda_error.argtypes = (ctypes.c_int,)
        if library.kb_cuda_abi() != 1000 * ctypes.sizeof(Input) + ctypes.sizeof(Output):
            raise OSError("kb_cuda has another interface than this program")
        self._library = library

    def rasterize(self, task: Input, result: Output) -> int:
        """See ``cuda_impl.Kernels``."""
        return self._library.kb_cuda_rasterize(ctypes.byref(task), ctypes.byref(result))

    def error_text(self, code: int) -> str:
        """See ``cuda_impl.Kernels``."""
        return self._library.kb_cuda_error(code).decode(errors="replace")

    def probe(self, device: int) -> str:
        """Why this library cannot run on that GPU; empty if it can."""
        code = self._library.kb_cuda_probe(device)
        return f"{self.error_text(code)} ({code})" if code else ""


_lock = threading.Lock()
_results: dict[tuple[object, ...], _Result] = {}


def load(device: int) -> Kernels | None:
    """Kernels that run on CUDA device ``device``, built first if need be; None if there are none.

    Safe from several threads; the answer is remembered for the life of the process.
    """
    return _result(device).kernels


def status(device: int = 0) -> str:
    """One line for ``--doctor``: where the kernels come from, or why there are none."""
    return _result(device).status


def _result(device: int) -> _Result:
    if not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no GPU found"
        return _Result(None, why)
    names = ("KBUFFERS_CUDA", "NVCC", "CUDA_HOME", "KBUFFERS_CACHE", "KBUFFERS_NO_COMPILER")
    key = (device, *(os.environ.get(name) for name in (*names, "KBUFFERS_NO_PREBUILT")))
    with _lock:
        if key not in _results:
            try:
                with torch.cuda.device(device):
                    capability = torch.cuda.get_device_capability(device)
                    _results[key] = find(capability, lambda library: library.probe(device))
            except Exception as error:  # a missing kernel must never stop the program
                log.debug("no CUDA kernels", exc_info=True)
                _results[key] = _Result(None, f"not built: {_one_line(error)}")
        return _results[key]


def find(capability: Capability, probe: Callable[[Library], str]) -> _Result:
    """The first road that leads to kernels for GPUs of ``capability``.

    Args:
        probe: says why a library cannot run, empty if it can.
    """
    chosen = os.environ.get("KBUFFERS_CUDA", "").strip().lower()
    if chosen == "off":
        return _Result(None, "not used: KBUFFERS_CUDA=off")
    reasons = []
    for road in ROADS:
        if chosen in ROADS and road != chosen:
            continue
        try:
            if road == "nvrtc":
                kernels = cuda_nvrtc.Nvrtc(build.SOURCE_DIR, capability)
                return _Result(kernels, f"NVRTC {kernels.version}, a little below full speed")
            library, label = _prebuilt() if road == "prebuilt" else _cached_or_compiled(capability)
            if fault := probe(library):
                raise OSError(f"{label}: {fault}")
            return _Result(library, label)
        except (OSError, CompileError) as error:
            if reason := _one_line(error):
                reasons.append(reason)
    return _Result(None, "; ".join(reasons) or "nothing found")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# ---------------------------------------------------------------------------- prebuilt
def _prebuilt() -> tuple[Library, str]:
    if os.environ.get("KBUFFERS_NO_PREBUILT", "") not in ("", "0"):
        raise OSError("")
    key = (PREBUILT_LEVEL, _source_digest(flags(ARCHITECTURES)))
    library, found = libraries.open_prebuilt(build.SOURCE_DIR / "prebuilt", "kb_cuda", [key])
    if library is None:
        raise OSError(found)
    return Library(library), "prebuilt"


def make_prebuilt(folder: Path) -> Path:
    """Build the library of all ``ARCHITECTURES`` for wheels into ``folder``, about a minute.

    Raises:
        CompileError: there is no nvcc, or it refuses.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise CompileError("nvcc not found")
    folder.mkdir(parents=True, exist_ok=True)
    digest = _source_digest(flags(ARCHITECTURES))
    stem = f"kb_cuda-{libraries.platform_name()}-{PREBUILT_LEVEL}-{digest}"
    return _compile(nvcc, flags(ARCHITECTURES), folder, stem)


# ---------------------------------------------------------------------------- nvcc
def flags(architectures: tuple[str, ...]) -> tuple[str, ...]:
    """For nvcc: code for ``architectures`` ("90"), and PTX of the last."""
    host = "/MD" if os.name == "nt" else "-fPIC,-fvisibility=hidden"
    codes = [f"arch=compute_{a},code=sm_{a}" for a in architectures]
    codes.append(f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    gencode = [word for code in codes for word in ("-gencode", code)]
    return ("-shared", "-O3", "-std=c++17", "-Xcompiler", host, *gencode)


def find_nvcc() -> str | None:
    """``$NVCC``, else that of ``$CUDA_HOME``, on the PATH, or at the usual place."""
    if os.environ.get("KBUFFERS_NO_COMPILER", "") not in ("", "0"):
        return None
    if chosen := os.environ.get("NVCC"):
        return shutil.which(chosen)
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    for place in (*places, "nvcc", "/usr/local/cuda/bin/nvcc"):
        if found := shutil.which(place):
            return found
    return None


@functools.cache
def nvcc_version(nvcc: str) -> str:
    """ "13.0", or "" if it does not answer."""
    try:
        answer = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"release (\d+\.\d+)", answer.stdout)
    return found.group(1) if found else ""


def _cached_or_compiled(capability: Capability) -> tuple[Library, str]:
    nvcc = find_nvcc()
    version = nvcc_version(nvcc) if nvcc else ""
    if nvcc is None or not version:
        raise OSError("nvcc not found (install the CUDA toolkit)")
    architecture = f"{capability[0]}{capability[1]}"
    words = flags((architecture,))
    stem = f"kb_cuda-sm_{architecture}-{_source_digest((*words, nvcc, version))}"
    reason = ""
    for folder in libraries.cache_folders():
        library = libraries.open_cached(folder, stem)
        if library is not None:
            return Library(library), f"nvcc {version}, sm_{architecture}, cached"
        started = time.perf_counter()
        try:
            path = _compile(nvcc, words, folder, stem)
            opened = Library(ctypes.CDLL(str(path)))
        except CompileError as error:
            raise CompileError(f"nvcc {version} could not build kb_cuda.cu: {error}") from error
        except OSError as error:  # read-only or noexec folder, full disk
            reason = _one_line(error)
            continue
        seconds = time.perf_counter() - started
        return opened, f"nvcc {version}, sm_{architecture}, built in {seconds:.0f} s"
    raise OSError(reason)


def _compile(nvcc: str, words: tuple[str, ...], folder: Path, stem: str) -> Path:
    """Compile to ``folder/STEM-DIGEST.so``; see ``compiler.compile_library``."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-", ignore_cleanup_errors=True) as t:
        output = Path(t) / f"out{libraries.SUFFIX}"
        source = build.SOURCE_DIR / "kb_cuda.cu"
        try:
            done = subprocess.run(
                [nvcc, *words, str(source), "-o", str(output)],
                capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CompileError(f"no answer within {_COMPILE_SECONDS} s") from error
        if done.returncode != 0 or not output.is_file():
            lines = (done.stderr + done.stdout).strip().splitlines()
            fault = next((s for s in lines if re.search("error|fatal", s.lower())), "")
            raise CompileError(fault.strip() or f"exit status {done.returncode}")
        path = folder / f"{stem}-{libraries.content_digest(output)}{libraries.SUFFIX}"
        os.replace(output, path)
        return path


def _source_digest(words: tuple[str, ...]) -> str:
    kernels = (build.SOURCE_DIR / "kb_kernels.cuh").read_text()
    return libraries.source_digest(build.SOURCE_DIR / "kb_cuda.cu", (*words, kernels))


if __name__ == "__main__":  # python -m render.kbuffer.cuda_build FOLDER: for wheels
    print(make_prebuilt(Path(sys.argv[1])))
