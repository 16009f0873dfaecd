"""What Dear PyGui does not do itself: file drops, physical keys, a context for OpenGL.

Order of calls, all on the main thread: :func:`start` before Dear PyGui makes its viewport,
:meth:`Native.attach` after ``show_viewport``, :meth:`Native.poll` once a frame,
:meth:`Native.close` after the preview has ended and before ``destroy_context``.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from app.native import drop
from app.native.binding import NoWindow, bind, open_hidden
from app.native.drop import OnPaths
from app.native.keys import KEYS, GlfwKeyboard, ImguiKeyboard, Keyboard, WindowsKeyboard

__all__ = ["KEYS", "Native", "NoWindow", "bind", "start"]

_ANYWHERE = "Drop files or folders anywhere on the window."


@dataclass
class Native:
    """The window system behind Dear PyGui.

    Args:
        shared: pyglfw drives Dear PyGui's own GLFW.
        hidden: window with the OpenGL 3.3 context of the preview; None: no preview here.
    """

    shared: bool
    hidden: Any | None
    keyboard: Keyboard = field(default_factory=ImguiKeyboard)
    window: Any | None = None  # Dear PyGui's GLFW window, where there is one
    _woken: threading.Event = field(default_factory=threading.Event)

    def attach(self, title: str, on_paths: OnPaths) -> str:
        """Take hold of Dear PyGui's window called ``title``; after ``dpg.show_viewport()``.

        ``on_paths`` gets the dropped paths in the middle of a frame: it may only enqueue them.

        Returns:
            A sentence for the user: where files may be dropped, or why not.
        """
        try:
            if sys.platform == "win32":
                handle = drop.windows_handle(title)
                if handle is not None:
                    self.keyboard = WindowsKeyboard(handle)
                    if drop.accept_windows(handle, on_paths):
                        return _ANYWHERE
            elif self.shared:
                import glfw

                mac = sys.platform == "darwin"
                self.window = drop.mac_window() if mac else glfw.get_current_context()
                if self.window:
                    self.keyboard = GlfwKeyboard(self.window)
                    drop.accept_glfw(self.window, on_paths)
                    return _ANYWHERE
        except (OSError, AttributeError, ValueError, ctypes.ArgumentError) as error:
            return f"Dropping files does not work here ({error}); use Open instead."
        return "Dropping files does not work with this build of Dear PyGui; use Open instead."

    def key_down(self, name: str) -> bool:
        """Whether a key is held, or was tapped since the last call with this ``name``.

        To be called every frame for every key of interest, also while keys are of no interest, or
        old taps come late.

        Names are of the US keyboard: "W", "1", "[", "F1", "Left Shift"; "Shift", "Ctrl" and "Alt"
        mean either side. All of them: :data:`KEYS`.

        Raises:
            KeyError: there is no such name.
        """
        return self.keyboard.down(name)

    @property
    def focused(self) -> bool:
        """Whether keys go to the window; True where that is unknown."""
        if isinstance(self.keyboard, WindowsKeyboard):
            return self.keyboard.focused
        if self.window:
            import glfw

            return bool(glfw.get_window_attrib(self.window, glfw.FOCUSED))
        return True

    @property
    def content_scale(self) -> float:
        """How much larger than 96 dpi the desktop wants its text; 1.0 where that is unknown."""
        if sys.platform == "darwin":  # window coordinates are already scaled
            return 1.0
        import glfw

        monitor = glfw.get_primary_monitor()
        scale = glfw.get_monitor_content_scale(monitor)[0] if monitor else 1.0
        return scale if 0.5 <= scale <= 8 else 1.0

    def drag_position(self, button: int) -> tuple[float, float] | None:
        """Where in the window the mouse is now while ``button`` (0 = left) is down, else None.

        Dear PyGui tells it a frame later.
        """
        if sys.platform != "linux" or not (self.shared and self.window):
            return None
        import glfw

        if glfw.get_mouse_button(self.window, button) != glfw.PRESS:
            return None
        return glfw.get_cursor_pos(self.window)

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the next input or :meth:`wake`."""
        if self.shared and self.window and seconds > 0:
            import glfw

            glfw.wait_events_timeout(seconds)
        else:
            # Nothing tells of input here: look for it often enough.
            self._woken.wait(min(seconds, 1 / 30))
            self._woken.clear()

    def wake(self) -> None:
        """End :meth:`wait`; any thread."""
        self._woken.set()
        if self.shared and self.window:
            import glfw

            glfw.post_empty_event()

    def poll(self) -> None:
        """Serve the hidden window where Dear PyGui does not do it along with its own."""
        if not self.shared:
            import glfw

            glfw.poll_events()

    def close(self) -> None:
        """Destroy the hidden window. A shared GLFW is terminated by Dear PyGui."""
        import glfw

        if self.hidden is not None:
            glfw.destroy_window(self.hidden)
            self.hidden = None
        if not self.shared:
            glfw.terminate()


def start() -> Native:
    """Try everything that a window needs, and open the hidden one.

    Raises:
        NoWindow: why there can be none; the process is then still sound.
    """
    shared = bind()
    return Native(shared, open_hidden())
