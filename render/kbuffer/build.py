"""Build and load the C++ kernels of ``cuda/`` through their C ABI.

:func:`load` compiles ``cuda/<name>.cpp`` in about a second with whatever compiler is there, keeps
the library in a per-user cache and opens it with ctypes. It never raises and nothing is built at
import: where there is no compiler it returns None, :func:`status` says why in one line, and the
caller falls back to Numba or torch.

Environment:
    ``KBUFFERS_BACKEND``      native | numba | torch: anything but native keeps the library unused
    ``KBUFFERS_CACHE``        folder of the built libraries
    ``KBUFFERS_NO_COMPILER``  1: behave as if no compiler were installed
    ``KBUFFERS_CPU_LEVEL``    baseline | avx2 | avx512: build for less than this CPU has
    ``CXX``                   the compiler to try first
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

log = logging.getLogger(__name__)

SOURCE_DIR = Path(__file__).resolve().parents[2] / "cuda"
BACKENDS = ("native", "numba", "torch")

# -ffp-contract=off: a fused multiply-add rounds once instead of twice, and the kernels promise the
# same bits as their Numba and torch twins.
_GNU_FLAGS = [
    "-O3",
    "-std=c++17",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
]
_GNU_LEVELS = {
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
    "avx2": ["-mavx2", "-mfma"],
    "baseline": [],
}
_MSVC_FLAGS = ["/nologo", "/O2", "/std:c++17", "/EHsc", "/fp:precise", "/LD"]
_MSVC_LEVELS = {"avx512": ["/arch:AVX512"], "avx2": ["/arch:AVX2"], "baseline": []}
_LEVEL_NAMES = {"avx512": "AVX-512", "avx2": "AVX2", "baseline": "baseline"}
_COMPILE_SECONDS = 180  # give up on a compiler that hangs (a licence prompt, a dead network drive)


@dataclass(frozen=True)
class _Compiler:
    command: tuple[str, ...]
    version: str  # first line of what it says about itself
    label: str  # "g++ 12.2"
    msvc: bool


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


def status(name: str = "kb_cpu") -> str:
    """One line for ``--doctor``: how ``name`` was built, or why it was not and what would help."""
    return _result(name).status


def cache_folder() -> Path | None:
    """The user's folder of compiled kernels; None where there is no home."""
    return _user_cache()


def forced_backend() -> str | None:
    """``$KBUFFERS_BACKEND`` if it names a backend, else None."""
    value = os.environ.get("KBUFFERS_BACKEND", "").strip().lower()
    return value if value in BACKENDS else None


def cpu_level() -> str:
    """Instruction set to build for: ``avx512``, ``avx2`` or ``baseline`` (ARM: always baseline).

    torch's own detection decides; ``$KBUFFERS_CPU_LEVEL`` can only lower it.
    """
    # AVX-512 means F, BW, DQ, VL and FMA here; AVX2 means AVX2 and FMA (ATen's DispatchStub).
    found = torch.backends.cpu.get_cpu_capability().lower()
    found = found if found in _GNU_LEVELS else "baseline"
    order = list(_GNU_LEVELS)
    asked = os.environ.get("KBUFFERS_CPU_LEVEL", "").strip().lower()
    return order[max(order.index(found), order.index(asked))] if asked in order else found


def _result(name: str) -> _Result:
    settings = ("KBUFFERS_BACKEND", "KBUFFERS_CACHE", "KBUFFERS_NO_COMPILER", "KBUFFERS_CPU_LEVEL")
    key = (name, str(SOURCE_DIR), *(os.environ.get(s) for s in (*settings, "CXX")))
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
        return _Result(None, f"source {source} not found; install from the repository")
    compiler = _find_compiler()
    if compiler is None:
        return _Result(None, "no C++ compiler found; install g++ or clang for full speed")

    reason = ""
    levels = list(_GNU_LEVELS)
    for level in levels[levels.index(cpu_level()) :]:  # an old compiler may not know AVX-512
        flags = _flags(compiler, level)
        key = _cache_key(source, compiler, flags)
        stem = f"{name}-{level}-{key}"
        label = f"{compiler.label}, {_LEVEL_NAMES[level]}"
        for folder in _cache_dirs():
            library = _open_cached(folder, stem)
            if library is not None:
                return _Result(library, f"native ({label}, cached)")
            started = time.perf_counter()
            try:
                path = _compile(source, compiler, flags, folder, stem)
                library = ctypes.CDLL(str(path))
            except _CompileError as error:
                reason = str(error)
                break  # another folder will not help, a plainer instruction set may
            except OSError as error:  # read-only or noexec folder, full disk
                reason = " ".join(str(error).split())
                continue
            seconds = time.perf_counter() - started
            return _Result(library, f"native ({label}, built in {seconds:.1f} s)")
    return _Result(None, f"{compiler.label} could not build {source.name}: {reason}")


