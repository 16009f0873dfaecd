"""DTU scenes with one text file per camera, as MVSNet, PatchmatchNet and their heirs keep them.

``cams_1/00000012_cam.txt`` holds, after the words ``extrinsic`` and ``intrinsic``, a
world-to-camera 4x4 matrix (millimetres, OpenCV axes) and K, then the depth range. The images lie
in ``image/`` (or ``images/``) beside it. ``pair.txt`` is of no use here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from render.errors import UserError
from render.scenes.formats.dtu import CLOUDS, SPLITS
from render.scenes.formats.dtu_views import IMAGE_FOLDERS, Shot, build_views, named_split
from render.scenes.formats.matrices import read_text
from render.scenes.formats.numbered import files_by_number, find_folder
from render.scenes.formats.poses import as_pose, without_scale
from render.scenes.formats.readers import Photos, check_split
from render.scenes.types import SplitName

CAMERA_FOLDERS = ("cams_1", "cams")
_MATRICES = {"extrinsic": 16, "intrinsic": 9}


def is_dtu_cams(path: Path) -> bool:
    """Whether ``path`` is such a scene, or the camera folder of one."""
    cams = _camera_folder(path)
    return (
        cams is not None
        and find_folder(cams.parent, IMAGE_FOLDERS) is not None
        and any(cams.glob("*_cam.txt"))
    )


def read_dtu_cams(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
    """Read a scene by its camera text files, in the units of the file.

    Raises:
        UserError: broken files, images without cameras or of another size, an unknown split.
    """
    check_split(path, split, tuple(SPLITS))
    cams = _camera_folder(path)
    if cams is None:
        raise UserError(f"{path}: expected a folder {' or '.join(CAMERA_FOLDERS)}, found none.")
    folder = cams.parent
    notes = [f"Cameras: {cams.name}/*_cam.txt."]
    files = files_by_number(cams, (".txt",), "_cam")
    shots: dict[int, Shot] = {}
    for number, file in files.items():
        shot = _read_camera(file)
        if shot is not None:
            shots[number] = shot
    if not shots:
        raise UserError(
            f"{cams}: none of its {len(files)} camera files has a usable pose; expected a finite "
            "4x4 rigid transform after the word extrinsic."
        )
    if len(shots) < len(files):
        notes.append(
            f"{cams.name}: {len(files) - len(shots)} of {len(files)} cameras dropped because their "
            "pose is not a finite 4x4 rigid transform."
        )
    views = build_views(cams, folder, shots, downscale, notes)
    splits: dict[SplitName, list[int]] = {"train": list(range(len(views)))}
    if split != "auto":
        splits = named_split(folder, split, views, SPLITS[split])
    cloud = next((folder / name for name in CLOUDS if (folder / name).is_file()), None)
    return Photos(folder, list(views.values()), splits, cloud, notes)


def _camera_folder(path: Path) -> Path | None:
    if path.is_dir() and path.name in CAMERA_FOLDERS:
        return path
    return next((path / name for name in CAMERA_FOLDERS if (path / name).is_dir()), None)


def _read_camera(file: Path) -> Shot | None:
    """One camera; None when its pose is unusable.

    Raises:
        UserError: not such a file, or intrinsics that are none.
    """
    expected = 'a camera file with "extrinsic" and 16 numbers, "intrinsic" and 9 numbers'
    words = read_text(file, expected).split()
    values: dict[str, np.ndarray] = {}
    for name, count in _MATRICES.items():
        try:
            start = words.index(name) + 1
            numbers = [float(word) for word in words[start : start + count]]
            values[name] = np.array(numbers).reshape(-1, {16: 4, 9: 3}[count])
            if values[name].size != count:
                raise ValueError(f"{values[name].size} numbers after {name}")
        except ValueError as error:
            raise UserError(
                f"{file}: expected {expected}, found {str(error)[:80]}; copy it again."
            ) from error
    pose = as_pose(values["extrinsic"])
    if pose is None:
        return None
    K = torch.from_numpy(values["intrinsic"])
    if not (bool(K.isfinite().all()) and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] > 0):
        raise UserError(
            f"{file}: expected positive focal lengths after intrinsic, found "
            f"{K[0, 0].item():g} and {K[1, 1].item():g}; copy it again."
        )
    K = K / K[2, 2]
    K[0, 1] = 0
    return Shot(K, without_scale(pose)[0])
