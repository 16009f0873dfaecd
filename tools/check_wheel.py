"""Does an installed wheel work as a user without a compiler meets it?

    python -m venv /tmp/v && /tmp/v/bin/pip install dist/kbuffers-*-manylinux2014_x86_64.whl
    cd /tmp && /tmp/v/bin/python /path/to/repository/tools/check_wheel.py

Draws points and Gaussians with the libraries of the wheel, compares values and gradients with
torch, and looks for the bundled scene and the fonts. Exit code 0: all is well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

os.environ["KBUFFERS_NO_COMPILER"] = "1"
os.environ.pop("KBUFFERS_NO_PREBUILT", None)

import torch

import render
from render.camera import Camera
from render.files import shipped
from render.kbuffer import build, gaussians
from render.kbuffer.axes import pixel_axis
from render.kbuffer.rasterize import rasterize_screen

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 61, 47


def points(backend: str) -> list[torch.Tensor]:
    """The K-buffer of a random cloud."""
    g = torch.Generator().manual_seed(1)
    uvz = torch.rand(4000, 3, generator=g) * torch.tensor([WIDTH, HEIGHT, 4.0])
    axes = pixel_axis(WIDTH), pixel_axis(HEIGHT)
    found = rasterize_screen(uvz, 2.3, *axes, 8, backend=backend)  # pyright: ignore[reportArgumentType]
    return [found.index, found.depth, found.distance]


def splats(backend: str) -> list[torch.Tensor]:
    """Picture and gradients of random Gaussians."""
    os.environ["KBUFFERS_BACKEND"] = backend
    g = torch.Generator().manual_seed(2)
    shapes = ((300, 3), (300, 4), (300, 3), (300,), (300, 3), (300, 3, 3))
    means, quats, log_scales, logits, sh0, sh_rest = leaves = [
        torch.randn(shape, generator=g).requires_grad_(True) for shape in shapes
    ]
    camera = Camera.look_at((1, -4, 1), (0, 0, 0), fov_x=0.8, width=WIDTH, height=HEIGHT)
    sizes = log_scales * 0.5 - 2.5
    projected = gaussians.project(means, quats, sizes, logits, sh0, sh_rest, camera)
    drawn = gaussians.splat_layers(projected, projected.rgb, WIDTH, HEIGHT, 8, 0)
    loss = drawn.image.square().sum() + drawn.alpha.sum()
    return [drawn.image.detach(), drawn.alpha.detach(), *torch.autograd.grad(loss, leaves)]


def main() -> int:
    """Check and report."""
    where = Path(render.__file__).resolve()
    assert not where.is_relative_to(REPOSITORY), f"{where} is the repository, not a wheel"
    for name in ("kb_cpu", "gs_cpu", "kfn_cpu", "disc_cpu"):
        print(f"{name}: {build.status(name)}")
        assert build.status(name).startswith("native (prebuilt, "), "not the library of the wheel"
    for found, wanted in zip(points("native"), points("torch"), strict=True):
        assert torch.equal(found, wanted), "points: not the bits of torch"
    for found, wanted in zip(splats("native"), splats("torch"), strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-5 * scale)
    for name in ("assets/scenes/lego/transforms_train.json", "assets/font/Inter-Regular.otf"):
        assert shipped(name).is_file(), f"{shipped(name)} is missing"
    command = Path(sysconfig.get_path("scripts"), "kbuffers")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"kbuffers {render.__version__}", done.stderr or done.stdout
    print(f"{where.parent}: points equal torch bit for bit, Gaussians agree, assets are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
