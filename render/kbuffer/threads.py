"""How many threads the kernels use. They are our own, not torch's: they never wait in a pool.

Torch's many small operations each end in a barrier of all its threads. Where something else keeps
a core busy, every barrier waits for that core; a training step of ``kbuffer`` then takes several
times longer with two threads than with one. So torch may be told to use fewer threads than there
are cores, while the kernels, which meet a barrier only a few times a step, use all.
"""

from __future__ import annotations

import torch

_count: int | None = None


def set_kernel_threads(count: int | None) -> None:
    """Use ``count`` threads in every kernel from now on; None: as many as torch."""
    global _count
    if count is not None and count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    _count = count


def kernel_threads() -> int:
    """Threads of the next kernel call."""
    return _count or torch.get_num_threads()
