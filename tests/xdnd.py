"""A drag-and-drop source for X11: drops files on another program's window, as a desktop does.

XDND version 5 (https://www.freedesktop.org/wiki/Specifications/XDND/) with libX11 through ctypes:
Enter, Position until Status, Drop, the transfer of ``text/uri-list``, Finished.

    python -m tests.xdnd TITLE FILE...
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from ctypes import POINTER, Structure, Union, byref, c_char_p, c_int, c_long, c_uint, c_ulong
from ctypes import c_void_p as Pointer
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

_SELECTION_REQUEST, _SELECTION_NOTIFY, _CLIENT_MESSAGE = 30, 31, 33  # X.h
_VERSION = 5


class DropRefused(Exception):
    """The window takes no drops, did not want this one, or did not answer."""


def _event(*own: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Fields that all X events begin with, then ``own``."""
    head = [("type", c_int), ("serial", c_ulong), ("send_event", c_int), ("display", Pointer)]
    return [*head, *own]


class _ClientMessage(Structure):
    _fields_ = _event(
        ("window", c_ulong), ("message_type", c_ulong), ("format", c_int), ("data", c_long * 5)
    )


class _SelectionRequest(Structure):
    _fields_ = _event(
        ("owner", c_ulong), ("requestor", c_ulong), ("selection", c_ulong), ("target", c_ulong),
        ("property", c_ulong), ("time", c_ulong),
    )  # fmt: skip


class _SelectionNotify(Structure):
    _fields_ = _event(
        ("requestor", c_ulong), ("selection", c_ulong), ("target", c_ulong),
        ("property", c_ulong), ("time", c_ulong),
    )  # fmt: skip


class _Event(Union):
    _fields_ = [
        ("type", c_int), ("client", _ClientMessage), ("request", _SelectionRequest),
        ("notify", _SelectionNotify), ("space", c_long * 24),
    ]  # fmt: skip


_ERROR_HANDLER = ctypes.CFUNCTYPE(c_int, Pointer, Pointer)
# Xlib ends the process on any error; here it only means that a window went away meanwhile.
_ignore_error = _ERROR_HANDLER(lambda display, error: 0)


def _library() -> ctypes.CDLL:
    x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
    window, atom, display = c_ulong, c_ulong, Pointer
    for name, result, *arguments in (
        ("XOpenDisplay", Pointer, c_char_p),
        ("XCloseDisplay", c_int, display),
        ("XSetErrorHandler", Pointer, _ERROR_HANDLER),
        ("XDefaultRootWindow", window, display),
        ("XInternAtom", atom, display, c_char_p, c_int),
        ("XCreateSimpleWindow", window, display, window, c_int, c_int, c_uint, c_uint, c_uint,
         c_ulong, c_ulong),
        ("XSetSelectionOwner", c_int, display, atom, window, c_ulong),
        ("XSendEvent", c_int, display, window, c_int, c_long, POINTER(_Event)),
        ("XChangeProperty", c_int, display, window, atom, atom, c_int, c_int, c_char_p, c_int),
        ("XGetWindowProperty", c_int, display, window, atom, c_long, c_long, c_int, atom,
         POINTER(c_ulong), POINTER(c_int), POINTER(c_ulong), POINTER(c_ulong), POINTER(Pointer)),
        ("XQueryTree", c_int, display, window, POINTER(c_ulong), POINTER(c_ulong),
         POINTER(POINTER(c_ulong)), POINTER(c_uint)),
        ("XTranslateCoordinates", c_int, display, window, window, c_int, c_int, POINTER(c_int),
         POINTER(c_int), POINTER(c_ulong)),
        ("XPending", c_int, display),
        ("XNextEvent", c_int, display, POINTER(_Event)),
        ("XSync", c_int, display, c_int),
        ("XFree", c_int, Pointer),
    ):  # fmt: skip
        function = getattr(x11, name)
        function.restype, function.argtypes = result, arguments
    x11.XSetErrorHandler(_ignore_error)
    return x11


