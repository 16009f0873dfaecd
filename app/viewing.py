"""What is looked at, and from where: camera, K, mode, layer, wipe, photograph.

Every way to look at a scene is a method here, called by panels, shortcuts and drops on the main
thread. Nothing here draws or renders: :meth:`Viewing.wish` says what the picture shall be.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from app.camera_control import CameraControl
from app.look import MODE_INFO, MODES, Look, Mode, ModeInfo, Side, Source
from app.messages import Messages
from app.pictures import Wish
from app.snapshot import ViewResult
from render.export.camera_path import CameraPath
from render.export.styles import Shape, Style
from render.scenes.background import Background
from render.scenes.types import Bounds, Scene, SplitName, View

DEFAULT_K = 8  # while there is no model
SCALES = (0.05, 2.0)  # of Gaussians, smallest and largest
_NO_BOUNDS = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 0.1, 10.0)
_Z_UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


class Viewing:
    """See the module's text.

    Args:
        messages: for what cannot be shown.
    """

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self.scene: Scene | None = None
        self.trained_k = DEFAULT_K
        self.gaussians = False  # whether the model is made of them
        self.values: tuple[str, ...] = ()  # that the layers of other models have
        self.control = CameraControl(_NO_BOUNDS, _Z_UP)
        self.look = Look()
        self.at_view: int | None = None  # the photograph whose camera we look through
        self.background: Background | None = None  # None = the scene's
        self.moving = False
        self._was_at = self.control.camera(8, 8).world_to_camera
        self._tour: tuple[CameraPath, float] | None = None  # and when it began

    def enter(
        self,
        scene: Scene,
        k: int,
        *,
        keep_camera: bool,
        gaussians: bool = False,
        values: tuple[str, ...] = (),
    ) -> None:
        """Look at another scene or model.

        Args:
            k: layers of the model.
            keep_camera: it is the same place; else start at the first test view, or from
                slightly above.
            gaussians: whether the model is made of them.
            values: that its layers have otherwise.
        """
        self.scene, self.trained_k, self.gaussians = scene, k, gaussians
        self.values = values
        if not gaussians:
            self.look = self.look.without_gaussians(values)
        self.look = self._main(k=k, layer=min(self.look.main.layer, k))
        self.look = self.look.clipped(k)
        if keep_camera:
            if self.at_view is not None and self.at_view >= len(scene.views):
                self.moved()
            return
        self.look = replace(self.look, depth_range=None)  # the units of another scene
        self.frame(scene.bounds, scene.up)
        views = scene.splits.get("test") or scene.splits.get("train")
        if views:
            self.go_to_view(views[0], smooth=False)

    def frame(self, bounds: Bounds, up: Tensor = _Z_UP) -> None:
        """Look at all of ``bounds`` from slightly above."""
        smoothing, speed = self.control.smoothing, self.control.speed
        self.control = CameraControl(bounds, up)
        self.control.smoothing, self.control.speed = smoothing, speed
        self.moved()

    # ------------------------------------------------------------------ layers
    def set_k(self, k: int) -> None:
        """Show the picture of ``k`` layers; the model stays as it is."""
        k = max(1, min(k, self.trained_k))
        self.look = self._main(k=k, layer=min(self.look.main.layer, k))

    def set_layer(self, layer: int) -> None:
        """Show this layer, 1 = nearest; a mode without layers gives way to one that has them."""
        layer = max(1, min(layer, self.look.main.k))
        self.look = self._main(layer=layer, mode=self.look.atlas_mode, source="model")

    def set_mode(self, mode: Mode) -> None:
        """Show the picture, or one aspect of the layers."""
        info = MODE_INFO[mode]
        if self.offers(info) or self._need_gaussians(info.label):
            self.look = self._main(mode=mode, source="model")

    def offers(self, info: ModeInfo) -> bool:
        """Whether the model has what the mode shows."""
        return info.value is None or self.gaussians or info.value in self.values

    def set_mode_number(self, number: int) -> None:
        """1 = the first row of the mode table."""
        if number <= len(MODES):
            self.set_mode(MODES[number - 1].mode)

    # ------------------------------------------------------------------ Gaussians
    def set_shape(self, shape: Shape) -> None:
        """Draw Gaussians as they are, as ellipsoids or as their centres."""
        if shape == "splat" or self._need_gaussians("Another way to draw"):
            self.look = replace(self.look, style=replace(self.look.style, shape=shape))

    def next_shape(self) -> None:
        """The next way to draw them."""
        shapes = get_args(Shape)
        place = shapes.index(self.look.style.shape)
        self.set_shape(shapes[(place + 1) % len(shapes)])

    def set_scale(self, scale: float) -> None:
        """Draw Gaussians so many times as large; the model stays as it is."""
        scale = min(max(scale, SCALES[0]), SCALES[1]) if scale == scale else 1.0
        if scale == 1 or self._need_gaussians("Another size"):
            self.look = replace(self.look, style=Style(scale, self.look.style.shape))

    def _need_gaussians(self, what: str) -> bool:
        """Say so where there are none."""
        if not self.gaussians:
            self.messages.add(f"{what} is for models of Gaussians; there are none here.", "warning")
        return self.gaussians

    def _main(self, **changes: object) -> Look:
        return replace(self.look, main=replace(self.look.main, **changes))  # pyright: ignore

    # ------------------------------------------------------------------ comparing
    def toggle_source(self, source: Source) -> None:
        """The photograph of this camera, its mask or the difference to it, and back to the model.

        From a free camera it goes to the nearest photograph first.
        """
        back = self.look.main.source == source
        if back or self.need_view():
            self.look = self._main(source="model" if back else source)

    def toggle_wipe(self) -> None:
        """Two sides; at first the photograph, or K = 1 where there is none."""
        if self.look.other is not None:
            self.look = replace(self.look, other=None)
        elif self.at_view is not None:
            self.wipe_to(Side("photo", k=self.look.main.k))
        else:
            self.wipe_to(replace(self.look.main, k=1, layer=1))

    def wipe_to(self, other: Side, main: Side | None = None) -> None:
        """Show ``other`` right of the wipe line."""
        if other.source != "model" and not self.need_view():
            return
        self.look = replace(self.look, main=main or self.look.main, other=other)

    def set_wipe(self, place: float) -> None:
        """Move the wipe line; 0 = left edge, 1 = right edge."""
        self.look = replace(self.look, wipe=min(max(place, 0.0), 1.0))

    def need_view(self) -> bool:
        """Go to the nearest photograph's camera unless we are at one; false if there is none."""
        if self.at_view is not None:
            return True
        nearest = self.nearest_view()
        if nearest is None:
            self.messages.add("This scene has no photographs to compare with.", "warning")
            return False
        self.go_to_view(nearest)
        return True

    # ------------------------------------------------------------------ camera
    def moved(self) -> None:
        """The camera has left the photograph: there is nothing to compare with any more."""
        self.at_view, self._tour = None, None
        if self.look.main.source != "model":
            self.look = self._main(source="model")
        if self.look.other is not None and self.look.other.source != "model":
            self.look = replace(self.look, other=None)

    def reset(self) -> None:
        """Back to the start camera, which sees the whole scene."""
        self.moved()
        self.control.reset()

    def go_to_view(self, index: int, *, smooth: bool = True) -> None:
        """Look through the camera of photograph ``index``."""
        if self.scene is not None:
            self._tour = None
            self.control.go_to(self.scene.views[index].camera, smooth=smooth)
            self.at_view = index

    def step_view(self, split: SplitName, by: int) -> None:
        """To the next or previous photograph of a split."""
        indices = self.scene.splits.get(split, []) if self.scene else []
        if not indices:
            self.messages.add(f"This scene has no {split} photographs.", "warning")
            return
        if self.at_view in indices:
            place = (indices.index(self.at_view) + by) % len(indices)
        else:
            place = 0 if by > 0 else len(indices) - 1
        self.go_to_view(indices[place])

    def view_place(self) -> tuple[SplitName, int, int] | None:
        """Split, place (from 1) and size of the split of the photograph we are at."""
        if self.scene is not None and self.at_view is not None:
            for name, indices in self.scene.splits.items():
                if self.at_view in indices:
                    return name, indices.index(self.at_view) + 1, len(indices)
        return None

    def nearest_view(self) -> int | None:
        """The photograph whose camera is nearest in place and direction."""
        scene = self.scene
        if scene is None or not scene.views:
            return None
        here = self.control.camera(64, 64)
        radius = max(scene.bounds.radius, 1e-9)

        def distance(index: int) -> float:
            camera = scene.views[index].camera
            apart = float((camera.position - here.position).norm()) / radius
            return apart + 1 - float(camera.forward @ here.forward)

        return min(range(len(scene.views)), key=distance)

    def focus(self, result: ViewResult, x: int, y: int) -> None:
        """Turn around what is seen at pixel (x, y) of a picture."""
        z = depth_at(result, x, y)
        if z is not None:
            uv = torch.tensor([x + 0.5, y + 0.5], dtype=torch.float64)
            point = result.request.camera.unproject(uv, torch.tensor(z, dtype=torch.float64))
            self.moved()
            self.control.focus(point)

    def play(self, tour: CameraPath) -> None:
        """Fly along a camera path once, to its last camera."""
        self.moved()
        self._tour = (tour, time.monotonic())

    # ------------------------------------------------------------------ every frame
    def advance(self, dt: float) -> None:
        """Move the camera by ``dt`` seconds."""
        if self._tour is not None:
            tour, start = self._tour
            place, last = int((time.monotonic() - start) * tour.fps), len(tour.cameras) - 1
            self.control.go_to(tour.cameras[min(place, last)], smooth=False)
            if place >= last:
                self._tour = None
        follows = self.control.advance(dt)
        here = self.control.camera(8, 8).world_to_camera
        jumped = not torch.equal(here, self._was_at)  # how it moves without smoothing
        self._was_at = here
        self.moving = follows or jumped or self._tour is not None

    def wish(self, area: tuple[int, int], atlas: tuple[int, int]) -> Wish:
        """The picture that is wanted now.

        Args:
            area: width and height in pixels where it is shown.
            atlas: the same for the thumbnails; (0, 0) = hidden.
        """
        view: View | None = None
        if self.scene is not None and self.at_view is not None:
            view = self.scene.views[self.at_view]
        if view is None:
            pose = self.control.camera(*self._free_size(area))
        elif self.moving:
            pose = self.control.camera(view.camera.width, view.camera.height)
        else:
            pose = view.camera
        return Wish(
            pose=pose,
            look=replace(self.look, atlas=atlas[0] > 0),
            view=None if self.moving else self.at_view,
            photo=view,
            background=self.background,
            moving=self.moving,
            atlas=atlas,
            tall=area[1],
        )

    def _free_size(self, area: tuple[int, int]) -> tuple[int, int]:
        """As tall as the photographs and as wide as the window; clouds alone fill the window."""
        width, height = max(area[0], 16), max(area[1], 16)
        if self.scene is None or not self.scene.views:
            return width, height
        tall = min(self.scene.views[0].camera.height, height)
        return max(16, round(tall * width / height)), tall


def depth_at(result: ViewResult, x: int, y: int) -> float | None:
    """Camera z of what is seen at pixel (x, y), or None where nothing is."""
    found = []
    for render in result.renders.values():
        if render.depth is not None and render.alpha is not None and render.alpha[y, x] > 0.05:
            found.append(float(render.depth[y, x]))
    for inside in result.insides.values():
        if int(inside.kbuffer.index[y, x, 0]) >= 0:
            found.append(float(inside.kbuffer.depth[y, x, 0]))
    return next((z for z in found if math.isfinite(z) and z > 0), None)
