"""Faults inside the program or beside it: memory, numbers, photographs, clocks, displays."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faultrow import Row, newest, output_to, saved, told
from render.files import shipped
from render.training.checkpoint import load_latest

if TYPE_CHECKING:
    from benchmarks.reliability import Ground

ROOT = shipped("assets").parent


def memory(ground: Ground) -> Row:
    """Less and less address space."""
    import resource

    sizes = ", ".join(map(str, ground.options.memory))
    row = Row("out of memory", f"RLIMIT_AS of {sizes} MB above what the start takes")
    answers = []
    for extra in ground.options.memory:

        def limit(extra: int = extra) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            size = pages * os.sysconf("SC_PAGE_SIZE") + (extra << 20)
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

        out = ground.new_folder() / "run"
        child = ground.train(out, prepare=limit)
        code, said = child.wait(), child.said()
        if code not in (0, 1) or "Traceback" in said:
            row.lost.append(f"{extra} MB: exit code {code}: {said[-300:]}")
        elif code == 1 and "Error: " not in said:
            row.lost.append(f"{extra} MB: no sentence")
        answers.append("done" if code == 0 else "sentence")
        ground.finish(out, row)
        row.runs += 1
    row.answer = (
        f"{answers.count('sentence')} ended with a sentence, {answers.count('done')} fitted"
    )
    return row


def nan(ground: Ground) -> Row:
    """A loss that is not a number, for a while and for ever."""
    row = Row("NaN loss", "loss made NaN for 5 steps; from one step on for ever")
    first = 5

    def spoil(last: float) -> Callable[[], None]:
        def prepare() -> None:
            from render.methods import method_class

            cls: Any = method_class(ground.options.method)
            step = cls.train_step

            def spoilt(self: Any, number: int, *rest: Any) -> Any:
                out = step(self, number, *rest)
                if first <= number < last:
                    out.terms = {name: term * math.nan for name, term in out.terms.items()}
                return out

            cls.train_step = spoilt

        return prepare

    out = ground.new_folder() / "run"
    child = ground.train(out, prepare=spoil(first + 5))
    told(child, row, code=0)
    skipped = load_latest(out / "checkpoints", print)[1]["trainer"]["skipped_steps"]
    if skipped != 5:
        row.lost.append(f"{skipped} steps counted as skipped, not 5")
    out = ground.new_folder() / "run"
    child = ground.train(out, prepare=spoil(math.inf))
    told(child, row, "not finite for 20 steps in a row", "saved in")
    child = ground.train(out)  # the cause is gone: it must go on from numbers that are whole
    told(child, row, code=0)
    psnr = json.loads((out / "eval.json").read_text())["psnr"]
    if not (psnr and math.isfinite(psnr)):
        row.lost.append(f"PSNR {psnr}")
    row.runs = 2
    row.answer = "5 steps skipped and counted; 20 in a row end it with a sentence, good state saved"
    return row


def vanish(ground: Ground) -> Row:
    """Photographs that are gone while they are still needed."""
    row = Row("photographs vanish", "folder of the scene renamed during training")
    out = ground.new_folder() / "run"
    away = ground.scene.with_name("away")
    child = ground.train(out, "--image-memory", "0.00001")  # decoded anew for every step
    child.until(saved(out, ground.options.save_every))
    (ground.scene / "train").rename(away)
    try:
        told(child, row, "train", "saved in")
    finally:
        away.rename(ground.scene / "train")
    ground.finish(out, row)
    row.runs, row.answer = 1, "a sentence that names the file, everything saved, exit code 1"
    return row


# ---------------------------------------------------------------------------- others
def two(ground: Ground) -> Row:
    """A second program on the same run."""
    row = Row("two programs, one run", "--resume of a run that is being trained")
    out = ground.new_folder() / "run"
    first = ground.train(out)
    first.until(saved(out, ground.options.save_every))
    os.kill(first.pid, signal.SIGSTOP)  # it holds its lock, and ends no sooner than the other
    try:
        other = ground.new_folder()
        second = ground.train(out, prepare=lambda: output_to(other / "output.txt"))
        second.output = other / "output.txt"
        told(second, row, "another program trains in this run folder")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    if first.wait() != 0:
        row.lost.append("the first one failed")
    else:
        row.lost += ground.differences(out)
    row.runs, row.answer = 1, "the second is refused in a sentence, the first goes on"
    return row


def clock(ground: Ground) -> Row:
    """A wall clock that jumps by days, both ways, and file times that mean nothing."""
    row = Row("clock jumps", "wall clock of the process and file times moved by days at random")

    def jumping() -> None:
        now, localtime, moves = time.time, time.localtime, random.Random(1)

        def jump(seconds: float | None = None) -> Any:
            return localtime(now() + moves.uniform(-3e6, 3e6) if seconds is None else seconds)

        form = time.strftime
        time.time = lambda: now() + moves.uniform(-3e6, 3e6)
        time.localtime = jump
        time.strftime = lambda text, when=None: form(text, jump() if when is None else when)

    out = ground.new_folder() / "run"
    child = ground.train(out, prepare=jumping)
    child.until(saved(out, ground.options.save_every))
    child.kill()
    for path in out.rglob("*"):
        moment = ground.random.uniform(0, 2e9)
        os.utime(path, (moment, moment))
    child = ground.train(out, prepare=jumping)
    told(child, row, code=0)
    row.lost += ground.differences(out)
    row.runs, row.answer = 1, "nothing: durations come from the monotonic clock, order from names"
    return row


def display(ground: Ground) -> Row:
    """The X server dies under the window."""
    row = Row("display lost", "Xvfb killed while the window trains")
    if shutil.which("Xvfb") is None:
        row.skipped = "not tried: Xvfb is not installed"
        return row
    folder = ground.new_folder()
    out, state = folder / "run", folder / "state.json"
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as pipe:
        name = f":{pipe.readline().strip()}"
    arguments = ["--scene", ground.scene, "--method", ground.options.method, "--k", "2"]
    arguments += ["--downscale", "8", "--device", "cpu", "--eval-every", "never", "--out", out]
    arguments += ["--ui-state", state, "--save-every", "never"]
    environment = os.environ | {"DISPLAY": name, "LIBGL_ALWAYS_SOFTWARE": "1", "HOME": str(folder)}
    environment["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    environment.pop("WAYLAND_DISPLAY", None)
    with (folder / "window.txt").open("wb") as output:
        window = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *map(str, arguments)],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    step = 0
    try:
        end = time.monotonic() + 120
        while step < 5 and time.monotonic() < end and window.poll() is None:
            time.sleep(0.1)
            with contextlib.suppress(OSError, ValueError, KeyError):
                step = json.loads(state.read_text())["step"]
        server.kill()
        code = window.wait(60)
    finally:
        for process in (server, window):
            process.kill()
            process.wait()
    said = (folder / "window.txt").read_text(errors="replace")
    if step < 5 or code != 1 or "The display was lost; the run is saved." not in said:
        row.lost.append(f"exit code {code} at step {step}: {said[-300:]}")
    if newest(out) < step:
        row.lost.append(f"step {newest(out)} is saved, {step} was reached")
    row.runs, row.answer = 1, "saved, said so, exit code 1"
    return row
