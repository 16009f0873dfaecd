"""``load_scene``: from a name or path to a Scene that a method can train on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from render.errors import UserError
from render.memory import check_room, size_text
from render.scenes.background import Background
from render.scenes.blender import is_blender, read_blender
from render.scenes.bounds import bounds_of_cameras, bounds_of_points, up_of_cameras
from render.scenes.colmap_points import find_colmap_points, read_colmap_points
from render.scenes.colors import colors_from_views
from render.scenes.hull import has_silhouettes, visual_hull
from render.scenes.images import decoded_bytes, preload
from render.scenes.lookup import Found, find_scene
from render.scenes.pointcloud import (
    POINT_SUFFIXES,
    is_point_cloud,
    point_cloud_size,
    read_point_cloud,
)
from render.scenes.readers import Photos, Reader, hold_out
from render.scenes.types import Bounds, PointCloud, Scene, SplitName, View

READERS: tuple[Reader, ...] = (
    Reader(
        "Blender / NeRF-Synthetic",
        "a folder with transforms_train.json or transforms.json",
        is_blender,
        read_blender,
    ),
)

HULL_POINTS = 80_000
RANDOM_POINTS = 60_000
MANY_POINTS = 1_000_000  # of a file: the log tells their number and memory before they are read
_CLOUD_NAMES = ("points.ply", "points3d.ply", "points3D.ply")
_THREADS = 2


def is_scene(path: Path) -> bool:
    """Whether some reader (or the point cloud reader) knows ``path`` by its name."""
    return is_point_cloud(path) or any(reader.matches(path) for reader in READERS)


def load_scene(
    source: str | Path,
    *,
    data_roots: Sequence[Path] = (),
    downscale: float = 1.0,
    background: Background = Background(),  # noqa: B008 - frozen
    points: Path | None = None,
    point_budget: int | None = None,
    seed: int = 0,
    needs_points: bool = True,
    log: Callable[[str], None] = lambda _: None,
    known: Scene | None = None,
    check: Callable[[], None] = lambda: None,
) -> Scene:
    """Find and read a scene.

    Args:
        source: path of a scene folder, a transforms json or a point cloud; or a scene's name.
        data_roots: folders to look the name up in, before $KBUFFERS_DATA, data/ and the bundled
            scenes.
        downscale: images and cameras shrink by this factor (>= 1).
        background: what stands behind transparent pixels.
        points: a point cloud to use instead of whatever lies beside the scene.
        point_budget: at most this many points; also how many the hull or chance shall give.
        seed: of everything random here.
        needs_points: whether to make points when none are given.
        log: receives every note as it arises.
        known: a scene that was loaded before. Where everything but the background is the same it
            is returned, else photographs that both have are not decoded again.
        check: called between two pieces of work, in any thread; what it raises ends the loading.

    Returns:
        The scene; ``notes`` says in sentences what was found, skipped, held out and assumed. A
        point cloud alone has no views. Points are made from training views only.

    Raises:
        UserError: nothing found, or the files are broken.
    """
    if not downscale >= 1:
        raise UserError(f"--downscale: expected a factor of at least 1, found {downscale:g}.")
    found = find_scene(source, data_roots, is_scene)
    recipe = _recipe(found.path, points, downscale, point_budget, seed, needs_points)
    if known is not None and known.recipe == recipe:
        log(f"Scene {known.name}: still loaded.")
        return replace(known, background=background)
    notes = _Notes(log)
    notes.add(f'Scene "{source}": {found.path} ({found.how}).')
    if is_point_cloud(found.path) or found.path.suffix.lower() == ".ply":
        cloud_scene = _cloud_scene(found, background, point_budget, seed, notes)
        return replace(cloud_scene, recipe=recipe)
    photos = _read_photos(found.path, downscale)
    if known is not None:
        _keep_decoded(photos.views, known.views)
    check()
    for note in photos.notes:
        notes.add(note)
    splits = _complete_splits(photos, notes)
    used = [photos.views[i] for split in splits.values() for i in split]
    notes.add(_sizes(used))
    check_room(f"{len(used)} photographs", decoded_bytes(used), "use a larger --downscale")
    train = [photos.views[i] for i in splits["train"]]
    cameras = [view.camera for view in train]
    bounds = bounds_of_cameras(cameras)
    cloud = None
    if points is not None:
        cloud = _with_colors(_read_cloud(points, notes), train, notes, check)
        notes.add(f"Points: {len(cloud):,} from {points}.")
    elif needs_points:
        cloud = _given_points(photos, train, notes, check) or _made_points(
            train, bounds, point_budget, seed, notes, check
        )
    if cloud is not None:
        cloud = _within_budget(cloud, point_budget, seed, notes)
        bounds = bounds_of_points(cloud.xyz, cameras)
    return Scene(
        name=_scene_name(found.path),
        views=photos.views,
        splits=splits,
        points=cloud,
        background=background,
        bounds=bounds,
        up=up_of_cameras(cameras),
        path=found.path,
        notes=notes.lines,
        recipe=recipe,
    )


def _recipe(path: Path, points: Path | None, *rest: object) -> str:
    """What decides a scene; files that were written anew since count as others."""
    files = sorted([*path.glob("*.json"), *path.glob("*.ply")]) if path.is_dir() else [path]
    files += [] if points is None else [points]
    stamps = [(str(f.resolve()), f.stat().st_mtime_ns if f.is_file() else 0) for f in files]
    return repr((str(path.resolve()), stamps, points is None, *rest))


def _keep_decoded(views: list[View], known: list[View]) -> None:
    """Put views of the same file and camera in place of those that were just read."""
    by_path = {view.path: view for view in known}
    for i, view in enumerate(views):
        old = by_path.get(view.path)
        if view.path is not None and old is not None and _same_camera(old, view):
            views[i] = old


def _same_camera(a: View, b: View) -> bool:
    return (
        (a.name, a.camera.width, a.camera.height) == (b.name, b.camera.width, b.camera.height)
        and torch.equal(a.camera.K, b.camera.K)
        and torch.equal(a.camera.world_to_camera, b.camera.world_to_camera)
    )


class _Notes:
    def __init__(self, log: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._log = log

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._log(line)


def _read_photos(path: Path, downscale: float) -> Photos:
    for reader in READERS:
        if reader.matches(path):
            return reader.read(path, downscale)
    layouts = "; ".join(reader.layout for reader in READERS)
    expected = f"{layouts}; or a point cloud ({', '.join(POINT_SUFFIXES)})"
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir())
        found = f"a folder with {', '.join(inside[:6])}" if inside else "an empty folder"
    else:
        found = f'a file of type "{path.suffix}"'
    raise UserError(
        f"{path}: this is no scene that can be read: expected {expected}; found {found}"
        f"{_known_layout(path)}."
    )


def _known_layout(path: Path) -> str:
    """What a folder is that other programs read and this one does not yet."""
    if any(path.glob("sparse/**/cameras.*")) or (path / "cameras.bin").is_file():
        return "; COLMAP models are not supported yet: convert them to a transforms.json"
    if (path / "cameras.npz").is_file() or (path / "cameras_sphere.npz").is_file():
        return "; DTU scenes (cameras.npz) are not supported yet: convert them to transforms.json"
    return ""


def _complete_splits(photos: Photos, notes: _Notes) -> dict[SplitName, list[int]]:
    """All three splits; without a test split every 8th training view is held out."""
    splits: dict[SplitName, list[int]] = {
        "train": list(photos.splits["train"]),
        "val": list(photos.splits.get("val", [])),
        "test": list(photos.splits.get("test", [])),
    }
    if not splits["test"]:
        train = splits["train"]
        kept, held = hold_out(len(train))
        splits["test"] = [train[i] for i in held]
        held_images = {photos.views[i].path for i in splits["test"]} - {None}
        # A file may list an image twice: what is held out is not trained on.
        kept = [i for i in kept if photos.views[train[i]].path not in held_images] or kept
        splits["train"] = [train[i] for i in kept]
        if held:
            notes.add(
                f"No test split: every 8th of the {len(train)} training views is held out as test "
                f"({len(kept)} train, {len(held)} test)."
            )
        else:
            notes.add("No test split, and a single view cannot be split: nothing is held out.")
    else:
        counts = ", ".join(f"{len(views)} {name}" for name, views in splits.items())
        notes.add(f"Views: {counts}.")
    if not splits["val"]:
        notes.add("No validation split; that is fine.")
    return splits


def _sizes(views: list[View]) -> str:
    sizes = sorted({(view.camera.width, view.camera.height) for view in views})
    text = f"{sizes[0][0]}x{sizes[0][1]}"
    if len(sizes) > 1:
        text += f" to {sizes[-1][0]}x{sizes[-1][1]}"
    return f"{len(views)} views of {text}, {decoded_bytes(views) / 1e6:.1f} MB when decoded."


def _read_cloud(path: Path, notes: _Notes) -> PointCloud:
    """Read points; of many it says first how many there are and what memory they take.

    Raises:
        NotEnoughMemoryError: before anything is read.
    """
    count, needed = point_cloud_size(path)
    if count >= MANY_POINTS:
        notes.add(f"{path}: {count:,} points, about {size_text(needed)} while loading.")
    check_room(f"{path}, {count:,} points", needed, "use a file with fewer points")
    return read_point_cloud(path)


def _given_points(
    photos: Photos, train: list[View], notes: _Notes, check: Callable[[], None]
) -> PointCloud | None:
    """The first point cloud beside the scene that fits its cameras."""
    folder = photos.folder
    candidates = [photos.cloud] if photos.cloud else []
    candidates += [folder / name for name in _CLOUD_NAMES]
    candidates += sorted(folder.glob("*pointnerf.ply"))
    colmap = find_colmap_points(folder)
    if colmap is not None:
        candidates.append(colmap)
    for path in candidates:
        if not path.is_file():
            continue
        cloud = read_colmap_points(path) if path == colmap else _read_cloud(path, notes)
        share = _share_in_frame(cloud.xyz, train)
        if share < 0.2:
            notes.add(
                f"{path} is not used: only {share:.0%} of its points are seen by two or more "
                "cameras, so it is in another coordinate system."
            )
            continue
        notes.add(f"Points: {len(cloud):,} from {path}.")
        return _with_colors(cloud, train, notes, check)
    return None


def _made_points(
    train: list[View],
    bounds: Bounds,
    budget: int | None,
    seed: int,
    notes: _Notes,
    check: Callable[[], None],
) -> PointCloud:
    """Points from the silhouettes, or random ones where the photographs have none."""
    start = time.perf_counter()
    preload(train, _THREADS, check)
    if all(view.has_alpha for view in train) and has_silhouettes(train):
        cloud = visual_hull(
            train, bounds=bounds, target_points=budget or HULL_POINTS, seed=seed, check=check
        )
        if len(cloud):
            rgb = colors_from_views(cloud.xyz, train, cloud.normals, check=check)
            seconds = time.perf_counter() - start
            notes.add(
                f"Points: {len(cloud):,} from the {cloud.source}, coloured by the views that see "
                f"them ({seconds:.1f} s)."
            )
            return replace(cloud, rgb=rgb)
        notes.add("The visual hull is empty: masks and poses contradict each other.")
    xyz = _random_in_sphere(bounds, budget or RANDOM_POINTS, seed)
    rgb = colors_from_views(xyz, train, occlusion=False, check=check)
    notes.add(
        f"Points: {len(xyz):,} random ones in the bounds (no point cloud given and no silhouettes "
        "to carve from); a point cloud (points.ply) would give a better start."
    )
    return PointCloud(xyz, rgb, source="random in the bounds", fills_volume=True)


def _random_in_sphere(bounds: Bounds, count: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = bounds.radius * np.cbrt(rng.uniform(size=(count, 1)))
    return (bounds.center + torch.from_numpy(direction * radius)).float()


def _with_colors(
    cloud: PointCloud, train: list[View], notes: _Notes, check: Callable[[], None]
) -> PointCloud:
    if cloud.rgb is not None:
        return cloud
    preload(train, _THREADS, check)
    rgb = colors_from_views(cloud.xyz, train, cloud.normals, check=check)
    notes.add(f"{cloud.source} has no colours: taken from the training views that see each point.")
    return replace(cloud, rgb=rgb)


def _within_budget(cloud: PointCloud, budget: int | None, seed: int, notes: _Notes) -> PointCloud:
    if budget is None or len(cloud) <= budget:
        return cloud
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(cloud), generator=generator)[:budget].sort().values
    notes.add(f"{budget:,} of the {len(cloud):,} points are used, chosen at random.")
    return cloud.subset(index)


def _share_in_frame(xyz: Tensor, views: list[View]) -> float:
    """Share of the points (a sample of them) that at least two views have in frame."""
    sample = xyz[:: max(1, len(xyz) // 2000)]
    seen = torch.zeros(len(sample))
    for view in views:
        uv, z = view.camera.project(sample)
        size = torch.tensor([view.camera.width, view.camera.height])
        seen += (z > 0) & ((uv >= 0) & (uv < size)).all(1)
    return float((seen >= min(2, len(views))).float().mean())


def _cloud_scene(
    found: Found, background: Background, budget: int | None, seed: int, notes: _Notes
) -> Scene:
    cloud = _read_cloud(found.path, notes)
    bounds = bounds_of_points(cloud.xyz)
    notes.add(
        f"{len(cloud):,} points without photographs, from {cloud.source}: a scene to look at."
    )
    cloud = _within_budget(cloud, budget, seed, notes)
    return Scene(
        name=found.path.stem,
        views=[],
        splits={"train": [], "val": [], "test": []},
        points=cloud,
        background=background,
        bounds=bounds,
        path=found.path,
        notes=notes.lines,
    )


def _scene_name(path: Path) -> str:
    folder = path.parent if path.is_file() else path
    return folder.resolve().name
