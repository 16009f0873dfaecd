"""What a method is: the interface between models and the trainer, the viewer and the exporter.

A method is built from its own frozen options dataclass and a scene. The trainer owns the
optimiser and the random numbers; the method owns parameters, losses and rendering. Everything
that must survive a resume goes through ``state_dict``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer.types import KBuffer
from render.scenes.types import Scene, View
from render.training.sampler import ViewSampler

if TYPE_CHECKING:  # its file formats cost time to import
    from render.gaussians.cloud import Cloud
    from render.gaussians.densify import Event


@dataclass(frozen=True)
class MethodOptions:
    """Options that every method has; each method extends it with its own, one comment a field.

    Args:
        k: layers of the K-buffer.
    """

    k: int = 8


@dataclass(frozen=True)
class StageSpan:
    """A stage of training for the timeline: its name, first step, and how many steps it takes."""

    name: str
    first: int
    steps: int


@dataclass
class StepOutput:
    """One training step before the optimiser.

    Args:
        terms: named, unweighted, scalar loss terms with graph.
        mse: mean squared error of the step's pixels, detached, for the training PSNR.
        skipped: why there is nothing to learn from this batch (for example an empty crop); the
            trainer then leaves the parameters alone.
        probe: a scalar of value zero whose gradients the method itself reads in ``after_step``;
            no weight of the loss touches it.
    """

    terms: dict[str, Tensor]
    mse: float = float("nan")
    skipped: str | None = None
    probe: Tensor | None = None


@dataclass
class Render:
    """A picture. ``rgb`` [H, W, 3] is clamped to [0, 1] and already over the background."""

    rgb: Tensor
    alpha: Tensor | None = None  # [H, W]
    depth: Tensor | None = None  # [H, W] camera z, alpha-weighted mean; 0 where empty


@dataclass
class Inspection:
    """The inside of one picture, for the K-buffer inspector and the montage.

    Args:
        kbuffer: K layers of the view.
        color: [H, W, K, 3] colour of each layer's primitive, in [0, 1].
        weight: [H, W, K] share of each layer in the final pixel, 0 where empty.
        feature_norm: [H, W, K] norm of each layer's feature, where the method has features.
        extra: more of the same shape; "features" [H, W, K, F] is what the method's network fuses.
    """

    kbuffer: KBuffer
    color: Tensor
    weight: Tensor
    feature_norm: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


class Method(ABC):
    """Base class of all methods; registered by ``name`` in ``render/methods/__init__.py``.

    Args of every constructor: ``options``, ``scene``, ``device`` and ``generator`` (CPU; the
    only source of random numbers during construction).
    """

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    needs_points: ClassVar[bool] = True
    small_operations: ClassVar[bool] = False  # True: torch gets one CPU thread less than cores
    # What `inspect` adds to the layers in `extra`, [H, W, K, 1] each in [0, 1]: "opacity", what a
    # layer takes of the light that reaches it; "transmittance", that light.
    layer_values: ClassVar[tuple[str, ...]] = ()

    options: MethodOptions
    device: torch.device
    events: Sequence[Event] = ()  # what refinements have done in this session, oldest first

    @abstractmethod
    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None: ...

    @classmethod
    def gpu_ready(cls) -> bool:
        """Whether a GPU helps on this machine; otherwise ``--device auto`` stays on the CPU."""
        return True

    # ------------------------------------------------------------------ training
    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Adam groups: ``name``, ``params``, ``lr`` at step 0, optionally ``eps``, ``betas``."""

    @abstractmethod
    def learning_rates(self, step: int) -> dict[str, float]:
        """Learning rate of every named group at ``step``. A pure function of the step."""

    def loss_weights(self, step: int) -> dict[str, float]:
        """Weight of every loss term at ``step``; terms that are not named count with weight 1."""
        return {}

    @abstractmethod
    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        """Draw a batch and return its loss terms. Decides on empty batches before any network."""

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        """Densify, prune, anneal. May replace parameters *and* their optimiser state."""
        return None

    def plan(self) -> tuple[StageSpan, ...]:
        """The stages of training in order, for methods that have several; the last one goes on."""
        return ()

    # ------------------------------------------------------------------ pictures
    @property
    def k(self) -> int:
        """Most layers that a picture is made of."""
        return self.options.k

    @abstractmethod
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """The picture of ``camera`` at its resolution, no grad, evaluation mode, no state written.

        ``background`` [3]; ``k`` layers (None: all that the model was trained with).
        """

    @abstractmethod
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """The K layers behind the picture of ``camera``."""

    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        """What :meth:`render` and :meth:`inspect` return, the same values.

        Methods override it to do only once what both need.
        """
        return self.render(camera, background, k), self.inspect(camera, k)

    def hull_mask(self, view: View) -> Tensor | None:
        """The mask [H, W] uint8 of ``view`` as the model's points were made from it; None: they
        were not, or the method has no such mask of its own."""
        return None

    @property
    def exported(self) -> int:
        """How many Gaussians :meth:`as_gaussians` gives."""
        return 0

    def as_gaussians(self) -> Cloud | None:
        """The model as 3D Gaussians for other viewers, if it can be seen as such."""
        return None

    # ------------------------------------------------------------------ state
    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, so that ``torch.load(weights_only=True)`` reads it."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; tensors whose first dimension varies are resized before the optimiser is."""

    def describe(self) -> dict[str, int | float | str]:
        """Sizes for logs and panels: primitives, parameters, ..."""
        return {}
