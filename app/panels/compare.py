"""The picture against the photograph, or against itself with other settings."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.look import MODES, Side, Source
from app.theme import Theme
from app.widgets import button, layer_slider, publish, set_layer_slider

_SOURCES: dict[str, Source] = {
    "model": "model",
    "photo": "photo",
    "difference": "difference",
    "mask": "mask",
}
assert set(_SOURCES.values()) == set(get_args(Source))
_MODES = {info.label: info.mode for info in MODES}
_LABELS = {mode: label for label, mode in _MODES.items()}


class ComparePanel:
    """See the module's text."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        self._modes: tuple[str, ...] = ()  # that are offered
        viewing = desk.viewing
        with dpg.group(horizontal=True):
            button(
                "Photo", "photo", lambda: viewing.toggle_source("photo"), shortcut="photo_toggle"
            )
            button(
                "Difference",
                "difference",
                lambda: viewing.toggle_source("difference"),
                shortcut="difference_toggle",
            )
            button(
                "Mask",
                "mask",
                lambda: viewing.toggle_source("mask"),
                help="The photograph under its mask. Where the model's points were made from "
                "masks that are wrong on purpose: what those add (blue) and lose (red).",
            )
            button("Wipe", "wipe", viewing.toggle_wipe, shortcut="wipe_toggle")
        theme.tint(dpg.add_text("Wipe between"), "faint")
        with dpg.group(horizontal=True):
            button("Render | photo", "wipe_photo", self._against_photo)
            button("K all | K 1", "wipe_k", self._against_one)
            button("Layer | next", "wipe_layer", self._against_next)
        with dpg.group(tag="wipe_sides"):
            theme.tint(dpg.add_text("Drag the line on the picture. Its right side:"), "faint")
            with dpg.group(horizontal=True):
                dpg.add_combo(
                    tuple(_SOURCES),
                    tag=publish("other_source"),
                    width=theme.px(96),
                    callback=self._set_source,
                )
                dpg.add_combo(
                    self._modes,
                    tag=publish("other_mode"),
                    width=-1,
                    height_mode=dpg.mvComboHeight_Large,  # all of them without scrolling
                    callback=lambda s, v: self._other(mode=_MODES[v]),
                )
            with dpg.group(horizontal=True):
                dpg.add_text("K")
                layer_slider("other_k", lambda k: self._other(k=k), theme.px(110))
                dpg.add_text("Layer")
                layer_slider("other_layer", lambda layer: self._other(layer=layer))

    def update(self) -> None:
        look = self.desk.viewing.look
        other = look.other
        self.theme.choose("photo", look.main.source == "photo")
        self.theme.choose("difference", look.main.source == "difference")
        self.theme.choose("mask", look.main.source == "mask")
        self.theme.choose("wipe", other is not None)
        dpg.configure_item("wipe_sides", show=other is not None)
        if other is None:
            return
        viewing = self.desk.viewing
        modes = tuple(info.label for info in MODES if viewing.offers(info))
        if modes != self._modes:
            self._modes = modes
            dpg.configure_item("other_mode", items=modes)
        dpg.set_value("other_source", other.source)
        dpg.set_value("other_mode", _LABELS[other.mode])
        set_layer_slider("other_k", other.k, self.desk.viewing.trained_k)
        set_layer_slider("other_layer", other.layer, other.k)

    def _other(self, **changes: object) -> None:
        viewing = self.desk.viewing
        if viewing.look.other is not None:
            other = replace(viewing.look.other, **changes)  # pyright: ignore[reportArgumentType]
            other = replace(other, layer=min(other.layer, other.k))
            viewing.wipe_to(other)

    def _set_source(self, sender: object, name: str) -> None:
        self._other(source=_SOURCES[name])

    def _against_photo(self) -> None:
        viewing = self.desk.viewing
        main = Side(k=viewing.trained_k)
        viewing.wipe_to(replace(main, source="photo"), main)

    def _against_one(self) -> None:
        viewing = self.desk.viewing
        viewing.wipe_to(Side(k=1), Side(k=viewing.trained_k))

    def _against_next(self) -> None:
        viewing = self.desk.viewing
        k = viewing.trained_k
        mode = viewing.look.atlas_mode
        layer = min(viewing.look.main.layer, max(1, k - 1))
        main = Side(mode=mode, k=k, layer=layer)
        viewing.wipe_to(replace(main, layer=min(layer + 1, k)), main)
