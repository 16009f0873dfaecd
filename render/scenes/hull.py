"""Points from posed masks: the visual hull, carved coarse to fine.

A voxel belongs to the hull unless a view sees background there. Carving starts with a coarse grid
and conservative masks and halves the voxels until they are about a pixel wide, so most of space is
thrown away cheaply. Pixels outside an image say nothing (views may crop the object), and a few
rejections are forgiven (masks may be slightly wrong).

A hull is larger than the object: concave parts are filled. So points are drawn not only from its
surface but in several layers below it, and at growing distances farther in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from render.camera import Camera
from render.scenes.bounds import bounds_of_cameras
from render.scenes.photos.imagecache import decoding_threads
from render.scenes.photos.images import each
from render.scenes.types import Bounds, PointCloud, View

BACKGROUND, FOREGROUND, OUTSIDE = 0, 1, 2

_COARSE = 32  # voxels along the edge of the first grid
_MAX_VOXELS = 1_500_000  # of the finest grid, so that carving takes seconds
_SEEN = 0.25  # share of the views that must have a point in frame
_LAYERS = 4  # full density reaches this many point spacings below the surface
_MORTON_BITS = 12
_CHUNK = 1 << 15  # voxels judged at a time: they stay in the processor's cache


@dataclass(frozen=True)
class Carved:
    """The occupied voxels: integer coordinates, edge length, world position of voxel (0, 0, 0)."""

    cells: np.ndarray  # [N, 3] int32
    size: float
    origin: np.ndarray  # [3] float64, the corner of the grid

    def centers(self) -> np.ndarray:
        """World positions of the voxel centres, [N, 3] float32."""
        return ((self.cells + 0.5) * self.size + self.origin).astype(np.float32)


def has_silhouettes(views: Sequence[View], minimum: float = 0.01) -> bool:
    """Whether the masks of the views separate an object from a background."""
    useful = 0
    for view in views:
        if view.has_alpha:
            background = view.pixels()[..., 3] < 128
            ignored = view.left_out()
            if ignored is not None:
                background = background & ~ignored
            useful += minimum < float(background.float().mean()) < 1
    return 2 * useful > len(views)


def visual_hull(
    views: Sequence[View],
    *,
    bounds: Bounds | None = None,
    target_points: int = 80_000,
    tolerance: int | None = None,
    sphere: bool = False,
    threshold: float = 0.25,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> PointCloud:
    """Points inside the visual hull of ``views``: dense near its surface, sparser farther in.

    Args:
        views: posed views with masks. Pass training views only.
        bounds: where to look; by default what the cameras look at.
        target_points: how many points to return (fewer only if the hull is empty: none then).
        tolerance: views that may see background at a point of the hull; by default 2 % of them.
        sphere: look no farther than ``bounds``: with a large tolerance, what few views have in
            frame would count as object.
        threshold: alpha from which a pixel is foreground; low, so that thin parts survive.
        seed: of the jitter inside the voxels.
        check: called between two pieces of work, in any thread; what it raises ends the work.

    Returns:
        xyz and outward unit normals [N, 3]; no colours (``colors.py`` finds them).
    """
    if tolerance is None:
        tolerance = round(0.02 * len(views))

    def mask(view: View) -> np.ndarray:
        """[H, W]: pixels that may show the object; those that say nothing may."""
        shown = view.pixels()[..., 3].numpy() >= round(255 * threshold)
        ignored = view.left_out()
        return shown if ignored is None else shown | ignored.numpy()

    masks = each(views, mask, check=check)
    cameras = [view.camera for view in views]
    bounds = bounds or bounds_of_cameras(cameras)
    carved = carve(cameras, masks, bounds, tolerance, check, sphere=sphere)
    source = f"visual hull of {len(views)} training views"
    if len(carved.cells) == 0:
        return PointCloud(torch.zeros(0, 3), normals=torch.zeros(0, 3), source=source)
    rng = np.random.default_rng(seed)
    depth = _Depth(carved)
    chosen = _sample(carved, depth.at_cells() * carved.size, target_points, rng)
    centers = carved.centers()[chosen]
    xyz = centers + (rng.uniform(-0.5, 0.5, centers.shape) * carved.size).astype(np.float32)
    # Jitter must not push a point through the surface that its voxel's centre respects.
    inside = _judge(xyz, cameras, masks, carved.size, tolerance, whole=False, check=check)
    xyz = np.where(inside[:, None], xyz, centers)
    normals = depth.normals(carved.cells[chosen])
    return PointCloud(
        torch.from_numpy(xyz),
        normals=torch.from_numpy(normals),
        source=source,
        fills_volume=True,
    )


def carve(
    cameras: Sequence[Camera],
    masks: Sequence[np.ndarray],
    bounds: Bounds,
    tolerance: int,
    check: Callable[[], None] = lambda: None,
    *,
    sphere: bool = False,
) -> Carved:
    """Carve the hull of bool masks [H, W] down to voxels about as wide as a pixel; ``tolerance``
    and ``sphere`` as in :func:`visual_hull`."""
    half = 1.6 * bounds.radius
    origin = (bounds.center - half).numpy()
    size = 2 * half / _COARSE
    axis = np.arange(_COARSE, dtype=np.int32)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], np.int32)
    while True:
        xyz = Carved(cells, size, origin).centers()
        if sphere:
            reach = bounds.radius + 0.5 * math.sqrt(3) * size
            near = ((xyz - bounds.center.numpy()) ** 2).sum(1) <= reach**2
            cells, xyz = cells[near], xyz[near]
        last = _pixels_per_voxel(cameras, bounds, size) <= 1.5 or 4 * len(cells) > _MAX_VOXELS
        cells = cells[_judge(xyz, cameras, masks, size, tolerance, whole=not last, check=check)]
        if last or len(cells) == 0:
            return Carved(cells, size, origin)
        cells = (2 * cells[:, None] + corners).reshape(-1, 3)
        size /= 2


def _pixels_per_voxel(cameras: Sequence[Camera], bounds: Bounds, size: float) -> float:
    depth = [max(float(c.to_camera(bounds.center)[2]), bounds.near) for c in cameras]
    pixels = [float(c.focal.max()) * size / z for c, z in zip(cameras, depth, strict=True)]
    return float(np.median(pixels))


class _Silhouette:
    """The mask of one view as a table of codes, for voxels of a certain size.

    With ``whole`` a voxel counts as foreground if any part of it may be: the mask is grown by the
    voxel's radius. Without, its centre decides, on a mask as coarse as the voxel.
    """

    def __init__(
        self, camera: Camera, mask: np.ndarray, size: float, depth: float, whole: bool
    ) -> None:
        focal = float(camera.focal.max())
        grow, self._near = 0, 0.0
        if whole:
            # Voxels nearer than this look larger than the mask is grown for: no verdict on them.
            self._near = 0.7 * depth
            radius = 0.5 * math.sqrt(3) * size * focal / self._near  # pixels
            level = max(0, math.ceil(math.log2(max(radius, 1.0))) - 2)
            grow = math.ceil(radius / 2**level)
        else:
            level = max(0, math.floor(math.log2(max(size * focal / depth, 1.0))))
        self._frame = grow + 1
        code = _codes(mask, level, grow)
        self._height, self._width = code.shape
        self._code = code.reshape(-1)
        scale = torch.diag(torch.tensor([0.5**level, 0.5**level, 1.0], dtype=torch.float64))
        self._projection = (scale @ camera.K @ camera.world_to_camera[:3]).float().numpy()

    def look_up(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Codes uint8 [M] of world points given as three float32 [M]."""
        u, v, w = (r[0] * x + r[1] * y + r[2] * z + r[3] for r in self._projection)
        valid = w > max(self._near, 1e-9)
        inverse = 1 / np.where(valid, w, 1)
        column = (u * inverse + np.float32(self._frame)).clip(0, self._width - 1)
        row = (v * inverse + np.float32(self._frame)).clip(0, self._height - 1)
        code = self._code[row.astype(np.int32) * self._width + column.astype(np.int32)]
        return np.where(valid, code, OUTSIDE)


