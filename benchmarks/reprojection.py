"""Do points land on what they belong to? ``python -m benchmarks.reprojection SCENE ...``.

For each scene: the share of its points inside all masks and in most frames, how well the colours
of points and pixels agree (and how much worse with every point moved 2 % of the picture: nothing
is gained by moving it only if the points are in place), and, where a COLMAP model has
observations, the median distance between these and the projected points. With ``--out`` one picture
a scene shows photographs beside their points.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

from render.errors import UserError
from render.scenes.alignment import check_alignment
from render.scenes.formats.colmap_layout import find_model, is_colmap
from render.scenes.formats.colmap_model import read_cameras
from render.scenes.load import load_scene
from render.scenes.normalize import inverse, place_points
from render.scenes.types import PointCloud, Scene, View

console = Console(width=140)
SHIFT = 0.02  # of the picture's width: a wrong place to compare with
SHOWN = 4  # views of the picture
SIDE = 480  # pixels of their longer side


@dataclass(frozen=True)
class Options:
    """Check where the points of scenes land in their photographs."""

    scenes: Positional[tuple[str, ...]]
    """Folders, files or names."""
    out: Path | None = None
    """Where a picture of each scene goes."""
    downscale: float = 1.0
    """As for training."""
    points: Path | None = None
    """A point cloud instead of the scene's own."""


@dataclass(frozen=True)
class Fit:
    """What was measured of one scene; None where it has nothing to measure it by.

    Args:
        observed: median distance in pixels between COLMAP's observations and projected points.
        color, color_shifted: median difference of points and pixels, of 255.
    """

    inside: float | None
    visible: float
    color: float | None
    color_shifted: float | None
    observed: float | None


def main(options: Options) -> int:
    """Measure all scenes; the exit code says whether every one could be read."""
    table = Table("scene", "views", "points", "in most frames", "in all masks", "colour / moved",
                  "COLMAP px", "source of the points")  # fmt: skip
    failed = 0
    for name in options.scenes:
        try:
            scene = load_scene(name, downscale=options.downscale, points=options.points)
        except UserError as error:
            console.print(f"{name}: {error}")
            failed += 1
            continue
        if not scene.views or scene.points is None:
            console.print(f"{name}: no photographs, nothing to project into.")
            continue
        fit = measure(scene)
        table.add_row(
            scene.name, str(len(scene.views)), f"{len(scene.points):,}", f"{fit.visible:.1%}",
            _said(fit.inside, ".1%"),
            f"{_said(fit.color, '.1f')} / {_said(fit.color_shifted, '.1f')}",
            _said(fit.observed, ".3f"), scene.points.source,
        )  # fmt: skip
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            overlay(scene).save(options.out / f"{scene.name}.jpg", quality=90)
    console.print(table)
    return failed


