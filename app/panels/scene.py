"""What is loaded, and how to load something else."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.status import gaussians_text
from app.theme import Theme
from app.widgets import button, publish, set_text, takes_text
from render.gaussians.ply import is_splat_cloud
from render.scenes.background import Background

_BACKGROUNDS = {"of the scene": None, "white": Background("white"), "black": Background("black")}
_ENDS = ("min", "max")


class ScenePanel:
    """See the module's text.

    Args:
        open_file: shows the dialog for files.
        open_folder: shows the dialog for folders.
    """

    def __init__(
        self,
        desk: Desk,
        theme: Theme,
        open_file: Callable[[], None],
        open_folder: Callable[[], None],
    ) -> None:
        self.desk = desk
        with dpg.group(horizontal=True):
            button("Open file ...", "open_file", open_file, shortcut="open")
            button("Open folder ...", "open_folder", open_folder)
        dpg.add_input_text(
            hint="or type a path or a scene's name, Enter",
            width=-1,
            on_enter=True,
            tag=takes_text(publish("path")),
            callback=self._typed,
        )
        dpg.add_combo(
            (), label="", tag=publish("recent"), width=-1, callback=lambda s, v: self._recent(v)
        )
        with dpg.group(horizontal=True):
            dpg.add_text("Background")
            dpg.add_combo(
                tuple(_BACKGROUNDS),
                default_value="of the scene",
                tag=publish("background"),
                width=-1,
                callback=self._background,
            )
        with dpg.group(horizontal=True):
            dpg.add_checkbox(
                label="Crop box", tag=publish("crop"), callback=lambda sender, on: self._crop(on)
            )
            button(
                "Apply",
                "crop_apply",
                self._apply_crop,
                help="The scene begins again with the points in the box.",
                show=False,
            )
            button(
                "All points",
                "crop_reset",
                self._undo_crop,
                help="The scene begins again with all points.",
                show=False,
            )
        self._crop_shown = False
        with dpg.group(tag="crop_group", show=False):
            for axis, name in enumerate("xyz"):
                with dpg.group(horizontal=True):
                    dpg.add_text(name)
                    for end in _ENDS:
                        self._add_crop_slider(axis, end, theme)
        dpg.add_text("", tag=publish("scene_text"), wrap=theme.px(340))
        self._labels: dict[str, str] = {}

    def update(self) -> None:
        desk, snapshot = self.desk, self.desk.snapshot
        labels = {_short(entry.path): entry.path for entry in desk.settings.recent}
        if labels != self._labels:
            self._labels = labels
            dpg.configure_item("recent", items=tuple(labels))
            dpg.set_value("recent", "Recent ...")
        self._show_crop()
        scene = desk.scene
        if scene is None:
            set_text("scene_text", "Nothing is loaded.")
            return
        views = ", ".join(f"{len(v)} {name}" for name, v in scene.splits.items() if v)
        points = "no points" if scene.points is None else f"{len(scene.points):,} points"
        if scene.points is not None and is_splat_cloud(scene.points):
            points = f"{len(scene.points):,} Gaussians"
        sizes = [
            f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}"
            for name, value in snapshot.sizes.items()
            if name != "gaussians"
        ]
        lines = [f"{scene.name}: {views or 'no photographs'}; {points}."]
        if snapshot.gaussians:
            sizes.insert(0, gaussians_text(snapshot))
        if sizes:
            lines.append(f"Model: {', '.join(sizes)}.")
        if snapshot.folder:
            lines.append(f"Run: {snapshot.folder}")
        set_text("scene_text", "\n".join([*lines, "", *scene.notes]))

    # ------------------------------------------------------------------ crop box
    def _add_crop_slider(self, axis: int, end: str, theme: Theme) -> None:
        def moved(sender: object, value: float) -> None:
            self.desk.crop.move(axis, end == "max", value)
            self._set_crop_sliders()

        dpg.add_slider_double(
            tag=takes_text(publish(_crop_tag(axis, end))),
            width=theme.px(165),
            callback=moved,
        )

    def _crop(self, on: bool) -> None:
        crop = self.desk.crop
        crop.follow(self.desk.scene)
        crop.switch(on)
        for axis in range(3):
            low, high = crop.limits[:, axis].tolist()
            # Sliders round to what they show: a thousandth of their range.
            digits = max(0, 3 - math.floor(math.log10(max(high - low, 1e-12))))
            for end in _ENDS:
                dpg.configure_item(
                    _crop_tag(axis, end), min_value=low, max_value=high, format=f"%.{digits}f"
                )
        self._set_crop_sliders()

    def _set_crop_sliders(self) -> None:
        crop = self.desk.crop
        for axis in range(3):
            for end, corner in zip(_ENDS, (crop.low, crop.high), strict=True):
                dpg.set_value(_crop_tag(axis, end), float(corner[axis]))

    def _show_crop(self) -> None:
        """The sliders are there while the box is; another scene switches it off."""
        crop, session = self.desk.crop, self.desk.session
        crop.follow(self.desk.scene)
        if crop.on != self._crop_shown:
            self._crop_shown = crop.on
            dpg.set_value("crop", crop.on)
            dpg.configure_item("crop_group", show=crop.on)
            dpg.configure_item("crop_apply", show=crop.on)
        cropped = session is not None and session.options_in_use.points_crop is not None
        dpg.configure_item("crop_reset", show=cropped)

    def _apply_crop(self) -> None:
        self.desk.restart(points_crop=self.desk.crop.text())

    def _undo_crop(self) -> None:
        self.desk.restart(points_crop=None)

    def _typed(self, sender: object, text: str) -> None:
        if text.strip():
            self.desk.drops.take_text(text.strip())
            dpg.set_value("path", "")

    def _recent(self, label: str) -> None:
        if label in self._labels:
            self.desk.drops.take_text(self._labels[label])

    def _background(self, sender: object, name: str) -> None:
        self.desk.viewing.background = _BACKGROUNDS[name]


def _crop_tag(axis: int, end: str) -> str:
    return f"crop_{'xyz'[axis]}_{end}"


def _short(path: str) -> str:
    """A path as a menu shows it; unique enough with its folder."""
    parts = Path(path).parts
    return path if len(path) <= 44 else str(Path("…", *parts[-2:]))
