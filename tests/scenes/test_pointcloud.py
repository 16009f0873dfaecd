"""Point cloud files: every layout in the wild, and one sentence for the broken ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from render.scenes.clouds.columns import SH_C0
from render.scenes.clouds.pointcloud import read_point_cloud, write_ply
from render.scenes.types import PointCloud
from tests.scenes.broken import error_of

RNG = np.random.default_rng(1)
XYZ = RNG.normal(size=(7, 3)).astype(np.float32)
RGB = RNG.integers(0, 256, (7, 3), dtype=np.uint8)
PLY_TYPES = {
    "char": "i1", "uchar": "u1", "int8": "i1", "uint8": "u1", "short": "i2", "ushort": "u2",
    "int16": "i2", "uint16": "u2", "int": "i4", "uint": "u4", "int32": "i4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


def ply(
    path: Path,
    columns: list[tuple[str, str, np.ndarray]],
    form: str = "binary_little_endian",
    *,
    before: tuple[str, bytes] = ("", b""),
    after: tuple[str, bytes] = ("", b""),
    count: int | None = None,
    newline: str = "\n",
) -> Path:
    """A PLY file of (type, name, values) columns, written without any PLY library."""
    rows = len(columns[0][2])
    header = f"ply\nformat {form} 1.0\ncomment made by a test\n{before[0]}"
    header += f"element vertex {rows if count is None else count}\n"
    header += "".join(f"property {kind} {name}\n" for kind, name, _ in columns)
    header += f"{after[0]}end_header\n"
    if form == "ascii":
        lines = [" ".join(str(values[i]) for _, _, values in columns) for i in range(rows)]
        body = ("\n".join(lines) + "\n").encode()
    else:
        order = "<" if "little" in form else ">"
        dtype = [(name, order + PLY_TYPES[kind]) for kind, name, _ in columns]
        table = np.zeros(rows, dtype)
        for _, name, values in columns:
            table[name] = values
        body = table.tobytes()
    path.write_bytes(header.replace("\n", newline).encode() + before[1] + body + after[1])
    return path


def xyz_columns(kind: str = "float", values: np.ndarray = XYZ) -> list[tuple[str, str, np.ndarray]]:
    return [(kind, name, values[:, i]) for i, name in enumerate("xyz")]


def rgb_columns(kind: str = "uchar", values: np.ndarray = RGB) -> list[tuple[str, str, np.ndarray]]:
    return [(kind, name, values[:, i]) for i, name in enumerate(("red", "green", "blue"))]


def near(actual: torch.Tensor | None, expected: np.ndarray, atol: float = 1e-6) -> None:
    assert actual is not None
    np.testing.assert_allclose(actual, expected, atol=atol)


# ------------------------------------------------------------------ PLY layouts
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("kind", sorted(PLY_TYPES))
def test_every_scalar_type(tmp_path: Path, form: str, kind: str) -> None:
    values = np.array([[1, 2, 3], [4, 5, 6], [100, 101, 102]], dtype=PLY_TYPES[kind])
    cloud = read_point_cloud(ply(tmp_path / "a.ply", xyz_columns(kind, values), form))
    assert cloud.xyz.dtype == torch.float32 and cloud.rgb is None and cloud.normals is None
    assert cloud.xyz.tolist() == values.tolist()


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    order=st.permutations(range(10)),
    form=st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    before=st.booleans(),
)
def test_any_property_order(
    tmp_path: Path, order: list[int], form: str, newline: str, before: bool
) -> None:
    normals = RNG.normal(size=XYZ.shape).astype(np.float32)
    columns = xyz_columns("double") + rgb_columns()
    columns += [("float", f"n{a}", normals[:, i]) for i, a in enumerate("xyz")]
    columns += [("float", "intensity", XYZ[:, 0])]
    extra = ("", b"")
    if before:  # an element of another kind in front
        rows = b"5\n6\n" if form == "ascii" else bytes(2)
        extra = ("element tag 2\nproperty uchar value\n", rows)
    path = ply(tmp_path / "a.ply", [columns[i] for i in order], form, newline=newline, before=extra)
    cloud = read_point_cloud(path)
    assert cloud.rgb is not None and cloud.normals is not None
    np.testing.assert_allclose(cloud.xyz, XYZ, rtol=1e-6)
    near(cloud.rgb, RGB / 255, atol=1e-6)
    near(cloud.normals, normals, atol=1e-5)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_lists_before_the_points(tmp_path: Path, form: str) -> None:
    order = "<" if "little" in form else ">"
    body = b"3 0 1 2\n2 4 5\n"
    if form != "ascii":
        body = struct.pack(f"{order}B3iB2i", 3, 0, 1, 2, 2, 4, 5)
    lists = ("element face 2\nproperty list uchar int vertex_indices\n", body)
    path = ply(tmp_path / "a.ply", xyz_columns() + rgb_columns(), form, before=lists)
    cloud = read_point_cloud(path)
    np.testing.assert_allclose(cloud.xyz, XYZ, rtol=1e-6)
    near(cloud.rgb, RGB / 255, atol=1e-6)
    path.write_bytes(path.read_bytes()[:-20])
    assert "7 rows" in error_of(path)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("uchar", 255), ("ushort", 65535), ("float", 1), ("double", 1), ("int", 255)],
)
@pytest.mark.parametrize(
    "names", ["red green blue", "r g b", "diffuse_red diffuse_green diffuse_blue"]
)
def test_colour_types_and_names(tmp_path: Path, kind: str, scale: int, names: str) -> None:
    unit = np.array([[0, 0.2, 1.0], [1, 0.6, 0.4]])
    values = (unit * scale).astype(PLY_TYPES[kind])
    colours = [(kind, name, values[:, i]) for i, name in enumerate(names.split())]
    cloud = read_point_cloud(ply(tmp_path / "a.ply", xyz_columns(values=XYZ[:2]) + colours))
    near(cloud.rgb, unit, atol=1 / 255)


def test_float_colours_up_to_255(tmp_path: Path) -> None:
    path = ply(tmp_path / "a.ply", xyz_columns() + rgb_columns("float"))
    near(read_point_cloud(path).rgb, RGB / 255, atol=1e-6)


def test_header_quirks(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(
        b"ply \nformat ascii 1.0 \nobj_info x\n\nelement  vertex 2 \nproperty float X\n"
        b"property float Y\nproperty float Z \nproperty uchar s\nproperty uchar s\n"
        b"end_header \n1 2 3 9 8\n4 5 6 7 6\n"
    )
    assert read_point_cloud(path).xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert read_point_cloud(path).xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_gaussians_are_recognised(tmp_path: Path) -> None:
    names = ["nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(9))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    values = {name: RNG.normal(size=7).astype(np.float32) * 0.3 for name in names}
    for name in ("nx", "ny", "nz"):
        values[name] = np.zeros(7, np.float32)
    columns = xyz_columns() + [("float", name, values[name]) for name in names]
    cloud = read_point_cloud(ply(tmp_path / "trained.ply", columns))
    assert cloud.gaussians is not None and cloud.rgb is not None
    shapes = {name: tuple(value.shape) for name, value in cloud.gaussians.items()}
    assert shapes == {
        "f_dc": (7, 3), "f_rest": (7, 9), "scale": (7, 3), "rotation": (7, 4), "opacity": (7, 1)
    }  # fmt: skip
    np.testing.assert_array_equal(cloud.gaussians["f_rest"][:, 8], values["f_rest_8"])
    np.testing.assert_allclose(
        cloud.rgb[:, 1], (0.5 + SH_C0 * values["f_dc_1"]).clip(0, 1), atol=1e-6
    )
    assert "3D Gaussian Splatting, 7 Gaussians" in cloud.source
    assert cloud.normals is None  # all zero in such files


def test_nan_points_are_dropped_with_a_count(tmp_path: Path) -> None:
    values = XYZ.copy()
    values[2, 1], values[4, 0] = np.nan, np.inf
    cloud = read_point_cloud(ply(tmp_path / "a.ply", xyz_columns(values=values) + rgb_columns()))
    keep = [0, 1, 3, 5, 6]
    np.testing.assert_array_equal(cloud.xyz, XYZ[keep])
    near(cloud.rgb, RGB[keep] / 255, atol=1e-6)
    assert "2 points with NaN or infinite coordinates dropped" in cloud.source
    values[:] = np.nan
    assert "all of its 7 points" in error_of(ply(tmp_path / "b.ply", xyz_columns(values=values)))


def test_write_and_read_back(tmp_path: Path) -> None:
    normals = torch.nn.functional.normalize(torch.from_numpy(XYZ), dim=1)
    cloud = PointCloud(torch.from_numpy(XYZ), torch.from_numpy(RGB / 255).float(), normals, "test")
    write_ply(tmp_path / "a.ply", cloud)
    back = read_point_cloud(tmp_path / "a.ply")
    assert back.rgb is not None and back.normals is not None
    torch.testing.assert_close(back.xyz, cloud.xyz)
    np.testing.assert_allclose(back.rgb, RGB / 255, atol=1e-6)
    torch.testing.assert_close(back.normals, normals)
    write_ply(tmp_path / "b.ply", PointCloud(cloud.xyz))
    assert read_point_cloud(tmp_path / "b.ply").rgb is None


# ------------------------------------------------------------------ broken PLY
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_wrong_counts(tmp_path: Path, form: str) -> None:
    text = error_of(ply(tmp_path / "a.ply", xyz_columns(), form, count=1000))
    assert "1,000 rows" in text and "found 7" in text


def test_cut_off_in_the_middle_of_an_ascii_row(tmp_path: Path) -> None:
    path = ply(tmp_path / "a.ply", xyz_columns() + rgb_columns(), "ascii")
    text = path.read_text().rstrip()
    path.write_text(text[: text.rindex(" ") - 8])
    assert "7 rows" in error_of(path) and "found 6" in error_of(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"solid cube\n", "starts with"),
        (b"plywood\n", "starts with"),
        (b"ply\nformat ascii 1.0\nelement vertex 3\n", "end_header"),
        (b"ply\nelement vertex 0\nend_header\n", "format"),
        (b"ply\nformat morse 1.0\nend_header\n", "line 2"),
        (b"ply\nformat ascii 1.0\nelement vertex many\nend_header\n", "line 3"),
        (b"ply\nformat ascii 1.0\nelement vertex -4\nend_header\n", "line 3"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "line 3"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\nend_header\n", "line 4"),
        (b"ply\nformat ascii 1.0\nend_header\n", "no element at all"),
        (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n",
            "x, y and z",
        ),
    ],
)
def test_broken_headers(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    assert expected in error_of(path)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_zero_points(tmp_path: Path, form: str) -> None:
    assert "zero points" in error_of(ply(tmp_path / "a.ply", xyz_columns(values=XYZ[:0]), form))


def test_words_among_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    head = "ply\nformat ascii 1.0\nelement vertex 2\n"
    head += "".join(f"property float {a}\n" for a in "xyz")
    path.write_text(head + "end_header\n1 2 3\n4 five 6\n")
    assert "five" in error_of(path)


# ------------------------------------------------------------------ NumPy
def test_numpy_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", XYZ.astype(np.float64))
    np.testing.assert_array_equal(read_point_cloud(tmp_path / "a.npy").xyz, XYZ)
    np.save(tmp_path / "b.npy", np.concatenate([XYZ, RGB.astype(np.float32)], 1))
    near(read_point_cloud(tmp_path / "b.npy").rgb, RGB / 255, atol=1e-6)
    table = np.zeros(7, [("X", "f8"), ("Y", "f8"), ("Z", "f8"), ("Red", "u1")])
    for i, name in enumerate("XYZ"):
        table[name] = XYZ[:, i]
    np.save(tmp_path / "c.npy", table)
    np.testing.assert_array_equal(read_point_cloud(tmp_path / "c.npy").xyz, XYZ)


@pytest.mark.parametrize("names", [("xyz", "rgb"), ("points", "colors"), ("means3d", "colors")])
def test_numpy_archives(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{names[0]: XYZ, names[1]: RGB, "width": np.array(3)})
    cloud = read_point_cloud(path)
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    near(cloud.rgb, RGB / 255, atol=1e-6)


def test_broken_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    assert "[4, 5]" in error_of(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", foo=XYZ, bar=XYZ)
    assert "foo" in error_of(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", xyz=XYZ, rgb=RGB[:3])
    assert "[3, 3]" in error_of(tmp_path / "c.npz")
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "pickle" in error_of(tmp_path / "d.npy")
    (tmp_path / "e.npz").write_bytes(b"PK nonsense")
    error_of(tmp_path / "e.npz")
    np.save(tmp_path / "f.npy", np.zeros((0, 3)))
    assert "zero points" in error_of(tmp_path / "f.npy")


# ------------------------------------------------------------------ text
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t", ", ", "   "])
@pytest.mark.parametrize("head", ["", "# a comment\n\n", "x,y,z,r,g,b\n", "//X Y Z R G B\n", "3\n"])
def test_text_layouts(tmp_path: Path, separator: str, head: str) -> None:
    rows = [(0.5, -1.0, 2.0, 255, 0, 51), (1.5, 3.0, -2.0, 0, 102, 255), (0, 0, 1e-3, 9, 9, 9)]
    path = tmp_path / "a.xyz"
    path.write_text(head + "\n".join(separator.join(map(str, row)) for row in rows) + "\n")
    cloud = read_point_cloud(path)
    np.testing.assert_allclose(cloud.xyz, np.array(rows)[:, :3], rtol=1e-6)
    near(cloud.rgb, np.array(rows)[:, 3:] / 255, atol=1e-6)
    assert cloud.normals is None


def test_text_columns(tmp_path: Path) -> None:
    normals = XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)

    def cloud_of(*parts: np.ndarray, head: str = "") -> PointCloud:
        path = tmp_path / "a.txt"
        lines = [" ".join(map(str, row)) for row in np.concatenate(parts, 1)]
        path.write_text(head + "\n".join(lines))
        return read_point_cloud(path)

    assert cloud_of(XYZ).rgb is None
    six = cloud_of(XYZ, normals)
    assert six.rgb is None
    near(six.normals, normals, atol=1e-6)
    for parts in ((normals, RGB), (RGB, normals)):
        nine = cloud_of(XYZ, *parts)
        near(nine.normals, normals, atol=1e-6)
        near(nine.rgb, RGB / 255, atol=1e-6)
    seven = cloud_of(XYZ, XYZ[:, :1], RGB)
    near(seven.rgb, RGB / 255, atol=1e-6)
    named = cloud_of(RGB, XYZ, head="red green blue x y z\n")
    np.testing.assert_allclose(named.xyz, XYZ, rtol=1e-6)
    near(named.rgb, RGB / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("1 2 3\n4 5 6\n7 eight 9\n", "line 3"),
        ("# c\n1 2 3\n4 5\n", "line 3"),
        ("1 2\n", "line 1"),
        ("# only\n# comments\n", "zero points"),
        ("1 2 3 4 5\n", "found 5"),
        ("1 2 3 // note\n4 x 6\n", "line 2"),
    ],
)
def test_broken_text(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(content)
    assert expected in error_of(path)


def test_binary_posing_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(bytes(range(128, 256)))
    assert "binary" in error_of(tmp_path / "a.xyz")


# ------------------------------------------------------------------ the rest
def test_unknown_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "points.pth"
    path.write_bytes(b"x")
    text = error_of(path)
    assert ".pth" in text and ".ply" in text and ".npz" in text
    assert "no such" in error_of(tmp_path / "gone.ply")


# ------------------------------------------------------------------ real data
@pytest.mark.shared_data
def test_ply_zoo(shared_data: Path) -> None:
    """Every file opens with the counts and boxes of its manifest, or says what is missing."""
    entries = json.loads((shared_data / "ply_zoo" / "manifest.json").read_text())
    expected = {"be_all_types.ply": "x, y and z", "ascii_xyz_minimal.ply": 3}
    assert len(entries) == 19
    for entry in entries:
        path = shared_data / "ply_zoo" / entry["file"]
        vertices = entry.get("vertices", expected.get(entry["file"]))
        if isinstance(vertices, str):
            assert vertices in error_of(path)
            continue
        cloud = read_point_cloud(path)
        assert len(cloud) == vertices, path.name
        if "min" in entry:
            np.testing.assert_allclose(cloud.xyz.amin(0), entry["min"], atol=2e-3, rtol=1e-4)
            np.testing.assert_allclose(cloud.xyz.amax(0), entry["max"], atol=2e-3, rtol=1e-4)
        properties = next(p for name, _, p in entry["elements"] if name == "vertex")
        assert (cloud.rgb is not None) == any(p.endswith(" red") for p in properties), path.name
        assert (cloud.normals is not None) == ("float nx" in properties), path.name


@pytest.mark.shared_data
def test_real_splats(shared_data: Path) -> None:
    folder = shared_data / "splats"
    trained = read_point_cloud(folder / "inria_3dgs_iter7000.ply")
    assert trained.gaussians is not None and len(trained) == 9080
    assert trained.gaussians["f_rest"].shape == (9080, 45)
    plain = read_point_cloud(folder / "no_frest_luigi.ply")
    assert plain.gaussians is not None and "f_rest" not in plain.gaussians
    assert "expected a point cloud" in error_of(folder / "minimal.ksplat")


@pytest.mark.shared_data
def test_real_numpy_archive(shared_data: Path) -> None:
    cloud = read_point_cloud(shared_data / "gsplat" / "test_garden.npz")
    assert len(cloud) == 138_766 and cloud.rgb is not None
    assert 0.1 < float(cloud.rgb.mean()) < 0.9
