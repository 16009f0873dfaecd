"""What benchmarks share: timing a call, tables, growth."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

console = Console()


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call."""

    best: float
    median: float
    cpu: float


def measure(call: Callable[[], object], seconds: float, most: int = 25) -> Timing:
    """Repeat ``call`` for about ``seconds``, at least three times, after one call to warm up."""
    call()
    wall: list[float] = []
    cpu: list[float] = []
    end = time.perf_counter() + seconds
    while len(wall) < 3 or (time.perf_counter() < end and len(wall) < most):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return Timing(1e3 * min(wall), 1e3 * statistics.median(wall), 1e3 * min(cpu))


def exponent(x0: float, y0: float, x1: float, y1: float) -> str:
    """p of y ~ x^p between two measurements."""
    return f"{math.log(y1 / y0) / math.log(x1 / x0):.2f}"


def name_of(n: int) -> str:
    """1500000 -> 1.5M."""
    return f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k"


def table(title: str, *columns: str) -> Table:
    """A table with right-aligned columns."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        result.add_column(column, justify="right", no_wrap=True)
    return result
