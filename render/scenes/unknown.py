"""What to say about a path that is no scene: what it is, and how it becomes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from render.errors import UserError
from render.scenes.clouds.pointcloud import POINT_SUFFIXES
from render.scenes.filetype import file_type
from render.scenes.photos.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mts")
_CHILDREN = 200  # of a folder that are looked at
_NAMED = 6
_DTU_CAMERAS = ("cameras.npz", "cameras_sphere.npz", "cams_1", "cams")
_IMAGE_FOLDERS = (".", "images", "image", "input", "rgb", "color")

IsScene = Callable[[Path], bool]


def children(folder: Path, most: int = _CHILDREN) -> list[Path]:
    """What is in a folder, by name, at most so many; nothing if it cannot be looked at."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry, _ in zip(entries, range(most), strict=False)]
    except OSError:
        return []
    return sorted(found)


def scenes_below(folder: Path, is_scene: IsScene) -> list[Path]:
    """The scenes among the folders in ``folder``, and among the folders in those."""
    found: list[Path] = []
    for child in _folders(folder):
        if is_scene(child):
            found.append(child)
        else:
            found += [grandchild for grandchild in _folders(child) if is_scene(grandchild)]
    return found


def no_scene(path: Path, layouts: Sequence[str], is_scene: IsScene) -> UserError:
    """The error for a path that exists and that no reader knows."""
    hint = way_to_a_scene(path)
    if hint:
        return UserError(f"{path}: {hint}")
    if path.is_dir():
        below = scenes_below(path, is_scene)
        if below:
            names = ", ".join(str(scene) for scene in below[:_NAMED])
            more = f", ... ({len(below)} in all)" if len(below) > _NAMED else ""
            return UserError(
                f"{path}: expected one scene, found a folder with several: {names}{more}; "
                "name one of them."
            )
        inside = [child.name for child in children(path)]
        more = ", ..." if len(inside) > _NAMED else ""
        names = ", ".join(inside[:_NAMED])
        found = f"a folder with {names}{more}" if inside else "an empty folder"
        if any((path / name).exists() for name in _DTU_CAMERAS):
            found += "; its cameras need their photographs beside them, in a folder image/"
    else:
        found = _file(path)
    expected = f"{'; '.join(layouts)}; or a point cloud ({', '.join(POINT_SUFFIXES)})"
    return UserError(
        f"{path}: this is no scene that can be read: expected {expected}; found {found}."
    )


def way_to_a_scene(path: Path) -> str | None:
    """For a video or a folder of photographs without poses: what it is, and what to do."""
    if path.is_dir():
        images = _photographs(path)
        if images is None:
            return None
        folder, count = images
        return (
            f"found {count} photographs without camera poses; COLMAP finds them: {_colmap(folder)}"
        )
    if _is_video(path):
        frames = path.with_name(f"{path.stem}_images")
        return (
            f'found a video; take photographs from it (ffmpeg -i "{path}" -vf fps=2 -q:v 2 '
            f'"{frames}/%04d.jpg") and let COLMAP find their poses: {_colmap(frames)}'
        )
    return None


def _colmap(images: Path) -> str:
    workspace = images.with_name(f"{images.resolve().name}_colmap")
    return (
        f'colmap automatic_reconstructor --image_path "{images}" --workspace_path "{workspace}"; '
        f'then open "{workspace}" (make the folders before).'
    )


def _is_video(path: Path) -> bool:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        return file_type(path).form == "video"
    except UserError:
        return False


def _file(path: Path) -> str:
    try:
        return file_type(path).what
    except UserError:
        return f'a file of type "{path.suffix}"'


def _photographs(folder: Path) -> tuple[Path, int] | None:
    """The folder that holds the photographs, itself or a usual one in it, and their number."""
    for name in _IMAGE_FOLDERS:
        files = children(folder / name, most=100_000)
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        if len(images) >= 2 and 2 * len(images) > len(files):
            return folder / name, len(images)
    return None


def _folders(folder: Path) -> Iterator[Path]:
    return (each for each in children(folder) if not each.name.startswith(".") and _is_dir(each))


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
