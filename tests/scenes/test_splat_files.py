"""``.splat`` and ``.spz``: what other programs wrote, round trips, and broken files."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from render.gaussians.harmonics import rotate_harmonics
from render.scenes.clouds.pointcloud import describe_point_cloud, point_cloud_size, read_point_cloud
from render.scenes.clouds.splat import sigmoid, splat_bytes, unit_quaternions
from render.scenes.clouds.spz import read_spz, spz_bytes
from render.scenes.filetype import file_type
from render.scenes.types import PointCloud
from tests.scenes.broken import error_of

Splats = dict[str, np.ndarray]


def splats(degree: int = 3, n: int = 500) -> Splats:
    rng = np.random.default_rng(degree)
    return {
        "xyz": rng.normal(size=(n, 3)).astype(np.float32) * 3,
        "f_dc": rng.uniform(-1.5, 1.5, (n, 3)).astype(np.float32),
        "f_rest": rng.uniform(-0.9, 0.9, (n, 3 * ((degree + 1) ** 2 - 1))).astype(np.float32),
        "opacity": rng.uniform(-5, 5, (n, 1)).astype(np.float32),
        "scale": rng.uniform(-7, 1, (n, 3)).astype(np.float32),
        "rotation": unit_quaternions(rng.normal(size=(n, 4))).astype(np.float32),
    }


def gaussians_of(cloud: PointCloud) -> Splats:
    assert cloud.gaussians is not None
    return {name: value.numpy() for name, value in cloud.gaussians.items()}


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between rotations [N, 4]."""
    return 2 * np.degrees(
        np.arccos(np.abs((unit_quaternions(a) * unit_quaternions(b)).sum(1)).clip(0, 1))
    )


# ------------------------------------------------------------------ round trips
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spz_loses_no_more_than_its_bits(tmp_path: Path, degree: int) -> None:
    before = splats(degree)
    path = tmp_path / "cloud.data"  # the name does not matter
    path.write_bytes(spz_bytes(before))
    kind = file_type(path)
    assert kind.form == "spz" and "500 Gaussians" in describe_point_cloud(path, kind)
    assert point_cloud_size(path)[0] == 500
    cloud = read_point_cloud(path)
    after = gaussians_of(cloud)
    step = 2.0**-19  # the farthest coordinate needs four bits in front of the point
    np.testing.assert_allclose(cloud.xyz, before["xyz"], atol=step / 2 + 1e-6)
    np.testing.assert_allclose(sigmoid(after["opacity"]), sigmoid(before["opacity"]), atol=0.003)
    np.testing.assert_allclose(after["f_dc"], before["f_dc"], atol=0.5 / 255 / 0.15 + 1e-5)
    np.testing.assert_allclose(after["scale"], before["scale"], atol=1 / 32 + 1e-5)
    assert angle(after["rotation"], before["rotation"]).max() < 0.2
    if degree:
        rest = np.abs(after["f_rest"] - before["f_rest"]).reshape(500, 3, -1)
        assert rest[..., :3].max() < 4.6 / 128 and rest.max() < 8.6 / 128
    # What was rounded once is not rounded again.
    again = tmp_path / "again.spz"
    again.write_bytes(spz_bytes({"xyz": cloud.xyz.numpy(), "f_rest": np.zeros((500, 0)), **after}))
    for name, values in gaussians_of(read_point_cloud(again)).items():
        if name != "rotation":
            np.testing.assert_allclose(values, after[name], atol=1e-5, err_msg=name)


def test_spz_turns_half_around_x(tmp_path: Path) -> None:
    """The file's y is up; harmonics turn as a rotation of the world turns them."""
    before = splats(3, 40)
    path = tmp_path / "a.spz"
    path.write_bytes(spz_bytes(before))
    data = gzip.decompress(path.read_bytes())
    fraction = data[13]
    z = int.from_bytes(data[16 + 6 : 16 + 9], "little", signed=True) / 2**fraction
    assert z == pytest.approx(-before["xyz"][0, 2], abs=1e-5)
    stored = np.frombuffer(data, np.uint8, offset=16 + 40 * 20).reshape(40, 15, 3)
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    rest = torch.from_numpy(before["f_rest"].reshape(40, 3, 15).transpose(0, 2, 1).copy())
    expected = rotate_harmonics(rest, turn).numpy()
    assert np.abs((stored.astype(float) - 128) / 128 - expected).max() < 8.6 / 128


