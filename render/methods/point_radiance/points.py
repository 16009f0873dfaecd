"""The points: parameters as leaf tensors, and an optimiser that follows when they change."""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("xyz", "radius", "base", "sh")


class Points:
    """N discs as leaf tensors, one attribute each.

    Attributes:
        xyz [N, 3]; radius [N], the logarithm; base [N, 3], colour; sh [N, 3 B], harmonic by
        harmonic, each in red, green, blue.
    """

    xyz: Tensor
    radius: Tensor
    base: Tensor
    sh: Tensor

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.replace(tensors)

    def __len__(self) -> int:
        return self.xyz.shape[0]

    def replace(self, tensors: dict[str, Tensor]) -> None:
        """Set all parameters; each becomes a new leaf that requires grad."""
        for name in NAMES:
            setattr(self, name, tensors[name].detach().clone().requires_grad_(True))

    def tensors(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return {name: getattr(self, name) for name in NAMES}

    def size(self) -> int:
        """Bytes of all parameters: the size of the model."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def become(
        self,
        optimizer: torch.optim.Optimizer,
        tensors: dict[str, Tensor] | None = None,
        origin: Tensor | None = None,
        fresh: Tensor | None = None,
    ) -> None:
        """From now on be ``tensors`` if given, and let the optimiser follow.

        Args:
            origin: [M] the row that each of ``tensors`` comes from, whose moments it takes along;
                None: the optimiser forgets what it knows.
            fresh: [M] bool: rows whose first moments begin at zero. The second ones are kept, or
                their next update would be many times too large.
        """
        before = self.tensors()
        if tensors is not None:
            self.replace(tensors)
        for group in optimizer.param_groups:
            parameter = getattr(self, group["name"])
            state = optimizer.state.pop(before[group["name"]], None)
            group["params"] = [parameter]
            if state and origin is not None:
                state = {k: v[origin] if v.ndim else v for k, v in state.items()}
                if fresh is not None:
                    state["exp_avg"][fresh] = 0
                optimizer.state[parameter] = state
