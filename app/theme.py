"""Colours, fonts and spacing of the window: a dark and a light theme."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import dearpygui.dearpygui as dpg

from render.files import shipped

Color = tuple[int, int, int, int]
ThemeName = Literal["dark", "light"]
Tint = Literal["faint", "accent", "good", "warm", "bad"]

FONT_SIZE = 15  # px at scale 1
_FONTS = shipped("assets/font")


@dataclass(frozen=True)
class Palette:
    """The few colours that everything is drawn with."""

    window: Color  # behind everything
    panel: Color
    field: Color  # what can be operated: buttons, sliders, inputs
    field_hovered: Color
    line: Color
    text: Color
    faint: Color  # secondary text
    accent: Color  # what is chosen, what moves
    accent_hovered: Color
    on_accent: Color  # text on accent
    good: Color
    bad: Color
    warm: Color  # second curve, the wipe line


DARK = Palette(
    window=(17, 19, 23, 255),
    panel=(24, 27, 33, 255),
    field=(44, 49, 58, 255),
    field_hovered=(58, 65, 77, 255),
    line=(52, 57, 67, 255),
    text=(230, 233, 239, 255),
    faint=(146, 154, 168, 255),
    accent=(66, 133, 244, 255),
    accent_hovered=(96, 156, 255, 255),
    on_accent=(255, 255, 255, 255),
    good=(94, 201, 124, 255),
    bad=(240, 100, 92, 255),
    warm=(247, 178, 72, 255),
)
LIGHT = Palette(
    window=(225, 228, 233, 255),
    panel=(246, 247, 249, 255),
    field=(217, 221, 228, 255),
    field_hovered=(200, 206, 216, 255),
    line=(201, 206, 214, 255),
    text=(28, 32, 40, 255),
    faint=(92, 100, 114, 255),
    accent=(40, 106, 220, 255),
    accent_hovered=(28, 88, 190, 255),
    on_accent=(255, 255, 255, 255),
    good=(26, 135, 62, 255),
    bad=(200, 48, 40, 255),
    warm=(178, 104, 0, 255),
)
PALETTES: dict[ThemeName, Palette] = {"dark": DARK, "light": LIGHT}


class Theme:
    """Fonts and the bound theme; made once after ``dpg.create_context()``.

    Args:
        name: which palette.
        scale: of all sizes: the monitor's scale times the user's font scale.
    """

    def __init__(self, name: ThemeName, scale: float) -> None:
        self.name: ThemeName = name
        self.scale = scale
        with dpg.font_registry():
            size = round(FONT_SIZE * scale)
            self.font = dpg.add_font(str(_FONTS / "Inter-Regular.otf"), size)
            self.bold = dpg.add_font(str(_FONTS / "Inter-SemiBold.otf"), size)
            self.large = dpg.add_font(str(_FONTS / "Inter-SemiBold.otf"), round(1.3 * size))
        dpg.bind_font(self.font)
        self._all = {key: _global_theme(palette, scale) for key, palette in PALETTES.items()}
        self._main = {
            key: _button_theme(p.accent, p.accent_hovered, p.on_accent)
            for key, p in PALETTES.items()
        }
        self._plain = {
            key: _button_theme(p.field, p.field_hovered, p.text) for key, p in PALETTES.items()
        }
        self._main_buttons: dict[str | int, bool] = {}
        self._texts: dict[str | int, Tint] = {}
        self.use(name)

    @property
    def palette(self) -> Palette:
        """The colours in use."""
        return PALETTES[self.name]

    def px(self, pixels: float) -> int:
        """Pixels at scale 1 as pixels of this window."""
        return round(pixels * self.scale)

    def use(self, name: ThemeName) -> None:
        """Change the colours of everything."""
        self.name = name
        dpg.bind_theme(self._all[name])
        for button, chosen in list(self._main_buttons.items()):
            if dpg.does_item_exist(button):
                self._bind(button, chosen)
            else:
                del self._main_buttons[button]
        for text, tint in list(self._texts.items()):
            if dpg.does_item_exist(text):
                dpg.configure_item(text, color=getattr(self.palette, tint))
            else:
                del self._texts[text]

    def tint(self, text: str | int, tint: Tint) -> str | int:
        """Give a text one of the palette's colours, in every theme; returns the text."""
        self._texts[text] = tint
        dpg.configure_item(text, color=getattr(self.palette, tint))
        return text

    def choose(self, button: str | int, chosen: bool) -> None:
        """Show a button as chosen (accent) or not."""
        if isinstance(button, str):  # a dialog that opens again has a new button of the same name
            button = dpg.get_alias_id(button)
        if self._main_buttons.get(button) != chosen:
            self._main_buttons[button] = chosen
            self._bind(button, chosen)

    def _bind(self, button: str | int, chosen: bool) -> None:
        dpg.bind_item_theme(button, (self._main if chosen else self._plain)[self.name])


def _button_theme(color: Color, hovered: Color, text: Color) -> int | str:
    with dpg.theme() as theme, dpg.theme_component(dpg.mvButton):
        dpg.add_theme_color(dpg.mvThemeCol_Button, color)
        dpg.add_theme_color(dpg.mvThemeCol_ButtonHovered, hovered)
        dpg.add_theme_color(dpg.mvThemeCol_ButtonActive, hovered)
        dpg.add_theme_color(dpg.mvThemeCol_Text, text)
    return theme


