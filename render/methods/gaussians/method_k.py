"""``gaussians-k``: 3D Gaussian splatting with the K-Buffers network (arXiv 2505.19564, section 4).

Gaussians, background and densification are those of ``gaussians``; a network makes the picture
from what is composited. Which network: :mod:`.readings`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.kbuffer.gaussians import Projected, Splatted
from render.methods.base import Inspection, MethodOptions
from render.methods.gaussians.method import GaussiansMethod
from render.methods.gaussians.options import GaussiansKOptions
from render.methods.gaussians.readings import ChannelsReading, LayersReading, Reading
from render.scenes.types import Scene
from render.training.stages import stage


class GaussiansKMethod(GaussiansMethod):
    """See the module's text; options in :class:`GaussiansKOptions`."""

    name: ClassVar[str] = "gaussians-k"
    Options: ClassVar[type[MethodOptions]] = GaussiansKOptions
    options: GaussiansKOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        assert isinstance(options, GaussiansKOptions)
        features = options.features or {"layers": 4, "channels": 32}.get(options.reading, 0)
        super().__init__(options, scene, device, generator, features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            self.reading = self._reading(features).to(device)
        self.network_on = self._needs_network

    def _reading(self, features: int) -> Reading:
        o = self.options
        if o.reading == "layers":
            return LayersReading(o.k, features, o.width)
        if o.reading == "channels":
            return ChannelsReading(features)
        raise UserError(f"--set reading={o.reading}: expected layers or channels.")

    @property
    def _needs_network(self) -> bool:
        """Without one, channels are no picture."""
        return self.options.reading == "channels"

    # ------------------------------------------------------------------ training
    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*super().parameter_groups(), self._network_group(self.reading)]

    def learning_rates(self, step: int) -> dict[str, float]:
        o, layers = self.options, self.options.reading == "layers"
        rate = o.lr_network or (1e-3 if layers else 2e-3)
        network = self._network_rate(rate, o.network_from if layers else None, step)
        return super().learning_rates(step) | network

    def _learnt(
        self, step: int, camera: Camera, background: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        o = self.options
        self.network_on = self._needs_network or step >= o.network_from
        k = self._drop_layers(o.layer_dropout, generator) if self.network_on else o.k
        with stage("rasterise"):
            everything, probe = self._composite(camera)
        assert self._projected is not None
        return self._picture(camera, self._projected, everything, k, background), probe

    def _values(self, projected: Projected, camera: Camera) -> Tensor:
        return self.reading.values(self.cloud, projected, camera)

    def _picture(
        self, camera: Camera, projected: Projected, seen: Splatted, k: int, background: Tensor
    ) -> Tensor:
        if not self.network_on:
            return super()._picture(camera, projected, seen, k, background)
        with stage("network"):
            if self.cloud.sampling.samples > 1:
                with self.cloud.sampled_once():
                    projected = self._project(camera)
            return self.reading.decode(self.cloud, projected, seen, k, background)

    # ------------------------------------------------------------------ pictures
    def _inspection(self, projected: Projected, seen: Splatted) -> Inspection:
        features = seen.kbuffer.gather(self.cloud.features)  # [H, W, K, F]
        plain = super()._inspection(projected, seen)
        return replace(plain, feature_norm=features.norm(dim=-1), extra={"features": features})

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        mine = {"reading": self.reading.state_dict(), "network_on": self.network_on}
        return super().state_dict() | mine

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.reading.load_state_dict(state["reading"])
        self.network_on = bool(state["network_on"])

    def describe(self) -> dict[str, int | float | str]:
        count = sum(p.numel() for p in self.reading.parameters())
        return super().describe() | {"network parameters": count}
