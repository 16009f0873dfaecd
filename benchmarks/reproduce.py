"""One command, one table: scenes x methods x K, with published numbers beside ours.

    python -m benchmarks.reproduce                                     # the bundled scene, 30 s
    python -m benchmarks.reproduce --dataset nerf-synthetic --data-root DIR --seconds 600
    python -m benchmarks.reproduce --commands                          # for every paper's scenes

Every cell is a run of ``main.py`` of its own, measured under each protocol by ``--eval``. A cell
that is done is not run again, one that was interrupted goes on, one that fails leaves a sentence
in its line. Written to ``--out``: table.md, table.csv, table.json and, where matplotlib is
installed, curves.png.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from app.evaluate import eval_name
from render.training.runfolder import RunFolder, is_run

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = Path(__file__).with_name("published.json")
SYNTHETIC = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
DATASETS: dict[str, tuple[str, ...]] = {
    "nerf-synthetic": SYNTHETIC,
    "dtu": ("scan110", "scan114", "scan118"),
    "scannet": ("scene0000_00", "scene0043_00", "scene0045_00"),
}
COLUMNS: tuple[str, ...] = (
    "scene", "method", "k", "protocol", "psnr", "ssim", "lpips", "steps", "seconds",
    "published", "published_psnr", "ahead", "differences", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What is trained, for how long, and how it is measured."""

    scenes: list[str] = field(default_factory=list)  # default: those of --dataset, or lego
    dataset: Literal["none", "nerf-synthetic", "dtu", "scannet"] = "none"
    data_root: list[Path] = field(default_factory=list)
    methods: list[str] = field(default_factory=lambda: ["kbuffer"])
    k: list[int] = field(default_factory=lambda: [8])
    steps: int | None = None
    seconds: float | None = None  # default: 30, unless steps are given
    downscale: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    protocols: list[str] = field(default_factory=lambda: ["house"])
    set: list[str] = field(default_factory=list)  # method options, name=value
    out: Path = Path("runs/reproduce")
    commands: bool = False  # print the commands for the papers' scenes, and end


@dataclass(frozen=True)
class Cell:
    """One model to train."""

    scene: str
    method: str
    k: int
    arguments: tuple[str, ...]  # all others of main.py that decide the result
    budget: str

    @property
    def name(self) -> str:
        """Of its folder: other arguments are another cell."""
        others = "".join(f"_{text.lstrip('-')}" for text in self.arguments)
        name = f"{Path(self.scene).name}_{self.method}_k{self.k}_{self.budget}{others}"
        return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)[:150]


def cells(options: Options) -> Iterator[Cell]:
    """The cells of the table, in its order."""
    scenes = options.scenes or list(DATASETS.get(options.dataset, ("lego",)))
    arguments = ["--downscale", f"{options.downscale:g}", "--seed", str(options.seed)]
    arguments += ["--device", options.device]
    for setting in options.set:
        arguments += ["--set", setting]
    if options.steps is not None:
        budget = f"{options.steps}steps"
    else:
        budget = f"{30.0 if options.seconds is None else options.seconds:g}s"
    for scene in scenes:
        for method in options.methods:
            for k in options.k:
                yield Cell(scene, method, k, tuple(arguments), budget)


def train(cell: Cell, options: Options) -> str | None:
    """Train the cell to its budget; why that failed, if so."""
    folder = options.out.resolve() / "cells" / cell.name
    run = folder / "run"
    if (folder / "done").is_file():
        return None
    roots = [text for root in options.data_root for text in ("--data-root", str(root))]
    if is_run(run):
        arguments = ["--resume", str(run)]
    else:
        if run.exists():  # ended before its first checkpoint
            shutil.rmtree(run)
        arguments = ["--scene", cell.scene, "--method", cell.method, "--k", str(cell.k)]
        arguments += [*cell.arguments, *roots, "--out", str(run)]
        if cell.budget.endswith("steps"):
            arguments += ["--steps", cell.budget.removesuffix("steps")]
        else:
            arguments += ["--seconds", cell.budget.removesuffix("s")]
    problem = _main(["--headless", *arguments], folder)
    if problem is None:
        (folder / "done").touch()
    return problem


def measure(cell: Cell, protocol: str, options: Options) -> dict[str, Any] | str:
    """The numbers of a trained cell, or why there are none."""
    run = options.out.resolve() / "cells" / cell.name / "run"
    path = run / eval_name(protocol)
    if not path.is_file():
        problem = _main(["--eval", str(run), "--protocol", protocol], run.parent)
        if problem is not None:
            return problem
    return json.loads(path.read_text())


def _main(arguments: Sequence[str], folder: Path) -> str | None:
    """Run main.py; its sentence where it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments], capture_output=True, text=True
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return lines[-1].removeprefix("Error: ") if lines else f"exit code {done.returncode}"


# ---------------------------------------------------------------------------- the table
def rows_of(cell: Cell, options: Options, published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a cell: one for each protocol and published number of that scene."""
    start: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    start |= {"scene": Path(cell.scene).name, "method": cell.method, "k": cell.k}
    problem = train(cell, options)
    if problem is not None:
        return [start | {"error": problem}]
    rows = []
    for protocol in options.protocols:
        row = start | {"protocol": protocol}
        data = measure(cell, protocol, options)
        if isinstance(data, str):
            rows.append(row | {"error": data})
            continue
        row |= {name: data[name] for name in ("psnr", "ssim", "lpips", "seconds")}
        row |= {"steps": data["step"]}
        stored = data["protocol"]
        ours = f"ours: {stored['views']} views of {', '.join(stored['sizes'])}, {cell.budget}"
        rows += beside(row, [*stored.get("departures", ()), ours], options, published)
    return rows


