"""The gate that fuses the K layers of a pixel: KFN in its cheapest form (arXiv 2505.19564)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from render.nets import gate_native


class Gate(nn.Module):
    """Weighs the layers of each pixel by looking at all of them: a hidden layer of 16, K gates.

    On the CPU one kernel does it (``cuda/kfn_cpu.cpp``); :meth:`fuse` is its plain twin, which
    serves every other device and type.

    Args:
        k: most layers of a pixel. features: F, channels of each.
    """

    def __init__(self, k: int, features: int) -> None:
        super().__init__()
        self.k = k
        self.mix = nn.Linear(k * features, gate_native.WIDTH)
        self.gate = nn.Linear(gate_native.WIDTH, k)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, layers: Tensor) -> Tensor:
        """Layers [h, w, k, F], k <= K (the missing count as empty) -> fused [h, w, F]."""
        weights = (self.mix.weight, self.mix.bias, self.gate.weight, self.gate.bias)
        if gate_native.serves(layers, weights):
            return _Fuse.apply(layers, *weights)  # type: ignore[return-value]
        return self.fuse(layers)

    def fuse(self, layers: Tensor) -> Tensor:
        """:meth:`forward` in plain torch."""
        return (layers * self.gates(layers)[..., : layers.shape[2], None]).sum(2)

    def gates(self, layers: Tensor) -> Tensor:
        """What each layer is multiplied by, [h, w, K] in (0, 2)."""
        if layers.shape[2] < self.k:
            layers = F.pad(layers, (0, 0, 0, self.k - layers.shape[2]))
        return 2 * torch.sigmoid(self.gate(F.relu(self.mix(layers.flatten(2)))))


class _Fuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layers, *weights):
        ctx.save_for_backward(layers, *weights)
        return gate_native.forward(layers, weights)

    @staticmethod
    def backward(ctx, *d_fused):
        layers, *weights = ctx.saved_tensors
        return tuple(gate_native.backward(layers, tuple(weights), d_fused[0]))
