"""Files of compiled kernels: their names, and opening only those that are whole and fit.

Two folders hold libraries. ``cuda/prebuilt`` is made by ``tools/build_kernels.py`` and travels in
wheels; its files are called ``NAME-PLATFORM-LEVEL-SOURCES-CONTENT.so``. The user's cache holds what
a compiler on this machine has made, ``NAME-LEVEL-KEY-CONTENT.so``. CONTENT is the digest of the
file itself, because the loader does not check: mapping a truncated library kills the process with
SIGBUS instead of raising.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_DIGITS = 16  # of a SHA-256, in hexadecimal


def platform_name() -> str:
    """This process as prebuilt libraries name it: ``linux-x86_64``, ``macos-aarch64``, ..."""
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    # Windows: the machine may be ARM while this Python is emulated
    windows = sys.platform == "win32"
    machine = sysconfig.get_platform().rpartition("-")[2] if windows else platform.machine()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    return f"{system}-{machine}{'' if sys.maxsize > 2**32 else '-32bit'}"


def source_digest(source: Path, words: Iterable[str]) -> str:
    """Of a kernel, the headers beside it, and ``words`` (flags and the like).

    Line ends do not count: a checkout on Windows may have its own.
    """
    sha = hashlib.sha256()
    for path in (source, *sorted(source.parent.glob("*.h"))):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        sha.update(path.name.encode() + b"\0" + text + b"\0")
    sha.update("\0".join(words).encode())
    return sha.hexdigest()[:_DIGITS]


def content_digest(path: Path) -> str:
    """What the name of a whole library ends with."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGITS]


def open_prebuilt(
    folder: Path, name: str, keys: Sequence[tuple[str, str]]
) -> tuple[ctypes.CDLL | None, str]:
    """The first of ``keys`` (level, source digest) that ``folder`` has for this machine.

    Returns:
        The library and its level, or None and why there is none ("" without such a folder).
    """
    if not folder.is_dir():
        return None, ""
    here = platform_name()
    reason = f"none for {here}"
    for level, digest in keys:
        stem = f"{name}-{here}-{level}"
        for path in sorted(folder.glob(f"{stem}-*{SUFFIX}")):
            if not path.stem.startswith(f"{stem}-{digest}-"):
                reason = "made from other sources"
                continue
            try:
                if path.stem == f"{stem}-{digest}-{content_digest(path)}":
                    return ctypes.CDLL(str(path)), level
                reason = f"{path.name} is damaged"
            except OSError as error:
                reason = " ".join(str(error).split())
    return None, f"prebuilt libraries: {reason}"


def open_cached(folder: Path, stem: str) -> ctypes.CDLL | None:
    """A cached library that is whole; damaged ones are removed."""
    for path in sorted(folder.glob(f"{stem}-*{SUFFIX}")):
        try:
            if path.stem.endswith(content_digest(path)):
                return ctypes.CDLL(str(path))
            path.unlink()
        except OSError as error:
            log.debug("cached %s is unusable: %s", path, error)
    return None


def cache_folders() -> Iterator[Path]:
    """Folders to try, best first; the last is private to this process and removed at its end."""
    folder = user_cache()
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


def user_cache() -> Path | None:
    """``$KBUFFERS_CACHE`` or the system's place for caches; None where there is no home."""
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
