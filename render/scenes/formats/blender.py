"""Scenes described by json: NeRF-Synthetic (Blender), instant-ngp and nerfstudio.

Either ``transforms_train.json`` with ``_val`` and ``_test`` beside it, or one ``transforms.json``,
which may list its splits in ``train_filenames`` and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from render.errors import UserError
from render.scenes.formats.paths import ImageFinder
from render.scenes.formats.readers import Photos, check_split
from render.scenes.formats.transforms_json import Finders, Frames, load_json, read_frames
from render.scenes.formats.transforms_points import (
    applied_transform,
    named_cloud,
    placed_points,
    way_back,
)
from render.scenes.photos.lens import lens_notes
from render.scenes.types import SplitName, View

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
_STEMS = ("transforms", "transform")  # the second is a common slip
# Settings of instant-ngp's grid, and its picture of the world in the unit cube.
_OF_THE_GRID = ("aabb_scale", "scale", "offset")


def is_blender(path: Path) -> bool:
    """Whether ``path`` is such a folder or such a json file."""
    if path.is_file():
        return path.suffix == ".json"
    return any(_json(path, ending) is not None for ending in ("_train", ""))


def read_blender(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
    """Read a folder, its ``transforms_*.json``, or a single ``transforms.json``.

    Raises:
        UserError: broken json, no usable frame, or images that do not fit their cameras.
    """
    check_split(path, split)
    folder = path.parent if path.is_file() else path
    notes: list[str] = []
    files = _files(path, folder)
    finders = Finders(ImageFinder(folder, path), ImageFinder(folder, path))
    views: list[View] = []
    splits: dict[SplitName, list[int]] = {}
    every: list[Frames] = []
    contents: list[dict[str, Any]] = []
    for name, file in files:
        if not file.stem.startswith(_STEMS[0]) and file != path:
            meant = file.name.replace(_STEMS[1], _STEMS[0], 1)
            notes.append(f"{file.name} is read as {meant}.")
        contents.append(load_json(file))
        frames = read_frames(file, contents[-1], downscale, finders)
        _check(file, frames, required=name == "train", notes=notes)
        every.append(frames)
        if frames.views:
            splits[name] = list(range(len(views), len(views) + len(frames.views)))
            views += frames.views
    first_file, first = files[0][1], contents[0]
    if len(files) == 1:
        splits = _listed(first_file, first, views, finders.images, notes) or splits
    _drop_shared_images(views, splits, notes)
    notes += lens_notes(lens for frames in every for lens in frames.lenses)
    notes += [note for finder in (finders.images, finders.masks) if (note := finder.note())]
    ignored = [key for key in _OF_THE_GRID if key in first]
    if ignored:
        notes.append(
            f"{', '.join(ignored)}: not used; the bounds come from the cameras and the points."
        )
    photos = Photos(folder, views, splits, named_cloud(folder, first, notes), notes)
    applied = applied_transform(first_file, folder, first)
    if applied is not None:
        if photos.cloud is not None:
            train = [views[i] for i in splits["train"]]
            photos.points = placed_points(photos.cloud, first, train, notes)
        photos.to_file = way_back(applied, notes)
    return photos


def _json(folder: Path, ending: str) -> Path | None:
    names = (f"{stem}{ending}.json" for stem in _STEMS)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _files(path: Path, folder: Path) -> list[tuple[SplitName, Path]]:
    """The json files of a scene with what they are for."""
    there: list[tuple[SplitName, Path]] = []
    for name in SPLITS:
        file = _json(folder, f"_{name}")
        if file is not None:
            there.append((name, file))
    names_a_split = path.is_dir() or path in [file for _, file in there]
    if there and there[0][0] == "train" and names_a_split:
        return there
    file = path if path.is_file() else _json(folder, "")
    if file is None:
        raise UserError(f"{folder}: expected transforms_train.json or transforms.json.")
    return [("train", file)]


def _check(file: Path, frames: Frames, required: bool, notes: list[str]) -> None:
    """Turn what was left out into notes, or into an error when nothing remains."""
    total = frames.total
    if not frames.views:
        if frames.missing:
            problem = (
                f"{file}: none of the images of its {total} frames exists; "
                f"the first one missing is {file.parent / frames.missing[0][:200]}"
            )
        else:
            problem = (
                f"{file}: none of its {total} frames has a usable pose; expected "
                '"transform_matrix" as 4x4 finite numbers with a rotation'
            )
        if required:
            raise UserError(f"{problem}; check the paths or copy the files again.")
        notes.append(f"{problem}; this split is treated as absent.")
        return
    if frames.missing:
        notes.append(
            f"{file.name}: {len(frames.missing)} of {total} frames skipped because their images do "
            f"not exist (first: {frames.missing[0]})."
        )
    if frames.bad_poses:
        notes.append(
            f"{file.name}: {frames.bad_poses} of {total} frames dropped because their pose is not "
            "a finite 4x4 rigid transform."
        )
    if frames.rescaled_poses:
        notes.append(
            f"{file.name}: the rotation of {frames.rescaled_poses} poses contained a scale, which "
            "was taken out."
        )
    if frames.resized:
        notes.append(
            f"{file.name}: {frames.resized} images differ in size from what the file says; their "
            "intrinsics were scaled to the images."
        )
    if frames.masked:
        notes.append(
            f"{file.name}: black pixels in the masks of {frames.masked} frames are ignored."
        )
    if frames.missing_masks:
        notes.append(
            f"{file.name}: {len(frames.missing_masks)} masks do not exist (first: "
            f"{frames.missing_masks[0]}); all pixels of those frames count."
        )
    if frames.depths:
        notes.append(f"{file.name}: the depth maps of {frames.depths} frames are not used.")


def _listed(
    file: Path, data: Mapping[str, Any], views: list[View], finder: ImageFinder, notes: list[str]
) -> dict[SplitName, list[int]] | None:
    """The splits that a file lists by image name; None where it lists none.

    Raises:
        UserError: a list is no list of names, or nothing would be left to train on.
    """
    chosen: dict[SplitName, list[int]] = {}
    unknown: list[str] = []
    for name in SPLITS:
        listed = data.get(f"{name}_filenames")
        if listed is None:
            continue
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            raise UserError(
                f'{file}: expected a list of image names for "{name}_filenames", found '
                f"{str(listed)[:60]}."
            )
        paths = [finder.find(entry) for entry in listed]
        wanted = set(paths)
        chosen[name] = [i for i, view in enumerate(views) if view.path in wanted]
        known = {views[i].path for i in chosen[name]}
        unknown += [entry for path, entry in zip(paths, listed, strict=True) if path not in known]
    if not chosen:
        return None
    taken = {i for indices in chosen.values() for i in indices}
    rest = [i for i in range(len(views)) if i not in taken]
    if "train" not in chosen:
        chosen["train"] = rest
    elif "test" not in chosen:
        chosen["test"] = chosen.get("val") or rest
    if not chosen["train"]:
        raise UserError(
            f'{file}: "train_filenames" names none of the {len(views)} images that there are; '
            "correct the lists or remove them."
        )
    counts = ", ".join(f"{len(indices)} {name}" for name, indices in chosen.items())
    notes.append(f"{file.name}: it lists its own splits ({counts}).")
    if unknown:
        notes.append(
            f"{file.name}: {len(unknown)} names in its lists are none of its frames' (first: "
            f"{unknown[0]})."
        )
    return {name: indices for name, indices in chosen.items() if indices}


def _drop_shared_images(
    views: list[View], splits: dict[SplitName, list[int]], notes: list[str]
) -> None:
    """Training must not see a test image: take images that are in both out of training."""
    for held in ("test", "val"):
        paths = Counter(views[i].path for i in splits.get(held, []))
        shared = [i for i in splits["train"] if views[i].path in paths]
        if shared and len(shared) < len(splits["train"]):
            splits["train"] = [i for i in splits["train"] if i not in set(shared)]
            notes.append(
                f"{len(shared)} training images are also in the {held} split; "
                "they are not trained on."
            )