def measure(scene: Scene) -> Fit:
    """All numbers of a scene with photographs and points."""
    assert scene.points is not None
    alignment = check_alignment(scene.points.xyz, scene.views, max_views=24)
    right, moved = [], []
    for view in scene.views[:: max(1, len(scene.views) // 12)]:
        for shift, into in ((0.0, right), (SHIFT * view.camera.width, moved)):
            found = color_difference(view, scene.points, shift)
            if found is not None:
                into.append(found)
    return Fit(
        alignment.inside,
        alignment.visible,
        float(np.median(right)) if right else None,
        float(np.median(moved)) if moved else None,
        observed_error(scene),
    )


def color_difference(view: View, points: PointCloud, shift: float) -> float | None:
    """Median over the points in front of |point - pixel|, mean of the channels, of 255."""
    if points.rgb is None:
        return None
    uv, ids = in_front(view, points.xyz)
    uv = (uv + torch.tensor([shift, 0.0])).long()
    kept = uv[:, 0] < view.camera.width
    pixels = view.pixels()[uv[kept, 1], uv[kept, 0]].float()  # [M, 4]
    difference = (pixels[:, :3] - 255 * points.rgb[ids[kept]]).abs().mean(1)
    opaque = pixels[:, 3] > 127
    return float(difference[opaque].median()) if bool(opaque.any()) else None


def in_front(view: View, xyz: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [M, 2] in the picture and ids [M] of the points that no other point hides.

    Nearest depth in cells of about four points each; what lies clearly behind is hidden.
    """
    camera = view.camera
    uv, z = camera.project(xyz)
    ids = camera.in_frame(uv, z).nonzero()[:, 0]
    uv, z = uv[ids], z[ids]
    cell = max(2.0, 2.0 * (camera.width * camera.height / max(1, len(ids))) ** 0.5)
    columns = int(camera.width / cell) + 1
    bins = (uv[:, 1] / cell).long() * columns + (uv[:, 0] / cell).long()
    nearest = torch.full((int(bins.max()) + 1 if len(bins) else 1,), torch.inf)
    nearest.scatter_reduce_(0, bins, z, "amin")
    front = z < 1.03 * nearest[bins]
    return uv[front], ids[front]


# ------------------------------------------------------------------ COLMAP's observations
def observed_error(scene: Scene) -> float | None:
    """Median distance, in pixels of the scene's images, to what COLMAP observed."""
    if scene.path is None or not is_colmap(scene.path):
        return None
    model = find_model(scene.path).folder
    if not (model / "images.bin").is_file() or not (model / "points3D.bin").is_file():
        return None
    cameras = read_cameras(model)
    places = dict(_points(model / "points3D.bin"))
    views = {view.path.name: view for view in scene.views if view.path is not None}
    to_world = inverse(scene.to_file)
    errors = []
    for name, camera_id, xy, point_ids in _observations(model / "images.bin"):
        view = views.get(Path(name).name)
        known = np.array([point in places for point in point_ids], bool)
        if view is None or not known.any():
            continue
        camera = cameras[camera_id]
        K = camera.K.numpy()
        normalised = (xy[known] - K[:2, 2]) / K[[0, 1], [0, 1]]
        if camera.lens is not None:
            normalised = camera.lens.undistort(normalised)
        ours = view.camera.K.numpy()
        wanted = normalised * ours[[0, 1], [0, 1]] + ours[:2, 2]
        xyz = torch.tensor(np.array([places[point] for point in point_ids[known]]))
        uv, z = view.camera.project(place_points(xyz, to_world))
        errors.append(np.linalg.norm(uv.numpy() - wanted, axis=1)[z.numpy() > 0])
    return float(np.median(np.concatenate(errors))) if errors else None


def _observations(path: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Name, camera, positions [M, 2] and point ids [M] of each image of an ``images.bin``."""
    data = path.read_bytes()
    at = 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        camera = struct.unpack_from("<I4d3dI", data, at)[8]
        end = data.index(b"\0", at + 64)
        (count,) = struct.unpack_from("<Q", data, end + 1)
        rows = np.frombuffer(data, "<f8,<f8,<i8", count, end + 9)
        xy = np.stack([rows["f0"], rows["f1"]], 1)
        used = rows["f2"] >= 0
        yield data[at + 64 : end].decode(), camera, xy[used], rows["f2"][used]
        at = end + 9 + 24 * count


def _points(path: Path) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Ids and positions of a ``points3D.bin``."""
    data = path.read_bytes()
    at = 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, x, y, z = struct.unpack_from("<Q3d", data, at)
        yield number, (x, y, z)
        (track,) = struct.unpack_from("<Q", data, at + 43)
        at += 51 + 8 * track


# ------------------------------------------------------------------ the picture
def overlay(scene: Scene) -> Image.Image:
    """A row for each of some views: photograph, points over the photograph, points alone."""
    assert scene.points is not None
    rows = []
    for view in scene.views[:: max(1, len(scene.views) // SHOWN)][:SHOWN]:
        scale = min(1.0, SIDE / max(view.camera.width, view.camera.height))
        width, height = (
            max(1, round(scale * side)) for side in (view.camera.width, view.camera.height)
        )
        pixels = Image.fromarray(view.pixels().numpy(), "RGBA").convert("RGB")
        photo = np.asarray(pixels.resize((width, height)))
        uv, ids = in_front(view, scene.points.xyz)
        column, row = (uv * scale).long().unbind(1)
        column, row = column.clamp(max=width - 1).numpy(), row.clamp(max=height - 1).numpy()
        rgb = scene.points.rgb
        colors = (
            np.full((len(ids), 3), 255, np.uint8)
            if rgb is None
            else (rgb[ids] * 255).round().byte().numpy()
        )
        over, alone = photo // 3, np.zeros_like(photo)
        for picture in (over, alone):
            picture[row, column] = colors
        rows.append(np.concatenate([photo, over, alone], 1))
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]
    return Image.fromarray(np.concatenate(rows))


def _said(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
