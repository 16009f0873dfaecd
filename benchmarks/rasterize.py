"""How fast the point rasteriser is: ``python -m benchmarks.rasterize [--quick]``.

Wall time is what a user waits; CPU time (of the whole process, all threads) is what remains
comparable when the machine is busy with something else.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see docs/results.md

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from render.camera import Camera
from render.kbuffer import build
from render.kbuffer.axes import pixel_axis
from render.kbuffer.rasterize import Backend, backend_name, rasterize, rasterize_screen
from render.kbuffer.torch_impl import project_screen

console = Console()
NDC_RADIUS = 0.005
SIZE = 800


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call."""

    best: float
    median: float
    cpu: float


def measure(call: Callable[[], object], seconds: float, most: int = 25) -> Timing:
    """Repeat ``call`` for about ``seconds``, at least three times, after one call to warm up."""
    call()
    wall: list[float] = []
    cpu: list[float] = []
    end = time.perf_counter() + seconds
    while len(wall) < 3 or (time.perf_counter() < end and len(wall) < most):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return Timing(1e3 * min(wall), 1e3 * statistics.median(wall), 1e3 * min(cpu))


def object_cloud(n: int, seed: int = 0) -> Tensor:
    """[N, 3] points on surfaces: two spheres, a torus and a rough ground disc, in random order."""
    g = torch.Generator().manual_seed(seed)
    part = n // 4

    def sphere(center: tuple[float, float, float], radius: float) -> Tensor:
        d = torch.nn.functional.normalize(torch.randn(part, 3, generator=g), dim=1)
        return d * radius + torch.tensor(center)

    a, b = torch.rand(2, part, generator=g) * 2 * math.pi
    ring = 0.6 + 0.2 * b.cos()
    torus = torch.stack([ring * a.cos() + 0.1, ring * a.sin(), 0.1 - 0.2 * b.sin()], 1)
    rest = n - 3 * part
    r, a = torch.rand(rest, generator=g).sqrt(), torch.rand(rest, generator=g) * 2 * math.pi
    height = 0.01 * torch.randn(rest, generator=g) - 0.4
    ground = torch.stack([r * a.cos(), r * a.sin(), height], 1)
    shapes = [sphere((-0.4, 0.0, 0.3), 0.5), sphere((0.6, 0.5, 0.2), 0.35), torus, ground]
    return torch.cat(shapes)[torch.randperm(n, generator=g)].contiguous()


def view(size: int) -> Camera:
    """A view like NeRF-Synthetic's: distance 4, 39.6 degrees."""
    return Camera.look_at((0.0, -3.7, 1.6), (0.0, 0.0, 0.0), width=size, height=size)


def world_task(
    xyz: Tensor, k: int, radius: float, size: int, threads: int, backend: Backend = "auto"
) -> Callable[[], object]:
    """From world coordinates, into a K-buffer that is kept."""
    camera = view(size)
    out = rasterize(xyz, camera, k, radius=radius, backend=backend)
    return lambda: rasterize(
        xyz, camera, k, radius=radius, threads=threads, out=out, backend=backend
    )


def screen_task(xyz: Tensor, k: int, radius: float, size: int, threads: int) -> Callable:
    """The same frame from points that are already on the screen."""
    camera = view(size)
    matrix = (camera.K @ camera.world_to_camera[:3]).float()
    uvz, _ = project_screen(xyz, matrix, torch.ones(1))
    axis, r = pixel_axis(size), radius * size / 2
    out = rasterize_screen(uvz, r, axis, axis, k)
    return lambda: rasterize_screen(uvz, r, axis, axis, k, threads=threads, out=out)


def exponent(x0: float, y0: float, x1: float, y1: float) -> str:
    """p of y ~ x^p between two measurements."""
    return f"{math.log(y1 / y0) / math.log(x1 / x0):.2f}"


def name_of(n: int) -> str:
    """1500000 -> 1.5M."""
    return f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k"


