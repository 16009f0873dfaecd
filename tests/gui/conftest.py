"""Fixtures of the tests that drive the real window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.display import need, need_window_modules, virtual_display
from tests.driver import WindowDriver


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A virtual screen of 1920x1200 for all tests of this folder; skips where it cannot be."""
    need("Xvfb", "xdotool")
    need_window_modules()
    with virtual_display("1920x1200") as name:
        yield name


@pytest.fixture
def open_window(display: str, tmp_path: Path) -> Iterator[Callable[..., WindowDriver]]:
    """``open_window("--scene", "lego", ...)``: the program, killed at the end of the test."""
    with ExitStack() as opened:

        def start(*arguments: str | Path, **options: Any) -> WindowDriver:
            return opened.enter_context(WindowDriver(arguments, tmp_path, display, **options))

        yield start
