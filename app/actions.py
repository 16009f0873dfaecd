"""What each action of the shortcut table does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from app import popups
from app.desk import Desk
from app.screenshot import save_screenshot
from app.shortcuts import MODE_KEYS, SHORTCUTS

if TYPE_CHECKING:
    from app.window import Window

SPEED_STEP = 1.4
_DIRECTIONS = {  # right, up, forward
    "fly_forward": (0, 0, 1),
    "fly_back": (0, 0, -1),
    "fly_left": (-1, 0, 0),
    "fly_right": (1, 0, 0),
    "fly_up": (0, 1, 0),
    "fly_down": (0, -1, 0),
}


class Actions:
    """Runs actions by name; every action of the table has one."""

    def __init__(self, desk: Desk, window: Window) -> None:
        self.desk = desk
        viewing, settings = desk.viewing, desk.settings

        def flip(name: str) -> Callable[[], None]:
            return lambda: setattr(settings, name, not getattr(settings, name))

        self._table: dict[str, Callable[[], None]] = {
            "train_toggle": desk.toggle_training,
            "train_step": desk.step,
            "speed_up": lambda: self._speed(SPEED_STEP),
            "speed_down": lambda: self._speed(1 / SPEED_STEP),
            "focus": lambda: self._focus(window.viewport.pointed),
            "reset_camera": viewing.reset,
            "next_train": lambda: viewing.step_view("train", 1),
            "previous_train": lambda: viewing.step_view("train", -1),
            "next_test": lambda: viewing.step_view("test", 1),
            "previous_test": lambda: viewing.step_view("test", -1),
            "k_more": lambda: viewing.set_k(viewing.look.main.k + 1),
            "k_less": lambda: viewing.set_k(viewing.look.main.k - 1),
            "layer_next": lambda: viewing.set_layer(viewing.look.main.layer + 1),
            "layer_previous": lambda: viewing.set_layer(viewing.look.main.layer - 1),
            "photo_toggle": lambda: viewing.toggle_source("photo"),
            "difference_toggle": lambda: viewing.toggle_source("difference"),
            "wipe_toggle": viewing.toggle_wipe,
            "frusta_toggle": flip("show_frusta"),
            "grid_toggle": flip("show_grid"),
            "panels_toggle": window.toggle_panels,
            "shape_next": viewing.next_shape,
            "preview_toggle": self._preview,
            "screenshot": self._screenshot,
            "save": desk.save,
            "open": window.open_file,
            "help": window.help,
            "cancel": self._cancel,
        }
        for number in range(1, MODE_KEYS + 1):
            self._table[f"mode_{number}"] = lambda n=number: viewing.set_mode_number(n)
        missing = {s.action for s in SHORTCUTS} - self._table.keys() - _DIRECTIONS.keys()
        assert not missing, f"shortcuts without an action: {missing}"

    def run(self, name: str) -> None:
        """Do it."""
        self._table[name]()

    def fly(self, held: set[str], dt: float, factor: float) -> None:
        """Move the camera while keys are held."""
        directions = [_DIRECTIONS[name] for name in held if name in _DIRECTIONS]
        if directions:
            right, up, forward = (float(sum(axis)) for axis in zip(*directions, strict=True))
            self.desk.viewing.moved()
            self.desk.viewing.control.fly((right, up, forward), dt, factor)

    def _speed(self, factor: float) -> None:
        control, settings = self.desk.viewing.control, self.desk.settings
        settings.speed = control.speed = min(max(control.speed * factor, 0.05), 10.0)
        self.desk.messages.add(f"Speed {control.speed:.2f} x.")

    def _focus(self, pointed: tuple[int, int] | None) -> None:
        """What lies under the mouse; without one the middle of the scene."""
        desk, shown = self.desk, self.desk.pictures.shown
        if shown is not None and pointed is not None:
            desk.viewing.focus(shown.job.result, *pointed)
        elif desk.scene is not None:
            desk.viewing.moved()
            desk.viewing.control.focus(desk.scene.bounds.center)

    def _preview(self) -> None:
        if self.desk.preview is None:
            self.desk.messages.add("The OpenGL preview is not available here.", "warning")
            return
        self.desk.preview_on = not self.desk.preview_on
        self.desk.pictures.again()

    def _screenshot(self) -> None:
        save_screenshot(self.desk)

    def _cancel(self) -> None:
        popups.close_all()
        self.desk.messages.dismiss()
        if self.desk.drops.card is not None:
            self.desk.drops.dismiss()