def table(title: str, *columns: str) -> Table:
    """A table with right-aligned columns."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        result.add_column(column, justify="right", no_wrap=True)
    return result


TIMES = ("min ms", "median", "CPU", "CPU 1 thr.")


class Benchmark:
    """One run of all tables."""

    def __init__(self, quick: bool, threads: int, seconds: float) -> None:
        self.quick, self.threads, self.seconds = quick, threads, seconds
        self.clouds: dict[int, Tensor] = {}

    def cloud(self, n: int) -> Tensor:
        """Made once for each size."""
        if n not in self.clouds:
            self.clouds[n] = object_cloud(n)
        return self.clouds[n]

    def both(self, task: Callable[..., Callable], *args: object) -> tuple[Timing, float]:
        """With all threads, and the CPU time with one."""
        alone = measure(task(*args, 1), self.seconds / 2)
        return measure(task(*args, self.threads), self.seconds), alone.cpu

    def headline(self) -> None:
        """The frame that the bar is set for, and what the projection adds to it."""
        t = table(f"1M points, radius {NDC_RADIUS} NDC, K=8, {SIZE}x{SIZE}", "from", *TIMES)
        for name, task in (("world", world_task), ("screen", screen_task)):
            timing, alone = self.both(task, self.cloud(1_000_000), 8, NDC_RADIUS, SIZE)
            t.add_row(name, *row(timing, alone))
        fresh = measure(
            lambda: rasterize(self.cloud(1_000_000), view(SIZE), 8, threads=self.threads),
            self.seconds,
        )
        t.add_row("world, fresh memory", *row(fresh), "")
        console.print(t)

    def points(self) -> None:
        """Growth in the number of points."""
        t = table(f"points (K=8, {SIZE}x{SIZE})", "N", "radius", *TIMES, "Mpts/s", "power")
        sizes = [10_000, 100_000, 300_000, 1_000_000] + (
            [] if self.quick else [2_000_000, 5_000_000]
        )
        for radius in (NDC_RADIUS,) if self.quick else (NDC_RADIUS, 0.02):
            before: tuple[int, float] | None = None
            for n in sizes:
                timing, alone = self.both(world_task, self.cloud(n), 8, radius, SIZE)
                growth = exponent(*before, n, alone) if before else ""
                rate = f"{n / timing.best / 1e3:.1f}"
                t.add_row(name_of(n), f"{radius:g}", *row(timing, alone), rate, growth)
                before = (n, alone)
        console.print(t)

    def layers(self) -> None:
        """Growth in K."""
        t = table(f"layers (radius {NDC_RADIUS} NDC, {SIZE}x{SIZE})", "N", "K", *TIMES, "power")
        for n in (1_000_000,) if self.quick else (100_000, 1_000_000, 5_000_000):
            before: tuple[int, float] | None = None
            for k in (1, 2, 4, 8, 16):
                timing, alone = self.both(world_task, self.cloud(n), k, NDC_RADIUS, SIZE)
                growth = exponent(*before, k, alone) if before else ""
                t.add_row(name_of(n), str(k), *row(timing, alone), growth)
                before = (k, alone)
        console.print(t)

    def resolutions(self) -> None:
        """Growth in the number of pixels, at the same NDC radius."""
        t = table(f"resolution (1M points, K=8, radius {NDC_RADIUS} NDC)", "pixels", *TIMES)
        for size in (200, 800) if self.quick else (200, 400, 800, 1600):
            timing, alone = self.both(world_task, self.cloud(1_000_000), 8, NDC_RADIUS, size)
            t.add_row(f"{size}x{size}", *row(timing, alone))
        console.print(t)

    def backends(self) -> None:
        """The fallbacks, one thread, CPU time."""
        t = table(
            f"CPU ms, one thread (K=8, {SIZE}x{SIZE})",
            "N", "radius", "native", "Numba", "ratio", "torch", "ratio",
        )  # fmt: skip
        cases = [(10_000, NDC_RADIUS), (100_000, NDC_RADIUS), (100_000, 0.02)]
        cases += [] if self.quick else [(1_000_000, NDC_RADIUS), (5_000_000, 0.02)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for n, radius in cases:
            cpu = {}
            for backend in ("native", "numba", "torch"):
                if available(backend) and (backend != "torch" or n * radius <= 2000):
                    task = world_task(self.cloud(n), 8, radius, SIZE, 1, backend)
                    cpu[backend] = measure(task, self.seconds).cpu
            cells = [f"{cpu['native']:.1f}" if "native" in cpu else "-"]
            for backend in ("numba", "torch"):
                both = backend in cpu and "native" in cpu
                cells.append(f"{cpu[backend]:.1f}" if backend in cpu else "-")
                cells.append(f"{cpu[backend] / cpu['native']:.1f}x" if both else "-")
            t.add_row(name_of(n), f"{radius:g}", *cells)
        torch.set_num_threads(threads)
        console.print(t)


def row(timing: Timing, alone: float | None = None) -> list[str]:
    """The cells of the TIMES columns."""
    cells = [timing.best, timing.median, timing.cpu] + ([] if alone is None else [alone])
    return [f"{c:.1f}" for c in cells]


def available(backend: Backend) -> bool:
    """Whether ``backend`` can run here."""
    try:
        return bool(backend_name(backend))
    except RuntimeError:
        return False


def main(quick: bool = False, threads: int | None = None, seconds: float | None = None) -> None:
    """Print the tables.

    Args:
        quick: fewer and smaller clouds, about a minute.
        threads: default: as many as torch uses.
        seconds: spent on each cell; default 1.5, quick 0.5.
    """
    logging.basicConfig(level=logging.WARNING)
    threads = threads or torch.get_num_threads()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    console.print(f"{backend_name()}: {build.status()}; {threads} threads{load}")
    bench = Benchmark(quick, threads, seconds or (0.5 if quick else 1.5))
    bench.headline()
    bench.points()
    bench.layers()
    bench.resolutions()
    bench.backends()


if __name__ == "__main__":
    tyro.cli(main)
