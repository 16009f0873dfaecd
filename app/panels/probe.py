"""The pixel under the mouse: which points lie behind it, layer by layer."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.probe import Probe, probe
from app.theme import Theme
from app.widgets import publish, set_text

ROWS = 16  # layers that fit; the rest is counted
BARS_HEIGHT = 56
_COLUMNS = ("", "layer", "point", "depth", "distance", "share")
_GAUSSIAN = "Gaussian"  # the column of points, where they are Gaussians


class ProbePanel:
    """See the module's text.

    Args:
        width: of the panel, in pixels.
    """

    def __init__(self, desk: Desk, theme: Theme, width: int) -> None:
        self.desk, self.theme, self.width = desk, theme, width
        self.current: Probe | None = None
        self._key: object = None
        dpg.add_text("Point at the picture.", tag=publish("probe_line"))
        with dpg.drawlist(width, theme.px(BARS_HEIGHT), tag=publish("probe_bars")):
            pass
        with dpg.table(
            tag=publish("probe_table"),
            header_row=True,
            borders_innerH=True,
            policy=dpg.mvTable_SizingStretchProp,
        ):
            for name in _COLUMNS:
                weight = 0.4 if not name else 1.0
                dpg.add_table_column(
                    label=name, tag=f"probe_head_{name}", init_width_or_weight=weight
                )
            for row in range(ROWS):
                with dpg.table_row(tag=f"probe_row_{row}", show=False):
                    dpg.add_color_button(
                        (0, 0, 0, 255),
                        tag=f"probe_{row}_0",
                        no_border=True,
                        width=theme.px(14),
                        height=theme.px(14),
                    )
                    for column in range(1, len(_COLUMNS)):
                        dpg.add_text("", tag=f"probe_{row}_{column}")

        with dpg.theme() as dense, dpg.theme_component(dpg.mvAll):  # eight layers without scrolling
            dpg.add_theme_style(dpg.mvStyleVar_CellPadding, theme.px(4), 0)
            dpg.add_theme_style(dpg.mvStyleVar_ItemSpacing, theme.px(4), 0)
            dpg.add_theme_style(dpg.mvStyleVar_FramePadding, theme.px(2), 0)
        dpg.bind_item_theme("probe_table", dense)

    def resize(self, width: int) -> None:
        """Another width of the panel, in pixels."""
        self.width = width
        dpg.configure_item("probe_bars", width=width)
        self._key = None

    def point(self, pixel: tuple[int, int] | None) -> None:
        """Look at this pixel of the shown picture; None leaves the last one."""
        shown = self.desk.pictures.shown
        if shown is None or pixel is None:
            return
        result = shown.job.result
        k = shown.job.look.main.k
        key = (id(result), pixel, k, self.width, self.theme.name)
        if key == self._key:
            return
        self._key = key
        self.current = probe(result, k, *pixel)
        self._show()

    def update(self) -> None:
        """The name of what is looked at; all else changes with the mouse."""
        desk = self.desk
        gaussians = desk.viewing.gaussians and not desk.shows_preview
        dpg.configure_item("probe_head_point", label=_GAUSSIAN if gaussians else "point")

    def _show(self) -> None:
        found = self.current
        dpg.delete_item("probe_bars", children_only=True)
        if found is None:
            set_text("probe_line", "The layers of this pixel come when the camera stands.")
        else:
            text = f"Pixel {found.x}, {found.y}"
            if found.rgb is not None:
                text += "   colour " + ", ".join(f"{round(255 * c)}" for c in found.rgb)
            if found.alpha is not None:
                text += f"   covered {found.alpha:.0%}"
            empty = "" if found.rows else "   nothing here"
            more = f"   {len(found.rows) - ROWS} more" if len(found.rows) > ROWS else ""
            set_text("probe_line", text + empty + more)
            self._draw_bars(found)
        rows = [] if found is None else found.rows[:ROWS]
        for i in range(ROWS):
            dpg.configure_item(f"probe_row_{i}", show=i < len(rows))
        for i, row in enumerate(rows):
            color = [round(255 * min(max(c, 0.0), 1.0)) for c in row.color]
            dpg.set_value(f"probe_{i}_0", [*color, 255])
            texts = (
                str(row.layer),
                f"{row.id}",
                f"{row.depth:.4g}",
                f"{row.distance:.2f}",
                f"{row.weight:.1%}",
            )
            for column, text in enumerate(texts, 1):
                set_text(f"probe_{i}_{column}", text)

    def _draw_bars(self, found: Probe) -> None:
        """Along the ray: where each point lies, and how high its share is."""
        if not found.rows:
            return
        px, palette = self.theme.px, self.theme.palette
        depths = [row.depth for row in found.rows]
        near, far = min(depths), max(depths)
        span = max(far - near, 1e-6 * max(abs(far), 1.0))
        most = max(max(row.weight for row in found.rows), 1e-6)
        base, top, margin = px(BARS_HEIGHT - 18), px(4), px(14)
        dpg.draw_line((0, base), (self.width, base), color=palette.faint, parent="probe_bars")
        for row in reversed(found.rows):
            x = margin + (row.depth - near) / span * (self.width - 2 * margin)
            height = max(px(3), row.weight / most * (base - top))
            color = [round(255 * min(max(c, 0.0), 1.0)) for c in row.color]
            dpg.draw_rectangle(
                (x - px(4), base - height),
                (x + px(4), base),
                fill=[*color, 255],
                color=palette.text,
                parent="probe_bars",
            )
        for value, x in ((near, 0), (far, self.width - px(52))):
            dpg.draw_text(
                (x, base + px(2)),
                f"{value:.3g}",
                size=px(13),
                color=palette.faint,
                parent="probe_bars",
            )
        dpg.draw_text(
            (self.width / 2 - px(60), base + px(2)),
            "depth along the ray",
            size=px(13),
            color=palette.faint,
            parent="probe_bars",
        )
