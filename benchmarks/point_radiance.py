"""``point-radiance`` as we do it beside as its authors did it, each under its own protocol.

    python -m benchmarks.point_radiance --scene DATA/nerf_synthetic/hotdog

Published (one A100, hotdog, 400x400 on black): 34.70 dB in 148.59 s, 120 fps, 7.32 MB. That mean
is over 23 pictures, numbers 115 to 137 of all training, validation and test views in a row: with
the layout of NeRF-Synthetic these are validation views 15 to 37. Both methods are measured on them
(where the scene has them) and on the whole test split; fps are whole pictures with their depth.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from app.options import apply_settings
from app.runtime import prepare_process, resolve_device, set_threads

prepare_process()  # OpenMP and malloc settings must stand before torch is imported

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from render.errors import UserError  # noqa: E402
from render.methods import method_class  # noqa: E402
from render.methods.base import Method  # noqa: E402
from render.methods.point_radiance import PointRadianceMethod  # noqa: E402
from render.scenes.background import Background, BackgroundKind  # noqa: E402
from render.scenes.load import load_scene  # noqa: E402
from render.scenes.photos.images import preload  # noqa: E402
from render.scenes.types import Scene, View  # noqa: E402
from render.training.evaluation import evaluate, house_protocol  # noqa: E402
from render.training.trainer import Trainer  # noqa: E402

PUBLISHED = range(115, 138)
ROWS: tuple[tuple[str, BackgroundKind], ...] = (
    ("point-radiance", "white"),
    ("point-radiance-faithful", "black"),
)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str = "lego"
    data_root: list[Path] = field(default_factory=list)
    downscale: float = 2.0
    seconds: float | None = None  # of training; None: all stages
    device: Literal["auto", "cpu", "cuda"] = "auto"
    set: list[str] = field(default_factory=list)  # options of both, name=value
    seed: int = 0
    json: Path | None = None


def published_views(scene: Scene) -> list[View]:
    """The views that the published number is the mean of; empty where the scene is smaller."""
    rows = [*scene.split("train"), *scene.split("val"), *scene.split("test")]
    return rows[PUBLISHED.start : PUBLISHED.stop] if len(rows) >= PUBLISHED.stop else []


def pictures_per_second(method: Method, views: list[View]) -> float:
    """Of up to 20 views, after one to warm up."""
    background = torch.ones(3)
    start, cuda = 0.0, method.device.type == "cuda"
    views = views[:20]
    for i, view in enumerate([views[0], *views]):
        if i == 1:
            start = time.perf_counter()
        method.render(view.camera, background)
        if cuda:
            torch.cuda.synchronize(method.device)
    return len(views) / (time.perf_counter() - start)


def measure(name: str, background: BackgroundKind, options: Options) -> dict[str, Any]:
    """Train one of them and say how good, large and fast it is."""
    scene = load_scene(
        options.scene,
        data_roots=options.data_root,
        downscale=options.downscale,
        background=Background(background),
        log=lambda text: print(text, file=sys.stderr),
    )
    preload(scene.views)
    set_threads(name)
    cls = method_class(name)
    chosen = apply_settings(cls.Options(), options.set, None)
    device = resolve_device(options.device, name)
    generator = torch.Generator().manual_seed(options.seed)
    method = cls(chosen, scene, device, generator)
    assert isinstance(method, PointRadianceMethod)
    trainer = Trainer(method, scene, options.seed)
    last = method.plan()[-1]
    cpu = time.process_time()
    while trainer.step_count < last.first + last.steps:
        if options.seconds is not None and trainer.seconds >= options.seconds:
            break
        trainer.step()
    cpu = time.process_time() - cpu
    protocol, published = house_protocol(scene.background), published_views(scene)
    camera = scene.split("train")[0].camera
    return {
        "method": name,
        "size": f"{camera.width}x{camera.height}",
        "background": background,
        "test psnr": evaluate(method, scene.split("test"), protocol).psnr,
        "views 115-137 psnr": evaluate(method, published, protocol).psnr if published else None,
        "steps": trainer.step_count,
        "seconds": trainer.seconds,
        "cpu seconds": cpu,
        "pictures/s": pictures_per_second(method, scene.split("test")),
        "points": len(method.points),
        "MB": method.points.size() / 1e6,
        "device": str(device),
    }


def main(options: Options) -> None:
    rows = [measure(name, background, options) for name, background in ROWS]
    table = Table(title=f"{options.scene}; published for hotdog: 34.70 dB, 149 s, 120 fps, 7.32 MB")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=200).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"scene": options.scene, "rows": rows}, indent=1))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        sys.exit(f"error: {error}")
