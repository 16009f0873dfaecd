"""A small healthy scene and cloud of every format, for tests that damage them."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from render.camera import Camera
from render.gaussians.ply import from_points, write_ply
from render.scenes.clouds.splat import splat_bytes, unit_quaternions
from render.scenes.clouds.spz import spz_bytes
from render.scenes.types import PointCloud
from tests.scenes.multiview import scale_matrix, world_matrix
from tests.scenes.synthetic import ANGLE, cameras_around, render_sphere

SIZE = 16
COUNT = 6  # photographs of a scene
POINTS = 40


# ------------------------------------------------------------------ healthy scenes
@cache
def shots() -> tuple[list[Camera], list[Image.Image]]:
    """Cameras around a ball and what they see."""
    cameras = cameras_around(COUNT, SIZE)
    return cameras, [Image.fromarray(np.asarray(render_sphere(camera))) for camera in cameras]


def points() -> np.ndarray:
    """[POINTS, 3] on a sphere."""
    values = np.random.default_rng(0).normal(size=(POINTS, 3))
    return 0.8 * values / np.linalg.norm(values, axis=1, keepdims=True)


def _save_images(folder: Path, suffix: str = "png", name: str = "{:03d}") -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(shots()[1]):
        image.convert("RGB" if suffix == "jpg" else "RGBA").save(
            folder / f"{name.format(i)}.{suffix}"
        )


def write_transforms(folder: Path) -> None:
    """nerfstudio's: shared intrinsics, a point cloud beside."""
    cameras = shots()[0]
    _save_images(folder / "images")
    K = cameras[0].K
    frames = [
        {"file_path": f"images/{i:03d}.png", "transform_matrix": camera.to_opengl().tolist()}
        for i, camera in enumerate(cameras)
    ]
    data = {
        "w": SIZE, "h": SIZE, "fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]),
        "cx": SIZE / 2, "cy": SIZE / 2, "k1": 0.01, "ply_file_path": "sparse.ply",
        "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(data))
    (folder / "sparse.ply").write_bytes(ply_bytes())


def write_blender(folder: Path) -> None:
    """NeRF-Synthetic's: one angle, splits."""
    cameras = shots()[0]
    _save_images(folder / "train")
    frames = [
        {"file_path": f"./train/{i:03d}", "transform_matrix": camera.to_opengl().tolist()}
        for i, camera in enumerate(cameras)
    ]
    for split, part in (("train", frames[:4]), ("test", frames[4:])):
        data = {"camera_angle_x": ANGLE, "frames": part}
        (folder / f"transforms_{split}.json").write_text(json.dumps(data))


def write_colmap(folder: Path, text: bool = False) -> None:
    """COLMAP's model in sparse/0, as its documentation has the files."""
    cameras = shots()[0]
    _save_images(folder / "images", "jpg")
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    K = cameras[0].K.tolist()
    params = (K[0][0], K[1][1], K[0][2], K[1][2])
    xyz = points()
    poses = [(c.to_colmap()[0].tolist(), c.to_colmap()[1].tolist()) for c in cameras]
    seen = [c.project(torch.from_numpy(xyz[0]))[0].tolist() for c in cameras]  # of the first point
    if text:
        numbers = " ".join(map(str, params))
        (model / "cameras.txt").write_text(f"# cameras\n1 PINHOLE {SIZE} {SIZE} {numbers}\n")
        lines = []
        for i, (q, t) in enumerate(poses):
            lines += [
                f"{i + 1} {' '.join(map(str, (*q, *t)))} 1 {i:03d}.jpg",
                f"{seen[i][0]} {seen[i][1]} 1",
            ]
        (model / "images.txt").write_text("\n".join(lines) + "\n")
        rows = [f"{i + 1} {p[0]} {p[1]} {p[2]} 200 10 10 0.5 1 0 2 0" for i, p in enumerate(xyz)]
        (model / "points3D.txt").write_text("\n".join(rows) + "\n")
        return
    data = struct.pack("<QiiQQ4d", 1, 1, 1, SIZE, SIZE, *params)
    (model / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", COUNT)
    for i, (q, t) in enumerate(poses):
        data += struct.pack("<i7di", i + 1, *q, *t, 1) + f"{i:03d}.jpg\0".encode()
        data += struct.pack("<Q2dq", 1, *seen[i], 1)
    (model / "images.bin").write_bytes(data)
    data = struct.pack("<Q", POINTS)
    for i, p in enumerate(xyz):
        data += struct.pack("<Q3d3BdQ4i", i + 1, *p, 200, 10, 10, 0.5, 2, 1, 0, 2, 0)
    (model / "points3D.bin").write_bytes(data)


def write_dtu(folder: Path) -> None:
    """IDR's and NeuS's."""
    _save_images(folder / "image", name="{:06d}")
    (folder / "mask").mkdir()
    for i, image in enumerate(shots()[1]):
        image.getchannel("A").convert("RGB").save(folder / "mask" / f"{i:03d}.png")
    scale = scale_matrix(100.0, (10.0, 20.0, 600.0))
    arrays = {}
    for i, camera in enumerate(shots()[0]):
        arrays[f"world_mat_{i}"] = world_matrix(camera, scale)
        arrays[f"scale_mat_{i}"] = scale
    np.savez(folder / "cameras_sphere.npz", **arrays)


def write_dtu_cams(folder: Path) -> None:
    """MVSNet's."""
    _save_images(folder / "image", name="{:08d}")
    (folder / "cams_1").mkdir()
    for i, camera in enumerate(shots()[0]):
        pose, K = (
            "\n".join(" ".join(map(str, row)) for row in matrix.tolist())
            for matrix in (camera.world_to_camera, camera.K)
        )
        text = f"extrinsic\n{pose}\n\nintrinsic\n{K}\n\n2.0 0.1\n"
        (folder / "cams_1" / f"{i:08d}_cam.txt").write_text(text)


def write_h3ds(folder: Path) -> None:
    """H3DS's."""
    write_dtu(folder)
    shutil.rmtree(folder / "image")
    _save_images(folder / "image", "jpg", "img_{:04d}")
    for i in range(COUNT):
        (folder / "mask" / f"{i:03d}.png").rename(folder / "mask" / f"mask_{i:04d}.png")
    (folder / "cameras_sphere.npz").rename(folder / "cameras.npz")


def write_scannet(folder: Path) -> None:
    """ScanNet's, unpacked."""
    _save_images(folder / "color", "jpg", "{}")
    for image in (folder / "color").iterdir():
        Image.open(image).resize((SIZE, SIZE * 3 // 4)).save(image)
    (folder / "pose").mkdir()
    (folder / "intrinsic").mkdir()
    for i, camera in enumerate(shots()[0]):
        np.savetxt(folder / "pose" / f"{i}.txt", camera.camera_to_world.numpy())
    K = np.eye(4)
    K[:3, :3] = shots()[0][0].resize(1296, 968).K.numpy()
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", K)


SCENES: dict[str, Callable[[Path], None]] = {
    "transforms": write_transforms,
    "blender": write_blender,
    "colmap_bin": write_colmap,
    "colmap_txt": lambda folder: write_colmap(folder, text=True),
    "dtu": write_dtu,
    "dtu_cams": write_dtu_cams,
    "h3ds": write_h3ds,
    "scannet": write_scannet,
}


# ------------------------------------------------------------------ clouds
def ply_bytes(text: bool = False, big: bool = False) -> bytes:
    """A point cloud with colours."""
    fields = [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")]
    rows = np.zeros(POINTS, fields)
    for i, name in enumerate("xyz"):
        rows[name] = points()[:, i]
    out = io.BytesIO()
    order = ">" if big else "<"
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order=order).write(out)
    return out.getvalue()


def _splats() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    widths = (("f_dc", 3), ("f_rest", 9), ("opacity", 1), ("scale", 3), ("rotation", 4))
    splats = {name: rng.normal(size=(POINTS, width)).astype(np.float32) for name, width in widths}
    splats["rotation"] = unit_quaternions(splats["rotation"]).astype(np.float32)
    return splats | {"xyz": points().astype(np.float32)}


def _through_a_file(suffix: str, write: Callable[[Path], object]) -> bytes:
    """What ``write`` puts into a file, for libraries that want one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"cloud{suffix}"
        write(path)
        return path.read_bytes()


def splat_ply_bytes() -> bytes:
    """Trained 3D Gaussians."""
    raw = {name: torch.from_numpy(values) for name, values in _splats().items()}
    cloud = from_points(PointCloud(raw.pop("xyz"), gaussians=raw))
    return _through_a_file(".ply", lambda path: write_ply(path, cloud))


def _npz_bytes() -> bytes:
    out = io.BytesIO()
    np.savez(out, xyz=points(), rgb=np.full((POINTS, 3), 0.5))
    return out.getvalue()


def _npy_bytes() -> bytes:
    out = io.BytesIO()
    np.save(out, points())
    return out.getvalue()


def _pcd_bytes(data: str) -> bytes:
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {POINTS}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {POINTS}\nDATA {data}\n"
    )
    if data == "ascii":
        return (head + _text(" ")).encode()
    return head.encode() + points().astype("<f4").tobytes()


def _las_bytes() -> bytes:
    import laspy

    las = laspy.create(point_format=3, file_version="1.2")
    las.header.scales = np.full(3, 1e-4)
    las.x, las.y, las.z = points().T
    return _through_a_file(".las", lambda path: las.write(str(path)))


def _e57_bytes() -> bytes:
    pye57 = pytest.importorskip("pye57")

    def write(path: Path) -> None:
        file = pye57.E57(str(path), mode="w")
        columns = zip(("cartesianX", "cartesianY", "cartesianZ"), points().T, strict=True)
        file.write_scan_raw({name: np.ascontiguousarray(values) for name, values in columns})
        file.close()

    return _through_a_file(".e57", write)


def _glb_bytes() -> bytes:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=1)
    return _through_a_file(".glb", lambda path: ball.export(str(path)))


def _text(separator: str) -> str:
    return "".join(separator.join(f"{v:.5f}" for v in row) + "\n" for row in points())


def _obj_bytes() -> bytes:
    vertices = "".join(f"v {x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in points())
    return (vertices + "f 1 2 3\nf 2 3 4\n").encode()


CLOUDS: dict[str, Callable[[], bytes]] = {
    "binary.ply": ply_bytes,
    "ascii.ply": lambda: ply_bytes(text=True),
    "big.ply": lambda: ply_bytes(big=True),
    "splats.ply": splat_ply_bytes,
    "cloud.npy": _npy_bytes,
    "cloud.npz": _npz_bytes,
    "ascii.pcd": lambda: _pcd_bytes("ascii"),
    "binary.pcd": lambda: _pcd_bytes("binary"),
    "cloud.las": _las_bytes,
    "cloud.e57": _e57_bytes,
    "mesh.glb": _glb_bytes,
    "mesh.obj": _obj_bytes,
    "cloud.xyz": lambda: _text(" ").encode(),
    "cloud.csv": lambda: ("x,y,z\n" + _text(",")).encode(),
    "cloud.splat": lambda: splat_bytes(_splats()),
    "cloud.spz": lambda: spz_bytes(_splats()),
}
