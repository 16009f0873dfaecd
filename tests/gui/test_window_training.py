"""The training panel and the model panel of the real window, by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from render.methods import method_names
from tests.driver import State, WindowDriver
from tests.window_looks import ACCENT, AWAY, WARM, colorful, near, painted, shot, type_into
from tests.window_steps import choose

BUDGET = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def window(display: str, folder: Path) -> Iterator[WindowDriver]:
    """A window that is tall enough for the whole model panel; its budget is soon used up."""
    arguments = ("--scene", "lego", "--downscale", "4", "--steps", BUDGET, "--eval-every", "never")
    with WindowDriver([str(a) for a in arguments], folder, display) as driver:
        driver.resize(960, 1060)
        driver.click("tab_model")
        driver.until(lambda state: state["state"] == "finished", 60)
        yield driver


def pause(window: WindowDriver) -> State:
    """Stop training, if it runs."""
    if window.state()["state"] == "running":
        window.key("t")
    return window.until(lambda state: state["state"] in ("paused", "finished"))


def run(window: WindowDriver) -> State:
    """Train, if it does not; returns when steps are made."""
    if window.state()["state"] != "running":
        window.key("t")
    step = window.until(lambda state: state["state"] == "running")["step"]
    return window.until(lambda state: state["step"] > step)


def without_budget(window: WindowDriver) -> None:
    """As after the first press of Train at the end of the budget."""
    if window.state()["state"] == "finished":
        run(window)
    pause(window)


# ---------------------------------------------------------------------- start and stop
def test_the_bar_is_full_at_the_end_of_the_budget_and_train_goes_on(window: WindowDriver) -> None:
    state = window.frames(2)
    assert (state["state"], state["step"], state["progress"]) == ("finished", BUDGET, 1.0)
    assert state["texts"]["train_line"].startswith(f"Finished: step {BUDGET},")
    assert _bar(window) > 0.97
    assert near(shot(window, "train"), ACCENT).mean() > 0.5, "Train is the thing to press"
    window.click("train")
    window.move(AWAY)
    state = window.until(lambda state: state["step"] > BUDGET + 3)
    assert state["state"] == "running" and state["progress"] == 0
    assert state["texts"]["train_line"].startswith("Training: step")
    window.frames(2)
    assert _bar(window) == 0
    assert not near(shot(window, "train"), ACCENT).any(), "it says Pause now"
    pause(window)


def _bar(window: WindowDriver) -> float:
    """Share of the width below the line of text that the progress bar fills."""
    left, top, _, height = window.rect("train_line")
    bottom, width = window.rect("tab_psnr")[1], window.rect("psnr_plot")[2]
    between = window.screenshot()[round(top + height) : round(bottom)]
    return float(near(between[:, round(left) : round(left + width)], ACCENT).mean(1).max())


def test_train_and_pause_by_button_and_key(window: WindowDriver) -> None:
    without_budget(window)
    idle = shot(window, "train")
    for toggle in (lambda: window.click("train"), lambda: window.key("t")):
        before = window.state()["step"]
        toggle()
        window.until(lambda state, b=before: state["state"] == "running" and state["step"] > b)
        toggle()
        window.move(AWAY)
        state = window.until(lambda state: state["state"] == "paused")
        assert window.frames(8)["step"] == state["step"], "nothing trains"
        assert state["texts"]["train_line"].startswith(f"Paused: step {state['step']:,}")
    assert np.abs(shot(window, "train") - idle.astype(float)).mean() < 2


def test_step_makes_as_many_steps_as_it_says(window: WindowDriver) -> None:
    without_budget(window)
    left, top, width, height = window.rect("train_count")
    window.click((left + 14, top + 0.5 * height))
    window.key("ctrl+a")
    window.type_text("3")
    window.key("Return")
    _steps(window, lambda: window.click("train_step"), 3)
    window.click((left + width - 12, top + 0.5 * height))  # +
    _steps(window, lambda: window.click("train_step"), 4)
    _steps(window, lambda: window.key("n"), 1)
    assert window.state()["method"] == "kbuffer" and window.state()["k"] == 8, "no shortcut"


def _steps(window: WindowDriver, press: Callable[[], None], count: int) -> None:
    before = window.state()["step"]
    press()
    window.until(lambda state: (state["state"], state["step"]) == ("paused", before + count))
    assert window.frames(4)["step"] == before + count
    window.until(lambda state: state["picture"]["step"] == before + count)  # the picture follows


# ---------------------------------------------------------------------- how good it is
def test_plots_show_the_curves_and_measuring_adds_a_mark(window: WindowDriver) -> None:
    without_budget(window)
    window.click("tab_psnr")
    window.move(AWAY)
    run(window)
    window.until(lambda state: state["seconds"] > 2, 40)
    pause(window)
    plot = shot(window, "psnr_plot")
    curve = colorful(plot, 40) & ~near(plot, WARM, 60)
    assert curve[:, 60:].any(0).sum() > 100, "a curve across the plot"
    marks = near(plot, WARM, 40).sum()

    window.click("measure")
    window.move(AWAY)
    state = window.until(lambda state: state["metrics"]["test_psnr"] is not None)
    value = state["metrics"]["test_psnr"]
    text = f"Held out: {value:.2f} dB at step {state['step']:,}."
    window.until(lambda state: text in state["messages"])
    assert 10 < value < 40
    assert near(shot(window, "psnr_plot"), WARM, 40).sum() > marks + 10

    window.click("tab_loss")
    window.move(AWAY)
    state = window.until(lambda state: "loss_plot" in state["rects"])
    assert "psnr_plot" not in state["rects"]
    falling = colorful(shot(window, "loss_plot"), 40)
    rows, columns = np.where(falling)
    assert falling.any(0).sum() > 100
    early = rows[columns < np.quantile(columns, 0.2)].mean()
    late = rows[columns > np.quantile(columns, 0.8)].mean()
    assert late > early + 5, "the loss goes down on the screen, too"
    window.click("tab_psnr")


def test_stage_times_are_told(window: WindowDriver) -> None:
    without_budget(window)
    text = window.until(lambda state: "stages" in state["texts"])["texts"]["stages"]
    told = {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)", text)}
    assert {"data", "rasterise", "backward", "optimiser", "view", "window"} <= told.keys()
    state = window.state()
    assert told["rasterise"] == pytest.approx(state["stages"]["rasterise"], abs=0.06)
    assert all(value > 0 for value in told.values())
    assert near(shot(window, "stages"), (146, 154, 168), 30).sum() > 200


# ---------------------------------------------------------------------- live settings
@pytest.mark.parametrize(
    ("tag", "scale", "kind"),
    [("scale_lr.means", "lr_scale", "rates"), ("scale_loss.l1", "loss_scale", "loss_weights")],
)
def test_a_slider_scales_a_learning_rate_or_loss_weight(
    window: WindowDriver, tag: str, scale: str, kind: str
) -> None:
    without_budget(window)
    name = tag.partition(".")[2]
    label = tag.replace("scale_", "value_")
    before = window.state()
    shown = shot(window, label)
    type_into(window, tag, "0.5")
    state = window.until(lambda state: state["scales"][scale][name] == 0.5)
    rate = state[kind][name]
    assert rate == pytest.approx(0.5 * before[kind][name], rel=0.02)  # the plan has gone on
    window.until(lambda state: state["texts"][label] == f"{rate:.2g}")
    after = shot(window, label)
    assert after.shape != shown.shape or (after != shown).any()
    others = {n: s for n, s in state["scales"][scale].items() if n != name}
    assert set(others.values()) <= {1.0}, "the others stay"

    x, y, width, height = window.rect(tag)
    window.drag((x + 0.12 * width, y + 0.5 * height), (x + 0.6 * width, y + 0.5 * height), steps=3)
    window.move(AWAY)
    state = window.until(lambda state: state["scales"][scale][name] > 2.5)
    assert state[kind][name] == pytest.approx(state["scales"][scale][name] * 2 * rate)
    grab = np.nonzero(near(shot(window, tag), ACCENT).any(0))[0].mean() / width
    assert abs(grab - state["scales"][scale][name] / 5) < 0.06
    window.key("n")
    window.until(lambda state: state["step"] == before["step"] + 1)
    type_into(window, tag, "1")
    window.until(lambda state: state["scales"][scale][name] == 1)


def test_view_share_by_typing_and_dragging(window: WindowDriver) -> None:
    without_budget(window)
    type_into(window, "view_share", "0.5")
    window.until(lambda state: state["settings"]["view_share"] == 0.5)
    x, y, width, height = window.rect("view_share")
    window.drag((x + 0.55 * width, y + 0.5 * height), (x + 0.2 * width, y + 0.5 * height), steps=3)
    window.move(AWAY)
    state = window.until(lambda state: state["settings"]["view_share"] < 0.3)
    grab = np.nonzero(near(shot(window, "view_share"), ACCENT).any(0))[0].mean() / width
    assert abs(grab - (state["settings"]["view_share"] - 0.02) / 0.88) < 0.05


def test_training_waits_while_the_camera_moves_if_it_shall(window: WindowDriver) -> None:
    without_budget(window)
    run(window)
    for waits in (True, False):
        state = window.until(lambda state: "hold" in state["rects"])
        if state["settings"]["pause_while_moving"] != waits:
            window.click("hold")
            window.move(AWAY)
            state = window.until(lambda s, w=waits: s["settings"]["pause_while_moving"] == w)
        assert bool(near(shot(window, "hold"), ACCENT).any()) == waits, "the check mark"
        with window.holding("e"):
            start = window.until(lambda s: s["picture"]["moving"] and s["at_view"] is None)
            if waits:
                now = window.frames(10)
                assert now["moving"] and now["step"] <= start["step"] + 2
                assert now["picture"]["number"] > start["picture"]["number"], "the view goes on"
            else:
                now = window.until(lambda s, b=start["step"]: s["step"] > b + 3)
                assert now["moving"]
        state = window.until(lambda state: not state["moving"])
        window.until(lambda s, b=state["step"]: s["step"] > b + 1)  # and then it goes on
    window.click("hold")
    window.key("shift+bracketright")
    pause(window)


# ---------------------------------------------------------------------- files
def test_save_writes_a_checkpoint_and_then_says_so(window: WindowDriver, folder: Path) -> None:
    without_budget(window)
    _save(window, folder, lambda: window.click("save"))
    _save(window, folder, lambda: window.key("ctrl+s"))


def _save(window: WindowDriver, folder: Path, save: Callable[[], None]) -> None:
    _steps(window, lambda: window.key("n"), 1)  # a checkpoint that is not there yet
    state = window.state()
    path = f"{state['folder']}/checkpoints/step_{state['step']:07}.pt"
    assert not (folder / path).exists()
    save()

    def told(state: State) -> bool:
        if f"Saved {path}." in state["messages"]:
            assert (folder / path).stat().st_size > 1000
            return True
        return False

    assert window.until(told)["saved"] == path
    assert (folder / path).parent.joinpath("latest").exists()


def test_restart_asks_and_resume_last_goes_back(window: WindowDriver, folder: Path) -> None:
    without_budget(window)
    before = window.state()
    names = method_names()
    choose(window, "method", names.index("bpcr"), len(names))
    left, top, _, height = window.rect("trained_k")
    window.click((left + 14, top + 0.5 * height))
    window.key("ctrl+a")
    window.type_text("4")
    window.key("Return")

    light = shot(window, "view").mean()
    window.click("restart")
    window.move(AWAY)
    window.until(lambda state: "confirm_no" in state["rects"])
    assert shot(window, "view").mean() < 0.95 * light, "a question lies over the window"
    assert near(shot(window, "confirm_yes"), ACCENT).mean() > 0.4
    window.key("t")
    window.click("confirm_no")
    state = window.until(lambda state: "confirm_no" not in state["rects"])
    assert [state[n] for n in ("folder", "method", "step", "state")] == [
        before[n] for n in ("folder", "method", "step", "state")
    ], "No keeps everything, and T was no shortcut there"

    window.click("restart")
    window.until(lambda state: "confirm_yes" in state["rects"])
    assert near(shot(window, "confirm_yes"), ACCENT).mean() > 0.4
    window.click("confirm_yes")
    window.move(AWAY)
    state = window.until(lambda state: state["method"] == "bpcr" and state["step"] > 0, 60)
    assert (state["trained_k"], state["k"]) == (4, 4)
    assert state["folder"] != before["folder"] and (folder / state["folder"]).is_dir()
    assert state["place"] == before["place"], "the camera stays"
    state = painted(window, lambda picture: picture["main"]["k"] == 4)
    assert len(state["tiles"]) == 4
    kept = folder / before["folder"] / "checkpoints" / f"step_{before['step']:07}.pt"
    window.until(lambda state: kept.exists())  # the run before was saved
    assert shot(window, "view").std() > 10

    window.click("resume_last")
    window.move(AWAY)
    state = window.until(lambda state: state["folder"] == before["folder"], 60)
    assert state["method"] == "kbuffer" and state["trained_k"] == 8
    state = window.until(lambda state: state["step"] >= before["step"])
    assert state["step"] < before["step"] + 100, "exactly where it stopped"
    window.until(lambda state: state["step"] > before["step"])
    assert pause(window)["texts"]["train_line"].startswith("Paused: step")
    painted(window, lambda picture: picture["main"]["k"] == 8)
    assert shot(window, "view").std() > 10
