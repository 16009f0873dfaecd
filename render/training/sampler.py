"""Which view comes next: every view once an epoch, in an order that a resume reproduces."""

from __future__ import annotations

from typing import Any

import torch


class ViewSampler:
    """Indices 0..n-1 in a new random order every epoch.

    Args:
        n: number of views, at least 1.
        generator: CPU generator; shared with the trainer, whose checkpoint holds its state.
    """

    def __init__(self, n: int, generator: torch.Generator) -> None:
        if n < 1:
            raise ValueError(f"a sampler needs at least one view, got {n}")
        self.n = n
        self.generator = generator
        self.order: list[int] = []
        self.position = 0

    def next(self) -> int:
        """The next view's index."""
        if self.position >= len(self.order):
            self.order = torch.randperm(self.n, generator=self.generator).tolist()
            self.position = 0
        index = self.order[self.position]
        self.position += 1
        return index

    def coming(self, count: int) -> list[int]:
        """The next indices, at most ``count``, as far as they are drawn: to the epoch's end."""
        return self.order[self.position : self.position + count]

    def state_dict(self) -> dict[str, Any]:
        """Order of the current epoch and the place in it."""
        return {"order": list(self.order), "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` stood."""
        if sorted(state["order"]) not in ([], list(range(self.n))):
            raise ValueError(
                f"the checkpoint was trained on {len(state['order'])} views, the scene has {self.n}"
            )
        self.order, self.position = list(state["order"]), int(state["position"])
