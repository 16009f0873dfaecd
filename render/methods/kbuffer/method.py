"""``kbuffer``: K layers of Gaussian footprints, fused by the K-Buffers network.

The picture is made from the K heaviest contributions of every pixel, in training as in viewing:
their shares composite the colours, and the fusion network adds what the layers' features say.
Gradients reach position, shape, opacity, colour and features of the kept contributions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.gaussians.densify.blame import BlameDensifier, BlameOptions, probe_loss
from render.kbuffer.gaussians import Layers, Projected, Splatted, splat_layers
from render.methods.base import Inspection, MethodOptions, Render, StepOutput
from render.methods.kbuffer.options import KBufferOptions
from render.methods.splatting import SplattingMethod, composite, over, shares
from render.methods.targets import counted_mean, leave_out
from render.nets.fusion import Fusion
from render.scenes.types import Scene
from render.training.sampler import ViewSampler
from render.training.stages import stage


class KBufferMethod(SplattingMethod):
    """See the module's text; options in :class:`KBufferOptions`."""

    name: ClassVar[str] = "kbuffer"
    Options: ClassVar[type[MethodOptions]] = KBufferOptions
    options: KBufferOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        assert isinstance(options, KBufferOptions)
        super().__init__(options, scene, device, generator, options.features)
        self.fusion: Fusion | None = None
        if options.network:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                self.fusion = Fusion(options.k, options.features, options.width).to(device)
        self.densifier = self._densifier()
        self._probe: Tensor | None = None
        self.network_on = False

    def _densifier(self) -> BlameDensifier:
        o = self.options
        steps = {"first": o.refine_from, "every": o.refine_every, "last": o.refine_until}
        blame = BlameOptions(**steps, share=o.refine_share, limit=self.limit)
        return BlameDensifier(blame, len(self.cloud), self.device)

    # ------------------------------------------------------------------ training
    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = super().parameter_groups()
        if self.fusion is not None:
            groups.append(self._network_group(self.fusion))
        return groups

    def learning_rates(self, step: int) -> dict[str, float]:
        first = max(self.options.network_from, self.options.warm_up)
        network = self._network_rate(self.options.lr_network, first, step)
        return super().learning_rates(step) | network

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        o = self.options
        camera, target, background = self._begin(step, sampler, generator)
        self.network_on = self.fusion is not None and step >= max(o.network_from, o.warm_up)
        k = self._drop_layers(o.layer_dropout, generator) if self.network_on else o.k
        self._probe = torch.zeros(len(self.cloud), 2, device=self.device, requires_grad=True)
        if step < o.warm_up:
            layers = self._everything(camera, self._probe)
        else:
            layers = self._layers(camera, k, self._probe)
        rgb = self._picture(layers, background)
        with stage("loss"):
            rgb, target, share = leave_out(rgb, target)
            error = (rgb - target).detach()
            probe = probe_loss(layers.image[..., 3:5], error)
            mse = counted_mean(float(error.square().mean()), share)
            return StepOutput(self._terms(rgb, target), mse=mse, probe=probe)

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        if step >= self.options.refine_until:
            return
        assert self._probe is not None and self._probe.grad is not None
        self.densifier.blame.add(self._probe.grad)
        event = self.densifier.after_step(step, self.cloud, optimizer, generator)
        self._note(event, optimizer)

    def _everything(self, camera: Camera, probe: Tensor) -> Splatted:
        """All contributions with values (r, g, b, two probe channels)."""
        with stage("rasterise"):
            projected = self._project(camera)
            values = torch.cat([projected.rgb, probe], 1)
            return composite(projected, values, camera, self.cloud.sampling)

    def _layers(self, camera: Camera, k: int, probe: Tensor | None = None) -> Layers:
        """K layers of a camera's pixels without their K-buffer, see :meth:`_splat`.

        Of several samples each has its own K heaviest contributions; layer by layer they are
        averaged before the network sees them.
        """
        sampling = self.cloud.sampling
        with stage("rasterise"):
            projected = self._project(camera)
            found = self._splat(projected, sampling.finer(camera), k, probe, kbuffer=False)
            return found._replace(
                image=sampling.mean(found.image),
                alpha=sampling.mean(found.alpha),
                features=sampling.mean(found.features),
                depth=sampling.mean_depth(found.depth, found.alpha),
            )

    def _splat(
        self,
        projected: Projected,
        camera: Camera,
        k: int,
        probe: Tensor | None = None,
        *,
        kbuffer: bool = True,
    ) -> Layers:
        """K layers with values (r, g, b, two probe channels, F features)."""
        if probe is None:
            probe = torch.zeros(len(self.cloud), 2, device=self.device)
        values = torch.cat([projected.rgb, probe, self.cloud.features], 1)
        features = self.options.features if self.network_on else 0
        size = (camera.width, camera.height)
        return splat_layers(projected, values, *size, k, features, kbuffer=kbuffer)

    def _picture(self, layers: Layers | Splatted, background: Tensor) -> Tensor:
        """[H, W, 3], not clamped."""
        rgb = over(layers.image[..., :3], layers.alpha, background)
        if not self.network_on or self.fusion is None:
            return rgb
        assert isinstance(layers, Layers)
        with stage("network"):
            return self.fusion(layers.features, rgb, layers.alpha)

    # ------------------------------------------------------------------ pictures
    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        return self._rendered(self._layers(camera, self._clip(k)), background)

    def _rendered(self, layers: Layers, background: Tensor) -> Render:
        rgb = self._picture(layers, background.to(self.device))
        return Render(rgb.clamp(0, 1), layers.alpha, layers.depth)

    @torch.no_grad()
    def render_all(self, camera: Camera, background: Tensor) -> Render:
        """The picture of *all* contributions: what the K layers are measured against.

        Colours come from every contribution; the network's correction still comes from K layers.
        """
        layers = self._layers(camera, self.options.k)
        background = background.to(self.device)
        plain = over(layers.image[..., :3], layers.alpha, background)
        correction = self._picture(layers, background) - plain
        projected = self._project(camera)
        everything = composite(projected, projected.rgb, camera, self.cloud.sampling)
        rgb = over(everything.image, everything.alpha, background)
        return Render((rgb + correction).clamp(0, 1), everything.alpha)

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        with self.cloud.sampled_once():
            projected = self._project(camera)
            return self._inspected(projected, self._splat(projected, camera, self._clip(k)))

    @torch.no_grad()
    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        if self.cloud.sampling.samples > 1:
            return self.render(camera, background, k), self.inspect(camera, k)
        projected = self._project(camera)
        layers = self._splat(projected, camera, self._clip(k))
        return self._rendered(layers, background), self._inspected(projected, layers)

    def _inspected(self, projected: Projected, layers: Layers) -> Inspection:
        kbuffer = layers.kbuffer
        color = kbuffer.gather(projected.rgb.clamp(max=1))
        features = kbuffer.gather(self.cloud.features)
        extra = {} if self.fusion is None else {"features": features}
        return Inspection(kbuffer, color, shares(layers), features.norm(dim=-1), extra)

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        return {
            **self._cloud_state(),
            "fusion": self.fusion.state_dict() if self.fusion is not None else None,
            "network_on": self.network_on,
            "blame": self.densifier.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_cloud(state)
        if self.fusion is not None:
            self.fusion.load_state_dict(state["fusion"])
        self.network_on = bool(state["network_on"])
        self.densifier = self._densifier()
        self.densifier.load_state_dict(state["blame"])

    def describe(self) -> dict[str, int | float | str]:
        network = sum(p.numel() for p in self.fusion.parameters()) if self.fusion else 0
        return super().describe() | {"network parameters": network}
