"""The stages of training as a bar: where it is, and what comes."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.snapshot import Snapshot
from app.theme import Theme
from app.widgets import publish, set_text

HEIGHT = 9  # px of the bar at font scale 1
GAP = 2  # px between two stages


class Place(NamedTuple):
    """A stage on the bar: where it begins and ends, and up to where it is done; 0 to 1."""

    begin: float
    end: float
    done: float


def places(snapshot: Snapshot) -> tuple[Place, ...]:
    """All stages of the plan, by the number of their steps. The last one goes on for ever: beyond
    its steps it counts as done."""
    plan = snapshot.plan
    if not plan:
        return ()
    total = max(1, plan[-1].first + plan[-1].steps)
    now = min(snapshot.step, total) / total
    found = []
    for span in plan:
        begin, end = span.first / total, (span.first + span.steps) / total
        found.append(Place(begin, end, min(max(now, begin), end)))
    return tuple(found)


def caption(snapshot: Snapshot) -> str:
    """Which stage it is in, and how far in it."""
    plan = snapshot.plan
    if not plan:
        return ""
    number = max(i for i, span in enumerate(plan) if span.first <= snapshot.step)
    span = plan[number]
    within = snapshot.step - span.first
    steps = f"{within:,} of {span.steps:,} steps" if within <= span.steps else f"{within:,} steps"
    return f"Stage {number + 1} of {len(plan)}: {span.name}, {steps}"


class Timeline:
    """Bar and caption; hidden for methods with a single stage."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        self._drawn: object = None
        with dpg.group(tag="timeline", show=False):
            with dpg.drawlist(100, theme.px(HEIGHT), tag=publish("timeline_bar")):
                pass
            theme.tint(dpg.add_text("", tag=publish("timeline_caption")), "faint")
        with dpg.tooltip("timeline"):
            dpg.add_text("", tag=publish("timeline_tip"))

    def update(self, width: int) -> None:
        """Draw what has changed; ``width`` of the bar in pixels."""
        snapshot = self.desk.snapshot
        shown = len(snapshot.plan) > 1 and self.desk.can_train
        dpg.configure_item("timeline", show=shown)
        key = (snapshot.plan, snapshot.step, width)
        if not shown or key == self._drawn:
            return
        self._drawn = key
        set_text("timeline_caption", caption(snapshot))
        lines = [f"from step {s.first:,}: {s.name}" for s in snapshot.plan]
        set_text("timeline_tip", "\n".join(lines))
        self._draw(places(snapshot), width)

    def _draw(self, stages: tuple[Place, ...], width: int) -> None:
        bar, height = "timeline_bar", self.theme.px(HEIGHT)
        dpg.configure_item(bar, width=width)
        dpg.delete_item(bar, children_only=True)
        palette = self.theme.palette
        for stage in stages:
            left, right = stage.begin * width, max(stage.end * width - GAP, stage.begin * width + 1)
            colors = ((right, palette.field), (min(stage.done * width, right), palette.accent))
            for end, color in colors:
                if end > left:
                    corners = (left, 0), (end, height)
                    dpg.draw_rectangle(*corners, color=color, fill=color, parent=bar)
