"""Small pieces that all panels are made of."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dearpygui.dearpygui as dpg

from app.shortcuts import tooltip
from app.theme import Theme

_typing: set[str | int] = set()  # widgets that take letters: no shortcut works while one is active
_published: set[str] = set()  # tags whose rectangles --ui-state writes


def publish(tag: str) -> str:
    """Register a tag for --ui-state; returns it."""
    _published.add(tag)
    return tag


def takes_text(tag: str | int) -> str | int:
    """Register a widget that letters can be typed into; returns it."""
    _typing.add(tag)
    return tag


def typing() -> bool:
    """Whether the user is typing (or dragging a slider, which Ctrl+click makes a text field)."""
    return any(dpg.does_item_exist(tag) and dpg.is_item_active(tag) for tag in _typing)


def rectangles() -> dict[str, list[float]]:
    """``tag -> [x, y, width, height]`` in window pixels of every published widget that is shown."""
    found: dict[str, list[float]] = {}
    for tag in sorted(_published):
        if not dpg.does_item_exist(tag):
            continue
        state = dpg.get_item_state(tag)
        if not state.get("visible", dpg.is_item_shown(tag)):
            continue
        corner = state.get("rect_min") or dpg.get_item_pos(tag)
        size = state.get("rect_size") or (0, 0)
        found[tag] = [*map(float, corner), *map(float, size)]
    return found


def texts() -> dict[str, str]:
    """``tag -> text`` of every published text that is shown."""
    return {
        tag: dpg.get_value(tag)
        for tag in sorted(_published)
        if dpg.does_item_exist(tag)
        and dpg.get_item_type(tag) == "mvAppItemType::mvText"
        and dpg.get_item_state(tag).get("visible")
    }


def heading(text: str, theme: Theme) -> None:
    """The name of a section."""
    dpg.bind_item_font(dpg.add_text(text), theme.bold)


def hint(item: str | int, text: str, wrap: int = 320) -> None:
    """A tooltip."""
    with dpg.tooltip(item, delay=0.5):
        dpg.add_text(text, wrap=wrap)


def button(
    label: str,
    tag: str,
    action: Callable[[], Any],
    *,
    shortcut: str = "",
    help: str = "",
    **kw: Any,
) -> str:
    """A button with its tooltip; ``shortcut`` names an action of the shortcut table."""
    dpg.add_button(label=label, tag=publish(tag), callback=lambda: action(), **kw)
    text = " ".join(part for part in (help, tooltip(shortcut) if shortcut else "") if part)
    if text:
        hint(tag, text)
    return tag


def layer_slider(tag: str, act: Callable[[int], Any], width: int = -1) -> None:
    """A slider of layers, from 1 to what the model has (set later)."""
    dpg.add_slider_int(
        tag=takes_text(publish(tag)),
        min_value=1,
        max_value=8,
        default_value=8,
        width=width,
        clamped=True,
        callback=lambda sender, value: act(value),
    )


def set_layer_slider(tag: str, value: int, most: int) -> None:
    """Show ``value`` of ``most``, unless the user is just dragging it."""
    dpg.configure_item(tag, max_value=most)
    if not dpg.is_item_active(tag):
        dpg.set_value(tag, value)


def set_text(tag: str | int, text: str) -> None:
    """Change a text only where it differs: cheap enough for every frame."""
    if dpg.get_value(tag) != text:
        dpg.set_value(tag, text)
