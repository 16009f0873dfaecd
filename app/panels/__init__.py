"""The panels, one file each.

A panel is built inside the present Dear PyGui container, calls methods of the desk, and reads the
desk's snapshot in ``update``, which runs some ten times a second and only touches what changed.
"""

from __future__ import annotations

from typing import Protocol


class Panel(Protocol):
    """What the window knows of a panel."""

    def update(self) -> None:
        """Show the present state."""
