"""ONE table of shortcuts: it feeds the key handler, the tooltips and the help page.

Keys are named by their place on a US keyboard, whatever letter the user's layout prints there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.look import MODES

_MODIFIERS = ("Ctrl", "Shift", "Alt")
MODE_KEYS = 10  # modes that have a key: 1 to 9 and 0
FAST, SLOW = 4.0, 0.25  # flying with Shift and with Alt
_REPEAT_AFTER, _REPEAT_EVERY = 0.4, 0.1  # seconds


@dataclass(frozen=True)
class Shortcut:
    """A row of the table.

    Args:
        action: the name that the window acts on.
        keys: chords such as "Ctrl+S", "Shift+[" or "F1"; any of them will do.
        group: heading on the help page.
        label: what it does, for tooltip and help.
        held: acts as long as the key is down, with or without Shift and Alt.
        repeats: pressed again and again while the key stays down.
    """

    action: str
    keys: tuple[str, ...]
    group: str
    label: str
    held: bool = False
    repeats: bool = False


@dataclass(frozen=True)
class Gesture:
    """What the mouse does, for the help page."""

    gesture: str
    what: str


SHORTCUTS: tuple[Shortcut, ...] = (
    Shortcut("fly_forward", ("W",), "Fly", "Fly forward", held=True),
    Shortcut("fly_left", ("A",), "Fly", "Fly left", held=True),
    Shortcut("fly_back", ("S",), "Fly", "Fly back", held=True),
    Shortcut("fly_right", ("D",), "Fly", "Fly right", held=True),
    Shortcut("fly_down", ("Q",), "Fly", "Fly down", held=True),
    Shortcut("fly_up", ("E",), "Fly", "Fly up", held=True),
    # Shift is down while flying fast: the speed keys work all the same.
    Shortcut("speed_up", ("=", "Shift+="), "Fly", "Fly faster from now on", repeats=True),
    Shortcut("speed_down", ("-", "Shift+-"), "Fly", "Fly slower from now on", repeats=True),
    Shortcut("focus", ("F",), "Camera", "Turn around the point under the mouse"),
    Shortcut("reset_camera", ("Shift+R",), "Camera", "Back to the start view"),
    Shortcut("next_train", ("]",), "Camera", "Next training photo"),
    Shortcut("previous_train", ("[",), "Camera", "Previous training photo"),
    Shortcut("next_test", ("Shift+]",), "Camera", "Next held-out photo"),
    Shortcut("previous_test", ("Shift+[",), "Camera", "Previous held-out photo"),
    Shortcut("train_toggle", ("T",), "Training", "Start or pause training"),
    Shortcut("train_step", ("N",), "Training", "Train a single step", repeats=True),
    *(
        Shortcut(f"mode_{i}", (str(i % 10),), "Picture", f"Show: {info.label}")
        for i, info in enumerate(MODES[:MODE_KEYS], 1)
    ),
    Shortcut("k_more", ("K",), "Picture", "One layer more", repeats=True),
    Shortcut("k_less", ("Shift+K",), "Picture", "One layer fewer", repeats=True),
    Shortcut("layer_next", ("L",), "Picture", "Look at the next layer", repeats=True),
    Shortcut("layer_previous", ("Shift+L",), "Picture", "Look at the layer before", repeats=True),
    Shortcut("photo_toggle", ("G",), "Picture", "Show the photo of this view"),
    Shortcut("difference_toggle", ("O",), "Picture", "Show the difference to the photo"),
    Shortcut("wipe_toggle", ("V",), "Picture", "Compare two pictures with a wipe line"),
    Shortcut("shape_next", ("M",), "Picture", "Gaussians as splats, ellipsoids, centres"),
    Shortcut("preview_toggle", ("B",), "Picture", "Show the bare points"),
    Shortcut("frusta_toggle", ("C",), "Picture", "Show the cameras of the photos"),
    Shortcut("grid_toggle", ("X",), "Picture", "Show the axes and the grid"),
    # Not Tab: Dear PyGui then moves the keyboard into the first text field of the panels.
    Shortcut("panels_toggle", ("H",), "Window", "Hide or show the panels"),
    Shortcut("screenshot", ("P",), "Window", "Save the picture as PNG"),
    Shortcut("save", ("Ctrl+S",), "Window", "Save a checkpoint"),
    Shortcut("open", ("Ctrl+O",), "Window", "Open a scene, points or a checkpoint"),
    Shortcut("help", ("F1",), "Window", "Show this help"),
    Shortcut("cancel", ("Escape",), "Window", "Cancel or close what is open"),
)

MOUSE: tuple[Gesture, ...] = (
    Gesture("Drag left", "Orbit around the pivot"),
    Gesture("Drag right", "Look around"),
    Gesture("Drag middle, or Shift+drag left", "Pan"),
    Gesture("Wheel", "Nearer or farther"),
    Gesture("Double click", "Turn around this point"),
    Gesture("Click on a camera", "Go to its photo"),
    Gesture("Drop a file", "Open points, scene, run or camera path"),
)

_BY_ACTION = {shortcut.action: shortcut for shortcut in SHORTCUTS}


def split_chord(chord: str) -> tuple[str, frozenset[str]]:
    """The key and the modifiers of a chord such as "Ctrl+S"."""
    *modifiers, key = chord.split("+")
    return key, frozenset(modifiers)


def _expand() -> dict[tuple[str, frozenset[str]], Shortcut]:
    """Every shortcut by key and modifiers; a held one with and without Shift and Alt."""
    table = {}
    for shortcut in SHORTCUTS:
        for chord in shortcut.keys:
            key, modifiers = split_chord(chord)
            also = ((), ("Shift",), ("Alt",), ("Shift", "Alt")) if shortcut.held else ((),)
            table |= {(key, modifiers.union(extra)): shortcut for extra in also}
    return table


_BY_CHORD = _expand()
KEYS: tuple[str, ...] = tuple(dict.fromkeys(key for key, _ in _BY_CHORD))
"""All keys in the table without the modifiers, each once."""


def find(key: str, ctrl: bool = False, shift: bool = False, alt: bool = False) -> Shortcut | None:
    """The shortcut of a key with exactly these modifiers; flying ignores Shift and Alt."""
    down = zip(_MODIFIERS, (ctrl, shift, alt), strict=True)
    return _BY_CHORD.get((key, frozenset(name for name, is_down in down if is_down)))


class KeyState:
    """Polls the keyboard once per frame; tells what was pressed and what is held.

    Args:
        clock: seconds, for the repetition of keys that repeat.

    Attributes:
        held: the held actions.
        factor: on the flying speed, from Shift and Alt.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.held: set[str] = set()
        self.factor = 1.0
        self._clock = clock
        self._active = False
        self._down: set[str] = set()
        self._acting: dict[str, Shortcut] = {}  # by key: what its press set off
        self._repeat_at: dict[str, float] = {}  # by key: when its action comes again

    def update(self, down: Callable[[str], bool], typing: bool, focused: bool) -> list[str]:
        """One frame.

        A key acts if it goes down while the window has the focus and nobody types, now and in
        the frame before: what was down before that must be released and pressed again.

        Args:
            down: whether a key of ``KEYS``, or "Ctrl", "Shift" or "Alt" (either side), is down.
            typing: whether a text field takes the keys.
            focused: whether the window has the focus.

        Returns:
            the actions pressed since the last call, in the order of the table.
        """
        now_down = {key for key in KEYS if down(key)}
        modifiers = [down(name) for name in _MODIFIERS]
        active = focused and not typing
        if not active:
            self._acting.clear()
        for key in [key for key in self._acting if key not in now_down]:
            del self._acting[key]
        fresh = now_down - self._down if active and self._active else set()
        self._down, self._active = now_down, active

        now = self._clock()
        pressed = []
        for key in KEYS:
            shortcut = find(key, *modifiers) if key in fresh else self._acting.get(key)
            if shortcut is None:
                continue
            self._acting[key] = shortcut
            if key in fresh:
                self._repeat_at[key] = now + _REPEAT_AFTER
            elif shortcut.repeats and now >= self._repeat_at[key]:
                self._repeat_at[key] = now + _REPEAT_EVERY  # one at a time, even after a stall
            else:
                continue
            if not shortcut.held:
                pressed.append(shortcut.action)
        self.held = {shortcut.action for shortcut in self._acting.values() if shortcut.held}
        _, shift, alt = modifiers
        self.factor = (FAST if shift else 1.0) * (SLOW if alt else 1.0) if active else 1.0
        return pressed


def chord(action: str) -> str:
    """The first keys of an action: "Ctrl+S"."""
    return _BY_ACTION[action].keys[0]


def tooltip(action: str) -> str:
    """What an action does and its first key: "Start or pause training (T)"."""
    return f"{_BY_ACTION[action].label} ({chord(action)})"


def help_rows() -> list[tuple[str, str, str]]:
    """(group, keys, label) for every row of the help page, mouse first."""
    rows = [("Mouse", row.gesture, row.what) for row in MOUSE]
    rows += [("Fly", "Shift", "Hold it to fly four times as fast")]
    rows += [("Fly", "Alt", "Hold it to fly at a quarter of the speed")]
    rows += [(row.group, " or ".join(row.keys), row.label) for row in SHORTCUTS]
    return sorted(rows, key=lambda row: _GROUPS.index(row[0]))


_GROUPS = ("Mouse", *dict.fromkeys(shortcut.group for shortcut in SHORTCUTS))
