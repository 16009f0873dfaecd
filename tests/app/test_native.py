"""app/native without a window: the binding, the key table, and displays that cannot show one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from app import native
from app.native.keys import EITHER, KEYS, codes
from tests.display import need_window_modules, virtual_display
from tests.driver import ROOT

_START = """
from app import native
try:
    native.start()
except native.NoWindow as error:
    print(error)
"""


def _reason(**display: str) -> str:
    """What a process on such a display says; it must survive to say it."""
    need_window_modules()
    gone = {"DISPLAY", "WAYLAND_DISPLAY"}
    environment = {k: v for k, v in os.environ.items() if k not in gone} | display
    done = subprocess.run(
        [sys.executable, "-c", _START], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


linux = pytest.mark.skipif(sys.platform != "linux", reason="X11 displays")


@linux
def test_no_display() -> None:
    assert "DISPLAY is not set" in _reason()
    assert "--headless" in _reason()


@linux
def test_wayland_alone_is_told_apart() -> None:
    assert "XWayland" in _reason(WAYLAND_DISPLAY="wayland-0")


@linux
def test_dead_display() -> None:
    assert "The display :4567 does not answer" in _reason(DISPLAY=":4567")


@linux
def test_display_without_opengl() -> None:
    with virtual_display("320x200", "-extension", "GLX") as display:
        assert "has no OpenGL 3.3" in _reason(DISPLAY=display)


@linux
def test_dear_pygui_exports_its_glfw() -> None:
    """Drops and physical keys rest on this; a Dear PyGui that changes it must be noticed."""
    need_window_modules()
    assert native.bind()


def test_key_table_agrees_with_both_libraries() -> None:
    need_window_modules()
    native.bind()
    import dearpygui.dearpygui as dpg
    import glfw

    signs = {
        "-": "MINUS", "=": "EQUAL", "[": "LEFT_BRACKET", "]": "RIGHT_BRACKET", ";": "SEMICOLON",
        "'": "APOSTROPHE", "`": "GRAVE_ACCENT", "\\": "BACKSLASH", ",": "COMMA", ".": "PERIOD",
        "/": "SLASH",
    }  # fmt: skip
    for name, key in KEYS.items():
        constant = signs.get(name, name.upper().replace(" ", "_").replace("CTRL", "CONTROL"))
        assert key.glfw == getattr(glfw, f"KEY_{constant}"), name
        assert hasattr(dpg, f"mvKey_{key.dpg}"), name
    assert len({key.scan for key in KEYS.values()}) == len(KEYS)


def test_every_shortcut_is_in_the_key_table() -> None:
    from app import shortcuts

    for name in (*shortcuts.KEYS, *EITHER):
        assert codes(name)
