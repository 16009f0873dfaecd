"""A long time of random use of the window, with checks: does it stay alive, sane and small?

    python -m benchmarks.soak
    python -m benchmarks.soak --seconds 90 --drops 10 --seed 3

Cameras, K, layers, modes, wipes, tabs, sizes, pauses, restarts and files dropped on it, good and
bad, all chosen by the seed. Between them the window is brought back to the same state, in which
memory, threads and open files are compared. Exit code 1 when a check fails.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.screen import Stage, load, stage
from tests.driver import LEFT, MIDDLE, RIGHT, ROOT
from tests.window_steps import choose_in_menu

LEGO = ROOT / "assets" / "scenes" / "lego"
MOST_GROWTH = 50.0  # MB, after the first comparison
MOST_THREADS, MOST_FILES = 4, 8  # more than at the first comparison
CLOSE_SECONDS = 3.0
_MIB = 2**20


@dataclass(frozen=True)
class Options:
    """How long, and what."""

    seconds: float = 600.0
    drops: int = 50
    seed: int = 0
    warm_up: float = 60.0  # before the first comparison; a quarter of `seconds` at most
    keep: Path | None = None  # a folder for everything; default: thrown away


@dataclass
class Point:
    """What the program holds in the state that is always the same."""

    seconds: float
    memory: float  # MiB, resident
    threads: int
    files: int  # open ones


@dataclass
class Findings:
    """What went on, and what was wrong."""

    actions: dict[str, int] = field(default_factory=dict)
    drops: int = 0
    checks: int = 0
    errors: set[str] = field(default_factory=set)  # that the window showed
    wrong: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)


def write_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Good and bad things to drop; the second ones' names begin with "bad"."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, (2, 20_000))
    ring = 1 + 0.35 * np.cos(angles[1])
    torus = np.c_[ring * np.cos(angles[0]), ring * np.sin(angles[0]), 0.35 * np.sin(angles[1])]
    levels = 127 + 120 * np.cos(angles[0])
    colors = np.c_[levels, 0 * levels, 255 - levels]
    np.savetxt(folder / "torus mit ö.xyz", np.c_[torus, colors])
    np.save(folder / "far.npy", (torus + 50).astype(np.float32))
    shutil.copy(LEGO / "points.ply", folder / "points.ply")
    frame = json.loads((LEGO / "transforms_train.json").read_text())["frames"]
    path = {
        "camera_type": "perspective",
        "render_height": 256,
        "render_width": 256,
        "fps": 30,
        "seconds": 1,
        "camera_path": [
            {
                "camera_to_world": np.ravel(one["transform_matrix"]).tolist(),
                "fov": 40.0,
                "aspect": 1.0,
            }
            for one in frame[:20]
        ],
    }
    (folder / "path.json").write_text(json.dumps(path))
    good = [LEGO, LEGO, *sorted(folder.iterdir())]

    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (folder / "bad_empty.ply").write_bytes(b"")
    whole = (LEGO / "points.ply").read_bytes()
    (folder / "bad_cut.ply").write_bytes(whole[: len(whole) // 2])
    (folder / "bad_words.xyz").write_text("these are not numbers\n" * 20)
    (folder / "bad_nan.npy").write_bytes(b"")
    np.save(folder / "bad_nan.npy", np.full((100, 3), np.nan, np.float32))
    (folder / "bad.json").write_text('{"frames": [{"file_path": "x"}]}')
    (folder / "bad.pt").write_bytes(b"PK\x03\x04 no checkpoint")
    (folder / "bad_folder").mkdir()
    bad = [path for path in sorted(folder.iterdir()) if path.name.startswith("bad")]
    return good, [*bad, folder / "bad_missing.ply"]


class Soak:
    """Random use of one window."""

    def __init__(self, show: Stage, options: Options, folder: Path) -> None:
        self.show, self.driver, self.options = show, show.driver, options
        self.random = random.Random(options.seed)
        self.found = Findings()
        self.good, self.bad = write_files(folder / "files")
        self._process = psutil.Process(self.driver.process.pid)
        self._start = time.monotonic()
        self._step: tuple[str | None, int] = (None, 0)
        self._actions: list[tuple[int, Callable[[], None]]] = [
            (8, self.orbit), (3, self.look), (3, self.pan), (4, self.zoom), (2, self.fly),
            (5, self.layers), (5, self.mode), (4, self.view), (4, self.compare), (2, self.overlay),
            (3, self.tab), (2, self.pause), (1, self.resize), (1, self.theme), (1, self.preview),
            (1, self.save), (1, self.measure), (1, self.restart), (1, self.help), (1, self.away),
        ]  # fmt: skip

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def run(self) -> None:
        """Everything until the time is over."""
        options = self.options
        warm_up = min(options.warm_up, options.seconds / 4)
        next_check, next_drop, next_point = 5.0, 3.0, warm_up
        weights = [weight for weight, _ in self._actions]
        while self.seconds < options.seconds:
            _, action = self.random.choices(self._actions, weights)[0]
            self._do(action)
            if self.seconds >= next_drop and self.found.drops < options.drops:
                self._do(self.drop)
                next_drop = self.found.drops * options.seconds / options.drops
            if self.seconds >= next_check:
                self.check()
                next_check = self.seconds + 4
            if self.seconds >= next_point:
                self.compare_points()
                next_point = self.seconds + max(warm_up, 30)
        self.compare_points()

    def _do(self, action: Callable[[], None]) -> None:
        name = action.__name__
        self.found.actions[name] = self.found.actions.get(name, 0) + 1
        action()
        if self.driver.state()["popup"] and self.random.random() < 0.7:
            self.driver.key("Escape")

    def wrong(self, text: str) -> None:
        """A check failed."""
        self.found.wrong.append(f"{self.seconds:5.0f} s: {text}")
        print(self.found.wrong[-1], file=sys.stderr, flush=True)

    # ------------------------------------------------------------------ checks
    def check(self) -> None:
        """The window is alive and shows something; only the files meant to be bad made errors."""
        self.found.checks += 1
        state = self.driver.frames(2)  # raises when the program ended or its window is dead
        for error in set(state["errors"]) - self.found.errors:
            self.found.errors.add(error)
            if not any(path.name in error for path in self.bad):
                self.wrong(f"an unexpected error: {error}")
        picture = state["picture"]
        if picture and picture["mean"] is None:
            self.wrong("a picture that is not finite")
        if picture and int(self.show.pixels("view").max()) < 60:
            self.wrong("the view is black")
        place = (state["folder"], state["step"])
        if state["state"] == "running" and not state["moving"] and place == self._step:
            time.sleep(3)  # an evaluation or a checkpoint
            if self.driver.state()["step"] == place[1] and "easuring" not in str(state):
                self.wrong(f"training stands still at step {place[1]}")
        self._step = place

    def compare_points(self) -> None:
        """Bring the window to the same state as always, and note what the program holds."""
        driver = self.driver
        driver.key("Escape")
        driver.resize(1280, 800)
        old = driver.state()["folder"]
        driver.drop(LEGO)
        driver.until(lambda s: s["folder"] != old and s["scene"] == "lego" and not s["loading"], 60)
        if not driver.state()["card"]:
            for key in ("1", "bracketleft"):
                driver.key(key)
        driver.until(lambda s: s["step"] > 60 or s["state"] != "running", 60)
        time.sleep(2)
        memory = self._process.memory_info().rss / _MIB
        point = Point(self.seconds, memory, self._process.num_threads(), self._process.num_fds())
        self.found.points.append(point)
        first = self.found.points[0]
        print(
            f"{point.seconds:5.0f} s: {memory:.0f} MiB, {point.threads} threads, "
            f"{point.files} files, {self.found.drops} drops, load {load()}",
            file=sys.stderr,
            flush=True,
        )
        if point.threads > first.threads + MOST_THREADS:
            self.wrong(f"{point.threads} threads, {first.threads} at first")
        if point.files > first.files + MOST_FILES:
            self.wrong(f"{point.files} open files, {first.files} at first")

    # ------------------------------------------------------------------ what a person does
    def _somewhere(self) -> tuple[float, float]:
        return self.driver.center(
            "view", self.random.uniform(0.15, 0.85), self.random.uniform(0.3, 0.85)
        )

    def _drag(self, button: int) -> None:
        start = self._somewhere()
        end = self._somewhere() if self.random.random() < 0.5 else (start[0] + 60, start[1] + 20)
        self.driver.drag(start, end, button, steps=self.random.randint(2, 8))

    def orbit(self) -> None:
        self._drag(LEFT)

    def look(self) -> None:
        self._drag(RIGHT)
        if self.random.random() < 0.3:
            self.driver.key("shift+r")

    def pan(self) -> None:
        self._drag(MIDDLE)

    def zoom(self) -> None:
        self.driver.wheel(self._somewhere(), self.random.choice((-3, -1, 1, 2)))

    def fly(self) -> None:
        self.driver.hold(self.random.choice("wasdqe"), 0.4)
        self.driver.key("shift+r")

    def layers(self) -> None:
        self.driver.key(self.random.choice(("k", "shift+k", "l", "shift+l")))
        if self.random.random() < 0.5:
            self.driver.click(self.driver.center("k", self.random.random() * 0.9 + 0.05))

    def mode(self) -> None:
        self.driver.key(str(self.random.randint(1, 8)))

    def view(self) -> None:
        keys = ("bracketleft", "bracketright", "shift+bracketleft", "shift+bracketright")
        self.driver.key(self.random.choice(keys))

    def compare(self) -> None:
        self.driver.key(self.random.choice("vgo"))

    def overlay(self) -> None:
        self.driver.key(self.random.choice("cx"))

    def tab(self) -> None:
        names = ("camera", "compare", "probe", "model", "scene", "log")
        self._click(f"tab_{self.random.choice(names)}")
        self.driver.move(self._somewhere())

    def pause(self) -> None:
        self.driver.key("t")
        self.driver.key("t") if self.random.random() < 0.7 else None

    def resize(self) -> None:
        self.driver.resize(self.random.randint(900, 1700), self.random.randint(600, 1100))

    def theme(self) -> None:
        choose_in_menu(self.driver, "menu_view", self.random.choice(("theme_dark", "theme_light")))

    def preview(self) -> None:
        self.driver.key("b")
        self._drag(LEFT)
        self.driver.key("b")

    def save(self) -> None:
        self.driver.key("ctrl+s")

    def measure(self) -> None:
        self._click("tab_model")
        self._click("measure")

    def restart(self) -> None:
        self._click("tab_model")
        self._click("restart")
        self._click(self.random.choice(("confirm_yes", "confirm_no")))

    def help(self) -> None:
        self.driver.key("F1")
        self.driver.key("Escape")

    def away(self) -> None:
        self.driver.unfocus()
        self.driver.focus()

    def drop(self) -> None:
        """One or two files, good or bad; then an answer to the card."""
        self.found.drops += 1
        paths = [self.random.choice(self.random.choice((self.good, self.bad)))]
        if self.random.random() < 0.3:
            paths.append(self.random.choice(self.bad))
        self.driver.drop(*paths)
        state = self.driver.until(lambda s: not s["reading"], 60)
        self.check()
        if state["card"]:
            self._drag(LEFT)
            self._click(self.random.choice(("card_use", "card_alone", "card_back")))

    def _click(self, tag: str) -> None:
        """Click a widget if it is shown."""
        if tag in self.driver.frames(2)["rects"]:
            self.driver.click(tag)


def report(soak: Soak, code: int, closing: float) -> None:
    """The table, and the last checks."""
    found = soak.found
    first, last = found.points[0], found.points[-1]
    growth = (last.memory - first.memory) * _MIB / 1e6
    if growth > MOST_GROWTH:
        soak.wrong(f"memory grew by {growth:.0f} MB")
    if code != 0 or closing > CLOSE_SECONDS + 0.5:
        soak.wrong(f"closing took {closing:.1f} s, exit code {code}")
    table = Table(title=f"{soak.seconds:.0f} s of random use, seed {soak.options.seed}")
    for name in ("s", "MiB", "threads", "open files"):
        table.add_column(name, justify="right")
    for point in found.points:
        table.add_row(
            f"{point.seconds:.0f}", f"{point.memory:.0f}", str(point.threads), str(point.files)
        )
    table.caption = (
        f"{sum(found.actions.values())} actions, {found.drops} drops, {found.checks} checks, "
        f"{len(found.errors)} different errors shown, memory {growth:+.0f} MB, closed in "
        f"{closing:.1f} s with exit code {code}; load average {load()}"
    )
    Console().print(table)
    for error in sorted(found.errors):
        print(f"shown: {error}")
    for text in found.wrong:
        print(f"WRONG {text}")


def main(options: Options) -> int:
    """Use it, check, report; 1 when a check failed."""
    with tempfile.TemporaryDirectory(prefix="soak_") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.pop("DISPLAY", None)
        with stage(["--scene", "lego"], folder, screen=(1700, 1100)) as show:
            show.driver.until(lambda state: state["step"] > 20, 120)
            soak = Soak(show, options, folder)
            try:
                soak.run()
            except AssertionError as error:
                soak.wrong(f"{' '.join(str(error).split())[:2000]}")
                return 1
            start = time.monotonic()
            show.driver.close_button()
            code, output = show.driver.finish()
            closing = time.monotonic() - start
            if "Traceback" in output:
                soak.wrong(output[-1500:])
            report(soak, code, closing)
            return 1 if soak.found.wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
