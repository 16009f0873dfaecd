"""What one frame of the default method costs: ``python -m benchmarks.frame [--quick]``.

A frame is everything between a camera and a picture [H, W, 3]: projection, the K heaviest
contributions of every pixel, fusion network and background. ``--run`` measures a trained model
instead of synthetic Gaussians; the network has the same size in both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.options import Options
from app.runtime import core_count, describe_device, prepare_process, set_threads
from app.workbench import build

prepare_process()  # OpenMP and malloc settings must stand before torch is imported

import torch  # noqa: E402
import tyro  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.rasterize import exponent, name_of, object_cloud, table, view  # noqa: E402
from render.camera import Camera  # noqa: E402
from render.kbuffer.gaussians import backend_name  # noqa: E402
from render.methods.kbuffer import KBufferMethod, KBufferOptions  # noqa: E402
from render.scenes.types import Background, Bounds, PointCloud, Scene  # noqa: E402
from render.training.stages import Stages  # noqa: E402

console = Console()
GOALS = {200: 40, 400: 120, 800: 400}  # ms on two cores: 100 k Gaussians, K = 8, network
GAUSSIANS = 100_000
PARTS = ("rasterise", "network", "other")


@dataclass(frozen=True)
class Cost:
    """Wall milliseconds of a frame: least, median, and the median of its parts."""

    best: float
    median: float
    parts: dict[str, float]

    def cells(self) -> list[str]:
        """For a table with :func:`columns`."""
        parts = [self.parts.get(name, 0.0) for name in PARTS]
        return [f"{ms:.1f}" for ms in (self.best, self.median, *parts)]


COLUMNS = ("min ms", "median", *PARTS)


def measure_frames(draw: Callable[[], object], device: torch.device, seconds: float) -> Cost:
    """Draw for about ``seconds``, at least five times, after two frames to warm up."""
    for _ in range(2):
        draw()
    walls: list[float] = []
    parts: list[dict[str, float]] = []
    stages = Stages(device)
    end = time.perf_counter() + seconds
    while len(walls) < 5 or time.perf_counter() < end:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        with stages.step():
            draw()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        walls.append(1e3 * (time.perf_counter() - started))
        parts.append(stages.take())
    middle = {name: statistics.median(p.get(name, 0.0) for p in parts) for name in PARTS}
    return Cost(min(walls), statistics.median(walls), middle)


def synthetic(n: int, k: int, device: torch.device, network: bool = True) -> KBufferMethod:
    """The default method on the surfaces of :func:`object_cloud`, its network switched on."""
    xyz = object_cloud(n)
    points = PointCloud(xyz, rgb=(xyz * 0.4 + 0.5).clamp(0, 1), source="synthetic")
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.5, 1.0, 6.0)
    scene = Scene("synthetic", [], {}, points, Background("white"), bounds)
    generator = torch.Generator().manual_seed(0)
    method = KBufferMethod(KBufferOptions(k=k, points=n), scene, device, generator)
    method.network_on = network
    return method


class Benchmark:
    """One run of all tables."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds
        self.background = torch.ones(3)

    def frame(self, method: KBufferMethod, camera: Camera, k: int | None = None) -> Cost:
        """One frame, again and again."""
        draw = lambda: method.render(camera, self.background, k)  # noqa: E731
        return measure_frames(draw, self.device, self.seconds)

    def sizes(self, sizes: list[int]) -> None:
        """The frame that the goals are set for."""
        title = f"{name_of(GAUSSIANS)} Gaussians, K = 8"
        t = table(title, "pixels", "network", *COLUMNS, "goal", "growth")
        for network in (False, True):
            method = synthetic(GAUSSIANS, 8, self.device, network)
            before: tuple[int, float] | None = None
            for size in sizes:
                cost = self.frame(method, view(size))
                goal = str(GOALS.get(size, "")) if network else ""
                growth = exponent(*before, size**2, cost.best) if before else ""
                word = "on" if network else "off"
                t.add_row(f"{size}x{size}", word, *cost.cells(), goal, growth)
                before = (size**2, cost.best)
        console.print(t)

    def layers(self, size: int, ks: list[int]) -> None:
        """Growth in K; the network is built for that K."""
        t = table(f"{name_of(GAUSSIANS)} Gaussians, {size}x{size}", "K", *COLUMNS, "growth")
        self._grow(t, [(k, synthetic(GAUSSIANS, k, self.device)) for k in ks], size, str)

    def gaussians(self, size: int, counts: list[int]) -> None:
        """Growth in the number of Gaussians."""
        t = table(f"K = 8, {size}x{size}", "N", *COLUMNS, "growth")
        self._grow(t, [(n, synthetic(n, 8, self.device)) for n in counts], size, name_of)

    def _grow(
        self,
        t: Table,
        methods: list[tuple[int, KBufferMethod]],
        size: int,
        name: Callable[[int], str],
    ) -> None:
        before: tuple[int, float] | None = None
        for x, method in methods:
            cost = self.frame(method, view(size))
            growth = exponent(*before, x, cost.best) if before else ""
            t.add_row(name(x), *cost.cells(), growth)
            before = (x, cost.best)
        console.print(t)

    def trained(self, run: Path, sizes: list[int]) -> None:
        """A model from a run folder, seen from its first held-out camera."""
        bench = build(Options(resume=str(run), eval=True), console.log)
        method = bench.renderer
        assert isinstance(method, KBufferMethod)
        views = bench.scene.split("test") or bench.scene.views
        title = f"{run.name}: {name_of(len(method.cloud))} Gaussians, K = {method.options.k}"
        t = table(title, "pixels", *COLUMNS)
        for size in sizes:
            camera = views[0].camera.resize(size, size)
            t.add_row(f"{size}x{size}", *self.frame(method, camera).cells())
        console.print(t)


def main(
    quick: bool = False,
    run: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 3.0,
) -> None:
    """Print the tables.

    Args:
        quick: the goals' table alone, shortly.
        run: a run folder of the method kbuffer to measure instead.
        device: cpu or cuda.
        threads: of torch; default: as the program does it.
        seconds: spent on each row.
    """
    set_threads("kbuffer")
    if threads is not None:
        torch.set_num_threads(threads)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    where = torch.device(device)
    console.print(
        f"{describe_device(where)}; kernels {backend_name()} on {core_count()} threads, torch on "
        f"{torch.get_num_threads()}{load}"
    )
    bench = Benchmark(where, 1.0 if quick else seconds)
    sizes = [200, 400, 800]
    if run is not None:
        bench.trained(run, sizes)
        return
    bench.sizes(sizes if quick else [*sizes, 1080])
    if not quick:
        bench.layers(400, [1, 2, 4, 8, 16])
        bench.gaussians(400, [10_000, 30_000, 100_000, 300_000, 1_000_000])


if __name__ == "__main__":
    tyro.cli(main)
