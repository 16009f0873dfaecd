"""One GLFW for everything, and the probe that says whether a window is possible at all.

Dear PyGui's Linux and macOS wheels link GLFW statically and export its symbols. Told to load that
very file, pyglfw drives *Dear PyGui's* GLFW, which gives OS file drops and physical keys on its
window. Dear PyGui aborts the process where it finds no display, so everything is tried here first.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from render.errors import UserError

INSTEAD = "use --headless to work without a window."


class NoWindow(UserError):
    """There can be no window here; the sentence says why and what to do."""


def bind() -> bool:
    """Choose the GLFW that pyglfw loads; to be called before ``glfw`` or ``OpenGL`` is imported.

    Returns:
        True when pyglfw will drive Dear PyGui's own GLFW.

    Raises:
        NoWindow: Dear PyGui is not installed or cannot be loaded.
    """
    if sys.platform == "linux":
        # Dear PyGui is always X11 with GLX. In a Wayland session PyOpenGL would choose EGL, and
        # pyglfw its Wayland library.
        os.environ.setdefault("PYOPENGL_PLATFORM", "x11")
        os.environ.setdefault("PYGLFW_LIBRARY_VARIANT", "x11")
    try:
        spec = importlib.util.find_spec("dearpygui")
        if spec is None or spec.origin is None:
            raise NoWindow(f"Dear PyGui is not installed: pip install dearpygui glfw, or {INSTEAD}")
        import dearpygui.dearpygui  # noqa: F401 - the library below needs it to be loaded
    except ImportError as error:
        raise NoWindow(f"Dear PyGui cannot be loaded ({error}): {_libraries()}{INSTEAD}") from error
    library = Path(spec.origin).parent / "_dearpygui.so"
    if sys.platform == "win32" or not library.exists():
        return False
    if not hasattr(ctypes.CDLL(str(library)), "glfwSetDropCallback"):
        return False
    if "glfw" in sys.modules:  # too late to choose
        return os.environ.get("PYGLFW_LIBRARY") == str(library)
    os.environ["PYGLFW_LIBRARY"] = str(library)
    return True


def open_hidden() -> Any:
    """A hidden window with an OpenGL 3.3 core context, current nowhere; main thread only.

    Its failure is the probe for Dear PyGui's own window. Where that one is not drawn with OpenGL
    (Windows: Direct3D, macOS: Metal), None means only that there is no preview.

    Raises:
        NoWindow: no display, or on Linux a display without OpenGL 3.3.
    """
    try:
        import glfw
    except ImportError as error:
        raise NoWindow(
            f"glfw cannot be loaded ({error}): pip install glfw, or {INSTEAD}"
        ) from error
    glfw.ERROR_REPORTING = "ignore"  # failures are told in our own words
    try:
        if not glfw.init():
            raise NoWindow(f"{_no_display()}: {INSTEAD}")
        glfw.window_hint(glfw.VISIBLE, False)
        glfw.window_hint(glfw.CONTEXT_VERSION_MAJOR, 3)
        glfw.window_hint(glfw.CONTEXT_VERSION_MINOR, 3)
        glfw.window_hint(glfw.OPENGL_PROFILE, glfw.OPENGL_CORE_PROFILE)
        glfw.window_hint(glfw.OPENGL_FORWARD_COMPAT, True)  # macOS insists
        hidden = glfw.create_window(16, 16, "offscreen OpenGL", None, None)
        # Hints are global: without this the window of Dear PyGui would be hidden too.
        glfw.default_window_hints()
        if hidden:  # a failed window is a null pointer, not None
            return hidden
        if sys.platform != "linux":
            return None
        glfw.terminate()
        raise NoWindow(
            f"The display {os.environ.get('DISPLAY', '')} has no OpenGL 3.3: "
            f"install a graphics driver (Debian: libgl1 libgl1-mesa-dri), or {INSTEAD}"
        )
    finally:
        glfw.ERROR_REPORTING = "log"


def raw_glfw() -> ctypes.CDLL:
    """The GLFW library that pyglfw drives, with function objects of our own."""
    from glfw import library

    assert library.glfw is not None  # else the import had failed
    return ctypes.CDLL(library.glfw._name)


def _no_display() -> str:
    if sys.platform != "linux":
        return "No display was found"
    display = os.environ.get("DISPLAY")
    if display:
        return f"The display {display} does not answer"
    if os.environ.get("WAYLAND_DISPLAY"):
        return "Dear PyGui needs X11 and this Wayland session has no XWayland (DISPLAY is not set)"
    return "No display was found (DISPLAY is not set)"


def _libraries() -> str:
    return "install libx11-6 and libgl1 (Debian), or " if sys.platform == "linux" else ""
