"""What splatting Gaussians costs: ``python -m benchmarks.gaussians [--quick] [--sketch PATH]``.

Stages of a view frame (projection, tile lists, K layers) and of a training step (the same, the two
backward passes, Adam). CPU time is that of one thread and survives a busy machine; wall time is
what a user waits, with all threads.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from app.runtime import prepare_process

prepare_process()  # OpenMP and malloc settings must stand before torch is imported

import torch  # noqa: E402
import tyro  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.report import Timing, console, exponent, measure, name_of, table  # noqa: E402
from benchmarks.workload import object_cloud, view  # noqa: E402
from render.kbuffer import build, gaussians  # noqa: E402
from render.kbuffer.threads import set_kernel_threads  # noqa: E402

FEATURES = 4  # channels of each Gaussian for the network, beside rgb and two of the refinement
HARMONICS = 8
STAGES = ("project", "lists", "layers", "bwd", "proj.bwd", "frame", "step")


def scene(n: int, seed: int = 0) -> list[Tensor]:
    """Leaves of N round Gaussians on surfaces, half opaque, about as wide as their distance."""
    g = torch.Generator().manual_seed(seed)
    tensors = [
        object_cloud(n, seed),
        torch.randn(n, 4, generator=g),
        torch.full((n, 3), 1.5 * n**-0.5).log() + 0.3 * torch.randn(n, 3, generator=g),
        torch.randn(n, generator=g),
        torch.randn(n, 3, generator=g),
        0.1 * torch.randn(n, HARMONICS, 3, generator=g),
        0.1 * torch.randn(n, FEATURES, generator=g),
    ]
    return [t.requires_grad_(True) for t in tensors]


def adam(leaves: list[Tensor], fused: bool) -> torch.optim.Adam:
    """With a rate that leaves the scene as it is, whatever the number of steps."""
    return torch.optim.Adam(leaves, lr=1e-12, eps=1e-15, fused=fused)


class Task:
    """One scene from one camera."""

    def __init__(self, n: int, size: int, k: int) -> None:
        self.size, self.k, self.camera = size, k, view(size)
        self.leaves = scene(n)
        self.optimizer = adam(self.leaves, fused=True)
        self.target = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(1))
        self.zeros = torch.zeros(n, 2)

    def project(self) -> gaussians.Projected:
        means, quats, log_scales, logits, sh0, sh_rest, _ = self.leaves
        return gaussians.project(means, quats, log_scales, logits, sh0, sh_rest, self.camera)

    def layers(self, projected: gaussians.Projected, k: int | None = None) -> gaussians.Layers:
        values = torch.cat([projected.rgb, self.zeros, self.leaves[6]], 1)
        size = (self.size, self.size, k or self.k)
        return gaussians.splat_layers(projected, values, *size, FEATURES, kbuffer=False)

    def loss(self, layers: gaussians.Layers) -> Tensor:
        rgb = layers.image[..., :3] + (1 - layers.alpha)[..., None]
        return (rgb - self.target).abs().mean() + layers.features.mean()

    def frame(self) -> gaussians.Layers:
        with torch.no_grad():
            return self.layers(self.project())

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.layers(self.project())).backward()
        self.optimizer.step()

    def stages(self) -> dict[str, Callable[[], object]]:
        """Every stage on its own, from what the one before it has left."""
        with torch.no_grad():
            flat = self.project()
        projected = gaussians.Projected(
            flat.splats.requires_grad_(True), flat.depth, flat.extent, flat.rgb
        )
        layers = self.layers(projected)
        given = [torch.randn_like(t) for t in (layers.image, layers.alpha, layers.features)]
        again = self.project()
        d_again = [torch.randn_like(again.splats), torch.randn_like(again.rgb)]

        outputs = (layers.image, layers.alpha, layers.features)
        inputs = [projected.splats, self.leaves[6]]
        kernels = gaussians._kernels()
        assert kernels is not None  # the twins are not worth measuring
        lists = (flat.splats.detach(), flat.depth, flat.extent, self.size, self.size)
        values = torch.cat([flat.rgb, self.zeros, self.leaves[6].detach()], 1)
        kept = (kernels.Bins(*lists), self.k, values, FEATURES, False, False)
        return {
            "project": torch.no_grad()(self.project),
            "lists": lambda: kernels.Bins(*lists),
            "layers": lambda: kernels.layers_forward(*kept),
            "bwd": lambda: torch.autograd.grad(outputs, inputs, given, retain_graph=True),
            "proj.bwd": lambda: torch.autograd.grad(
                (again.splats, again.rgb), self.leaves[:6], d_again, retain_graph=True
            ),
            "frame": self.frame,
            "step": self.step,
        }


class Benchmark:
    """One run of all tables."""

    def __init__(self, threads: int, seconds: float) -> None:
        self.threads, self.seconds = threads, seconds

    def costs(self, n: int, size: int, k: int) -> dict[str, tuple[float, Timing]]:
        """CPU milliseconds of each stage with one thread, and its times with all."""
        stages = Task(n, size, k).stages()
        return {
            name: (self._run(call, 1).cpu, self._run(call, self.threads))
            for name, call in stages.items()
        }

    def _run(self, call: Callable[[], object], threads: int) -> Timing:
        set_kernel_threads(threads)
        torch.set_num_threads(threads)
        return measure(call, self.seconds)

    def sweep(self, title: str, axis: str, cases: dict[str, tuple[int, int, int]], by: int) -> None:
        """A row of CPU and one of wall time for each case; growth with number ``by`` of a case."""
        t = table(title, axis, "threads", *STAGES, "growth")
        before: tuple[float, float] | None = None
        for name, case in cases.items():
            costs = self.costs(*case)
            cpu = [costs[s][0] for s in STAGES]
            x = float(case[by] ** (2 if by == 1 else 1))
            growth = exponent(*before, x, cpu[-1]) if before else ""
            _row(t, name, "CPU 1", cpu, growth)
            _row(t, "", f"wall {self.threads}", [costs[s][1].best for s in STAGES], "")
            before = (x, cpu[-1])
        console.print(t)


def _row(t: Table, name: str, kind: str, times: list[float], growth: str) -> None:
    t.add_row(name, kind, *(f"{ms:.1f}" for ms in times), growth)


# ------------------------------------------------------------------------------ the sketch


class Sketch:
    """A training step as the prototypes make it: projection in torch, Adam not fused, rgb only."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.gs = _open_sketch(folder)
        self.task = task
        self.leaves = [t.detach().clone().requires_grad_(True) for t in task.leaves[:6]]
        self.optimizer = adam(self.leaves, fused=False)
        camera = task.camera
        self.pose, self.K = camera.world_to_camera.float(), camera.K.float()
        self.position = camera.position.float()

    def step(self) -> None:
        means, quats, log_scales, logits, sh0, sh_rest = self.leaves
        directions = torch.nn.functional.normalize(means.detach() - self.position, dim=-1)
        basis = self._basis(directions)[:, :, None]  # [N, 8, 1]
        rgb = (0.5 + 0.2821 * sh0 + (basis * sh_rest).sum(1)).clamp_min(0)
        size = self.task.size
        image, alpha = self.gs.render(
            means, quats, log_scales.exp(), logits.sigmoid(), rgb, self.pose, self.K, size, size
        )
        self.optimizer.zero_grad()
        (image + (1 - alpha)[..., None] - self.task.target).abs().mean().backward()
        self.optimizer.step()

    @staticmethod
    def _basis(d: Tensor) -> Tensor:
        x, y, z = d.unbind(-1)
        second = [x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
        return torch.stack([y, z, x, *second], -1)


def _open_sketch(folder: Path) -> ModuleType:
    """The module ``gs`` of the prototypes, its library built in a folder of this process."""
    with tempfile.TemporaryDirectory() as build_folder:
        for name in ("gs.py", "gs_cpu.cpp"):
            shutil.copy(folder / name, build_folder)
        flags = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread"]
        subprocess.run(
            [os.environ.get("CXX", "g++"), *flags, "gs_cpu.cpp", "-o", "libgs.so"],
            cwd=build_folder, check=True,
        )  # fmt: skip
        here = Path.cwd()
        os.chdir(build_folder)  # it opens ./libgs.so
        sys.path.insert(0, build_folder)
        try:
            return importlib.import_module("gs")
        finally:
            sys.path.remove(build_folder)
            os.chdir(here)


def against_sketch(folder: Path, n: int, size: int, rounds: int) -> None:
    """Steps of both in turn, one thread, so that other load meets both alike."""
    set_kernel_threads(1)
    torch.set_num_threads(1)
    task = Task(n, size, 8)
    steps = {"sketch": Sketch(folder, task).step, "ours": task.step}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.process_time()
            step()
            cpu[name].append(1e3 * (time.process_time() - started))
    least = {name: min(times[1:]) for name, times in cpu.items()}
    t = table(f"step, {name_of(n)}, {size} px, CPU ms", *least, "ratio")
    ratio = least["sketch"] / least["ours"]
    t.add_row(*(f"{ms:.1f}" for ms in least.values()), f"{ratio:.2f}x")
    console.print(t)


def main(
    quick: bool = False,
    threads: int | None = None,
    seconds: float | None = None,
    sketch: Path | None = None,
) -> None:
    """Print the tables.

    Args:
        quick: fewer and smaller scenes, about a minute.
        threads: default: as many as torch uses.
        seconds: spent on each cell; default 1, quick 0.3.
        sketch: folder of the prototypes' gs.py and gs_cpu.cpp, to compare a training step with.
    """
    threads = threads or torch.get_num_threads()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    name = gaussians.backend_name()
    console.print(f"{name}: {build.status('gs_cpu')}; {threads} threads{load}")
    if sketch is not None:
        against_sketch(sketch, 100_000, 400, 5 if quick else 12)
    bench = Benchmark(threads, seconds or (0.3 if quick else 1.0))
    counts = [10_000, 100_000, 300_000] + ([] if quick else [1_000_000])
    sizes, layers = ([200, 400], [1, 8]) if quick else ([200, 400, 800], [1, 2, 4, 8, 16])
    bench.sweep("Gaussians (K=8, 400x400)", "N", {name_of(n): (n, 400, 8) for n in counts}, 0)
    cases = {f"{s}x{s}": (100_000, s, 8) for s in sizes}
    bench.sweep("pixels (100k Gaussians, K=8)", "size", cases, 1)
    bench.sweep("layers (100k, 400x400)", "K", {str(k): (100_000, 400, k) for k in layers}, 2)


if __name__ == "__main__":
    tyro.cli(main)
