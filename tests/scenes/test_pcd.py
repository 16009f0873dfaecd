"""PCD files: the three encodings, packed colours, LZF against its definition, broken files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from render.scenes.clouds.pcd import lzf_decompress
from render.scenes.clouds.pointcloud import can_sample, read_point_cloud
from render.scenes.filetype import file_type
from tests.scenes.broken import error_of

RNG = np.random.default_rng(4)
XYZ = RNG.normal(size=(300, 3)).astype(np.float32)
RGB = RNG.integers(0, 256, (300, 3), dtype=np.uint8)
PACKED = (RGB.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(1).astype(np.uint32)
NORMALS = (XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)).astype(np.float32)


def lzf_compress(data: bytes) -> bytes:
    """Greedy: literals, and repetitions of the last place where the next three bytes stood."""
    out, plain, seen = bytearray(), bytearray(), dict[bytes, int]()
    i = 0

    def flush() -> None:
        for start in range(0, len(plain), 32):
            part = plain[start : start + 32]
            out.append(len(part) - 1)
            out.extend(part)
        plain.clear()

    while i < len(data):
        at = seen.get(data[i : i + 3], -1) if i + 3 <= len(data) else -1
        seen[data[i : i + 3]] = i
        if at < 0 or i - at > 8192:
            plain.append(data[i])
            i += 1
            continue
        length = 3
        while length < 264 and i + length < len(data) and data[at + length] == data[i + length]:
            length += 1
        flush()
        back, short = i - at - 1, length - 2
        if short < 7:
            out.append(short << 5 | back >> 8)
        else:
            out += bytes((7 << 5 | back >> 8, short - 7))
        out.append(back & 255)
        i += length
    flush()
    return bytes(out)


def pcd(
    path: Path,
    fields: list[tuple[str, np.ndarray]],
    data: str = "binary",
    *,
    head: str = "# .PCD v0.7 - Point Cloud Data file format\n",
    count: int | None = None,
) -> Path:
    """A PCD file of named columns, each [N] or [N, C]."""
    rows = len(fields[0][1]) if count is None else count
    kinds = {"f": "F", "i": "I", "u": "U"}
    names = " ".join(name for name, _ in fields)
    sizes = " ".join(str(values.dtype.itemsize) for _, values in fields)
    types = " ".join(kinds[values.dtype.kind] for _, values in fields)
    widths = " ".join(str(int(np.prod(values.shape[1:]))) for _, values in fields)
    header = (
        f"{head}VERSION 0.7\nFIELDS {names}\nSIZE {sizes}\nTYPE {types}\nCOUNT {widths}\n"
        f"WIDTH {rows}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {rows}\nDATA {data}\n"
    ).encode()
    flat = [values.reshape(len(values), -1) for _, values in fields]
    if data == "ascii":
        lines = [" ".join(str(v) for part in flat for v in part[i]) for i in range(len(flat[0]))]
        body = "\n".join(lines).encode()
    elif data == "binary":
        body = b"".join(b"".join(part[i].tobytes() for part in flat) for i in range(len(flat[0])))
    else:
        plain = b"".join(part.tobytes() for part in flat)
        packed = lzf_compress(plain)
        body = struct.pack("<II", len(packed), len(plain)) + packed
    path.write_bytes(header + body)
    return path


def columns(values: np.ndarray = XYZ) -> list[tuple[str, np.ndarray]]:
    return [(name, np.ascontiguousarray(values[:, i])) for i, name in enumerate("xyz")]


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("kind", ["float", "uint", "rgba", "none"])
@pytest.mark.parametrize("head", ["# .PCD v0.7\n", "", "# made by a robot\n\n"])
def test_encodings_and_packed_colours(tmp_path: Path, data: str, kind: str, head: str) -> None:
    fields = columns()
    if kind != "none":
        values = PACKED.view(np.float32) if kind == "float" else PACKED
        fields.insert(1, ("rgba" if kind == "rgba" else "rgb", values))
    fields += [(f"normal_{a}", NORMALS[:, i].copy()) for i, a in enumerate("xyz")]
    fields += [("_", np.zeros((300, 4), np.uint8)), ("fpfh", np.zeros((300, 5), np.float32))]
    path = pcd(tmp_path / "cloud.bin", fields, data, head=head)  # the name does not matter
    assert file_type(path).form == "pcd"
    cloud = read_point_cloud(path)
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    assert cloud.normals is not None
    np.testing.assert_array_equal(cloud.normals, NORMALS)
    assert (cloud.rgb is None) == (kind == "none")
    if cloud.rgb is not None:
        np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)


def test_doubles_of_a_map_keep_their_millimetres(tmp_path: Path) -> None:
    values = XYZ.astype(np.float64) + np.array([500_000, 4_649_776, 100])
    cloud = read_point_cloud(pcd(tmp_path / "a.pcd", columns(values)))
    assert cloud.offset[0] > 4e5 and "relative to" in cloud.source
    np.testing.assert_allclose(cloud.file_xyz(), values, atol=1e-6)


def test_organised_clouds_lose_their_holes(tmp_path: Path) -> None:
    values = XYZ.copy()
    values[::3] = np.nan
    for data in ("ascii", "binary"):
        cloud = read_point_cloud(pcd(tmp_path / f"{data}.pcd", columns(values), data))
        assert len(cloud) == 200 and "100 points with NaN" in cloud.source


def test_an_even_subset_of_a_binary_file(tmp_path: Path) -> None:
    values = np.repeat(np.arange(20_000, dtype=np.float32)[:, None], 3, 1)
    path = pcd(tmp_path / "a.pcd", columns(values))
    assert can_sample(file_type(path))
    x = read_point_cloud(path, 1000).xyz[:, 0]
    assert len(x) == 960 and x[0] == 0 and x[-1] == 19_999
    assert float(x.diff().max()) < 2 * 20_000 / 15 and float(x.diff().min()) > 0


@given(st.binary(max_size=400) | st.text(alphabet="ab", max_size=900).map(str.encode))
def test_lzf_expands_what_was_compressed(data: bytes) -> None:
    assert lzf_decompress(lzf_compress(data), len(data)) == data


@given(st.binary(max_size=200), st.integers(0, 400))
def test_lzf_of_anything_ends(data: bytes, size: int) -> None:
    try:
        assert len(lzf_decompress(data, size)) == size
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("count", [301, 10**9, 10**18])
def test_more_points_announced_than_there_are(tmp_path: Path, data: str, count: int) -> None:
    text = error_of(pcd(tmp_path / "a.pcd", columns(), data, count=count))
    assert f"{count:,} points" in text


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_cut_off(tmp_path: Path, data: str, share: float) -> None:
    path = pcd(tmp_path / "a.pcd", columns(), data)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "cut off" in error_of(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"SIZE 4 4 4", b"SIZE 4 4", "equal length"),
        (b"TYPE F F F", b"TYPE F F Q", "TYPE"),
        (b"COUNT 1 1 1", b"COUNT 1 1 -1", "COUNT"),
        (b"POINTS 300", b"POINTS many", "many"),
        (b"POINTS 300", b"POINTS 0", "zero points"),
        (b"DATA binary", b"DATA morse", "morse"),
        (b"DATA binary\n", b"", "DATA"),
        (b"FIELDS x y z", b"FIELDS a b c", "x, y, z"),
    ],
)
def test_broken_headers(tmp_path: Path, old: bytes, new: bytes, said: str) -> None:
    path = pcd(tmp_path / "a.pcd", columns())
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    assert said in error_of(path)


def test_damaged_compression(tmp_path: Path) -> None:
    path = pcd(tmp_path / "a.pcd", columns(), "binary_compressed")
    content = bytearray(path.read_bytes())
    start = content.index(b"compressed\n") + 11
    content[start + 8] = 0xFF  # a repetition of what was not there yet
    path.write_bytes(content)
    assert "damaged" in error_of(path)
    content[start + 4 : start + 8] = struct.pack("<I", 2**32 - 1)
    path.write_bytes(content)
    assert "header is wrong" in error_of(path)
