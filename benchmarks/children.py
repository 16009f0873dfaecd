"""Programs that a benchmark starts, watches, and kills: copies of this process, for speed.

A forked child runs ``main.py`` as a fresh one would, but has torch imported already. The parent
may therefore never compute with torch itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Child:
    """A running ``main.py``; ``output`` has all that it printed."""

    pid: int
    output: Path
    code: int | None = None  # negative: the signal that ended it

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float = 300.0) -> int:
        """Its exit code; it is killed when that takes too long.

        Raises:
            TimeoutError: it did.
        """
        if not self.until(lambda: False, seconds) and self.code is None:
            self.kill()
            raise TimeoutError(f"no end within {seconds:g} s: {self.said()[-400:]}")
        assert self.code is not None
        return self.code

    def until(self, reached: Callable[[], bool], seconds: float = 120.0) -> bool:
        """Wait for something; false when the child ended or the time was over before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.poll() is None:
            if reached():
                return True
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> str:
        """Its output so far."""
        return self.output.read_text(errors="replace")


def warm_up() -> None:
    """Import what children would import, but start no thread that a fork would lose."""
    import importlib

    for name in ("torch._dynamo", "app.headless", "app.session", "render.methods.kbuffer"):
        importlib.import_module(name)


def start(
    arguments: Sequence[str | Path],
    folder: Path,
    prepare: Callable[[], object] = lambda: None,
) -> Child:
    """Run ``main.py`` with ``arguments`` in ``folder``; ``prepare`` is called in it before."""
    output = folder / "output.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, output)
    code = 70
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.chdir(folder)
        prepare()
        import main

        code = main.main([str(argument) for argument in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # a child never returns into the benchmark
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
