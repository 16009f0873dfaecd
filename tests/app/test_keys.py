"""Short taps and chords of the keyboard: what happens between two frames is not lost."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from app.native import keys
from app.shortcuts import KeyState

SHIFT, K, BRACKET = (keys.KEYS[name].glfw for name in ("Left Shift", "K", "]"))
WITH_SHIFT = 1  # GLFW's bit


class Typist:
    """Types on a keyboard whose window is none."""

    _event: Callable[..., None]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def install(window: ctypes.c_void_p, callback: Callable[..., None]) -> None:
            self._event = callback

        monkeypatch.setattr(keys, "raw_glfw", lambda: SimpleNamespace(glfwSetKeyCallback=install))
        self.keyboard = keys.GlfwKeyboard(ctypes.c_void_p(1))

    def press(self, key: int, modifiers: int = 0) -> None:
        self._event(None, key, 0, 1, modifiers)

    def release(self, key: int, modifiers: int = 0) -> None:
        self._event(None, key, 0, 0, modifiers)


@pytest.fixture
def typist(monkeypatch: pytest.MonkeyPatch) -> Typist:
    return Typist(monkeypatch)


def frame(state: KeyState, typist: Typist) -> list[str]:
    return state.update(typist.keyboard.down, typing=False, focused=True)


def test_a_chord_that_ends_within_a_frame_keeps_its_modifier(typist: Typist) -> None:
    state = KeyState()
    frame(state, typist)
    typist.press(SHIFT)
    frame(state, typist)
    typist.press(BRACKET, WITH_SHIFT)
    typist.release(BRACKET, WITH_SHIFT)
    typist.release(SHIFT, WITH_SHIFT)
    assert frame(state, typist) == ["next_test"], "and not the next training photo"
    assert frame(state, typist) == []
    typist.press(BRACKET)
    assert frame(state, typist) == ["next_train"], "Shift is long gone"


def test_the_same_chord_twice_in_a_row(typist: Typist) -> None:
    state = KeyState()
    frame(state, typist)
    for _ in range(2):
        typist.press(SHIFT)
        typist.press(K, WITH_SHIFT)
        typist.release(K, WITH_SHIFT)
        typist.release(SHIFT, WITH_SHIFT)
        assert frame(state, typist) == ["k_less"]
        frame(state, typist)


def test_a_key_that_is_pressed_again_between_two_frames_acts_again(typist: Typist) -> None:
    state = KeyState()
    frame(state, typist)
    typist.press(K)
    assert frame(state, typist) == ["k_more"]
    typist.release(K)
    typist.press(K)
    assert frame(state, typist) + frame(state, typist) == ["k_more"]
    typist.release(K)
    assert frame(state, typist) == []
