"""Ours against gsplat's own 3DGS, on one GPU, in one run: ``python -m benchmarks.gsplat_compare``.

    python -m benchmarks.gsplat_compare --scene lego --at 5 10 15 25 40 60 --json compare.json

Every row trains a model from scratch on the same photographs from the same points, and is
measured on the same held-out ones by the same code. The clock counts training alone. Said for
each: held-out PSNR at the given seconds, the time to 30, 33 and 35 dB (interpolated between
them), steps, Gaussians, and the most GPU memory that training held.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.options import apply_settings
from app.runtime import prepare_process, resolve_device, set_threads

prepare_process()  # OpenMP and malloc settings must stand before torch is imported

import torch  # noqa: E402
import tyro  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.gsplat_baseline import Baseline  # noqa: E402
from render.errors import UserError  # noqa: E402
from render.kbuffer import gsplat_found  # noqa: E402
from render.methods import method_class  # noqa: E402
from render.methods.splatting import SplattingMethod  # noqa: E402
from render.scenes.load import load_scene  # noqa: E402
from render.scenes.photos.images import preload  # noqa: E402
from render.scenes.types import Scene  # noqa: E402
from render.training.evaluation import evaluate, house_protocol  # noqa: E402
from render.training.trainer import Trainer  # noqa: E402

LEVELS = (30.0, 33.0, 35.0)  # dB
Row = dict[str, Any]

# Column -> method and what is set for it; "gsplat" is the baseline with that strategy.
ENTRIES: dict[str, tuple[str, list[str]]] = {
    "gsplat": ("gsplat", ["strategy=default"]),
    "gsplat-mcmc": ("gsplat", ["strategy=mcmc"]),
    "gaussians": ("gaussians", ["strategy=blame"]),
    "gaussians-default": ("gaussians", ["strategy=default"]),
    "gaussians-mcmc": ("gaussians", ["strategy=mcmc"]),
    "gaussians-k": ("gaussians-k", []),
}


@dataclass(frozen=True)
class Options:
    """What to compare."""

    scene: str = "lego"
    data_root: list[Path] = field(default_factory=list)
    points: Path | None = None  # a point cloud; default: the scene's own, or the hull
    downscale: float = 1.0
    entries: list[str] = field(default_factory=lambda: list(ENTRIES))
    at: list[float] = field(default_factory=lambda: [5.0, 10, 15, 20, 25, 30, 45, 60])  # seconds
    set: list[str] = field(default_factory=list)  # options of all our methods, name=value
    cap: int = 1_000_000  # Gaussians at most, of gsplat's MCMC strategy
    low_pass: float | None = None  # px^2, of both; else gsplat's 0.3 and the default of ours
    reset: bool = False  # lower opacities where gsplat's default strategy means to, and does not
    seed: int = 0
    device: str = "cuda"
    json: Path | None = None


class Run(Protocol):
    """A model in training."""

    @property
    def model(self) -> Any:
        """What has ``render``."""
        ...

    @property
    def k(self) -> int:
        """Layers of its K-buffer, 0 if it has none."""
        ...

    @property
    def seconds(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def gaussians(self) -> int: ...
    def step(self) -> None: ...
    def finish(self) -> None:
        """Wait for the GPU, on the clock."""
        ...


class _Theirs:
    k = 0

    def __init__(self, baseline: Baseline) -> None:
        self.model = baseline
        self.step, self.finish = baseline.step, baseline.finish

    @property
    def seconds(self) -> float:
        return self.model.seconds

    @property
    def steps(self) -> int:
        return self.model.step_count

    @property
    def gaussians(self) -> int:
        return len(self.model)


class _Ours:
    def __init__(self, trainer: Trainer) -> None:
        assert isinstance(trainer.method, SplattingMethod)
        self.model, self.trainer, self.k = trainer.method, trainer, trainer.method.options.k

    def step(self) -> None:
        self.trainer.step()

    def finish(self) -> None:
        """Every step reads its loss: nothing is under way."""

    @property
    def seconds(self) -> float:
        return self.trainer.seconds

    @property
    def steps(self) -> int:
        return self.trainer.step_count

    @property
    def gaussians(self) -> int:
        return len(self.model.cloud)


def start(entry: str, scene: Scene, options: Options, device: torch.device, gsplat: Any) -> Run:
    """An untrained model of that entry.

    Raises:
        UserError: an option that is not known.
    """
    name, settings = ENTRIES[entry]
    if name == "gsplat":
        strategy = settings[0].partition("=")[2]
        more = {"cap": options.cap, "reset": options.reset, "low_pass": options.low_pass or 0.3}
        return _Theirs(Baseline(gsplat, strategy, scene, device, options.seed, **more))
    cls = method_class(name)
    blur = [] if options.low_pass is None else [f"low_pass={options.low_pass}"]
    chosen = apply_settings(cls.Options(), [*settings, *blur, *options.set], None)
    generator = torch.Generator().manual_seed(options.seed)
    return _Ours(Trainer(cls(chosen, scene, device, generator), scene, options.seed))


def train(run: Run, scene: Scene, marks: Sequence[float], device: torch.device) -> list[Row]:
    """One row a time mark: seconds, step, held-out PSNR and SSIM, Gaussians, GPU bytes."""
    protocol, views = house_protocol(scene.background), scene.split("test")
    gpu = device.type == "cuda"
    rows: list[Row] = []
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for mark in [0.0, *sorted(marks)]:
        while run.seconds < mark:
            run.step()
        run.finish()
        peak = torch.cuda.max_memory_allocated(device) if gpu else 0
        result = evaluate(run.model, views, protocol)
        if gpu:  # what evaluation takes does not count
            torch.cuda.reset_peak_memory_stats(device)
        peak = max([peak, *(row["bytes"] for row in rows)])
        rows.append(
            {
                "seconds": mark, "measured": run.seconds, "step": run.steps, "psnr": result.psnr,
                "ssim": result.ssim, "gaussians": run.gaussians, "bytes": peak,
            }
        )  # fmt: skip
        print(f"  {mark:5g} s  step {run.steps:6}  {result.psnr:.2f} dB", file=sys.stderr)
    return rows


def time_to(rows: Sequence[Row], level: float) -> float | None:
    """Seconds at which the PSNR first reached ``level``, linear between the rows; None: never."""
    before = None
    for row in rows:
        if row["psnr"] >= level:
            if before is None:
                return float(row["measured"])
            share = (level - before["psnr"]) / (row["psnr"] - before["psnr"])
            return before["measured"] + share * (row["measured"] - before["measured"])
        before = row
    return None


def table(scene: Scene, device: str, results: Sequence[Row]) -> Table:
    """What was found, one line an entry."""
    camera = scene.split("train")[0].camera
    title = f"{scene.name} {camera.width}x{camera.height} on {device}: held-out PSNR (dB)"
    out = Table(title=title)
    out.add_column("model")
    for row in results[0]["rows"]:
        out.add_column(f"{row['seconds']:g} s", justify="right")
    for name in (*(f"{level:g} dB at" for level in LEVELS), "SSIM", "steps", "Gaussians", "MiB"):
        out.add_column(name, justify="right")
    for result in results:
        rows = result["rows"]
        cells = [f"{row['psnr']:.2f}" for row in rows]
        for level in LEVELS:
            seconds = result["time_to"][f"{level:g}"]
            cells.append("-" if seconds is None else f"{seconds:.1f} s")
        last = rows[-1]
        cells += [f"{last['ssim']:.4f}", f"{last['step']:,}", f"{last['gaussians']:,}"]
        out.add_row(result["entry"], *cells, f"{last['bytes'] / 2**20:,.0f}")
    return out


def gsplat_module(options: Options, device: torch.device) -> Any:
    """gsplat, if an entry needs it.

    Raises:
        UserError: it cannot be used here.
    """
    if not any(ENTRIES[entry][0] == "gsplat" for entry in options.entries):
        return None
    if device.type != "cuda" or not gsplat_found.usable(device):
        why = gsplat_found.status(device) if device.type == "cuda" else "it needs a GPU"
        raise UserError(f"gsplat cannot be compared with: {why}; choose others with --entries.")
    return importlib.import_module("gsplat")


def main(options: Options) -> list[Row]:
    """Train all, print the table, write the file; the results."""
    for entry in options.entries:
        if entry not in ENTRIES:
            raise UserError(f"--entries {entry}: expected some of {', '.join(ENTRIES)}.")
    device = resolve_device(options.device, "gaussians")
    gsplat = gsplat_module(options, device)
    scene = load_scene(
        options.scene,
        data_roots=options.data_root,
        downscale=options.downscale,
        points=options.points,
        seed=options.seed,
        log=lambda text: print(text, file=sys.stderr),
    )
    preload(scene.views)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    results: list[Row] = []
    for entry in options.entries:
        print(entry, file=sys.stderr)
        method = ENTRIES[entry][0]
        set_threads("gaussians" if method == "gsplat" else method)
        run = start(entry, scene, options, device, gsplat)
        rows = train(run, scene, options.at, device)
        reached = {f"{level:g}": time_to(rows, level) for level in LEVELS}
        settings = [*ENTRIES[entry][1], *(options.set if method != "gsplat" else [])]
        results.append(
            {
                "entry": entry, "method": method, "k": run.k, "set": settings, "rows": rows,
                "time_to": reached,
            }
        )  # fmt: skip
        del run
        if device.type == "cuda":
            torch.cuda.empty_cache()
    Console().print(table(scene, name, results))
    if options.json is not None:
        found = {"scene": scene.name, "device": name, "results": results}
        options.json.write_text(json.dumps(found, indent=1))
    return results


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        sys.exit(f"error: {error}")
