"""What the methods with 3D Gaussians share: their start, their cameras, their learning rates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from render.camera import Camera
from render.errors import UserError
from render.gaussians.cloud import Cloud
from render.gaussians.densify import Event
from render.kbuffer.gaussians import (
    MAX_LAYERS,
    Layers,
    Projected,
    Splatted,
    gpu_ready,
    splat,
    splat_layers,
)
from render.kbuffer.types import KBuffer
from render.memory import REMEDY, check_room, training_bytes
from render.methods.base import Inspection, Method, MethodOptions, Render
from render.methods.saved import check_rows
from render.methods.targets import coarse_view, content_box, halvings, training_window
from render.sampling import LOW_PASS, MAX_SAMPLES, Sampling
from render.scenes.types import Scene
from render.training.losses import dssim, l1
from render.training.metrics import SSIM_WINDOW
from render.training.sampler import ViewSampler
from render.training.stages import stage

# Steps for which the rate of a network that corrects pictures rises. Its last layer starts at zero,
# and the first moments of Adam throw those before it about: at the full rate most units end dead.
RAMP = 200


@dataclass(frozen=True)
class SplattingOptions(MethodOptions):
    """Options of every method with Gaussians. Defaults: time to quality on two CPU cores.

    Learning rates are those of step 0. All rates are per step of Adam; positions are in units of
    the scene's radius, so that scenes of any size train alike.
    """

    # Gaussians
    points: int = 0  # Gaussians to start with; 0: chosen from the image size
    growth: float = 1.5  # at most this many times as many after densification
    # Opacity at the start, and size as a share of the mean distance of the 3 nearest neighbours:
    # faint and wide for points that fill a volume, firm and small for points on surfaces.
    volume_opacity: float = 0.18
    volume_scale: float = 0.7
    surface_opacity: float = 0.5
    surface_scale: float = 0.5
    sh_degree: int = 2  # view dependence of the colours: 0, 1, 2 or 3
    # Blur of every Gaussian on the screen, px^2. A pixel that averages its area has 1/12; with the
    # 0.3 of 3D Gaussian splatting small pictures never become sharp.
    low_pass: float = 0.1
    # Spots along each side of a pixel, whose mean it is; 1 as in 3D Gaussian splatting. Two take
    # almost twice the time a step, so the first steps have one: see render/sampling.py.
    samples: int = 1
    samples_from: int = 1500
    antialias: bool = False  # keep the energy of sub-pixel Gaussians (Mip-Splatting)

    # learning
    volume_lr_means: float = 1.2e-3  # points in a volume have a way to go to the surface,
    surface_lr_means: float = 5e-4  # those of a point cloud are there
    lr_scales: float = 1e-2
    lr_quats: float = 3e-3
    lr_logits: float = 5e-2
    lr_colors: float = 8e-3  # the view-dependent rest learns 10 times slower
    half_life: int = 1500  # positions: the rate falls as 1 / (1 + step / half_life)
    slow_half_life: int = 6000  # everything else
    ssim: float = 0.0  # weight of 1 - SSIM; L1 has 1 - ssim
    coarse_steps: int = 100  # training steps at each halved resolution before the full one
    max_pixels: int = 262144  # larger pictures are learnt in random windows of this size


class SplattingMethod(Method):
    """A cloud of Gaussians, and the views that it learns from.

    Args:
        features: channels of every Gaussian for a network; None: there is none.

    Attributes:
        events: what densification has done in this session, oldest first.

    Raises:
        UserError: no points, options that the kernels cannot serve, or too little memory.
    """

    small_operations: ClassVar[bool] = True
    options: SplattingOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
        features: int | None = None,
    ) -> None:
        assert isinstance(options, SplattingOptions)
        self.options, self.device = options, device
        self.events: list[Event] = []
        self.views, self.background = scene.split("train"), scene.background
        self._boxes: list[tuple[float, float, float, float] | None] = [None] * len(self.views)
        check(self.name, options)
        if scene.points is None:
            raise UserError(f"{scene.name}: the method {self.name} needs points, found none.")
        self.radius = float(scene.bounds.radius)
        self.near = max(0.01 * self.radius, 0.2 * scene.bounds.near)
        size = max((v.camera.width * v.camera.height for v in self.views), default=256 * 256)
        count = options.points or default_count(size)
        self.limit = int(count * options.growth)
        spots = min(size, options.max_pixels) * options.samples**2
        needed = training_bytes(self.limit, spots, options.k)
        check_room(f"{scene.name}, training up to {self.limit:,} Gaussians", needed, REMEDY, device)
        volume = scene.points.fills_volume
        self.lr_means = options.volume_lr_means if volume else options.surface_lr_means
        self.cloud = Cloud.from_points(
            scene.points,
            count,
            self.radius,
            device,
            generator,
            scale=options.volume_scale if volume else options.surface_scale,
            opacity=options.volume_opacity if volume else options.surface_opacity,
            sh_degree=options.sh_degree,
            features=features,
        )
        self.cloud.sampling = Sampling(options.low_pass)

    @classmethod
    def gpu_ready(cls) -> bool:
        return gpu_ready()

    def parameter_groups(self) -> list[dict[str, Any]]:
        rates = self.learning_rates(0)
        return [
            {"name": name, "params": [tensor], "lr": rates[name]}
            for name, tensor in self.cloud.tensors().items()
        ]

    def learning_rates(self, step: int) -> dict[str, float]:
        o = self.options
        fast, slow = 1 / (1 + step / o.half_life), 1 / (1 + step / o.slow_half_life)
        rates = {
            "means": self.lr_means * self.radius * fast,
            "log_scales": o.lr_scales * slow,
            "quats": o.lr_quats * slow,
            "logits": o.lr_logits * slow,
            "sh0": o.lr_colors * slow,
            "sh_rest": o.lr_colors / 10 * slow,
            "features": o.lr_colors * slow,
        }
        return {name: rates[name] for name in self.cloud.names}

    def loss_weights(self, step: int) -> dict[str, float]:
        return {"l1": 1 - self.options.ssim, "ssim": self.options.ssim}

    def _begin(
        self, step: int, sampler: ViewSampler, generator: torch.Generator
    ) -> tuple[Camera, Tensor, Tensor]:
        """Camera, photograph [H, W, 3] and background [3] of a step."""
        samples = self.options.samples if step >= self.options.samples_from else 1
        self.cloud.sampling = self.cloud.sampling._replace(samples=samples)
        index = sampler.next()
        background = self.background.color(generator)
        with stage("data"):
            camera, target = self._draw(step, index, background, generator)
            return camera, target.to(self.device), background.to(self.device)

    def _terms(self, rgb: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Loss terms of a picture [H, W, 3]."""
        terms = {"l1": l1(rgb, target)}
        if self.options.ssim > 0 and min(target.shape[:2]) >= SSIM_WINDOW:
            terms["ssim"] = dssim(rgb, target)
        return terms

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

    def _project(self, camera: Camera) -> Projected:
        return self.cloud.project(camera, self.near, self.options.antialias)

    def _note(self, event: Event | None, optimizer: torch.optim.Optimizer) -> None:
        if event is None:
            return
        self.events.append(event)
        if event.rebuilt:
            self.cloud.sort(optimizer)

    def _drop_layers(self, share: float, generator: torch.Generator) -> int:
        """How many layers a step learns with: mostly K, in a ``share`` of the steps 1 to K."""
        if float(torch.rand(1, generator=generator)) < share:
            return int(torch.randint(1, self.options.k + 1, (1,), generator=generator))
        return self.options.k

    def _network_group(self, network: nn.Module) -> dict[str, Any]:
        """The optimiser's group "network"; its rate is that of ``learning_rates``."""
        return {"name": "network", "params": list(network.parameters()), "lr": 0.0, "eps": 1e-8}

    def _network_rate(self, start: float, first: int | None, step: int) -> dict[str, float]:
        """It rises for :data:`RAMP` steps from ``first`` on, where a correction begins to learn."""
        ramp = 1.0 if first is None else min(1.0, max(0, step - first + 1) / RAMP)
        return {"network": ramp * start / (1 + step / self.options.slow_half_life)}

    def _clip(self, k: int | None) -> int:
        return self.options.k if k is None else max(1, min(k, self.options.k))

    def _cloud_state(self) -> dict[str, Any]:
        cloud = {name: t.detach() for name, t in self.cloud.tensors().items()}
        return {"cloud": cloud, **self.cloud.sampling._asdict()}

    def _load_cloud(self, state: dict[str, Any]) -> None:
        check_rows(state["cloud"], self.cloud.tensors())
        # Older states have none of the two.
        found = Sampling(float(state.get("low_pass", LOW_PASS)), int(state.get("samples", 1)))
        if not found.usable:
            raise ValueError(f"the checkpoint has an impossible sampling of pixels, {found}")
        self.cloud.replace({n: t.to(self.device) for n, t in state["cloud"].items()})
        self.cloud.sampling = found

    def describe(self) -> dict[str, int | float | str]:
        return {"gaussians": len(self.cloud)}


