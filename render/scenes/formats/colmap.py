"""COLMAP reconstructions with their photographs.

The model is looked for in ``sparse/0`` and its variants (``colmap_layout.py``); photographs are
sorted by name, and unless lists say otherwise every 8th of them is held out, as Mip-NeRF 360 and
3D Gaussian Splatting do. Cameras are scaled to the photographs that are there, and photographs of
distorting lenses are undistorted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.scenes.formats.colmap_layout import (
    ImageFolder,
    Model,
    check_name,
    choose_images,
    find_model,
    is_colmap,
    read_split,
)
from render.scenes.formats.colmap_model import ColmapCamera, ColmapImage, read_cameras
from render.scenes.formats.colmap_points import points_of_model
from render.scenes.formats.paths import ImageFinder
from render.scenes.formats.readers import Photos, check_split, scaled_size
from render.scenes.photos.images import IMAGE_SUFFIXES, ImageHeader, decode, find_mask, read_header
from render.scenes.photos.lens import Lens, Pinhole, lens_notes, pinhole_of, undistorted_view
from render.scenes.photos.masks import check_mask, ignored_pixels
from render.scenes.types import SplitName, View

__all__ = ["is_colmap", "read_colmap"]


@dataclass
class _Found:
    """The views of a model and what had to be left out."""

    views: list[View] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the views, as in the model
    missing: list[str] = field(default_factory=list)
    bad_poses: int = 0
    twice: int = 0
    misshapen: list[str] = field(default_factory=list)  # a sentence each
    resized: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    lenses: list[tuple[Lens, Pinhole]] = field(default_factory=list)


def read_colmap(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
    """Read a scene folder, the folder of a model, or a file of a model.

    Raises:
        UserError: a broken model, or no photograph that can be used.
    """
    check_split(path, split)
    model = find_model(path)
    folder = choose_images(model, downscale)
    cameras = read_cameras(model.folder)
    finder = ImageFinder(folder.path, model.folder)
    found = _read_views(model, cameras, finder, max(1.0, downscale / folder.shrunk))
    notes = [_summary(model, cameras), *model.notes]
    if folder.shrunk > 1:
        notes.append(_said_shrunk(folder, downscale))
    _check(model, found, notes)
    notes += [note for note in (finder.note(),) if note]
    notes += lens_notes(found.lenses)
    lists = read_split(model, found.names)
    splits = _splits(found, lists, notes)
    return Photos(model.scene, found.views, splits, points_of_model(model.folder), notes)


def _read_views(
    model: Model, cameras: dict[int, ColmapCamera], finder: ImageFinder, downscale: float
) -> _Found:
    found = _Found()
    seen: set[str] = set()
    for image in sorted(model.images, key=lambda image: image.name):
        check_name(model, image.name)
        camera = cameras.get(image.camera)
        if camera is None:
            raise UserError(
                f"{model.folder}: the image {image.name} was taken by camera {image.camera}, but "
                f"there is none of that number among the {len(cameras)} cameras; copy the whole "
                "model again."
            )
        if not image.usable:
            found.bad_poses += 1
            continue
        if image.name in seen:
            found.twice += 1
            continue
        seen.add(image.name)
        file = finder.find(image.name)
        if file is None:
            found.missing.append(image.name)
            continue
        header = read_header(file)
        problem = _shape_problem(file, header, camera)
        if problem:
            found.misshapen.append(problem)
            continue
        found.views.append(_view(image, camera, file, header, downscale, found))
        found.names.append(image.name)
    for view, name in zip(found.views, _view_names(found.names), strict=True):
        view.name = name
    return found


def _view(
    image: ColmapImage,
    camera: ColmapCamera,
    file: Path,
    header: ImageHeader,
    downscale: float,
    found: _Found,
) -> View:
    K, size = camera.K, scaled_size(header.width, header.height, downscale)
    if (header.width, header.height) != (camera.width, camera.height):
        K = _scaled(K, header.width / camera.width, header.height / camera.height)
        change = f"{camera.width}x{camera.height} to {header.width}x{header.height}"
        found.resized[change] += 1
    mask = find_mask(file)
    ignored = None
    if mask is not None:
        check_mask(file, mask)
        ignored = ignored_pixels(mask, K, header, camera.lens, size)
        found.masks += 1
    if camera.lens is None:
        load = partial(decode, file, *size)
        flat = _scaled(K, size[0] / header.width, size[1] / header.height)
    else:
        try:
            pinhole = pinhole_of(K, camera.lens, header.width, header.height)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        found.lenses.append((camera.lens, pinhole))
        flat, load = undistorted_view(file, K, header, camera.lens, size)
    quaternion = torch.tensor(image.quaternion, dtype=torch.float64)
    translation = torch.tensor(image.translation, dtype=torch.float64)
    posed = Camera.from_colmap(quaternion, translation, flat, *size)
    return View(posed, load, image.name, file, header.has_alpha, ignored)


def _scaled(K: Tensor, x: float, y: float) -> Tensor:
    return K * torch.tensor([x, y, 1.0], dtype=torch.float64)[:, None]


def _shape_problem(file: Path, header: ImageHeader, camera: ColmapCamera) -> str | None:
    """Why a photograph cannot be the one of its camera; sizes may be rounded when they shrink."""
    x, y = header.width / camera.width, header.height / camera.height
    if abs(x / y - 1) <= 1 / min(header.width, header.height) + 0.01:
        return None
    turned = (header.width > header.height) != (camera.width > camera.height)
    hint = "it was turned since" if turned else "it was cropped since"
    return (
        f"{file} is {header.width}x{header.height} but its camera {camera.width}x{camera.height}, "
        f"which is another shape: perhaps {hint}; use the photographs that COLMAP was given"
    )


def _view_names(names: Sequence[str]) -> list[str]:
    """Short names for tables and files; suffixes stay where they make the difference."""
    joined = [name.replace("\\", "/").strip("/").replace("/", "_") for name in names]
    short = [_without_suffix(name) for name in joined]
    count = Counter(short)
    return [s if count[s] == 1 else name for s, name in zip(short, joined, strict=True)]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


# ------------------------------------------------------------------ what is said
def _summary(model: Model, cameras: dict[int, ColmapCamera]) -> str:
    used = {image.camera for image in model.images}
    kinds = sorted({cameras[number].model for number in used if number in cameras})
    plural = "s" if len(used) > 1 else ""
    return (
        f"COLMAP model {model.folder}: {len(model.images)} images, {len(used)} camera{plural} "
        f"({', '.join(kinds)})."
    )


def _said_shrunk(folder: ImageFolder, downscale: float) -> str:
    if downscale == folder.shrunk:
        return f"Photographs: {folder.path.name}, made beforehand for --downscale {downscale:g}."
    return (
        f"Photographs: {folder.path.name}, shrunk {folder.shrunk} times, because the full ones "
        "are not there."
    )


def _check(model: Model, found: _Found, notes: list[str]) -> None:
    """Turn what was left out into notes, or into an error when nothing remains."""
    total = len(model.images)
    if not found.views:
        if found.misshapen:
            raise UserError(f"{found.misshapen[0]}.")
        if found.missing:
            raise UserError(
                f"{model.folder}: none of the photographs of its {total} images exists; the first "
                f"one missing is {found.missing[0][:100]}: copy them again."
            )
        raise UserError(
            f"{model.folder}: none of its {total} images has a usable pose; expected finite "
            "numbers and a quaternion that is not zero: reconstruct again."
        )
    if found.missing:
        notes.append(
            f"{len(found.missing)} of {total} images skipped because their photographs do not "
            f"exist (first: {found.missing[0][:100]})."
        )
    if found.misshapen:
        notes.append(f"{len(found.misshapen)} of {total} images skipped: {found.misshapen[0]}.")
    if found.bad_poses:
        notes.append(f"{found.bad_poses} of {total} images dropped: their poses are not finite.")
    if found.twice:
        notes.append(f"{found.twice} images dropped because the model lists their names twice.")
    if found.resized:
        change, count = found.resized.most_common(1)[0]
        more = " and others" if len(found.resized) > 1 else ""
        notes.append(
            f"Cameras of {sum(found.resized.values())} images scaled to the size of their "
            f"photographs ({change}, {count} times{more})."
        )
    if found.masks:
        notes.append(
            f"{found.masks} of {len(found.views)} photographs have masks: what is black there is "
            "ignored."
        )


def _splits(
    found: _Found, lists: dict[str, set[str]], notes: list[str]
) -> dict[SplitName, list[int]]:
    """Splits by lists, each image in one of them; without lists all views train."""
    everything = list(range(len(found.views)))
    if "train" not in lists and "test" not in lists:
        return {"train": everything}

    def on(split: str) -> list[int]:
        return [i for i in everything if found.names[i] in lists.get(split, ())]

    test = on("test")
    val = [i for i in on("val") if i not in set(test)]
    held = {*test, *val}
    listed = on("train") if "train" in lists else everything
    train = [i for i in listed if i not in held]
    if "test" not in lists:
        test = [i for i in everything if i not in {*train, *val}]
    if not train:
        notes.append("The lists of splits leave no image to train on; they are not used.")
        return {"train": everything}
    unused = len(everything) - len({*train, *val, *test})
    left = f"; {unused} images are on no list and not used" if unused else ""
    notes.append(
        f"Splits by the lists beside the model: {len(train)} train, {len(val)} val, "
        f"{len(test)} test{left}."
    )
    return {"train": train, "val": val, "test": test}
