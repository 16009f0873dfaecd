"""LAS, LAZ, E57 and meshes: written by their libraries, read back, and broken."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render.errors import UserError
from render.scenes.clouds import optional
from render.scenes.clouds.pointcloud import (
    can_sample,
    describe_point_cloud,
    point_cloud_size,
    read_point_cloud,
    write_ply,
)
from render.scenes.filetype import file_type
from tests.scenes.broken import error_of

laspy = pytest.importorskip("laspy")
trimesh = pytest.importorskip("trimesh")

RNG = np.random.default_rng(5)
PLACE = np.array([500_000.0, 4_649_776.0, 100.0])
XYZ = np.round(RNG.normal(size=(2000, 3)) * 3, 3) + PLACE
RGB = RNG.integers(0, 256, (2000, 3))


def write_las(path: Path, form: int = 3, depth: int = 257) -> Path:
    header = laspy.LasHeader(point_format=form, version="1.4" if form > 5 else "1.2")
    header.scales, header.offsets = [0.001] * 3, [500_000, 4_649_000, 0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = XYZ.T
    if depth:
        las.red, las.green, las.blue = (RGB * depth).T
    las.write(str(path), laz_backend=laspy.LazBackend.Lazrs)
    return path


def write_e57(path: Path) -> Path:
    pye57 = pytest.importorskip("pye57")
    file = pye57.E57(str(path), mode="w")
    for half, shift in ((slice(0, 800), (0.0, 0.0, 0.0)), (slice(800, None), (1.0, 2.0, 3.0))):
        data = {f"cartesian{a}": XYZ[half, i] - shift[i] for i, a in enumerate("XYZ")}
        names = ("Red", "Green", "Blue")
        data |= {f"color{a}": RGB[half, i].astype(np.uint8) for i, a in enumerate(names)}
        file.write_scan_raw(data, translation=np.array(shift))
    file.close()
    return path


# ------------------------------------------------------------------ scanners
@pytest.mark.parametrize(
    ("name", "form", "depth"),
    [("a.las", 3, 257), ("b.las", 2, 1), ("c.laz", 2, 257), ("d.laz", 7, 257), ("e.las", 0, 0)],
)
def test_las(tmp_path: Path, name: str, form: int, depth: int) -> None:
    path = write_las(tmp_path / name, form, depth).rename(tmp_path / "scan.data")
    kind = file_type(path)
    assert kind.form == "las" and "2,000 points" in describe_point_cloud(path, kind)
    cloud = read_point_cloud(path)
    np.testing.assert_allclose(cloud.file_xyz(), XYZ, atol=1e-6)
    assert cloud.offset == (500_000, 4_649_780, 100) or "relative to" in cloud.source
    assert (cloud.rgb is None) == (depth == 0)
    if cloud.rgb is not None:
        np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)
    some = read_point_cloud(path, 500)
    assert 300 < len(some) <= 500 and can_sample(kind)
    assert set(map(tuple, some.file_xyz().tolist())) <= set(map(tuple, cloud.file_xyz().tolist()))


def test_e57(tmp_path: Path) -> None:
    path = write_e57(tmp_path / "scan.e57").rename(tmp_path / "scan.data")
    kind = file_type(path)
    assert kind.form == "e57" and "2,000 points" in describe_point_cloud(path, kind)
    cloud = read_point_cloud(path)
    assert "2 scans" in cloud.source  # each with a pose of its own
    np.testing.assert_allclose(cloud.file_xyz(), XYZ, atol=1e-6)
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)
    assert 100 < len(read_point_cloud(path, 250)) <= 250


def test_what_was_subtracted_is_written_again(tmp_path: Path) -> None:
    cloud = read_point_cloud(write_las(tmp_path / "a.las"))
    write_ply(tmp_path / "a.ply", cloud)
    back = read_point_cloud(tmp_path / "a.ply")
    np.testing.assert_allclose(back.file_xyz(), XYZ, atol=1e-6)
    assert float(cloud.xyz.abs().max()) < 50 < back.offset[2]


def test_nothing_is_subtracted_from_ordinary_coordinates(tmp_path: Path) -> None:
    for scale, shift in ((1.0, 0.0), (300.0, 600.0), (1e-3, 0.05)):
        np.save(tmp_path / "a.npy", (XYZ - PLACE) * scale + shift)
        assert read_point_cloud(tmp_path / "a.npy").offset == (0, 0, 0)


# ------------------------------------------------------------------ meshes
def ball(subdivisions: int, colored: bool = True) -> Any:
    mesh = trimesh.creation.icosphere(subdivisions)
    if colored:  # red from top to bottom
        red = ((mesh.vertices[:, 2] + 1) * 127.4).astype(np.uint8)
        mesh.visual.vertex_colors = np.stack([red, red * 0, red * 0 + 51, red * 0 + 255], 1)
    return mesh


@pytest.mark.parametrize("suffix", ["obj", "glb", "gltf", "stl", "off"])
def test_coarse_meshes_are_sampled_evenly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ball.{suffix}"
    ball(3).export(str(path))
    path = path.rename(tmp_path / "ball.data")
    assert file_type(path).form == suffix
    cloud = read_point_cloud(path)
    assert len(cloud) == 100_000 and "over the surface of a mesh of" in cloud.source
    radius = cloud.xyz.norm(dim=1)
    assert float(radius.min()) > 0.98 and float(radius.max()) < 1.001
    for axis in range(3):  # on a sphere every coordinate is uniform
        counts = np.histogram(cloud.xyz[:, axis], 10, (-1, 1))[0]
        assert counts.min() > 9000 and counts.max() < 11_000
    if suffix in ("obj", "glb", "gltf"):
        assert cloud.rgb is not None
        np.testing.assert_allclose(cloud.rgb[:, 0], (cloud.xyz[:, 2] + 1) / 2, atol=0.02)
        np.testing.assert_allclose(cloud.rgb[:, 2], 0.2, atol=0.005)
    assert (read_point_cloud(path).xyz == cloud.xyz).all()


def test_vertices_of_a_fine_mesh_and_of_points_alone(tmp_path: Path) -> None:
    mesh = ball(6)
    mesh.export(str(tmp_path / "fine.glb"))
    cloud = read_point_cloud(tmp_path / "fine.glb")
    assert len(cloud) == len(mesh.vertices) > 20_000
    lines = [f"v {x} {y} {z} 1.0 0.5 0.0" for x, y, z in ball(1).vertices]
    (tmp_path / "points.obj").write_text("# by a scanner\n" + "\n".join(lines) + "\n")
    cloud = read_point_cloud(tmp_path / "points.obj")
    assert len(cloud) == 42 and cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, [[1, 0.5, 0]] * 42, atol=0.005)


def test_a_gltf_scene_is_placed_by_its_nodes(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for x in (0.0, 10.0):
        scene.add_geometry(ball(2), transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    scene.export(str(tmp_path / "two.glb"))
    x = read_point_cloud(tmp_path / "two.glb").xyz[:, 0]
    near, far = int((x < 2).sum()), int((x > 8).sum())
    assert near + far == len(x) and abs(near - far) < 100


# ------------------------------------------------------------------ what is missing or broken
@pytest.mark.parametrize(
    ("library", "name", "write"),
    [
        ("laspy", "a.las", write_las),
        ("pye57", "a.e57", write_e57),
        ("trimesh", "a.off", lambda path: ball(1).export(str(path))),
    ],
)
def test_a_library_that_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    name: str,
    write: Callable[[Path], object],
) -> None:
    write(tmp_path / name)

    def refuse(wanted: str) -> None:
        raise ImportError(wanted)

    monkeypatch.setattr(optional.importlib, "import_module", refuse)
    text = error_of(tmp_path / name)
    assert f"pip install {optional.PACKAGES[library]}" in text


@pytest.mark.parametrize("name", ["a.las", "b.laz", "c.laz", "d.e57", "e.glb", "f.obj", "g.stl"])
def test_damage_ends_in_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(("las", "laz")):
        write_las(path, {"a": 3, "b": 2, "c": 7}[name[0]])
    elif name.endswith("e57"):
        write_e57(path)
    else:
        ball(1).export(str(path))
    content = path.read_bytes()
    refused = 0
    for seed in range(25):
        chance = random.Random(seed)
        damaged = bytearray(content)
        if seed % 3 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            end = len(damaged) if seed % 3 == 1 else min(len(damaged), 500)
            for _ in range(6):
                damaged[chance.randrange(end)] = chance.choice((0, 255, chance.randrange(256)))
        path.write_bytes(damaged)
        try:
            assert len(read_point_cloud(path))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 2


@pytest.mark.parametrize(("place", "count"), [(107, 10**9), (107, 2**32 - 1), (100, 2**31)])
@pytest.mark.parametrize("name", ["a.las", "b.laz"])
def test_counts_of_las_that_cannot_be(tmp_path: Path, name: str, place: int, count: int) -> None:
    path = write_las(tmp_path / name, 2)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", count)
    path.write_bytes(content)
    assert "cut off" in error_of(path)
    with pytest.raises(UserError):
        point_cloud_size(path)


@pytest.mark.parametrize("chunks", [2**20, 2**32 - 1])
def test_a_chunk_table_that_would_take_all_memory(tmp_path: Path, chunks: int) -> None:
    path = write_las(tmp_path / "a.laz", 7)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 96)
    (table,) = struct.unpack_from("<q", content, start)
    struct.pack_into("<I", content, table + 4, chunks)
    path.write_bytes(content)
    assert f"{chunks:,} chunks" in error_of(path)


def test_a_layer_that_would_take_all_memory(tmp_path: Path) -> None:
    path = write_las(tmp_path / "a.laz", 7)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 96)
    struct.pack_into("<I", content, start + 8 + 36 + 4, 2**32 - 1)
    path.write_bytes(content)
    assert "announce more than" in error_of(path)


def gltf(**changes: Any) -> str:
    data: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}],
        "accessors": [{"componentType": 5126, "count": 3, "type": "VEC3", "bufferView": 0}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36, "uri": "data:application/octet-stream;base64," + "A" * 48}],
    }
    return json.dumps(data | changes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gltf(accessors=[{"componentType": 5126, "count": 10**12, "type": "VEC3"}]), "rows in"),
        (gltf(accessors=[{"componentType": 5126, "count": -1, "type": "VEC3"}]), "rows in"),
        (gltf(buffers=[{"byteLength": 10**12}]), "not in the file"),
        (gltf(buffers=[{"byteLength": 36, "uri": "../../../etc/passwd"}]), "cannot be read"),
        (gltf(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]), "own ancestor"),
        (gltf(nodes=[{"mesh": 0, "children": [0]}]), "cannot be read"),
        (gltf(nodes=[{"mesh": 0, "children": [9]}]), "no place"),
        (gltf(accessors=5), "cannot be read"),
        (gltf(scenes=[], nodes=[], meshes=[]), ""),
        (gltf()[:-30], "cannot be read"),
    ],
)
def test_broken_gltf(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.gltf"
    path.write_text(content)
    assert said in error_of(path)


def test_binary_headers_that_promise_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.stl"
    path.write_bytes(bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(500))
    error_of(path)
    path = tmp_path / "a.glb"
    path.write_bytes(b"glTF" + struct.pack("<III4s", 2, 2**32 - 1, 2**32 - 1, b"JSON") + b"{}")
    assert "description of" in error_of(path)
    path = tmp_path / "a.off"
    path.write_text("OFF\n1000000000000 1000000000000 0\n0 0 0\n")
    error_of(path)
