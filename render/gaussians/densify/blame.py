"""Densification: Gaussians that nobody sees move to where the picture is wrong.

In the manner of 3DGS-MCMC (Kheradmand et al., 2024) the number only grows by a fixed share and
dead Gaussians are relocated, and in the manner of error-based densification (Rota Bulo et al.,
2024) the places are drawn in proportion to the error that each Gaussian is answerable for: the
sum over all pixels of its share times the pixel's error. Both sums are collected for nothing, as
gradients of two channels that are always zero (see ``method.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from render.gaussians.cloud import Cloud
from render.gaussians.densify import Densifier, Event

DEAD_OPACITY = 0.012
SPLIT_SHRINK = 1.4  # children of a split are this much smaller


class Blame:
    """What each Gaussian contributed since the last refinement.

    Attributes:
        error: [N] sum over pixels of share times absolute error.
        share: [N] sum over pixels of share.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.error = torch.zeros(n, device=device)
        self.share = torch.zeros(n, device=device)

    def add(self, probe: Tensor) -> None:
        """``probe`` [N, 2]: gradients of the two probe channels of one step."""
        self.error += probe[:, 0]
        self.share += probe[:, 1]


def probe_loss(image: Tensor, error: Tensor) -> Tensor:
    """Zero, but its gradients are what :meth:`Blame.add` takes.

    Args:
        image: [H, W, 2] composite of two channels that are zero everywhere.
        error: [H, W, 3] of the picture, detached.
    """
    return (image[..., 0] * error.abs().mean(-1) + image[..., 1]).sum()


@dataclass(frozen=True)
class BlameOptions:
    """Steps count from 0."""

    first: int = 400  # refine from this step,
    every: int = 150  # every so many,
    last: int = 6000  # before this one
    share: float = 0.05  # of the Gaussians added at a time
    limit: int = 1_000_000  # Gaussians at most


class BlameDensifier(Densifier):
    """:func:`refine` now and then, by the blame collected since the last time.

    Args:
        n: Gaussians at the start.
    """

    channels = 2

    def __init__(self, options: BlameOptions, n: int, device: torch.device) -> None:
        self.options, self.blame = options, Blame(n, device)

    def observe(
        self, splats: Tensor, visible: Tensor, size: tuple[int, int], probe: Tensor | None
    ) -> None:
        assert probe is not None
        self.blame.add(probe)

    def after_step(
        self,
        step: int,
        cloud: Cloud,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Event | None:
        o, n = self.options, len(cloud)
        if not o.first <= step < o.last or (step - o.first) % o.every != 0:
            return None
        split = refine(cloud, self.blame, o.share, o.limit, optimizer, generator)
        added = len(cloud) - n
        self.blame = Blame(len(cloud), cloud.means.device)
        return Event(step, n, len(cloud), f"{split - added} moved, {added} added")

    def state_dict(self) -> dict[str, Tensor]:
        return {"error": self.blame.error, "share": self.blame.share}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.blame.error.copy_(state["error"])
        self.blame.share.copy_(state["share"])


def refine(
    cloud: Cloud,
    blame: Blame,
    share: float,
    limit: int,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    """Move the dead and add at most ``share`` of the Gaussians, up to ``limit`` in all.

    Returns:
        how many Gaussians were split.
    """
    n = len(cloud)
    finite = cloud.log_scales.detach().exp().isfinite().all(1)  # others cannot be split
    dead = (cloud.logits.detach().sigmoid() < DEAD_OPACITY) | (blame.share < 1e-3) | ~finite
    alive = (~dead).nonzero()[:, 0]
    added = min(int(share * n), max(0, limit - n))
    wanted = min(int(dead.sum()) + added, alive.numel())
    if wanted == 0:
        return 0
    chance = blame.error[alive].double().cpu() + 1e-12
    parents = alive[torch.multinomial(chance, wanted, generator=generator).to(alive.device)]
    moved = dead.nonzero()[:, 0][:wanted]
    _split(cloud, parents, moved, optimizer, generator)
    return wanted


def _split(
    cloud: Cloud,
    parents: Tensor,
    moved: Tensor,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Replace each parent by two smaller children, one in its place and one in a dead row or new.

    ``moved`` [D] are the dead rows to use first; the other children are appended.
    """
    n, device = len(cloud), parents.device
    first = parents[: moved.numel()]  # their second children go to dead rows, the rest is new
    rows = torch.cat([torch.arange(n, device=device), parents[moved.numel() :]])
    rows[moved] = first
    fresh = torch.zeros(len(rows), dtype=torch.bool, device=device)
    second = torch.cat([moved, torch.arange(n, len(rows), device=device)])
    fresh[parents] = fresh[second] = True
    cloud.rebuild(optimizer, rows, fresh)
    with torch.no_grad():
        offset = 0.5 * cloud.offsets(parents, generator)
        cloud.means[parents] -= offset
        cloud.means[second] += offset
        cloud.log_scales[torch.cat([parents, second])] -= math.log(SPLIT_SHRINK)
