"""What the session tells the window and the headless run: immutable values only."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from typing import TypeVar

from torch import Tensor

from render.camera import Camera
from render.methods.base import Inspection, Render
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
        k: layers; None = all.
        background: None = the scene's.
        inspect: also the K layers behind the picture.
        number: returned with the picture, so that late ones are recognised.
    """

    camera: Camera
    k: int | None = None
    background: Background | None = None
    inspect: bool = False
    number: int = 0


@dataclass(frozen=True)
class ViewResult:
    """The newest picture; tensors are on the CPU and never written again."""

    request: ViewRequest
    render: Render
    inspection: Inspection | None
    step: int
    seconds: float  # that the rendering took


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
class Snapshot:
    """The session at one moment."""

    state: State = State.IDLE
    error: str | None = None
    notes: tuple[str, ...] = ()
    report: StepReport | None = None
    loss: float = float("nan")  # smoothed
    train_psnr: float = float("nan")  # smoothed
    steps_per_second: float = 0.0  # smoothed
    curve: tuple[CurvePoint, ...] = ()
    evals: tuple[EvalPoint, ...] = ()
    view: ViewResult | None = None
    progress: float = 0.0  # share of the training budget that is used, 0..1
    eta: float = float("nan")  # seconds of training to go
    saved: str | None = None  # newest checkpoint
    sizes: dict[str, int | float | str] = field(default_factory=dict)  # of the model


def to_cpu(value: T) -> T:
    """``value`` with every tensor in it, also inside dataclasses and dictionaries, on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()  # pyright: ignore[reportReturnType]
    if isinstance(value, dict):
        return {name: to_cpu(item) for name, item in value.items()}  # pyright: ignore
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: to_cpu(getattr(value, f.name)) for f in fields(value)})
    return value
