"""What the session tells the window and the headless run: immutable values only."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from typing import TypeVar

from torch import Tensor

from render.camera import Camera
from render.export.styles import LayerValue, Style
from render.methods.base import Inspection, Render, StageSpan
from render.scenes.background import Background
from render.training.evaluation import EvalResult
from render.training.trainer import StepReport

T = TypeVar("T")


class State(Enum):
    """What the worker is doing."""

    IDLE = "idle"  # nothing loaded, or closed
    LOADING = "loading"
    READY = "ready"  # loaded, not trained in this session
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"  # saving, then idle
    FAILED = "failed"  # `error` says why; what was loaded can still be looked at
    FINISHED = "finished"  # the budget is used up; start() goes on only with a larger one


@dataclass(frozen=True)
class ViewRequest:
    """A picture that the window wants; a newer request replaces one that was not yet served.

    Args:
        camera: at the resolution to render.
        ks: a picture is made with each of these numbers of layers.
        inspect: for each of these numbers of layers, what lies behind the picture.
        background: None = the scene's.
        view: index into ``scene.views`` when ``camera`` is that photograph's, to compare with it.
        sweep: also the PSNR of the picture with 1, 2, ... K layers.
        moving: the camera is on its way: the next request follows soon.
        number: returned with the picture, so that late ones are recognised.
        style: how Gaussians are drawn.
        values: of each layer's Gaussian, that the insides shall have in ``extra``.
        mask: whether the mask that the model was made from is wanted, of the photograph ``view``.
    """

    camera: Camera
    ks: tuple[int, ...] = ()
    inspect: tuple[int, ...] = ()
    background: Background | None = None
    view: int | None = None
    sweep: bool = False
    moving: bool = False
    number: int = 0
    style: Style = field(default_factory=Style)
    values: tuple[LayerValue, ...] = ()
    mask: bool = False


@dataclass(frozen=True)
class Sweep:
    """How good the picture is with 1, 2, ... K layers.

    ``psnr`` [K] in dB against the photograph, or without one (``photo`` false) against the
    picture of all K layers: its last value is then infinite.
    """

    psnr: tuple[float, ...]
    photo: bool


@dataclass(frozen=True)
class ViewResult:
    """The newest picture; tensors are on the CPU and never written again.

    ``renders`` and ``insides`` are keyed by the number of layers asked for; more than the model
    has count as all that it has. A sweep takes longer: the same result comes again with it.
    """

    request: ViewRequest
    renders: dict[int, Render]
    insides: dict[int, Inspection]
    background: Tensor  # [3] behind the picture
    step: int
    seconds: float  # that the rendering took, without the sweep
    sweep: Sweep | None = None
    mask: Tensor | None = None  # [H, W] uint8 of the photograph, as the model was made from it


@dataclass(frozen=True)
class EvalPoint:
    """A measurement of the held-out split on the way."""

    step: int
    seconds: float
    result: EvalResult
    val_psnr: float | None = None


@dataclass(frozen=True)
class CurvePoint:
    """A point of the loss and training PSNR curves: means since the point before."""

    step: int
    seconds: float
    loss: float
    psnr: float


@dataclass(frozen=True)
class Refinement:
    """Densification: how many Gaussians there were before and after, and what was done."""

    step: int
    seconds: float
    before: int
    after: int
    note: str


@dataclass(frozen=True)
class Snapshot:
    """The session at one moment."""

    state: State = State.IDLE
    error: str | None = None
    notes: tuple[str, ...] = ()
    report: StepReport | None = None  # of the newest step that this session made
    step: int = 0  # of the model, also of one that was resumed and has not gone on yet
    seconds: float = 0.0  # of training behind it
    loss: float = float("nan")  # smoothed
    train_psnr: float = float("nan")  # smoothed
    steps_per_second: float = 0.0  # smoothed
    curve: tuple[CurvePoint, ...] = ()
    evals: tuple[EvalPoint, ...] = ()
    earlier: tuple[tuple[float, float], ...] = ()  # seconds, held-out PSNR before it was resumed
    view: ViewResult | None = None
    progress: float = 0.0  # share of the training budget that is used, 0..1
    eta: float = float("nan")  # seconds of training to go
    saved: str | None = None  # newest checkpoint
    sizes: dict[str, int | float | str] = field(default_factory=dict)  # of the model
    gaussians: int = 0  # that there are now; 0 also for models of another kind
    gaussian_bytes: int = 0  # of memory that their parameters take
    refinements: tuple[Refinement, ...] = ()  # by this session, oldest first
    exported: int = 0  # Gaussians that a file of the model would have
    layer_values: tuple[str, ...] = ()  # that its layers have of themselves
    plan: tuple[StageSpan, ...] = ()  # stages of training, if it has several
    # what is loaded; empty before
    folder: str | None = None  # of the run
    scene_name: str = ""
    method: str = ""
    k: int = 0  # layers of the model
    device: str = ""  # in words
    views: dict[str, int] = field(default_factory=dict)  # number of views of each split
    points: int = 0  # of the scene
    # what goes on
    loading: str | None = None  # the newest sentence about it
    counted: tuple[str, int, int] | None = None  # while loading: "photographs", 120 of 300
    evaluating: str | None = None  # split and views done: "test 3/20"
    # live settings, as of the newest curve point or change
    rates: dict[str, float] = field(default_factory=dict)  # of every parameter group, scaled
    loss_weights: dict[str, float] = field(default_factory=dict)  # of every known term, scaled
    # the factors in them: {"lr_scale": {...}, "loss_scale": {...}}, see Session.set_option
    scales: dict[str, dict[str, float]] = field(default_factory=dict)
    # smoothed milliseconds of a training step by stage, see render/training/stages.py; and of the
    # pictures of a view request ("render")
    stages: dict[str, float] = field(default_factory=dict)


def to_cpu(value: T) -> T:
    """``value`` with every tensor in it, however deep in dataclasses or tuples, on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()  # pyright: ignore[reportReturnType]
    if isinstance(value, dict):
        return {name: to_cpu(item) for name, item in value.items()}  # pyright: ignore
    if isinstance(value, tuple):
        return tuple(to_cpu(item) for item in value)  # pyright: ignore
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: to_cpu(getattr(value, f.name)) for f in fields(value)})
    return value
