"""How the window ends: closed or killed at any moment, it saves, and goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from render.training.checkpoint import list_checkpoints, load_latest, step_of
from tests.driver import ROOT, State, WindowDriver
from tests.fakes import write_scene

LIMIT = 6.0  # seconds that closing may take on a busy machine; 3 is the aim

Open = Callable[..., WindowDriver]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scenes") / "disc")


def end(window: WindowDriver, how: Callable[[], None]) -> str:
    """End it; it must be gone soon, without an error. Returns what it printed."""
    start = time.monotonic()
    how()
    code, output = window.finish(20)
    seconds = time.monotonic() - start
    print(f"ended in {seconds:.2f} s")
    assert code == 0, output
    assert "Traceback" not in output
    assert seconds < LIMIT
    return output


def saved_step(window: WindowDriver, state: State) -> int:
    """The step of the newest checkpoint of the run."""
    path, content = load_latest(
        window.state_file.parent / state["folder"] / "checkpoints", lambda text: None
    )
    assert content["step"] == step_of(path)
    return content["step"]


def training(window: WindowDriver, beyond: int = 5) -> State:
    """It trains and has passed a step."""
    return window.until(lambda s: s["state"] == "running" and s["step"] > beyond, 60)


def test_a_run_survives_every_way_to_end_it(open_window: Open, scene: Path) -> None:
    """Close button, Ctrl-C, SIGTERM; after each ``--resume latest`` goes on at the saved step."""
    with open_window("--scene", scene) as window:
        state = training(window)
        end(window, window.close_button)
        first = saved_step(window, state)
        assert first >= state["step"]
    # While it measures: what it measures is abandoned, the run is not.
    with open_window("--resume", "latest", "--eval-every", "1") as window:
        start = window.until(lambda state: state["folder"])
        assert start["step"] >= first and start["folder"] == state["folder"]
        training(window, first)
        end(window, window.interrupt)
        second = saved_step(window, state)
        assert second > first
    # While it saves.
    with open_window("--resume", "latest") as window:
        training(window, second)
        window.key("ctrl+s")
        end(window, lambda: window.process.send_signal(signal.SIGTERM))
        third = saved_step(window, state)
        assert third > second
    with open_window("--resume", "latest", "--steps", str(third)) as window:
        done = window.until(lambda state: state["state"] == "finished", 60)
        assert done["step"] == third
        assert f"step {third:,}" in done["texts"]["train_line"]
        end(window, window.close_button)
        assert saved_step(window, state) == third
    rows = (window.state_file.parent / state["folder"] / "metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[0]) for row in rows[1:]]
    assert steps == sorted(set(steps))


def test_close_while_it_loads(open_window: Open) -> None:
    with open_window("--scene", "lego") as window:
        end(window, window.close_button)


def test_exit_after(open_window: Open, scene: Path) -> None:
    with open_window("--scene", scene, "--exit-after", "5") as window:
        code, output = window.finish(60)
        assert code == 0 and "Traceback" not in output
        state = window.state()
        assert state["step"] == 0 or saved_step(window, state) >= state["step"]


def test_without_a_display_it_goes_on_headless(scene: Path, tmp_path: Path) -> None:
    blind = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--scene", str(scene), "--steps", "3"],
        cwd=tmp_path, env=blind, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Continuing headless." in done.stdout
    assert "Traceback" not in done.stderr
    [run] = (tmp_path / "runs/disc").iterdir()
    assert step_of(list_checkpoints(run / "checkpoints")[0]) == 3


def test_an_error_while_saving_is_told_and_the_window_lives(open_window: Open, scene: Path) -> None:
    """The folder of the checkpoints turns into a file in the middle of the run."""
    with open_window("--scene", scene) as window:
        state = training(window)
        folder = window.state_file.parent / state["folder"] / "checkpoints"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("in the way")
        window.key("ctrl+s")
        state = window.until(lambda state: state["popup"])
        assert "checkpoints" in state["popup"] and "Traceback" not in state["popup"]
        window.key("Escape")
        window.until(lambda state: not state["popup"])
        before = window.state()["camera"]
        window.drag("view", window.center("view", 0.6, 0.5), steps=2)
        window.until(lambda state: state["camera"] != before)
        training(window, window.state()["step"])
        folder.unlink()
        folder.mkdir()
        window.key("ctrl+s")
        window.until(lambda state: "Saved " in state["messages"][-1])
        end(window, window.close_button)
