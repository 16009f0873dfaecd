"""The tools of the window tests, and what app/native adds to Dear PyGui, on a small window."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.driver import ROOT, WindowDriver
from tests.xdnd import DropRefused, Source


@pytest.fixture(scope="module")
def window(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowDriver]:
    """One window for all tests of this file."""
    program = Path(__file__).with_name("small_window.py")
    folder = tmp_path_factory.mktemp("window")
    with WindowDriver([], folder, display, program=program) as driver:
        yield driver


def test_two_files_with_odd_names_arrive(window: WindowDriver, tmp_path: Path) -> None:
    paths = [tmp_path / "a torus é.ply", tmp_path / "100%#?.xyz"]
    before = len(window.state()["drops"])
    window.drop(*paths)
    state = window.until(lambda state: len(state["drops"]) > before)
    assert state["drops"][before:] == [[str(path) for path in paths]]
    assert "anywhere" in state["drop"]


def test_a_name_that_is_not_utf8_arrives(window: WindowDriver) -> None:
    path = os.fsdecode(b"/tmp/caf\xe9.ply")
    before = len(window.state()["drops"])
    window.drop(path, at="button")
    window.until(lambda state: state["drops"][before:] == [[path]])


def test_drop_from_the_command_line(window: WindowDriver, display: str) -> None:
    def run(title: str) -> int:
        command = [sys.executable, "-m", "tests.xdnd", title, "/tmp/one.ply"]
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | {"DISPLAY": display}, stderr=subprocess.DEVNULL
        ).returncode

    before = len(window.state()["drops"])
    assert run("no such window") == 1
    assert run("K-Buffers") == 0
    window.until(lambda state: state["drops"][before:] == [["/tmp/one.ply"]])


def test_a_window_without_drops_refuses(window: WindowDriver, display: str) -> None:
    with Source(display) as source, pytest.raises(DropRefused, match="XdndAware"):
        source.drop(source.root, ["/tmp/one.ply"])


def test_short_taps_count_and_holding_lasts(window: WindowDriver) -> None:
    before = window.state()["presses"]
    window.key("w")  # shorter than a frame
    window.key("bracketleft")
    after = window.state()["presses"]
    assert (after["W"], after["["]) == (before["W"] + 1, before["["] + 1)
    with window.holding("Escape"):
        assert window.frames(4)["held"] == ["Escape"]
    assert window.until(lambda state: not state["held"])["presses"]["Escape"] == 1


def test_a_tap_on_control_leaves_no_control_click_behind(window: WindowDriver) -> None:
    before = window.state()["presses"]["Ctrl"]
    window.key("ctrl")
    state = window.until(lambda state: state["presses"]["Ctrl"] == before + 1)
    clicks = state["clicks"]
    window.click("button")
    state = window.until(lambda state: state["clicks"] == clicks + 1)
    assert not state["control"]


def test_lost_focus_releases_the_keys(window: WindowDriver) -> None:
    with window.holding("shift"):
        assert window.frames()["held"] == ["Left Shift"]
        window.unfocus()
        window.until(lambda state: not state["focused"])
        assert window.frames()["held"] == []
    window.focus()
    window.until(lambda state: state["focused"])


def test_mouse(window: WindowDriver) -> None:
    before = window.state()
    window.double_click("red")
    window.until(lambda state: state["doubles"] == before["doubles"] + 1)
    window.drag("slider", window.center("slider", 0.99))
    window.until(lambda state: state["slider"] > 95)
    window.wheel("red", 3)
    window.wheel("red", -1)
    window.until(lambda state: state["wheel"] == before["wheel"] + 2)


def test_typing(window: WindowDriver) -> None:
    window.click("text")
    window.type_text("wasd [1] #2")
    window.until(lambda state: state["text"] == "wasd [1] #2")
    window.click("red")


def test_screenshot_and_resize(window: WindowDriver) -> None:
    for width, height in ((640, 480), (500, 400)):
        window.resize(width, height)
        window.until(lambda state, size=(width, height): state["size"] == [*size])
        assert window.screenshot().shape == (height, width, 3)
    red = window.picture("red")[5:-5, 5:-5]
    assert (red == np.array([255, 0, 0])).all()


def test_close_button(display: str, tmp_path: Path) -> None:
    program = Path(__file__).with_name("small_window.py")
    with WindowDriver([], tmp_path, display, program=program) as driver:
        driver.close_button()
        assert driver.finish() == (0, "closed\n")


def test_a_program_that_dies_is_told_with_its_words(display: str, tmp_path: Path) -> None:
    program = tmp_path / "dies.py"
    program.write_text("print('no such scene'); raise SystemExit(3)")
    with pytest.raises(AssertionError, match="ended with 3:\nno such scene"):
        WindowDriver([], tmp_path, display, program=program)