def test_splat_loses_no_more_than_its_bytes(tmp_path: Path) -> None:
    before = splats(0)
    path = tmp_path / "cloud.data"
    path.write_bytes(splat_bytes(before))
    assert file_type(path).form == "splat" and path.stat().st_size == 500 * 32
    cloud = read_point_cloud(path)
    after = gaussians_of(cloud)
    weight = np.exp(before["scale"].astype(np.float64).sum(1)) * sigmoid(before["opacity"][:, 0])
    order = np.argsort(-weight, kind="stable")  # large and opaque ones come first
    np.testing.assert_array_equal(cloud.xyz, before["xyz"][order])
    np.testing.assert_allclose(after["scale"], before["scale"][order], atol=1e-6)
    np.testing.assert_allclose(
        sigmoid(after["opacity"]), sigmoid(before["opacity"])[order], atol=0.5 / 255 + 1e-6
    )
    assert angle(after["rotation"], before["rotation"][order]).max() < 1
    assert cloud.rgb is not None
    rgb = (0.5 + 0.28209479 * before["f_dc"][order]).clip(0, 1)
    np.testing.assert_allclose(cloud.rgb, rgb, atol=0.5 / 255 + 1e-6)


def test_odd_values_are_written_as_something(tmp_path: Path) -> None:
    before = splats(1, 4)
    before["opacity"][:2, 0] = (np.inf, -np.inf)
    before["rotation"][2] = 0
    before["scale"][3] = (-400, 90, 0)
    before["f_dc"][0] = np.nan
    for encode in (spz_bytes, splat_bytes):
        path = tmp_path / encode.__name__
        path.write_bytes(encode(before))
        cloud = read_point_cloud(path.rename(path.with_suffix(f".{encode.__name__[:-6]}")))
        assert all(np.isfinite(values).all() for values in gaussians_of(cloud).values())


def test_spz_refuses_what_it_cannot_hold() -> None:
    far = splats(0, 3)
    far["xyz"][0] = 1e9
    with pytest.raises(ValueError, match="24 bits"):
        spz_bytes(far)
    far["xyz"][0] = np.nan
    with pytest.raises(ValueError, match="24 bits"):
        spz_bytes(far)
    odd = splats(0, 3)
    odd["f_rest"] = np.zeros((3, 12), np.float32)
    with pytest.raises(ValueError, match="degree"):
        spz_bytes(odd)


# ------------------------------------------------------------------ broken files
def spz(version: int = 3, count: int = 2, degree: int = 0, body: int = 200) -> bytes:
    header = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, 12, 0, 0)
    return gzip.compress(header + np.random.default_rng(0).bytes(body), mtime=0)


def damaged_spz() -> bytes:
    """A header in a stored block, then a block of a kind that does not exist."""
    header = struct.pack("<4sIIBBBB", b"NGSP", 3, 2, 0, 12, 0, 0)
    return spz()[:10] + b"\0\x10\0\xef\xff" + header + b"\xff" * 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (spz(version=1), "version 1"),
        (spz(version=9), "version 9"),
        (b"NGSP" + struct.pack("<I", 4) + bytes(40), "version 4"),
        (spz(degree=7), "degree 0 to 3"),
        (spz(count=0), "zero points"),
        (spz(count=2**32 - 1), "4,294,967,295 Gaussians"),
        (spz(count=100), "found data for about"),
        (spz(count=10)[:-40], "found data for about"),
        (damaged_spz(), "damaged"),
        (gzip.compress(b"NGSP", mtime=0), "cut off"),
        (gzip.compress(b"hello", mtime=0), "hell"),
        (b"\x1f\x8b\x08", "cut off"),
        # 10 million equal Gaussians in 200 kB: a bomb
        (spz(count=10_000_000, body=1)[:60] + bytes(200_000), "cannot be in a file"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_broken_spz(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.spz"
    path.write_bytes(content)
    assert said in error_of(path)


def test_a_bomb_behind_the_data_is_not_expanded(tmp_path: Path) -> None:
    """128 MB of zeros follow the two Gaussians."""
    packer = zlib.compressobj(9, wbits=31)
    content = packer.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 2, 0, 12, 0, 0) + bytes(40))
    for _ in range(8):
        content += packer.compress(bytes(1 << 24))
    path = tmp_path / "a.spz"
    path.write_bytes(content + packer.flush())
    assert len(read_point_cloud(path)) == 2