def _global_theme(p: Palette, scale: float) -> int | str:
    core = dpg.mvThemeCat_Core
    colors = {
        dpg.mvThemeCol_WindowBg: p.window,
        dpg.mvThemeCol_ChildBg: p.panel,
        dpg.mvThemeCol_PopupBg: p.panel,
        dpg.mvThemeCol_MenuBarBg: p.panel,
        dpg.mvThemeCol_Border: p.line,
        dpg.mvThemeCol_Separator: p.line,
        dpg.mvThemeCol_Text: p.text,
        dpg.mvThemeCol_TextDisabled: p.faint,
        dpg.mvThemeCol_FrameBg: p.field,
        dpg.mvThemeCol_FrameBgHovered: p.field_hovered,
        dpg.mvThemeCol_FrameBgActive: p.field_hovered,
        dpg.mvThemeCol_Button: p.field,
        dpg.mvThemeCol_ButtonHovered: p.field_hovered,
        dpg.mvThemeCol_ButtonActive: p.field_hovered,
        dpg.mvThemeCol_SliderGrab: p.accent,
        dpg.mvThemeCol_SliderGrabActive: p.accent_hovered,
        dpg.mvThemeCol_CheckMark: p.accent,
        dpg.mvThemeCol_Header: p.field,
        dpg.mvThemeCol_HeaderHovered: p.field_hovered,
        dpg.mvThemeCol_HeaderActive: p.field_hovered,
        dpg.mvThemeCol_Tab: p.panel,
        dpg.mvThemeCol_TabHovered: p.field_hovered,
        dpg.mvThemeCol_TabActive: p.field,
        dpg.mvThemeCol_TabUnfocused: p.panel,
        dpg.mvThemeCol_TabUnfocusedActive: p.field,
        dpg.mvThemeCol_TitleBg: p.panel,
        dpg.mvThemeCol_TitleBgActive: p.field,
        dpg.mvThemeCol_TitleBgCollapsed: p.panel,
        dpg.mvThemeCol_ScrollbarBg: p.panel,
        dpg.mvThemeCol_ScrollbarGrab: p.field,
        dpg.mvThemeCol_ScrollbarGrabHovered: p.field_hovered,
        dpg.mvThemeCol_ScrollbarGrabActive: p.field_hovered,
        dpg.mvThemeCol_TableHeaderBg: p.field,
        dpg.mvThemeCol_TableBorderLight: p.line,
        dpg.mvThemeCol_TableBorderStrong: p.line,
        dpg.mvThemeCol_TableRowBg: p.panel,
        dpg.mvThemeCol_TableRowBgAlt: p.panel,
        dpg.mvThemeCol_PlotHistogram: p.accent,
        dpg.mvThemeCol_TextSelectedBg: p.accent,
        dpg.mvThemeCol_ModalWindowDimBg: (0, 0, 0, 110),
    }
    styles = {
        dpg.mvStyleVar_WindowPadding: (8, 8),
        dpg.mvStyleVar_FramePadding: (7, 4),
        dpg.mvStyleVar_ItemSpacing: (7, 5),
        dpg.mvStyleVar_ItemInnerSpacing: (6, 4),
        dpg.mvStyleVar_CellPadding: (5, 2),
        dpg.mvStyleVar_ScrollbarSize: (11,),
        dpg.mvStyleVar_GrabMinSize: (12,),
    }
    with dpg.theme() as theme, dpg.theme_component(dpg.mvAll):
        for target, color in colors.items():
            dpg.add_theme_color(target, color, category=core)
        for target, values in styles.items():
            dpg.add_theme_style(target, *(v * scale for v in values), category=core)
        for target in (
            dpg.mvStyleVar_FrameRounding,
            dpg.mvStyleVar_ChildRounding,
            dpg.mvStyleVar_PopupRounding,
            dpg.mvStyleVar_GrabRounding,
            dpg.mvStyleVar_TabRounding,
        ):
            dpg.add_theme_style(target, 4 * scale, category=core)
        dpg.add_theme_style(dpg.mvStyleVar_ChildBorderSize, 0, category=core)
        dpg.add_theme_style(dpg.mvStyleVar_WindowBorderSize, 0, category=core)
        plots = dpg.mvThemeCat_Plots
        dpg.add_theme_color(dpg.mvPlotCol_PlotBg, p.panel, category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_FrameBg, p.panel, category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_PlotBorder, p.line, category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_LegendBg, (*p.panel[:3], 200), category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_LegendBorder, p.line, category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_LegendText, p.text, category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_AxisText, p.faint, category=plots)
        dpg.add_theme_color(dpg.mvPlotCol_AxisGrid, p.line, category=plots)
        dpg.add_theme_style(dpg.mvPlotStyleVar_PlotPadding, 4, 4, category=plots)
        # Or the newest mark of a curve lies in the corner, cut off.
        dpg.add_theme_style(dpg.mvPlotStyleVar_FitPadding, 0.04, 0.15, category=plots)
    return theme
