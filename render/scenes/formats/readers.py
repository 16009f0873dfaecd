"""What a reader of posed photographs returns, and the table of all readers.

To add a format, write ``matches`` and ``read`` in a file of its own and add a row to ``READERS``
in ``load.py`` (docs/scenes.md shows how). Everything that formats share - holding out a test
split, points, bounds, the up axis - happens after the reader, in ``load.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from render.errors import UserError
from render.scenes.types import PointCloud, SplitName, View

# Of every format: its own protocol (else every 8th view held out), every 8th held out in any
# case, no view held out.
SPLIT_NAMES = ("auto", "every8", "all")


@dataclass
class Photos:
    """Posed photographs as one file format describes them.

    Args:
        folder: where the scene lies; points are searched for beside it.
        views: all views that can be used.
        splits: indices into ``views``; a split that the format does not have is absent.
        cloud: a point cloud that the format itself names, or None.
        notes: what was skipped or assumed, one sentence each.
        to_file: [4, 4] float64 similarity from the world of ``views`` to the file's own units;
            None where they are the same.
        points: points that the format itself holds, in the world of ``views``; they come before
            ``cloud`` and before whatever lies beside the scene.
    """

    folder: Path
    views: list[View]
    splits: dict[SplitName, list[int]]
    cloud: Path | None = None
    notes: list[str] = field(default_factory=list)
    to_file: Tensor | None = None
    points: PointCloud | None = None


class Read(Protocol):
    """Reads a scene; ``split`` names one of its protocols ("auto": the usual one)."""

    def __call__(self, path: Path, downscale: float = 1.0, split: str = "auto") -> Photos: ...


@dataclass(frozen=True)
class Reader:
    """One file format: ``matches`` only looks at names, ``read`` does the work."""

    name: str
    layout: str
    matches: Callable[[Path], bool]
    read: Read


def check_split(path: Path, split: str, names: Sequence[str] = ()) -> None:
    """Refuse a ``split`` that is neither "auto" nor among the format's own ``names``.

    Raises:
        UserError: lists all that there are.
    """
    if split != "auto" and split not in names:
        known = ", ".join((*SPLIT_NAMES, *names))
        raise UserError(f"--split {split}: expected one of {known} for {path}.")


def hold_out(count: int, every: int = 8) -> tuple[list[int], list[int]]:
    """Indices (kept, held out): every ``every``-th of ``count``, starting with the first.

    Two or more views give at least one of each; a single view is kept.
    """
    if count < 2:
        return list(range(count)), []
    held = list(range(0, count, every))
    return [i for i in range(count) if i % every], held


def spread(views: Sequence[View], most: int) -> Sequence[View]:
    """At most ``most`` of the views, evenly spaced in their order."""
    if len(views) <= most:
        return views
    return [views[i * len(views) // most] for i in range(most)]


def scaled_size(width: int, height: int, downscale: float) -> tuple[int, int]:
    """Image size after ``--downscale``: rounded, at least one pixel."""
    return max(1, round(width / downscale)), max(1, round(height / downscale))
