"""The stages of training: which parameters learn when, from what, and what happens before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from render.methods.point_radiance.options import PointRadianceOptions

Begin = Literal["nothing", "outliers", "double"]
GROUPS = ("xyz", "radius", "base", "sh")


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Args:
        name: for the timeline.
        first: step that it begins with.
        steps: how many; the last stage goes on for ever.
        rates: learning rate of every group of :data:`GROUPS` at its beginning.
        harmonics: whether colours depend on the direction.
        silhouettes: whether it learns from silhouettes instead of colours.
        begin: what is done to the points before.
        since: step that its rates fall from.
    """

    name: str
    first: int
    steps: int
    rates: dict[str, float]
    since: int
    harmonics: bool = True
    silhouettes: bool = False
    begin: Begin = "nothing"


def plan(options: PointRadianceOptions, views: int) -> tuple[Stage, ...]:
    """All stages in order; those that take no time are left out."""
    o = options
    epoch = o.epoch or views
    full = {"xyz": o.lr_xyz, "radius": o.lr_radius, "base": o.lr_base, "sh": o.lr_sh}
    still = dict.fromkeys(GROUPS, 0.0)
    stages: list[Stage] = []

    def add(
        name: str, epochs: int, rates: dict[str, float], onward: bool = False, **more: object
    ) -> None:
        if epochs > 0:
            first = stages[-1].first + stages[-1].steps if stages else 0
            since = stages[-1].since if onward and stages else first
            stages.append(Stage(name, first, epochs * epoch, rates, since, **more))  # pyright: ignore

    if o.pos_first:
        rates = still | {"xyz": o.lr_xyz_first}
        add("positions from silhouettes", o.pos_epochs, rates, silhouettes=True)
    after: Begin = "outliers" if stages and o.outliers else "nothing"
    if o.sh_alone:
        rates = still | {name: o.sh_alone_rate * full[name] for name in ("base", "sh")}
        add("colours alone", o.sh_alone_epochs, rates, begin=after)
        after = "nothing"
    base = full | {"base": o.lr_base_only, "sh": 0.0}
    add("base colours", o.base_epochs, base, harmonics=False, begin=after)
    add("view dependence", o.sh_epochs, full, begin="nothing" if o.base_epochs else after)
    for number in range(1, o.refine_n + 1):
        onward = not o.refine_restart and (o.sh_epochs > 0 or number > 1)
        add(f"refinement {number}", o.refine_epochs, full, onward, begin="double")
    if not stages:
        stages.append(Stage("view dependence", 0, epoch, full, 0))
    last = stages[-1]
    stages[-1] = replace(last, steps=last.steps + o.last_epochs * epoch)
    return tuple(stages)


def at(stages: tuple[Stage, ...], step: int) -> Stage:
    """The stage that ``step`` belongs to."""
    return next(stage for stage in reversed(stages) if stage.first <= step)


def rates(stage: Stage, options: PointRadianceOptions, views: int, step: int) -> dict[str, float]:
    """Learning rates at a step of ``stage``, by group; of positions in units of the scene."""
    epochs = (step - stage.since) // (options.epoch or views)
    share = max(options.decay**epochs, options.lowest)
    return {name: rate * share for name, rate in stage.rates.items()}