# ---------------------------------------------------------------------------- compiler
def _find_compiler() -> _Compiler | None:
    if os.environ.get("KBUFFERS_NO_COMPILER", "") not in ("", "0"):
        return None
    # posix=False keeps the backslashes of Windows paths
    chosen = shlex.split(os.environ.get("CXX", ""), posix=os.name != "nt")
    for command in (chosen, ["g++"], ["clang++"], ["c++"], ["cl"]):
        path = shutil.which(command[0]) if command else None
        compiler = _identify((path, *command[1:])) if path else None
        if compiler is not None:
            return compiler
    return None


def _identify(command: tuple[str, ...]) -> _Compiler | None:
    """Ask the compiler who it is; None for stubs (macOS without Xcode tools) and broken ones."""
    # "ccache g++" is g++, "g++ -m64" is g++ too
    name = Path([word for word in command if not word.startswith("-")][-1]).stem
    msvc = name.lower() == "cl"
    try:
        answer = subprocess.run(
            [*command] if msvc else [*command, "--version"],
            capture_output=True, text=True, errors="replace", timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = (answer.stdout + answer.stderr).strip().partition("\n")[0]
    if not version or (answer.returncode != 0 and not msvc):
        return None
    number = re.search(r"\d+\.\d+", version)
    return _Compiler(command, version, f"{name} {number.group() if number else '?'}", msvc)


def _flags(compiler: _Compiler, level: str) -> list[str]:
    if compiler.msvc:
        return _MSVC_FLAGS + _MSVC_LEVELS[level]
    # MinGW: without -static the library would need DLLs that only the compiler's folder has
    return _GNU_FLAGS + _GNU_LEVELS[level] + (["-static"] if os.name == "nt" else [])


class _CompileError(Exception):
    """The compiler ran and refused; the text is its first error."""


def _compile(source: Path, compiler: _Compiler, flags: list[str], folder: Path, stem: str) -> Path:
    """Compile into ``folder`` and return the library; OSError where the folder cannot be used."""
    # Built beside its final place, so that the rename is atomic: another process sees either no
    # library or a whole one.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-", ignore_cleanup_errors=True) as t:
        output = Path(t) / f"out{_suffix()}"
        out = [f"/Fe:{output}", f"/Fo:{t}{os.sep}"] if compiler.msvc else ["-o", str(output)]
        try:
            done = subprocess.run(
                [*compiler.command, *flags, str(source), *out],
                capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise _CompileError(f"no answer within {_COMPILE_SECONDS} s") from error
        if done.returncode != 0 or not output.is_file():
            lines = (done.stderr + done.stdout).strip().splitlines()
            fault = next((s for s in lines if "error" in s.lower()), lines[-1] if lines else "")
            log.debug("compiler output:\n%s", "\n".join(lines))
            raise _CompileError(fault.strip() or f"exit status {done.returncode}")
        path = folder / f"{stem}-{_digest(output)}{_suffix()}"
        try:
            os.replace(output, path)
        except PermissionError:  # Windows: another process has just put it there and loaded it
            if not path.is_file():
                raise
        return path


# ---------------------------------------------------------------------------- cache
def _cache_key(source: Path, compiler: _Compiler, flags: list[str]) -> str:
    sha = hashlib.sha256()
    for path in (source, *sorted(SOURCE_DIR.glob("*.h"))):
        sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    machine = (platform.system(), platform.machine(), str(sys.maxsize))
    sha.update("\0".join((*compiler.command, compiler.version, *flags, *machine)).encode())
    return sha.hexdigest()[:16]


def _open_cached(folder: Path, stem: str) -> ctypes.CDLL | None:
    """A cached library that is whole; damaged ones are removed.

    The name ends with the digest of the content, because the loader itself does not check: mapping
    a truncated library kills the process with SIGBUS instead of raising.
    """
    for path in sorted(folder.glob(f"{stem}-*{_suffix()}")):
        try:
            if path.stem.endswith(_digest(path)):
                return ctypes.CDLL(str(path))
            path.unlink()
        except OSError as error:
            log.debug("cached %s is unusable: %s", path, error)
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _suffix() -> str:
    return {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def _cache_dirs() -> Iterator[Path]:
    """Folders to try, best first; the last is private to this process and removed at its end."""
    folder = _user_cache()
    if folder is not None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # the only portable test of "writable"
                pass
            yield folder
        except OSError as error:
            log.debug("cache %s is not usable: %s", folder, error)
            if folder.is_dir():  # read-only, but it may hold a library
                yield folder
    private = Path(tempfile.mkdtemp(prefix="kbuffers-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    yield private


def _user_cache() -> Path | None:
    if chosen := os.environ.get("KBUFFERS_CACHE"):
        return Path(chosen).expanduser()
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "kbuffers"
    try:
        home = Path.home()
    except RuntimeError:  # a container user without a home
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "kbuffers"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "kbuffers"
    return home / ".cache" / "kbuffers"
