"""The window: how soon it answers, how fluent it is, what it costs the training.

    python -m benchmarks.gui
    python -m benchmarks.gui --only latency --moves 40

Drives the real program on a virtual screen (Xvfb, software OpenGL) with a true mouse. "On the
screen" is measured on pixels: from the mouse move until the middle of the picture has changed.
Prints Markdown tables with the load averages: other work on the machine changes every number.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.screen import Stage, load, stage
from render.scenes.clouds.pointcloud import read_point_cloud
from tests.display import virtual_display
from tests.driver import ROOT

LEGO = ROOT / "assets" / "scenes" / "lego"
BOX = 160  # px: side of the square in the middle of the picture that is watched
DRAG_HZ = 60  # moves of the mouse in a second
SQUARE = (1000, 813)  # a window whose picture area is square with the panels as delivered


@dataclass(frozen=True)
class Options:
    """What to measure."""

    only: list[str] = field(default_factory=lambda: ["latency", "view", "preview", "cost"])
    moves: int = 24  # for the latency
    seconds: float = 8.0  # of every drag
    steps: int = 1500  # of every run for the cost of the window
    rounds: int = 2  # headless and window in turn, so often
    trained: int = 1200  # steps before the view is timed: the network has begun
    points: int = 100_000  # of the point preview
    keep: Path | None = None  # a folder for what the program wrote; default: thrown away


def median(values: list[float]) -> float:
    """NaN when there are none."""
    return statistics.median(values) if values else math.nan


def markdown(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table that can be pasted into docs/results.md."""
    lines = [f"**{title}**", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    text = "\n".join(lines)
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(f"{text}\n", flush=True)


# ---------------------------------------------------------------------- latency
def changes(show: Stage, box: tuple[int, int, int, int], seconds: float) -> float:
    """The largest change of the picture (mean of all levels, 0..255) by training alone."""
    end, largest = time.monotonic() + seconds, 0.0
    before = show.look(box).astype(np.float32)
    while time.monotonic() < end:
        time.sleep(0.02)
        now = show.look(box).astype(np.float32)
        largest = max(largest, float(np.abs(now - before).mean()))
        before = now
    return largest


def latency(show: Stage, moves: int) -> tuple[list[float], list[float]]:
    """Seconds from a mouse move to a changed picture: on the screen, and as the window says.

    Every move is a drag of its own after a second of stillness.
    """
    driver, mouse, box = show.driver, show.mouse, show.middle("view", BOX)
    threshold = max(3 * changes(show, box, 3.0), 1.0)
    x, y = driver.center("view", 0.2, 0.85)
    x, y = x + show.corner[0], y + show.corner[1]
    seen, said = [], []
    for number in range(moves):
        mouse.move(x, y)
        time.sleep(1.0 + 0.037 * (number % 7))
        mouse.button(True)
        time.sleep(0.05)
        before = show.look(box).astype(np.float32)
        start = time.perf_counter()
        mouse.move(x + 40, y - 12 * (-1) ** number)
        while time.perf_counter() - start < 3.0:
            if float(np.abs(show.look(box) - before).mean()) > threshold:
                seen.append(time.perf_counter() - start)
                break
            time.sleep(0.002)
        else:
            seen.append(math.inf)
        mouse.button(False)
        value = driver.frames()["latency"]
        if value is not None:
            said.append(value)
    return seen, said


def measure_latency(options: Options, folder: Path) -> None:
    """While the bundled scene trains at its own resolution."""
    rows = []
    with stage(["--scene", "lego"], folder / "latency") as show:
        show.driver.until(lambda state: state["step"] > 150, 120)
        for label, prepare in (
            ("training waits while moving (as delivered)", lambda: None),
            ("training goes on while moving", lambda: _no_hold(show)),
        ):
            prepare()
            before = show.driver.state()
            seen, said = latency(show, options.moves)
            after = show.driver.state()
            rows.append(
                (
                    label,
                    str(len(seen)),
                    f"{1000 * median(seen):.0f}",
                    f"{1000 * max(seen):.0f}",
                    f"{1000 * median(said):.0f}",
                    f"{1000 * max(said, default=math.nan):.0f}",
                    f"{before['step']}-{after['step']}",
                    load(),
                )
            )
    markdown(
        "From a camera move to a changed picture, while training (ms)",
        ("", "moves", "screen, median", "worst", "window says, median", "worst", "steps", "load"),
        rows,
    )


def _no_hold(show: Stage) -> None:
    show.driver.click("tab_model")
    show.driver.click("hold")
    show.driver.frames(5)


# ---------------------------------------------------------------------- pictures a second
@dataclass(frozen=True)
class Rate:
    """Of one drag."""

    screen: float  # changes on the screen a second
    window: float  # as the window says, median
    size: tuple[int, int]  # of the pictures while moving, median
    slowest: float  # longest time without a new picture, ms


def drag(show: Stage, seconds: float) -> Rate:
    """Orbit in circles with the button down, and count pictures."""
    driver, mouse = show.driver, show.mouse
    x, y, width, height = driver.rect("view")
    x, y = x + show.corner[0], y + show.corner[1]
    box = show.middle("view", BOX)
    # The pointer's own picture stays outside of the watched square.
    radius = (0.40 * width, 0.40 * height)
    middle = (x + width / 2, y + height / 2)

    def place(angle: float) -> tuple[float, float]:
        return middle[0] + radius[0] * math.cos(angle), middle[1] + radius[1] * math.sin(angle)

    mouse.move(*place(0))
    time.sleep(0.5)
    mouse.button(True)
    rates, sizes, times = [], [], []
    start = time.perf_counter()
    before, next_move, next_state = show.look(box), start, start + 2.5
    while (now := time.perf_counter()) < start + seconds:
        if now >= next_move:
            mouse.move(*place(0.5 * (now - start)))
            next_move += 1 / DRAG_HZ
        if now >= next_state:
            state = driver.state()
            if state["picture"] and state["picture"]["moving"]:
                rates.append(state["view_fps"])
                sizes.append((state["picture"]["width"], state["picture"]["height"]))
            next_state += 0.5
        seen = show.look(box)
        if not np.array_equal(seen, before):
            before = seen
            times.append(now)
        time.sleep(0.003)
    mouse.button(False)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    size = sorted(sizes)[len(sizes) // 2] if sizes else (0, 0)
    return Rate(len(times) / seconds, median(rates), size, 1000 * max(gaps, default=math.inf))


def _rate_row(label: str, rate: Rate, still: str) -> tuple[str, ...]:
    return (
        label,
        f"{rate.size[0]}x{rate.size[1]}",
        f"{rate.screen:.1f}",
        f"{rate.window:.1f}",
        f"{rate.slowest:.0f}",
        still,
        load(),
    )


_RATE_HEAD = (
    "",
    "picture while moving",
    "fps on the screen",
    "fps the window says",
    "longest gap, ms",
    "still",
    "load",
)


def enlarged(folder: Path, side: int) -> Path:
    """The bundled scene with photographs of ``side`` x ``side`` pixels (resampled)."""
    shutil.copytree(LEGO, folder, ignore=shutil.ignore_patterns("depth"))
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((side, side), Image.Resampling.LANCZOS).save(path)
    return folder


def measure_view(options: Options, folder: Path) -> None:
    """The full method with training paused."""
    rows = []
    large = enlarged(folder / "lego_400", 400)
    for label, scene, size, settings in (
        ("lego 400x400, moving at 100 %", large, SQUARE, {"move_scale": 1.0}),
        ("lego as delivered, moving at 100 %", "lego", (1280, 800), {"move_scale": 1.0}),
        ("lego as delivered, moving: automatic", "lego", (1280, 800), {}),
    ):
        name = f"view_{len(rows)}"
        with stage(["--scene", scene], folder / name, size=size, settings=settings) as show:
            show.driver.until(lambda state: state["step"] >= options.trained, 400)
            show.driver.key("t")
            show.driver.until(lambda state: state["state"] == "paused")
            drag(show, 2.0)
            rate = drag(show, options.seconds)
            rows.append(_rate_row(label, rate, _still(show)))
    markdown("The method's own picture, K = 8, training paused", _RATE_HEAD, rows)


def _still(show: Stage) -> str:
    """Size and milliseconds of the picture that comes when the camera stands."""
    picture = show.driver.until(lambda s: s["picture"] and not s["picture"]["moving"])["picture"]
    return f"{picture['width']}x{picture['height']} in {1000 * picture['seconds']:.0f} ms"


def cloud(path: Path, count: int) -> Path:
    """``count`` points: those of the bundled scene, repeated with a little noise."""
    points = read_point_cloud(LEGO / "points.ply")
    generator = np.random.default_rng(0)
    rows = generator.integers(len(points), size=count)
    xyz = points.xyz.numpy()[rows] + generator.normal(0, 0.004, (count, 3))
    assert points.rgb is not None
    rgb = np.round(255 * points.rgb.numpy()[rows])
    np.savetxt(path, np.c_[xyz, rgb], fmt="%.5f %.5f %.5f %d %d %d")
    return path


def measure_preview(options: Options, folder: Path) -> None:
    """Points by OpenGL: a dropped cloud beside the training, and the same on its own."""
    folder.mkdir(exist_ok=True)
    points = cloud(folder / "points.xyz", options.points)
    rows = []
    with stage(["--scene", "lego"], folder / "dropped") as show:
        show.driver.until(lambda state: state["step"] > 60, 120)
        show.driver.drop(points)
        show.driver.until(lambda state: state["card"], 60)
        drag(show, 2.0)
        rate = drag(show, options.seconds)
        rows.append(_rate_row("dropped while training", rate, _still(show)))
    with stage([points], folder / "alone") as show:
        show.driver.until(lambda state: state["scene"] and state["picture"], 60)
        show.driver.key("b")
        show.driver.until(lambda state: state["preview"])
        drag(show, 2.0)
        rate = drag(show, options.seconds)
        rows.append(_rate_row("on its own", rate, _still(show)))
    markdown(f"Point preview of {options.points:,} points (K = 8 peeled)", _RATE_HEAD, rows)


# ---------------------------------------------------------------------- cost
def _rows(path: Path) -> list[tuple[int, float]]:
    """Step and seconds of training of each line of a metrics.csv, so far."""
    try:
        with path.open(newline="") as file:
            return [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return []  # not there yet, or the last line is half written


def follow(metrics: Path, steps: int, alive: Callable[[], bool]) -> list[tuple[int, float]]:
    """Step and wall clock of every line of a growing metrics.csv, until ``steps``."""
    marks: list[tuple[int, float]] = []
    while not marks or marks[-1][0] < steps:
        assert alive(), f"the program ended before step {steps}"
        for step, _ in _rows(metrics)[len(marks) :]:
            marks.append((step, time.perf_counter()))
        time.sleep(0.02)
    return marks


def wall(marks: list[tuple[int, float]], first: int, last: int) -> float:
    """Seconds of wall clock from step ``first`` to ``last``, between lines interpolated."""
    steps, times = zip(*marks, strict=True)
    ends = np.interp([first, last], steps, times)
    return float(ends[1] - ends[0])


@contextmanager
def _running(arguments: list[str], folder: Path, display: str) -> Iterator[Callable[[], bool]]:
    """The program as a user starts it: told to write its state it would draw more often."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *arguments],
            cwd=folder,
            env={**os.environ, "DISPLAY": display, "KBUFFERS_CONFIG": str(folder / "config")},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield lambda: process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def measure_cost(options: Options, folder: Path) -> None:
    """The same steps headless and with the window open and untouched, in turn."""
    parts = (
        ((200, 1000), (1000, options.steps)) if options.steps > 1200 else ((200, options.steps),)
    )
    times: dict[str, list[list[float]]] = {"headless": [], "window": []}
    for number in range(options.rounds):
        for kind in ("headless", "window"):
            work = folder / f"{kind}_{number}"
            metrics = work / "run" / "metrics.csv"
            # Headless would go on with a video: 400 steps more than are looked at.
            arguments = ["--scene", "lego", "--steps", str(options.steps + 400)]
            arguments += ["--eval-every", "never", "--out", str(work / "run")]
            if kind == "headless":
                arguments.append("--headless")
            with (
                virtual_display("1280x800") as display,
                _running(arguments, work, display) as alive,
            ):
                marks = follow(metrics, options.steps, alive)
            times[kind].append([wall(marks, *part) for part in parts])
            print(f"{kind} {number + 1}: {times[kind][-1]}, load {load()}", file=sys.stderr)
    rows = []
    for i, (first, last) in enumerate(parts):
        rates = {kind: [(last - first) / run[i] for run in runs] for kind, runs in times.items()}
        ratios = [b / a for a, b in zip(rates["headless"], rates["window"], strict=True)]
        rows.append(
            (
                f"{first} to {last}",
                ", ".join(f"{value:.1f}" for value in rates["headless"]),
                ", ".join(f"{value:.1f}" for value in rates["window"]),
                ", ".join(f"{value:.2f}" for value in ratios),
                f"{100 * (1 - median(ratios)):.0f} %",
                load(),
            )
        )
    markdown(
        "Training with the window open and untouched (steps/s, runs in turn)",
        ("steps", "headless", "window", "ratio", "cost, median", "load"),
        rows,
    )


def main(options: Options) -> None:
    """Measure and print."""
    measures: dict[str, Callable[[Options, Path], Any]] = {
        "latency": measure_latency,
        "view": measure_view,
        "preview": measure_preview,
        "cost": measure_cost,
    }
    unknown = set(options.only) - measures.keys()
    if unknown:
        sys.exit(f"--only {' '.join(sorted(unknown))}: expected {', '.join(measures)}.")
    print(f"{os.cpu_count()} cores, load average before {load()}\n")
    with tempfile.TemporaryDirectory(prefix="gui_") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            measures[name](options, folder / name)


if __name__ == "__main__":
    main(tyro.cli(Options))
