"""Start, pause, step; how far it is and how good: numbers and two plots."""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Sequence

import dearpygui.dearpygui as dpg

from app.desk import Desk
from app.panels.timeline import Timeline
from app.progress import count_curve
from app.snapshot import Refinement, Snapshot, State
from app.status import gaussians_text
from app.theme import Theme
from app.widgets import button, publish, set_text, takes_text

PLOT_HEIGHT = 92
NEAR_PIXELS = 5  # from the line of a refinement, for its tooltip
_PLOTS = ("psnr", "loss", "count")
_STATES = {
    State.IDLE: "nothing loaded",
    State.LOADING: "loading",
    State.READY: "ready",
    State.RUNNING: "training",
    State.PAUSED: "paused",
    State.STOPPING: "saving",
    State.FAILED: "stopped by an error",
    State.FINISHED: "finished",
}


class TrainingPanel:
    """See the module's text."""

    def __init__(self, desk: Desk, theme: Theme) -> None:
        self.desk, self.theme = desk, theme
        self._drawn: Snapshot | None = None  # whose curves are shown
        px = theme.px
        with dpg.group(horizontal=True):
            button(
                "Train",
                "train",
                desk.toggle_training,
                shortcut="train_toggle",
                width=px(104),
                height=px(34),
            )
            dpg.bind_item_font("train", theme.bold)
            button(
                "Step", "train_step", self._step, shortcut="train_step", width=px(56), height=px(34)
            )
            dpg.add_input_int(
                tag=takes_text(publish("train_count")),
                default_value=1,
                min_value=1,
                min_clamped=True,
                width=px(92),
                step=1,
                step_fast=50,
            )
            dpg.add_text("steps")
        dpg.add_text("", tag=publish("train_line"))
        dpg.add_progress_bar(tag="train_bar", height=px(5), width=-1)
        self.timeline = Timeline(desk, theme)
        with dpg.tab_bar(tag="train_tabs"):
            with dpg.tab(label="PSNR, dB over seconds", tag=publish("tab_psnr")):
                self._plot("psnr", (("psnr_train", "training"), ("psnr_test", "held out")))
            with dpg.tab(label="Loss over seconds", tag=publish("tab_loss")):
                self._plot("loss", (("loss_train", "loss"),), log=True)
            with dpg.tab(label="Gaussians", tag=publish("tab_count"), show=False):
                self._plot("count", (("count_now", "Gaussians"),))
        with dpg.theme() as thin, dpg.theme_component(dpg.mvInfLineSeries):
            plots = dpg.mvThemeCat_Plots
            dpg.add_theme_color(dpg.mvPlotCol_Line, (*theme.palette.faint[:3], 90), category=plots)
            dpg.add_theme_style(dpg.mvPlotStyleVar_LineWeight, 1.0, category=plots)
        for name in _PLOTS:
            dpg.bind_item_theme(f"{name}_events", thin)

    def _plot(self, name: str, series: tuple[tuple[str, str], ...], log: bool = False) -> None:
        with (
            dpg.group(tag=f"{name}_group"),
            dpg.plot(
                height=self.theme.px(PLOT_HEIGHT),
                width=-1,
                no_menus=True,
                no_mouse_pos=True,
                no_box_select=True,
                tag=publish(f"{name}_plot"),
            ),
        ):
            if name != "loss":  # where the curves leave room
                east, west = dpg.mvPlot_Location_SouthEast, dpg.mvPlot_Location_NorthWest
                dpg.add_plot_legend(location=west if name == "count" else east, horizontal=True)
            dpg.add_plot_axis(dpg.mvXAxis, tag=f"{name}_x", no_highlight=True)
            scale = dpg.mvPlotScale_Log10 if log else dpg.mvPlotScale_Linear
            with dpg.plot_axis(dpg.mvYAxis, tag=f"{name}_y", scale=scale, no_highlight=True):
                dpg.add_inf_line_series([], tag=f"{name}_events")
                for tag, label in series:
                    draw = dpg.add_stair_series if name == "count" else dpg.add_line_series
                    draw([], [], tag=tag, label=label)
        with dpg.tooltip(f"{name}_group", tag=f"{name}_tip", show=False):
            dpg.add_text("", tag=publish(f"{name}_event"))
        if name == "psnr":  # few points: without marks a single one would not be seen
            with dpg.theme() as marks, dpg.theme_component(dpg.mvLineSeries):
                dpg.add_theme_style(
                    dpg.mvPlotStyleVar_Marker,
                    dpg.mvPlotMarker_Circle,
                    category=dpg.mvThemeCat_Plots,
                )
                dpg.add_theme_style(dpg.mvPlotStyleVar_MarkerSize, 3, category=dpg.mvThemeCat_Plots)
                dpg.add_theme_color(
                    dpg.mvPlotCol_Line, self.theme.palette.warm, category=dpg.mvThemeCat_Plots
                )
            dpg.bind_item_theme("psnr_test", marks)

    def _step(self) -> None:
        self.desk.step(max(1, int(dpg.get_value("train_count"))))

    def update(self) -> None:
        desk, snapshot = self.desk, self.desk.snapshot
        running = desk.running
        dpg.configure_item("train", label="Pause" if running else "Train")
        self.theme.choose("train", not running)
        for tag in ("train", "train_step"):
            dpg.configure_item(tag, enabled=desk.can_train)
        set_text("train_line", self._line(snapshot))
        dpg.set_value("train_bar", snapshot.progress)
        dpg.configure_item("train_bar", show=snapshot.progress > 0)
        self.timeline.update(dpg.get_item_rect_size("psnr_plot")[0])
        dpg.configure_item("tab_count", show=snapshot.gaussians > 0 and desk.can_train)
        drawn = self._drawn
        if drawn is None or (
            drawn.curve is not snapshot.curve
            or drawn.evals is not snapshot.evals
            or drawn.refinements is not snapshot.refinements
        ):
            self._drawn = snapshot
            self._draw(snapshot)
        for name in _PLOTS:
            self._tell(name, snapshot.refinements)

    def _line(self, snapshot: Snapshot) -> str:
        state = _STATES[snapshot.state]
        if snapshot.evaluating:
            state = f"measuring {snapshot.evaluating}"
        if self.desk.session is None:
            return "Nothing loaded" if self.desk.coming is None else "Loading"
        if not self.desk.can_train:
            what = "Trained Gaussians" if snapshot.gaussians else "A point cloud"
            return f"{what}: to look at, not to train"
        step = f"step {snapshot.step:,}, {clock(snapshot.seconds)}"
        text = f"{state[0].upper()}{state[1:]}: {step}"
        if math.isfinite(snapshot.eta) and running_or_paused(snapshot):
            text += f", {clock(snapshot.eta)} to go"
        return text

    def _draw(self, snapshot: Snapshot) -> None:
        curve, evals = snapshot.curve, snapshot.evals
        seconds, losses = [p.seconds for p in curve], [max(p.loss, 1e-8) for p in curve]
        dpg.set_value("loss_train", [seconds, losses])
        if losses:  # a logarithmic axis has no numbers of its own within a power of ten
            low, high = min(losses), max(losses)
            ticks = (low, math.sqrt(low * high), high) if high > 1.01 * low else (low,)
            dpg.set_axis_ticks("loss_y", tuple((f"{tick:.2g}", tick) for tick in ticks))
        dpg.set_value("psnr_train", [seconds, [p.psnr for p in curve]])
        held_out = [*snapshot.earlier, *((e.seconds, e.result.psnr) for e in evals)]
        dpg.set_value("psnr_test", [[s for s, _ in held_out], [psnr for _, psnr in held_out]])
        events = snapshot.refinements
        dpg.set_value("count_now", count_curve(snapshot))
        dpg.configure_item("count_now", label=gaussians_text(snapshot))
        for name in _PLOTS:
            dpg.set_value(f"{name}_events", [[event.seconds for event in events]])
            dpg.fit_axis_data(f"{name}_x")
            dpg.fit_axis_data(f"{name}_y")

    def _tell(self, name: str, events: Sequence[Refinement]) -> None:
        """What the line under the mouse stands for."""
        found = None
        plot = f"{name}_plot"
        if events and dpg.is_item_visible(plot) and dpg.is_item_hovered(plot):
            low, high = dpg.get_axis_limits(f"{name}_x")
            reach = NEAR_PIXELS * (high - low) / max(1, dpg.get_item_rect_size(plot)[0])
            mouse = dpg.get_plot_mouse_pos()[0]
            nearest = min(events, key=lambda event: abs(event.seconds - mouse))
            found = nearest if abs(nearest.seconds - mouse) <= reach else None
        dpg.configure_item(f"{name}_tip", show=found is not None)
        if found is not None:
            what = "Gaussians" if self.desk.snapshot.gaussians else "points"
            set_text(f"{name}_event", describe(found, what))


def describe(event: Refinement, what: str = "Gaussians") -> str:
    """What a refinement did to ``what`` the model is made of."""
    counts = f"{event.before:,} {what}"
    if event.after != event.before:
        counts = f"{event.before:,} to {event.after:,} {what}"
    return f"Step {event.step:,}, {clock(event.seconds)}: {event.note}\n{counts}"


def running_or_paused(snapshot: Snapshot) -> bool:
    """Whether a time to go means something."""
    return snapshot.state in (State.RUNNING, State.PAUSED)


def clock(seconds: float) -> str:
    """``75`` -> ``1:15``; hours where there are some."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
