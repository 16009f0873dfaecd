"""gsplat's own 3DGS in a plain training loop, as something to compare with.

Parameters, learning rates, loss and schedules are those of gsplat's example trainer for its
default and its MCMC strategy; rasteriser and strategies are called as they are. Differences: no
normalisation of the world (the size of the scene, from its cameras, enters the rates as there),
photographs with alpha stand on the scene's background, as everywhere in this project, and start
from this project's points.

gsplat 1.5.3 means to lower all opacities every ``reset_every`` steps but never does:
``step % self.reset_every == 0 & step > 0`` is False for every step, as & binds before the
comparisons. It is compared as it is; with ``reset`` gsplat's own function is called at those steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from render.camera import Camera
from render.gaussians.cloud import SH0, neighbour_distance
from render.methods.base import Render
from render.scenes.types import Scene, View
from render.training.losses import dssim, l1
from render.training.sampler import ViewSampler

DEGREE = 3
DEGREE_EVERY = 1000  # steps
WHOLE_RUN = 30_000  # steps in which the rate of the positions falls to a hundredth
SSIM = 0.2


@dataclass(frozen=True)
class Recipe:
    """What differs between the two strategies."""

    opacity: float  # at the start
    scale: float  # at the start, times the distance of the neighbours
    opacity_weight: float  # in the loss
    scale_weight: float


RECIPES = {"default": Recipe(0.1, 1.0, 0.0, 0.0), "mcmc": Recipe(0.5, 0.1, 0.01, 0.01)}


class Baseline:
    """A model of gsplat's on a scene.

    Args:
        gsplat: the module.
        strategy: "default" or "mcmc".
        cap: Gaussians at most, for mcmc.
        reset: lower the opacities where gsplat means to, for default.
        low_pass: px^2, gsplat's ``eps2d``.

    Attributes:
        seconds: of training so far.
        step_count: steps so far.
    """

    def __init__(
        self, gsplat: Any, strategy: str, scene: Scene, device: torch.device, seed: int,
        *, cap: int = 1_000_000, reset: bool = False, low_pass: float = 0.3,
    ) -> None:  # fmt: skip
        assert scene.points is not None
        self.gsplat, self.recipe, self.device = gsplat, RECIPES[strategy], device
        self.low_pass = low_pass
        self.background = scene.background.color().to(device)
        self.size = scene_size(scene.split("train"))
        self.params = self._start(scene, seed)
        self.rates = {
            "means": 1.6e-4 * self.size, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2,
            "sh0": 2.5e-3, "shN": 2.5e-3 / 20,
        }  # fmt: skip
        self.optimizers = {
            name: torch.optim.Adam([{"params": [tensor], "lr": self.rates[name], "name": name}],
                                   eps=1e-15, fused=True)
            for name, tensor in self.params.items()
        }  # fmt: skip
        self.mcmc, self.reset = strategy == "mcmc", reset and strategy == "default"
        if self.mcmc:
            self.strategy = gsplat.MCMCStrategy(cap_max=cap)
            self.state = self.strategy.initialize_state()
        else:
            self.strategy = gsplat.DefaultStrategy()
            self.state = self.strategy.initialize_state(scene_scale=self.size)
        self.strategy.check_sanity(self.params, self.optimizers)
        views = scene.split("train")
        self.cameras = [_tensors(view.camera, device) for view in views]
        shown = scene.background.color()
        self.targets = [view.target(shown).to(device) for view in views]
        self.sampler = ViewSampler(len(views), torch.Generator().manual_seed(seed))
        self.seconds, self.step_count = 0.0, 0

    def _start(self, scene: Scene, seed: int) -> torch.nn.ParameterDict:
        points = scene.points
        assert points is not None
        n, recipe = len(points), self.recipe
        generator = torch.Generator().manual_seed(seed)
        rgb = torch.full((n, 3), 0.5) if points.rgb is None else points.rgb.float()
        distance = neighbour_distance(points.xyz.float().numpy(), scene.bounds.radius)
        size = torch.from_numpy(distance).float()[:, None].repeat(1, 3) * recipe.scale
        tensors = {
            "means": points.xyz.float(),
            "scales": size.log(),
            "quats": torch.rand(n, 4, generator=generator),
            "opacities": torch.full((n,), recipe.opacity).logit(),
            "sh0": ((rgb - 0.5) / SH0)[:, None],
            "shN": torch.zeros(n, (DEGREE + 1) ** 2 - 1, 3),
        }
        return torch.nn.ParameterDict(
            {name: torch.nn.Parameter(t.to(self.device)) for name, t in tensors.items()}
        )

    def __len__(self) -> int:
        return len(self.params["means"])

    # ------------------------------------------------------------------ training
    def step(self) -> None:
        """One step; its time is added to ``seconds``."""
        start = time.perf_counter()
        index = self.sampler.next()
        degree = min(DEGREE, self.step_count // DEGREE_EVERY)
        target = self.targets[index]
        height, width = target.shape[:2]
        image, info = self._draw(*self.cameras[index], width, height, degree)
        if not self.mcmc:
            self.strategy.step_pre_backward(
                self.params, self.optimizers, self.state, self.step_count, info
            )
        loss = (1 - SSIM) * l1(image, target) + SSIM * dssim(image, target)
        if self.mcmc:
            loss = loss + self.recipe.opacity_weight * self.params["opacities"].sigmoid().mean()
            loss = loss + self.recipe.scale_weight * self.params["scales"].exp().mean()
        loss.backward()
        rate = self.rates["means"] * 0.01 ** (self.step_count / WHOLE_RUN)
        self.optimizers["means"].param_groups[0]["lr"] = rate
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        extra = {"lr": rate} if self.mcmc else {"packed": False}
        self.strategy.step_post_backward(
            self.params, self.optimizers, self.state, self.step_count, info, **extra
        )
        if self.reset and self.step_count and self.step_count % self.strategy.reset_every == 0:
            self._lower()
        self.step_count += 1
        self.seconds += time.perf_counter() - start

    def finish(self) -> None:
        """Wait for the steps that are still under way, on the clock."""
        start = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - start

    def _lower(self) -> None:
        if self.step_count < self.strategy.refine_stop_iter:
            self.gsplat.strategy.ops.reset_opa(
                params=self.params,
                optimizers=self.optimizers,
                state=self.state,
                value=2 * self.strategy.prune_opa,
            )

    def _draw(
        self, viewmat: Tensor, K: Tensor, width: int, height: int, degree: int
    ) -> tuple[Tensor, dict[str, Any]]:
        """[H, W, 3] over the background, not clamped, and what the strategy wants to know."""
        p = self.params
        colors, _, info = self.gsplat.rasterization(
            means=p["means"],
            quats=p["quats"],
            scales=p["scales"].exp(),
            opacities=p["opacities"].sigmoid(),
            colors=torch.cat([p["sh0"], p["shN"]], 1),
            viewmats=viewmat[None],
            Ks=K[None],
            width=width,
            height=height,
            sh_degree=degree,
            packed=False,
            backgrounds=self.background[None],
        )
        return colors[0], info

    # ------------------------------------------------------------------ pictures
    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """As ``Method.render``, without a depth."""
        degree = min(DEGREE, self.step_count // DEGREE_EVERY)
        viewmat, K = _tensors(camera, self.device)
        rgb = self._draw(viewmat, K, camera.width, camera.height, degree)[0].clamp(0, 1)
        blank = torch.zeros_like(rgb[..., 0])
        return Render(rgb, blank, blank)


def _tensors(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    return camera.world_to_camera.float().to(device), camera.K.float().to(device)


def scene_size(views: list[View]) -> float:
    """Largest distance of a camera from the mean of all, and 10 % more."""
    positions = torch.stack([view.camera.position for view in views])
    return 1.1 * float((positions - positions.mean(0)).norm(dim=1).max())
