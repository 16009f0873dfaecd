"""Which points a method starts from: given ones, those beside the scene, the hull, or chance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from render.memory import check_room, size_text
from render.scenes.alignment import check_alignment
from render.scenes.clouds.pointcloud import point_cloud_size, read_point_cloud
from render.scenes.colors import colors_from_views
from render.scenes.formats.colmap_points import (
    find_colmap_points,
    is_colmap_points,
    read_colmap_points,
)
from render.scenes.formats.readers import Photos, spread
from render.scenes.hull import has_silhouettes, visual_hull
from render.scenes.normalize import inverse, place_cloud
from render.scenes.photos.images import preload
from render.scenes.types import Bounds, PointCloud, Scene, View

HULL_POINTS = 80_000
HULL_VIEWS = 200  # at most, that a hull is carved from
RANDOM_POINTS = 60_000
RANDOM_VIEWS = 16  # at most, that random points are coloured from
MANY_POINTS = 1_000_000  # of a file: the log tells their number and memory before they are read
_CLOUD_NAMES = ("points.ply", "points3d.ply", "points3D.ply")
_FITS = 0.2  # share of a cloud's points in frame from which it belongs to the cameras
_DOT = 0.02  # of the picture's width: a cloud that is not larger is a dot
_FEW = 10  # points that may be a dot
_DOUBTFUL = 0.5  # below this share another frame is tried

Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Frames:
    """Similarities [4, 4] float64 to the world of the scene.

    Args:
        file: from the file's own units.
        reader: from the world in which the reader gave its views; the same as ``file`` unless the
            format itself holds a transform.
    """

    file: Tensor
    reader: Tensor

    @classmethod
    def of(cls, scene: Scene) -> Frames:
        """Those of a scene that was loaded."""
        return cls(inverse(scene.to_file), inverse(scene.to_reader))


@dataclass(frozen=True)
class Placed:
    """A cloud in the world of a scene.

    Args:
        visible: share of its points that at least two views have in frame.
        in_reader: it was taken for one in the reader's world, and not in the file's units.
    """

    cloud: PointCloud
    visible: float
    in_reader: bool


def into_world(cloud: PointCloud, frames: Frames, views: Sequence[View]) -> Placed:
    """Move a cloud that comes from a file to where it belongs.

    It is in the file's units, unless clearly more of it is in frame when it is in the reader's
    world: with formats that hold a transform both are found beside the cameras.
    """
    placed = place_cloud(cloud, frames.file)
    share = share_in_frame(placed.xyz, views)
    if share < _DOUBTFUL and not torch.equal(frames.file, frames.reader):
        other = place_cloud(cloud, frames.reader)
        better = share_in_frame(other.xyz, views)
        if better > max(2 * share, _FITS):
            return Placed(other, better, True)
    return Placed(placed, share, False)


class StartPoints:
    """Finds, makes and places the points of one scene.

    Args:
        train: the training views, in the world of the scene.
        note: receives a sentence about every choice.
        check: called between two pieces of work, in any thread; what it raises ends the work.
        progress: told of what how much of how much is done: "photographs", 120, 300.
    """

    def __init__(
        self,
        photos: Photos,
        train: Sequence[View],
        frames: Frames,
        note: Note,
        check: Callable[[], None],
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self._progress = progress
        self.photos, self.train, self.frames = photos, train, frames
        self.note, self.check = note, check

    def named(self, path: Path) -> PointCloud:
        """The points of a file that the user names, in the file's units or the reader's world.

        Raises:
            UserError: no point cloud, or a broken one.
        """
        placed = self._placed(read_cloud(path, self.note), path).cloud
        found = check_alignment(placed.xyz, self.train)
        if found.verdict != "aligned":
            self.note(f"{path}: {found.sentence}")
        cloud = self._with_colors(placed)
        self.note(f"Points: {len(cloud):,} from {path}.")
        return cloud

    def beside(self) -> PointCloud | None:
        """The first point cloud in or beside the scene that fits its cameras."""
        own = self.photos.points
        if own is not None:
            cloud = place_cloud(own, self.frames.reader)
            if self._fits(share_in_frame(cloud.xyz, self.train), cloud.source):
                self.note(f"Points: {len(cloud):,} from {cloud.source}.")
                return self._with_colors(cloud)
        folder = self.photos.folder
        candidates = [self.photos.cloud] if self.photos.cloud else []
        candidates += [folder / name for name in _CLOUD_NAMES]
        candidates += sorted(folder.glob("*pointnerf.ply"))
        colmap = find_colmap_points(folder)
        if colmap is not None:
            candidates.append(colmap)
        for path in candidates:
            if not path.is_file():
                continue
            found = read_cloud(path, self.note)
            placed = self._placed(found, path)
            if self._fits(placed.visible, path):
                self.note(f"Points: {len(placed.cloud):,} from {path}.")
                return self._with_colors(placed.cloud)
        return None

    def made(self, bounds: Bounds, budget: int | None, seed: int) -> PointCloud:
        """Points from the silhouettes, or random ones where the photographs have none."""
        start = time.perf_counter()
        train, check, decoded = self.train, self.check, self._decoded
        masked = spread(train, HULL_VIEWS) if all(view.has_alpha for view in train) else []
        preload(masked, None, check, decoded)
        if masked and has_silhouettes(masked):
            cloud = visual_hull(
                masked, bounds=bounds, target_points=budget or HULL_POINTS, seed=seed, check=check
            )
            if len(cloud):
                rgb = colors_from_views(cloud.xyz, masked, cloud.normals, check=check)
                seconds = time.perf_counter() - start
                self.note(
                    f"Points: {len(cloud):,} from the {cloud.source}, coloured by the views that "
                    f"see them ({seconds:.1f} s)."
                )
                return replace(cloud, rgb=rgb)
            self.note("The visual hull is empty: masks and poses contradict each other.")
        xyz = _random_in_sphere(bounds, budget or RANDOM_POINTS, seed)
        few = spread(train, RANDOM_VIEWS)
        rgb = colors_from_views(xyz, few, occlusion=False, check=check, progress=decoded)
        self.note(
            f"Points: {len(xyz):,} random ones in the bounds (no point cloud given and no "
            "silhouettes to carve from); a point cloud (points.ply) would give a better start."
        )
        return PointCloud(xyz, rgb, source="random in the bounds", fills_volume=True)

    def _decoded(self, done: int, total: int) -> None:
        self._progress("photographs", done, total)

    def _placed(self, cloud: PointCloud, path: Path) -> Placed:
        placed = into_world(cloud, self.frames, self.train)
        if placed.in_reader:
            self.note(f"{path} is in the frame that the format moves its cameras to.")
        return placed

    def _fits(self, share: float, source: object) -> bool:
        if share < _FITS:
            self.note(
                f"{source} is not used: only {share:.0%} of its points are seen by two or more "
                "cameras, so it is in other units or another coordinate system."
            )
        return share >= _FITS

    def _with_colors(self, cloud: PointCloud) -> PointCloud:
        if cloud.rgb is not None:
            return cloud
        rgb = colors_from_views(
            cloud.xyz, self.train, cloud.normals, check=self.check, progress=self._decoded
        )
        self.note(
            f"{cloud.source} has no colours: taken from the training views that see each point."
        )
        return replace(cloud, rgb=rgb)


def read_cloud(path: Path, note: Note) -> PointCloud:
    """Read points; of many it says first how many there are and what memory they take.

    Raises:
        NotEnoughMemoryError: before anything is read.
    """
    if is_colmap_points(path):
        return read_colmap_points(path)
    count, needed = point_cloud_size(path)
    if count >= MANY_POINTS:
        note(f"{path}: {count:,} points, about {size_text(needed)} while loading.")
    check_room(f"{path}, {count:,} points", needed, "use a file with fewer points")
    return read_point_cloud(path)


def within_budget(cloud: PointCloud, budget: int | None, seed: int, note: Note) -> PointCloud:
    """At most ``budget`` of the points, chosen at random."""
    if budget is None or len(cloud) <= budget:
        return cloud
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(cloud), generator=generator)[:budget].sort().values
    note(f"{budget:,} of the {len(cloud):,} points are used, chosen at random.")
    return cloud.subset(index)


def share_in_frame(xyz: Tensor, views: Sequence[View]) -> float:
    """Share of the points [N, 3] (a sample of them) that at least two views have in frame.

    A view that has them in frame as one dot does not count: a cloud in other units may lie far
    away in the very direction in which some cameras look.
    """
    sample = xyz[:: max(1, len(xyz) // 2000)]
    seen = torch.zeros(len(sample))
    for view in views:
        uv, z = view.camera.project(sample)
        inside = view.camera.in_frame(uv, z)
        if bool(inside.any()):
            extent = (uv[inside].amax(0) - uv[inside].amin(0)).max()
            if len(sample) < _FEW or float(extent) > _DOT * view.camera.width:
                seen += inside
    return float((seen >= min(2, len(views))).float().mean())


def _random_in_sphere(bounds: Bounds, count: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = bounds.radius * np.cbrt(rng.uniform(size=(count, 1)))
    return (bounds.center + torch.from_numpy(direction * radius)).float()
