"""What a frame of the point rasteriser costs: ``python -m benchmarks.rasterize [--quick]``.

Sweeps points, layers, pixels and radius. Wall time is what a user waits; CPU time (of the whole
process, all threads) is what remains comparable when the machine is busy with something else.

A *fragment* is a pixel whose centre a point covers, hidden or not; *kept* are the filled slots of
the K-buffer. The *floor* is the time in which this machine moves the bytes that every rasteriser
must move: 12 for each point in, 12 for each slot of the K-buffer out, at the rate of a large copy
measured in the same run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see docs/results.md

import psutil
import torch
import tyro
from torch import Tensor

from benchmarks.report import Timing, console, exponent, measure, name_of, table
from benchmarks.workload import SIZE, Frame, count_fragments, object_cloud, on_screen, view
from render.kbuffer import build, native
from render.kbuffer.axes import pixel_axis
from render.kbuffer.rasterize import Backend, backend_name, rasterize, rasterize_screen
from render.memory import check_room, give_back


@dataclass(frozen=True)
class Cost:
    """A measured frame."""

    frame: Frame
    timing: Timing  # with all threads
    alone: float  # CPU milliseconds with one thread
    fragments: int
    kept: int
    memory: int  # bytes of scratch memory and K-buffer


def copy_rate(seconds: float) -> float:
    """Bytes read and written in a second by a copy that no cache can hold."""
    a = torch.zeros(1 << 28, dtype=torch.uint8)
    b = torch.zeros_like(a)
    return 2 * a.numel() / (measure(lambda: b.copy_(a), seconds).best / 1e3)


def world_task(
    xyz: Tensor, frame: Frame, threads: int, backend: Backend = "auto"
) -> Callable[[], object]:
    """From world coordinates, into a K-buffer that is kept."""
    camera = view(frame.width, frame.height)
    out = rasterize(xyz, camera, frame.k, radius=frame.radius, mode="px", backend=backend)
    return lambda: rasterize(
        xyz, camera, frame.k, radius=frame.radius, mode="px", threads=threads, out=out,
        backend=backend,
    )  # fmt: skip


def screen_task(xyz: Tensor, frame: Frame, threads: int) -> Callable[[], object]:
    """The same frame from points that are already on the screen."""
    uvz = on_screen(xyz, view(frame.width, frame.height))
    xs, ys = pixel_axis(frame.width), pixel_axis(frame.height)
    out = rasterize_screen(uvz, frame.radius, xs, ys, frame.k)
    return lambda: rasterize_screen(uvz, frame.radius, xs, ys, frame.k, threads=threads, out=out)


TIMES = ("min ms", "median", "CPU", "CPU 1 thr.")
WORK = ("Mpts/s", "M frag.", "M kept", "Mfrag/s", "floor ms", "% floor", "MB")


class Benchmark:
    """One run of all tables."""

    def __init__(self, quick: bool, threads: int, seconds: float) -> None:
        self.quick, self.threads, self.seconds = quick, threads, seconds
        self.rate = copy_rate(seconds)
        self._cloud = torch.empty(0, 3)

    def cloud(self, n: int) -> Tensor:
        """The newest one is kept."""
        if len(self._cloud) != n:
            self._cloud = object_cloud(n)
        return self._cloud

    def cost(self, frame: Frame) -> Cost:
        """Measure a frame from world coordinates."""
        xyz, camera = self.cloud(frame.n), view(frame.width, frame.height)
        memory, kept = self._memory(xyz, frame)
        alone = measure(world_task(xyz, frame, 1), self.seconds / 2)
        timing = measure(world_task(xyz, frame, self.threads), self.seconds)
        fragments = count_fragments(on_screen(xyz, camera), frame.radius, frame.width, frame.height)
        return Cost(frame, timing, alone.cpu, fragments, kept, memory)

    def _memory(self, xyz: Tensor, frame: Frame) -> tuple[int, int]:
        """Bytes that the first frame adds to the process, and the slots that it fills."""
        process = psutil.Process()
        if build.load("kb_cpu") is not None:
            native.trim()
        give_back()
        before = process.memory_info().rss
        camera = view(frame.width, frame.height)
        kbuffer = rasterize(
            xyz, camera, frame.k, radius=frame.radius, mode="px", threads=self.threads
        )
        return process.memory_info().rss - before, int(kbuffer.valid.sum())

    def work(self, cost: Cost) -> list[str]:
        """The cells of the TIMES and WORK columns."""
        best = cost.timing.best
        floor = 1e3 * cost.frame.least_bytes / self.rate
        return [
            *row(cost.timing, cost.alone),
            f"{cost.frame.n / best / 1e3:.1f}",
            f"{cost.fragments / 1e6:.2f}",
            f"{cost.kept / 1e6:.2f}",
            f"{cost.fragments / best / 1e3:.0f}",
            f"{floor:.2f}",
            f"{100 * floor / best:.1f}",
            f"{cost.memory / 1e6:.0f}",
        ]

    def sweep(self, title: str, name: str, cells: list[tuple[str, float, Frame]]) -> None:
        """A table of frames; each cell has its name and the size that the growth is of."""
        t = table(title, name, *TIMES, *WORK, "power")
        before: tuple[float, float] | None = None
        for text, size, frame in cells:
            cost = self.cost(frame)
            growth = exponent(*before, size, cost.alone) if before else ""
            t.add_row(text, *self.work(cost), growth)
            before = (size, cost.alone)
        console.print(t)

    def headline(self) -> None:
        """The frame that the bar is set for, and what the projection adds to it."""
        frame = Frame()
        t = table(f"1M points, radius 2 px, K=8, {SIZE}x{SIZE}", "from", *TIMES)
        xyz = self.cloud(frame.n)
        for name, task in (("world", world_task), ("screen", screen_task)):
            alone = measure(task(xyz, frame, 1), self.seconds / 2).cpu
            t.add_row(name, *row(measure(task(xyz, frame, self.threads), self.seconds), alone))
        fresh = measure(
            lambda: rasterize(xyz, view(SIZE), 8, radius=2.0, mode="px", threads=self.threads),
            self.seconds,
        )
        t.add_row("world, fresh memory", *row(fresh), "")
        console.print(t)

    def points(self) -> None:
        """Growth in the number of points, for every radius."""
        sizes = [10_000, 100_000, 1_000_000]
        if not self.quick:
            sizes = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
        for radius in (1.0, 2.0, 8.0):
            self.sweep(
                f"points (radius {radius:g} px, K=8, {SIZE}x{SIZE})",
                "N",
                [(name_of(n), n, Frame(n, radius=radius)) for n in sizes],
            )

    def layers(self) -> None:
        """Growth in K."""
        for n in (1_000_000,) if self.quick else (100_000, 1_000_000):
            ks = (1, 8, 32) if self.quick else (1, 2, 4, 8, 16, 32)
            self.sweep(
                f"layers ({name_of(n)} points, radius 2 px, {SIZE}x{SIZE})",
                "K",
                [(str(k), k, Frame(n, k)) for k in ks],
            )
        self.sweep(
            f"one layer ({SIZE}x{SIZE}, radius 1 px)",
            "N",
            [(name_of(n), n, Frame(n, 1, 1.0)) for n in (300_000, 1_000_000)],
        )

    def resolutions(self) -> None:
        """Growth in the number of pixels, at the same radius in pixels."""
        sizes = [(200, 200), (400, 400), (800, 800), (1280, 720), (1920, 1080)]
        self.sweep(
            "pixels (1M points, radius 2 px, K=8)",
            "size",
            [
                (f"{w}x{h}", w * h, Frame(width=w, height=h))
                for w, h in (sizes[::2] if self.quick else sizes)
            ],
        )

    def backends(self) -> None:
        """The fallbacks, one thread, CPU time."""
        t = table(
            f"CPU ms, one thread (K=8, {SIZE}x{SIZE})",
            "N", "radius", "native", "Numba", "ratio", "torch", "ratio",
        )  # fmt: skip
        cases = [(10_000, 2.0), (100_000, 2.0)]
        cases += [] if self.quick else [(100_000, 8.0), (1_000_000, 2.0), (5_000_000, 8.0)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for n, radius in cases:
            cpu = {}
            for backend in ("native", "numba", "torch"):
                if available(backend) and (backend != "torch" or n * radius <= 800_000):
                    task = world_task(self.cloud(n), Frame(n, radius=radius), 1, backend)
                    cpu[backend] = measure(task, self.seconds).cpu
            cells = [f"{cpu['native']:.1f}" if "native" in cpu else "-"]
            for backend in ("numba", "torch"):
                both = backend in cpu and "native" in cpu
                cells.append(f"{cpu[backend]:.1f}" if backend in cpu else "-")
                cells.append(f"{cpu[backend] / cpu['native']:.1f}x" if both else "-")
            t.add_row(name_of(n), f"{radius:g} px", *cells)
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
        seconds: spent on each cell; default 1, quick 0.3.
    """
    logging.basicConfig(level=logging.WARNING)
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    check_room("the benchmark", 600_000_000 if quick else 2_000_000_000, "--quick needs less")
    bench = Benchmark(quick, threads, seconds or (0.3 if quick else 1.0))
    console.width = max(console.width, 132)
    console.print(
        f"{backend_name()}: {build.status()}; {threads} threads{load}; "
        f"a copy moves {bench.rate / 1e9:.1f} GB/s"
    )
    bench.headline()
    bench.points()
    bench.layers()
    bench.resolutions()
    bench.backends()


if __name__ == "__main__":
    tyro.cli(main)