def test_broken_splat(tmp_path: Path) -> None:
    path = tmp_path / "a.splat"
    path.write_bytes(splat_bytes(splats(0))[:-5])
    assert "cut off" in error_of(path)
    path.write_bytes(bytes(31))
    assert "31 bytes" in error_of(path)


def test_other_binary_data_is_no_splat(tmp_path: Path) -> None:
    path = tmp_path / "a.data"
    for content in (bytes(3200), np.random.default_rng(0).bytes(3200), np.arange(800.0).tobytes()):
        path.write_bytes(content)
        assert file_type(path).form == "binary"


# ------------------------------------------------------------------ real files
@pytest.mark.shared_data
def test_files_of_other_programs(shared_data: Path) -> None:
    """Three files of the same four Gaussians, and a large one."""
    folder = shared_data / "splats"
    plain = read_point_cloud(folder / "minimal.splat")
    version_3 = read_point_cloud(folder / "minimal-v3.spz")
    np.testing.assert_allclose(version_3.xyz, plain.xyz, atol=1e-6)
    assert version_3.rgb is not None and plain.rgb is not None
    np.testing.assert_allclose(version_3.rgb, plain.rgb, atol=2 / 255)
    for name in ("opacity", "scale"):
        np.testing.assert_allclose(
            gaussians_of(version_3)[name], gaussians_of(plain)[name], atol=0.02
        )
    # The one of version 2 was written without the turn about x.
    version_2 = read_point_cloud(folder / "minimal-v2.spz")
    np.testing.assert_allclose(version_2.xyz * torch.tensor([1, -1, -1]), plain.xyz, atol=1e-6)
    assert angle(gaussians_of(version_2)["rotation"], np.array([[1.0, 0, 0, 0]] * 4)).max() < 1
    large = read_point_cloud(folder / "c3vd.splat")
    assert len(large) == 13_476
    raw = np.fromfile(folder / "c3vd.splat", np.uint8).reshape(-1, 32)
    assert large.rgb is not None
    np.testing.assert_allclose(large.rgb, raw[:, 24:27] / 255, atol=1e-5)
    # Written again it is the same file but for the order of its rows.
    rows = {
        "xyz": large.xyz.numpy(), "f_rest": np.zeros((len(large), 0)), **gaussians_of(large)
    }  # fmt: skip
    again = np.frombuffer(splat_bytes(rows), np.uint8).reshape(-1, 32)
    order = np.lexsort(again[:, :12].T), np.lexsort(raw[:, :12].T)
    np.testing.assert_array_equal(again[order[0], :12], raw[order[1], :12])
    np.testing.assert_array_equal(again[order[0], 24:28], raw[order[1], 24:28])
    ksplat = error_of(folder / "minimal.ksplat")
    assert "a .ksplat file" in ksplat


@pytest.mark.shared_data
def test_a_trained_scene_as_spz(shared_data: Path, tmp_path: Path) -> None:
    cloud = read_point_cloud(shared_data / "splats" / "inria_3dgs_iter7000.ply")
    path = tmp_path / "a.spz"
    path.write_bytes(spz_bytes({"xyz": cloud.xyz.numpy(), **gaussians_of(cloud)}))
    assert path.stat().st_size < 0.2 * 2_253_369
    back = read_spz(path)
    reach = float(cloud.xyz.abs().max())
    np.testing.assert_allclose(back["xyz"], cloud.xyz, atol=reach * 2.0**-22)
    np.testing.assert_allclose(back["scale"], gaussians_of(cloud)["scale"], atol=0.04)
