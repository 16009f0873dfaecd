"""The big picture with the mouse on it, what is drawn over it, and the strip of layers below."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.look import MODE_INFO
from app.overlay import Overlay
from app.painter import Painting
from app.texture import Texture
from app.theme import Theme
from app.widgets import publish

CLICK_PIXELS = 4  # a press that moves less than this is a click
WIPE_PIXELS = 9  # from the wipe line, to take it
DOUBLE_SECONDS = 0.35
ATLAS_TITLE = 24  # px: line above the thumbnails


@dataclass
class Press:
    """A mouse button that went down on the picture."""

    button: int
    start: tuple[float, float]
    last: tuple[float, float]
    wipe: bool  # it took the wipe line
    moved: bool = False


class Viewport:
    """Picture, overlay and layer strip; built inside the present Dear PyGui container.

    Args:
        on_layer: called with a layer number, 1 = nearest, when its thumbnail is clicked.
        drag_position: where the mouse is while a button is down, see ``Native.drag_position``.
    """

    def __init__(
        self,
        desk: Desk,
        theme: Theme,
        on_layer: Callable[[int], None],
        drag_position: Callable[[int], Sequence[float] | None],
    ) -> None:
        self.desk, self.theme = desk, theme
        self.area = (640, 480)  # px, width and height
        self.atlas_area = (640, 120)
        self.pointed: tuple[int, int] | None = None  # picture pixel under the mouse
        self._on_layer = on_layer
        self._drag_position = drag_position
        self._press: Press | None = None
        self._box = (0.0, 0.0, 1.0, 1.0)  # where the picture lies in the area: x, y, w, h
        self._last_click = (-1.0, (0.0, 0.0))
        self._painting: Painting | None = None
        self._strip: Painting | None = None  # whose thumbnails are shown
        self._texture = Texture()
        self._atlas = Texture()
        self._atlas_key: tuple | None = None
        self._atlas_scale = 1.0
        self._wheel = 0.0
        with dpg.child_window(
            tag="view_frame", border=False, no_scrollbar=True, no_scroll_with_mouse=True
        ):
            with dpg.drawlist(640, 480, tag=publish("view")):
                dpg.add_draw_layer(tag="view_picture")
                dpg.add_draw_layer(tag="view_overlay")
                dpg.add_draw_layer(tag="view_labels")
            self._image = dpg.draw_image(
                self._texture.tag, (0, 0), (1, 1), parent="view_picture", show=False
            )
        with dpg.child_window(
            tag="atlas_frame", border=False, no_scrollbar=True, no_scroll_with_mouse=True
        ):
            with dpg.drawlist(640, 120, tag=publish("atlas")):
                dpg.add_draw_layer(tag="atlas_picture")
                dpg.add_draw_layer(tag="atlas_labels")
            self._atlas_image = dpg.draw_image(
                self._atlas.tag, (0, 0), (1, 1), parent="atlas_picture", show=False
            )
        self.overlay = Overlay(desk, theme)
        with dpg.handler_registry():
            dpg.add_mouse_wheel_handler(callback=self._on_wheel)

    @property
    def busy(self) -> bool:
        """Whether the mouse is dragging."""
        return self._press is not None

    @property
    def picture_rect(self) -> tuple[float, float, float, float]:
        """x, y, width and height of the picture in window pixels."""
        corner = dpg.get_item_rect_min("view")
        x, y, width, height = self._box
        return corner[0] + x, corner[1] + y, width, height

    @property
    def tile_rects(self) -> list[tuple[float, float, float, float]]:
        """x, y, width and height in window pixels of every thumbnail, layer 1 first."""
        if self._strip is None or self.atlas_area[1] <= 0:
            return []
        corner, scale = dpg.get_item_rect_min("atlas"), self._atlas_scale
        left, top = corner[0], corner[1] + self.theme.px(ATLAS_TITLE)
        return [
            (left + x * scale, top + y * scale, w * scale, h * scale)
            for x, y, w, h in self._strip.tiles
        ]

    @property
    def tiles_area(self) -> tuple[int, int]:
        """Width and height in pixels that the thumbnails may take; (0, 0) = hidden."""
        width, height = self.atlas_area
        height -= self.theme.px(ATLAS_TITLE)
        return (width, height) if height > 0 else (0, 0)

    def resize(self, area: tuple[int, int], atlas: tuple[int, int]) -> None:
        """Sizes in pixels of the picture and of the strip (height 0: hidden)."""
        self.area, self.atlas_area = area, atlas
        dpg.configure_item("view_frame", width=area[0], height=area[1])
        dpg.configure_item("view", width=area[0], height=area[1])
        dpg.configure_item(
            "atlas_frame", width=atlas[0], height=max(atlas[1], 1), show=atlas[1] > 0
        )
        dpg.configure_item("atlas", width=atlas[0], height=max(atlas[1], 1))
        self._place()
        self._atlas_key = None

    # ------------------------------------------------------------------ every frame
    def update(self) -> None:
        """Newest painting, overlay."""
        self._atlas.advance()
        if self._texture.advance():
            self._place()
        shown = self.desk.pictures.shown
        if shown is not self._painting:
            self._painting = shown
            if shown is not None:
                self._texture.set(shown.picture)
                if shown.atlas is not None:  # none while the camera moves: keep the last one
                    self._strip = shown
                    self._atlas.set(shown.atlas)
        dpg.configure_item(self._image, show=shown is not None)
        self.overlay.draw(self._box, self.area, self.pointed, self._press is not None)
        self._draw_atlas()

    def _place(self) -> None:
        """Fit the picture into the area."""
        width, height = self._texture.shown
        scale = min(self.area[0] / width, self.area[1] / height)
        w, h = width * scale, height * scale
        x, y = (self.area[0] - w) / 2, (self.area[1] - h) / 2
        self._box = (x, y, w, h)
        dpg.configure_item(
            self._image,
            texture_tag=self._texture.tag,
            pmin=(x, y),
            pmax=(x + w, y + h),
            uv_min=(0, 0),
            uv_max=self._texture.uv,
        )

    # ------------------------------------------------------------------ mouse
    def _on_wheel(self, sender: object, notches: float) -> None:
        self._wheel += notches

    def mouse(self) -> None:
        """What the mouse does on the picture; before the camera moves by it in this frame."""
        viewing = self.desk.viewing
        hovered = bool(dpg.is_item_hovered("view"))
        mouse = dpg.get_mouse_pos(local=False)
        if self._press is not None:
            mouse = self._drag_position(self._press.button) or mouse
        corner = dpg.get_item_rect_min("view")
        at = (mouse[0] - corner[0], mouse[1] - corner[1])
        self.pointed = self._pixel(at) if hovered or self._press else None
        wheel, self._wheel = self._wheel, 0.0
        if hovered and wheel:
            viewing.moved()
            viewing.control.dolly(wheel)
        if dpg.is_item_hovered("atlas") and dpg.is_mouse_button_clicked(dpg.mvMouseButton_Left):
            self._click_atlas(mouse)
        if self._press is None:
            self._begin(at, hovered)
            return
        press = self._press
        if not press.wipe:
            self.desk.about_to_move()
        dx, dy = at[0] - press.last[0], at[1] - press.last[1]
        far = abs(at[0] - press.start[0]) + abs(at[1] - press.start[1])
        if far > CLICK_PIXELS and not press.moved:
            press.moved = True
            dx, dy = at[0] - press.start[0], at[1] - press.start[1]
        press.last = at
        if press.moved and (dx or dy):
            self._drag(press, dx, dy, at)
        if not dpg.is_mouse_button_down(press.button):
            self._press = None
            if not press.moved and press.button == dpg.mvMouseButton_Left:
                self._click(at)

    def _begin(self, at: tuple[float, float], hovered: bool) -> None:
        if not hovered:
            return
        for button in (dpg.mvMouseButton_Left, dpg.mvMouseButton_Right, dpg.mvMouseButton_Middle):
            if dpg.is_mouse_button_down(button):
                wipe = button == dpg.mvMouseButton_Left and self._on_wipe(at)
                self._press = Press(button, at, at, wipe)
                return

    def _on_wipe(self, at: tuple[float, float]) -> bool:
        look = self.desk.viewing.look
        line = self._box[0] + look.wipe * self._box[2]
        return look.other is not None and abs(at[0] - line) < WIPE_PIXELS

    def _drag(self, press: Press, dx: float, dy: float, at: tuple[float, float]) -> None:
        viewing = self.desk.viewing
        if press.wipe:
            viewing.set_wipe((at[0] - self._box[0]) / max(self._box[2], 1))
            return
        viewing.moved()
        shift = dpg.is_key_down(dpg.mvKey_LShift) or dpg.is_key_down(dpg.mvKey_RShift)
        if press.button == dpg.mvMouseButton_Middle or (
            press.button == dpg.mvMouseButton_Left and shift
        ):
            viewing.control.pan(dx, dy, round(self._box[3]))
        elif press.button == dpg.mvMouseButton_Right:
            viewing.control.look(dx, dy)
        else:
            viewing.control.orbit(dx, dy)

    def _click(self, at: tuple[float, float]) -> None:
        now = time.monotonic()
        last, place = self._last_click
        self._last_click = (now, at)
        frustum = self.overlay.frustum_at(at)
        pixel = self._pixel(at)
        near = abs(at[0] - place[0]) + abs(at[1] - place[1]) < 2 * CLICK_PIXELS
        if frustum is not None:
            self.desk.viewing.go_to_view(frustum)
        elif now - last < DOUBLE_SECONDS and near and pixel and self._painting is not None:
            self.desk.viewing.focus(self._painting.job.result, *pixel)

    def _pixel(self, at: tuple[float, float]) -> tuple[int, int] | None:
        """Pixel of the shown picture under a place in the area."""
        x, y, w, h = self._box
        if self._painting is None or not (x <= at[0] < x + w and y <= at[1] < y + h):
            return None
        camera = self._painting.job.result.request.camera
        column, row = (at[0] - x) / w * camera.width, (at[1] - y) / h * camera.height
        return min(int(column), camera.width - 1), min(int(row), camera.height - 1)

    # ------------------------------------------------------------------ layers
    def _draw_atlas(self) -> None:
        strip, look = self._strip, self.desk.viewing.look
        if self.desk.pictures.shown is None:
            strip = self._strip = None
        ready = strip is not None and self.atlas_area[1] > 0
        dpg.configure_item(self._atlas_image, show=ready)
        drawn = (self._atlas.tag, self._atlas.shown)  # changes a frame after the strip
        key = (id(strip), drawn, look, self.atlas_area, self.theme.name) if ready else None
        if key == self._atlas_key:
            return
        self._atlas_key = key
        dpg.delete_item("atlas_labels", children_only=True)
        if strip is None or strip.atlas is None:
            return
        palette, px = self.theme.palette, self.theme.px
        info = MODE_INFO[strip.job.look.atlas_mode]
        dpg.draw_text(
            (px(6), px(3)),
            f"Layers from near to far: {info.label}. {info.hint} Click one to see it large.",
            size=px(14),
            color=palette.faint,
            parent="atlas_labels",
        )
        height, width = strip.atlas.shape[:2]
        top = px(ATLAS_TITLE)
        scale = min(1.0, self.atlas_area[0] / width, (self.atlas_area[1] - top) / height)
        self._atlas_scale = scale
        dpg.configure_item(
            self._atlas_image,
            texture_tag=self._atlas.tag,
            pmin=(0, top),
            pmax=(self._atlas.shown[0] * scale, top + self._atlas.shown[1] * scale),
            uv_max=self._atlas.uv,
        )
        layered = look.main.source == "model" and MODE_INFO[look.main.mode].layered
        for number, (x, y, w, h) in enumerate(strip.tiles, 1):
            corner = (x * scale, top + y * scale)
            chosen = layered and number == look.main.layer
            dpg.draw_rectangle(
                corner,
                (corner[0] + w * scale, corner[1] + h * scale),
                color=palette.accent if chosen else palette.line,
                thickness=3 if chosen else 1,
                parent="atlas_labels",
            )
            self.overlay.label(str(number), (corner[0] + px(4), corner[1] + px(4)), "atlas_labels")

    def _click_atlas(self, mouse: Sequence[float]) -> None:
        if self._strip is None:
            return
        corner = dpg.get_item_rect_min("atlas")
        at_x = (mouse[0] - corner[0]) / self._atlas_scale
        at_y = (mouse[1] - corner[1] - self.theme.px(ATLAS_TITLE)) / self._atlas_scale
        for number, (x, y, w, h) in enumerate(self._strip.tiles, 1):
            if x <= at_x < x + w and y <= at_y < y + h:
                self._on_layer(number)
