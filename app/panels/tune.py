"""The model: method, layers, learning rates and loss weights while it trains, stage times."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Callable

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.session import Session
from app.theme import Theme
from app.widgets import button, hint, publish, set_text, takes_text
from render.methods import method_names

_STAGES = ("data", "rasterise", "network", "loss", "backward", "optimiser", "refine")


class TunePanel:
    """See the module's text.

    Args:
        confirm: asks a question in a popup and calls back on yes.
    """

    def __init__(
        self, desk: Desk, theme: Theme, confirm: Callable[[str, str, Callable[[], None]], None]
    ) -> None:
        self.desk, self.theme, self._confirm = desk, theme, confirm
        self._names: tuple[str, ...] = ()
        self._session: Session | None = None  # whose sliders are shown
        self.upload_ms = 0.0  # main thread: texture and drawing, set by the window
        px = theme.px
        with dpg.group(horizontal=True):
            dpg.add_text("Method")
            dpg.add_combo(tuple(method_names()), tag=publish("method"), width=px(116))
            dpg.add_text("K")
            dpg.add_input_int(
                tag=takes_text(publish("trained_k")),
                default_value=8,
                min_value=1,
                max_value=64,
                min_clamped=True,
                max_clamped=True,
                width=px(84),
            )
            button(
                "Restart",
                "restart",
                self._restart,
                help="Train from the beginning with this method and K, in a new run; asks first.",
            )
        with dpg.group(horizontal=True):
            button("Save", "save", desk.save, shortcut="save")
            button("Measure", "measure", desk.evaluate, help="Measure the held-out photos now.")
            button(
                "Resume last",
                "resume_last",
                desk.resume_last,
                help="Continue the newest earlier run of this scene exactly where it stopped.",
            )
        with dpg.group(horizontal=True):
            dpg.add_text("Time for the view")
            dpg.add_slider_float(
                tag=takes_text(publish("view_share")),
                min_value=0.02,
                max_value=0.9,
                default_value=desk.settings.view_share,
                format="%.2f",
                width=-1,
                clamped=True,
                callback=lambda s, v: desk.set_view_share(v),
            )
            hint(
                "view_share",
                "Share of the worker's time for pictures while it trains; the rest is training.",
            )
        dpg.add_checkbox(
            label="Training waits while the camera moves",
            tag=publish("hold"),
            default_value=desk.settings.pause_while_moving,
            callback=lambda s, v: desk.set_pause_while_moving(v),
        )
        theme.tint(dpg.add_text("", tag=publish("stages"), wrap=px(340)), "faint")
        theme.tint(dpg.add_text("Learning rates and loss weights, times their plan:"), "faint")
        dpg.add_group(tag="scales")

    def update(self) -> None:
        desk, snapshot = self.desk, self.desk.snapshot
        if not self._names_of(snapshot.method):
            return
        parts = [
            f"{name} {snapshot.stages[name]:.1f}"
            for name in _STAGES
            if snapshot.stages.get(name, 0) >= 0.05
        ]
        view = desk.pictures.latest
        if view is not None:
            parts.append(f"view {1000 * view.seconds:.0f}")
        parts.append(f"window {self.upload_ms:.1f}")
        set_text("stages", "Milliseconds: " + ", ".join(parts))
        for name in self._names:
            kind, _, key = name.partition(".")
            values = snapshot.rates if kind == "lr" else snapshot.loss_weights
            value = values.get(key)
            if value is not None and math.isfinite(value):
                set_text(f"value_{name}", f"{value:.2g}")

    def _names_of(self, method: str | None) -> bool:
        """Make the sliders of another method; false when there is none."""
        snapshot = self.desk.snapshot
        names = (
            *(f"lr.{name}" for name in snapshot.rates),
            *(f"loss.{name}" for name in snapshot.loss_weights),
        )
        session = self.desk.session
        new = session is not self._session
        if names != self._names or new:
            self._names = names
            dpg.delete_item("scales", children_only=True)
            for name in names:
                self._row(name)
        self._session = session
        if method and new:
            dpg.set_value("method", method)
            dpg.set_value("trained_k", snapshot.k or 8)
        return bool(method)

    def _row(self, name: str) -> None:
        kind, _, key = name.partition(".")
        scales = self.desk.snapshot.scales.get("lr_scale" if kind == "lr" else "loss_scale", {})
        with dpg.group(horizontal=True, parent="scales"):
            dpg.add_slider_float(
                tag=takes_text(publish(f"scale_{name}")),
                min_value=0.0,
                max_value=5.0,
                default_value=scales.get(key, 1.0),
                format="x %.2f",
                width=self.theme.px(120),
                clamped=True,
                user_data=name,
                callback=self._set_scale,
            )
            dpg.add_text(f"{'rate' if kind == 'lr' else 'loss'} {key}")
            self.theme.tint(dpg.add_text("", tag=publish(f"value_{name}")), "faint")

    def _set_scale(self, sender: object, value: float, name: str) -> None:
        kind, _, key = name.partition(".")
        self.desk.set_live("lr_scale" if kind == "lr" else "loss_scale", {key: value})

    def _restart(self) -> None:
        desk = self.desk
        if desk.session is None or not desk.can_train:
            desk.messages.add("There is nothing here to train on.", "warning")
            return
        method, k = dpg.get_value("method"), int(dpg.get_value("trained_k"))
        snapshot = desk.snapshot
        settings = {} if method == snapshot.method else {"settings": ()}
        self._confirm(
            "Restart",
            f"Train {method} with K = {k} from the beginning? The present run is saved and kept "
            "in its folder.",
            lambda: desk.restart(method=method, k=k, **settings),
        )
