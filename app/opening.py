"""What a dropped or opened file is, by its content, and what to do with several at once.

Nothing is loaded here: a few kilobytes and the directory of an archive say what a file is. Pickles
are never executed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from render.errors import UserError
from render.scenes.clouds.pointcloud import POINT_FORMS, describe_point_cloud
from render.scenes.filetype import FileType, file_type
from render.scenes.load import READERS
from render.scenes.lookup import nearby
from render.scenes.unknown import way_to_a_scene
from render.training.checkpoint import FORMAT, list_checkpoints, step_of
from render.training.runfolder import is_run

Kind = Literal["scene", "cloud", "run", "checkpoint", "camera_path"]

MAX_JSON = 64 << 20  # bytes; 100,000 cameras take less
MAX_TEXT = 256 << 20  # bytes of text points: reading takes ten times that in memory
_MAX_PICKLE = 16 << 20  # bytes of a checkpoint's structure; its tensors lie beside it
_MAX_CHILDREN = 200  # files of a folder that are looked at

OPENABLE = (
    "a scene (a folder with transforms_train.json or transforms.json), a point cloud (PLY, PCD, "
    "LAS, E57, NPY, text), Gaussians (PLY, .spz, .splat), a mesh (OBJ, GLB, STL), a run folder or "
    "its checkpoint, or a camera path"
)


@dataclass(frozen=True)
class Found:
    """Something that can be opened.

    Args:
        path: what to open: not always what was dropped (a folder around it, a run's config.json).
        kind: what it is.
        what: a few words for people ("point cloud, PLY with 40,000 points").
    """

    path: Path
    kind: Kind
    what: str


@dataclass(frozen=True)
class Plan:
    """What to do with files that came together; ``unused`` has a sentence for each of the others.

    ``run`` is a run folder or a checkpoint. With ``scene`` or ``run``, ``cloud`` is meant as its
    points; alone it is something to look at.
    """

    scene: Found | None = None
    cloud: Found | None = None
    run: Found | None = None
    camera_path: Found | None = None
    unused: tuple[str, ...] = ()


def recognise(path: Path, *, look_inside: bool = True) -> Found:
    """What ``path`` is.

    Args:
        path: a file or folder, whatever its name.
        look_inside: a folder that is nothing itself stands for the only thing in it.

    Raises:
        UserError: nothing that can be opened; says what was found and what could be instead.
    """
    try:
        path = path.expanduser()
        if path.is_dir():
            return _folder(path, look_inside)
        there = path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # no permission, zero byte, no such user
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{path}: cannot be looked at ({reason}).") from error
    if not there:
        raise UserError(f"{path}: there is no such file or folder{nearby(path)}.")
    kind = file_type(path)
    if kind.form in POINT_FORMS:
        if kind.form == "numbers" and kind.size > MAX_TEXT:
            raise UserError(
                f"{path}: expected at most {MAX_TEXT >> 20} MB of text, found "
                f"{kind.size / 2**20:,.0f} MB of points; save them as PLY or .npy, "
                "which are smaller and read at once."
            )
        return Found(path, "cloud", describe_point_cloud(path, kind))
    if kind.form == "checkpoint":
        return _checkpoint(path)
    if kind.form == "json":
        return _json(path, kind)
    if kind.form == "image":
        raise UserError(
            f"{path}: found {kind.what}; photographs belong to a scene: open its folder or its "
            "transforms.json."
        )
    way = way_to_a_scene(path)
    raise UserError(f"{path}: {way or f'found {kind.what}; expected {OPENABLE}.'}")


def plan(paths: Sequence[Path]) -> Plan:
    """Sort files that were dropped together: one of each kind is used, the first.

    Never raises: what is wrong with a file is a sentence of ``unused``.
    """
    chosen: dict[str, Found] = {}
    unused: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            found = recognise(path)
        except UserError as error:
            unused.append(str(error))
            continue
        role = "run" if found.kind == "checkpoint" else found.kind
        first = chosen.setdefault(role, found)
        if first is not found and first.path != found.path:
            word = {"cloud": "point cloud", "camera_path": "camera path"}.get(role, role)
            unused.append(
                f"{path}: not opened: one {word} at a time, and {first.path.name} came first."
            )
    return Plan(**chosen, unused=tuple(unused))


# ------------------------------------------------------------------ folders
def _folder(path: Path, look_inside: bool) -> Found:
    run = path.parent if path.name == "checkpoints" else path
    if is_run(run):
        newest = list_checkpoints(run / "checkpoints")[0]
        return Found(run, "run", f"run, {_step(newest)}")
    for reader in READERS:
        if reader.matches(path):
            return Found(path, "scene", f"scene, {_photographs(path) or reader.name}")
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        raise UserError(f"{path}: expected a run with a checkpoint, found a run that saved none.")
    children = sorted(path.iterdir(), key=lambda child: (not child.is_dir(), child.name))
    found = _inside(children) if look_inside else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.path.name for each in found[:6])
        more = ", ..." if len(found) > 6 else ""
        raise UserError(
            f"{path}: expected one thing to open in this folder, found {len(found)}: "
            f"{names}{more}; open one of them."
        )
    way = way_to_a_scene(path)
    if way:
        raise UserError(f"{path}: {way}")
    names = ", ".join(child.name for child in children[:6])
    names += ", ..." if len(children) > 6 else ""
    inside = f"a folder with {names}" if children else "an empty folder"
    raise UserError(f"{path}: found {inside}; expected {OPENABLE}.")


def _inside(children: Iterable[Path]) -> list[Found]:
    found: dict[Path, Found] = {}
    for child in list(children)[:_MAX_CHILDREN]:
        try:
            each = recognise(child, look_inside=False)
        except (UserError, OSError):
            continue
        found.setdefault(each.path, each)
    return list(found.values())


def _photographs(folder: Path) -> str | None:
    """How many training photographs the json of a scene folder lists."""
    for name in ("transforms_train.json", "transforms.json"):
        if (folder / name).is_file():
            return _json(folder / name, file_type(folder / name)).what.removeprefix("scene, ")
    return None


# ------------------------------------------------------------------ files
def _json(path: Path, kind: FileType) -> Found:
    data = _read_json(path, kind)
    if isinstance(data.get("frames"), list):
        if not data["frames"]:
            raise UserError(f'{path}: expected a list "frames" with cameras, found an empty list.')
        return Found(path, "scene", f"scene, {len(data['frames']):,} photographs")
    for key in ("cameras", "camera_path"):
        if isinstance(data.get(key), list):
            return Found(path, "camera_path", f"camera path, {len(data[key]):,} cameras")
    if "options" in data and path.name == "config.json":
        if is_run(path.parent):
            return _folder(path.parent, look_inside=False)
        raise UserError(
            f"{path}: expected a run with a checkpoint, found the options of one that saved none."
        )
    names = ", ".join(f'"{name}"'[:40] for name in list(data)[:5]) or "nothing"
    raise UserError(
        f'{path}: expected a scene (a list "frames") or a camera path ("cameras" or '
        f'"camera_path"), found JSON with {names}.'
    )


def _read_json(path: Path, kind: FileType) -> dict[str, Any]:
    if kind.size > MAX_JSON:
        raise UserError(
            f"{path}: expected a scene or camera path of at most {MAX_JSON >> 20} MB, found JSON "
            f"of {kind.size / 2**20:,.0f} MB."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); "
            "mend that line or write the file again."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON that can be read, got: {error}.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(data).__name__}.")
    return data


def _checkpoint(path: Path) -> Found:
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(m for m in archive.infolist() if m.filename.endswith("data.pkl"))
            if member.file_size > _MAX_PICKLE:
                raise ValueError("its structure is too large")
            ours = FORMAT.encode() in archive.read(member)  # looked at as bytes, not unpickled
    except Exception as error:  # torn and hostile files fail in every way there is
        older = [p for p in list_checkpoints(path.parent) if p < path]
        hint = f"; the one before it is {older[0].name}" if older else ""
        raise UserError(
            f"{path}: expected a whole checkpoint, found one that is cut off or damaged{hint}."
        ) from error
    if not ours:
        raise UserError(
            f"{path}: expected a checkpoint of this program, found a PyTorch file of another."
        )
    if not is_run(path.parent.parent):
        raise UserError(
            f"{path}: expected a checkpoint in its run folder (beside config.json, in "
            "checkpoints/), found it alone; put it back to go on with it."
        )
    return Found(path, "checkpoint", f"checkpoint, {_step(path)}")


def _step(checkpoint: Path) -> str:
    step = step_of(checkpoint)
    return f"called {checkpoint.name}" if step is None else f"step {step:,}"
