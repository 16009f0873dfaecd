"""Colours of points from the photographs that really see them.

Each view gets a depth buffer from the points themselves, coarse enough that neighbouring points
close up into a surface. A view sees a point if nothing lies clearly in front of it and the pixel
is opaque; views that face the point's normal count more. The colour is the weighted geometric
median of what they see, so highlights and wrong masks do not shift it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

from render.camera import Camera
from render.scenes.formats.readers import spread
from render.scenes.photos.imagecache import decoding_threads
from render.scenes.photos.images import coarse, each
from render.scenes.types import View

_OPAQUE = 230  # alpha from which a pixel shows the object and not the background
_TOLERANCE = 2.5  # point spacings that a visible point may lie behind the front
_CHUNK = 1 << 13  # points whose colours are gathered at a time
_ITERATIONS = 10
MOST_VIEWS = 100  # that are looked into; more are thinned out evenly


def colors_from_views(
    xyz: Tensor,
    views: Sequence[View],
    normals: Tensor | None = None,
    *,
    occlusion: bool = True,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Colours float32 [N, 3] of points [N, 3].

    Args:
        xyz: positions [N, 3].
        views: the views to look into; of more than :data:`MOST_VIEWS` so many, evenly spaced.
            Pass training views only.
        normals: outward normals [N, 3]; a zero normal counts as facing nobody.
        occlusion: whether points hide each other. Without it (points strewn at random) every view
            that has a point in frame counts.
        check: called between two pieces of work, in any thread; what it raises ends the work.
        progress: told how many of how many views are decoded.

    Points that no view sees take the colour of the nearest point that has one, and are grey if
    there is none at all.
    """
    count, views = len(xyz), spread(views, MOST_VIEWS)
    rgb = np.full((count, 3), 0.5, np.float32)
    if count == 0 or not views:
        return torch.from_numpy(rgb)
    points = np.ascontiguousarray(xyz.float().numpy())
    spacing = point_spacing(xyz)
    seen = np.zeros(count, bool)

    def observe(view: View) -> _Observer:
        return _Observer(view, points if occlusion else None, spacing)

    observers = each(views, observe, check=check, progress=progress)
    with ThreadPoolExecutor(decoding_threads(), thread_name_prefix="colours") as pool:

        def paint(start: int) -> None:
            check()
            part = slice(start, start + _CHUNK)
            facing = None if normals is None else normals[part].numpy()
            seen_by = [observer.look(points[part], facing) for observer in observers]
            colors = np.stack([color for color, _ in seen_by])  # [V, M, 3]
            weights = np.stack([weight for _, weight in seen_by])  # [V, M]
            seen[part] = weights.any(0)
            rgb[part] = np.where(seen[part, None], _geometric_median(colors, weights), rgb[part])

        list(pool.map(paint, range(0, count, _CHUNK)))
    if seen.any() and not seen.all():
        nearest = KDTree(points[seen]).query(points[~seen])[1]
        rgb[~seen] = rgb[seen][nearest]
    return torch.from_numpy(rgb)


