"""What is loaded, and how to load something else."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

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
        dpg.add_text("", tag=publish("scene_text"), wrap=theme.px(340))
        self._labels: dict[str, str] = {}

    def update(self) -> None:
        desk, snapshot = self.desk, self.desk.snapshot
        labels = {_short(entry.path): entry.path for entry in desk.settings.recent}
        if labels != self._labels:
            self._labels = labels
            dpg.configure_item("recent", items=tuple(labels))
            dpg.set_value("recent", "Recent ...")
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

    def _typed(self, sender: object, text: str) -> None:
        if text.strip():
            self.desk.drops.take_text(text.strip())
            dpg.set_value("path", "")

    def _recent(self, label: str) -> None:
        if label in self._labels:
            self.desk.drops.take_text(self._labels[label])

    def _background(self, sender: object, name: str) -> None:
        self.desk.viewing.background = _BACKGROUNDS[name]


def _short(path: str) -> str:
    """A path as a menu shows it; unique enough with its folder."""
    parts = Path(path).parts
    return path if len(path) <= 44 else str(Path("…", *parts[-2:]))
