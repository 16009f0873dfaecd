"""What is fuzzed: every parser of scene files, fed with one file of an otherwise healthy scene.

``feed`` writes the bytes where the parser looks for them and reads them. Whatever they are, it
must return, or raise ``UserError`` with one sentence.
"""

from __future__ import annotations

import gzip
import io
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from render.errors import UserError
from render.export.camera_path import CameraPath, load_camera_path, save_camera_path
from render.scenes.clouds.pointcloud import describe_point_cloud, point_cloud_size, read_point_cloud
from render.scenes.filetype import file_type
from render.scenes.formats.colmap_points import read_colmap_points
from render.scenes.load import load_scene
from render.scenes.photos.images import decode, read_header
from tests.scenes.healthy import CLOUDS, COUNT, SCENES, shots

_HEALTHY = TemporaryDirectory(prefix="fuzz_")  # until the process ends
LONGEST = 2000  # characters of a sentence


def _scene(path: Path) -> None:
    scene = load_scene(path, needs_points=False)
    scene.views[0].pixels()


def _cloud(path: Path) -> None:
    kind = file_type(path)
    point_cloud_size(path)
    read_point_cloud(path)
    describe_point_cloud(path, kind)


def _image(path: Path) -> None:
    header = read_header(path)
    decode(path, min(header.width, 64), min(header.height, 64))


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        file: where it lies in the scene; for a file alone, its name.
        use: reads the scene or file.
        scene: the healthy scene around it, or None.
        wrap: what is done to the fuzzed bytes before they are written (to get past checksums).
        seed: healthy bytes, before ``wrap``.
    """

    file: str
    use: Callable[[Path], object]
    scene: str | None = None
    wrap: Callable[[bytes], bytes] = bytes
    seed: Callable[[], bytes] | None = None

    def healthy(self) -> bytes:
        """Bytes to begin with."""
        if self.seed is not None:
            return self.seed()
        assert self.scene is not None
        return (_healthy(self.scene) / self.file).read_bytes()


@cache
def _healthy(scene: str) -> Path:
    folder = Path(_HEALTHY.name) / scene
    folder.mkdir()
    SCENES[scene](folder)
    return folder


def _members(*names: str) -> Callable[[bytes], bytes]:
    """A zip archive of arrays, all of these bytes."""

    def wrap(data: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in names:
                archive.writestr(f"{name}.npy", data)
        return out.getvalue()

    return wrap


def _camera_path() -> bytes:
    path = Path(_HEALTHY.name) / "path.json"
    save_camera_path(path, CameraPath(shots()[0][:2]))
    return path.read_bytes()


def _picture(form: str) -> bytes:
    out = io.BytesIO()
    shots()[1][0].convert("RGB").save(out, form)
    return out.getvalue()


def _npy() -> bytes:
    return CLOUDS["cloud.npy"]()


def _matrix() -> bytes:
    with zipfile.ZipFile(_healthy("dtu") / "cameras_sphere.npz") as archive:
        return archive.read("world_mat_0.npy")


def _ball_spz() -> bytes:
    return gzip.decompress(CLOUDS["cloud.spz"]())


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def _clouds(*names: str) -> dict[str, Target]:
    return {name: Target(name, _cloud, seed=CLOUDS[name]) for name in names}


_WORLD = _members(*(f"world_mat_{i}" for i in range(COUNT)))

# Groups that are fuzzed together; the first byte of an input chooses the target in its group.
GROUPS: dict[str, dict[str, Target]] = {
    "json": {
        "transforms": Target("transforms.json", _scene, "transforms"),
        "blender": Target("transforms_train.json", _scene, "blender"),
        "camera_path": Target("path.json", load_camera_path, seed=_camera_path),
    },
    "colmap": {
        "cameras_bin": Target("sparse/0/cameras.bin", _scene, "colmap_bin"),
        "images_bin": Target("sparse/0/images.bin", _scene, "colmap_bin"),
        "points_bin": Target(
            "points3D.bin", read_colmap_points,
            seed=lambda: (_healthy("colmap_bin") / "sparse/0/points3D.bin").read_bytes(),
        ),
        "cameras_txt": Target("sparse/0/cameras.txt", _scene, "colmap_txt"),
        "images_txt": Target("sparse/0/images.txt", _scene, "colmap_txt"),
        "points_txt": Target(
            "points3D.txt", read_colmap_points,
            seed=lambda: (_healthy("colmap_txt") / "sparse/0/points3D.txt").read_bytes(),
        ),
    },
    "matrices": {
        "npz": Target("cameras_sphere.npz", _scene, "dtu", _WORLD, _matrix),
        "cams": Target("cams_1/00000001_cam.txt", _scene, "dtu_cams"),
        "intrinsic": Target("intrinsic/intrinsic_color.txt", _scene, "scannet"),
        "pose": Target("pose/0.txt", _scene, "scannet"),
    },
    "clouds": {
        **_clouds("binary.ply", "ascii.ply", "splats.ply", "ascii.pcd", "binary.pcd", "cloud.npy"),
        "npz": Target("cloud.npz", _cloud, wrap=_members("points"), seed=_npy),
    },
    "text": _clouds("cloud.xyz", "cloud.csv", "mesh.obj"),
    "others": {
        **_clouds("cloud.las", "cloud.e57", "mesh.glb", "cloud.splat"),
        "spz": Target("cloud.spz", _cloud, wrap=_gzip, seed=_ball_spz),
    },
    "images": {
        "png": Target("a.png", _image, seed=lambda: _picture("PNG")),
        "jpeg": Target("a.jpg", _image, seed=lambda: _picture("JPEG")),
        "tiff": Target("a.tif", _image, seed=lambda: _picture("TIFF")),
        "webp": Target("a.webp", _image, seed=lambda: _picture("WEBP")),
        "bmp": Target("a.bmp", _image, seed=lambda: _picture("BMP")),
    },
}  # fmt: skip


class Feeder:
    """Feeds one group; its files lie in ``folder``."""

    def __init__(self, group: str, folder: Path) -> None:
        self.targets = list(GROUPS[group].values())
        self.places: list[tuple[Path, Path]] = []  # what to open, what to overwrite
        for name, target in GROUPS[group].items():
            root = folder / name
            if target.scene is None:
                root.mkdir(parents=True)
                self.places.append((root / target.file, root / target.file))
            else:
                shutil.copytree(_healthy(target.scene), root)
                self.places.append((root, root / target.file))

    def seeds(self) -> list[bytes]:
        """A healthy input for each target."""
        return [bytes([i]) + target.healthy() for i, target in enumerate(self.targets)]

    def feed(self, data: bytes) -> None:
        """One input: a byte for the target, then the content of its file.

        Raises:
            Exception: anything but a ``UserError`` of one line is a finding.
        """
        if not data:
            return
        number = data[0] % len(self.targets)
        target, (scene, file) = self.targets[number], self.places[number]
        file.write_bytes(target.wrap(data[1:]))
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # it would be printed beside the error
            try:
                target.use(scene)
            except UserError as error:
                text = str(error)
                if "\n" in text or not 20 < len(text) < LONGEST:
                    raise AssertionError(f"no sentence: {text[:300]!r}") from error
