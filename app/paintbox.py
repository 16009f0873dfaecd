"""Turns results into arrays for the screen: two sides, thumbnails, legends, PSNR.

Another layer, mode, depth range or place of the wipe line is painted from the result that is
already there: nothing is rendered again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from app.look import Look, Side
from app.snapshot import ViewResult
from render.export.layer_colors import Span, difference, proper
from render.export.layers import NO_FEATURES, NOT_YET, LayerPictures, fit_tiles
from render.export.legend import EMPTY, Legend, difference_legend, mask_legend
from render.export.mask_colors import mask_picture, resized_mask
from render.scenes.types import View
from render.training.metrics import psnr

_KEPT = 4  # coloured sides of one result


@dataclass(frozen=True, eq=False)
class PaintJob:
    """What is to be painted.

    Args:
        result: from the worker, or the preview.
        look: what of it.
        photo: the photograph of the result's camera, or None.
        atlas_width, atlas_height: pixels that the thumbnails may take; 0 for none.
    """

    result: ViewResult
    look: Look
    photo: View | None = None
    atlas_width: int = 0
    atlas_height: int = 0


@dataclass(frozen=True, eq=False)
class Painting:
    """What the screen shows. Arrays are C-contiguous float32, finite and never written again.

    Args:
        picture: [H, W, 4] in [0, 1], alpha 1; the array is a new one every time.
        atlas: [h, w, 4] thumbnails of the layers, alpha 0 between them; None without layers.
        tiles: x, y, width and height of each thumbnail in ``atlas``; the first is layer 1.
        legend, other_legend: of the main side and of the side right of the wipe line.
        psnr, other_psnr: dB against the photograph for sides that show the picture or its
            difference, where there is a photograph of the same size.
        note: what is not as it was asked for, in a sentence or two.
        depth_range: what the depth colours of the main side span, scene units.
    """

    job: PaintJob
    picture: np.ndarray
    atlas: np.ndarray | None = None
    tiles: tuple[tuple[int, int, int, int], ...] = ()
    legend: Legend | None = None
    other_legend: Legend | None = None
    psnr: float | None = None
    other_psnr: float | None = None
    note: str | None = None
    depth_range: Span | None = None


class _Painted(NamedTuple):
    """One side, whole: [H, W, 3] and what belongs to it."""

    image: Tensor
    legend: Legend | None = None
    psnr: float | None = None
    notes: tuple[str, ...] = ()


class Paintbox:
    """Paints jobs one after the other and keeps what the next may need again. Not thread-safe."""

    def __init__(self) -> None:
        self._last: PaintJob | None = None
        self._layers: dict[int, LayerPictures] = {}
        self._sides: dict[tuple, _Painted] = {}
        self._atlas: tuple[tuple, np.ndarray, tuple] | None = None
        self._photo: tuple[View, tuple, Tensor] | None = None  # outlives the result

    @torch.no_grad()
    def paint(self, job: PaintJob) -> Painting:
        """Colour both sides and the thumbnails.

        Raises:
            UserError: the photograph cannot be read.
        """
        self._forget(job)
        look = job.look
        main = self._side(job, look.main)
        other = None if look.other is None else self._side(job, look.other)
        atlas, tiles = self._thumbnails(job)
        notes = (*main.notes, *(other.notes if other else ()))
        span = self._span(job, look.main.k) if look.main.mode == "depth" else None
        return Painting(
            job,
            _compose(main.image, other.image if other else None, look.wipe),
            atlas,
            tiles,
            main.legend,
            other.legend if other else None,
            main.psnr,
            other.psnr if other else None,
            " ".join(dict.fromkeys(notes)) or None,
            span,
        )

    def _forget(self, job: PaintJob) -> None:
        """Drop what was made from another result or photograph."""
        last, self._last = self._last, job
        if last is None or last.photo is not job.photo:
            self._sides = {}
        old, new = last and last.result, job.result
        if old is None or old.renders is not new.renders or old.insides is not new.insides:
            self._layers, self._sides, self._atlas = {}, {}, None

    # ------------------------------------------------------------------ sides
    def _side(self, job: PaintJob, side: Side) -> _Painted:
        look = job.look
        key = (side, look.percentiles, look.depth_range)
        if key not in self._sides:
            if len(self._sides) >= _KEPT:
                self._sides.clear()
            if side.source == "photo":
                painted = self._photograph(job)
            elif side.source == "mask":
                painted = self._masked(job)
            elif side.needs_render:
                painted = self._rendered(job, side)
            else:
                painted = self._layer(job, side)
            self._sides[key] = painted
        return self._sides[key]

    def _photograph(self, job: PaintJob) -> _Painted:
        if job.photo is None:
            return _Painted(_blank(job), notes=("There is no photograph of this camera.",))
        return _Painted(self._target(job, job.photo))

    def _masked(self, job: PaintJob) -> _Painted:
        """The photograph under its mask; where the model's points were made from other masks,
        what those add and lose."""
        if job.photo is None:
            return _Painted(_blank(job), notes=("There is no photograph of this camera.",))
        image = self._target(job, job.photo)
        size = (image.shape[0], image.shape[1])
        own = resized_mask(job.photo.pixels()[..., 3], size)
        mask = own if job.result.mask is None else resized_mask(job.result.mask, size)
        notes = () if job.photo.has_alpha else ("This photograph has no mask.",)
        return _Painted(mask_picture(image, own, mask), mask_legend(), None, notes)

    def _rendered(self, job: PaintJob, side: Side) -> _Painted:
        k = _nearest(side.k, job.result.renders)
        if k is None:
            layers = self._inside(job.result, side.k)
            image = layers and layers.picture("cumulative", layers.inside.kbuffer.k)
            waiting = ("The picture is still being rendered.",)
            return _Painted(_blank(job) if image is None else image, notes=waiting)
        notes = _waiting(side.k, k)
        image = job.result.renders[k].rgb.float().clamp(0, 1)
        if job.photo is None:
            if side.source == "difference":
                notes = (*notes, "There is no photograph of this camera.")
            return _Painted(image, notes=notes)
        target = self._target(job, job.photo)
        same_size = (job.photo.camera.height, job.photo.camera.width) == image.shape[:2]
        value = psnr(image, target, job.photo.left_out()) if same_size else None
        if side.source == "difference":
            return _Painted(difference(image, target), difference_legend(), value, notes)
        return _Painted(image, None, value, notes)

    def _layer(self, job: PaintJob, side: Side) -> _Painted:
        layers = self._inside(job.result, side.k)
        if layers is None:
            k = _nearest(side.k, job.result.renders)
            image = _blank(job) if k is None else job.result.renders[k].rgb
            return _Painted(image, notes=("The layers are still being rendered.",))
        assert side.mode != "picture"
        k = layers.inside.kbuffer.k
        layer = min(side.layer, k)
        notes = _waiting(side.k, k)
        span = self._span(job, side.k) if side.mode == "depth" else None
        image = layers.picture(side.mode, layer, span)
        if image is not None:
            return _Painted(image, layers.legend(side.mode, span), None, notes)
        image = layers.picture("color", layer)
        assert image is not None
        missing = NO_FEATURES if side.mode == "features" else NOT_YET
        return _Painted(image, None, None, (*notes, f"{missing} These are the colours."))

    # ------------------------------------------------------------------ layers
    def _inside(self, result: ViewResult, k: int) -> LayerPictures | None:
        """Pictures of the K layers, or of the number nearest to it that was rendered."""
        found = _nearest(k, result.insides)
        if found is None:
            return None
        if found not in self._layers:
            self._layers[found] = LayerPictures(result.insides[found], result.background)
        return self._layers[found]

    def _span(self, job: PaintJob, k: int) -> Span | None:
        if job.look.depth_range is not None:
            return proper(job.look.depth_range)
        layers = self._inside(job.result, k)
        return None if layers is None else layers.span(job.look.percentiles)

    def _thumbnails(self, job: PaintJob) -> tuple[np.ndarray | None, tuple]:
        look = job.look
        layers = self._inside(job.result, look.main.k)
        if not look.atlas or layers is None or min(job.atlas_width, job.atlas_height) < 1:
            return None, ()
        mode = look.atlas_mode
        assert mode != "picture"
        area = (job.atlas_width, job.atlas_height)
        key = (mode, look.main.k, look.percentiles, look.depth_range, area)
        if self._atlas is None or self._atlas[0] != key:
            height, width, k = layers.inside.kbuffer.index.shape
            columns, tile_width = fit_tiles(k, height / width, *area)
            span = self._span(job, look.main.k) if mode == "depth" else None
            atlas = layers.atlas(mode, tile_width, columns, span)
            if atlas is None:
                atlas = layers.atlas("color", tile_width, columns)
            assert atlas is not None
            array = _rgba(atlas.picture)
            array[..., 3] = 0
            for x, y, w, h in atlas.tiles:
                array[y : y + h, x : x + w, 3] = 1
            self._atlas = (key, array, atlas.tiles)
        return self._atlas[1], self._atlas[2]

    # ------------------------------------------------------------------ photograph
    def _target(self, job: PaintJob, photo: View) -> Tensor:
        """The photograph [H, W, 3] at the size of the picture, over the result's background."""
        camera, background = job.result.request.camera, job.result.background
        size = (camera.height, camera.width)
        key = (size, tuple(background.tolist()))
        if self._photo is None or self._photo[0] is not photo or self._photo[1] != key:
            image = photo.target(background)
            if image.shape[:2] != size:
                smaller = size[0] <= image.shape[0] and size[1] <= image.shape[1]
                mode = "area" if smaller else "bilinear"
                image = F.interpolate(image.movedim(-1, 0)[None], size, mode=mode)
                image = image[0].movedim(0, -1)
            self._photo = (photo, key, image)
        return self._photo[2]


