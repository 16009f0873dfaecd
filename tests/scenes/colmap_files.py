"""COLMAP models written on the fly, in both formats, with photographs of a ball."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from render.camera import Camera
from render.scenes.formats.colmap_model import MODELS
from tests.scenes.multiview import SIZE, camera_ring, save_rgb

Entry = tuple[str, Sequence[float], Sequence[float], int]  # name, quaternion, translation, camera


@dataclass
class ColmapScene:
    """A folder with photographs, and what to write into its model.

    Args:
        cameras: (model, width, height, parameters) by id.
        images: what the model registers.
        true: the cameras that took the photographs, by name.
    """

    path: Path
    cameras: dict[int, tuple[str, int, int, Sequence[float]]] = field(default_factory=dict)
    images: list[Entry] = field(default_factory=list)
    true: dict[str, Camera] = field(default_factory=dict)

    def write(self, model: str = "sparse/0", text: bool = False, points: int = 5) -> Path:
        """The model's files; returns its folder."""
        folder = self.path / model
        folder.mkdir(parents=True, exist_ok=True)
        suffix = ".txt" if text else ".bin"
        for name, make in (("cameras", self._cameras), ("images", self._images)):
            (folder / f"{name}{suffix}").write_bytes(make(text))
        (folder / f"points3D{suffix}").write_bytes(points_bytes(points, text))
        return folder

    def _cameras(self, text: bool) -> bytes:
        if text:
            lines = ["# Camera list", "# one line each"]
            for i, (model, w, h, params) in self.cameras.items():
                lines.append(f"{i} {model} {w} {h} {' '.join(map(repr, params))}")
            return ("\n".join(lines) + "\n").encode()
        out = struct.pack("<Q", len(self.cameras))
        for i, (model, w, h, params) in self.cameras.items():
            out += struct.pack("<IiQQ", i, MODELS.index(model), w, h)
            out += struct.pack(f"<{len(params)}d", *params)
        return out

    def _images(self, text: bool) -> bytes:
        if text:
            lines = ["# Image list"]
            for i, (name, q, t, camera) in enumerate(self.images):
                numbers = " ".join(repr(float(value)) for value in (*q, *t))
                lines.append(f"{i + 1} {numbers} {camera} {name}")
                # Every second image has no observations: its second line is empty.
                lines.append("" if i % 2 else "1.5 2.5 -1 3.5 4.5 7 5.5 6.5 8 7.5 8.5 9")
            return ("\n".join(lines) + "\n").encode()
        out = struct.pack("<Q", len(self.images))
        for i, (name, q, t, camera) in enumerate(self.images):
            out += struct.pack("<I7dI", i + 1, *q, *t, camera) + name.encode() + b"\0"
            out += struct.pack("<Q", i % 3) + bytes(24 * (i % 3))
        return out


def points_bytes(count: int, text: bool) -> bytes:
    """Points on a small circle around the origin, point i in i % 3 images."""
    turns = np.arange(count)
    xyz = np.stack([np.cos(turns), np.sin(turns), 0 * turns], -1) * 0.3
    if text:
        rows = [f"{i + 1} {p[0]} {p[1]} {p[2]} 10 20 30 0.5 1 0" for i, p in enumerate(xyz)]
        return ("# points\n" + "\n".join(rows) + "\n").encode()
    out = struct.pack("<Q", count)
    for i, p in enumerate(xyz):
        out += struct.pack("<Q3d3BdQ", i + 1, *p, 10, 20, 30, 0.5, i % 3) + bytes(8 * (i % 3))
    return out


def colmap_scene(path: Path, count: int = 9, images: str = "images") -> ColmapScene:
    """``count`` photographs of a ball by one PINHOLE camera; the model is not written yet."""
    scene = ColmapScene(path)
    cameras, pictures = camera_ring(count)
    K = cameras[0].K
    params = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
    scene.cameras[1] = ("PINHOLE", SIZE, SIZE, params)
    (path / images).mkdir(parents=True)
    for i, (camera, picture) in enumerate(zip(cameras, pictures, strict=True)):
        name = f"shot_{i:02}.png"
        save_rgb(picture, path / images / name)
        quaternion, translation = camera.to_colmap()
        scene.images.append((name, quaternion.tolist(), translation.tolist(), 1))
        scene.true[name] = camera
    scene.images.reverse()  # readers sort by name
    return scene
