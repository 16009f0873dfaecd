"""``point-radiance``: soft discs with spherical harmonics, optimised through K-buffers.

Differentiable point-based radiance fields (Zhang et al., SIGGRAPH Asia 2022) and their extension to
imperfect masks. The K nearest discs of every pixel are composited front to back; positions, radii
and colours learn from the photographs in stages (``stages.py``). What the authors' program does
otherwise is listed in docs/methods.md; :class:`PointRadianceFaithful` does as it does.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.gaussians.cloud import Cloud, morton_order
from render.gaussians.densify import Event
from render.memory import REMEDY, check_room
from render.methods.base import MethodOptions, StageSpan, StepOutput
from render.methods.point_radiance import discs, native, refine
from render.methods.point_radiance.export import gaussians_of
from render.methods.point_radiance.masks import Corruption, mask_of
from render.methods.point_radiance.options import FaithfulOptions, PointRadianceOptions
from render.methods.point_radiance.pictures import DiscPictures
from render.methods.point_radiance.points import Points
from render.methods.point_radiance.stages import Stage, at, plan, rates
from render.methods.point_radiance.start import point_spacing, starting_points
from render.methods.saved import check_rows
from render.methods.targets import (
    content_box,
    counted_mean,
    leave_out,
    marked_target,
    training_window,
)
from render.scenes.types import PointCloud, Scene, View
from render.training.losses import mse
from render.training.sampler import ViewSampler
from render.training.stages import stage as timed

# Radius of the discs at the start, in mean distances to the nearest neighbour: points of a volume
# lie in many layers, of which the nearest should not hide all others at once.
IN_VOLUME, ON_SURFACE = 0.7, 1.2
BYTES_PER_SLOT = 40  # of a training step: K-buffer, shares, their gradients
BYTES_PER_SLOT_TWIN = 500  # without the kernel: rows of coefficients and their gradients
BYTES_PER_POINT = 700  # parameters, gradients, moments of Adam, discs on the screen


class PointRadianceMethod(DiscPictures):
    """See the module's text; options in :class:`PointRadianceOptions`.

    Attributes:
        stages: of training, see :mod:`render.methods.point_radiance.stages`.
        events: what the beginnings of stages have done in this session, oldest first.
        note: where the points came from, in a sentence.
    """

    name: ClassVar[str] = "point-radiance"
    Options: ClassVar[type[MethodOptions]] = PointRadianceOptions
    small_operations: ClassVar[bool] = True
    options: PointRadianceOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        assert isinstance(options, PointRadianceOptions)
        self.options, self.device, self.scene_name = options, device, scene.name
        self.views, self.background = scene.split("train"), scene.background
        self.center = scene.bounds.center.float().to(device)
        self.radius = float(scene.bounds.radius)
        self.near = max(0.01 * self.radius, 0.2 * scene.bounds.near)
        self.stages = plan(options, len(self.views))
        self.harmonics = False  # whether colours depend on the direction by now
        self.begun = 0  # number of the stage that was begun last: a skipped step begins none
        self.events: list[Event] = []
        self._boxes: list[tuple[float, float, float, float] | None] = [None] * len(self.views)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        start, self.note = starting_points(options, scene, seed)
        self.limit = options.most_points or 3 * len(start)
        self._check_room(scene.name, len(start))
        spacing = point_spacing(start)
        self.voxel = options.voxel * self.radius or 0.5 * spacing
        self.points = self._begin(start, spacing, generator)

    def _check_room(self, name: str, count: int) -> None:
        pixels = max(v.camera.width * v.camera.height for v in self.views)
        pixels = min(pixels, self.options.max_pixels)
        kernel = self.device.type == "cpu" and native.load() is not None
        slot = BYTES_PER_SLOT if kernel else BYTES_PER_SLOT_TWIN
        growth = (1 + self.options.refine_share) ** self.options.refine_n
        most = math.ceil(min(self.limit, count * growth))
        needed = slot * pixels * self.options.k + BYTES_PER_POINT * most
        check_room(f"{name}, training up to {most:,} points", needed, REMEDY, self.device)

    def _begin(self, start: PointCloud, spacing: float, generator: torch.Generator) -> Points:
        o, n = self.options, len(start)
        assert start.rgb is not None
        harmonics = discs.HARMONICS + o.sh_constant
        sh = torch.zeros(n, 3 * harmonics)
        if o.sh_uniform:
            sh = torch.rand(sh.shape, generator=generator)
        share = IN_VOLUME if start.fills_volume else ON_SURFACE
        radius = o.radius * self.radius or share * spacing
        ndc = o.scene_value("splatting_r", self.scene_name)
        self.perspective = ndc == 0
        if not self.perspective:
            camera = self.views[0].camera
            half = 0.5 * min(camera.width, camera.height)
            radius = ndc * half / float(camera.focal.mean())  # tangent of the angle
        tensors = {
            "xyz": start.xyz.float(),
            "radius": torch.full((n,), math.log(radius)),
            "base": start.rgb.float(),
            "sh": sh,
        }
        rows = morton_order(tensors["xyz"])  # neighbours in space are neighbours in memory
        return Points({name: tensor[rows].to(self.device) for name, tensor in tensors.items()})

    # ------------------------------------------------------------------ training
    def parameter_groups(self) -> list[dict[str, Any]]:
        start = self.learning_rates(0)
        return [
            {"name": name, "params": [tensor], "lr": start[name]}
            for name, tensor in self.points.tensors().items()
        ]

    def learning_rates(self, step: int) -> dict[str, float]:
        found = rates(at(self.stages, step), self.options, len(self.views), step)
        return found | {"xyz": found["xyz"] * self.radius}

    def loss_weights(self, step: int) -> dict[str, float]:
        if at(self.stages, step).silhouettes:
            return {"silhouette": 1.0, "ridge": self.options.ridge_position}
        return {"mse": 1.0, "gradient": self.options.gradient}

    def plan(self) -> tuple[StageSpan, ...]:
        return tuple(StageSpan(stage.name, stage.first, stage.steps) for stage in self.stages)

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        stage = at(self.stages, step)
        self.harmonics = stage.harmonics
        background = self.background.color(generator)
        with timed("data"):
            camera, target = self._draw(sampler.next(), background, generator)
            background, target = background.to(self.device), target.to(self.device)
        image = self._picture(camera, background)
        if image is None:
            return StepOutput({}, skipped="no point is in this window")
        with timed("loss"):
            if self.options.clamp_loss:
                image = image.clamp(0, 1)
            image, target, share = leave_out(image, target)
            error = mse(image, target)
            if stage.silhouettes:
                wanted = discs.silhouette(target, background)
                away = (self.points.xyz - self.center) / self.radius
                terms = {
                    "silhouette": mse(discs.silhouette(image, background), wanted),
                    "ridge": away.square().mean(),
                }
            else:
                terms = {"mse": error, "gradient": discs.gradient_loss(image, target)}
            return StepOutput(terms, mse=counted_mean(float(error.detach()), share))

    def _draw(
        self, index: int, background: Tensor, generator: torch.Generator
    ) -> tuple[Camera, Tensor]:
        view = self.views[index]
        target = marked_target(view, background)
        if not self.options.windows:
            return view.camera, target
        box = self._boxes[index]
        if box is None:
            box = self._boxes[index] = content_box(view)
        return training_window(view.camera, target, box, self.options.max_pixels, generator)

    # ------------------------------------------------------------------ between stages
    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        number = self.stages.index(at(self.stages, step + 1))
        if number == self.begun:
            return
        self.begun = number
        stage, before = self.stages[number], len(self.points)
        change = None if stage.begin == "nothing" else self._changed(stage, generator)
        if change is None:
            self.points.become(optimizer)
        elif stage.since == stage.first:
            self.points.become(optimizer, change.tensors)
        else:
            self.points.become(optimizer, change.tensors, change.origin, change.fresh)
        note = "Adam begins anew" if change is None else change.note
        after, rebuilt = len(self.points), change is not None
        self.events.append(Event(step, before, after, f"{stage.name}: {note}", rebuilt))

    @torch.no_grad()
    def _changed(self, stage: Stage, generator: torch.Generator) -> refine.Change:
        """What ``stage`` begins with."""
        o, tensors = self.options, self.points.tensors()
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        count, double = len(self.points), stage.begin == "double"
        origin = torch.arange(count, device=self.device)
        blame = None
        if double and o.remove_unseen > 0:
            largest, blame = self.parts(self.background.color(generator))
            origin = (largest >= o.remove_unseen).nonzero()[:, 0]
        unseen = count - len(origin)
        if o.outliers:
            stay = refine.without_outliers(
                tensors["xyz"][origin], self.voxel, o.outlier_neighbours, o.outlier_deviations
            )
            origin = origin[stay]
        left = len(origin)
        if left == 0:
            raise UserError(
                f"{self.scene_name}: no point is left at the beginning of the stage {stage.name}: "
                "no view shows any of them. Use a smaller lr_xyz or lr_xyz_first."
            )
        tensors = {name: tensor[origin] for name, tensor in tensors.items()}
        note = f"{unseen:,} unseen and {count - unseen - left:,} outlying points removed"
        if not double:
            return refine.Change(tensors, origin, torch.zeros_like(origin, dtype=torch.bool), note)
        wanted = min(round((1 + o.refine_share) * count), self.limit) - left
        chosen = blame if blame is None else blame[origin]
        rows = refine.parents(max(0, wanted), left, chosen, generator).to(self.device)
        size = self._world_radius(tensors["xyz"][rows], tensors["radius"][rows])
        tensors, of, fresh = refine.doubled(
            tensors, rows, o.double_jitter * size, o.double_shrink, generator
        )
        return refine.Change(tensors, origin[of], fresh, f"{note}, {len(rows):,} doubled")

    def _world_radius(self, xyz: Tensor, log_radius: Tensor) -> Tensor:
        """Radii [N] in scene units; of discs in NDC at the distance of the nearest camera."""
        if self.perspective:
            return log_radius.exp()
        eyes = torch.stack([view.camera.position for view in self.views]).to(xyz)
        return log_radius.exp() * torch.cdist(xyz, eyes).amin(1)

    def hull_mask(self, view: View) -> Tensor | None:
        """The mask [H, W] uint8 that the hull was carved from, as wrong as it was made; None for
        views that it was not carved from."""
        o = self.options
        number = next((i for i, each in enumerate(self.views) if each is view), None)
        if number is None:
            return None
        corruption = Corruption(o.pc_jitter_amount, len(self.views), o.pc_jitter_seed)
        return corruption.apply(number, mask_of(view, o.hull_from))

    @property
    def exported(self) -> int:
        return len(self.points)

    def as_gaussians(self) -> Cloud:
        points = self.points
        radius = self._world_radius(points.xyz.detach(), points.radius.detach())
        return gaussians_of(points, radius, self.options.sh_constant)

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        return {
            "points": {name: t.detach() for name, t in self.points.tensors().items()},
            "harmonics": self.harmonics,
            "begun": self.begun,
            "voxel": self.voxel,
            "limit": self.limit,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_rows(state["points"], self.points.tensors())
        self.points.replace({n: t.to(self.device) for n, t in state["points"].items()})
        self.harmonics, self.begun = bool(state["harmonics"]), int(state["begun"])
        self.voxel, self.limit = float(state["voxel"]), int(state["limit"])

    def describe(self) -> dict[str, int | float | str]:
        """Points, size of the model in MB, and where the points came from."""
        return {
            "points": len(self.points),
            "model MB": round(self.points.size() / 1e6, 2),
            "start": self.note,
        }


class PointRadianceFaithful(PointRadianceMethod):
    """As the authors' program does it: see :class:`FaithfulOptions`."""

    name: ClassVar[str] = "point-radiance-faithful"
    Options: ClassVar[type[MethodOptions]] = FaithfulOptions
