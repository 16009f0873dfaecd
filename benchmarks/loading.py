"""From the start of the program to the first training steps: time and memory, ours and others'.

    python -m benchmarks.loading
    python -m benchmarks.loading --images 300 --rounds 3 --folder /tmp/photographs

Each way runs in a process of its own on the same generated JPEG photographs of 1 MP, with the same
points, method and steps; only how photographs get to a step differs. The others are modelled here
by what their loaders do, because those programs are no dependencies:

- ``PIL loop``: every photograph decoded one after the other into float32 before the first step.
- ``cache all, 2 threads``: nerfstudio's FullImageDatamanager as it comes: all photographs, training
  and held out, decoded into float32 by two threads before the first step.
- ``DataLoader, 4 workers``: gsplat's example trainer: each photograph is decoded by imageio in one
  of four worker processes whenever it is drawn, and nothing is kept.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

BEGIN = time.perf_counter()
ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1200, 834  # 1.0 MP
WAYS = ("ours", "ours, 0.2 GB", "PIL loop", "cache all, 2 threads", "DataLoader, 4 workers")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    images: int = 300
    rounds: int = 3  # of every way, in turn
    steps: int = 40  # the time of the first and of all of them is measured
    without_points: bool = False  # no points beside the scene: random ones, coloured by the views
    folder: Path | None = None  # the photographs, kept; default: thrown away
    way: str | None = None  # only this one, in this process; prints JSON


def write_scene(folder: Path, count: int, points: bool) -> Path:
    """A transforms.json with noisy pictures that pack like photographs, about 340 KB each."""
    from PIL import Image
    from scipy import ndimage

    from render.camera import Camera

    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    base = np.zeros((HEIGHT, WIDTH, 3))
    for width, strength in ((1, 20), (4, 80), (16, 480), (64, 3200)):
        noise = rng.normal(size=base.shape)
        base += strength * ndimage.gaussian_filter(noise, (width, width, 0))
    base = (base - base.min()) / (base.max() - base.min()) * 255
    frames = []
    for i in range(count):
        path = folder / "images" / f"{i:04d}.jpg"
        if not path.is_file():
            grain = rng.normal(size=(HEIGHT, WIDTH, 1)) * 3
            pixels = np.roll(base, (7 * i, 13 * i), (0, 1)) + grain
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=92)
        turn = 2 * np.pi * i / count
        camera = Camera.look_at((4 * np.cos(turn), 4 * np.sin(turn), 1.0), (0.0, 0.0, 0.0))
        frames.append(
            {"file_path": f"images/{path.name}", "transform_matrix": camera.to_opengl().tolist()}
        )
    text = json.dumps({"camera_angle_x": 0.9, "frames": frames})
    (folder / "transforms.json").write_text(text)
    cloud = folder / "points.ply"
    cloud.unlink(missing_ok=True)
    if points:
        from plyfile import PlyData, PlyElement

        names = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1")]
        rows = np.zeros(60_000, [*names, ("blue", "u1")])
        for name in "xyz":
            rows[name] = rng.normal(size=len(rows)) * 0.5
        PlyData([PlyElement.describe(rows, "vertex")]).write(str(cloud))
    return folder


# ---------------------------------------------------------------------------- one way
def run_way(options: Options) -> dict[str, float]:
    """Load, train, and say how long it took since this process began."""
    assert options.folder is not None and options.way in WAYS
    import torch

    from app.runtime import import_ahead, set_threads
    from render.methods import method_class
    from render.scenes.load import load_scene
    from render.training.trainer import Trainer

    set_threads("kbuffer")
    if options.way.startswith("ours"):
        import_ahead()
    imported = time.perf_counter()
    memory = 200_000_000 if options.way == "ours, 0.2 GB" else None
    scene = load_scene(options.folder, image_memory=memory)
    if options.way in ("PIL loop", "cache all, 2 threads"):
        _replace_loading(options.way, scene)
    cls = method_class("kbuffer")
    method = cls(cls.Options(), scene, torch.device("cpu"), torch.Generator().manual_seed(0))
    trainer = Trainer(method, scene, 0)
    if options.way.startswith("DataLoader"):
        _feed_by_workers(trainer)
    trainer.step()
    first = time.perf_counter()
    processor = time.process_time()
    for _ in range(options.steps - 1):
        trainer.step()
    return {
        "imports": imported - BEGIN,
        "first": first - BEGIN,
        "all": time.perf_counter() - BEGIN,
        "processor": processor,
        "checksum": float(sum(p.detach().double().sum() for p in method.cloud.tensors().values())),  # pyright: ignore
    }


def _replace_loading(way: str, scene: Any) -> None:
    """Put float32 photographs that are decoded beforehand in place of those of the views."""
    import torch
    from PIL import Image

    def decode(view: Any) -> torch.Tensor:
        with Image.open(view.path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)

    if way == "PIL loop":
        decoded = [decode(view) for view in scene.split("train")]
        views = scene.split("train")
    else:
        views = scene.views
        with ThreadPoolExecutor(2) as pool:
            decoded = list(pool.map(decode, views))
    for view, image in zip(views, decoded, strict=True):
        _give(view, lambda image=image: image)


def _give(view: Any, target: Callable[[], Any]) -> None:
    """Let a view have its photograph, float32 [H, W, 3], from elsewhere."""
    import torch

    opaque = torch.full((1, 1, 4), 255, dtype=torch.uint8)
    opaque = opaque.expand(view.camera.height, view.camera.width, 4)
    view.target = lambda background: target()
    view.pixels = lambda: opaque


def _feed_by_workers(trainer: Any) -> None:
    """Photographs come from worker processes in the order of the sampler."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    views = trainer.scene.split("train")

    class Photographs(Dataset):
        def __getitem__(self, index: int) -> torch.Tensor:
            import imageio.v2 as imageio

            return torch.from_numpy(imageio.imread(views[index].path)[..., :3]).float() / 255

    order: list[int] = torch.randperm(len(views), generator=trainer.generator).tolist()
    trainer.sampler.order, trainer.sampler.position = order, 0
    warnings.simplefilter("ignore")  # four are more than there may be processors
    loader = DataLoader(Photographs(), sampler=order, batch_size=None, num_workers=4)
    batches: Iterator[torch.Tensor] = iter(loader)
    for view in views:
        _give(view, lambda: next(batches))


