"""Adaptive density control of 3DGS (Kerbl et al. 2023, section 5.2).

Gaussians whose centres are pulled strongly on the screen are too few there: small ones are cloned,
large ones split in two. Faint ones go. Now and then all opacities are lowered, so that what nobody
needs stays faint and goes too. Numbers and order as in gsplat 1.2 (../shared/methods/02, section
7), with one deliberate difference: opacities are not lowered at step 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from render.gaussians.cloud import Cloud
from render.gaussians.densify import Densifier, Event

SPLIT_SHRINK = 1.6


@dataclass(frozen=True)
class DefaultOptions:
    """Steps count from 0; sizes are shares of the scene's radius."""

    first: int = 500  # refine from this step,
    every: int = 100  # every so many,
    last: int = 15000  # before this one
    reset_every: int = 3000  # lower the opacities
    gradient: float = 2e-4  # mean gradient on the screen, in half picture widths, that is too much
    large: float = 0.01  # larger ones are split, smaller ones cloned
    too_large: float = 0.1  # removed, once opacities have been lowered
    faint: float = 0.005  # opacity below which a Gaussian is removed
    limit: int = 1_000_000  # Gaussians at most


class DefaultDensifier(Densifier):
    """Clone, split, prune, reset.

    Args:
        n: Gaussians at the start. radius: of the scene.
    """

    def __init__(self, options: DefaultOptions, n: int, radius: float, device: torch.device):
        self.options, self.radius = options, radius
        self._clear(n, device)

    def _clear(self, n: int, device: torch.device) -> None:
        self.pull = torch.zeros(n, device=device)  # sum of the screen gradients' norms
        self.seen = torch.zeros(n, device=device)  # in so many pictures

    def observe(
        self, splats: Tensor, visible: Tensor, size: tuple[int, int], probe: Tensor | None
    ) -> None:
        half = torch.tensor(size, dtype=splats.dtype, device=splats.device) / 2
        self.pull += (splats[:, :2] * half).norm(dim=1)
        self.seen += visible

    def after_step(
        self,
        step: int,
        cloud: Cloud,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Event | None:
        o = self.options
        if step >= o.last:
            return None
        event = None
        if step >= o.first and (step - o.first) % o.every == 0:
            event = self._refine(step, cloud, optimizer, generator)
        if step > 0 and step % o.reset_every == 0:
            self._reset(cloud, optimizer)
            note = (f"{event.note}, " if event else "") + "opacities lowered"
            before = event.before if event else len(cloud)
            event = Event(step, before, len(cloud), note, rebuilt=event is not None)
        return event

    @torch.no_grad()
    def _refine(
        self,
        step: int,
        cloud: Cloud,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Event:
        o, n, device = self.options, len(cloud), cloud.means.device
        size = cloud.log_scales.exp().amax(1)  # [N]
        pulled = self.pull / self.seen.clamp(min=1) > o.gradient
        split = pulled & (size > o.large * self.radius)
        removed = cloud.logits.sigmoid() < o.faint
        if step > o.reset_every:
            removed |= size > o.too_large * self.radius
        removed |= ~torch.stack([t.flatten(1).isfinite().all(1) for t in _wide(cloud)]).all(0)
        grown = (pulled & ~removed).nonzero()[:, 0]
        room = max(0, o.limit - n + int(removed.sum()))
        if len(grown) > room:  # the strongest first
            mean = self.pull[grown] / self.seen[grown].clamp(min=1)
            grown = grown[mean.argsort(descending=True, stable=True)[:room]].sort().values
        kept = (~removed).nonzero()[:, 0]
        rows = torch.cat([kept, grown])
        halves = torch.zeros(n, dtype=torch.bool, device=device)  # Gaussians that become two
        halves[grown[split[grown]]] = True
        fresh = halves[rows]
        fresh[len(kept) :] = True  # the copies
        cloud.rebuild(optimizer, rows, fresh)
        self._scatter(cloud, halves[rows].nonzero()[:, 0], generator)
        self._clear(len(rows), device)
        counts = int(halves.sum()), len(grown) - int(halves.sum()), n - len(kept)
        return Event(step, n, len(rows), "{} split, {} cloned, {} removed".format(*counts))

    @staticmethod
    def _scatter(cloud: Cloud, rows: Tensor, generator: torch.Generator) -> None:
        """Move Gaussians to a place drawn from themselves and shrink them."""
        cloud.means[rows] += cloud.offsets(rows, generator)
        cloud.log_scales[rows] -= math.log(SPLIT_SHRINK)

    @torch.no_grad()
    def _reset(self, cloud: Cloud, optimizer: torch.optim.Optimizer) -> None:
        """Opacities at most twice what counts as faint; their moments start anew."""
        most = 2 * self.options.faint
        cloud.logits.clamp_(max=math.log(most / (1 - most)))
        for value in optimizer.state.get(cloud.logits, {}).values():
            if value.ndim:
                value.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        return {"pull": self.pull, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.pull = state["pull"].to(self.pull).clone()
        self.seen = state["seen"].to(self.seen).clone()


def _wide(cloud: Cloud) -> list[Tensor]:
    """The geometry, each [N, C]."""
    return [cloud.means, cloud.quats, cloud.log_scales, cloud.logits[:, None]]
