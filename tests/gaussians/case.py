"""Random Gaussians with an Adam that has taken two steps on them."""

from __future__ import annotations

import torch
from torch import Tensor

from render.gaussians.cloud import Cloud


class Case:
    """N random Gaussians, all opaque enough to live."""

    def __init__(self, n: int = 40, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        shapes = {
            "means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "logits": (n,),
            "sh0": (n, 3), "sh_rest": (n, 8, 3),
        }  # fmt: skip
        tensors = {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}
        tensors["logits"] = tensors["logits"].abs()
        tensors["log_scales"] -= 6
        self.cloud = Cloud(tensors)
        self.optimizer = torch.optim.Adam(
            [{"name": n, "params": [t], "lr": 1e-3} for n, t in self.cloud.tensors().items()],
            fused=True,
        )
        for _ in range(2):
            for tensor in self.cloud.tensors().values():
                tensor.grad = torch.randn(tensor.shape, generator=g)
            self.optimizer.step()
        self.old = {name: t.detach().clone() for name, t in self.cloud.tensors().items()}
        self.generator = g

    def now(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in self.cloud.tensors().items()}
