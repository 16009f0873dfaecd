"""What is drawn over the picture: what it is, cameras, axes, wipe line, legend, probe mark."""

from __future__ import annotations

import math
from pathlib import Path

import dearpygui.dearpygui as dpg
import torch
from torch import Tensor

from app.desk import Desk
from app.progress import count_share, count_text
from app.snapshot import State
from app.theme import Color, Theme
from render.camera import Camera
from render.export.layers import Legend
from render.scenes.types import Scene, SplitName

FRUSTUM = 0.06  # of the scene's radius: depth of the drawn pyramids
PICK_PIXELS = 14  # from a camera's place, to click it
MOST_FRUSTA = 300
_BAR = 240  # width of the bar while a scene loads
GRID_LINES = 5  # on each side of the centre
_SPLIT_COLORS: dict[str, Color] = {
    "train": (90, 170, 255, 230),
    "val": (130, 220, 140, 230),
    "test": (255, 170, 80, 230),
}
_AXES: tuple[Color, ...] = ((235, 90, 80, 255), (90, 200, 100, 255), (90, 140, 255, 255))
_PYRAMID = (0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2)  # tip 0 and base 1 to 4 in one line

Box = tuple[float, float, float, float]  # x, y, width and height of the picture in the view


class Overlay:
    """Draws into the layers of the view's drawlist; knows where each camera was drawn."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        self._key: object = None
        self._labels_key: object = None
        self._places: list[tuple[float, float, int]] = []  # x, y, index of the view
        self._cameras: tuple[Scene, list[tuple[SplitName, int]], Tensor] | None = None

    def frustum_at(self, at: tuple[float, float]) -> int | None:
        """The camera that was drawn near this place, if any."""
        best, nearest = None, PICK_PIXELS * self.theme.scale
        for x, y, index in self._places:
            distance = math.hypot(at[0] - x, at[1] - y)
            if distance < nearest:
                best, nearest = index, distance
        return best

    def draw(
        self,
        box: Box,
        area: tuple[int, int],
        pointed: tuple[int, int] | None,
        pressed: bool,
    ) -> None:
        """Draw what changed.

        Args:
            box: x, y, width and height of the picture inside the area.
            area: width and height of the whole view.
            pointed: picture pixel under the mouse.
            pressed: whether the mouse is dragging.
        """
        self._draw_space(box)
        self._draw_labels(box, area, pointed, pressed)

    # ------------------------------------------------------------------ in the scene
    def _draw_space(self, box: Box) -> None:
        desk = self.desk
        settings, scene, shown = desk.settings, desk.scene, desk.pictures.shown
        crop = desk.crop
        crop.follow(scene)
        wanted = settings.show_frusta or settings.show_grid or crop.on
        if shown is None or scene is None or not wanted:
            key: object = None
        else:
            camera = shown.job.result.request.camera
            key = (
                id(scene),
                id(camera),
                box,
                settings.show_frusta,
                settings.show_grid,
                desk.viewing.at_view,
                crop.version,
            )
        if self._cameras is not None and self._cameras[0] is not scene:
            self._cameras = None  # and the photographs of that scene with it
        if key == self._key:
            return
        self._key = key
        self._places = []
        dpg.delete_item("view_overlay", children_only=True)
        if key is None or shown is None or scene is None:
            return
        camera = shown.job.result.request.camera
        if settings.show_grid:
            self._draw_grid(camera, box)
        if crop.on:
            for ends in crop.edges():
                self._line(camera, ends, box, self.theme.palette.warm, 2)
        if not settings.show_frusta or desk.viewing.at_view is not None:
            return  # looking through a camera, all others would lie over the picture
        if self._cameras is None:
            self._cameras = (scene, *_pyramids(scene))
        _, shown_views, points = self._cameras
        x, y, w, h = box
        uv, z = camera.project(points.view(-1, 3))
        uv = torch.tensor([x, y]) + uv * torch.tensor([w / camera.width, h / camera.height])
        seen = (z > 1e-9) & (uv.abs() < 1e5).all(1)
        places = uv.view(-1, 5, 2).tolist()
        for i in seen.view(-1, 5).all(1).nonzero()[:, 0].tolist():
            split, index = shown_views[i]
            dpg.draw_polyline(
                [places[i][corner] for corner in _PYRAMID],
                color=_SPLIT_COLORS[split],
                parent="view_overlay",
            )
            self._places.append((*places[i][0], index))

    def _draw_grid(self, camera: Camera, box: Box) -> None:
        """A grid on the ground below the scene, and the axes of the world at its centre."""
        scene = self.desk.scene
        assert scene is not None
        center, radius, up = scene.bounds.center, scene.bounds.radius, scene.up
        start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        if abs(float(up[0])) > 0.9:
            start = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        right = torch.nn.functional.normalize(torch.linalg.cross(up, start), dim=0)
        ahead = torch.linalg.cross(up, right)
        floor = center - radius * 0.6 * up
        step = radius / GRID_LINES * 1.5
        color = (*self.theme.palette.faint[:3], 110)
        for i in range(-GRID_LINES, GRID_LINES + 1):
            for a, b in ((right, ahead), (ahead, right)):
                ends = [floor + step * (i * a + j * b) for j in (-GRID_LINES, GRID_LINES)]
                self._line(camera, torch.stack(ends), box, color, 1)
        for axis, axis_color in enumerate(_AXES):
            tip = center.clone()
            tip[axis] += 0.5 * radius
            self._line(camera, torch.stack([center, tip]), box, axis_color, 2)

    def _line(
        self,
        camera: Camera,
        ends: Tensor,
        box: Box,
        color: Color | tuple[int, ...],
        thickness: int,
    ) -> None:
        drawn = self._project(camera, ends, box)
        if drawn is not None:
            dpg.draw_line(
                drawn[0], drawn[1], color=color, thickness=thickness, parent="view_overlay"
            )

    @staticmethod
    def _project(camera: Camera, points: Tensor, box: Box) -> list[tuple[float, float]] | None:
        """Places [N] in the view of points [N, 3], or None when one is behind the camera."""
        uv, z = camera.project(points)
        if bool((z <= 1e-9).any()):
            return None
        x, y, w, h = box
        u = (x + uv[:, 0] / camera.width * w).tolist()
        v = (y + uv[:, 1] / camera.height * h).tolist()
        if any(abs(value) > 1e5 for value in (*u, *v)):
            return None
        return list(zip(u, v, strict=True))

    # ------------------------------------------------------------------ on the picture
    def _draw_labels(
        self,
        box: Box,
        area: tuple[int, int],
        pointed: tuple[int, int] | None,
        pressed: bool,
    ) -> None:
        desk, look = self.desk, self.desk.viewing.look
        shown = desk.pictures.shown
        texts = self._texts()
        key = (id(shown), texts, box, area, look.wipe, look.other, pointed, self.theme.name)
        if key == self._labels_key:
            return
        self._labels_key = key
        parent, px = "view_labels", self.theme.px
        dpg.delete_item(parent, children_only=True)
        x, y, w, h = box
        if shown is None:
            self._draw_waiting(texts[0], area, parent)
            return
        for i, text in enumerate(texts[0]):
            self.label(text, (px(10), px(8) + i * px(24)), parent)
        if look.other is not None:
            line = x + look.wipe * w
            dpg.draw_line(
                (line, y), (line, y + h), color=self.theme.palette.warm, thickness=2, parent=parent
            )
            dpg.draw_circle(
                (line, y + h / 2),
                px(7),
                color=self.theme.palette.warm,
                fill=(20, 20, 20, 200),
                thickness=2,
                parent=parent,
            )
            for text, side in zip(texts[1], (-1, 1), strict=False):
                width = dpg.get_text_size(text) or (8 * len(text), 0)
                left = line + px(10) if side > 0 else line - px(10) - width[0] - px(12)
                self.label(text, (left, y + h - px(30)), parent)
        legend = shown.legend or shown.other_legend
        if legend is not None:
            self._legend(legend, area, parent)
        if pointed is not None and not pressed:
            camera = shown.job.result.request.camera
            sx, sy = w / camera.width, h / camera.height
            left, top = x + pointed[0] * sx, y + pointed[1] * sy
            dpg.draw_rectangle(
                (left - 1, top - 1),
                (left + sx + 1, top + sy + 1),
                color=(255, 255, 255, 220),
                parent=parent,
            )

    def _texts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Lines for the upper left corner, and the names of the two sides of a wipe."""
        desk, look = self.desk, self.desk.viewing.look
        shown = desk.pictures.shown
        if shown is None:
            return self._waiting(), ()
        result = shown.job.result
        camera = result.request.camera
        lines = []
        if desk.shows_preview:
            lines.append(f"Points by OpenGL, {look.without_gaussians().main.describe()}")
        elif look.other is None:
            lines.append(look.main.describe())
        size = f"{camera.width} x {camera.height}"
        photo = (
            desk.viewing.scene.views[desk.viewing.at_view or 0].camera
            if desk.viewing.scene and (desk.viewing.scene.views)
            else None
        )
        if photo is not None:
            size += f" ({camera.height / photo.height:.0%})"
        place = desk.viewing.view_place()
        if place is not None:
            size += f"  ·  {place[0]} photo {place[1]} of {place[2]}"
        lines.append(size)
        style = "" if desk.shows_preview else result.request.style.describe()
        if style:
            lines.append(style)
        if shown.psnr is not None and look.main.source != "photo":
            lines.append(f"{shown.psnr:.2f} dB against the photo")
        if shown.note:
            lines.append(shown.note)
        if look.other is None:
            return tuple(lines), ()
        values = (shown.psnr, shown.other_psnr)
        names = []
        for side, value in zip((look.main, look.other), values, strict=True):
            number = f"  {value:.2f} dB" if value is not None and side.source == "model" else ""
            names.append(side.describe() + number)
        return tuple(lines), tuple(names)

    def _waiting(self) -> tuple[str, ...]:
        """What happens while there is no picture: a headline, then what was done so far."""
        desk = self.desk
        if desk.coming is not None:
            name = desk.coming.options.scene or desk.coming.options.resume or ""
            coming = desk.coming.snapshot()
            steps = [*coming.notes, coming.loading or "", count_text(coming)]
            return (f"Opening {Path(name).name} ...", *dict.fromkeys(filter(None, steps)))
        if desk.session is None:
            return ()
        if desk.snapshot.state is State.FAILED:
            return ("Nothing to show; the log says why.",)
        return ("The first picture comes ...",)

    def _draw_waiting(self, texts: tuple[str, ...], area: tuple[int, int], parent: str) -> None:
        """In the middle of the empty view."""
        px, palette = self.theme.px, self.theme.palette
        top = area[1] / 2 - px(20 + 11 * len(texts))
        for i, text in enumerate(texts):
            size = px(22 if i == 0 else 14)
            left = max(px(10), (area[0] - 0.5 * size * len(text)) / 2)
            color = palette.text if i == 0 else palette.faint
            dpg.draw_text((left, top), text, size=size, color=color, parent=parent)
            top += px(38 if i == 0 else 22)
        share = None if self.desk.coming is None else count_share(self.desk.coming.snapshot())
        if share is not None:
            left, width = area[0] / 2 - px(_BAR / 2), px(_BAR)
            for length, color in ((width, palette.faint), (width * share, palette.text)):
                corners = (left, top), (left + length, top + px(4))
                dpg.draw_rectangle(*corners, color=color, fill=color, parent=parent)

    def _legend(self, legend: Legend, area: tuple[int, int], parent: str) -> None:
        """A colour bar at the right edge of the view."""
        px = self.theme.px
        height, width = px(150), px(14)
        left, top = area[0] - px(100), px(40)
        self.label(
            legend.title + (f" ({legend.unit})" if legend.unit else ""),
            (area[0] - px(6), px(8)),
            parent,
            right=True,
        )
        dpg.draw_rectangle(
            (left - px(8), top - px(8)),
            (area[0] - px(6), top + height + px(8)),
            color=(0, 0, 0, 0),
            fill=(0, 0, 0, 150),
            parent=parent,
        )
        colors = (legend.colors.clamp(0, 1) * 255).round().int().tolist()
        bar = height / len(colors)
        for i, color in enumerate(reversed(colors)):
            dpg.draw_rectangle(
                (left, top + i * bar),
                (left + width, top + (i + 1) * bar + 1),
                color=(0, 0, 0, 0),
                fill=(*color, 255),
                parent=parent,
            )
        for place, text in legend.ticks:
            y = top + (1 - place) * height
            dpg.draw_line(
                (left + width, y),
                (left + width + px(4), y),
                color=(255, 255, 255, 220),
                parent=parent,
            )
            dpg.draw_text(
                (left + width + px(7), y - px(8)),
                text,
                size=px(14),
                color=(255, 255, 255, 255),
                parent=parent,
            )

    def label(
        self, text: str, at: tuple[float, float], parent: str, *, right: bool = False
    ) -> None:
        """Light text on a dark plate: readable over any picture.

        Args:
            at: upper left corner (with ``right`` the upper right one).
        """
        px = self.theme.px
        size = dpg.get_text_size(text) or (px(7.5) * len(text), px(15))
        width = size[0] + px(12)
        left = at[0] - width if right else at[0]
        dpg.draw_rectangle(
            (left, at[1]),
            (left + width, at[1] + px(21)),
            color=(0, 0, 0, 0),
            fill=(0, 0, 0, 150),
            rounding=px(4),
            parent=parent,
        )
        dpg.draw_text(
            (left + px(6), at[1] + px(3)),
            text,
            size=px(15),
            color=(255, 255, 255, 255),
            parent=parent,
        )


def _pyramids(scene: Scene) -> tuple[list[tuple[SplitName, int]], Tensor]:
    """The cameras to draw, split and index, and their tips and bases in the world [V, 5, 3]."""
    shown: list[tuple[SplitName, int]] = []
    for split, indices in scene.splits.items():
        stride = max(1, math.ceil(len(indices) / MOST_FRUSTA))
        for index in indices[::stride]:
            shown.append((split, index))
    if not shown:
        return [], torch.zeros(0, 5, 3, dtype=torch.float64)
    cameras = [scene.views[index].camera for _, index in shown]
    sizes = torch.tensor([[camera.width, camera.height, 1] for camera in cameras]).double()
    corners = torch.tensor([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]).double()
    inverse = torch.stack([camera.K for camera in cameras]).inverse()  # [V, 3, 3]
    base = (corners * sizes[:, None]) @ inverse.mT * (FRUSTUM * scene.bounds.radius)
    local = torch.cat([torch.zeros(len(shown), 1, 3).double(), base], 1)  # [V, 5, 3]
    pose = torch.stack([camera.world_to_camera for camera in cameras])  # [V, 4, 4]
    return shown, (local - pose[:, None, :3, 3]) @ pose[:, :3, :3]
