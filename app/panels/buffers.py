"""The K-buffer inspector: how many layers, what of them, which one."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.look import MODE_INFO, MODES, ModeInfo
from app.shortcuts import MODE_KEYS, tooltip
from app.snapshot import Sweep
from app.theme import Theme
from app.viewing import SCALES
from app.widgets import (
    button,
    heading,
    hint,
    layer_slider,
    publish,
    set_layer_slider,
    set_text,
    takes_text,
)
from render.export.styles import FAINTEST, RADIUS, Shape

BARS_HEIGHT = 58
BY_HAND = "by hand"
_RANGES = {"1 to 99 %": (1.0, 99.0), "5 to 95 %": (5.0, 95.0), "all": (0.0, 100.0)}
_SHAPES: dict[str, Shape] = {"Splats": "splat", "Ellipsoids": "ellipse", "Centres": "point"}
_SHAPE_NAMES = {shape: name for name, shape in _SHAPES.items()}
assert set(_SHAPE_NAMES) == set(get_args(Shape))
_PLAIN = tuple((i, info) for i, info in enumerate(MODES, 1) if info.value is None)
_NUMBERED = {info.mode: (i, info) for i, info in enumerate(MODES, 1)}
_WHY = (
    "K = how many points or Gaussians make up each pixel. Pull it to 1 to see why one is not "
    "enough. The bars say how good the picture of this camera is with each K."
)


class BuffersPanel:
    """See the module's text.

    Args:
        width: of the panel, in pixels.
    """

    def __init__(self, desk: Desk, theme: Theme, width: int) -> None:
        self.desk, self.theme, self.width = desk, theme, width
        self._bars_key: object = None
        px = theme.px
        with dpg.group(horizontal=True):
            heading("K-buffer", theme)
            theme.tint(dpg.add_text("", tag=publish("buffers_line")), "faint")
        with dpg.group(horizontal=True, xoffset=px(48)):
            dpg.add_text("K")
            layer_slider("k", desk.viewing.set_k)
            hint("k", f"{_WHY} {tooltip('k_more')}")
        with dpg.drawlist(width, px(BARS_HEIGHT), tag=publish("k_bars")):
            pass
        with dpg.item_handler_registry() as handler:
            dpg.add_item_clicked_handler(callback=self._click_bars)
        dpg.bind_item_handler_registry("k_bars", handler)
        for start in (0, 4):
            with dpg.group(horizontal=True):
                self._mode_buttons(_PLAIN[start : start + 4])
        # What may be hidden has a group of its own: a tooltip without its widget would show at the
        # one before. Opacity is in front because Gaussians and discs have it: without its first
        # item Dear PyGui draws a horizontal group behind the end of the line above.
        with dpg.group(horizontal=True, tag="values_row", show=False):
            self._mode_buttons((_NUMBERED["opacity"],))
            with dpg.group(tag="light_column"):
                self._mode_buttons((_NUMBERED["light"],))
            with dpg.group(horizontal=True, tag="gaussians_row"):
                self._mode_buttons((_NUMBERED["normal"],))
                self._style_controls()
        with dpg.group(horizontal=True, xoffset=px(48)):
            dpg.add_text("Layer")
            layer_slider("layer", desk.viewing.set_layer)
            hint("layer", f"1 is the nearest. {tooltip('layer_next')}")
        with dpg.group(horizontal=True, xoffset=px(48)):
            dpg.add_text("Depth")
            dpg.add_combo(
                (*_RANGES, BY_HAND),
                tag=publish("depth_mode"),
                width=px(89),
                callback=self._set_range,
            )
            dpg.add_drag_floatx(
                tag=takes_text(publish("depth_range")),
                size=2,
                width=-1,
                speed=0.01,
                format="%.3g",
                callback=self._set_by_hand,
            )
            hint(
                "depth_mode",
                "Which depths the colours span: percentiles of what is seen, or "
                "near and far in scene units.",
            )
        self.resize(width)

    def _mode_buttons(self, modes: Sequence[tuple[int, ModeInfo]]) -> None:
        for number, info in modes:
            button(
                info.label,
                f"mode_{info.mode}",
                lambda m=info.mode: self.desk.viewing.set_mode(m),
                shortcut=f"mode_{number}" if number <= MODE_KEYS else "",
                help=info.hint,
            )

    def _style_controls(self) -> None:
        """How Gaussians are drawn, and how large."""
        viewing = self.desk.viewing
        dpg.add_combo(
            tuple(_SHAPES),
            tag=publish("shape"),
            callback=lambda s, name: viewing.set_shape(_SHAPES[name]),
        )
        hint(
            "shape",
            f"How Gaussians are drawn. Ellipsoids reach to {RADIUS:g} standard deviations; "
            f"they and the centres leave out what is fainter than {FAINTEST:.0%}. "
            f"{tooltip('shape_next')}",
        )
        dpg.add_slider_float(
            tag=takes_text(publish("scale")),
            min_value=SCALES[0],
            max_value=SCALES[1],
            default_value=1.0,
            format="x %.2f",
            clamped=True,
            callback=lambda s, value: viewing.set_scale(value),
        )
        hint("scale", "Size of the Gaussians; 1 = as trained. A double click goes back to 1.")
        with dpg.item_handler_registry() as handler:
            dpg.add_item_double_clicked_handler(callback=lambda: viewing.set_scale(1.0))
        dpg.bind_item_handler_registry("scale", handler)

    def resize(self, width: int) -> None:
        """Another width of the panel, in pixels."""
        self.width = width
        gap = self.theme.px(7)
        for tag in (*(f"mode_{info.mode}" for info in MODES), "shape", "scale"):
            dpg.configure_item(tag, width=(width - 3 * gap) // 4)
        dpg.configure_item("k_bars", width=width)
        self._bars_key = None

    def update(self) -> None:
        desk = self.desk
        look, k = desk.viewing.look, desk.viewing.trained_k
        main = look.main
        set_layer_slider("k", main.k, k)
        set_layer_slider("layer", main.layer, main.k)
        for info in MODES:
            chosen = main.source == "model" and main.mode == info.mode
            self.theme.choose(f"mode_{info.mode}", chosen)
        viewing = desk.viewing
        dpg.configure_item("values_row", show=viewing.gaussians or bool(viewing.values))
        dpg.configure_item("light_column", show="transmittance" in viewing.values)
        dpg.configure_item("gaussians_row", show=viewing.gaussians)
        dpg.configure_item("mode_features", show=self._has_features())
        set_text("shape", _SHAPE_NAMES[look.style.shape])
        if not dpg.is_item_active("scale"):
            dpg.set_value("scale", look.style.scale)
        set_text("buffers_line", self._hint())
        depth = look.atlas_mode == "depth"
        by_hand = depth and look.depth_range is not None
        names = {value: name for name, value in _RANGES.items()}
        mode = BY_HAND if look.depth_range is not None else names[look.percentiles]
        set_text("depth_mode", mode)
        dpg.configure_item("depth_mode", enabled=depth)
        dpg.configure_item("depth_range", enabled=by_hand)
        if not by_hand and desk.pictures.shown is not None:
            span = desk.pictures.shown.depth_range
            if span is not None:
                dpg.set_value("depth_range", span)
        self._draw_bars(k)

    def _has_features(self) -> bool:
        """Whether the layers that came last have some; true as long as none came."""
        result = self.desk.pictures.latest
        insides = () if result is None or self.desk.shows_preview else result.insides.values()
        found = ["features" in each.extra or each.feature_norm is not None for each in insides]
        return any(found) or not found

    def _hint(self) -> str:
        """What is shown; for the picture, what the bars mean."""
        main, sweep = self.desk.viewing.look.main, self.desk.pictures.sweep
        if main.mode != "picture":
            return MODE_INFO[main.mode].hint
        if sweep is None:
            return ""
        return f"dB against {'the photo' if sweep.photo else 'the picture of all K'}, for each K"

    # ------------------------------------------------------------------ depth range
    def _set_range(self, sender: object, choice: str) -> None:
        viewing = self.desk.viewing
        if choice == BY_HAND:
            near, far = dpg.get_value("depth_range")[:2]
            viewing.look = replace(viewing.look, depth_range=(near, max(far, near + 1e-6)))
            return
        viewing.look = replace(viewing.look, depth_range=None, percentiles=_RANGES[choice])

    def _set_by_hand(self, sender: object, values: list[float]) -> None:
        viewing = self.desk.viewing
        near, far = values[:2]
        if math.isfinite(near) and math.isfinite(far):
            viewing.look = replace(viewing.look, depth_range=(near, max(far, near + 1e-6)))

    # ------------------------------------------------------------------ quality with each K
    def _draw_bars(self, count: int) -> None:
        sweep = self.desk.pictures.sweep
        chosen = self.desk.viewing.look.main.k
        preview = self.desk.shows_preview
        key = (sweep, chosen, count, preview, self.width, self.theme.name)
        if key == self._bars_key:
            return
        self._bars_key = key
        dpg.delete_item("k_bars", children_only=True)
        px, palette = self.theme.px, self.theme.palette
        if sweep is None:
            dpg.draw_text(
                (px(2), px(20)),
                "Bare points: no PSNR"
                if preview
                else "PSNR for each K: comes when the camera stands",
                size=px(14),
                color=palette.faint,
                parent="k_bars",
            )
            return
        heights = bar_heights(sweep)
        slot = self.width / len(heights)
        top, bottom = px(18), px(BARS_HEIGHT - 2)
        for i, (value, share) in enumerate(zip(sweep.psnr, heights, strict=True)):
            left, right = i * slot + px(2), (i + 1) * slot - px(2)
            y = bottom - share * (bottom - top)
            fill = palette.accent if i + 1 == chosen else palette.field_hovered
            dpg.draw_rectangle(
                (left, y),
                (right, bottom),
                color=(0, 0, 0, 0),
                fill=fill,
                rounding=px(2),
                parent="k_bars",
            )
            text = f"{value:.1f}" if math.isfinite(value) else "all"
            if slot > px(26):
                dpg.draw_text(
                    (left + px(1), y - px(16)),
                    text,
                    size=px(13),
                    color=palette.text if i + 1 == chosen else palette.faint,
                    parent="k_bars",
                )
            dpg.draw_text(
                ((left + right) / 2 - px(4), bottom - px(16)),
                str(i + 1),
                size=px(13),
                color=palette.on_accent if i + 1 == chosen else palette.text,
                parent="k_bars",
            )

    def _click_bars(self) -> None:
        x = dpg.get_mouse_pos(local=False)[0] - dpg.get_item_rect_min("k_bars")[0]
        count = self.desk.viewing.trained_k
        self.desk.viewing.set_k(1 + int(x / self.width * count))


def bar_heights(sweep: Sweep) -> list[float]:
    """0.3..1 for each K: the worst finite value stands at 0.3, the best at the top."""
    finite = [value for value in sweep.psnr if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    span = max(high - low, 1e-6)
    return [0.3 + 0.7 * ((v - low) / span if math.isfinite(v) else 1.0) for v in sweep.psnr]
