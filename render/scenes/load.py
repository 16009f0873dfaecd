"""``load_scene``: from a name or path to a Scene that a method can train on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from render.errors import UserError
from render.scenes.background import Background
from render.scenes.bounds import (
    bounds_of_cameras,
    bounds_of_points,
    bounds_of_scene,
    describe_direction,
    up_of_cameras,
)
from render.scenes.clouds.cleaning import Cleaning, clean
from render.scenes.clouds.pointcloud import is_point_cloud
from render.scenes.formats.blender import is_blender, read_blender
from render.scenes.formats.colmap import is_colmap, read_colmap
from render.scenes.formats.dtu import is_dtu, read_dtu
from render.scenes.formats.dtu_cams import is_dtu_cams, read_dtu_cams
from render.scenes.formats.h3ds import is_h3ds, read_h3ds
from render.scenes.formats.readers import SPLIT_NAMES, Photos, Reader, hold_out
from render.scenes.formats.scannet import is_scannet, read_scannet
from render.scenes.lookup import Found, find_scene
from render.scenes.normalize import (
    Mode,
    choose_similarity,
    inverse,
    offset_of,
    place_camera,
    place_cloud,
    scale_of,
)
from render.scenes.photos.images import decoded_bytes, odd_images, plan_memory
from render.scenes.startpoints import Frames, Progress, StartPoints, read_cloud, within_budget
from render.scenes.surroundings import with_surroundings
from render.scenes.types import Scene, SplitName, View
from render.scenes.unknown import no_scene

READERS: tuple[Reader, ...] = (
    Reader(
        "NeRF-Synthetic / instant-ngp / nerfstudio",
        "a folder with transforms_train.json or transforms.json",
        is_blender,
        read_blender,
    ),
    Reader("H3DS", "image/img_*.jpg with cameras.npz", is_h3ds, read_h3ds),
    Reader(
        "DTU / BlendedMVS (IDR, NeuS)",
        "image/ with cameras_sphere.npz or cameras.npz",
        is_dtu,
        read_dtu,
    ),
    Reader("DTU (MVSNet)", "image/ with cams_1/*_cam.txt", is_dtu_cams, read_dtu_cams),
    Reader("ScanNet", "color/, pose/ and intrinsic/", is_scannet, read_scannet),
    Reader("COLMAP", "sparse/0 with cameras, images and points3D", is_colmap, read_colmap),
)

_STAMPED = 2000  # files of a folder that are looked at for changes
_DATA_SUFFIXES = (".json", ".ply", ".npz", ".npy", ".bin", ".txt")


def is_scene(path: Path) -> bool:
    """Whether some reader (or the point cloud reader) knows ``path`` by its name."""
    return is_point_cloud(path) or any(reader.matches(path) for reader in READERS)


def load_scene(
    source: str | Path,
    *,
    data_roots: Sequence[Path] = (),
    downscale: float = 1.0,
    split: str = "auto",
    normalize: Mode = "auto",
    background: Background = Background(),  # noqa: B008 - frozen
    points: Path | None = None,
    point_budget: int | None = None,
    seed: int = 0,
    needs_points: bool = True,
    log: Callable[[str], None] = lambda _: None,
    known: Scene | None = None,
    check: Callable[[], None] = lambda: None,
    cleaning: Cleaning = Cleaning(),  # noqa: B008 - frozen
    progress: Progress = lambda what, done, total: None,
    image_memory: int | None = None,
) -> Scene:
    """Find and read a scene.

    Args:
        source: path of a scene folder, a transforms json or a point cloud; or a scene's name.
        data_roots: folders to look the name up in, before $KBUFFERS_DATA, data/ and the bundled
            scenes.
        downscale: images and cameras shrink by this factor (>= 1).
        split: "auto", "every8", "all" or a protocol that the format has (docs/scenes.md).
        normalize: whether the scene is moved to the origin and scaled to radius 1; "auto" does so
            where float32 needs it. ``to_file`` of the scene leads back.
        background: what stands behind transparent pixels.
        points: a point cloud to use instead of whatever lies beside the scene, in the file's
            units.
        point_budget: at most this many points; also how many the hull or chance shall give.
        seed: of everything random here.
        needs_points: whether to make points when none are given.
        log: receives every note as it arises.
        known: a scene that was loaded before. Where everything but the background is the same it
            is returned, else photographs that both have are not decoded again.
        check: called between two pieces of work, in any thread; what it raises ends the loading.
        cleaning: what is done with the points, in the file's units.
        progress: told of what how much of how much is done: "photographs", 120, 300.
        image_memory: bytes that decoded photographs may take; None = a share of what is free.

    Returns:
        The scene; ``notes`` says in sentences what was found, skipped, held out and assumed. A
        point cloud alone has no views. Points are made from training views only.

    Raises:
        UserError: nothing found, or the files are broken.
    """
    if not downscale >= 1:
        raise UserError(f"--downscale: expected a factor of at least 1, found {downscale:g}.")
    found = find_scene(source, data_roots, is_scene)
    recipe = _recipe(
        found.path, points, downscale, split, normalize, point_budget, seed, needs_points, cleaning
    )
    if known is not None and known.recipe == recipe:
        log(f"Scene {known.name}: still loaded.")
        return replace(known, background=background)
    notes = _Notes(log)
    notes.add(f'Scene "{source}": {found.path} ({found.how}).')
    is_cloud = is_point_cloud(found.path) or found.path.suffix.lower() == ".ply"
    if is_cloud and not is_colmap(found.path):  # of which some files end in .txt
        if split != "auto":
            raise UserError(
                f"--split {split}: {found.path} is a point cloud without photographs, so nothing "
                "can be held out; leave --split out."
            )
        cloud_scene = _cloud_scene(
            found, background, point_budget, seed, normalize, cleaning, notes
        )
        return replace(cloud_scene, recipe=recipe)
    photos = _read_photos(found.path, downscale, split)
    check()
    for note in photos.notes:
        notes.add(note)
    splits = _complete_splits(photos, split, notes)
    used = [photos.views[i] for name in splits.values() for i in name]
    notes.add(_sizes(used))
    for note in (*odd_images(used), *plan_memory(used, downscale, image_memory)):
        notes.add(note)
    frames = _normalised(photos, splits["train"], normalize, notes)
    if known is not None:
        _keep_decoded(photos.views, known.views)
    train = [photos.views[i] for i in splits["train"]]
    cameras = [view.camera for view in train]
    up = up_of_cameras(cameras)
    notes.add(f"Up: {describe_direction(up)}, as the cameras were held.")
    bounds = bounds_of_cameras(cameras)
    start = StartPoints(photos, train, frames, notes.add, check, progress)
    cloud = None
    if points is not None:
        cloud = start.named(points)
    elif needs_points:
        cloud = start.beside() or start.made(bounds, point_budget, seed)
    if cloud is not None:
        cloud = clean(cloud, cleaning, inverse(frames.file), seed, notes.add)
        cloud = within_budget(cloud, point_budget, seed, notes.add)
        bounds = bounds_of_scene(cloud.xyz, cameras)
        if points is None:
            cloud = with_surroundings(cloud, train, bounds, seed, notes.add, check)
    return Scene(
        name=_scene_name(photos.folder),
        views=photos.views,
        splits=splits,
        points=cloud,
        background=background,
        bounds=bounds,
        up=up,
        to_file=inverse(frames.file),
        to_reader=inverse(frames.reader),
        path=found.path,
        notes=notes.lines,
        recipe=recipe,
    )


def _normalised(photos: Photos, train: list[int], mode: Mode, notes: _Notes) -> Frames:
    """Move the cameras of all views where ``mode`` wants it; says so.

    Raises:
        UserError: cameras farther apart than numbers reach.
    """
    identity = torch.eye(4, dtype=torch.float64)
    cameras = [photos.views[i].camera for i in train]
    bounds = bounds_of_cameras(cameras)
    if not (math.isfinite(bounds.radius) and bool(bounds.center.isfinite().all())):
        raise UserError(
            f"{photos.folder}: expected camera positions that can be computed with, found some as "
            f"large as {max(float(c.world_to_camera.abs().max()) for c in cameras):.3g}."
        )
    similarity = choose_similarity(mode, bounds)
    if similarity is not None:
        for view in photos.views:
            view.camera = place_camera(view.camera, similarity)
    to_world = identity if similarity is None else similarity
    from_file = to_world if photos.to_file is None else to_world @ inverse(photos.to_file)
    if similarity is not None:
        notes.add(_say_normalised(from_file))
    return Frames(from_file, to_world)


def _say_normalised(from_file: Tensor) -> str:
    origin = ", ".join(f"{value:.6g}" for value in inverse(from_file)[:3, 3].tolist())
    return (
        f"Normalised: 1 unit is {1 / scale_of(from_file):.6g} units of the file and the origin is "
        f"its ({origin}); exports are in the units of the file (--normalize off leaves all as is)."
    )


def _recipe(path: Path, points: Path | None, *rest: object) -> str:
    """What decides a scene; files that were written anew since count as others."""
    files = sorted(_stamped(path)) if path.is_dir() else [path]
    files += [] if points is None else [points]
    stamps = [(os.path.realpath(f), f.stat().st_mtime_ns if f.is_file() else 0) for f in files]
    return repr((os.path.realpath(path), stamps, points is None, *rest))


def _stamped(folder: Path, depth: int = 2) -> Iterator[Path]:
    """Files with cameras and points in a scene folder; the photographs themselves do not count."""
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= _STAMPED:
                return
            if Path(entry.name).suffix.lower() in _DATA_SUFFIXES:
                yield Path(entry.path)
            elif depth and entry.is_dir(follow_symlinks=False) and "." not in entry.name:
                yield from _stamped(Path(entry.path), depth - 1)


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


def _read_photos(path: Path, downscale: float, split: str) -> Photos:
    own = "auto" if split in SPLIT_NAMES else split
    matching = [reader for reader in READERS if reader.matches(path)]
    if matching:
        photos = matching[0].read(path, downscale, own)
        if len(matching) > 1:
            others = " and ".join(reader.name for reader in matching[1:])
            photos.notes.insert(
                0, f"Read as {matching[0].name}; it is {others} too: name the file of the other."
            )
        return photos
    raise no_scene(path, [reader.layout for reader in READERS], is_scene)


def _complete_splits(photos: Photos, asked: str, notes: _Notes) -> dict[SplitName, list[int]]:
    """All three splits; without a test split every 8th training view is held out."""
    splits: dict[SplitName, list[int]] = {
        "train": list(photos.splits["train"]),
        "val": list(photos.splits.get("val", [])),
        "test": list(photos.splits.get("test", [])),
    }
    if asked in ("every8", "all"):
        splits = {"train": sorted(i for split in splits.values() for i in split), "val": [],
                  "test": []}  # fmt: skip
    if asked == "all":
        notes.add(f"All {len(splits['train'])} views are trained on: nothing is held out.")
        return splits
    if not splits["test"]:
        train = splits["train"]
        kept, held = hold_out(len(train))
        splits["test"] = [train[i] for i in held]
        held_images = {photos.views[i].path for i in splits["test"]} - {None}
        # A file may list an image twice: what is held out is not trained on.
        kept = [i for i in kept if photos.views[train[i]].path not in held_images] or kept
        splits["train"] = [train[i] for i in kept]
        why = "No test split" if asked == "auto" else f"--split {asked}"
        if held:
            notes.add(
                f"{why}: every 8th of the {len(train)} training views is held out as test "
                f"({len(kept)} train, {len(held)} test)."
            )
        else:
            notes.add(f"{why}, and a single view cannot be split: nothing is held out.")
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


def _cloud_scene(
    found: Found,
    background: Background,
    budget: int | None,
    seed: int,
    normalize: Mode,
    cleaning: Cleaning,
    notes: _Notes,
) -> Scene:
    cloud = read_cloud(found.path, notes.add)
    to_world = inverse(offset_of(cloud))
    similarity = choose_similarity(normalize, bounds_of_points(cloud.xyz))
    if similarity is not None:
        to_world = similarity @ to_world
        notes.add(_say_normalised(to_world))
    cloud = place_cloud(cloud, to_world)
    notes.add(
        f"{len(cloud):,} points without photographs, from {cloud.source}: a scene to look at."
    )
    cloud = clean(cloud, cleaning, inverse(to_world), seed, notes.add)
    cloud = within_budget(cloud, budget, seed, notes.add)
    return Scene(
        name=found.path.stem,
        views=[],
        splits={"train": [], "val": [], "test": []},
        points=cloud,
        background=background,
        bounds=bounds_of_points(cloud.xyz),
        to_file=inverse(to_world),
        to_reader=inverse(to_world),
        path=found.path,
        notes=notes.lines,
    )


def _scene_name(path: Path) -> str:
    folder = path.parent if path.is_file() else path
    return folder.resolve().name