def _codes(mask: np.ndarray, level: int, grow: int) -> np.ndarray:
    """Codes uint8 [h + 2 g + 2, w + 2 g + 2] of a bool mask at 1 / 2**level, framed by OUTSIDE.

    A pixel is foreground where any pixel below it is; ``grow`` (g) widens that by so many coarse
    pixels and adds as many beyond the border as foreground: a part may stick out there.
    """
    step = 2**level
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % step), (0, -width % step))).astype(np.uint8)
    rows, columns = padded.shape[0] // step, padded.shape[1] // step
    code = padded.reshape(rows, step, columns, step).max((1, 3))
    if grow:
        code = np.pad(code, grow, constant_values=FOREGROUND)
        code = ndimage.maximum_filter(code, 2 * grow + 1, mode="constant", cval=FOREGROUND)
    return np.pad(code, 1, constant_values=OUTSIDE)


def _judge(
    xyz: np.ndarray,
    cameras: Sequence[Camera],
    masks: Sequence[np.ndarray],
    size: float,
    tolerance: int,
    *,
    whole: bool,
    check: Callable[[], None],
) -> np.ndarray:
    """bool [N]: points [N, 3] that at most ``tolerance`` views reject and enough have in frame."""
    middle = torch.from_numpy(xyz.mean(0, dtype=np.float64))
    silhouettes = []
    for camera, mask in zip(cameras, masks, strict=True):
        depth = float(camera.to_camera(middle)[2])
        # A camera in the midst of the points has no typical depth; a pixel's worth is safe.
        depth = max(depth, size)
        silhouettes.append(_Silhouette(camera, mask, size, depth, whole))
    enough = min(len(cameras), max(2, round(_SEEN * len(cameras))))

    def judge(part: np.ndarray) -> np.ndarray:
        check()
        alive = np.arange(len(part))
        coordinates = part.T.copy()  # [3, M]
        rejections = np.zeros(len(part), np.int16)
        seen = np.zeros(len(part), np.int16)
        kept = np.zeros(len(part), bool)
        for number, silhouette in enumerate(silhouettes, 1):
            code = silhouette.look_up(*coordinates)
            rejections += code == BACKGROUND
            seen += code != OUTSIDE
            if number % 4 == 0:
                stay = rejections <= tolerance
                if np.count_nonzero(stay) < 0.8 * len(stay):
                    alive, coordinates = alive[stay], coordinates[:, stay]
                    rejections, seen = rejections[stay], seen[stay]
        kept[alive] = (rejections <= tolerance) & (seen >= enough)
        return kept

    parts = [xyz[start : start + _CHUNK] for start in range(0, len(xyz), _CHUNK)]
    with ThreadPoolExecutor(decoding_threads(), thread_name_prefix="hull") as pool:
        return np.concatenate(list(pool.map(judge, parts)))


