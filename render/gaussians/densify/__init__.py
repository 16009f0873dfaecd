"""Densification: where Gaussians are added, moved and taken away while a model learns.

Three strategies behind one interface:

* ``blame``: the unseen move to where the picture is wrong (:mod:`.blame`),
* ``default``: clone and split by the gradient on the screen, prune the faint, reset opacities
  (:mod:`.default`; Kerbl et al. 2023),
* ``mcmc``: relocate the dead, add a share, shake the rest (:mod:`.mcmc`; Kheradmand et al. 2024).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from render.gaussians.cloud import Cloud


@dataclass(frozen=True)
class Event:
    """What one refinement did, for logs and plots."""

    step: int
    before: int  # Gaussians
    after: int
    note: str  # "42 split, 17 cloned, 3 removed"
    rebuilt: bool = True  # rows have changed, and nothing is collected about them yet


class Densifier(ABC):
    """Watches the gradients of training steps and changes the cloud now and then."""

    channels = 0  # probe channels that it wants: zero everywhere, read by their gradients

    @abstractmethod
    def observe(
        self, splats: Tensor, visible: Tensor, size: tuple[int, int], probe: Tensor | None
    ) -> None:
        """After the backward pass of a step.

        Args:
            splats: [N, 6] gradient with respect to the splats on the screen.
            visible: [N] bool.
            size: width and height of the picture.
            probe: [N, 2] with two channels: the sum over pixels of share times error, and of share.
        """

    @abstractmethod
    def after_step(
        self,
        step: int,
        cloud: Cloud,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Event | None:
        """After the optimiser's step; what was done, if anything."""

    def regularisation(self, cloud: Cloud) -> dict[str, tuple[float, Tensor]]:
        """Loss terms that belong to the strategy: weight and value by name."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Everything collected since the last refinement."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The opposite."""
