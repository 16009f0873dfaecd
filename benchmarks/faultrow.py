"""What the faults of ``benchmarks.reliability`` share: lines of the table, and questions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.children import Child
from render.errors import UserError
from render.training.checkpoint import list_checkpoints, load_latest, step_of


@dataclass
class Row:
    """A line of the table: ``lost`` is empty when everything is as it would have been."""

    fault: str
    provoked: str
    runs: int = 0
    answer: str = ""
    lost: list[str] = field(default_factory=list)
    skipped: str = ""


def newest(out: Path) -> int:
    """The step of the newest whole checkpoint; 0 without one."""
    try:
        return step_of(load_latest(out / "checkpoints", lambda text: None)[0]) or 0
    except UserError:
        return 0


def saved(out: Path, step: int) -> Callable[[], bool]:
    """Asks whether a checkpoint of ``step`` or later is there."""
    return lambda: any((step_of(p) or 0) >= step for p in list_checkpoints(out / "checkpoints"))


def told(child: Child, row: Row, *words: str, code: int = 1) -> None:
    """It must have ended with ``code``, a sentence with ``words``, and no traceback."""
    found, said = child.wait(), child.said()
    if found != code:
        row.lost.append(f"exit code {found} instead of {code}: {said[-300:]}")
    if "Traceback" in said:
        row.lost.append("a traceback")
    row.lost += [f"no word of {word!r}: {said[-300:]}" for word in words if word not in said]


def output_to(path: Path) -> None:
    """Send what this process prints to ``path``."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
