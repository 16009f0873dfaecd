"""Held-out PSNR against training wall clock, for methods and K.

    python -m benchmarks.time_to_quality --scene lego --methods kbuffer bpcr frepcr --k 1 2 4 8

Every row trains a model of its own, from scratch; the clock counts training steps only (loading,
building and evaluation excluded), as ``metrics.csv`` does. ``--view-k`` adds what a finished
model shows when fewer of its layers are looked at, without retraining, and, for ``kbuffer``, what
all contributions give. The table goes to the terminal and with ``--json`` to a file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.options import apply_settings
from app.runtime import prepare_process, set_threads

prepare_process()  # OpenMP and malloc settings must stand before torch is imported

import torch  # noqa: E402
import tyro  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from render.errors import UserError  # noqa: E402
from render.methods import method_class  # noqa: E402
from render.methods.base import Method  # noqa: E402
from render.methods.kbuffer import KBufferMethod  # noqa: E402
from render.scenes.load import load_scene  # noqa: E402
from render.scenes.photos.images import preload  # noqa: E402
from render.scenes.types import Scene  # noqa: E402
from render.training.evaluation import evaluate, house_protocol  # noqa: E402
from render.training.trainer import Trainer  # noqa: E402


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str = "lego"
    data_root: list[Path] = field(default_factory=list)
    points: Path | None = None  # a point cloud; default: the scene's own, or the hull
    downscale: float = 1.0
    methods: list[str] = field(default_factory=lambda: ["kbuffer"])
    k: list[int] = field(default_factory=lambda: [8])  # one model is trained for each
    at: list[float] = field(default_factory=lambda: [15.0, 30.0, 60.0, 120.0, 300.0])  # seconds
    view_k: list[int] = field(default_factory=list)  # layers looked at, with the last K's model
    set: list[str] = field(default_factory=list)  # method options, name=value
    seed: int = 0
    json: Path | None = None


def train(method: Method, scene: Scene, options: Options) -> list[dict[str, Any]]:
    """One row a time mark: seconds, step, held-out PSNR and SSIM."""
    trainer = Trainer(method, scene, options.seed)
    protocol = house_protocol(scene.background)
    rows = []
    for mark in [0.0, *sorted(options.at)]:
        while trainer.seconds < mark:
            trainer.step()
        result = evaluate(method, scene.split("test"), protocol)
        rows.append(
            {
                "seconds": mark,
                "step": trainer.step_count,
                "psnr": result.psnr,
                "ssim": result.ssim,
            }
        )
        print(
            f"{method.name} K={method.options.k}: {mark:5.0f} s, step {trainer.step_count}, "
            f"{result.psnr:.2f} dB, SSIM {result.ssim:.4f}",
            file=sys.stderr,
        )
    return rows


def view_layers(method: Method, scene: Scene, ks: list[int]) -> dict[str, float]:
    """Held-out PSNR of one model with fewer layers, and with all contributions."""
    protocol = house_protocol(scene.background)
    views = scene.split("test")
    out = {str(k): evaluate(method, views, protocol, k=k).psnr for k in ks}
    if isinstance(method, KBufferMethod):
        background = scene.background.color()
        scores = []
        for view in views:
            image = method.render_all(view.camera, background).rgb
            mse = float((image - view.target(background)).square().mean())
            scores.append(-10 * torch.log10(torch.tensor(mse)).item())
        out["all"] = sum(scores) / len(scores)
    return out


def _title(scene: Scene) -> str:
    camera = scene.split("train")[0].camera
    points = scene.points.source if scene.points else "no points"
    return f"{scene.name}, {camera.width}x{camera.height}, {points}"


def main(options: Options) -> None:
    scene = load_scene(
        options.scene,
        data_roots=options.data_root,
        downscale=options.downscale,
        points=options.points,
        seed=options.seed,
        log=lambda text: print(text, file=sys.stderr),
    )
    preload(scene.views)
    results = []
    table = Table(title=f"Held-out PSNR (dB) of {scene.name} at training seconds")
    table.add_column("method")
    for mark in [0.0, *sorted(options.at)]:
        table.add_column(f"{mark:g} s", justify="right")
    table.add_column("steps", justify="right")
    for name in options.methods:
        set_threads(name)
        for k in options.k:
            cls = method_class(name)
            chosen = apply_settings(cls.Options(), options.set, k)
            generator = torch.Generator().manual_seed(options.seed)
            method = cls(chosen, scene, torch.device("cpu"), generator)
            rows = train(method, scene, options)
            results.append({"method": name, "k": k, "set": options.set, "rows": rows})
            values = [f"{row['psnr']:.2f}" for row in rows]
            table.add_row(f"{name} K={k}", *values, str(rows[-1]["step"]))
            if options.view_k and k == options.k[-1]:
                seen = view_layers(method, scene, options.view_k)
                results[-1]["view_k"] = seen
                text = "  ".join(f"K={key}: {value:.2f}" for key, value in seen.items())
                table.caption = f"{table.caption or ''}{name} K={k} looked at with {text}\n"
    Console().print(table)
    if options.json is not None:
        options.json.write_text(
            json.dumps({"scene": scene.name, "title": _title(scene), "results": results}, indent=1)
        )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        sys.exit(f"error: {error}")
