"""The shortcut table and the polling of the keyboard."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.look import MODES
from app.shortcuts import (
    KEYS,
    MODE_KEYS,
    MOUSE,
    SHORTCUTS,
    KeyState,
    find,
    help_rows,
    split_chord,
    tooltip,
)

HELD = {"fly_forward", "fly_back", "fly_left", "fly_right", "fly_down", "fly_up"}


class Keyboard:
    """Fakes the keys that are down, the focus and the time."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.time = 0.0
        self.state = KeyState(clock=lambda: self.time)
        self.frame()

    def frame(
        self, *down: str, typing: bool = False, focused: bool = True, dt: float = 1 / 60
    ) -> list[str]:
        """One frame with exactly these keys down; the actions that it gave."""
        self.time += dt
        return self.state.update(set(down).__contains__, typing, focused)


# ------------------------------------------------------------------ the table
def test_no_two_shortcuts_share_a_chord() -> None:
    seen: dict[tuple[str, frozenset[str]], str] = {}
    for shortcut in SHORTCUTS:
        for chord in shortcut.keys:
            key, modifiers = split_chord(chord)
            free = ("Shift", "Alt") if shortcut.held else ()
            for n in range(len(free) + 1):
                for extra in itertools.combinations(free, n):
                    place = (key, modifiers | set(extra))
                    assert place not in seen, f"{shortcut.action} and {seen.get(place)}: {chord}"
                    seen[place] = shortcut.action


def test_every_action_is_there_once_with_words() -> None:
    actions = [shortcut.action for shortcut in SHORTCUTS]
    assert len(actions) == len(set(actions))
    assert {s.action for s in SHORTCUTS if s.held} == HELD
    expected = {
        *("train_toggle", "train_step", "speed_up", "speed_down", "focus", "reset_camera"),
        *("next_train", "previous_train", "next_test", "previous_test", "k_more", "k_less"),
        *("layer_next", "layer_previous", "photo_toggle", "difference_toggle", "wipe_toggle"),
        *("frusta_toggle", "panels_toggle", "screenshot", "save", "open", "help", "cancel"),
        *("preview_toggle", "grid_toggle", "shape_next"),
    }
    modes = [f"mode_{i}" for i in range(1, MODE_KEYS + 1)]
    assert set(actions) == expected | set(modes) | HELD
    assert all(shortcut.label and shortcut.group for shortcut in SHORTCUTS)
    for shortcut in SHORTCUTS:
        for chord in shortcut.keys:
            assert split_chord(chord)[1] <= {"Ctrl", "Shift", "Alt"}


def test_mode_keys_follow_the_order_of_the_modes() -> None:
    for i, info in enumerate(MODES[:MODE_KEYS], 1):
        shortcut = find(str(i % 10))
        assert shortcut is not None and shortcut.action == f"mode_{i}"
        assert info.label in shortcut.label


@pytest.mark.parametrize(
    ("key", "ctrl", "shift", "alt", "action"),
    [
        ("T", False, False, False, "train_toggle"),
        ("S", True, False, False, "save"),
        ("S", False, False, False, "fly_back"),
        ("S", False, True, True, "fly_back"),
        ("R", False, True, False, "reset_camera"),
        ("R", False, False, False, None),
        ("[", False, True, False, "previous_test"),
        ("[", False, False, False, "previous_train"),
        ("=", False, True, False, "speed_up"),
        ("W", True, False, False, None),
        ("Tab", False, False, True, None),  # the desktop's Alt+Tab
        ("T", True, False, False, None),
        ("Z", False, False, False, None),
    ],
)
def test_find(key: str, ctrl: bool, shift: bool, alt: bool, action: str | None) -> None:
    shortcut = find(key, ctrl, shift, alt)
    assert (shortcut and shortcut.action) == action


def test_tooltip_and_help_tell_the_same() -> None:
    assert tooltip("train_toggle") == "Start or pause training (T)"
    assert tooltip("save") == "Save a checkpoint (Ctrl+S)"
    rows = help_rows()
    for shortcut in SHORTCUTS:
        assert (shortcut.group, " or ".join(shortcut.keys), shortcut.label) in rows
    for gesture in MOUSE:
        assert ("Mouse", gesture.gesture, gesture.what) in rows
    groups = [group for group, _, _ in rows]
    assert len(list(itertools.groupby(groups))) == len(set(groups)), "a group is torn apart"
    with pytest.raises(KeyError):
        tooltip("no such action")


# ------------------------------------------------------------------ the keyboard
def test_a_press_acts_once() -> None:
    keys = Keyboard()
    assert keys.frame("T") == ["train_toggle"]
    for _ in range(100):
        assert keys.frame("T") == []
    assert keys.frame() == []
    assert keys.frame("T") == ["train_toggle"]