# ---------------------------------------------------------------------------- all of them
def measure(way: str, options: Options, folder: Path) -> dict[str, float]:
    """Run one way in a process of its own; its peak memory includes its workers'."""
    command = [
        sys.executable, "-m", "benchmarks.loading", "--way", way, "--folder", str(folder),
        "--images", str(options.images), "--steps", str(options.steps),
    ]  # fmt: skip
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    peak = _watch(process)
    assert process.stdout is not None
    output = process.stdout.read().decode()
    if process.wait() != 0:
        raise SystemExit(f"{way}: ended with {process.returncode}")
    return json.loads(output.splitlines()[-1]) | {"family": peak}


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Highest sum of the proportional memory of a process and its workers, in GB."""
    import psutil

    peak = 0.0
    family = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for member in (family, *family.children(recursive=True)):
                total += getattr(member.memory_full_info(), "pss", 0)
        except psutil.Error:
            pass
        peak = max(peak, total / 1e9)
        time.sleep(0.05)
    return peak


def main(options: Options) -> None:
    """Measure all ways in turn and print a table."""
    if options.way is not None:
        print(json.dumps(run_way(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        write_scene(folder, options.images, points=not options.without_points)
        results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        loads = []
        for _ in range(options.rounds):
            for way in WAYS:
                loads.append(os.getloadavg()[0])
                results[way].append(measure(way, options, folder))
    kind = "random points, coloured by the views" if options.without_points else "points.ply"
    print(
        f"\n{options.images} JPEG photographs of {WIDTH}x{HEIGHT}, {kind}; medians of "
        f"{options.rounds}; {os.cpu_count()} cores, load {min(loads):.1f} to {max(loads):.1f}\n"
    )
    steps = f"{options.steps} steps, s"
    print(f"| way | first step, s | of that imports | processor, s | {steps} | peak, GB |")
    print("|---|--:|--:|--:|--:|--:|")
    for way, runs in results.items():
        numbers = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"| {way} | {numbers['first']:.2f} | {numbers['imports']:.2f} "
            f"| {numbers['processor']:.2f} | {numbers['all']:.2f} | {numbers['family']:.2f} |"
        )
    ours = {run["checksum"] for way in WAYS[:2] for run in results[way]}
    print(f"\nBoth of ours learnt the same: {'yes' if len(ours) == 1 else 'NO'}.")


if __name__ == "__main__":
    main(tyro.cli(Options))
