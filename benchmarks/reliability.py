"""Faults, provoked for real: what does a run lose?

    python -m benchmarks.reliability --kills 50 --out docs/reliability-table.md
    python -m benchmarks.reliability --faults nan vanish

Trains a small model on the bundled scene, once undisturbed and then under every fault. After a
fault the run is continued with ``--resume``, and at its end the evaluation and every number of the
last checkpoint must be those of the undisturbed run, bit by bit. Linux; mounting small disks
needs root and is left out, in words, without. Exit code 1 when anything was lost.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.runtime import core_count, prepare_process

prepare_process()

import torch  # noqa: E402
import tyro  # noqa: E402

from benchmarks import children, faults  # noqa: E402
from benchmarks.children import Child  # noqa: E402
from benchmarks.faultrow import Row  # noqa: E402
from render.scenes.lookup import BUNDLED  # noqa: E402
from render.training.checkpoint import load_latest  # noqa: E402
from render.training.runfolder import is_run  # noqa: E402


@dataclass(frozen=True)
class Options:
    """What is provoked, and how often."""

    faults: list[str] = field(default_factory=list)  # default: all
    kills: int = 50
    steps: int = 60
    save_every: int = 3  # steps
    memory: list[int] = field(default_factory=lambda: [8, 16, 32, 64, 128])  # MB
    method: str = "kbuffer"
    seed: int = 0
    out: Path | None = None  # the table as Markdown
    json: Path | None = None
    keep: Path | None = None  # a folder for all runs; default: thrown away


class Ground:
    """A folder with a scene, the undisturbed run, and runs that are disturbed."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self.options = folder, options
        self.random = random.Random(options.seed)
        self.scene = folder / "lego"
        shutil.copytree(BUNDLED / "lego", self.scene)
        self.count = 0
        start = time.monotonic()
        self.reference = self.new_folder() / "run"
        child = self.train(self.reference)
        if child.wait() != 0:
            raise SystemExit(f"the undisturbed run failed:\n{child.said()}")
        self.seconds = time.monotonic() - start

    def new_folder(self) -> Path:
        """For one disturbed run and its output."""
        self.count += 1
        folder = self.folder / f"{self.count:03d}"
        folder.mkdir()
        return folder

    def train(self, out: Path, *more: str, prepare: Callable[[], object] = lambda: None) -> Child:
        """Begin the run ``out``, or go on with it; its output lies beside it."""
        options = self.options
        if is_run(out):
            arguments = ["--resume", str(out)]
        else:
            shutil.rmtree(out, ignore_errors=True)
            arguments = ["--scene", str(self.scene), "--method", options.method, "--k", "2"]
            arguments += ["--downscale", "8", "--steps", str(options.steps), "--out", str(out)]
            arguments += ["--device", "cpu", "--eval-every", "never"]
            arguments += ["--save-every", str(options.save_every)]
        return children.start(["--headless", *arguments, *more], out.parent, prepare)

    def finish(self, out: Path, row: Row) -> None:
        """Let the run come to its end, and compare."""
        child = self.train(out)
        if child.wait() != 0:
            row.lost.append(f"did not go on: {child.said()[-300:]}")
            return
        row.lost += self.differences(out)

    def differences(self, out: Path) -> list[str]:
        """What is not as in the undisturbed run, in words."""
        found = []
        ours, theirs = (
            json.loads((run / "eval.json").read_text()) for run in (out, self.reference)
        )
        for data in (ours, theirs):
            del data["seconds"]
        if ours != theirs:
            found.append(f"PSNR {ours['psnr']} instead of {theirs['psnr']}")
        states = [load_latest(run / "checkpoints", print)[1] for run in (out, self.reference)]
        for state in states:
            del state["trainer"]["seconds"]
        if not same(states[0]["trainer"], states[1]["trainer"]):
            found.append("numbers of the last checkpoint differ")
        steps = [int(line.split(",")[0]) for line in _lines(out / "metrics.csv")]
        if steps != sorted(set(steps)):
            found.append("metrics.csv is out of order")
        return found


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return repr(a) == repr(b)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:] if path.exists() else []


def table(rows: list[Row], options: Options, ground: Ground) -> str:
    """Markdown."""
    lines = [
        f"Measured {time.strftime('%Y-%m-%d')} on {core_count()} cores of {processor()}, Linux, "
        f"Python {platform.python_version()}, torch {torch.__version__}: `--method "
        f"{options.method}`, K = 2, {options.steps} steps on the bundled scene, a checkpoint every "
        f"{options.save_every} steps, one undisturbed run {ground.seconds:.1f} s.",
        "",
        "| fault | how it was provoked | runs | what the program did | lost |",
        "|---|---|---:|---|---|",
    ]
    for row in rows:
        lost = row.skipped or "; ".join(row.lost).replace("\n", " ") or "0"
        lines.append(f"| {row.fault} | {row.provoked} | {row.runs} | {row.answer} | {lost} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.machine()


def main(options: Options) -> int:
    if not hasattr(os, "fork"):
        raise SystemExit("this benchmark forks: it needs Linux")
    chosen = options.faults or list(faults.FAULTS)
    unknown = set(chosen) - set(faults.FAULTS)
    if unknown:
        raise SystemExit(f"unknown faults {unknown}; expected some of {list(faults.FAULTS)}")
    children.warm_up()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="reliability-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    try:
        ground = Ground(folder.resolve(), options)
        for name in chosen:
            start = time.monotonic()
            try:
                row = faults.FAULTS[name](ground)
            except (AssertionError, TimeoutError, OSError, subprocess.SubprocessError) as error:
                row = Row(name, "", lost=[f"{type(error).__name__}: {error}"])
            rows.append(row)
            told = row.skipped or "; ".join(row.lost) or "nothing lost"
            print(f"{name}: {row.runs} runs, {time.monotonic() - start:.0f} s, {told}", flush=True)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    text = table(rows, options, ground)
    print(text)
    if options.out is not None:
        options.out.write_text(text)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
