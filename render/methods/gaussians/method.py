"""``gaussians``: 3D Gaussian splatting (Kerbl et al., SIGGRAPH 2023).

All contributions to a pixel are composited front to back over one known background, the same in
training and in evaluation; photographs with alpha are composited over it too. Upstream dropped
the alpha of its targets and rendered over an implicit black, so black Gaussians in empty space
cost nothing and stayed (../shared/methods/02, section 10); here they are an error like any other.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.gaussians.densify import Densifier
from render.gaussians.densify.blame import BlameDensifier, BlameOptions, probe_loss
from render.gaussians.densify.default import DefaultDensifier, DefaultOptions
from render.gaussians.densify.mcmc import McmcDensifier, McmcOptions
from render.gaussians.harmonics import HARMONICS
from render.kbuffer.gaussians import Projected, Splatted
from render.methods.base import MethodOptions, StepOutput
from render.methods.gaussians.options import GaussiansOptions
from render.methods.splatting import CompositePictures, SplattingMethod, composite
from render.methods.targets import counted_mean, leave_out
from render.scenes.types import Scene
from render.training.sampler import ViewSampler
from render.training.stages import stage


class GaussiansMethod(CompositePictures, SplattingMethod):
    """See the module's text; options in :class:`GaussiansOptions`."""

    name: ClassVar[str] = "gaussians"
    Options: ClassVar[type[MethodOptions]] = GaussiansOptions
    options: GaussiansOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
        features: int | None = None,
    ) -> None:
        assert isinstance(options, GaussiansOptions)
        super().__init__(options, scene, device, generator, features)
        self.densifier = self._densifier()
        self.degree = options.sh_degree  # of the view dependence that is shown and learns
        self._projected: Projected | None = None
        self._probe: Tensor | None = None
        self._size = (1, 1)

    def _densifier(self) -> Densifier:
        o, n = self.options, len(self.cloud)
        steps = {"first": o.refine_from, "every": o.refine_every, "last": o.refine_until}
        if o.strategy == "blame":
            blame = BlameOptions(**steps, share=o.refine_share, limit=self.limit)
            return BlameDensifier(blame, n, self.device)
        if o.strategy == "default":
            default = DefaultOptions(
                **steps, reset_every=o.reset_every, gradient=o.grow_gradient, limit=self.limit
            )
            return DefaultDensifier(default, n, self.radius, self.device)
        if o.strategy == "mcmc":
            mcmc = McmcOptions(
                **steps,
                growth=o.refine_share,
                limit=self.limit,
                noise=o.noise,
                opacity_weight=o.opacity_weight,
                scale_weight=o.scale_weight,
            )
            return McmcDensifier(mcmc, self.radius)
        raise UserError(f"--set strategy={o.strategy}: expected blame, default or mcmc.")

    # ------------------------------------------------------------------ training
    def loss_weights(self, step: int) -> dict[str, float]:
        weights = super().loss_weights(step)
        terms = self.densifier.regularisation(self.cloud)
        return weights | {name: weight for name, (weight, _) in terms.items()}

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        camera, target, background = self._begin(step, sampler, generator)
        self.degree = min(self.options.sh_degree, step // max(1, self.options.sh_every))
        rgb, probe = self._learnt(step, camera, background, generator)
        with stage("loss"):
            rgb, target, share = leave_out(rgb, target)
            terms = self._terms(rgb, target)
            for name, (_, term) in self.densifier.regularisation(self.cloud).items():
                terms[name] = term
            error = (rgb - target).detach()
            blamed = None if probe is None else probe_loss(probe, error)
            mse = counted_mean(float(error.square().mean()), share)
            return StepOutput(terms, mse=mse, probe=blamed)

    def _learnt(
        self, step: int, camera: Camera, background: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """The picture [H, W, 3] of a step, not clamped, and its probe channels [H, W, C] if any."""
        with stage("rasterise"):
            everything, probe = self._composite(camera)
        assert self._projected is not None
        rgb = self._picture(camera, self._projected, everything, self.options.k, background)
        return rgb, probe

    def _composite(self, camera: Camera) -> tuple[Splatted, Tensor | None]:
        """All contributions, and the densifier's probe channels [H, W, C] if it wants any."""
        finer = self.cloud.sampling.finer(camera)
        self._size = (finer.width, finer.height)  # of the grid that the splats are on
        projected = self._projected = self._project(camera)
        projected.splats.retain_grad()
        values, self._probe = self._values(projected, camera), None
        channels = values.shape[1]
        if self.densifier.channels:
            size = (len(self.cloud), self.densifier.channels)
            self._probe = torch.zeros(size, device=self.device, requires_grad=True)
            values = torch.cat([values, self._probe], 1)
        seen = composite(projected, values, camera, self.cloud.sampling)
        probe = None if self._probe is None else seen.image[..., channels:]
        return seen._replace(image=seen.image[..., :channels]), probe

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        projected = self._projected
        assert projected is not None and projected.splats.grad is not None
        probe = None if self._probe is None else self._probe.grad
        visible = projected.extent[:, 0] > 0
        self.densifier.observe(projected.splats.grad, visible, self._size, probe)
        event = self.densifier.after_step(step, self.cloud, optimizer, generator)
        self._note(event, optimizer)
        self._projected = self._probe = None

    def _project(self, camera: Camera) -> Projected:
        harmonics = HARMONICS[self.degree]
        return self.cloud.project(camera, self.near, self.options.antialias, harmonics)

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        return {
            **self._cloud_state(),
            "densifier": self.densifier.state_dict(),
            "degree": self.degree,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_cloud(state)
        self.densifier = self._densifier()
        self.densifier.load_state_dict(state["densifier"])
        self.degree = int(state["degree"])
