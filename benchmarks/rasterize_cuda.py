"""How fast the CUDA rasteriser is: ``python -m benchmarks.rasterize_cuda [--quick]``.

Times are of the GPU and of the host: a frame has one wait in it, so its wall time counts. Fragments
are the filled slots of the K-buffer. The floor is the memory traffic that no rasteriser can avoid
(points in, K-buffer out) at the bandwidth that a copy reaches on this GPU.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from benchmarks.rasterize import console, exponent, name_of, object_cloud, table
from render.camera import Camera
from render.kbuffer import cuda_build, cuda_impl
from render.kbuffer.axes import pixel_axis
from render.kbuffer.types import KBuffer

NDC_RADIUS = 0.005  # two pixels at 800 x 800


@dataclass(frozen=True)
class Frame:
    """One cell of a table."""

    n: int
    k: int = 8
    width: int = 800
    height: int = 800
    radius: float = NDC_RADIUS


def milliseconds(call: Callable[[], object], seconds: float) -> float:
    """Median wall time of ``call`` and what it has put on the GPU."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes read and written in a second by a copy."""
    a = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return 2 * a.numel() / (milliseconds(lambda: b.copy_(a), 0.3) / 1e3)


class Benchmark:
    """One run of all tables."""

    def __init__(self, seconds: float) -> None:
        kernels = cuda_build.load(torch.cuda.current_device())
        if kernels is None:
            sys.exit(f"no CUDA kernels: {cuda_build.status()}")
        self.kernels, self.seconds = kernels, seconds
        self.bandwidth = copy_bandwidth()
        self.clouds: dict[int, Tensor] = {}

    def row(self, frame: Frame) -> tuple[float, list[str]]:
        """Milliseconds, and the cells that follow."""
        if frame.n not in self.clouds:
            self.clouds.clear()  # one at a time: they are large
            self.clouds[frame.n] = object_cloud(frame.n).cuda()
        xyz = self.clouds[frame.n]
        camera = Camera.look_at(
            (0.0, -3.7, 1.6), (0.0, 0.0, 0.0), width=frame.width, height=frame.height
        )
        axes = pixel_axis(frame.width), pixel_axis(frame.height)
        matrix = (camera.K @ camera.world_to_camera[:3]).float()
        radius = frame.radius * min(frame.width, frame.height) / 2
        shape = (frame.height, frame.width, frame.k)
        out = cuda_impl.allocate(shape, xyz.device)

        def draw(to: KBuffer = out) -> cuda_impl.Output:
            return cuda_impl.rasterize(
                self.kernels, xyz, radius, *axes, to, near=0.01, footprint="disc",
                world_to_screen=matrix,
            )  # fmt: skip

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = draw()
        memory = torch.cuda.max_memory_allocated() - before
        ms = milliseconds(draw, self.seconds)
        fragments = int(out.valid.sum())
        floor = 1e3 * (12 * frame.n + 12 * math.prod(shape)) / self.bandwidth
        return ms, [
            f"{ms:.3f}",
            f"{frame.n / ms / 1e6:.2f}",
            f"{fragments / ms / 1e6:.2f}",
            f"{100 * floor / ms:.0f} %",
            f"{result.pairs / 1e6:.1f}",
            str(result.bands),
            f"{memory / 2**20:.0f}",
        ]

    def sweep(self, title: str, cells: list[tuple[str, float, Frame]]) -> None:
        """A table over one quantity, with the exponent of its growth."""
        t = table(
            title, "", "ms", "Gpts/s", "Gfrag/s", "of floor", "Mpairs", "bands", "MiB", "power"
        )
        before: tuple[float, float] | None = None
        for label, x, frame in cells:
            try:
                ms, row = self.row(frame)
            except MemoryError as error:
                t.add_row(label, str(error)[:60])
                break
            t.add_row(label, *row, exponent(*before, x, ms) if before else "")
            before = (x, ms)
        console.print(t)


def main(quick: bool = False) -> None:
    """Print the tables.

    Args:
        quick: fewer and smaller frames.
    """
    if not torch.cuda.is_available():
        sys.exit("benchmarks.rasterize_cuda needs an NVIDIA GPU")
    bench = Benchmark(0.3 if quick else 1.0)
    name = torch.cuda.get_device_name()
    console.print(f"{name}, copy {bench.bandwidth / 1e9:.0f} GB/s; {cuda_build.status()}")
    sizes = [10_000, 100_000, 1_000_000, 10_000_000] + ([] if quick else [50_000_000, 100_000_000])
    bench.sweep("points (K = 8, 800x800)", [(name_of(n), n, Frame(n)) for n in sizes])
    ks = (1, 2, 4, 8, 16, 32)
    bench.sweep("layers (1M points, 800x800)", [(f"K={k}", k, Frame(1_000_000, k)) for k in ks])
    images = ((200, 200), (400, 400), (800, 800), (1920, 1080))
    bench.sweep(
        "resolution (1M points, K = 8)",
        [(f"{w}x{h}", w * h, Frame(1_000_000, 8, w, h)) for w, h in images],
    )
    radii = [NDC_RADIUS * f for f in (0.5, 1, 4, 16)]
    bench.sweep(
        "radius (1M points, K = 8, 800x800)",
        [(f"{400 * r:g} px", r, Frame(1_000_000, 8, 800, 800, r)) for r in radii],
    )


if __name__ == "__main__":
    tyro.cli(main)
