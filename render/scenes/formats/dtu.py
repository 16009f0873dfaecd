"""DTU scenes as IDR, NeuS and their heirs keep them, and BlendedMVS in the same layout.

Beside ``image/`` and ``mask/`` lies ``cameras_sphere.npz`` (or ``cameras.npz``). For every view
it holds ``world_mat_i`` = K [R | t] from the world in millimetres to pixels, and ``scale_mat_i``,
which takes the unit sphere around the object to that world. Views are read in the unit sphere;
``to_file`` leads back to millimetres. For a text file per camera see ``dtu_cams.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from render.errors import UserError
from render.scenes.formats.dtu_views import IMAGE_FOLDERS, Shot, build_views, named_split
from render.scenes.formats.matrices import read_npz
from render.scenes.formats.numbered import find_folder
from render.scenes.formats.poses import as_pose, decompose_projection
from render.scenes.formats.readers import Photos, check_split
from render.scenes.types import SplitName

CAMERA_FILES = ("cameras_sphere.npz", "cameras.npz")  # the first has the tighter unit sphere
CLOUDS = ("mvs_pc.ply", "points.ply")  # NPBG++'s name for the output of PatchmatchNet

_TEST9 = range(7, 48, 5)
# The nine views of pixelNeRF in order of use; the others of 49 are for test, but for dark ones.
_FEW = (25, 22, 28, 40, 44, 48, 0, 8, 13)
_DARK = {3, 4, 5, 6, 7, *range(16, 22), *range(36, 40)}
_FEW_TEST = [n for n in range(49) if n not in _DARK and n not in _FEW]
# Views by number and split; the rest is for training.
SPLITS: dict[str, dict[SplitName, tuple[int, ...]]] = {
    "dtu9": {"test": tuple(_TEST9)},  # BPCR, FrePCR, K-Buffers
    "npbgpp": {"val": tuple(range(5, 46, 10)), "test": tuple(_TEST9)},  # NPBG++
    **{
        f"pixelnerf{count}": {"train": _FEW[:count], "test": tuple(_FEW_TEST)}
        for count in (3, 6, 9)
    },
}
_ENTRY = re.compile(r"(world_mat|scale_mat|camera_mat)_(\d{1,9})")


def is_dtu(path: Path) -> bool:
    """Whether ``path`` is a folder with such a camera file and an image folder."""
    return has_cameras_and_images(path) and not has_heads(path)


def has_cameras_and_images(path: Path) -> bool:
    """What DTU, BlendedMVS and H3DS have in common."""
    return camera_file(path) is not None and find_folder(path, IMAGE_FOLDERS) is not None


def has_heads(path: Path) -> bool:
    """Whether the images are named as those of H3DS."""
    images = find_folder(path, IMAGE_FOLDERS)
    return images is not None and any(images.glob("img_[0-9]*.jpg"))


def camera_file(folder: Path) -> Path | None:
    """The npz file with the cameras of a scene, or None."""
    return next((folder / name for name in CAMERA_FILES if (folder / name).is_file()), None)


def read_dtu(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
    """Read a DTU or BlendedMVS scene with its cameras in an npz file.

    Raises:
        UserError: broken files, images without cameras or of another size, an unknown split.
    """
    check_split(path, split, tuple(SPLITS))
    photos, numbers = read_npz_scene(path, downscale)
    if split != "auto":
        photos.splits = named_split(path, split, numbers, SPLITS[split])
    return photos


def read_npz_scene(folder: Path, downscale: float) -> tuple[Photos, list[int]]:
    """The scene with all views for training, and the numbers of the views.

    Raises:
        UserError: as :func:`read_dtu`.
    """
    file = camera_file(folder)
    if file is None:
        raise UserError(f"{folder}: expected {' or '.join(CAMERA_FILES)}, found neither.")
    arrays = read_npz(file, lambda name: _ENTRY.fullmatch(name) is not None)
    world = {int(name[10:]): m for name, m in arrays.items() if name.startswith("world_mat_")}
    if not world:
        raise UserError(
            f"{file}: expected matrices world_mat_0, world_mat_1, ..., found none; use the "
            "cameras.npz of IDR or the cameras_sphere.npz of NeuS."
        )
    notes = [f"Cameras: {file.name}."]
    to_file = _unit_sphere(file, arrays, notes)
    shots: dict[int, Shot] = {}
    skewed = 0
    for number, matrix in world.items():
        shaped = matrix.shape in ((4, 4), (3, 4))
        with np.errstate(invalid="ignore", over="ignore"):  # matrices that are not finite
            found = decompose_projection(matrix[:3] @ to_file.numpy()) if shaped else None
        if found is None:
            continue
        K, pose = found
        skewed += abs(K[0, 1].item()) > 1e-3 * K[0, 0].item()
        K[0, 1] = 0
        shots[number] = Shot(K, pose, _declared_size(arrays.get(f"camera_mat_{number}")))
    if not shots:
        raise UserError(
            f"{file}: none of its {len(world)} matrices world_mat is a projection; expected 4x4 "
            "(or 3x4) finite numbers K [R | t]."
        )
    if len(shots) < len(world):
        notes.append(
            f"{file.name}: {len(world) - len(shots)} of {len(world)} cameras dropped because their "
            "world_mat is no finite projection."
        )
    if skewed:
        notes.append(f"{file.name}: {skewed} cameras have slanted pixels; the slant is ignored.")
    views = build_views(file, folder, shots, downscale, notes)
    cloud = next((folder / name for name in CLOUDS if (folder / name).is_file()), None)
    splits: dict[SplitName, list[int]] = {"train": list(range(len(views)))}
    is_moved = not torch.equal(to_file, torch.eye(4, dtype=torch.float64))
    photos = Photos(
        folder, list(views.values()), splits, cloud, notes, to_file if is_moved else None
    )
    return photos, list(views)


def _unit_sphere(file: Path, arrays: dict[str, np.ndarray], notes: list[str]) -> torch.Tensor:
    """The similarity [4, 4] from the unit sphere to the file's world; identity without one."""
    identity = torch.eye(4, dtype=torch.float64)
    matrices = [matrix for name, matrix in arrays.items() if name.startswith("scale_mat_")]
    if not matrices:
        notes.append(f"{file.name}: no scale_mat; the scene is read in the units of world_mat.")
        return identity
    sphere = as_pose(matrices[0])
    if sphere is None or not _is_similarity(sphere):
        notes.append(
            f"{file.name}: scale_mat is no similarity (one scale, a rotation, a translation) and "
            "is ignored; the scene is read in the units of world_mat."
        )
        return identity
    others = [as_pose(matrix) for matrix in matrices[1:]]
    if any(other is None or not torch.allclose(other, sphere) for other in others):
        notes.append(f"{file.name}: scale_mat differs between views; that of the first is used.")
    notes.append(
        f"The scene is read in the unit sphere of {file.name}: 1 unit is "
        f"{sphere[:3, 0].norm().item():.6g} units of the file, in which exports are written."
    )
    return sphere


def _is_similarity(matrix: torch.Tensor) -> bool:
    linear = matrix[:3, :3]
    square = linear.T @ linear
    scale = square.diagonal().mean()
    rest = matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    even = (square / scale - torch.eye(3, dtype=square.dtype)).abs().max() < 1e-3
    return bool(even) and torch.allclose(matrix[3], rest)


def _declared_size(matrix: np.ndarray | None) -> tuple[int, int] | None:
    """The image size that ``camera_mat`` (pixels to -1..1) was written for."""
    if matrix is None or matrix.ndim != 2 or min(matrix.shape) < 2:
        return None
    x, y = float(matrix[0, 0]), float(matrix[1, 1])
    if not (1e-5 < x < 1 and 1e-5 < y < 1):
        return None
    return round(2 / x), round(2 / y)
