"""Keeps the window alive: what goes wrong in one piece of a frame is told and ends nothing else."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from app.messages import Messages
from app.runtime import error_sentence
from render.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

QUIET_SECONDS = 2.0  # an error that comes again sooner, as in every frame, is told only once


class Guard:
    """Calls the pieces of a frame, on the main thread.

    An error becomes a message; its traceback goes into the log, with ``debug`` also to the
    terminal. One that comes in every frame is told once, however long it goes on.

    Args:
        messages: where errors are told.
        debug: also print tracebacks.
    """

    def __init__(self, messages: Messages, debug: bool = False) -> None:
        self.messages, self.debug = messages, debug
        self._seen: dict[tuple, float] = {}  # kind and place of an error -> when it came last

    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The result of ``work``, or None where it failed."""
        try:
            return work(*args, **kwargs)
        except Exception as error:  # whatever it is: the window and the training must live on
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        places = traceback.extract_tb(error.__traceback__)
        key = (type(error).__name__, *((place.filename, place.lineno) for place in places))
        now = time.monotonic()
        before, self._seen[key] = self._seen.get(key, -math.inf), now
        if now - before < QUIET_SECONDS:
            return
        if not isinstance(error, UserError):
            trace = "".join(traceback.format_exception(error)).rstrip()
            self.messages.add(trace, "warning")
            if self.debug:
                print(trace, file=sys.stderr)
        self.messages.error(error_sentence(error))
