"""The program in a window on a virtual screen, for benchmarks: fast mouse, fast look at pixels.

Xvfb keeps its screen in a file (``-fbdir``): looking at a few pixels costs the program under
measurement nothing. The mouse moves by XTEST, as a hand moves it, without a process for each move.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.display import virtual_display
from tests.driver import WindowDriver
from tests.xdnd import Source

LEFT = 1


class Mouse:
    """Moves and presses by XTEST.

    Raises:
        OSError: no such display, or libXtst is missing (apt: libxtst6).
    """

    def __init__(self, display: str) -> None:
        self._x = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        self._test = ctypes.CDLL(ctypes.util.find_library("Xtst") or "libXtst.so.6")
        self._x.XOpenDisplay.restype = ctypes.c_void_p
        self._display = ctypes.c_void_p(self._x.XOpenDisplay(display.encode()))
        if not self._display:
            raise OSError(f"cannot open display {display}")

    def move(self, x: float, y: float) -> None:
        """To a pixel of the screen."""
        self._test.XTestFakeMotionEvent(self._display, -1, round(x), round(y), ctypes.c_ulong(0))
        self._x.XFlush(self._display)

    def button(self, down: bool, number: int = LEFT) -> None:
        """Press or release."""
        self._test.XTestFakeButtonEvent(self._display, number, down, ctypes.c_ulong(0))
        self._x.XFlush(self._display)

    def close(self) -> None:
        """Before the X server ends."""
        self._x.XCloseDisplay(self._display)


class Stage:
    """A window on a screen of its own, with mouse and pixels."""

    def __init__(self, driver: WindowDriver, display: str, framebuffer: Path) -> None:
        self.driver = driver
        self.mouse = Mouse(display)
        with Source(display) as source:
            self.corner = source.position(driver.window)
        head = np.fromfile(framebuffer, ">u4", 25)  # XWD header, XWDFile.h
        start = int(head[0]) + 12 * int(head[19])  # its own size, and a table of colours
        height, line = int(head[5]), int(head[12])
        self._screen = np.memmap(framebuffer, np.uint8, "r", start, (height, line // 4, 4))

    def pixels(self, tag: str, share: float = 1.0) -> np.ndarray:
        """What is on the screen in the middle ``share`` of a widget, [h, w, 3] uint8 BGR."""
        x, y, width, height = self.driver.rect(tag)
        left = int(self.corner[0] + x + width * (1 - share) / 2)
        top = int(self.corner[1] + y + height * (1 - share) / 2)
        return self.look((left, top, int(width * share), int(height * share)))

    def look(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """What is on the screen in ``box`` (x, y, width, height), [h, w, 3] uint8 BGR."""
        x, y, width, height = box
        return np.array(self._screen[y : y + height, x : x + width, :3])

    def middle(self, tag: str, side: int) -> tuple[int, int, int, int]:
        """A square of ``side`` pixels in the middle of a widget, on the screen."""
        x, y = self.driver.center(tag)
        return (
            round(self.corner[0] + x) - side // 2,
            round(self.corner[1] + y) - side // 2,
            side,
            side,
        )


@contextmanager
def stage(
    arguments: Sequence[str | Path],
    folder: Path,
    *,
    size: tuple[int, int] = (1280, 800),
    screen: tuple[int, int] | None = None,
    settings: Mapping[str, object] | None = None,
    start: float = 120.0,
) -> Iterator[Stage]:
    """Run ``main.py`` with ``arguments`` on a virtual screen.

    Args:
        folder: made if need be: home, settings and runs of the program.
        size: of the window.
        screen: its size; default: as large as the window.
        settings: of the user, on top of those delivered.
        start: seconds that it may take to show the window.
    """
    config = folder / "config"
    memory = folder / "screen"
    config.mkdir(parents=True, exist_ok=True)
    memory.mkdir(exist_ok=True)
    (folder / "ui-state.json").unlink(missing_ok=True)  # of an earlier run
    own = {"version": 1, "width": size[0], "height": size[1], "x": 0, "y": 0, **(settings or {})}
    (config / "settings.json").write_text(json.dumps(own))
    width, height = screen or size
    with (
        virtual_display(f"{width}x{height}", "-fbdir", str(memory)) as display,
        WindowDriver(
            arguments,
            folder,
            display,
            environment={"KBUFFERS_CONFIG": str(config)},
            start=start,
        ) as driver,
    ):
        shown = Stage(driver, display, memory / "Xvfb_screen0")
        try:
            yield shown
        finally:
            shown.mouse.close()


def load() -> str:
    """The load average of the last minute and of the last five, for the tables."""
    one, five, _ = os.getloadavg()
    return f"{one:.1f}, {five:.1f}"
