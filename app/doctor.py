"""``--doctor``: what was found on this machine, and what would make the program faster."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table

import render
from app.options import Options
from app.output import make_console


def examine(options: Options) -> int:
    """Print the table; always 0."""
    table = Table(title=f"kbuffers {render.__version__}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, check in (
        ("Python", _python),
        ("torch", _torch),
        ("CPU", _cpu),
        ("CUDA", _cuda),
        ("Memory", _memory),
        ("Kernels", _kernels),
        ("CUDA kernels", _cuda_kernels),
        ("gsplat", _gsplat),
        ("LPIPS", _lpips),
        ("ffmpeg", _ffmpeg),
        ("Window", _window),
    ):
        table.add_row(name, escape(_guarded(check)))
    table.add_row("Scenes", escape(_guarded(lambda: _scenes(options))))
    table.add_row("Kernel cache", escape(_guarded(_cache)))
    make_console().print(table, soft_wrap=False)
    return 0


def _guarded(check: object) -> str:
    """A broken part of the machine is a finding, not a reason to stop looking."""
    assert callable(check)
    try:
        return str(check())
    except Exception as error:
        return f"cannot be examined: {type(error).__name__}: {error}"


def _python() -> str:
    return f"{platform.python_version()} on {platform.platform()} ({sys.executable})"


def _torch() -> str:
    import torch

    return str(torch.__version__)


def _cpu() -> str:
    import torch

    isa = torch.backends.cpu.get_cpu_capability()
    # The probe is private and may go: without it bf16 counts as absent.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    bf16 = "bf16" if probe is not None and probe() else "no bf16"
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    return (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {isa}, {bf16}, "
        f"OMP_WAIT_POLICY={policy}"
    )


def _cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA; training runs on the CPU"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but finds no GPU or driver"
    parts = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        size = properties.total_memory / 2**30
        parts.append(f"{properties.name}, sm_{properties.major}{properties.minor}, {size:.0f} GiB")
    return f"CUDA {torch.version.cuda}: {'; '.join(parts)}"


def _memory() -> str:
    import psutil

    from render.memory import free_bytes, size_text

    total = psutil.virtual_memory().total
    return f"{size_text(free_bytes())} of {size_text(total)} can be taken"


def _cuda_kernels() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    from render.kbuffer import cuda_build

    devices = range(torch.cuda.device_count())
    return "\n".join(f"points, GPU {i}: {cuda_build.status(i)}" for i in devices)


def _kernels() -> str:
    from render.kbuffer import build
    from render.kbuffer.rasterize import backend_name

    names = ("kb_cpu", "gs_cpu", "kfn_cpu", "disc_cpu")
    lines = [f"{name}: {build.status(name)}" for name in names]
    return "\n".join([f"points by {backend_name()}", *lines])


def _gsplat() -> str:
    from render.kbuffer import gsplat_found

    version = gsplat_found.installed()
    if not version:
        return "not installed (for Gaussians on a GPU; they run on the CPU)"
    fault = gsplat_found.expected()
    if fault:
        return f"{version}, not used: {fault}"
    return f"{version}, for Gaussians on a GPU; the first use compiles it, some minutes"


def _lpips() -> str:
    import torch

    from render.training.metrics import load_lpips

    return load_lpips("alex", torch.device("cpu"))[1]


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return f"{imageio_ffmpeg.get_ffmpeg_version()} ({imageio_ffmpeg.get_ffmpeg_exe()})"


def _window() -> str:
    """Opens the hidden window that the program opens first, and asks what draws in it."""
    from app.native import NoWindow, start

    try:
        native = start()
    except NoWindow as error:
        return f"none: {error}"
    if native.hidden is None:
        return "yes, without the OpenGL preview of points"
    import glfw
    from OpenGL import GL

    glfw.make_context_current(native.hidden)
    try:
        names = [GL.glGetString(name) for name in (GL.GL_RENDERER, GL.GL_VERSION)]
    finally:
        glfw.make_context_current(None)  # pyright: ignore[reportArgumentType]
        native.close()
    drops = "files can be dropped on it" if native.shared else "files open by dialog only"
    return f"{', OpenGL '.join(bytes(name or b'').decode() for name in names)}; {drops}"


def _scenes(options: Options) -> str:
    from render.scenes.load import is_scene
    from render.scenes.lookup import search_folders
    from render.scenes.unknown import children, scenes_below

    lines = []
    for folder, how in search_folders(options.data_root):
        if not folder.is_dir():
            continue
        files = [child for child in children(folder) if child.is_file() and is_scene(child)]
        names = sorted(scene.name for scene in files + scenes_below(folder, is_scene))
        if names:
            more = f", ... ({len(names)})" if len(names) > 12 else ""
            lines.append(f"{Path(folder).resolve()} ({how}): {', '.join(names[:12])}{more}")
    return "\n".join(lines) or "none found; name folders with --data-root or $KBUFFERS_DATA"


def _cache() -> str:
    from render.kbuffer import build

    return str(build.cache_folder())
