"""Which keys are down, by their place on the keyboard and not by what is printed on them.

"W" is the key that types W on a US keyboard: on a French one it is labelled Z and lies in the
same place, so flying works alike everywhere.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple, Protocol

from app.native.binding import raw_glfw

_KEY = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int
)


class Codes(NamedTuple):
    """One key: in GLFW, as a PC scan code (set 1), and in Dear PyGui (``mvKey_...``)."""

    glfw: int
    scan: int
    dpg: str


def _table() -> dict[str, Codes]:
    """Key name -> codes."""
    table: dict[str, Codes] = {}
    for first, row in ((0x02, "1234567890"), (0x10, "QWERTYUIOP"), (0x1E, "ASDFGHJKL"),
                       (0x2C, "ZXCVBNM")):  # fmt: skip
        for scan, name in enumerate(row, first):
            table[name] = Codes(ord(name), scan, name)
    for name, scan, dpg in (
        ("-", 0x0C, "Minus"), ("=", 0x0D, "Plus"), ("[", 0x1A, "Open_Brace"),
        ("]", 0x1B, "Close_Brace"), (";", 0x27, "Colon"), ("'", 0x28, "Quote"),
        ("`", 0x29, "Tilde"), ("\\", 0x2B, "Backslash"), (",", 0x33, "Comma"),
        (".", 0x34, "Period"), ("/", 0x35, "Slash"),
    ):  # fmt: skip
        table[name] = Codes(ord(name), scan, dpg)
    for i in range(12):
        table[f"F{i + 1}"] = Codes(290 + i, 0x3B + i if i < 10 else 0x57 + i - 10, f"F{i + 1}")
    for name, glfw, scan, dpg in (
        ("Space", 32, 0x39, "Spacebar"), ("Escape", 256, 0x01, "Escape"),
        ("Enter", 257, 0x1C, "Return"), ("Tab", 258, 0x0F, "Tab"),
        ("Backspace", 259, 0x0E, "Back"), ("Insert", 260, 0xE052, "Insert"),
        ("Delete", 261, 0xE053, "Delete"), ("Right", 262, 0xE04D, "Right"),
        ("Left", 263, 0xE04B, "Left"), ("Down", 264, 0xE050, "Down"), ("Up", 265, 0xE048, "Up"),
        ("Page Up", 266, 0xE049, "Prior"), ("Page Down", 267, 0xE051, "Next"),
        ("Home", 268, 0xE047, "Home"), ("End", 269, 0xE04F, "End"),
        ("Left Shift", 340, 0x2A, "LShift"), ("Left Ctrl", 341, 0x1D, "LControl"),
        ("Left Alt", 342, 0x38, "LAlt"), ("Right Shift", 344, 0x36, "RShift"),
        ("Right Ctrl", 345, 0xE01D, "RControl"), ("Right Alt", 346, 0xE038, "RAlt"),
    ):  # fmt: skip
        table[name] = Codes(glfw, scan, dpg)
    return table


KEYS = _table()
_MODIFIERS = {"Shift": 1, "Ctrl": 2, "Alt": 4}  # bits of GLFW
EITHER = {name: (f"Left {name}", f"Right {name}") for name in ("Shift", "Ctrl", "Alt")}


def codes(name: str) -> list[Codes]:
    """The keys called ``name``: one, or both sides of "Shift", "Ctrl" and "Alt".

    Raises:
        KeyError: there is no such name.
    """
    return [KEYS[side] for side in EITHER.get(name, (name,))]


class Keyboard(Protocol):
    """Where key states come from."""

    def down(self, name: str) -> bool:
        """Whether the key is held, or was tapped since the last call with this name."""
        ...


class GlfwKeyboard:
    """Keys of a GLFW window: Linux and macOS.

    Listens in front of Dear PyGui. GLFW's own sticky keys would lose no short tap either, but
    Dear ImGui reads the modifiers with the same function, so after a tap on Ctrl it would take
    the next click for a Ctrl-click. GLFW itself releases all keys when the focus is lost.

    A chord keeps its modifiers however short it was: one that was down when a key was pressed
    counts as down when it is asked for after that key.
    """

    def __init__(self, window: Any) -> None:
        self._held: set[int] = set()
        self._tapped: dict[int, int] = {}  # pressed and not yet told: with which modifiers
        self._with = 0  # modifiers of the presses that were told since they were asked for
        self._told: set[str] = set()  # names that were down at the last call
        install = raw_glfw().glfwSetKeyCallback
        install.restype, install.argtypes = ctypes.c_void_p, [ctypes.c_void_p, _KEY]
        self._callback = _KEY(self._pressed)  # C holds it: must live as long as the window
        self._next: Any = None
        before = install(ctypes.cast(window, ctypes.c_void_p), self._callback)
        if before:
            self._next = _KEY(before)

    def down(self, name: str) -> bool:
        """See :class:`Keyboard`."""
        wanted = {key.glfw for key in codes(name)}
        modifier = _MODIFIERS.get(name, 0)
        again = not modifier and name in self._told and wanted & self._tapped.keys()
        if again:  # released and pressed again since then
            self._told.discard(name)
            return False  # and down at the next call
        down = bool(wanted & (self._held | self._tapped.keys()) or modifier & self._with)
        self._with &= ~modifier
        for key in wanted & self._tapped.keys():
            modifiers = self._tapped.pop(key)
            self._with |= 0 if modifier else modifiers
        (self._told.add if down else self._told.discard)(name)
        return down

    def _pressed(self, window: int, key: int, scan: int, action: int, modifiers: int) -> None:
        if action == 1:  # press; 2 is a repetition
            self._held.add(key)
            self._tapped[key] = modifiers
        elif action == 0:
            self._held.discard(key)
        if self._next is not None:
            self._next(window, key, scan, action, modifiers)


class WindowsKeyboard:
    """Keys of a Windows window, by scan code. Written from the documentation, never run."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._user = _user32()
        self._user.GetForegroundWindow.restype = ctypes.c_void_p
        self._user.GetAsyncKeyState.restype = ctypes.c_short
        scan_to_virtual_key_ex = 3  # MAPVK_VSC_TO_VK_EX: knows left from right
        self._virtual = {
            name: self._user.MapVirtualKeyW(key.scan, scan_to_virtual_key_ex)
            for name, key in KEYS.items()
        }

    @property
    def focused(self) -> bool:
        """Whether keys go to the window."""
        return self._user.GetForegroundWindow() == self._window

    def down(self, name: str) -> bool:
        """See :class:`Keyboard`. The lowest bit of the state is: pressed since the last call."""
        if not self.focused:
            return False
        names = EITHER.get(name, (name,))
        return any([self._user.GetAsyncKeyState(self._virtual[n]) & 0x8001 for n in names])


def _user32() -> Any:
    assert sys.platform == "win32"
    return ctypes.WinDLL("user32")


class ImguiKeyboard:
    """What Dear PyGui knows: by label, not by place, and blind to taps within a frame."""

    def down(self, name: str) -> bool:
        """See :class:`Keyboard`."""
        import dearpygui.dearpygui as dpg

        return any(dpg.is_key_down(getattr(dpg, f"mvKey_{key.dpg}")) for key in codes(name))
