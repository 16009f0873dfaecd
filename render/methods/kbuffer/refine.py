"""Densification: Gaussians that nobody sees move to where the picture is wrong.

In the manner of 3DGS-MCMC (Kheradmand et al., 2024) the number only grows by a fixed share and
dead Gaussians are relocated, and in the manner of error-based densification (Rota Bulo et al.,
2024) the places are drawn in proportion to the error that each Gaussian is answerable for: the
sum over all pixels of its share times the pixel's error. Both sums are collected for nothing, as
gradients of two channels that are always zero (see ``method.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from render.camera import quat_to_rotation
from render.methods.kbuffer.cloud import NAMES, Cloud

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
    old = {name: tensor.detach() for name, tensor in cloud.tensors().items()}
    children = {name: tensor[parents].clone() for name, tensor in old.items()}
    scales = children["log_scales"].exp()
    noise = torch.randn(scales.shape, generator=generator).to(scales)
    rotation = quat_to_rotation(children["quats"])
    offset = (rotation @ (noise * scales)[..., None])[..., 0]
    children["log_scales"] -= torch.tensor(SPLIT_SHRINK).log()
    new = {name: tensor.clone() for name, tensor in old.items()}
    for name in NAMES:
        sign = 0.5 * offset if name == "means" else 0.0
        new[name][parents] = children[name] - sign
        new[name][moved] = (children[name] + sign)[: moved.numel()]
        new[name] = torch.cat([new[name], (children[name] + sign)[moved.numel() :]])
    before = cloud.tensors()
    cloud.replace(new)
    for group in optimizer.param_groups:
        if group["name"] not in before:
            continue
        state = optimizer.state.pop(before[group["name"]], None)
        parameter = getattr(cloud, group["name"])
        group["params"] = [parameter]
        if state:
            optimizer.state[parameter] = _resized(state, parents, moved, parameter.shape[0])


def _resized(state: dict[str, Tensor], parents: Tensor, moved: Tensor, n: int) -> dict[str, Tensor]:
    """Adam's state for ``n`` rows: children inherit the second moment and lose the first.

    A zero second moment would make their next update many times too large.
    """
    out = {}
    for key, value in state.items():
        if value.ndim == 0:  # the step counter
            out[key] = value
            continue
        rows = value.new_zeros(n, *value.shape[1:])
        rows[: value.shape[0]] = value
        inherited = value[parents] if key == "exp_avg_sq" else torch.zeros_like(value[parents])
        rows[parents] = inherited
        rows[moved] = inherited[: moved.numel()]
        rows[value.shape[0] :] = inherited[moved.numel() :]
        out[key] = rows
    return out
