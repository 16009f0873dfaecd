"""What goes wrong in a piece of a frame: told, told once, and nothing else ends."""

from __future__ import annotations

import pytest

import app.guard
from app.guard import QUIET_SECONDS, Guard
from app.messages import Messages
from render.errors import UserError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(app.guard, "time", clock)
    return clock


def told(messages: Messages) -> list[tuple[str, str]]:
    messages.collect()
    found = [(message.level, message.text) for message in messages.all]
    messages.all.clear()
    return found


def fail(word: str = "wheel") -> None:
    raise ZeroDivisionError(f"no {word}")


def fail_elsewhere() -> None:
    raise ZeroDivisionError("no wheel")


def test_results_and_arguments_pass() -> None:
    assert Guard(Messages()).call(divmod, 7, 2) == (3, 1)
    assert Guard(Messages()).call(int, "11", base=2) == 3


def test_an_error_is_told_with_its_traceback_in_the_log(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = Messages()
    assert Guard(messages).call(fail, "axle") is None
    (trace_level, trace), (level, sentence) = told(messages)
    assert trace_level == "warning" and "in fail" in trace and "no axle" in trace
    assert level == "error" and "no axle" in sentence and "\n" not in sentence
    assert capsys.readouterr().err == ""
    Guard(messages, debug=True).call(fail)
    assert "in fail" in capsys.readouterr().err


def test_an_error_of_every_frame_is_told_once(clock: Clock) -> None:
    messages, every_frame = Messages(), 0.05
    guard = Guard(messages)
    for i in range(200):
        clock.now += every_frame
        guard.call(fail, str(i))
    assert len(told(messages)) == 2
    guard.call(fail_elsewhere)
    assert len(told(messages)) == 2  # another place
    clock.now += QUIET_SECONDS + 1
    guard.call(fail)
    assert len(told(messages)) == 2  # after a pause it counts as new


def test_the_mistake_of_a_user_has_no_traceback(clock: Clock) -> None:
    def refuse() -> None:
        raise UserError("x.ply: expected points, found none.")

    messages = Messages()
    Guard(messages).call(refuse)
    assert told(messages) == [("error", "x.ply: expected points, found none.")]


def test_ctrl_c_passes() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guard(Messages()).call(interrupt)
