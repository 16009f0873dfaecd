"""Menu and dialogs of the window; what lies over the picture is in :mod:`app.plates`."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.export import FORMATS, NO_GAUSSIANS, default_path, exports_points
from app.shortcuts import chord, help_rows
from app.theme import Theme
from app.widgets import button, publish, takes_text

if TYPE_CHECKING:
    from app.window import Window

SCALES = (0.75, 0.9, 1.0, 1.15, 1.3, 1.5, 2.0)
_modal: set[str | int] = set()  # while one of these is shown, no shortcut works


def any_open() -> bool:
    """Whether a dialog waits for an answer."""
    for item in list(_modal):
        if not dpg.does_item_exist(item):
            _modal.discard(item)
        elif dpg.is_item_shown(item):
            return True
    return False


def close_all() -> None:
    """Escape: dismiss every dialog without an answer, and the help."""
    for item in list(_modal):
        if dpg.does_item_exist(item):
            dpg.hide_item(item)
    if dpg.does_item_exist("help"):
        dpg.delete_item("help")


def menu_height(theme: Theme) -> int:
    """Pixels of the menu bar."""
    return theme.px(15 + 2 * 4 + 8)


def menu(window: Window) -> None:
    """The menu bar; built inside the main window."""
    desk, actions = window.desk, window.actions

    def item(label: str, action: str) -> None:
        tag = publish(f"menu_{action}")
        dpg.add_menu_item(
            label=label, tag=tag, shortcut=chord(action), callback=lambda: actions.run(action)
        )

    with dpg.menu_bar():
        with dpg.menu(label="File", tag=publish("menu_file")):
            item("Open file ...", "open")
            dpg.add_menu_item(label="Open folder ...", callback=window.open_folder)
            dpg.add_menu_item(label="Resume last run", callback=desk.resume_last)
            dpg.add_separator()
            item("Save checkpoint", "save")
            dpg.add_menu_item(
                label="Export ...",
                tag=publish("menu_export"),
                callback=window.export_gaussians,
            )
            item("Screenshot", "screenshot")
            dpg.add_separator()
            dpg.add_menu_item(label="Quit", callback=dpg.stop_dearpygui)
        with dpg.menu(label="View", tag=publish("menu_view")):
            for label, action in (
                ("Panels", "panels_toggle"),
                ("Cameras", "frusta_toggle"),
                ("Grid and axes", "grid_toggle"),
                ("Points by OpenGL", "preview_toggle"),
                ("Reset camera", "reset_camera"),
            ):
                item(label, action)
            dpg.add_separator()
            for name in ("dark", "light"):
                dpg.add_menu_item(
                    label=f"{name.title()} theme",
                    tag=publish(f"theme_{name}"),
                    user_data=name,
                    callback=lambda s, a, u: window.set_theme(u),
                )
            with dpg.menu(label="Size of texts"):
                for scale in SCALES:
                    dpg.add_menu_item(
                        label=f"{scale:.0%}",
                        user_data=scale,
                        callback=lambda s, a, u: window.set_font_scale(u),
                    )
        with dpg.menu(label="Help", tag=publish("menu_help_menu")):
            item("Keys and mouse", "help")


def confirm(theme: Theme, title: str, question: str, yes: Callable[[], None]) -> None:
    """Ask before something is lost."""

    def answer(agreed: bool) -> None:
        dpg.delete_item("confirm")
        if agreed:
            yes()

    if dpg.does_item_exist("confirm"):
        dpg.delete_item("confirm")
    with dpg.window(
        label=title,
        tag="confirm",
        modal=True,
        no_resize=True,
        autosize=True,
        pos=middle(theme, 440, 150),
    ):
        dpg.add_text(question, wrap=theme.px(420))
        with dpg.group(horizontal=True):
            button("Yes", "confirm_yes", lambda: answer(True), width=theme.px(100))
            button("No", "confirm_no", lambda: answer(False), width=theme.px(100))
    theme.choose("confirm_yes", True)
    _modal.add("confirm")


def export_gaussians(theme: Theme, desk: Desk) -> None:
    """Ask where the Gaussians, or the points of a cloud alone, shall go."""
    snapshot, scene = desk.snapshot, desk.scene
    points = not snapshot.exported and exports_points(scene)
    if snapshot.folder is None or not (snapshot.exported or points):
        desk.messages.add(NO_GAUSSIANS, "warning")
        return
    tag = "export"

    def answer(agreed: bool) -> None:
        path = str(dpg.get_value("export_path")).strip()
        dpg.delete_item(tag)
        if agreed and path:
            desk.export_gaussians(_ply(path))

    if dpg.does_item_exist(tag):
        dpg.delete_item(tag)
    with dpg.window(
        label="Export points" if points else "Export Gaussians",
        tag=tag,
        modal=True,
        no_resize=True,
        autosize=True,
        pos=middle(theme, 560, 150),
    ):
        dpg.add_text(
            f"{len(scene.points):,} points as PLY. A file of this name is replaced."
            if points and scene is not None and scene.points is not None
            else f"{snapshot.exported:,} Gaussians for viewers of 3D Gaussian splatting, in the "
            f"format that the name ends with: {FORMATS} (the last two are smaller and rounded to "
            "8 bits and more). A file of this name is replaced.",
            wrap=theme.px(540),
        )
        dpg.add_input_text(
            default_value=str(default_path(Path(snapshot.folder), gaussians=not points)),
            tag=takes_text(publish("export_path")),
            width=theme.px(540),
            auto_select_all=True,
        )
        with dpg.group(horizontal=True):
            button("Write", "export_yes", lambda: answer(True), width=theme.px(100))
            button("Cancel", "export_no", lambda: answer(False), width=theme.px(100))
    theme.choose("export_yes", True)
    _modal.add(tag)


def _ply(text: str) -> Path:
    """A typed path; without a suffix it gets one, a folder gets a file."""
    path = Path(text)
    with suppress(RuntimeError):  # no such user
        path = path.expanduser()
    with suppress(OSError, ValueError):  # the writer says what is wrong with it
        if path.is_dir():
            return path / "gaussians.ply"
    return path if path.suffix else path.with_name(f"{path.name}.ply")


def file_dialog(theme: Theme, take: Callable[[list[str]], None], *, folders: bool) -> None:
    """Choose files (several) or a folder."""
    tag = "folder_dialog" if folders else "file_dialog"
    if dpg.does_item_exist(tag):
        dpg.delete_item(tag)

    def chosen(sender: object, data: dict) -> None:
        if folders:
            take([data["file_path_name"]])
        else:
            picked = list(data.get("selections", {}).values())
            take(picked or [data["file_path_name"]])

    with dpg.file_dialog(
        label="Open folder" if folders else "Open",
        tag=tag,
        directory_selector=folders,
        modal=True,
        file_count=0 if folders else 50,
        width=theme.px(760),
        height=theme.px(480),
        callback=chosen,
        cancel_callback=lambda: None,
    ):
        if not folders:
            for extension in (".*", ".ply", ".json", ".pt", ".npy", ".npz", ".xyz", ".txt"):
                dpg.add_file_extension(extension)
    _modal.add(tag)


def help_page(theme: Theme) -> None:
    """All shortcuts and what the mouse does, from the one table, in two columns."""
    if dpg.does_item_exist("help"):
        dpg.delete_item("help")
        return
    rows = help_rows()
    half = (len(rows) + 1) // 2
    width, height = 1080, 27 * half + 48
    with (
        dpg.window(
            label="Keys and mouse",
            tag=publish("help"),
            width=theme.px(width),
            height=theme.px(height),
            pos=middle(theme, width, height),
            no_collapse=True,
            no_saved_settings=True,
        ),
        dpg.group(horizontal=True),
    ):
        for part in (rows[:half], rows[half:]):
            _help_table(part, theme, theme.px(width // 2 - 14))


def _help_table(rows: list[tuple[str, str, str]], theme: Theme, width: int) -> None:
    group = ""
    with dpg.table(header_row=False, policy=dpg.mvTable_SizingFixedFit, width=width):
        for column in (70, 190, 260):
            dpg.add_table_column(width_fixed=True, init_width_or_weight=theme.px(column))
        for name, keys, label in rows:
            with dpg.table_row():
                dpg.bind_item_font(dpg.add_text(name if name != group else ""), theme.bold)
                dpg.add_text(keys, color=theme.palette.accent)
                dpg.add_text(label, tag=publish(f"help_{label}"))
            group = name


def middle(theme: Theme, width: int, height: int) -> tuple[int, int]:
    """The corner of what is so large (at scale 1) and lies in the middle of the window."""
    return (
        max(0, (dpg.get_viewport_client_width() - theme.px(width)) // 2),
        max(0, (dpg.get_viewport_client_height() - theme.px(height)) // 2),
    )