def _nearest(k: int, available: Iterable[int]) -> int | None:
    """The number nearest to ``k``; of two equally near ones the larger."""
    return min(available, key=lambda found: (abs(found - k), -found), default=None)


def _waiting(asked: int, shown: int) -> tuple[str, ...]:
    if asked == shown:
        return ()
    return (f"K {asked} is still being rendered, this is K {shown}.",)


def _blank(job: PaintJob) -> Tensor:
    camera = job.result.request.camera
    return EMPTY.expand(camera.height, camera.width, 3)


def _compose(main: Tensor, other: Tensor | None, wipe: float) -> np.ndarray:
    """[H, W, 4]: ``main``, and from the column of the wipe line on ``other``."""
    width = main.shape[1]
    column = width if other is None else round(min(max(wipe, 0.0), 1.0) * width)
    if other is not None and column < width:
        main = torch.cat([main[:, :column], other[:, column:]], 1)
    return _rgba(main)


def _rgba(image: Tensor) -> np.ndarray:
    """A new array [H, W, 4] of [H, W, 3]: finite, in [0, 1], alpha 1."""
    array = torch.ones(*image.shape[:2], 4)
    array[..., :3] = image
    array[..., :3].nan_to_num_(0).clamp_(0, 1)
    return array.numpy()