def point_spacing(xyz: Tensor) -> float:
    """Typical distance of a point to its nearest neighbour (median over a sample of 2000)."""
    if len(xyz) < 2:
        return 1.0
    points = xyz.numpy()
    step = max(1, len(points) // 2000)
    distance = KDTree(points).query(points[::step], k=2)[0][:, 1]
    return max(float(np.median(distance)), 1e-9)


class _Observer:
    """One view: what it shows at points, and which points of a cloud hide others from it."""

    def __init__(self, view: View, points: np.ndarray | None, spacing: float) -> None:
        self._camera = view.camera
        self._position = view.camera.position.float().numpy()
        self._pixels = coarse(view).numpy()
        ignored = view.left_out()
        self._ignored = None if ignored is None else ignored.numpy()
        self._projection = _projection(view.camera)
        self._nearest: np.ndarray | None = None
        if points is not None:
            self._build_depth_buffer(points, spacing)

    def look(self, points: np.ndarray, normals: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Colours [M, 3] in [0, 1] and weights [M] (0 = sees nothing) of points [M, 3]."""
        u, v, z = _project(points, self._projection)
        inside = _in_frame(u, v, z, self._camera.width, self._camera.height)
        column = np.where(inside, u, 0).astype(np.int32)
        row = np.where(inside, v, 0).astype(np.int32)
        pixels = self._at(self._pixels, row, column)  # [M, 4]
        visible = inside & (pixels[:, 3] >= _OPAQUE)
        if self._ignored is not None:
            visible &= ~self._ignored[row, column]
        if self._nearest is not None:
            visible &= z <= self._at(self._nearest, row, column) + self._tolerance
        weight = visible.astype(np.float32)
        if normals is not None:
            toward = self._position - points
            facing = (toward * normals).sum(1) / np.maximum(np.linalg.norm(toward, axis=1), 1e-9)
            weight *= 0.02 + facing.clip(0, 1)
        return pixels[:, :3].astype(np.float32) / 255, weight

    def _at(self, small: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Values of a smaller picture [h, w, ...] at pixels [M] of the camera."""
        height, width = small.shape[:2]
        if (height, width) == (self._camera.height, self._camera.width):
            return small[row, column]
        small_column = (column * (width / self._camera.width)).astype(np.int32)
        small_row = (row * (height / self._camera.height)).astype(np.int32)
        return small[small_row, small_column]

    def _build_depth_buffer(self, points: np.ndarray, spacing: float) -> None:
        """Nearest depth in cells about two point spacings wide, widened by one cell.

        Widened, because the pixels of points beside a front edge may already show the front.
        """
        u, v, z = _project(points, self._projection)
        camera = self._camera
        inside = _in_frame(u, v, z, camera.width, camera.height)
        depth = float(np.median(z[inside])) if inside.any() else 1.0
        focal = float(camera.focal.max())
        cell = max(2.0 * spacing * focal / depth, 1.0)  # pixels
        height, width = max(1, round(camera.height / cell)), max(1, round(camera.width / cell))
        self._tolerance = _TOLERANCE * max(spacing, cell * depth / (2 * focal))
        column = (u[inside] * (width / camera.width)).astype(np.int32)
        row = (v[inside] * (height / camera.height)).astype(np.int32)
        buffer = np.full(height * width, np.inf, np.float32)
        np.minimum.at(buffer, row * width + column, z[inside])
        self._nearest = ndimage.minimum_filter(buffer.reshape(height, width), 3, mode="nearest")


def _projection(camera: Camera) -> np.ndarray:
    return (camera.K @ camera.world_to_camera[:3]).float().numpy()  # [3, 4]


def _project(
    points: np.ndarray, projection: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel columns and rows and depths, each float32 [M]; columns of hidden points are junk."""
    x, y, z = points.T
    u, v, w = (r[0] * x + r[1] * y + r[2] * z + r[3] for r in projection)
    inverse = 1 / np.where(w > 1e-9, w, 1)
    return u * inverse, v * inverse, w


def _in_frame(u: np.ndarray, v: np.ndarray, z: np.ndarray, width: int, height: int) -> np.ndarray:
    return (z > 1e-9) & (u >= 0) & (u < width) & (v >= 0) & (v < height)


def _geometric_median(colors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted geometric median [M, 3] over the views of [V, M, 3] (Weiszfeld's iteration)."""
    weights = weights[..., None]
    median = (colors * weights).sum(0) / np.maximum(weights.sum(0), 1e-12)
    for _ in range(_ITERATIONS):
        distance = np.sqrt(((colors - median) ** 2).sum(2, keepdims=True))  # [V, M, 1]
        pull = weights / np.maximum(distance, 0.01)
        median = (colors * pull).sum(0) / np.maximum(pull.sum(0), 1e-12)
    return median