def test_modifiers_choose_the_action() -> None:
    keys = Keyboard()
    assert keys.frame("Ctrl") == []
    assert keys.frame("Ctrl", "S") == ["save"]
    assert keys.state.held == set()
    assert keys.frame("S") == [] and keys.state.held == set()  # Ctrl went up first: no flying
    keys.frame()
    assert keys.frame("Shift", "]") == ["next_test"]
    keys.frame()
    assert keys.frame("]", "T") == ["next_train", "train_toggle"]


def test_held_keys_and_their_factor() -> None:
    keys = Keyboard()
    assert keys.frame("W", "D") == []
    assert keys.state.held == {"fly_forward", "fly_right"} and keys.state.factor == 1.0
    keys.frame("W", "Shift")
    assert keys.state.held == {"fly_forward"} and keys.state.factor == 4.0
    keys.frame("W", "Alt", "Q")
    assert keys.state.held == {"fly_forward", "fly_down"} and keys.state.factor == 0.25
    keys.frame("W", "Shift", "Alt")
    assert keys.state.factor == 1.0
    keys.frame()
    assert keys.state.held == set()


def test_some_keys_repeat_after_a_while() -> None:
    keys = Keyboard()
    assert keys.frame("K", dt=0.1) == ["k_more"]
    assert keys.frame("K", dt=0.3) == []
    assert keys.frame("K", dt=0.15) == ["k_more"]
    assert keys.frame("K", dt=0.05) == []
    assert keys.frame("K", dt=5.0) == ["k_more"]  # a stall does not pile them up
    assert keys.frame("K", dt=0.05) == []
    assert keys.frame(dt=5.0) == []
    assert keys.frame("K") == ["k_more"]


@pytest.mark.parametrize(("typing", "focused"), [(True, True), (False, False), (True, False)])
def test_nothing_happens_while_typing_or_unfocused(typing: bool, focused: bool) -> None:
    keys = Keyboard()
    keys.frame("W", "Shift")
    for down in [("W", "Shift"), ("W", "T", "Shift"), ("K",), ()]:
        assert keys.frame(*down, typing=typing, focused=focused, dt=1.0) == []
        assert keys.state.held == set() and keys.state.factor == 1.0


@pytest.mark.parametrize(("typing", "focused"), [(True, True), (False, False)])
def test_keys_down_meanwhile_must_be_pressed_again(typing: bool, focused: bool) -> None:
    keys = Keyboard()
    keys.frame("W")
    keys.frame("W", "K", typing=typing, focused=focused)
    for _ in range(5):
        assert keys.frame("W", "K", dt=1.0) == []
        assert keys.state.held == set()
    keys.frame()
    assert keys.frame("W", "K") == ["k_more"]
    assert keys.state.held == {"fly_forward"}


def test_the_key_that_ends_typing_does_nothing_else() -> None:
    keys = Keyboard()
    keys.frame("T", typing=True)
    keys.frame(typing=True)
    assert keys.frame("Escape") == []  # the text field took it and let go in the same frame
    assert keys.frame("Escape") == []
    keys.frame()
    assert keys.frame("Escape") == ["cancel"]


def test_keys_down_at_the_start_do_not_act() -> None:
    state = KeyState(clock=lambda: 0.0)
    assert state.update({"T", "W"}.__contains__, False, True) == []
    assert state.held == set()


Frame = tuple[frozenset[str], bool, bool]
some_keys = st.frozensets(
    st.sampled_from(["W", "S", "T", "K", "R", "[", "Ctrl", "Shift", "Alt"]), max_size=4
)
frames = st.lists(st.tuples(some_keys, st.booleans(), st.booleans()), max_size=40)


@settings(deadline=None, max_examples=150)
@given(frames)
def test_any_sequence_of_frames(sequence: list[Frame]) -> None:
    """Against the rule in plain words, frame by frame."""
    keys = Keyboard()
    before: Frame = (frozenset(), False, True)
    since: dict[str, str] = {}  # held key -> its action
    for frame in sequence:
        down, typing, focused = frame
        pressed = keys.frame(*down, typing=typing, focused=focused, dt=1e-6)
        usable = not typing and focused
        was_usable = not before[1] and before[2]
        fresh = {k for k in down - before[0] if k in KEYS} if usable and was_usable else set()
        flags = [name in down for name in ("Ctrl", "Shift", "Alt")]
        found = {key: shortcut for key in fresh if (shortcut := find(key, *flags))}
        assert sorted(pressed) == sorted(s.action for s in found.values() if not s.held)
        since = {k: a for k, a in since.items() if usable and k in down}
        since |= {key: s.action for key, s in found.items() if s.held}
        assert keys.state.held == set(since.values())
        if not usable:
            assert keys.state.factor == 1.0
        before = frame
