"""Malformed scenes and clouds. ``CASES``: a name -> writes the case into an empty folder.

What every file can suffer (empty, cut off, zeros, noise, another text) is done to each file that a
scene needs; the rest is particular to a format. A case returns what to open.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.scenes.healthy import CLOUDS, SCENES
from tests.scenes.zoo_clouds import CLOUD_CASES, HUGE, healthy_cloud, write_cloud_case

Case = Callable[[Path], Path]

_HEALTHY = TemporaryDirectory(prefix="zoo_")  # until the process ends

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: np.random.default_rng(len(data)).bytes(len(data)),
    "text": lambda data: b"There was a scene here once.\n" * 20,
}
# The files without which a scene is none.
NEEDED = {
    "transforms": ("transforms.json", "sparse.ply"),
    "blender": ("transforms_train.json", "transforms_test.json"),
    "colmap_bin": tuple(f"sparse/0/{name}.bin" for name in ("cameras", "images", "points3D")),
    "colmap_txt": tuple(f"sparse/0/{name}.txt" for name in ("cameras", "images", "points3D")),
    "dtu": ("cameras_sphere.npz",),
    "dtu_cams": ("cams_1/00000001_cam.txt",),
    "h3ds": ("cameras.npz",),
    "scannet": ("intrinsic/intrinsic_color.txt",),
}
IMAGES = {
    "transforms": "images/001.png",
    "blender": "train/001.png",
    "colmap_bin": "images/001.jpg",
    "dtu": "image/000001.png",
    "dtu_cams": "image/00000001.png",
    "h3ds": "image/img_0001.jpg",
    "scannet": "color/1.jpg",
}
# Without these it is still a scene.
REPLACEABLE = {
    "sparse.ply", "transforms_test.json", "sparse/0/points3D.bin", "sparse/0/points3D.txt",
    "cams_1/00000001_cam.txt",
}  # fmt: skip
# What is left may be a scene: it loads and trains, or is refused in a sentence.
MAY_LOAD = {
    "ascii.pcd-half", "cloud.xyz-half", "cloud.csv-half", "mesh.obj-half",
    "cloud.splat-half", "cloud.splat-zeros", "cloud.splat-noise",
    "colmap_txt-sparse/0/points3D.txt-half", "colmap_txt-sparse/0/images.txt-half",
    "json: points outside", "json: points a number", "images: no pixels",
    "colmap: another camera", "colmap: no point", "colmap: points without end",
    "colmap: track without end", "cloud: obj indices", "cloud: text ragged",
    "cloud: text of one line",
}  # fmt: skip


@cache
def _scene(name: str) -> Path:
    folder = Path(_HEALTHY.name) / name
    folder.mkdir()
    SCENES[name](folder)
    return folder


def copy_of(name: str, folder: Path) -> Path:
    """A healthy scene of this format."""
    return Path(shutil.copytree(_scene(name), folder / name))


# ------------------------------------------------------------------ what every file can suffer
def _damaged_scene(scene: str, file: str, damage: str, folder: Path) -> Path:
    path = copy_of(scene, folder)
    target = path / file
    target.write_bytes(DAMAGES[damage](target.read_bytes()))
    return path


def _damaged_cloud(cloud: str, damage: str, folder: Path) -> Path:
    path = folder / cloud
    path.write_bytes(DAMAGES[damage](healthy_cloud(cloud)))
    return path


def _without(scene: str, file: str, folder: Path) -> Path:
    path = copy_of(scene, folder)
    (path / file).unlink()
    return path


# ------------------------------------------------------------------ json
def _json(change: Callable[[dict[str, Any]], Any], folder: Path, scene: str = "transforms") -> Path:
    """``change`` edits the data in place, or returns what stands there instead."""
    path = copy_of(scene, folder)
    file = path / NEEDED[scene][0]
    data = json.loads(file.read_text())
    instead = change(data)
    text = instead if isinstance(instead, str) else json.dumps(instead or data)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def _each(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Set entries of every frame."""

    def change(data: dict[str, Any]) -> None:
        for frame in data["frames"]:
            frame.update(values)

    return change


