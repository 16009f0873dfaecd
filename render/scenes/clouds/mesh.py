"""Points of meshes, through trimesh: their vertices, or their surface where those are few."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import Columns, Table, color_to_unit
from render.scenes.clouds.optional import require

MeshForm = Literal["obj", "stl", "off", "glb", "gltf"]
MESH_FORMS: tuple[MeshForm, ...] = ("obj", "stl", "off", "glb", "gltf")

FEW_VERTICES = 20_000  # a mesh with fewer is sampled
SAMPLES = 100_000
_MAX_GLTF_JSON = 64 << 20
_TRIANGLE = 50  # bytes of a binary STL's triangle, behind 84 bytes of header
_OFF = re.compile(rb"\A(?:#[^\n]*\n|\s)*(?:ST)?C?N?4?n?OFF\b")
_OBJ_VERTEX = re.compile(rb"^v[ \t]+[-+\d.]\S*[ \t]+[-+\d.]\S*[ \t]+[-+\d.]", re.MULTILINE)
_GLTF = re.compile(rb'"(?:accessors|bufferViews|meshes|scenes)"\s*:')
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def mesh_form(head: bytes, size: int) -> MeshForm | None:
    """The format of a mesh by the first bytes of its file, or None."""
    if head.startswith(b"glTF"):
        return "glb"
    if head.lstrip()[:1] == b"{":
        return "gltf" if b'"asset"' in head and _GLTF.search(head) else None
    if len(head) >= 84 and size == 84 + _TRIANGLE * struct.unpack_from("<I", head, 80)[0]:
        return "stl"
    if b"\0" in head:
        return None
    if head.lstrip().startswith(b"solid") and re.search(rb"\bfacet\s+normal\b", head):
        return "stl"
    if _OFF.match(head):
        return "off"
    first = next((line for line in head.split(b"\n") if line.strip()[:1] not in (b"", b"#")), b"")
    words = (b"v", b"vn", b"vt", b"o", b"g", b"s", b"f", b"mtllib", b"usemtl")
    if first.split()[0:1] and first.split()[0] in words and _OBJ_VERTEX.search(head):
        return "obj"
    return None


def read_mesh(path: Path, form: MeshForm) -> Table:
    """Vertices and their colours; points spread evenly over the surface of a coarse mesh.

    Everything a glTF scene shows is placed by its nodes. Textures give colours to vertices and
    to samples.

    Raises:
        UserError: no trimesh, a broken file, or neither vertices nor faces.
    """
    trimesh = require("trimesh", path, f"{form.upper()} files")
    if form in ("glb", "gltf"):
        _check_gltf(path, form)
    parts: list[tuple[np.ndarray, np.ndarray | None]] = []
    with _errors(path, form):
        loaded: Any = trimesh.load(path, file_type=form, process=False)
        pieces = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
        pieces = [piece for piece in pieces if getattr(piece, "vertices", None) is not None]
        vertices = sum(len(piece.vertices) for piece in pieces)
        area = sum(_area(piece) for piece in pieces)
        sampled = vertices < FEW_VERTICES and 0 < area < np.inf
        for number, piece in enumerate(pieces):
            if sampled and _area(piece) > 0:
                count = max(1, round(SAMPLES * _area(piece) / area))
                parts.append(_on_surface(trimesh, piece, count, number))
            elif np.shape(piece.vertices)[1:] == (3,) and len(piece.vertices):
                parts.append((np.asarray(piece.vertices, np.float64), _vertex_colors(piece)))
    if not parts:
        raise UserError(f"{path}: expected a mesh with vertices, found none.")
    xyz = np.concatenate([part[0] for part in parts])
    columns: Columns = dict(zip("xyz", xyz.T, strict=True))
    if all(part[1] is not None for part in parts):
        rgb = np.concatenate([color_to_unit(part[1]) for part in parts if part[1] is not None])
        columns |= dict(zip(("red", "green", "blue"), rgb.T, strict=True))
    note = f"{vertices:,} vertices"
    if sampled:
        note = f"{len(xyz):,} points spread over the surface of a mesh of {vertices:,} vertices"
    return Table(columns, note)


def _area(piece: Any) -> float:
    faces = getattr(piece, "faces", None)
    return 0.0 if faces is None or not len(faces) else float(piece.area)


def _vertex_colors(piece: Any) -> np.ndarray | None:
    """[V, 3] of bytes, or None where the file gives none."""
    colors = getattr(piece, "colors", None)  # of points without faces
    visual = getattr(piece, "visual", None)
    if visual is not None and getattr(visual, "kind", None) == "texture":
        visual = visual.to_color()
    if visual is not None and getattr(visual, "kind", None) in ("vertex", "face"):
        colors = visual.vertex_colors
    if colors is None or np.shape(colors)[:1] != (len(piece.vertices),):
        return None
    return np.asarray(colors)[:, :3]


def _on_surface(
    trimesh: Any, piece: Any, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """``count`` points [N, 3] of equal density, and colours [N, 3] from the corners around them."""
    xyz, face, corner = trimesh.sample.sample_surface(
        piece, count, return_barycentric=True, seed=seed
    )
    colors = _vertex_colors(piece)
    if colors is None:
        return np.asarray(xyz), None
    corners = color_to_unit(colors)[piece.faces[face]]  # [N, 3, 3]
    return np.asarray(xyz), np.einsum("nc,ncd->nd", corner, corners)


def _check_gltf(path: Path, form: MeshForm) -> None:
    """Refuse tables that are larger than their buffers: trimesh would make room for them first."""
    try:
        with path.open("rb") as file:
            if form == "glb":
                header = file.read(20)
                length, kind = struct.unpack_from("<I4s", header, 12)
                if kind != b"JSON":
                    raise ValueError("the first chunk is no JSON")
            else:
                length = path.stat().st_size
            if length > _MAX_GLTF_JSON and form == "glb":
                raise ValueError(f"a description of {length:,} bytes")
            data = json.loads(file.read(length))
        accessors, views = data.get("accessors", []), data.get("bufferViews", [])
        buffers = [int(buffer["byteLength"]) for buffer in data.get("buffers", [])]
        room = max(path.stat().st_size, *(0, *buffers))
        outside = [b["uri"] for b in data.get("buffers", []) if not b.get("uri", "data:")
                   .startswith("data:")]  # fmt: skip
        if not outside and room > path.stat().st_size:
            raise ValueError(f"buffers of {room:,} bytes that are not in the file")
        room = path.stat().st_size + sum(
            (path.parent / uri).stat().st_size for uri in outside if (path.parent / uri).is_file()
        )
        for accessor in accessors:
            width = _COMPONENT_BYTES[accessor["componentType"]] * _WIDTHS[accessor["type"]]
            if not 0 <= accessor["count"] * width <= room:
                raise ValueError(f"a table of {accessor['count']:,} rows in {room:,} bytes")
        for view in views:
            if not 0 <= view["byteLength"] <= room:
                raise ValueError(f"a part of {view['byteLength']:,} bytes in {room:,}")
        _check_nodes(data.get("nodes", []))
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as glTF ({reason}); the file is damaged or cut off."
        ) from error


def _check_nodes(nodes: list[dict[str, Any]]) -> None:
    """Every node has one parent at most and none is its own ancestor."""
    parent: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for child in node.get("children", []):
            if not 0 <= child < len(nodes) or child in parent:
                raise ValueError(f"node {child} of {len(nodes)} has no place or two")
            parent[child] = i
    for i in range(len(nodes)):
        above, steps = i, 0
        while above in parent:
            above, steps = parent[above], steps + 1
            if steps > len(nodes) or (steps > 1 and above == i):
                raise ValueError(f"node {i} is its own ancestor")


@contextmanager
def _errors(path: Path, form: MeshForm) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged meshes fail in every way there is
        reason = " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as {form.upper()} ({reason}); the file is damaged or cut off."
        ) from error