class CompositePictures(ABC):
    """Pictures and inspections of all contributions, or of the heaviest k where k is below K.

    For whatever has Gaussians to project: ``gaussians``, ``gaussians-k``, files that are shown.
    """

    k: int  # most layers, K
    cloud: Cloud

    @abstractmethod
    def _project(self, camera: Camera) -> Projected:
        """The cloud on the screen, on the finer grid of its sampling."""

    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """The picture over ``background`` [3]."""
        projected = self._project(camera)
        return self._rendered(camera, projected, self._seen(projected, camera, k), background, k)

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """The k heaviest contributions to the centre of every pixel, in depth order."""
        with self.cloud.sampled_once():
            projected = self._project(camera)
            return self._inspection(projected, self._seen(projected, camera, k))

    @torch.no_grad()
    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        """What :meth:`render` and :meth:`inspect` return."""
        if self.cloud.sampling.samples > 1:
            return self.render(camera, background, k), self.inspect(camera, k)
        projected = self._project(camera)
        seen = self._seen(projected, camera, k)
        render = self._rendered(camera, projected, seen, background, k)
        return render, self._inspection(projected, seen)

    def _values(self, projected: Projected, camera: Camera) -> Tensor:
        """What is composited, [N, C]."""
        return projected.rgb

    def _clip(self, k: int | None) -> int:
        return self.k if k is None else max(1, min(k, self.k))

    def _seen(self, projected: Projected, camera: Camera, k: int | None) -> Splatted:
        values, layers = self._values(projected, camera), self._clip(k)
        finer = self.cloud.sampling.finer(camera)
        size = (finer.width, finer.height)
        if layers >= self.k:
            return splat(projected, values, *size, layers)
        few = splat_layers(projected, values, *size, layers)
        return Splatted(few.image, few.alpha, few.kbuffer)

    def _rendered(
        self,
        camera: Camera,
        projected: Projected,
        seen: Splatted,
        background: Tensor,
        k: int | None,
    ) -> Render:
        sampling = self.cloud.sampling
        alpha = sampling.mean(seen.alpha)
        depth = sampling.mean_depth(mean_depth(seen.kbuffer), seen.alpha)
        pixels = seen._replace(image=sampling.mean(seen.image), alpha=alpha)
        rgb = self._picture(camera, projected, pixels, self._clip(k), background.to(alpha))
        return Render(rgb.clamp(0, 1), alpha, depth)

    def _picture(
        self, camera: Camera, projected: Projected, seen: Splatted, k: int, background: Tensor
    ) -> Tensor:
        """[H, W, 3], not clamped, of the composite [H, W, C] of pixels."""
        return over(seen.image, seen.alpha, background)

    def _inspection(self, projected: Projected, seen: Splatted) -> Inspection:
        """The layers of a picture with the weights that they have in the composite."""
        assert seen.kbuffer.weight is not None
        color = seen.kbuffer.gather(projected.rgb.clamp(0, 1))
        return Inspection(seen.kbuffer, color, seen.kbuffer.weight)


