"""Memory: what things take, what is free, and a refusal in words before anything is taken.

An operating system that runs out of memory kills the program without a word, and so does the
limit of a container. So large things are asked for here first: :func:`check_room` raises a
sentence while nothing has been allocated yet. The formulas are measured peaks of resident memory
on Linux (``tests/render/test_memory.py`` measures them again); they hold within a factor of two.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from render.errors import UserError

BYTES_PER_SLOT = 12  # of a K-buffer: index, depth, distance
KEPT_PER_POINT = 24  # of a cloud: position and colour, float32
NO_CHECK = 64 << 20  # what is smaller is not worth looking
REMEDY = "use a larger --downscale, fewer points (--set points=...) or a smaller --k"
_MARGIN = 0.95  # of the free memory may be taken


class NotEnoughMemoryError(UserError, MemoryError):
    """Something would not fit, or did not; the sentence says what to do."""


# ---------------------------------------------------------------------------- what things take
def kbuffer_bytes(width: int, height: int, k: int) -> int:
    """A K-buffer of points."""
    return BYTES_PER_SLOT * width * height * k


def point_frame_bytes(points: int, width: int, height: int, k: int, pairs: float = 1.4) -> int:
    """A frame of the CPU's point rasteriser: scratch memory and K-buffer.

    16 bytes for each ``pairs`` of a point and a 16x16 tile (1.4 a point for radii of two pixels;
    never more than ``native.MAX_PAIRS`` at once), and a quarter in reserve.
    """
    from render.kbuffer.native import MAX_PAIRS

    return 20 * min(int(pairs * points), MAX_PAIRS) + kbuffer_bytes(width, height, k)


def picture_bytes(width: int, height: int, k: int) -> int:
    """A picture of a method with its K layers: colours, weights and features of every slot.

    Measured: 770 (``kbuffer``) and 1,350 bytes (``bpcr``) a pixel at K = 8, 200 and 310 at K = 1.
    """
    return width * height * (100 + 150 * k)


def training_bytes(gaussians: int, pixels: int, k: int) -> int:
    """A step of ``kbuffer``, with its Gaussians.

    Measured: 750 bytes a Gaussian (42 numbers, their gradients, two moments of Adam, the splats of
    a view) and 880 bytes a pixel at K = 8.
    """
    return 750 * gaussians + pixels * (100 + 100 * k)


def loading_bytes(points: int, row: int) -> int:
    """Reading a point cloud whose rows have ``row`` bytes: the file's rows, the points, copies."""
    return points * (row + KEPT_PER_POINT + 12)


# ---------------------------------------------------------------------------- what is free
def free_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that can still be taken: on a GPU, or within machine, container and process limits.

    What this process freed but has not given back counts as taken; see :func:`give_back`.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    rooms = [psutil.virtual_memory().available, *_container_rooms(), *_process_rooms()]
    return max(0, min(rooms))


def give_back() -> None:
    """Return what glibc keeps of freed memory to the system, and this thread's kernel scratch."""
    from render.kbuffer import gaussians_native, native

    native.trim()
    gaussians_native.trim()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _process_rooms() -> Iterator[int]:
    """What ``ulimit -v`` leaves."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit - psutil.Process().memory_info().vms


def _container_rooms(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """What the control groups of this process leave, versions 1 and 2; the file cache is free."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:  # version 2
            roots = [mount, mount / "unified"]
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            roots = [mount / "memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        for root in roots:
            # A container may show its own group as the root: the path then leads nowhere.
            folder = root / path.lstrip("/")
            for place in (folder, *folder.parents):
                yield from _group_room(place, *names)
                if place == root:
                    break


def _group_room(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    try:
        most = int((folder / limit).read_text())
        taken = int((folder / used).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return
    with suppress(OSError):
        found = re.search(rf"^{cache} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        taken -= int(found[1]) if found else 0
    yield most - taken


# ---------------------------------------------------------------------------- in words
def size_text(size: float) -> str:
    """1234567890 -> 1.2 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def check_room(what: str, needed: int, remedy: str, device: torch.device | str = "cpu") -> None:
    """Refuse what does not fit, before it is allocated.

    Args:
        what: begins the sentence, e.g. "cloud.ply, 10,000,000 points".
        needed: bytes it will take beside what is taken already.
        remedy: what to do, e.g. "use fewer points".

    Raises:
        NotEnoughMemoryError: less is free.
    """
    if fits(needed, device):
        return
    raise NotEnoughMemoryError(
        f"{what}: not enough memory: it takes about {size_text(needed)}, "
        f"{size_text(free_bytes(device))} are free; {remedy}."
    )


def fits(needed: int, device: torch.device | str = "cpu") -> bool:
    """Whether ``needed`` bytes can be had."""
    if needed <= NO_CHECK or needed <= _MARGIN * free_bytes(device):
        return True
    give_back()
    return needed <= _MARGIN * free_bytes(device)


def is_shortage(error: BaseException) -> bool:
    """Whether ``error`` says that memory could not be had, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    # torch's CPU allocator has no error of its own for this.
    return isinstance(error, RuntimeError) and bool(_SHORTAGE.search(str(error)))


def shortage_sentence(error: BaseException) -> str:
    """An error that :func:`is_shortage` knows, with what to do about it."""
    text = str(error).strip().split("\n", 1)[0]
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) and "; " in text:  # of our own kernels, with a remedy
        return f"{text[0].upper()}{text[1:].rstrip('.')}."
    tried = re.search(r"allocate ([\d.]+) ?(bytes|[KMG]iB)", text, re.IGNORECASE)
    wanted = ""
    if tried:
        unit = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}[tried[2][0].lower()]
        wanted = f", {size_text(float(tried[1]) * unit)} more could not be had"
    return f"Out of memory{wanted}: {REMEDY}."


_SHORTAGE = re.compile(
    r"allocate memory|not enough memory|out of memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
)
