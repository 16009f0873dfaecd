"""Wrong masks and what they cost: ``point-radiance`` with and without pretraining.

    python -m benchmarks.corruption --scene lego --downscale 8 --out runs/corruption

The masks that the hull is carved from are made wrong by each amount (``pc_jitter_amount``), the
share of the views that must agree on a point is relaxed (``filter_consistency_ratio``), and every
pair is trained twice: as it is, and after the stages ``pos_first`` and ``sh_alone``. Photographs
stay clean, as in the study by which the extension was presented. All rows train the same number
of steps: without pretraining the last stage is longer. Every row is kept in OUT.json as soon as it
is there, and a run that was broken off goes on from it. OUT.png is the plot.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import tyro

from app.options import apply_settings
from app.runtime import prepare_process, set_threads

prepare_process()  # OpenMP and malloc settings must stand before torch is imported
matplotlib.use("Agg")  # no window

import torch  # noqa: E402
from matplotlib import pyplot  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from render.errors import UserError  # noqa: E402
from render.files import atomic_text  # noqa: E402
from render.methods.point_radiance import (  # noqa: E402
    PointRadianceMethod,
    PointRadianceOptions,
)
from render.scenes.load import load_scene  # noqa: E402
from render.scenes.photos.images import preload  # noqa: E402
from render.scenes.types import Scene  # noqa: E402
from render.training.evaluation import evaluate, house_protocol  # noqa: E402
from render.training.trainer import Trainer  # noqa: E402

COLORS = {False: "#d55e00", True: "#0072b2"}  # Okabe and Ito
LABELS = {False: "as they are", True: "positions, then colours first"}
KEY = ("jitter", "consistency", "pretrained", "seed")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str = "lego"
    data_root: list[Path] = field(default_factory=list)
    downscale: float = 8.0
    jitter: list[float] = field(default_factory=lambda: [0.0, 0.04, 0.08, 0.12, 0.2])
    consistency: list[float] = field(default_factory=lambda: [1.0, 0.9, 0.8])
    epoch: int = 40  # steps; stages have 60 epochs, and pretraining 17
    ridge: float = 0.05  # weight of the mean squared position in the first stage
    set: list[str] = field(default_factory=list)  # more method options, name=value
    seeds: list[int] = field(default_factory=lambda: [0])
    out: Path = Path("runs/corruption")


def method_options(
    options: Options, jitter: float, consistency: float, pretrained: bool
) -> PointRadianceOptions:
    """Of one row; those without pretraining have its epochs at the end."""
    o = apply_settings(PointRadianceOptions(epoch=options.epoch, start="hull"), options.set, None)
    o = replace(o, pc_jitter_amount=jitter, filter_consistency_ratio=consistency)
    if pretrained:
        return replace(o, pos_first=True, sh_alone=True, ridge_position=options.ridge)
    return replace(o, last_epochs=o.pos_epochs + o.sh_alone_epochs)


def measure(
    options: Options, scene: Scene, jitter: float, consistency: float, pretrained: bool, seed: int
) -> dict[str, Any]:
    """One row: quality, size, times; without them and with a sentence where the hull is empty."""
    row: dict[str, Any] = dict(zip(KEY, (jitter, consistency, pretrained, seed), strict=True))
    chosen = method_options(options, jitter, consistency, pretrained)
    start = time.process_time()
    try:
        generator = torch.Generator().manual_seed(seed)
        method = PointRadianceMethod(chosen, scene, torch.device("cpu"), generator)
        row |= {"points": len(method.points)}
        trainer = Trainer(method, scene, seed)
        last = method.plan()[-1]
        for _ in range(last.first + last.steps):
            trainer.step()
    except UserError as error:
        return row | {"psnr": None, "why": str(error)}
    result = evaluate(method, scene.split("test"), house_protocol(scene.background))
    return row | {
        "psnr": result.psnr,
        "ssim": result.ssim,
        "points_at_end": len(method.points),
        "megabytes": method.points.size() / 1e6,
        "steps": trainer.step_count,
        "seconds": trainer.seconds,
        "cpu_seconds": time.process_time() - start,
    }


def mean_psnr(
    rows: list[dict[str, Any]], jitter: float, consistency: float, pretrained: bool
) -> float | None:
    """Mean over the seeds; None where any hull was empty or nothing was measured."""
    wanted = (jitter, consistency, pretrained)
    found = [row["psnr"] for row in rows if tuple(row[key] for key in KEY[:3]) == wanted]
    return None if not found or None in found else sum(found) / len(found)


def table(rows: list[dict[str, Any]], options: Options, title: str) -> Table:
    """Held-out PSNR by amount and consistency, without and with pretraining, and the gain."""
    out = Table(title=title)
    out.add_column("masks wrong by")
    for consistency in options.consistency:
        for name in (f"{consistency:g} as is", "first", "gain"):
            out.add_column(name, justify="right")
    for jitter in options.jitter:
        cells = []
        for consistency in options.consistency:
            plain, first = (mean_psnr(rows, jitter, consistency, p) for p in (False, True))
            gain = "" if plain is None or first is None else f"{first - plain:+.2f}"
            cells += ["empty" if p is None else f"{p:.2f}" for p in (plain, first)] + [gain]
        out.add_row(f"{jitter:.0%}", *cells)
    return out


def plot(rows: list[dict[str, Any]], options: Options, title: str, path: Path) -> None:
    """One panel a consistency; empty hulls are crosses on the lower edge."""
    count = len(options.consistency)
    figure, panels = pyplot.subplots(
        1, count, figsize=(4.2 * count, 4.0), squeeze=False, sharey=True, layout="constrained"
    )
    for panel, consistency in zip(panels[0], options.consistency, strict=True):
        for pretrained in (False, True):
            values = [mean_psnr(rows, j, consistency, pretrained) for j in options.jitter]
            points = [(100 * j, v) for j, v in zip(options.jitter, values, strict=True)]
            there = [(j, v) for j, v in points if v is not None]
            color, label = COLORS[pretrained], LABELS[pretrained]
            panel.plot(*zip(*there, strict=True) if there else ([], []), "o-", color=color,
                       markersize=4, label=label)  # fmt: skip
            empty = [j for j, v in points if v is None]
            panel.plot(empty, [0.02] * len(empty), "x", color="0.4",
                       transform=panel.get_xaxis_transform())  # fmt: skip
        panel.set(title=f"{consistency:.0%} of the views must agree", xlabel="masks wrong by (%)")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("held-out PSNR (dB)")
    panels[0][0].legend(frameon=False, fontsize="small", loc="lower left")
    figure.suptitle(f"{title}  (x: empty hull)", fontsize="medium")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(options: Options) -> None:
    scene = load_scene(
        options.scene,
        data_roots=options.data_root,
        downscale=options.downscale,
        log=lambda text: print(text, file=sys.stderr),
    )
    preload(scene.views)
    set_threads(PointRadianceMethod.name)
    data, picture = (options.out.with_suffix(suffix) for suffix in (".json", ".png"))
    data.parent.mkdir(parents=True, exist_ok=True)
    camera = scene.split("train")[0].camera
    title = f"{scene.name}, {camera.width}x{camera.height}, epochs of {options.epoch} steps"
    rows: list[dict[str, Any]] = []
    if data.is_file():
        saved = json.loads(data.read_text())
        if saved["title"] != title or saved["set"] != options.set:
            sys.exit(f"error: {data} is of another study ({saved['title']}); choose another --out.")
        rows = saved["rows"]
    done = {tuple(row[key] for key in KEY) for row in rows}
    wanted = [
        (jitter, consistency, pretrained, seed)
        for seed in options.seeds
        for jitter in options.jitter
        for consistency in options.consistency
        for pretrained in (False, True)
    ]
    for place in wanted:
        if place in done:
            continue
        row = measure(options, scene, *place)
        rows.append(row)
        text = json.dumps({"title": title, "set": options.set, "rows": rows}, indent=1)
        atomic_text(data, text)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    Console().print(table(rows, options, f"Held-out PSNR (dB) of {title}"))
    plot(rows, options, title, picture)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        sys.exit(f"error: {error}")