def beside(
    row: dict[str, Any],
    differences: list[str],
    options: Options,
    published: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """``row`` beside each published number that it belongs to; as it is where there is none."""
    rows = []
    for other in published:
        if not _belongs(other, row, options):
            continue
        told = [*differences, *filter(None, [other.get("note")])]
        rows.append(
            row
            | {
                "published": f"{other['label']} [{other['source']}]",
                "published_psnr": other["psnr"],
                "ahead": "" if row["psnr"] is None else row["psnr"] - other["psnr"],
                "differences": "; ".join(told),
            }
        )
    return rows or [row]


def averages(
    rows: list[dict[str, Any]], options: Options, published: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Means over the scenes, where every one of several scenes has been measured."""
    scenes = {Path(cell.scene).name for cell in cells(options)}
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if not row["error"]:
            key = row["method"], row["k"], row["protocol"]
            groups.setdefault(key, {})[row["scene"]] = row
    found = []
    for (method, k, protocol), by_scene in groups.items():
        if len(scenes) < 2 or by_scene.keys() != scenes:
            continue
        mean: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        mean |= {"scene": "average", "method": method, "k": k, "protocol": protocol}
        for name in ("psnr", "ssim", "lpips", "steps", "seconds"):
            values = [row[name] for row in by_scene.values()]
            mean[name] = None if None in values else sum(values) / len(values)
        told = [f"ours: mean of {len(scenes)} scenes, see their lines"]
        found += beside(mean, told, options, published)
    return found


def _belongs(published: dict[str, Any], row: dict[str, Any], options: Options) -> bool:
    """Whether a published number is of this scene, protocol and method (or of none of ours)."""
    if row["scene"] == "average" and published["dataset"] != options.dataset:
        return False
    return (
        published["scene"] == row["scene"].lower()
        and published["protocol"] == row["protocol"]
        and published["method"] in ("", row["method"])
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    head = "scene | method | K | protocol | PSNR | SSIM | LPIPS | steps | seconds | published | "
    lines = [f"| {head}ours - published | difference in protocol |", "|" + "---|" * 12]
    for row in rows:
        if row["error"]:
            cells = [row["scene"], row["method"], row["k"], row["protocol"] or "-"]
            cells += [f"failed: {row['error']}", *[""] * 7]
        else:
            cells = [row["scene"], row["method"], row["k"], row["protocol"]]
            cells += [_number(row["psnr"], ".2f"), _number(row["ssim"], ".4f")]
            cells += [_number(row["lpips"], ".4f"), _number(row["steps"], ".0f")]
            cells += [_number(row["seconds"], ".0f")]
            number = _number(row["published_psnr"], ".2f")
            cells += [f"{number} {row['published']}" if row["published"] else "-"]
            cells += [_number(row["ahead"], "+.2f"), row["differences"]]
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: Any, form: str) -> str:
    return f"{value:{form}}" if isinstance(value, (int, float)) and math.isfinite(value) else "-"


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """table.md, table.csv and table.json."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(markdown(rows))
    (out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def draw(options: Options) -> Path | None:
    """Held-out PSNR over training seconds, a line a cell; None without matplotlib or numbers."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")  # no window
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for cell in cells(options):
        run = RunFolder(options.out / "cells" / cell.name / "run")
        points = [(r.seconds, r.test_psnr) for r in run.metrics() if r.test_psnr is not None]
        if points:
            label = f"{Path(cell.scene).name}, {cell.method} K={cell.k}"
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
    if not panel.lines:
        return None
    panel.set(xlabel="seconds of training", ylabel="held-out PSNR (dB)")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize="small")
    figure.savefig(options.out / "curves.png", dpi=130)
    pyplot.close(figure)
    return options.out / "curves.png"


def commands() -> str:
    """What to type for the scenes of the papers."""
    lines = []
    for dataset, protocol in (
        ("nerf-synthetic", "house 3dgs kbuffers-npf kbuffers-gs point-radiance"),
        ("dtu", "house kbuffers-npf kbuffers-gs npbgpp"),
        ("scannet", "house kbuffers-npf kbuffers-gs npbgpp"),
    ):
        lines.append(f"# {', '.join(DATASETS[dataset])}")
        lines.append(
            f"python -m benchmarks.reproduce --dataset {dataset} --data-root DIR --out "
            f"runs/{dataset} --methods kbuffer bpcr frepcr gaussians gaussians-k --k 1 8 "
            f"--seconds 600 --protocols {protocol}"
        )
    return "\n".join(lines) + "\n"


def main(options: Options) -> int:
    """The exit code: 1 when a cell failed."""
    if options.commands:
        print(commands(), end="")
        return 0
    published = json.loads(PUBLISHED.read_text())
    rows: list[dict[str, Any]] = []
    for cell in cells(options):
        print(f"{cell.name} ...", file=sys.stderr, flush=True)
        rows += rows_of(cell, options, published)
        write(rows, options.out)  # whatever comes next, this much is there
    rows += averages(rows, options, published)
    write(rows, options.out)
    drawn = draw(options)
    print(markdown(rows), end="")
    print(f"Written to {options.out}{'' if drawn is None else ', with ' + drawn.name}.")
    return 1 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
