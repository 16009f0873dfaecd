"""Training targets: a view at the wanted resolution, whole or as a window."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from render.camera import Camera
from render.scenes.types import View

SMALLEST_SIDE = 96  # px; no picture is learnt coarser than this
MOST_HALVINGS = 3


def halvings(width: int, height: int) -> int:
    """How often a picture is halved for the first training steps."""
    count = 0
    while count < MOST_HALVINGS and min(width, height) >> (count + 1) >= SMALLEST_SIDE:
        count += 1
    return count


def coarse_view(view: View, level: int, background: Tensor) -> tuple[Camera, Tensor]:
    """Camera and photograph [H, W, 3] over ``background`` [3], halved ``level`` times.

    Pixels are averaged in blocks of 2^level; a rest that fills no block is cut off on the right
    and below, from camera and photograph alike, so that they stay aligned exactly.
    """
    target = view.target(background)
    if level == 0:
        return view.camera, target
    s = 1 << level
    h, w = target.shape[0] // s, target.shape[1] // s
    camera = view.camera.crop(0, 0, w * s, h * s).resize(w, h)
    image = target[: h * s, : w * s].permute(2, 0, 1)[None]
    return camera, F.avg_pool2d(image, s)[0].permute(1, 2, 0)


def random_window(
    camera: Camera, target: Tensor, max_pixels: int, generator: torch.Generator
) -> tuple[Camera, Tensor]:
    """A window of at most ``max_pixels`` with the picture's aspect, anywhere in it."""
    h, w = target.shape[:2]
    if h * w <= max_pixels:
        return camera, target
    scale = (max_pixels / (h * w)) ** 0.5
    ch, cw = max(1, int(h * scale)), max(1, int(w * scale))
    y = int(torch.randint(h - ch + 1, (1,), generator=generator))
    x = int(torch.randint(w - cw + 1, (1,), generator=generator))
    return camera.crop(x, y, cw, ch), target[y : y + ch, x : x + cw]
