"""3DGS as Markov Chain Monte Carlo (Kheradmand et al., NeurIPS 2024).

Dead Gaussians are put where live ones are, drawn by opacity; a share of new ones is added the same
way; and every position is shaken, the more the fainter its Gaussian. Two regularisers keep
opacities and sizes small. A copy is made so that the picture stays: n Gaussians in one place have
together the opacity of the one that was there, and its size follows (equation 9 of the paper).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from render.camera import quat_to_rotation
from render.gaussians.cloud import Cloud
from render.gaussians.densify import Densifier, Event

MOST_COPIES = 51  # in one place; the sums of equation 9 grow with its square
_SHARPNESS, _THRESHOLD = 100.0, 0.995  # of the noise's dependence on the opacity


@dataclass(frozen=True)
class McmcOptions:
    """Steps count from 0."""

    first: int = 500
    every: int = 100
    last: int = 25000
    growth: float = 0.05  # share added each time
    limit: int = 1_000_000  # Gaussians at most
    dead: float = 0.005  # opacity
    noise: float = 5e5  # times the learning rate of the positions
    opacity_weight: float = 0.01  # of the mean opacity in the loss
    scale_weight: float = 0.01  # of the mean size, in units of the scene's radius


class McmcDensifier(Densifier):
    """Relocate, add, shake. Keeps nothing between steps.

    Args:
        radius: of the scene.
    """

    def __init__(self, options: McmcOptions, radius: float) -> None:
        self.options, self.radius = options, radius

    def observe(
        self, splats: Tensor, visible: Tensor, size: tuple[int, int], probe: Tensor | None
    ) -> None:
        """Gradients play no part here."""

    def regularisation(self, cloud: Cloud) -> dict[str, tuple[float, Tensor]]:
        o = self.options
        return {
            "opacity": (o.opacity_weight, cloud.logits.sigmoid().mean()),
            "scale": (o.scale_weight, cloud.log_scales.exp().mean() / self.radius),
        }

    def after_step(
        self,
        step: int,
        cloud: Cloud,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Event | None:
        o, event = self.options, None
        if o.first <= step < o.last and (step - o.first) % o.every == 0:
            event = self._refine(step, cloud, optimizer, generator)
        rate = next(g["lr"] for g in optimizer.param_groups if g["name"] == "means")
        self._shake(cloud, rate * o.noise, generator)
        return event

    @torch.no_grad()
    def _refine(
        self,
        step: int,
        cloud: Cloud,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Event | None:
        o, n, device = self.options, len(cloud), cloud.means.device
        opacity = cloud.logits.sigmoid()
        dead = ~(opacity > o.dead)  # a NaN is dead
        alive = (~dead).nonzero()[:, 0]
        moved = dead.nonzero()[:, 0]
        added = max(0, min(o.limit, int((1 + o.growth) * n)) - n)
        wanted = len(moved) + added
        if wanted == 0 or len(alive) == 0:
            return None
        chance = opacity[alive].double().cpu()
        drawn = torch.multinomial(chance, wanted, replacement=True, generator=generator)
        parents = alive[drawn.to(device)]
        together = torch.bincount(parents, minlength=n) + 1  # [N] Gaussians that share a place
        rows = torch.cat([torch.arange(n, device=device), parents[len(moved) :]])
        rows[moved] = parents[: len(moved)]
        shared = (together > 1)[rows]
        cloud.rebuild(optimizer, rows, shared)
        new_opacity, shrink = split_evenly(cloud.logits[shared].sigmoid(), together[rows][shared])
        new_opacity = new_opacity.clamp(o.dead, 1 - 1e-6)  # a copy that is born dead helps nobody
        cloud.logits[shared] = torch.logit(new_opacity)
        cloud.log_scales[shared] += shrink.log()[:, None]
        return Event(step, n, len(rows), f"{len(moved)} moved, {added} added")

    @torch.no_grad()
    def _shake(self, cloud: Cloud, size: float, generator: torch.Generator) -> None:
        faint = torch.sigmoid(_SHARPNESS * ((1 - cloud.logits.sigmoid()) - _THRESHOLD))
        noise = torch.randn(cloud.means.shape, generator=generator).to(cloud.means)
        noise *= (size * faint)[:, None]
        rotation = quat_to_rotation(cloud.quats)
        variance = (2 * cloud.log_scales).exp()  # covariance = R diag(variance) R^T
        inside = (rotation.transpose(1, 2) @ noise[..., None])[..., 0] * variance
        step = (rotation @ inside[..., None])[..., 0]
        cloud.means += torch.where(step.isfinite(), step, 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""


def split_evenly(opacity: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity of each of ``count`` Gaussians in place of one, and by which factor its size changes.

    Args:
        opacity: [M] of the one. count: [M] int64, at least 1; more than 51 count as 51.

    Returns:
        opacity [M] = 1 - (1 - o)^(1/n), and the factor [M] o / sum_i sum_k (-1)^k C(i-1, k)
        o_new^(k+1) / sqrt(k+1), i = 1..n, k = 0..i-1.
    """
    n = count.clamp(1, MOST_COPIES)
    o = opacity.double().clamp(max=1 - 1e-9)
    new = 1 - (1 - o) ** (1 / n)
    # sum over i = k+1..n of C(i-1, k) is C(n, k+1): one sum over k remains.
    k = torch.arange(MOST_COPIES, dtype=torch.float64, device=opacity.device)  # [51]
    log_binomial = (
        torch.lgamma(n[:, None] + 1.0)
        - torch.lgamma(k + 2)
        - torch.lgamma((n[:, None] - k).clamp(min=1).double())
    )
    sign = 1 - 2 * (k % 2)
    term = sign * log_binomial.exp() * new[:, None] ** (k + 1) / (k + 1).sqrt()
    total = torch.where(k < n[:, None], term, 0.0).sum(1)
    return new.to(opacity), (o / total).to(opacity)