class _Depth:
    """Distance below the hull's surface in voxels, on the dense grid around it."""

    def __init__(self, carved: Carved) -> None:
        cells = carved.cells
        self._low = cells.min(0) - 2  # an empty margin on every side
        occupied = np.zeros(cells.max(0) - self._low + 3, dtype=bool)
        self._index = tuple((cells - self._low).T)
        occupied[self._index] = True
        distance = ndimage.distance_transform_edt(occupied)
        self._distance = np.asarray(distance, dtype=np.float32)

    def at_cells(self) -> np.ndarray:
        """Depth of every occupied voxel, float32 [N], at least 0.5."""
        return self._distance[self._index] - 0.5

    def normals(self, cells: np.ndarray) -> np.ndarray:
        """Outward unit normals [M, 3]: against the gradient of the depth, smoothed."""
        smooth = ndimage.uniform_filter(self._distance, 3)
        at = cells - self._low
        gradient = np.empty(at.shape, np.float32)
        for axis in range(3):
            ahead, behind = at.copy(), at.copy()
            ahead[:, axis] += 1
            behind[:, axis] -= 1
            gradient[:, axis] = smooth[tuple(behind.T)] - smooth[tuple(ahead.T)]
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9)


def _sample(carved: Carved, depth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices [count] of voxels, evenly spread, with a spacing that grows with depth [N].

    The spacing is s down to ``_LAYERS`` s below the surface, then 2 s, then 4 s; s follows from
    ``count``. Systematic sampling along a Morton curve keeps the points apart without a search.
    """
    volume = carved.size**3
    low, high = 1e-3 * carved.size, 1e3 * carved.size
    for _ in range(60):
        s = math.sqrt(low * high)
        if float(_density(depth, s).sum()) * volume > count:
            low = s
        else:
            high = s
    weights = _density(depth, math.sqrt(low * high))
    order = np.argsort(_morton(carved.cells), kind="stable")
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    ticks = (np.arange(count) + rng.uniform()) * (cumulative[-1] / count)
    return order[np.searchsorted(cumulative, ticks).clip(0, len(order) - 1)]


def _density(depth: np.ndarray, s: float) -> np.ndarray:
    """Points per volume at a depth for the surface spacing ``s``."""
    spacing = np.where(depth <= _LAYERS * s, s, np.where(depth <= 3 * _LAYERS * s, 2 * s, 4 * s))
    return 1.0 / spacing**3


def _morton(cells: np.ndarray) -> np.ndarray:
    """Z-order keys uint64 [N]: the bits of the three coordinates interleaved."""
    cells = (cells - cells.min(0)).astype(np.uint64)
    key = np.zeros(len(cells), np.uint64)
    one = np.uint64(1)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            key |= ((cells[:, axis] >> np.uint64(bit)) & one) << np.uint64(3 * bit + axis)
    return key
