"""What splatting costs on a GPU: ``python -m benchmarks.gaussians_cuda [--quick]``.

Stages of a view and of a training step by ``render/kbuffer/gaussians_gsplat.py``, and the same
picture with its gradients by gsplat alone (its own projection, no K-buffer). Times are wall times
of a stage with a wait at its end; the sorting into tiles waits for the GPU by itself. Last, how
far the picture is from the CPU's.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
import tyro
from rich.table import Table
from torch import Tensor

from benchmarks.gaussians import FEATURES, scene
from benchmarks.report import Timing, console, measure, name_of, table
from benchmarks.workload import view
from render.camera import Camera
from render.kbuffer import gaussians, gaussians_gsplat, gsplat_found
from render.kbuffer.gaussians import Projected

STAGES = (
    "project", "proj.bwd", "tiles", "walk 0", "walk K", "splat", "splat.bwd", "layers",
    "layers.bwd", "gsplat", "gsplat.bwd",
)  # fmt: skip


class Task:
    """One scene from one camera, on ``device``."""

    def __init__(self, n: int, size: int, k: int, device: torch.device, gsplat: Any) -> None:
        self.size, self.k, self.gsplat = size, k, gsplat
        self.camera: Camera = view(size)
        self.leaves = [t.detach().to(device).requires_grad_(True) for t in scene(n)]
        self.viewmat = self.camera.world_to_camera.float().to(device)[None]
        self.K = self.camera.K.float().to(device)[None]

    def project(self, device: torch.device | None = None) -> Projected:
        """On ``device``, or where the scene is."""
        leaves = [t if device is None else t.to(device) for t in self.leaves]
        means, quats, log_scales, logits, sh0, sh_rest, _ = leaves
        return gaussians.project(means, quats, log_scales, logits, sh0, sh_rest, self.camera)

    def by_gsplat(self) -> Tensor:
        """The picture of all contributions, [H, W, 3]."""
        means, quats, log_scales, logits, sh0, sh_rest, _ = self.leaves
        return self.gsplat.rasterization(
            means, quats, log_scales.exp(), logits.sigmoid(),
            torch.cat([sh0[:, None], sh_rest], 1), self.viewmat, self.K, self.size, self.size,
            sh_degree=2, packed=False,
        )[0][0]  # fmt: skip

    def stages(self) -> dict[str, Callable[[], object]]:
        """Every stage on its own, from what the one before it has left."""
        size, k = (self.size, self.size), self.k
        again = self.project()
        flat = Projected(*[t.detach() for t in again])
        p = flat._replace(splats=flat.splats.clone().requires_grad_(True))
        features = self.leaves[6]
        values = torch.cat([flat.rgb, features], 1)  # [N, 3 + F]
        color = flat.rgb.clone().requires_grad_(True)
        order, offsets = gaussians_gsplat._tiles(flat, *size)

        def splat() -> tuple[Tensor, ...]:
            return gaussians.splat(p, color, *size, 0)[:2]

        def layers() -> tuple[Tensor, ...]:
            return gaussians.splat_layers(p, values, *size, k, FEATURES)[:3]

        def backward(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> Callable[[], object]:
            given = [torch.randn_like(t) for t in outputs]
            return lambda: torch.autograd.grad(outputs, inputs, given, retain_graph=True)

        quiet = torch.no_grad()
        return {
            "project": quiet(self.project),
            "proj.bwd": backward((again.splats, again.rgb), self.leaves[:6]),
            "tiles": lambda: gaussians_gsplat._tiles(flat, *size),
            "walk 0": lambda: gaussians_gsplat._walk(flat, order, offsets, *size, 0),
            "walk K": lambda: gaussians_gsplat._walk(flat, order, offsets, *size, k),
            "splat": quiet(splat),
            "splat.bwd": backward(splat(), [p.splats, color]),
            "layers": quiet(layers),
            "layers.bwd": backward(layers(), [p.splats, features]),
            "gsplat": quiet(self.by_gsplat),
            "gsplat.bwd": backward((self.by_gsplat(),), self.leaves[:6]),
        }

    def distance_from_cpu(self) -> tuple[float, float]:
        """Largest difference of the composite from the CPU's, and the share above 2e-4."""
        size = (self.size, self.size)
        with torch.no_grad():
            p = self.project()
            mine = gaussians.splat(p, p.rgb, *size, 0).image.cpu()
            here = self.project(torch.device("cpu"))
            error = (mine - gaussians.splat(here, here.rgb, *size, 0).image).abs().amax(-1)
        return float(error.max()), float((error > 2e-4).double().mean())


def timed(call: Callable[[], object], seconds: float, device: torch.device) -> Timing:
    """``measure``, with a wait for the GPU at the end of every call."""

    def waited() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return measure(waited, seconds, most=200)


def tabulate(
    cases: list[tuple[int, int, int]], seconds: float, device: torch.device, gsplat: Any
) -> tuple[Table, Table]:
    """Median milliseconds of every stage, and the distance from the CPU's picture."""
    times = table("Median ms of a stage", "N", "px", "K", *STAGES)
    errors = table("Composite against the CPU's", "N", "px", "largest", "above 2e-4")
    for n, size, k in cases:
        task = Task(n, size, k, device, gsplat)
        found = {name: timed(call, seconds, device) for name, call in task.stages().items()}
        cells = [f"{found[name].median:.3f}" for name in STAGES]
        times.add_row(name_of(n), str(size), str(k), *cells)
        largest, share = task.distance_from_cpu()
        errors.add_row(name_of(n), str(size), f"{largest:.1e}", f"{share:.1e}")
    return times, errors


def main(quick: bool = False, seconds: float = 0.5) -> None:
    """Print the tables.

    Args:
        quick: fewer scenes.
        seconds: spent on each cell.
    """
    device = torch.device("cuda", 0)
    if not torch.cuda.is_available() or not gsplat_found.usable(device):
        sys.exit(f"error: {gsplat_found.expected() or gsplat_found.status(device)}")
    console.print(f"{torch.cuda.get_device_name(device)}: {gsplat_found.status(device)}")
    cases = [(100_000, 800, 8)]
    if not quick:
        cases += [(30_000, 800, 8), (300_000, 800, 8), (1_000_000, 800, 8)]
        cases += [(100_000, 400, 8), (100_000, 1600, 8)]
        cases += [(100_000, 800, k) for k in (1, 4, 16, 32)]
    for found in tabulate(cases, seconds, device, importlib.import_module("gsplat")):
        console.print(found)


if __name__ == "__main__":
    tyro.cli(main)
