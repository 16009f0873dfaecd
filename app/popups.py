"""Menu, dialogs and popups of the window."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.shortcuts import chord, help_rows
from app.theme import Theme
from app.widgets import button, publish, set_text

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
        pos=_middle(theme, 440, 150),
    ):
        dpg.add_text(question, wrap=theme.px(420))
        with dpg.group(horizontal=True):
            button("Yes", "confirm_yes", lambda: answer(True), width=theme.px(100))
            button("No", "confirm_no", lambda: answer(False), width=theme.px(100))
    theme.choose("confirm_yes", True)
    _modal.add("confirm")


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
            pos=_middle(theme, width, height),
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


def _middle(theme: Theme, width: int, height: int) -> tuple[int, int]:
    return (
        max(0, (dpg.get_viewport_client_width() - theme.px(width)) // 2),
        max(0, (dpg.get_viewport_client_height() - theme.px(height)) // 2),
    )


def _plate(tag: str, **more: bool) -> AbstractContextManager[int | str]:
    """A hidden window without a frame that lies over the picture."""
    plate: Any = dpg.window(
        tag=publish(tag),
        show=False,
        no_title_bar=True,
        no_resize=True,
        autosize=True,
        no_saved_settings=True,
        **more,  # pyright: ignore[reportArgumentType] - only flags
    )
    return plate


class CloudCard:
    """Asks what to do with a dropped point cloud; lies over the picture."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        with _plate("card", no_move=True):
            dpg.bind_item_font(dpg.add_text("", tag=publish("card_title")), theme.bold)
            dpg.add_text("", tag=publish("card_text"), wrap=theme.px(520))
            with dpg.group(horizontal=True):
                button(
                    "Train this scene from it",
                    "card_use",
                    desk.drops.use_points,
                    help="A new run of the same photographs that starts from these points.",
                )
                button(
                    "Open on its own",
                    "card_alone",
                    desk.drops.open_alone,
                    help="Only the cloud, with its K buffers, without photographs.",
                )
                button("Back", "card_back", desk.drops.dismiss, help="Forget it.")

    def update(self) -> None:
        """Show or hide it."""
        card = self.desk.drops.card
        shown = card is not None and card.alignment is not None
        dpg.configure_item("card", show=shown)
        if card is None or card.alignment is None:
            return
        set_text("card_title", f"{card.path.name}: {len(card.cloud):,} points")
        set_text("card_text", card.alignment.sentence)
        self.theme.choose("card_use", card.alignment.verdict == "aligned")
        corner = dpg.get_item_rect_min("view")
        dpg.set_item_pos(
            "card", [int(corner[0]) + self.theme.px(12), int(corner[1]) + self.theme.px(64)]
        )


class Welcome:
    """What a person sees who opened nothing: where to begin."""

    def __init__(self, window: Window) -> None:
        self.window, self.theme = window, window.theme
        self._made = False
        with _plate("welcome", no_move=True):
            pass  # filled when it is first shown

    def update(self) -> None:
        """Show it while nothing is open or opening."""
        desk = self.window.desk
        empty = desk.session is None and desk.coming is None and desk.drops.card is None
        shown = empty and desk.messages.popup is None
        if shown and not self._made:
            self._made = True
            self._fill()
        dpg.configure_item("welcome", show=shown)
        if shown:
            corner, area = dpg.get_item_rect_min("view"), self.window.viewport.area
            size = dpg.get_item_rect_size("welcome")
            place = [
                float(int(c + max(0, (a - s) / 2)))
                for c, a, s in zip(corner, area, size, strict=True)
            ]
            if place != dpg.get_item_pos("welcome"):
                dpg.set_item_pos("welcome", place)

    def _fill(self) -> None:
        window, theme, desk = self.window, self.theme, self.window.desk
        wide = theme.px(420)
        with dpg.group(parent="welcome"):
            dpg.bind_item_font(dpg.add_text("Watch K-Buffers learn a scene"), theme.large)
            dpg.add_text(
                "Drop a scene folder, a point cloud or a run on this window, or begin here:",
                wrap=wide,
            )
            button(
                "The bundled fire engine",
                "welcome_lego",
                lambda: desk.drops.take_text("lego"),
                width=wide,
            )
            theme.choose("welcome_lego", True)
            earlier = desk.earlier_run()
            if earlier is not None:
                step = f", step {earlier.step:,}" if earlier.step is not None else ""
                button(
                    f"Continue {earlier.run.parent.name}{step}",
                    "welcome_resume",
                    desk.resume_last,
                    width=wide,
                )
            for number, recent in enumerate(desk.settings.listed_recent()[:4]):
                button(
                    f"{recent.kind.capitalize()} {Path(recent.path).name}",
                    f"welcome_recent_{number}",
                    lambda path=recent.path: desk.drops.take_text(path),
                    width=wide,
                    help=recent.path,
                )
            with dpg.group(horizontal=True):
                button("Open file ...", "welcome_file", window.open_file)
                button("Open folder ...", "welcome_folder", window.open_folder)


class ErrorPopup:
    """The newest error, until it is dismissed; training goes on behind it."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        with _plate("error"):
            dpg.bind_item_font(theme.tint(dpg.add_text("That did not work"), "bad"), theme.bold)
            dpg.add_text("", tag=publish("error_text"), wrap=theme.px(520))
            with dpg.group(horizontal=True):
                button("OK", "error_ok", desk.messages.dismiss, width=theme.px(90))
                theme.tint(dpg.add_text("", tag="error_more"), "faint")

    def update(self) -> None:
        """Show or hide it."""
        messages = self.desk.messages
        popup = messages.popup
        if popup is None:
            dpg.hide_item("error")
            return
        if not dpg.is_item_shown("error"):
            dpg.show_item("error")
            dpg.focus_item("error")  # over whatever else lies on the picture
        set_text("error_text", popup.text)
        more = messages.popup_more
        set_text("error_more", f"{more} more in the log" if more else "also in the log")
        dpg.set_item_pos("error", list(_middle(self.theme, 540, 300)))
