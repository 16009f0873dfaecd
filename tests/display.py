"""An X display for tests that open windows: a fresh virtual one, never the desktop's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def need(*programs: str) -> None:
    """Skip the test, saying why, where one of ``programs`` is not installed."""
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)} (apt-get install xvfb xdotool)")


def need_window_modules() -> None:
    """Skip the test without the packages of the window.

    They are only looked for: glfw may not be imported before ``app.native.bind`` has run.
    """
    for name in ("dearpygui", "glfw", "OpenGL"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the Python package {name} is not installed")


@contextmanager
def virtual_display(size: str = "1920x1200", *options: str) -> Iterator[str]:
    """Run Xvfb on a free display; yields its name. Skips without Xvfb.

    ``options`` are further ones of Xvfb. A fresh server for every run: a window manager that died
    leaves traces that GLFW 3.4 aborts on.
    """
    need("Xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(write),
            "-screen",
            "0",
            f"{size}x24",
            "-nolisten",
            "tcp",
            *options,
        ],
        pass_fds=(write,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()  # written when the server is ready
        if not number:
            assert server.stderr is not None
            raise RuntimeError(f"Xvfb did not start: {server.stderr.read().decode()}")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(10)
        if server.stderr is not None:
            server.stderr.close()


@contextmanager
def any_display() -> Iterator[str]:
    """The display of the environment, or a virtual one that is put there: for hidden windows."""
    given = os.environ.get("DISPLAY")
    if given:
        yield given
        return
    with virtual_display() as display:
        os.environ["DISPLAY"] = display
        try:
            yield display
        finally:
            del os.environ["DISPLAY"]
