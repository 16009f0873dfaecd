"""Where the camera is: photographs to step through, lens, speed, up axis, resolution."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Callable

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.shortcuts import tooltip
from app.theme import Theme
from app.widgets import button, hint, publish, set_text, takes_text
from render.scenes.bounds import describe_direction

UP_AXES = ("+x", "-x", "+y", "-y", "+z", "-z")
MOVING = {"automatic": None, "100 %": 1.0, "50 %": 0.5, "25 %": 0.25}
STILL = {"automatic": None, "100 %": 1.0, "200 %": 2.0, "50 %": 0.5, "25 %": 0.25}


class CameraPanel:
    """See the module's text."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        viewing, px = desk.viewing, theme.px
        self._control = viewing.control
        with dpg.group(horizontal=True):
            dpg.add_text("Photos")
            button(
                "<",
                "previous_train",
                lambda: viewing.step_view("train", -1),
                shortcut="previous_train",
                width=px(28),
            )
            button(
                "Train >",
                "next_train",
                lambda: viewing.step_view("train", 1),
                shortcut="next_train",
            )
            button(
                "<",
                "previous_test",
                lambda: viewing.step_view("test", -1),
                shortcut="previous_test",
                width=px(28),
            )
            button(
                "Test >", "next_test", lambda: viewing.step_view("test", 1), shortcut="next_test"
            )
        theme.tint(dpg.add_text("", tag=publish("camera_line")), "faint")
        with dpg.group(horizontal=True):
            button("Reset", "reset_camera", viewing.reset, shortcut="reset_camera")
            dpg.add_checkbox(
                label="Cameras",
                tag=publish("frusta"),
                default_value=desk.settings.show_frusta,
                callback=self._frusta,
            )
            hint(
                "frusta",
                f"Draw all cameras; click one to look through it. {tooltip('frusta_toggle')}",
            )
            dpg.add_checkbox(
                label="Grid",
                tag=publish("grid"),
                default_value=desk.settings.show_grid,
                callback=self._grid,
            )
            hint("grid", tooltip("grid_toggle"))
            dpg.add_text("Up")
            dpg.add_combo(
                tag=publish("up"),
                width=-1,
                callback=lambda s, v: viewing.control.set_up(v.split()[0]),
            )
            hint("up", "Automatic: as the photographs were held; the log has the direction.")
            self._offer_up()
        self._slider("View angle", "fov", 10.0, 100.0, 45.0, "%.0f°", self._fov)
        self._slider(
            "Speed",
            "speed",
            0.05,
            10.0,
            desk.settings.speed,
            "%.2f x",
            self._speed,
        )
        self._slider(
            "Smoothing", "smoothing", 0.0, 0.5, desk.settings.smoothing, "%.2f s", self._smoothing
        )
        self._slider(
            "Point size",
            "point_size",
            1.0,
            12.0,
            desk.settings.point_size,
            "%.1f px",
            self._point_size,
        )
        with dpg.group(horizontal=True):
            dpg.add_text("Sharpness")
            dpg.add_combo(
                tuple(STILL),
                default_value="automatic",
                tag=publish("still_scale"),
                width=px(104),
                callback=self._still,
            )
            hint("still_scale", "Of the picture, against the photographs, when the camera stands.")
            dpg.add_text("moving")
            moving = next(
                (n for n, v in MOVING.items() if v == desk.settings.move_scale), "automatic"
            )
            dpg.add_combo(
                tuple(MOVING),
                default_value=moving,
                tag=publish("move_scale"),
                width=-1,
                callback=self._moving,
            )
            hint("move_scale", "While the camera moves; 100 % switches the reduction off.")

    def _slider(
        self,
        label: str,
        tag: str,
        low: float,
        high: float,
        value: float,
        form: str,
        callback: Callable[[object, float], None],
    ) -> None:
        with dpg.group(horizontal=True, xoffset=self.theme.px(84)):
            dpg.add_text(label)
            dpg.add_slider_float(
                tag=takes_text(publish(tag)),
                min_value=low,
                max_value=high,
                default_value=value,
                format=form,
                width=-1,
                clamped=True,
                callback=callback,
            )

    def update(self) -> None:
        viewing = self.desk.viewing
        place = viewing.view_place()
        if place is None:
            eye = viewing.control.camera(8, 8).position.tolist()
            text = "Free camera at " + ", ".join(f"{v:.3g}" for v in eye)
        else:
            assert viewing.scene is not None and viewing.at_view is not None
            name = viewing.scene.views[viewing.at_view].name
            text = f"{place[0]} photo {place[1]} of {place[2]}: {name}"
        set_text("camera_line", text)
        if viewing.control is not self._control:  # another scene
            self._control = viewing.control
            self._offer_up()
        if not dpg.is_item_active("fov"):
            dpg.set_value("fov", math.degrees(viewing.control.fov_y))
        dpg.set_value("frusta", self.desk.settings.show_frusta)
        dpg.set_value("grid", self.desk.settings.show_grid)

    def _offer_up(self) -> None:
        """The choices for what is up, with what was found for this scene."""
        found = describe_direction(self._control.scene_up)
        found = found if found in UP_AXES else "tilted"
        dpg.configure_item("up", items=(f"auto ({found})", *UP_AXES))
        dpg.set_value("up", f"auto ({found})")

    def _frusta(self, sender: object, on: bool) -> None:
        self.desk.settings.show_frusta = on

    def _grid(self, sender: object, on: bool) -> None:
        self.desk.settings.show_grid = on

    def _fov(self, sender: object, degrees: float) -> None:
        self.desk.viewing.moved()
        self.desk.viewing.control.fov_y = math.radians(degrees)

    def _speed(self, sender: object, speed: float) -> None:
        self.desk.settings.speed = self.desk.viewing.control.speed = speed

    def _smoothing(self, sender: object, seconds: float) -> None:
        self.desk.settings.smoothing = self.desk.viewing.control.smoothing = seconds

    def _point_size(self, sender: object, size: float) -> None:
        self.desk.settings.point_size = size
        if self.desk.preview is not None:
            self.desk.preview.point_size = size
            self.desk.pictures.again()

    def _still(self, sender: object, choice: str) -> None:
        self.desk.pictures.still_scale = STILL[choice]

    def _moving(self, sender: object, choice: str) -> None:
        self.desk.settings.move_scale = self.desk.pictures.moving_scale = MOVING[choice]
