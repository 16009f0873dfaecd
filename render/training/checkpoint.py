"""Checkpoints: everything that decides the next step, in one file that cannot be half written.

``checkpoints/step_XXXXXXX.pt`` holds tensors and plain Python values only, so it loads with
``weights_only=True`` and cannot execute code. Beside the files two small text files name one of
them each: ``latest`` (the newest) and ``best`` (highest PSNR on the val split, if there is one).

A file may come from anybody: :func:`load_checkpoint` looks at its structure before anything of it
is built, and never takes more memory than a few times the size of the file.
"""

from __future__ import annotations

import contextlib
import errno
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from render.errors import UserError
from render.files import atomic_text, atomic_write

FORMAT = "kbuffers-checkpoint"
VERSION = 2
KEEP = 3  # newest files that stay, besides the best

MAX_STRUCTURE = 16 << 20  # bytes of a file's pickle; its tensors lie beside it
MAX_DEPTH = 40  # of dictionaries and lists in each other
# All that our own files name. torch's own list for weights_only is longer, and has things that
# take any amount of memory.
_NAMES = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    *(
        f"torch {kind}Storage"
        for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char")
    ),
    *(f"torch {kind}Storage" for kind in ("Byte", "Bool")),
}


def save_checkpoint(folder: Path, content: dict[str, Any], *, best: bool = False) -> Path:
    """Write ``content`` (with an int ``step``) into ``folder``, update pointers, drop old files.

    Raises:
        OSError: disk full or not writable; every earlier checkpoint is still whole.
    """
    path = folder / f"step_{content['step']:07d}.pt"
    data = {"format": FORMAT, "version": VERSION, **content}
    # Later steps than this one belong to a run that was gone back on: they are not ours to drop.
    past = [old for old in list_checkpoints(folder) if old < path]
    try:
        _write(path, data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or len(past) < 2:
            raise
        _drop(past[1:], folder)  # the newest stays, the others make room
        _write(path, data)
    for pointer in ("latest", "best") if best else ("latest",):
        atomic_text(folder / pointer, path.name + "\n")
    _drop(past[KEEP - 1 :], folder)
    return path


def _drop(files: list[Path], folder: Path) -> None:
    best = pointed(folder, "best")
    for old in files:
        if old != best:
            old.unlink(missing_ok=True)


def _write(path: Path, data: dict[str, Any]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save(data, file)

    try:
        atomic_write(path, write)
    except (OSError, RuntimeError) as error:
        # torch tells of a full disk as of a broken stream, with the true cause behind it.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what programs that were killed while they wrote have left; only under the run's lock.

    These are the temporary files of :func:`render.files.atomic_write`, never a checkpoint.
    """
    for pattern in (".step_*.pt", ".latest.*", ".best.*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


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
        raise UserError(f"{error}{one_before(path)}") from error


def one_before(path: Path) -> str:
    """A sentence that names the whole checkpoint before ``path``; nothing where there is none."""
    for older in list_checkpoints(path.parent):
        if older < path:
            with contextlib.suppress(UserError):
                _read(older)
                return f" The one before it is {older}."
    return ""


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
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":  # torch would take it for its oldest format
                raise _Unfit("a torn or foreign file")
        with zipfile.ZipFile(path) as archive:
            _check_archive(archive, size)
            torn = archive.testzip()  # torch does not check the checksums
        if torn is not None:
            raise _Unfit(f"damage in its {torn}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_value(content, size, MAX_DEPTH)
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a checkpoint, found no such file.") from error
    except _Unfit as error:
        raise UserError(f"{path}: expected a whole checkpoint, found {error}.") from error
    except MemoryError:
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
    return _migrated(content, version)


class _Unfit(Exception):
    """What was found instead of a checkpoint."""


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Nothing is packed, so nothing can unpack to more than the file's ``size``; no unknown names.

    Raises:
        _Unfit: it is otherwise.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise _Unfit("an archive with packed parts, as this program never writes")
    if sum(member.file_size for member in members) > size:
        raise _Unfit("an archive whose parts are larger than the file")
    for member in members:
        if not member.filename.endswith(".pkl"):
            continue
        if member.file_size > MAX_STRUCTURE:
            raise _Unfit(f"a structure of {member.file_size >> 20} MB")
        for code, argument, _ in pickletools.genops(archive.read(member)):
            if code.name in ("STACK_GLOBAL", "INST", "OBJ"):
                raise _Unfit("a torn or foreign file with Python objects in it")
            if code.name == "GLOBAL" and argument not in _NAMES:
                raise _Unfit(f"a torn or foreign file with {str(argument)[:80]!r} in it")


def _check_value(value: object, size: int, depth: int) -> None:
    """Plain values and tensors that are not larger than the file of ``size`` bytes.

    Raises:
        _Unfit: something else, or a tensor that repeats a few numbers without end.
    """
    if depth == 0:
        raise _Unfit("values in each other without end")
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise _Unfit(f"a tensor of layout {value.layout}")
        if value.numel() * value.element_size() > size:
            raise _Unfit(f"a tensor of {value.numel():,} numbers in a file of {size:,} bytes")
    elif isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, (str, int)):
                raise _Unfit(f"a key of type {type(key).__name__}")
            _check_value(each, size, depth - 1)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _check_value(each, size, depth - 1)
    elif not (value is None or isinstance(value, (str, int, float))):
        raise _Unfit(f"a value of type {type(value).__name__}")


def _migrated(content: dict[str, Any], version: int) -> dict[str, Any]:
    """``content`` in the present format."""
    for old in range(version, VERSION):
        _MIGRATIONS[old](content)
    return content | {"version": VERSION}


def _from_1(content: dict[str, Any]) -> None:
    """Before 2, scales of rates and losses could be missing: all were 1."""
    trainer = content.get("trainer")
    if isinstance(trainer, dict):
        trainer.setdefault("lr_scale", {})
        trainer.setdefault("loss_scale", {})


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {1: _from_1}
