"""What lies over the picture: the card of a dropped cloud, the welcome, the newest error."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.popups import middle
from app.theme import Theme
from app.widgets import button, publish, set_text

if TYPE_CHECKING:
    from app.window import Window


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
                    help="A new run of the same photographs that starts from these points; of "
                    "Gaussians from their centres and colours.",
                )
                button(
                    "Open on its own",
                    "card_alone",
                    desk.drops.open_alone,
                    help="Only this file, with its K buffers, without photographs.",
                )
                button("Back", "card_back", desk.drops.dismiss, help="Forget it.")

    def update(self) -> None:
        """Show or hide it."""
        card = self.desk.drops.card
        shown = card is not None and card.alignment is not None
        dpg.configure_item("card", show=shown)
        if card is None or card.alignment is None:
            return
        set_text("card_title", f"{card.path.name}: {card.count}")
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
        dpg.set_item_pos("error", list(middle(self.theme, 540, 300)))
