"""From the name or path on the command line to a folder or file."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from render.errors import UserError
from render.files import shipped
from render.scenes.unknown import children, scenes_below

BUNDLED = shipped("assets/scenes")


@dataclass(frozen=True)
class Found:
    """A scene's place and how it was found ("path", "--data-root", "$KBUFFERS_DATA", ...)."""

    path: Path
    how: str


def search_folders(data_roots: Sequence[Path] = ()) -> list[tuple[Path, str]]:
    """The folders that names are looked up in, in order, each with where it comes from."""
    roots = [(Path(root).expanduser(), "--data-root") for root in data_roots]
    for entry in os.environ.get("KBUFFERS_DATA", "").split(os.pathsep):
        if entry.strip():
            roots.append((Path(entry.strip()).expanduser(), "$KBUFFERS_DATA"))
    roots.append((Path("data"), "data/"))
    folders = []
    for root, how in roots:
        folders += [(root, how), (root / "nerf_synthetic", how)]
    return [*folders, (BUNDLED, "bundled scene")]


def find_scene(
    source: str | Path, data_roots: Sequence[Path], is_scene: Callable[[Path], bool]
) -> Found:
    """The scene called ``source``: a path, else a name in one of the search folders.

    Raises:
        UserError: nothing there; says where it looked and names that are near.
    """
    try:
        path = Path(source).expanduser()
        there = _is_there(path)
    except (OSError, ValueError, RuntimeError) as error:  # too long, zero byte, no such user
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{str(source)[:200]}: cannot be looked at ({reason}).") from error
    plain_name = len(Path(source).parts) == 1 and not path.is_absolute()
    folders = search_folders(data_roots)
    if there and (not plain_name or is_scene(path)):
        return _only_scene(path, is_scene) or Found(path, "path")
    if not path.is_absolute():
        for place in (_directly, _one_below):
            for folder, how in folders:
                for candidate in place(folder, path):
                    if is_scene(candidate):
                        return Found(candidate, how)
        inside = (_only_scene(folder / path, is_scene) for folder, _ in folders)
        only = None if there else next(filter(None, inside), None)
        if only is not None:
            return only
    if there:  # else the caller says what is wrong with it
        return _only_scene(path, is_scene) or Found(path, "path")
    if not plain_name:
        raise UserError(f"{path}: there is no such file or folder{nearby(path)}.")
    names = scene_names(data_roots, is_scene)
    near = difflib.get_close_matches(path.name.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    near = [name for name in names if name.lower() in near]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    if not near and names:
        hint = f"; scenes that are there: {', '.join(names[:12])}."
    places = ", ".join(dict.fromkeys(str(folder) for folder, _ in folders))
    raise UserError(
        f'scene "{source}": no path of that name, and no scene of that name in {places}'
        f"{hint or '; give the path of a scene folder or a point cloud.'}"
    )


def scene_names(data_roots: Sequence[Path], is_scene: Callable[[Path], bool]) -> list[str]:
    """Names of all scenes in the search folders, each once."""
    names: dict[str, None] = {}
    for folder, _ in search_folders(data_roots):
        found = [child for child in children(folder) if not child.is_dir() and is_scene(child)]
        for scene in sorted(found + scenes_below(folder, is_scene)):
            names[scene.name] = None
    return list(names)


def nearby(path: Path) -> str:
    """The end of a sentence about a ``path`` that is not there: names that are like it."""
    if path.is_symlink():
        return f"; it is a link to {os.readlink(path)}"
    near = difflib.get_close_matches(path.name, [c.name for c in children(path.parent)], n=2)
    if near:
        return f"; beside it there is {' and '.join(near)}"
    return "" if path.parent.is_dir() else f"; the folder {path.parent} does not exist either"


def _is_there(path: Path) -> bool:
    """Whether there is something.

    Raises:
        OSError, ValueError: the name is too long or holds a zero byte; access is denied.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True


def _directly(folder: Path, name: Path) -> list[Path]:
    return [folder / name]


def _one_below(folder: Path, name: Path) -> list[Path]:
    """``name`` in every folder of a data root: ``plush`` is found in ``ROOT/colmap/plush``."""
    return [child / name for child in children(folder) if child.is_dir()]


def _only_scene(path: Path, is_scene: Callable[[Path], bool]) -> Found | None:
    """The one scene in a folder that is none itself."""
    if is_scene(path) or not path.is_dir():
        return None
    below = scenes_below(path, is_scene)
    return Found(below[0], f"the only scene in {path}") if len(below) == 1 else None
