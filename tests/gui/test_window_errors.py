"""An error of our own in a panel, in a callback and in every frame: told, and the window lives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.driver import WindowDriver

# The program, with three pieces of it broken.
_BROKEN = """
import sys
sys.path.insert(0, {root!r})
import main
from app.panels.camera import CameraPanel
from app.viewing import Viewing

def fail(*arguments):
    raise ZeroDivisionError("told to fail")

CameraPanel.update = Viewing.set_mode = Viewing.wish = fail
main.run()
"""


def test_what_is_broken_is_told_and_the_rest_goes_on(
    open_window: Callable[..., WindowDriver], tmp_path: Path
) -> None:
    program = tmp_path / "broken.py"
    program.write_text(_BROKEN.format(root=str(Path(__file__).parents[2])))
    window = open_window("--scene", "lego", program=program)
    window.until(lambda state: state["step"] > 5, 60)
    assert len(window.state()["errors"]) == 2  # of the panel and of every frame, each once
    window.click("error_ok")
    window.click("mode_depth")
    state = window.until(lambda state: len(state["errors"]) == 3)
    assert "told to fail" in state["errors"][-1] and state["popup"]
    assert any("in fail" in text for text in state["messages"])  # where it was
    window.key("t")
    window.until(lambda state: state["state"] == "paused")
    window.close_button()
    code, output = window.finish()
    assert code == 0 and "Traceback" not in output
