"""Standard output that never ends a run: a closed pipe, a full disk, a terminal without UTF-8."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console


class LastingOutput(io.TextIOBase):
    """Passes text on to ``stream`` as long as that can be written, and drops it afterwards.

    What a run writes matters more than what it says: without this, ``| head -1`` would end the
    thread that trains.

    Args:
        stream: None where the program was started without standard output.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the stream; rich draws tables in ASCII where it is not UTF."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal that still takes text."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """The stream's; OSError without one."""
        if self._stream is None:
            raise OSError("no standard output")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Characters that the stream cannot encode become escapes."""
        known = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        if self._stream is not None:
            try:
                self._stream.write(known)
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Of the stream."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        """What still lies in the stream's buffer must not fail again when the program ends."""
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # pyright: ignore[reportOptionalMemberAccess]
            os.close(nowhere)


def make_console() -> Console:
    """For everything that the program says on standard output."""
    return Console(file=LastingOutput(sys.stdout), soft_wrap=True, highlight=False)  # pyright: ignore[reportArgumentType]