def _top(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(values)


def _matrix(value: float) -> list[list[float]]:
    return [[value] * 4 for _ in range(4)]


def _outside(data: dict[str, Any]) -> None:
    for frame in data["frames"]:
        frame["file_path"] = "../../../../../../../../../../etc/passwd"


JSON_CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no frames": lambda data: data.pop("frames") and None,
    "empty frames": _top(frames=[]),
    "frames a number": _top(frames=7),
    "frames of numbers": _top(frames=[1, 2, 3]),
    "a list": lambda data: "[1, 2]",
    "null": lambda data: "null",
    "nested without end": lambda data: "[" * 200_000,
    "objects without end": lambda data: '{"frames":' * 100_000,
    "digits without end": lambda data: '{"frames": [' + "9" * 200_000 + "]}",
    "not UTF-8": lambda data: json.dumps(data).replace("images", "im\udcffages"),
    "no file path": _each(file_path=None),
    "file path a list": _each(file_path=["a"]),
    "zero byte in a path": _each(file_path="images/0\0.png"),
    "path without end": _each(file_path="a/" * 5000),
    "no matrix": _each(transform_matrix=None),
    "matrix of words": _each(transform_matrix=[["a"] * 4] * 4),
    "matrix 3x3": _each(transform_matrix=[[1, 0, 0]] * 3),
    "ragged matrix": _each(transform_matrix=[[1], [1, 2], 3, 4]),
    "matrix of zeros": _each(transform_matrix=_matrix(0.0)),
    "matrix of NaN": _each(transform_matrix=_matrix(math.nan)),
    "matrix of infinity": _each(transform_matrix=_matrix(math.inf)),
    "matrix too large": _each(transform_matrix=_matrix(1e300)),
    "focal length 0": _top(fl_x=0.0),
    "focal length negative": _top(fl_x=-5.0),
    "focal length NaN": _top(fl_x=math.nan),
    "focal length a word": _top(fl_x="wide"),
    "width huge": _top(w=HUGE, h=HUGE),
    "width zero": _top(w=0),
    "width a list": _top(w=[16]),
    "distortion huge": _top(k1=1e30),
    "distortion infinite": _top(k1=math.inf),
    "distortion a word": _top(k1="some"),
    "unknown camera": _top(camera_model="KALEIDOSCOPE"),
    "another file's images": _each(file_path="images/nothing.png"),
    "images outside": _outside,
    "absolute path": _each(file_path="/etc/passwd"),
    "image a folder": _each(file_path="images"),
    "points outside": _top(ply_file_path="../../../../../etc/passwd"),
    "points a number": _top(ply_file_path=3),
}


# ------------------------------------------------------------------ images
def _image(write: Callable[[Path], object], folder: Path, scene: str = "transforms") -> Path:
    """Every photograph is replaced."""
    path = copy_of(scene, folder)
    for image in sorted((path / IMAGES[scene]).parent.iterdir()):
        image.unlink()
        write(image)
    return path


def _png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG with this header, whatever its content."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def _bomb(width: int, height: int) -> bytes:
    """Zeros, packed a thousand to one."""
    packer = zlib.compressobj(9)
    row, out = bytes(3 * width + 1), b""
    for _ in range(height):
        out += packer.compress(row)
    return _png(width, height, out + packer.flush())


def _loop(path: Path) -> None:
    path.symlink_to(path)


IMAGE_CASES: dict[str, Callable[[Path], object]] = {
    "header huge": lambda path: path.write_bytes(_png(2**31 - 1, 2**31 - 1)),
    "header zero": lambda path: path.write_bytes(_png(0, 0)),
    "bomb": lambda path: path.write_bytes(_cached_bomb()),
    "no pixels": lambda path: path.write_bytes(_png(16, 16)),
    "linked in a circle": _loop,
    "linked to nothing": lambda path: path.symlink_to("gone.png"),
    "folders": lambda path: path.mkdir(),
    "pipes": lambda path: os.mkfifo(path),
    "devices": lambda path: path.symlink_to("/dev/zero"),
    "vector graphics": lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "postscript": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "TIFF of a loop": lambda path: path.write_bytes(
        b"II*\0\x08\0\0\0\x01\0\0\1\3\0\1\0\0\0\x10\0\0\0\x08\0\0\0"
    ),
}


@cache
def _cached_bomb() -> bytes:
    return _bomb(9_000, 9_000)


# ------------------------------------------------------------------ numbers in binary files
def _patched(scene: str, file: str, place: int, form: str, value: Any, folder: Path) -> Path:
    path = copy_of(scene, folder)
    data = bytearray((path / file).read_bytes())
    struct.pack_into(form, data, place, value)
    (path / file).write_bytes(data)
    return path


