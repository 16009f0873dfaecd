"""Which rows of a large file make an even subset without reading all of it."""

from __future__ import annotations

import numpy as np

_BLOCK = 64  # neighbouring rows: a disk reads whole pages in any case


def even_rows(count: int, most: int | None) -> slice | np.ndarray:
    """Rows of ``count``: all of them, or short runs at equal distances, ``most`` in all.

    Returns:
        a slice, or int64 [M] in ascending order with M <= most.
    """
    if most is None or count <= most:
        return slice(None)
    runs = max(1, most // _BLOCK)
    block = min(_BLOCK, most)
    starts = np.linspace(0, count - block, runs).astype(np.int64)
    return (starts[:, None] + np.arange(block)).ravel()
