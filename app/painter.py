"""The thread that paints: neither the main thread nor the worker colours pictures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from app.paintbox import Paintbox, Painting, PaintJob
from app.runtime import error_sentence

_LOG = logging.getLogger(__name__)


class Painter:
    """The thread. ``submit`` and ``take`` never wait for it.

    Args:
        wake: called in the thread when there is something to take, or an error.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._job: PaintJob | None = None
        self._painting: Painting | None = None
        self._error: str | None = None
        self._closed = False
        self._idle = True  # no job waits or is being painted
        self._thread = threading.Thread(target=self._run, name="painter", daemon=True)

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def submit(self, job: PaintJob) -> None:
        """Paint ``job``; a job that waits and was not begun is dropped for it."""
        with self._changed:
            self._job, self._idle = job, False
            self._changed.notify_all()

    def take(self, wait: float = 0.0) -> Painting | None:
        """The newest painting, once; waits so many seconds for one that is under way."""
        with self._changed:
            if wait > 0:
                self._changed.wait_for(lambda: self._painting is not None or self._idle, wait)
            painting, self._painting = self._painting, None
            return painting

    @property
    def error(self) -> str | None:
        """Why the newest job could not be painted; None when it could."""
        with self._changed:
            return self._error

    def close(self, seconds: float = 2.0) -> bool:
        """End the thread after the painting it is at; false when that took over ``seconds``."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        paintbox = Paintbox()
        while (job := self._next()) is not None:
            painting = error = None
            try:
                painting = paintbox.paint(job)
            except Exception as problem:  # whatever a picture is made of, the window stays
                error = error_sentence(problem)
                _LOG.debug("painting failed", exc_info=True)
                paintbox = Paintbox()
            with self._changed:
                self._painting, self._error = painting or self._painting, error
                self._idle = self._job is None
                self._changed.notify_all()
            if self._wake is not None and not self._closed:
                self._wake()

    def _next(self) -> PaintJob | None:
        """Wait for a job; None when the painter is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._job is not None)
            job, self._job = self._job, None
            return None if self._closed else job
