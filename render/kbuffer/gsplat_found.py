"""Whether Gaussians can be splatted on a GPU: gsplat, its kernels, and ours.

gsplat is imported at the first use on a GPU, and only then: without one its import succeeds, and
the first call fails with an ImportError about a library that was never built.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from importlib.util import find_spec
from pathlib import Path

import torch

from render.kbuffer import gaussians_cuda

VERSION = (1, 5)  # whose lower functions are used

log = logging.getLogger(__name__)


def installed() -> str:
    """The version of gsplat, "" if it is not installed. Nothing is imported."""
    try:
        return importlib.metadata.version("gsplat") if find_spec("gsplat") else ""
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def expected() -> str:
    """Why this road is closed, as far as can be told without compiling; "" if it looks open."""
    if not torch.cuda.is_available():
        return "this torch is built without CUDA" if torch.version.cuda is None else "no GPU found"
    version = installed()
    if not version:
        return 'gsplat is not installed: pip install "kbuffers[cuda]"'
    if _parsed(version) != VERSION:
        wanted = ".".join(map(str, VERSION))
        return f"gsplat {version} found, {wanted} needed: pip install 'gsplat=={wanted}.*'"
    if not _toolkit():
        return f"gsplat {version} needs nvcc to build its kernels (install the CUDA toolkit)"
    return ""


def usable(device: torch.device) -> bool:
    """Whether Gaussians can be splatted on CUDA ``device``; :func:`status` says why not.

    The first call imports gsplat, which compiles itself if it has not yet: some minutes, once.
    """
    return not _fault(index_of(device))


def status(device: torch.device | None = None) -> str:
    """One line: what splats on that GPU, or why nothing does. Compiles, as :func:`usable`."""
    index = index_of(device or torch.device("cuda"))
    return _fault(index) or f"gsplat {installed()}, NVRTC {gaussians_cuda.load(index).version}"


def _parsed(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else ()


def _toolkit() -> bool:
    """Whether gsplat's kernels are there or can be built."""
    spec = find_spec("gsplat")
    folders = (spec and spec.submodule_search_locations) or []
    if any(any(Path(folder).glob("csrc.*")) for folder in folders):  # a wheel with kernels
        return True
    from torch.utils.cpp_extension import CUDA_HOME

    return CUDA_HOME is not None


def index_of(device: torch.device) -> int:
    """The number of a CUDA device."""
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def _fault(index: int) -> str:
    """Why nothing can be splatted on that GPU, "" if it can."""
    if fault := expected():
        return fault
    try:
        log.info("loading gsplat; it compiles its kernels at the first use, some minutes, once")
        from gsplat.cuda import _backend  # pyright: ignore[reportMissingImports]

        if _backend._C is None:
            return f"gsplat {installed()} found no CUDA toolkit"
    except Exception as error:  # it compiles here: anything may happen
        return f"gsplat {installed()} did not build: {_one_line(error)}"
    try:
        gaussians_cuda.load(index)
    except OSError as error:
        return f"splatting kernels did not build: {_one_line(error)}"
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
