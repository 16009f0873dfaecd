"""What the program has to say: kept for the log panel, the newest errors also shown as a popup."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

Level = Literal["info", "good", "warning", "error"]

KEPT = 500


@dataclass(frozen=True)
class Message:
    """One sentence."""

    level: Level
    text: str
    clock: str  # local time, HH:MM:SS
    added: float  # time.monotonic()


class Messages:
    """Any thread may add; the main thread collects and shows."""

    def __init__(self) -> None:
        self.all: deque[Message] = deque(maxlen=KEPT)
        self.count = 0  # in all, also of those that were dropped
        self.errors = 0
        self.popup: Message | None = None  # the newest error that was not dismissed
        self.popup_more = 0  # errors behind it
        self._incoming: SimpleQueue[Message] = SimpleQueue()

    def add(self, text: str, level: Level = "info") -> None:
        """Any thread."""
        self._incoming.put(Message(level, text, time.strftime("%H:%M:%S"), time.monotonic()))

    def error(self, text: str) -> None:
        """Any thread: shown in a popup until it is dismissed."""
        self.add(text, "error")

    def collect(self) -> bool:
        """Main thread: take what came in; true if there was something."""
        before = self.count
        while True:
            try:
                message = self._incoming.get_nowait()
            except Empty:
                return self.count > before
            self.all.append(message)
            self.count += 1
            if message.level == "error":
                self.errors += 1
                self.popup_more += self.popup is not None
                self.popup = message

    def dismiss(self) -> None:
        """The user has read the popup."""
        self.popup, self.popup_more = None, 0

    @property
    def newest(self) -> Message | None:
        """For the status line."""
        return self.all[-1] if self.all else None