# file, place, form, value; COLMAP's documentation has the records
_CAMERAS, _IMAGES, _POINTS = (f"sparse/0/{name}.bin" for name in ("cameras", "images", "points3D"))
COLMAP_CASES: dict[str, tuple[str, int, str, Any]] = {
    "no camera": (_CAMERAS, 0, "<Q", 0),
    "cameras without end": (_CAMERAS, 0, "<Q", 2**63),
    "unknown model": (_CAMERAS, 12, "<i", 77),
    "width zero": (_CAMERAS, 16, "<Q", 0),
    "width huge": (_CAMERAS, 16, "<Q", HUGE),
    "focal length NaN": (_CAMERAS, 32, "<d", math.nan),
    "focal length 0": (_CAMERAS, 32, "<d", 0.0),
    "no image": (_IMAGES, 0, "<Q", 0),
    "images without end": (_IMAGES, 0, "<Q", 2**63),
    "another camera": (_IMAGES, 8 + 4 + 56, "<i", 99),
    "observations without end": (_IMAGES, 8 + 64 + 8, "<Q", 2**62),
    "points without end": (_POINTS, 0, "<Q", 2**60),
    "no point": (_POINTS, 0, "<Q", 0),
    "track without end": (_POINTS, 8 + 8 + 24 + 3 + 8, "<Q", 2**61),
}


def _colmap_text(file: str, text: str, folder: Path) -> Path:
    path = copy_of("colmap_txt", folder)
    (path / "sparse/0" / file).write_text(text)
    return path


COLMAP_TEXTS = {
    "camera of words": ("cameras.txt", "1 PINHOLE wide high a b c d\n"),
    "camera cut off": ("cameras.txt", "1 PINHOLE 16 16 20\n"),
    "camera of NaN": ("cameras.txt", "1 PINHOLE 16 16 nan nan nan nan\n"),
    "camera unknown": ("cameras.txt", "1 KALEIDOSCOPE 16 16 20 20 8 8\n"),
    "only comments": ("images.txt", "# nothing\n# here\n"),
    "image of words": ("images.txt", "one two three four five six seven eight nine a.jpg\n\n"),
    "image of NaN": ("images.txt", "1 nan nan nan nan 0 0 0 1 000.jpg\n\n"),
    "image names outside": ("images.txt", "1 1 0 0 0 0 0 0 1 ../../../../../etc/passwd\n\n"),
    "points of words": ("points3D.txt", "1 a b c d e f g\n"),
}


# ------------------------------------------------------------------ matrices in npz and text
def _npz(scene: str, change: Callable[[dict[str, np.ndarray]], Any], folder: Path) -> Path:
    path = copy_of(scene, folder)
    file = path / NEEDED[scene][0]
    with np.load(file) as loaded:
        arrays = dict(loaded)
    change(arrays)
    np.savez(file, **arrays)
    return path


def _all(value: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        for name in arrays:
            arrays[name] = np.asarray(value)

    return change


NPZ_CASES: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
    "NaN": _all(np.full((4, 4), np.nan)),
    "zeros": _all(np.zeros((4, 4))),
    "infinity": _all(np.full((4, 4), np.inf)),
    "vectors": _all(np.ones(4)),
    "words": _all(np.array(["a", "b"])),
    "objects": _all(np.array([{}, []], object)),
    "complex": _all(np.eye(4) * 1j),
    "other names": lambda arrays: [arrays.update(x=arrays.pop(name)) for name in list(arrays)],
    "nothing": lambda arrays: arrays.clear(),
}


def _npz_bomb(folder: Path) -> Path:
    """An array of a few hundred bytes that unpacks to gigabytes."""
    path = copy_of("dtu", folder)
    np.savez_compressed(path / "cameras_sphere.npz", world_mat_0=np.zeros(1 << 24))
    return path


def _camera_text(text: str, folder: Path) -> Path:
    path = copy_of("dtu_cams", folder)
    for file in (path / "cams_1").iterdir():
        file.write_text(text)
    return path


