"""H3DS scenes (heads): ``image/img_0012.jpg``, ``mask/mask_0012.png`` and ``cameras.npz``.

Cameras are as in DTU's npz files (``dtu.py``). ``views3`` ... ``views32`` train on the views that
H3D-Net was trained on, and hold out all others; they exist for its ten scenes, which are known by
the name of their folder. ``npbgpp`` takes its splits from the 32 views.
"""

from __future__ import annotations

from pathlib import Path

from render.errors import UserError
from render.scenes.formats.dtu import has_cameras_and_images, has_heads, read_npz_scene
from render.scenes.formats.dtu_views import named_split
from render.scenes.formats.h3ds_views import VIEWS
from render.scenes.formats.readers import Photos, check_split
from render.scenes.types import SplitName

_COUNTS = (3, 4, 8, 16, 32)
SPLITS = (*(f"views{count}" for count in _COUNTS), "npbgpp")


def is_h3ds(path: Path) -> bool:
    """Whether ``path`` is such a folder."""
    return has_cameras_and_images(path) and has_heads(path)


def read_h3ds(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
    """Read an H3DS scene.

    Raises:
        UserError: broken files, images without cameras, an unknown split or scene.
    """
    check_split(path, split, SPLITS)
    photos, numbers = read_npz_scene(path, downscale)
    if split == "auto":
        return photos
    lists = VIEWS.get(path.resolve().name)
    if lists is None:
        raise UserError(
            f"{path}: --split {split} is known for the ten scenes of H3D-Net, by the name of their "
            f"folder ({', '.join(sorted(VIEWS)[:2])}, ...), found {path.resolve().name}; rename "
            "the folder or use --split every8."
        )
    if split == "npbgpp":
        photos.splits = named_split(path, split, numbers, _npbgpp(lists[32]))
        return photos
    train = lists[int(split.removeprefix("views"))]
    test = [number for number in numbers if number not in train]
    photos.splits = named_split(path, split, numbers, {"train": train, "test": test})
    return photos


def _npbgpp(views: tuple[int, ...]) -> dict[SplitName, list[int]]:
    """Views by split; positions 7, 14, ... of the 32 are for validation, 5, 10, ... for test."""
    val, test = [views[i] for i in range(7, 29, 7)], [views[i] for i in range(5, 31, 5)]
    train = [view for view in views if view not in (*val, *test)]
    return {"train": train, "val": val, "test": test}
