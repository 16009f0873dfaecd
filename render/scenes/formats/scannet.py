"""ScanNet scenes, unpacked: ``color/<i>.jpg``, ``pose/<i>.txt``, ``intrinsic/intrinsic_color.txt``.

Poses are camera-to-world with OpenCV axes, in metres; frames that the tracker lost hold -inf.
``color_select/`` and ``pose_select/`` hold the frames that BPCR and FrePCR were trained on: every
n-th of the video, n = min(frames // 100, 20). Of a whole video the same frames are taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from render.camera import Camera, intrinsics
from render.errors import UserError
from render.scenes.formats.matrices import read_numbers
from render.scenes.formats.numbered import files_by_number
from render.scenes.formats.poses import as_pose, without_scale
from render.scenes.formats.readers import Photos, check_split, scaled_size
from render.scenes.photos.images import decode, read_header
from render.scenes.types import SplitName, View

# scan10: BPCR, FrePCR, K-Buffers. npbgpp: NPBG++. video: every frame of the video, every 8th held.
SPLITS = ("scan10", "npbgpp", "video")
_LAYOUTS = (("color_select", "pose_select"), ("color", "pose"))
_VIDEO = 600  # from so many frames on, a folder is a whole video and not a selection of it
# Intrinsics and the image size that they are for.
_INTRINSICS = (("intrinsic_color.txt", (1296, 968)), ("intrinsic_depth.txt", (640, 480)))
_CLOUDS = ("*_vh_clean_2.ply", "*_vh_clean.ply", "full.ply", "mvs_pc.ply", "*npbgx4.ply")


@dataclass(frozen=True)
class _Frame:
    number: int
    image: Path
    pose: Path


def is_scannet(path: Path) -> bool:
    """Whether ``path`` is such a folder."""
    return _layout(path) is not None and (path / "intrinsic").is_dir()


def read_scannet(path: Path, downscale: float = 1.0, split: str = "auto") -> Photos:
    """Read an unpacked ScanNet scene.

    Raises:
        UserError: broken files, no usable frame, or an unknown split.
    """
    check_split(path, split, SPLITS)
    layout = _layout(path)
    if layout is None:
        raise UserError(f"{path}: expected folders color and pose of ScanNet, found neither.")
    color, pose_folder = layout
    notes: list[str] = []
    frames = _frames(color, pose_folder, notes)
    if color.name == "color" and split != "video":
        frames = _selected(frames, notes)
    held = _held(frames, split)
    K, size = _calibration(path / "intrinsic", notes)
    views: list[View] = []
    splits: dict[SplitName, list[int]] = {"train": []}
    lost: Counter[SplitName] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    for position, frame in enumerate(frames):
        name = held.get(position, "train")
        pose = _pose(frame.pose)
        if pose is None:
            lost[name] += 1
            continue
        view = _view(frame, pose, K, size, downscale, sizes)
        splits.setdefault(name, []).append(len(views))
        views.append(view)
    if not splits["train"]:
        raise UserError(
            f"{pose_folder}: none of the poses of {len(frames)} frames is a finite 4x4 rigid "
            "transform; export the scene again with ScanNet's SensReader."
        )
    if lost:
        what = ", ".join(f"{count} {name}" for name, count in lost.items())
        notes.append(
            f"{lost.total()} of {len(frames)} frames dropped because the tracker had lost them "
            f"(pose not finite; {what})."
        )
    _tell_sizes(sizes, size, notes)
    if (path / "depth").is_dir():
        notes.append("depth/ is not used.")
    clouds = [file for pattern in _CLOUDS for file in sorted(path.glob(pattern))]
    return Photos(path, views, splits, clouds[0] if clouds else None, notes)


def _layout(path: Path) -> tuple[Path, Path] | None:
    for color, pose in _LAYOUTS:
        if (path / color).is_dir() and (path / pose).is_dir():
            return path / color, path / pose
    return None


def _frames(color: Path, pose: Path, notes: list[str]) -> list[_Frame]:
    """Frames that have both files, in the order of their numbers.

    Raises:
        UserError: none.
    """
    images = files_by_number(color)
    poses = files_by_number(pose, (".txt",))
    both = [_Frame(n, image, poses[n]) for n, image in images.items() if n in poses]
    if not both:
        raise UserError(
            f"{color.parent}: expected {color.name}/<i>.jpg and {pose.name}/<i>.txt with the same "
            f"numbers, found {len(images)} images and {len(poses)} poses that do not meet."
        )
    if len(both) < len(images):
        notes.append(f"{len(images) - len(both)} images skipped: no pose in {pose.name}/.")
    return both


def _selected(frames: list[_Frame], notes: list[str]) -> list[_Frame]:
    if len(frames) <= _VIDEO:
        return frames
    step = min(len(frames) // 100, 20)
    notes.append(
        f"Every {step}th of {len(frames):,} frames is read, as in the papers on ScanNet; "
        "--split video reads all."
    )
    return frames[::step]


def _held(frames: list[_Frame], split: str) -> dict[int, SplitName]:
    """Which positions are not for training.

    Raises:
        UserError: too few frames for the protocol.
    """
    if split not in ("scan10", "npbgpp"):
        return {}
    if len(frames) < 21:
        raise UserError(
            f"--split {split} holds out ten frames between the 10th and the 10th last one; "
            f"expected at least 21 frames, found {len(frames)}; use --split every8."
        )
    test = np.linspace(10, len(frames) - 10, 10).astype(int).tolist()
    held: dict[int, SplitName] = {}
    if split == "npbgpp":
        held = {position - 5: "val" for position in test}
    return {**held, **dict.fromkeys(test, "test")}


def _calibration(folder: Path, notes: list[str]) -> tuple[Tensor, tuple[int, int]]:
    """K [3, 3] float64 and the image size that it is for.

    Raises:
        UserError: no such file, or not a 3x3 or 4x4 matrix.
    """
    for name, size in _INTRINSICS:
        file = folder / name
        if not file.is_file():
            continue
        values = read_numbers(file, "a 4x4 (or 3x3) matrix of intrinsics")
        side = {9: 3, 16: 4}.get(values.size)
        if side is None:
            raise UserError(
                f"{file}: expected a 4x4 (or 3x3) matrix of intrinsics, found {values.size} "
                "numbers; copy it again."
            )
        matrix = values.reshape(side, side)
        focal, center = (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2])
        # A factor of 10 around the size of the image leaves room for every lens there is.
        if not all(0.1 * size[0] < value < 10 * size[0] for value in focal) or not (
            0 < center[0] < size[0] and 0 < center[1] < size[1]
        ):
            raise UserError(
                f"{file}: expected intrinsics for images of {size[0]}x{size[1]}, found focal "
                f"lengths {focal[0]:g}, {focal[1]:g} and centre {center[0]:g}, {center[1]:g}; copy "
                "it again."
            )
        if name != _INTRINSICS[0][0]:
            notes.append(f"{_INTRINSICS[0][0]} is missing; the intrinsics are those of {name}.")
        return intrinsics(focal, center), size
    raise UserError(
        f"{folder}: expected {' or '.join(name for name, _ in _INTRINSICS)}, found neither; export "
        "the scene again with ScanNet's SensReader."
    )


def _pose(file: Path) -> Tensor | None:
    """Camera-to-world [4, 4], or None where the tracker was lost.

    Raises:
        UserError: not 16 numbers.
    """
    values = read_numbers(file, "a 4x4 camera-to-world matrix")
    if values.size != 16:
        raise UserError(
            f"{file}: expected a 4x4 camera-to-world matrix, found {values.size} numbers; copy it "
            "again."
        )
    pose = as_pose(values.reshape(4, 4))
    return None if pose is None else without_scale(pose)[0]


def _view(
    frame: _Frame,
    pose: Tensor,
    K: Tensor,
    size: tuple[int, int],
    downscale: float,
    sizes: Counter[tuple[int, int]],
) -> View:
    """One view; the intrinsics follow the size of its image."""
    header = read_header(frame.image)
    sizes[header.width, header.height] += 1
    scale = [header.width / size[0], header.height / size[1], 1.0]
    if abs(scale[0] / scale[1] - 1) > 0.03:  # 640x480 and 1296x968 differ by 0.4 %
        raise UserError(
            f"{frame.image}: the image is {header.width}x{header.height} but the intrinsics are "
            f"for {size[0]}x{size[1]}, which has another shape; use images that are not cut."
        )
    K = K * torch.tensor(scale, dtype=torch.float64)[:, None]
    width, height = scaled_size(header.width, header.height, downscale)
    camera = Camera(torch.linalg.inv(pose), K, header.width, header.height).resize(width, height)
    load = partial(decode, frame.image, width, height)
    return View(camera, load, frame.image.stem, frame.image, header.has_alpha)


def _tell_sizes(sizes: Counter[tuple[int, int]], size: tuple[int, int], notes: list[str]) -> None:
    other = sum(count for found, count in sizes.items() if found != size)
    if other:
        notes.append(
            f"{other} images are not {size[0]}x{size[1]}, the size that the intrinsics are for; "
            "theirs were scaled."
        )