def check(name: str, options: SplattingOptions) -> None:
    """Raise :class:`UserError` for options that the kernels cannot serve."""
    if not 1 <= options.k <= MAX_LAYERS:
        raise UserError(f"--k {options.k}: expected 1 to {MAX_LAYERS} layers for {name}.")
    if options.sh_degree not in (0, 1, 2, 3):
        raise UserError(f"--set sh_degree={options.sh_degree}: expected 0, 1, 2 or 3.")
    if not 0 < options.low_pass < math.inf:
        raise UserError(f"--set low_pass={options.low_pass}: expected a positive number of px^2.")
    if not 1 <= options.samples <= MAX_SAMPLES:
        raise UserError(f"--set samples={options.samples}: expected 1 to {MAX_SAMPLES}.")


def default_count(pixels: int) -> int:
    """Gaussians to start with: 30,000 for pictures of 200x200, 60,000 for 400x400."""
    return int(min(max(30000 * (pixels / 40000) ** 0.5, 5000), 250000))


def composite(projected: Projected, values: Tensor, camera: Camera, sampling: Sampling) -> Splatted:
    """All contributions to the pixels of ``camera``, [H, W, C], without a K-buffer.

    Args:
        projected: on the finer grid of ``sampling``. values: [N, C].
    """
    finer = sampling.finer(camera)
    seen = splat(projected, values, finer.width, finer.height, 0)
    return seen._replace(image=sampling.mean(seen.image), alpha=sampling.mean(seen.alpha))


def mean_depth(kbuffer: KBuffer) -> Tensor:
    """Depth [H, W] of a picture: the mean over its layers by weight; 0 where it is empty."""
    assert kbuffer.weight is not None
    total = kbuffer.weight.sum(-1).clamp(min=1e-12)
    return torch.linalg.vecdot(kbuffer.weight, kbuffer.depth) / total


def shares(layers: Layers) -> Tensor:
    """[H, W, K] share of each layer in the pixel; they sum to alpha."""
    weight = layers.kbuffer.weight
    assert weight is not None
    total = weight.sum(-1, keepdim=True).clamp(min=1e-12)
    return weight * layers.alpha[..., None] / total


def over(image: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """A premultiplied picture [H, W, 3] over ``background`` [3]."""
    return image + (1 - alpha)[..., None] * background
