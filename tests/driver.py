"""Drives the real program by hand: its window, true mouse and keys, files dropped from outside.

The program tells what it shows through ``--ui-state``: a JSON object with at least

    rects   {tag: [x, y, width, height]} of every widget, in window pixels
    writes  how often the state was written; at most once a frame

Nothing here sleeps in the hope that the program is ready: input waits for frames, and tests wait
for a state with :meth:`WindowDriver.until`. Without a window manager: of several
windows on one display the newest covers the others and has the keyboard.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageGrab

from render.kbuffer.build import cache_folder
from tests.xdnd import Source

ROOT = Path(__file__).resolve().parent.parent
TITLE = "K-Buffers"
LEFT, MIDDLE, RIGHT = 1, 2, 3
_WHEEL_UP, _WHEEL_DOWN = 4, 5

State = dict[str, Any]
Place = str | tuple[float, float]  # the middle of a widget, or a point of the window


class WindowDriver:
    """The program in a window of its own; a context manager that never leaves it running.

    Args:
        arguments: of ``main.py``, without ``--ui-state``.
        folder: for the program's home, its settings and its output; also where it starts.
        display: the X display.
        environment: variables on top of those of the test.
        program: what to run instead of ``main.py``; gets ``arguments`` and ``--ui-state``.
        start: seconds that it may take to show the window.

    Raises:
        AssertionError: it ended, or showed no window in time; with all that it printed.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        display: str,
        *,
        environment: dict[str, str] | None = None,
        program: Path = ROOT / "main.py",
        start: float = 60.0,
    ) -> None:
        self.state_file = folder / "ui-state.json"
        self.state_file.unlink(missing_ok=True)  # of a program that ran here before
        self._output = folder / "output.txt"
        self._environment = _environment(folder, display) | (environment or {})
        command = [sys.executable, str(program), *map(str, arguments)]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--ui-state", str(self.state_file)],
                cwd=folder, env=self._environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._source = Source(display)
        self._display = display
        try:
            self.until(lambda state: state.get("rects"), start)
            self.window = self._find_window()
            self.focus()
            self.frames()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> WindowDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # ------------------------------------------------------------------ what it says
    def state(self) -> State:
        """The newest state; empty before the first."""
        try:
            return json.loads(self.state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def until(self, wanted: Callable[[State], Any], seconds: float = 20.0) -> State:
        """Wait for a state that is as ``wanted``; returns it.

        Raises:
            AssertionError: it did not come in time, or the program ended.
        """
        end = time.monotonic() + seconds
        while True:
            state = self.state()
            with contextlib.suppress(KeyError):  # not told yet
                if state and wanted(state):
                    return state
            if self.process.poll() is not None:
                code = self.process.returncode
                raise AssertionError(f"the program ended with {code}:\n{self.output()}")
            if time.monotonic() > end:
                raise AssertionError(
                    f"not within {seconds:g} s; last state:\n{json.dumps(state, indent=1)}\n"
                    f"output:\n{self.output()}"
                )
            time.sleep(0.03)

    def frames(self, count: int = 2, seconds: float = 20.0) -> State:
        """Wait for ``count`` more states: input before two of them has been seen by a frame."""
        start = self.state()["writes"]
        return self.until(lambda state: state["writes"] >= start + count, seconds)

    def output(self) -> str:
        """All that the program has printed."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def rect(self, tag: str) -> tuple[float, float, float, float]:
        """(x, y, width, height) of a widget in window pixels, as soon as it is shown."""
        x, y, width, height = self.until(lambda state: tag in state["rects"])["rects"][tag]
        return x, y, width, height

    def center(self, tag: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """The middle of a widget, or the point at these shares of its width and height."""
        x, y, width, height = self.rect(tag)
        return x + across * width, y + down * height

    def screenshot(self) -> np.ndarray:
        """What the window shows, [H, W, 3] uint8; of what is on the screen of it."""
        x, y = self._source.position(self.window)
        width, height = self.size()
        screen = np.asarray(ImageGrab.grab(xdisplay=self._display).convert("RGB"))
        return screen[max(y, 0) : y + height, max(x, 0) : x + width].copy()

    def picture(self, tag: str) -> np.ndarray:
        """The part of the screenshot where a widget is, [h, w, 3] uint8."""
        x, y, width, height = (round(value) for value in self.rect(tag))
        return self.screenshot()[y : y + height, x : x + width]

    def size(self) -> tuple[int, int]:
        """(width, height) of the window in pixels."""
        lines = self._xdotool("getwindowgeometry", "--shell", str(self.window)).splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return int(values["WIDTH"]), int(values["HEIGHT"])

    # ------------------------------------------------------------------ mouse
    def move(self, place: Place) -> None:
        """Put the mouse there."""
        x, y = self.center(place) if isinstance(place, str) else place
        self._xdotool("mousemove", "--window", str(self.window), str(round(x)), str(round(y)))

    def click(self, place: Place, button: int = LEFT) -> None:
        """Press and release a mouse button there."""
        self.move(place)
        self.frames()  # a widget must know that the mouse is over it
        with self._button(button):
            self.frames()
        self.frames()

    def double_click(self, place: Place) -> None:
        """Click twice, quickly."""
        self.move(place)
        self.frames()
        self._xdotool("click", "--repeat", "2", "--delay", "60", str(LEFT))
        self.frames()

    def drag(self, start: Place, end: Place, button: int = LEFT, steps: int = 8) -> None:
        """Press at ``start``, move in ``steps``, release at ``end``."""
        x0, y0 = self.center(start) if isinstance(start, str) else start
        x1, y1 = self.center(end) if isinstance(end, str) else end
        self.move((x0, y0))
        self.frames()
        with self._button(button):
            self.frames()
            for i in range(1, steps + 1):
                self.move((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps))
                self.frames(1)
            self.frames()
        self.frames()

    def wheel(self, place: Place, notches: int) -> None:
        """Turn the wheel there; positive is away from the user (up)."""
        self.move(place)
        self.frames()
        button = _WHEEL_UP if notches > 0 else _WHEEL_DOWN
        self._xdotool("click", "--repeat", str(abs(notches)), "--delay", "20", str(button))
        self.frames()

    # ------------------------------------------------------------------ keys
    def key(self, chord: str) -> None:
        """Tap a key or chord as xdotool names them: "w", "F1", "ctrl+s", "bracketleft"."""
        self._xdotool("key", chord)
        self.frames(3)

    @contextlib.contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Hold a key down inside of the ``with``."""
        self._xdotool("keydown", key)
        try:
            self.frames()
            yield
        finally:
            self._xdotool("keyup", key)
        self.frames()

    def hold(self, key: str, seconds: float) -> None:
        """Hold a key down for a while."""
        with self.holding(key):
            time.sleep(seconds)

    def type_text(self, text: str) -> None:
        """Type into whatever has the keyboard; characters of a US keyboard only.

        For others xdotool changes the keyboard layout, which comes too late now and then.
        """
        self._xdotool("type", "--delay", "40", text)
        self.frames(3)

    # ------------------------------------------------------------------ window
    def drop(self, *paths: Path | str, at: Place | None = None) -> None:
        """Drop files on the window as a file manager does.

        Raises:
            tests.xdnd.DropRefused: the window did not take them.
        """
        place = self.center(at) if isinstance(at, str) else at or (40, 40)
        self._source.drop(self.window, paths, (round(place[0]), round(place[1])))
        self.frames()

    def focus(self) -> None:
        """Give the window the keyboard; nobody else does without a window manager."""
        self._xdotool("windowfocus", "--sync", str(self.window))

    def unfocus(self) -> None:
        """Take the keyboard away from the window, as another window does."""
        self._xdotool("windowfocus", str(self._source.root))
        self.frames()

    def resize(self, width: int, height: int) -> None:
        """Another window size; returns when the program has drawn with it."""
        self._xdotool("windowsize", "--sync", str(self.window), str(width), str(height))
        self.frames(3)

    def close_button(self) -> None:
        """What the close button in the title bar does. Does not wait."""
        self._source.close(self.window)

    def interrupt(self) -> None:
        """Ctrl-C in the terminal. Does not wait."""
        self.process.send_signal(signal.SIGINT)

    def finish(self, seconds: float = 20.0) -> tuple[int, str]:
        """Wait until the program has ended by itself: its exit code and all that it printed.

        Raises:
            AssertionError: it did not end in time; it is then killed.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds:g} s:\n{self.output()}") from None
        self.kill()
        return code, self.output()

    def kill(self) -> None:
        """End it now, whatever it does, and free the connection to the display."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._source.disconnect()

    # ------------------------------------------------------------------ inside
    @contextlib.contextmanager
    def _button(self, button: int) -> Iterator[None]:
        self._xdotool("mousedown", str(button))
        try:
            yield
        finally:
            self._xdotool("mouseup", str(button))

    def _find_window(self) -> int:
        window = self._source.find(TITLE, self.process.pid)
        assert window is not None, f"no window whose title contains {TITLE!r}"
        return window

    def _xdotool(self, *arguments: str) -> str:
        done = subprocess.run(
            ["xdotool", *arguments], env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"xdotool {' '.join(arguments)}: {done.stderr}"
        return done.stdout


def _environment(folder: Path, display: str) -> dict[str, str]:
    """That of the test, with a home of its own, but with the kernels that are already built."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    environment.pop("WAYLAND_DISPLAY", None)
    environment |= {
        "DISPLAY": display,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "PYTHONUNBUFFERED": "1",
    }
    kernels = cache_folder()
    if kernels is not None:
        environment["KBUFFERS_CACHE"] = str(kernels)
    return environment
