"""One program at a time trains in a run folder.

The lock is the operating system's own on an open file: it ends with the process, however that
dies, so nobody is ever locked out by a run that was killed. Inside one process a lock is shared,
since a window closes one session while it opens the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import time
import weakref
from pathlib import Path

from render.errors import UserError

NAME = ".lock"
_FAR = 1 << 30  # of the byte that Windows locks: others can still read the text before it

_held: weakref.WeakValueDictionary[Path, RunLock] = weakref.WeakValueDictionary()


class RunLock:
    """The lock of one run folder, held as long as the object lives; see :func:`hold`."""

    def __init__(self, handle: int | None) -> None:
        if handle is not None:
            weakref.finalize(self, os.close, handle)


def hold(folder: Path) -> RunLock:
    """Lock ``folder`` for this process.

    Where the file system has no locks, nothing is locked.

    Raises:
        UserError: another program trains there.
        OSError: the folder cannot be written.
    """
    folder = folder.resolve()
    lock = _held.get(folder)
    if lock is None:
        lock = _held[folder] = RunLock(_lock(folder / NAME))
    return lock


def _lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        taken = _take(handle)
    except OSError:  # no locks here
        os.close(handle)
        return None
    if not taken:
        with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
            who = file.read(200).strip() or "another program"
        raise UserError(
            f"{path.parent}: another program trains in this run folder ({who}); end that one, or "
            "start a new run with another --out."
        )
    with contextlib.suppress(OSError):  # who holds it is only told
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {platform.node()} since {started}\n"
        os.ftruncate(handle, 0)
        os.write(handle, text.encode())
    return handle


def _take(handle: int) -> bool:
    """Whether the lock could be had."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK):
            return False
        raise
    return True
