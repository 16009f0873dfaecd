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
from render.errors import UserError
from render.kbuffer.gaussians import MAX_LAYERS, Layers, Projected, splat, splat_layers
from render.memory import REMEDY, check_room, training_bytes
from render.methods.base import Inspection, Method, MethodOptions, Render, StepOutput
from render.methods.kbuffer.cloud import NAMES, Cloud
from render.methods.kbuffer.fusion import Fusion
from render.methods.kbuffer.options import KBufferOptions
from render.methods.kbuffer.refine import Blame, refine
from render.methods.kbuffer.targets import (
    coarse_view,
    content_box,
    halvings,
    training_window,
)
from render.scenes.types import Scene
from render.training.losses import dssim, l1
from render.training.sampler import ViewSampler
from render.training.stages import stage

SMALLEST_SSIM = 11  # px: the window of SSIM must fit


class KBufferMethod(Method):
    """See the module's text; options in :class:`KBufferOptions`."""

    name: ClassVar[str] = "kbuffer"
    Options: ClassVar[type[MethodOptions]] = KBufferOptions
    gpu_ready: ClassVar[bool] = False  # the Gaussian kernels have no CUDA build yet
    small_operations: ClassVar[bool] = True
    options: KBufferOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        assert isinstance(options, KBufferOptions)
        self.options, self.device = options, device
        self.views, self.background = scene.split("train"), scene.background
        self._boxes: list[tuple[float, float, float, float] | None] = [None] * len(self.views)
        check(options)
        if scene.points is None:
            raise UserError(f"{scene.name}: the method kbuffer needs points, found none.")
        self.radius = float(scene.bounds.radius)
        self.near = max(0.01 * self.radius, 0.2 * scene.bounds.near)
        size = max((v.camera.width * v.camera.height for v in self.views), default=256 * 256)
        count = options.points or default_count(size)
        self.limit = int(count * options.growth)
        needed = training_bytes(self.limit, min(size, options.max_pixels), options.k)
        check_room(f"{scene.name}, training up to {self.limit:,} Gaussians", needed, REMEDY, device)
        volume = scene.points.fills_volume
        self.lr_means = options.volume_lr_means if volume else options.surface_lr_means
        self.cloud = Cloud.from_points(scene.points, count, self.radius, options, device, generator)
        self.fusion: Fusion | None = None
        if options.network:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                self.fusion = Fusion(options.k, options.features, options.width).to(device)
        self.blame = Blame(len(self.cloud), device)
        self._probe: Tensor | None = None
        self.network_on = False

    # ------------------------------------------------------------------ training
    def parameter_groups(self) -> list[dict[str, Any]]:
        rates = self.learning_rates(0)
        groups = [
            {"name": name, "params": [getattr(self.cloud, name)], "lr": rates[name]}
            for name in NAMES
        ]
        if self.fusion is not None:
            params = list(self.fusion.parameters())
            groups.append({"name": "network", "params": params, "lr": 0.0, "eps": 1e-8})
        return groups

    def learning_rates(self, step: int) -> dict[str, float]:
        o = self.options
        fast = 1 / (1 + step / o.half_life)
        slow = 1 / (1 + step / o.slow_half_life)
        return {
            "means": self.lr_means * self.radius * fast,
            "log_scales": o.lr_scales * slow,
            "quats": o.lr_quats * slow,
            "logits": o.lr_logits * slow,
            "sh0": o.lr_colors * slow,
            "sh_rest": o.lr_colors / 10 * slow,
            "features": o.lr_colors * slow,
            "network": o.lr_network * slow,
        }

    def loss_weights(self, step: int) -> dict[str, float]:
        return {"l1": 1 - self.options.ssim, "ssim": self.options.ssim}

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        o = self.options
        index = sampler.next()
        background = self.background.color(generator)
        with stage("data"):
            camera, target = self._draw(step, index, background, generator)
            target, background = target.to(self.device), background.to(self.device)
        self.network_on = self.fusion is not None and step >= o.network_from
        k = o.k
        if self.network_on and float(torch.rand(1, generator=generator)) < o.layer_dropout:
            k = int(torch.randint(1, o.k + 1, (1,), generator=generator))
        self._probe = torch.zeros(len(self.cloud), 2, device=self.device, requires_grad=True)
        layers = self._layers(camera, k, self._probe)
        rgb = self._picture(layers, background)
        with stage("loss"):
            error = (rgb - target).detach()
            # The probe channels are zero everywhere, so this adds nothing to the loss; its gradient
            # is each Gaussian's share of the absolute error and of the picture (see refine.py).
            probe = (layers.image[..., 3] * error.abs().mean(-1) + layers.image[..., 4]).sum()
            terms = {"l1": l1(rgb, target)}
            if o.ssim > 0 and min(target.shape[:2]) >= SMALLEST_SSIM:
                terms["ssim"] = dssim(rgb, target)
            return StepOutput(terms, mse=float(error.square().mean()), probe=probe)

    def _draw(
        self, step: int, index: int, background: Tensor, generator: torch.Generator
    ) -> tuple[Camera, Tensor]:
        """Camera and photograph [H, W, 3] of what a step learns from the view at ``index``."""
        view = self.views[index]
        halved = halvings(view.camera.width, view.camera.height)
        level = max(0, halved - step // max(1, self.options.coarse_steps))
        camera, target = coarse_view(view, level, background)
        box = self._boxes[index]
        if box is None:
            box = self._boxes[index] = content_box(view)
        return training_window(camera, target, box, self.options.max_pixels, generator)

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        o = self.options
        if step >= o.refine_until:
            return
        assert self._probe is not None and self._probe.grad is not None
        self.blame.add(self._probe.grad)
        if step >= o.refine_from and (step - o.refine_from) % o.refine_every == 0:
            refine(self.cloud, self.blame, o.refine_share, self.limit, optimizer, generator)
            self.blame = Blame(len(self.cloud), self.device)

    def _layers(self, camera: Camera, k: int, probe: Tensor | None = None) -> Layers:
        """K layers of a camera, see :meth:`_splat`."""
        with stage("rasterise"):
            return self._splat(self._project(camera), camera, k, probe)

    def _project(self, camera: Camera) -> Projected:
        return self.cloud.project(camera, self.near, self.options.antialias)

    def _splat(
        self, projected: Projected, camera: Camera, k: int, probe: Tensor | None = None
    ) -> Layers:
        """K layers with values (r, g, b, two probe channels, F features)."""
        if probe is None:
            probe = torch.zeros(len(self.cloud), 2, device=self.device)
        values = torch.cat([projected.rgb, probe, self.cloud.features], 1)
        features = self.options.features if self.network_on else 0
        return splat_layers(projected, values, camera.width, camera.height, k, features)

    def _picture(self, layers: Layers, background: Tensor) -> Tensor:
        """[H, W, 3], not clamped."""
        rgb = layers.image[..., :3] + (1 - layers.alpha)[..., None] * background
        if not self.network_on or self.fusion is None:
            return rgb
        with stage("network"):
            return self.fusion(layers.features, rgb, layers.alpha)

    # ------------------------------------------------------------------ pictures
    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        return self._rendered(self._layers(camera, self._clip(k)), background)

    def _rendered(self, layers: Layers, background: Tensor) -> Render:
        rgb = self._picture(layers, background.to(self.device))
        weight = layers.kbuffer.weight
        assert weight is not None
        depth = torch.linalg.vecdot(weight, layers.kbuffer.depth) / weight.sum(-1).clamp(min=1e-12)
        return Render(rgb.clamp(0, 1), layers.alpha, depth)

    @torch.no_grad()
    def render_all(self, camera: Camera, background: Tensor) -> Render:
        """The picture of *all* contributions: what the K layers are measured against.

        Colours come from every contribution; the network's correction still comes from K layers.
        """
        layers = self._layers(camera, self.options.k)
        background = background.to(self.device)
        plain = layers.image[..., :3] + (1 - layers.alpha)[..., None] * background
        correction = self._picture(layers, background) - plain
        projected = self._project(camera)
        everything = splat(projected, projected.rgb, camera.width, camera.height, 0)
        rgb = everything.image + (1 - everything.alpha)[..., None] * background
        return Render((rgb + correction).clamp(0, 1), everything.alpha)

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        projected = self._project(camera)
        return self._inspected(projected, self._splat(projected, camera, self._clip(k)))

    @torch.no_grad()
    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        projected = self._project(camera)
        layers = self._splat(projected, camera, self._clip(k))
        return self._rendered(layers, background), self._inspected(projected, layers)

    def _inspected(self, projected: Projected, layers: Layers) -> Inspection:
        kbuffer = layers.kbuffer
        color = kbuffer.gather(projected.rgb.clamp(max=1))
        features = kbuffer.gather(self.cloud.features)
        extra = {} if self.fusion is None else {"features": features}
        return Inspection(kbuffer, color, shares(layers), features.norm(dim=-1), extra)

    def _clip(self, k: int | None) -> int:
        return self.options.k if k is None else max(1, min(k, self.options.k))

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        return {
            "cloud": {name: t.detach() for name, t in self.cloud.tensors().items()},
            "fusion": self.fusion.state_dict() if self.fusion is not None else None,
            "network_on": self.network_on,
            "blame": {"error": self.blame.error, "share": self.blame.share},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cloud.replace({n: t.to(self.device) for n, t in state["cloud"].items()})
        if self.fusion is not None:
            self.fusion.load_state_dict(state["fusion"])
        self.network_on = bool(state["network_on"])
        self.blame = Blame(len(self.cloud), self.device)
        self.blame.error.copy_(state["blame"]["error"])
        self.blame.share.copy_(state["blame"]["share"])

    def describe(self) -> dict[str, int | float | str]:
        network = sum(p.numel() for p in self.fusion.parameters()) if self.fusion else 0
        return {"gaussians": len(self.cloud), "network parameters": network}


def check(options: KBufferOptions) -> None:
    """Raise :class:`UserError` for options that the kernels cannot serve."""
    if not 1 <= options.k <= MAX_LAYERS:
        raise UserError(f"--k {options.k}: expected 1 to {MAX_LAYERS} layers for kbuffer.")
    if options.sh_degree not in (0, 1, 2, 3):
        raise UserError(f"--set sh_degree={options.sh_degree}: expected 0, 1, 2 or 3.")


def default_count(pixels: int) -> int:
    """Gaussians to start with: 30,000 for pictures of 200x200, 60,000 for 400x400."""
    return int(min(max(30000 * (pixels / 40000) ** 0.5, 5000), 250000))


def shares(layers: Layers) -> Tensor:
    """[H, W, K] share of each layer in the pixel; they sum to alpha."""
    weight = layers.kbuffer.weight
    assert weight is not None
    total = weight.sum(-1, keepdim=True).clamp(min=1e-12)
    return weight * layers.alpha[..., None] / total
