"""Everything that was said, errors in red, newest last."""

from __future__ import annotations

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.theme import Theme
from app.widgets import publish, set_text

LINES = 200


class LogPanel:
    """See the module's text."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        self._shown = 0
        theme.tint(dpg.add_text("", tag="log_line"), "faint")
        dpg.add_child_window(tag=publish("log_list"), border=False, height=-1)

    def update(self) -> None:
        messages = self.desk.messages
        new = min(messages.count - self._shown, len(messages.all))
        if new <= 0:
            return
        self._shown = messages.count
        p = self.theme.palette
        colors = {"info": p.text, "good": p.good, "warning": p.warm, "error": p.bad}
        follow = dpg.get_y_scroll("log_list") >= dpg.get_y_scroll_max("log_list") - 4
        for message in list(messages.all)[-new:]:
            dpg.add_text(
                f"{message.clock}  {message.text}",
                parent="log_list",
                wrap=0,
                color=colors[message.level],
            )
        lines = dpg.get_item_children("log_list", 1)
        assert isinstance(lines, list)
        for line in lines[:-LINES]:
            dpg.delete_item(line)
        if follow:
            dpg.set_y_scroll("log_list", -1.0)
        set_text(
            "log_line",
            f"{messages.count} messages, {messages.errors} errors; "
            "the run folder's log.txt keeps them.",
        )
