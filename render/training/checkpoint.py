"""Checkpoints: everything that decides the next step, in one file that cannot be half written.

``checkpoints/step_XXXXXXX.pt`` holds tensors and plain Python values only, so it loads with
``weights_only=True`` and cannot execute code. Beside the files two small text files name one of
them each: ``latest`` (the newest) and ``best`` (highest PSNR on the val split, if there is one).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from render.errors import UserError
from render.files import atomic_text, atomic_write

FORMAT = "kbuffers-checkpoint"
VERSION = 1
KEEP = 3  # newest files that stay, besides the best


def save_checkpoint(folder: Path, content: dict[str, Any], *, best: bool = False) -> Path:
    """Write ``content`` (with an int ``step``) into ``folder``, update pointers, drop old files.

    Raises:
        OSError: disk full or not writable; every earlier checkpoint is still whole.
    """
    path = folder / f"step_{content['step']:07d}.pt"
    data = {"format": FORMAT, "version": VERSION, **content}
    atomic_write(path, lambda temporary: torch.save(data, temporary))
    for pointer in ("latest", "best") if best else ("latest",):
        atomic_text(folder / pointer, path.name + "\n")
    # Later steps than this one belong to a run that was gone back on: they are not ours to drop.
    past = [old for old in list_checkpoints(folder) if old <= path]
    for old in past[KEEP:]:
        if old != pointed(folder, "best"):
            old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoint files of a folder, newest step first, whole or not."""
    return sorted(folder.glob("step_*.pt"), reverse=True)


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name; None when it was renamed."""
    match = re.fullmatch(r"step_(\d+)", path.stem)
    return int(match[1]) if match else None


def pointed(folder: Path, pointer: str) -> Path | None:
    """The file that ``latest`` or ``best`` names, or None."""
    try:
        path = folder / (folder / pointer).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return path if path.parent == folder and path.is_file() else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one file; tensors arrive on the CPU.

    Raises:
        UserError: missing, torn, foreign or newer than this program; the sentence names the
            checkpoint before it where there is one.
    """
    try:
        return _read(path)
    except UserError as error:
        older = [p for p in list_checkpoints(path.parent) if p < path]
        hint = f" The one before it is {older[0]}." if older else ""
        raise UserError(f"{error}{hint}") from error


def load_latest(folder: Path, log: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint of ``folder``; says so through ``log`` when it skips one.

    Raises:
        UserError: there is none.
    """
    named = pointed(folder, "latest")
    for path in list_checkpoints(folder):
        if named is not None and path > named:
            continue  # left over from a run that was gone back on
        try:
            return path, _read(path)
        except UserError as error:
            log(f"{error} Trying the one before it.")
    raise UserError(f"{folder}: expected a whole checkpoint step_XXXXXXX.pt, found none.")


def _read(path: Path) -> dict[str, Any]:
    try:
        # torch does not check the archive's checksums, the standard library does.
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
        if torn is not None:
            raise UserError(f"{path}: expected a whole checkpoint, found damage in its {torn}.")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a checkpoint, found no such file.") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # torn and hostile files fail in every way there is
        raise UserError(
            f"{path}: expected a checkpoint of this program, found a torn or foreign file "
            f"({type(error).__name__})."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: expected a checkpoint of this program, found another file.")
    version = content.get("version")
    if not isinstance(version, int) or version < 1 or version > VERSION:
        raise UserError(
            f"{path}: expected checkpoint format {VERSION} or older, found {version}; "
            "a newer release of this program wrote it."
        )
    return content
