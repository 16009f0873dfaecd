"""Which decoded photographs stay in memory, and a thread that decodes ahead of training.

A scene may have more photographs than memory. Views keep what they have decoded; this module
counts it and lets go of what was not looked at for longest as soon as a budget is exceeded. A
photograph that is looked at again is decoded again, to the same bytes: what is learnt does not
depend on what is kept.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from render.memory import free_bytes

SHARE = 0.5  # of the memory that is free may be taken by photographs, unless somebody says more
MOST_AHEAD = 8  # photographs that are decoded before they are needed
LEAST = 64 << 20  # bytes; with less there is no budget to speak of


class Keeper(Protocol):
    """Something that holds decoded pixels, ``held`` bytes of them.

    ``forget`` lets go of them; it is called from any thread, while the cache is locked.
    """

    def held(self) -> int: ...

    def forget(self) -> None: ...


class ImageCache:
    """Counts decoded pixels and forgets the least recently used; any thread may call.

    Args:
        budget: bytes; None = :data:`SHARE` of what is free when :meth:`decide` is called.

    Attributes:
        used: bytes that are kept.
        forgotten: how often something had to go.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self.used = 0
        self.forgotten = 0
        # A weak reference may die while the lock is held, even by the same thread.
        self._lock = threading.RLock()
        self._kept: OrderedDict[int, tuple[weakref.ref[Keeper], int]] = OrderedDict()

    def decide(self, budget: int | None = None) -> int:
        """Set the budget in bytes (None: a share of what is free) and return it."""
        with self._lock:
            free = free_bytes() + self.used
            self.budget = max(LEAST, int(SHARE * free) if budget is None else budget)
            self._make_room()
            return self.budget

    def keep(self, keeper: Keeper) -> None:
        """``keeper`` was used just now. Others may have to let go."""
        key = id(keeper)
        with self._lock:
            size = keeper.held()  # nothing, if it had to let go since it was looked at
            known = self._kept.get(key)
            if known is not None and known[1] == size:
                self._kept.move_to_end(key)
                return
            self.drop(keeper)
            if size == 0:
                return
            self._kept[key] = weakref.ref(keeper, lambda _: self._drop(key)), size
            self.used += size
            self._make_room()

    def drop(self, keeper: Keeper) -> None:
        """``keeper`` holds nothing any more."""
        self._drop(id(keeper))

    def _drop(self, key: int) -> None:
        with self._lock:
            _, size = self._kept.pop(key, (None, 0))
            self.used -= size

    def _make_room(self) -> None:
        """Never at the cost of what was used last: somebody is looking at it."""
        if self.budget is None:
            self.decide()
        assert self.budget is not None
        while self.used > self.budget and len(self._kept) > 1:
            _, (keeper, size) = self._kept.popitem(last=False)
            self.used -= size
            found = keeper()
            if found is not None:
                found.forget()
                self.forgotten += 1


CACHE = ImageCache()  # of the program: scenes that are open at the same time share its budget


class Photograph(Protocol):
    """What a view looks like from here."""

    def decoded(self) -> bool: ...

    def pixels(self) -> object: ...

    def left_out(self) -> object: ...


class Ahead:
    """Decodes the photographs that are needed next, in threads of its own.

    Args:
        views: all that there are, by number.
        threads: that decode; None = half of the processors.

    Attributes:
        reach: how many numbers :meth:`want` looks at.
    """

    def __init__(self, views: Sequence[Photograph], threads: int | None = None) -> None:
        self._views = views
        self._threads = threads or decoding_threads(half=True)
        self.reach = min(3 + 2 * self._threads, MOST_AHEAD)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[None]] = {}

    def want(self, numbers: Sequence[int]) -> None:
        """These are needed next. The first one is needed now: the caller decodes it itself."""
        missing = [n for n in numbers[1 : self.reach] if not self._views[n].decoded()]
        if not missing:
            return
        self._pending = {n: future for n, future in self._pending.items() if not future.done()}
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="ahead")
        for number in missing:
            if number not in self._pending:
                self._pending[number] = self._pool.submit(self._decode, self._views[number])

    def _decode(self, view: Photograph) -> None:
        with suppress(Exception):  # whoever needs the photograph meets it again
            view.pixels()
            view.left_out()


def decoding_threads(*, half: bool = False) -> int:
    """How many threads decode: one a processor that this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count // 2, 8)) if half else min(count, 16)