CAMERA_TEXTS = {
    "words": "extrinsic\n" + "a " * 16 + "\nintrinsic\n" + "b " * 9,
    "NaN": "extrinsic\n" + "nan " * 16 + "\nintrinsic\n" + "nan " * 9,
    "zeros": "extrinsic\n" + "0 " * 16 + "\nintrinsic\n" + "0 " * 9,
    "no intrinsic": "extrinsic\n1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n",
    "huge": "extrinsic\n1 0 0 1e999 0 1 0 0 0 0 1 0 0 0 0 1\nintrinsic\n9 0 8 0 9 8 0 0 1\n",
}


def _lost_poses(folder: Path) -> Path:
    path = copy_of("scannet", folder)
    for file in (path / "pose").iterdir():
        file.write_text("-inf -inf -inf -inf\n" * 4)
    return path


# ------------------------------------------------------------------ folders and links
def _nothing(folder: Path) -> Path:
    return folder / "nothing"


def _empty_folder(folder: Path) -> Path:
    (folder / "scene").mkdir()
    return folder / "scene"


def _link_circle(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def _folder_circle(folder: Path) -> Path:
    (folder / "scene").mkdir()
    (folder / "scene" / "again").symlink_to(folder / "scene", target_is_directory=True)
    return folder / "scene"


def _pipe(name: str, folder: Path) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def _folder_for_file(name: str, folder: Path) -> Path:
    path = copy_of("transforms", folder)
    (path / "transforms.json").unlink()
    (path / name).mkdir()
    return path


def _json_circle(folder: Path) -> Path:
    path = copy_of("transforms", folder)
    (path / "transforms.json").unlink()
    (path / "transforms.json").symlink_to("transforms.json")
    return path


def _json_pipe(folder: Path) -> Path:
    path = copy_of("transforms", folder)
    (path / "transforms.json").unlink()
    os.mkfifo(path / "transforms.json")
    return path


PLACES: dict[str, Case] = {
    "nothing": _nothing,
    "empty folder": _empty_folder,
    "links in a circle": _link_circle,
    "folders in a circle": _folder_circle,
    "a pipe": partial(_pipe, "cloud.ply"),
    "a pipe without a suffix": partial(_pipe, "cloud"),
    "a folder called transforms.json": partial(_folder_for_file, "transforms.json"),
    "a folder called points.ply": partial(_folder_for_file, "points.ply"),
    "json linked to itself": _json_circle,
    "json a pipe": _json_pipe,
    "a device": lambda folder: Path("/dev/zero"),
    "a long name": lambda folder: folder / ("x" * 5000),
}


# ------------------------------------------------------------------ all of them
def _all_cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for scene, files in NEEDED.items():
        for file in files:
            for damage in DAMAGES:
                cases[f"{scene}-{file}-{damage}"] = partial(_damaged_scene, scene, file, damage)
            if file not in REPLACEABLE:
                cases[f"{scene}-{file}-gone"] = partial(_without, scene, file)
    for scene, image in IMAGES.items():
        for damage in ("empty", "half", "noise"):
            cases[f"{scene}-{image}-{damage}"] = partial(_damaged_scene, scene, image, damage)
    for cloud in CLOUDS:
        for damage in DAMAGES:
            cases[f"{cloud}-{damage}"] = partial(_damaged_cloud, cloud, damage)
    cases |= {f"json: {name}": partial(_json, change) for name, change in JSON_CASES.items()}
    cases |= {f"images: {name}": partial(_image, write) for name, write in IMAGE_CASES.items()}
    cases |= {
        f"colmap: {name}": partial(_patched, "colmap_bin", *patch)
        for name, patch in COLMAP_CASES.items()
    }
    cases |= {
        f"colmap: {name}": partial(_colmap_text, *text) for name, text in COLMAP_TEXTS.items()
    }
    for scene in ("dtu", "h3ds"):
        cases |= {f"{scene}: {name}": partial(_npz, scene, c) for name, c in NPZ_CASES.items()}
    cases["dtu: bomb"] = _npz_bomb
    cases |= {f"cams: {name}": partial(_camera_text, text) for name, text in CAMERA_TEXTS.items()}
    cases["scannet: all poses lost"] = _lost_poses
    cases |= {f"cloud: {name}": partial(write_cloud_case, name) for name in CLOUD_CASES}
    cases |= {f"place: {name}": case for name, case in PLACES.items()}
    if not hasattr(os, "mkfifo"):  # Windows
        cases = {name: case for name, case in cases.items() if "pipe" not in name}
    return cases


CASES = _all_cases()
