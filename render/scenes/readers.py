"""What a reader of posed photographs returns, and the table of all readers.

To add a format, write ``matches`` and ``read`` in a file of its own and add a row to ``READERS``
in ``load.py`` (docs/scenes.md shows how). Everything that formats share - holding out a test
split, points, bounds, the up axis - happens after the reader, in ``load.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from render.scenes.types import SplitName, View


@dataclass
class Photos:
    """Posed photographs as one file format describes them.

    Args:
        folder: where the scene lies; points are searched for beside it.
        views: all views that can be used.
        splits: indices into ``views``; a split that the format does not have is absent.
        cloud: a point cloud that the format itself names, or None.
        notes: what was skipped or assumed, one sentence each.
    """

    folder: Path
    views: list[View]
    splits: dict[SplitName, list[int]]
    cloud: Path | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """One file format: ``matches`` only looks at names, ``read(path, downscale)`` does the work."""

    name: str
    layout: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, float], Photos]


def hold_out(count: int, every: int = 8) -> tuple[list[int], list[int]]:
    """Indices (kept, held out): every ``every``-th of ``count``, starting with the first.

    Two or more views give at least one of each; a single view is kept.
    """
    if count < 2:
        return list(range(count)), []
    held = list(range(0, count, every))
    return [i for i in range(count) if i % every], held


def scaled_size(width: int, height: int, downscale: float) -> tuple[int, int]:
    """Image size after ``--downscale``: rounded, at least one pixel."""
    return max(1, round(width / downscale)), max(1, round(height / downscale))
