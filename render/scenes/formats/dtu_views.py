"""Views of scenes whose images, masks and cameras belong together by number (DTU, H3DS)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.scenes.formats.numbered import files_by_number, find_folder, pair
from render.scenes.formats.readers import scaled_size
from render.scenes.photos.images import ImageHeader, decode, read_header
from render.scenes.photos.masks import check_mask, decode_masked
from render.scenes.types import SplitName, View

IMAGE_FOLDERS = ("image", "images", "rgb")
MASK_FOLDERS = ("mask", "masks")
_DTU_SIZE = (1600, 1200)  # of the photographs that the published cameras are for


@dataclass(frozen=True)
class Shot:
    """One camera of the file.

    Args:
        K: [3, 3] float64 in pixels of the size that the file was made for.
        pose: world-to-camera [4, 4] float64.
        size: that size, where the file tells.
    """

    K: Tensor
    pose: Tensor
    size: tuple[int, int] | None = None


def build_views(
    source: Path, folder: Path, shots: Mapping[int, Shot], downscale: float, notes: list[str]
) -> dict[int, View]:
    """The views of a scene by number, in ascending order.

    Args:
        source: the file or folder that the cameras come from, for messages.
        folder: holds the image folder and perhaps a mask folder.
        shots: by number.
        notes: receives a sentence about everything that was left out or bent.

    Raises:
        UserError: no images, none with a camera, or images that do not fit their cameras.
    """
    image_folder = find_folder(folder, IMAGE_FOLDERS)
    files = files_by_number(image_folder) if image_folder else {}
    if not files:
        raise UserError(
            f"{folder}: expected photographs in a folder {' or '.join(IMAGE_FOLDERS)}, found none; "
            "copy them there."
        )
    images = pair(files, shots)
    if not images:
        raise UserError(
            f"{source}: expected cameras for {len(files)} photographs numbered {_span(files)}, "
            f"found cameras {_span(shots)}; use the cameras of this scene."
        )
    if len(images) < len(files):
        count = len(files) - len(images)
        notes.append(f"{count} photographs skipped: {source.name} has no camera for them.")
    if len(images) < len(shots):
        count = len(shots) - len(images)
        notes.append(f"{source.name}: {count} of {len(shots)} cameras have no photograph.")
    masks = _find_masks(folder, images, notes)
    views: dict[int, View] = {}
    scaled: list[float] = []
    for number, image in images.items():
        header = read_header(image)
        K, factor = _fitted(source, number, shots[number], image, header)
        scaled += [factor] if factor != 1 else []
        width, height = size = scaled_size(header.width, header.height, downscale)
        camera = Camera(shots[number].pose, K, header.width, header.height)
        mask = masks.get(number)
        load = partial(decode, image, width, height)
        if mask is not None:
            check_mask(image, mask)
            load = partial(decode_masked, image, mask, width, height)
        has_alpha = mask is not None or header.has_alpha
        views[number] = View(camera.resize(*size), load, image.stem, image, has_alpha)
    if scaled:
        notes.append(
            f"{source.name}: the cameras are for larger images; the intrinsics of {len(scaled)} "
            f"views were scaled by {scaled[0]:.4g}."
        )
    return views


def named_split(
    folder: Path, name: str, numbers: Collection[int], held: Mapping[SplitName, Collection[int]]
) -> dict[SplitName, list[int]]:
    """Indices of views by split, when ``held`` says which numbers are for what.

    Training views are those that ``held`` lists, or all that it does not list for other splits.

    Raises:
        UserError: a split would be empty.
    """
    order = list(numbers)
    other = {number for chosen in held.values() for number in chosen}
    chosen = {"train": [n for n in order if n not in other], **held}
    splits: dict[SplitName, list[int]] = {}
    for split in ("train", "val", "test"):
        if split in chosen:
            splits[split] = [i for i, number in enumerate(order) if number in chosen[split]]
            if not splits[split]:
                wanted = ", ".join(str(n) for n in list(chosen[split])[:10]) or "the rest"
                raise UserError(
                    f"{folder}: --split {name} wants views {wanted} for {split}, found views "
                    f"{_span(order)}; use --split every8."
                )
    return splits


def _find_masks(folder: Path, images: Mapping[int, Path], notes: list[str]) -> dict[int, Path]:
    mask_folder = find_folder(folder, MASK_FOLDERS)
    if mask_folder is None:
        return {}
    masks = pair(files_by_number(mask_folder), images)
    if len(masks) < len(images):
        notes.append(
            f"{len(images) - len(masks)} of {len(images)} photographs have no mask in "
            f"{mask_folder.name}/; all of their pixels count."
        )
    return masks


def _fitted(
    source: Path, number: int, shot: Shot, image: Path, header: ImageHeader
) -> tuple[Tensor, float]:
    """K at the size of the image, and the factor by which it had to be scaled.

    Camera files of this family rarely say what image size they are for; the principal point
    tells, because it is near the centre.
    """
    if _is_central(shot.K, header.width, header.height):
        return shot.K, 1.0
    for size in (shot.size, _DTU_SIZE):
        if size is None or not _is_central(shot.K, *size):
            continue
        scale_x, scale_y = header.width / size[0], header.height / size[1]
        if abs(scale_x / scale_y - 1) < 0.01:
            scale = torch.tensor([scale_x, scale_y, 1.0], dtype=torch.float64)
            return shot.K * scale[:, None], scale_x
    cx, cy = shot.K[0, 2].item(), shot.K[1, 2].item()
    if 0 < cx < header.width and 0 < cy < header.height:  # a cut-out, far from the centre
        return shot.K, 1.0
    raise UserError(
        f"{source}: the camera of view {number} has its centre at ({cx:.0f}, {cy:.0f}), so it is "
        f"for images of about {2 * cx:.0f}x{2 * cy:.0f}, but {image} has "
        f"{header.width}x{header.height}; use the images that the cameras were made for."
    )


def _is_central(K: Tensor, width: int, height: int) -> bool:
    x, y = K[0, 2].item() / width, K[1, 2].item() / height
    return 0.25 < x < 0.75 and 0.25 < y < 0.75


def _span(numbers: Collection[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if numbers else "of no number"
