"""The X server dies under the window: save, say so, end.

Xlib ends the whole program when its connection breaks, in the middle of whatever it does. It asks
a handler first; ours saves the run before.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable

_kept: list[object] = []  # what C calls must not be collected


def on_lost_display(save: Callable[[], object]) -> bool:
    """Call ``save`` and end with exit code 1 when the connection to the X server breaks.

    Returns:
        False where there is no Xlib.
    """
    if sys.platform != "linux":
        return False
    try:
        xlib = ctypes.CDLL("libX11.so.6")
        set_handler = xlib.XSetIOErrorHandler
    except (OSError, AttributeError):
        return False

    def handle(display: object) -> int:
        try:
            save()
            sentence = "The display was lost; the run is saved. Continue with --resume latest."
            print(sentence, file=sys.stderr, flush=True)
        finally:
            os._exit(1)  # nothing of the window can be closed any more

    handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(handle)
    set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_handler(ctypes.cast(handler, ctypes.c_void_p))
    _kept.append(handler)
    return True
