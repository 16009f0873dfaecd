"""The process and the machine: settings before torch is imported, device, display."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING

from render.errors import UserError

if TYPE_CHECKING:
    import torch

_GIVE_WAY = 5  # niceness, 0..19


def prepare_process() -> None:
    """Settings that must come before torch is imported; measured in docs/results.md.

    OpenMP threads that spin while they wait made a step 15 times slower when the cores were
    shared with a window. Telling glibc to keep large blocks spares a third of the time of a CPU
    step, which otherwise goes into page faults.
    """
    for name in ("stdout", "stderr"):  # None where the program was started without
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):  # another C library, for example musl
            return
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def give_way() -> None:
    """Let other threads of the process go first from now on; for the thread that trains.

    Without it the window draws half as fast while the model trains. Threads that the present one
    starts, such as those of OpenMP, inherit it. Only on Linux is this a thread's own setting.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _GIVE_WAY)


def release_memory(*, ended: bool = False) -> None:
    """Give free memory back to the system, which :func:`prepare_process` told glibc to keep.

    Pictures of many sizes otherwise leave hundreds of megabytes of holes. Takes under a
    millisecond where there is nothing to give, else up to 0.1 s; with ``ended`` 0.3 s more.

    Args:
        ended: a session has ended: it lies in circles of references, which Python finds late.
    """
    if ended:
        gc.collect()
    from render.memory import give_back

    give_back()


def resolve_device(name: str, method: str) -> torch.device:
    """The device for ``--device``; ``auto`` takes a GPU if there is one and ``method`` uses it.

    Raises:
        UserError: CUDA was asked for and is not there.
    """
    import torch

    from render.methods import method_class

    if name == "cuda" and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no GPU found"
        raise UserError(f"--device cuda: {why}; use --device auto or install torch for CUDA.")
    if name == "auto":
        gpu = torch.cuda.is_available() and method_class(method).gpu_ready()
        name = "cuda" if gpu else "cpu"
    return torch.device(name)


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(method: str) -> None:
    """Share the cores between torch and the kernels; see ``render/kbuffer/threads.py``."""
    import torch

    from render.kbuffer.threads import set_kernel_threads
    from render.methods import method_class

    cores = core_count()
    set_kernel_threads(cores)
    torch.set_num_threads(max(1, cores - 1) if method_class(method).small_operations else cores)


def import_ahead() -> None:
    """Import in a thread what torch imports when the first optimiser is made, for a second or two.

    Meanwhile a scene is read, most of which does not need the interpreter.
    """

    def work() -> None:
        with contextlib.suppress(Exception):  # whoever needs it will tell
            importlib.import_module("torch._dynamo")

    if "torch._dynamo" not in sys.modules:
        threading.Thread(target=work, name="import", daemon=True).start()


def describe_device(device: torch.device) -> str:
    """One line about where the work is done."""
    import torch

    from render.kbuffer import build

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU with {core_count()} cores, kernels {build.status()}"


def error_sentence(error: BaseException) -> str:
    """What went wrong, with a remedy where one is known."""
    from render.memory import is_shortage, shortage_sentence
    from render.training.trainer import TrainingDivergedError

    if isinstance(error, (UserError, TrainingDivergedError)):
        return str(error)
    if is_shortage(error):
        return shortage_sentence(error)
    text = str(error).strip().split("\n", 1)[0]
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}."
    return f"Unexpected error ({type(error).__name__}): {text} (--debug shows where)."