class Source:
    """A connection to the X server that can find windows, drop files on them and close them.

    Args:
        display: as in ``$DISPLAY``, which is the default.

    Raises:
        OSError: there is no such display, or no libX11.
    """

    def __init__(self, display: str | None = None) -> None:
        self._x = _library()
        self._display = self._x.XOpenDisplay(display.encode() if display else None)
        if not self._display:
            raise OSError(f"cannot open display {display or os.environ.get('DISPLAY')}")
        self.root = self._x.XDefaultRootWindow(self._display)
        self._own = self._x.XCreateSimpleWindow(self._display, self.root, 0, 0, 1, 1, 0, 0, 0)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """To be called before the X server ends, or Xlib ends the process."""
        if self._display:
            self._x.XCloseDisplay(self._display)
            self._display = None

    # ------------------------------------------------------------------ windows
    def find(self, title: str, process: int | None = None) -> int | None:
        """The first window (of ``process``) whose title contains ``title``, framed or not."""
        for window in self._below(self.root):
            owner = (self._property(window, "_NET_WM_PID") or b"")[:4]
            if process is not None and int.from_bytes(owner, sys.byteorder) != process:
                continue
            name = self._property(window, "_NET_WM_NAME") or self._property(window, "WM_NAME")
            if title in (name or b"").decode(errors="replace"):
                return window
        return None

    def position(self, window: int, x: int = 0, y: int = 0) -> tuple[int, int]:
        """Where the point (x, y) of ``window`` is on the screen."""
        at_x, at_y, child = c_int(), c_int(), c_ulong()
        self._x.XTranslateCoordinates(
            self._display, window, self.root, x, y, byref(at_x), byref(at_y), byref(child)
        )
        return at_x.value, at_y.value

    def close(self, window: int) -> None:
        """What the close button of a window manager does."""
        self._send(window, "WM_PROTOCOLS", self._atom("WM_DELETE_WINDOW"))

    # ------------------------------------------------------------------ dropping
    def drop(
        self,
        window: int,
        paths: Sequence[Path | str],
        at: tuple[int, int] = (40, 40),
        timeout: float = 10.0,
    ) -> None:
        """Drag ``paths`` to the point ``at`` of ``window`` and let go; returns when it has them.

        Raises:
            DropRefused: no XDND, not wanted, or no answer within ``timeout`` seconds.
        """
        aware = self._property(window, "XdndAware")
        if aware is None:
            raise DropRefused("the window does not take drops (no XdndAware)")
        version = min(_VERSION, int.from_bytes(aware[:4], sys.byteorder))
        offer = "".join(f"file://{_quote(path)}\r\n" for path in paths).encode()
        self._x.XSetSelectionOwner(self._display, self._atom("XdndSelection"), self._own, 0)
        self._send(window, "XdndEnter", self._own, version << 24, self._atom("text/uri-list"))
        accepted = False
        for short_of in (8, 4, 0):  # a little motion, as a hand makes
            x, y = self.position(window, at[0] - short_of, at[1])
            copy = self._atom("XdndActionCopy")
            self._send(window, "XdndPosition", self._own, 0, x << 16 | y, 0, copy)
            accepted = bool(self._answer("XdndStatus", offer, timeout)[1] & 1)
        if not accepted:
            self._send(window, "XdndLeave", self._own)
            raise DropRefused("the window does not want these files here")
        self._send(window, "XdndDrop", self._own)
        # Bit 0 means success; GLFW 3.3 puts the number of bytes there.
        if not self._answer("XdndFinished", offer, timeout)[1]:
            raise DropRefused("the window could not take the files")

    def _answer(self, message: str, offer: bytes, timeout: float) -> list[int]:
        """Data of the next ``message``; the files are handed over meanwhile, if asked for."""
        wanted, event = self._atom(message), _Event()
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not self._x.XPending(self._display):
                time.sleep(0.005)
                continue
            self._x.XNextEvent(self._display, byref(event))
            if event.type == _CLIENT_MESSAGE and event.client.message_type == wanted:
                return list(event.client.data)
            if event.type == _SELECTION_REQUEST:
                self._hand_over(event.request, offer)
        raise DropRefused(f"no {message} within {timeout:g} s")

    def _hand_over(self, request: _SelectionRequest, offer: bytes) -> None:
        given = request.target == self._atom("text/uri-list")
        if given:
            self._x.XChangeProperty(
                self._display, request.requestor, request.property, request.target, 8, 0,
                offer, len(offer),
            )  # fmt: skip
        event = _Event()
        event.notify = _SelectionNotify(
            type=_SELECTION_NOTIFY, display=self._display, requestor=request.requestor,
            selection=request.selection, target=request.target,
            property=request.property if given else 0, time=request.time,
        )  # fmt: skip
        self._x.XSendEvent(self._display, request.requestor, 0, 0, byref(event))
        self._x.XSync(self._display, 0)

    # ------------------------------------------------------------------ Xlib
    def _atom(self, name: str) -> int:
        return self._x.XInternAtom(self._display, name.encode(), 0)

    def _send(self, window: int, message: str, *data: int) -> None:
        event = _Event()
        event.client = _ClientMessage(
            type=_CLIENT_MESSAGE, display=self._display, window=window,
            message_type=self._atom(message), format=32, data=(c_long * 5)(*data),
        )  # fmt: skip
        self._x.XSendEvent(self._display, window, 0, 0, byref(event))
        self._x.XSync(self._display, 0)

    def _property(self, window: int, name: str) -> bytes | None:
        """Content of a property, None if there is none; 32-bit items come as C longs."""
        kind, items, left = c_ulong(), c_ulong(), c_ulong()
        width, data = c_int(), Pointer()
        self._x.XGetWindowProperty(
            self._display, window, self._atom(name), 0, 1024, 0, 0, byref(kind), byref(width),
            byref(items), byref(left), byref(data),
        )  # fmt: skip
        if not data:
            return None
        size = items.value * (ctypes.sizeof(c_long) if width.value == 32 else width.value // 8)
        content = ctypes.string_at(data, size)
        self._x.XFree(data)
        return content if kind.value else None

    def _below(self, window: int) -> Iterator[int]:
        """All windows inside ``window``."""
        root, parent, children, count = c_ulong(), c_ulong(), POINTER(c_ulong)(), c_uint()
        if not self._x.XQueryTree(
            self._display, window, byref(root), byref(parent), byref(children), byref(count)
        ):
            return
        inside = [children[i] for i in range(count.value)]
        if children:
            self._x.XFree(children)
        for child in inside:
            yield child
            yield from self._below(child)


def _quote(path: Path | str) -> str:
    return quote_from_bytes(os.fsencode(Path(path).absolute()))


def main() -> int:
    """The command line; exit code 1 when the drop failed."""
    parser = argparse.ArgumentParser(description="Drop files on a window, over X11.")
    parser.add_argument("title", help="part of the window's title")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    with Source() as source:
        window = source.find(arguments.title)
        if window is None:
            print(f"no window whose title contains {arguments.title!r}", file=sys.stderr)
            return 1
        try:
            source.drop(window, arguments.files)
        except DropRefused as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
