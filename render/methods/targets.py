"""Training targets: a view at the wanted resolution, whole or as a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from render.camera import Camera
from render.scenes.types import View

SMALLEST_SIDE = 96  # px; no picture is learnt coarser than this
MOST_HALVINGS = 3
MARGIN = 0.03  # around what the mask shows, in shares of the picture
WHOLE_PICTURE = 0.1  # share of the steps that learn the whole picture


def halvings(width: int, height: int) -> int:
    """How often a picture is halved for the first training steps."""
    count = 0
    while count < MOST_HALVINGS and min(width, height) >> (count + 1) >= SMALLEST_SIDE:
        count += 1
    return count


def coarse_view(view: View, level: int, background: Tensor) -> tuple[Camera, Tensor]:
    """Camera and photograph [H, W, 3] over ``background`` [3], halved ``level`` times.

    Pixels are averaged in blocks of 2^level; a rest that fills no block is cut off on the right
    and below, from camera and photograph alike, so that they stay aligned exactly. Pixels that
    the view's mask leaves out are NaN (see :func:`leave_out`), and so is a block with one of them.
    """
    target = marked_target(view, background)
    if level == 0:
        return view.camera, target
    s = 1 << level
    h, w = target.shape[0] // s, target.shape[1] // s
    camera = view.camera.crop(0, 0, w * s, h * s).resize(w, h)
    image = target[: h * s, : w * s].permute(2, 0, 1)[None]
    return camera, F.avg_pool2d(image, s)[0].permute(1, 2, 0)


def marked_target(view: View, background: Tensor) -> Tensor:
    """The photograph [H, W, 3] over ``background`` [3], NaN where the view's mask leaves it out."""
    target, ignored = view.target(background), view.left_out()
    return target if ignored is None else target.masked_fill(ignored[..., None], math.nan)


def leave_out(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor, float]:
    """Picture and photograph [H, W, 3] for losses, so that pixels with a NaN target say nothing.

    There both become the picture's own value without a gradient. So their difference is zero
    and what neighbours see through the window of SSIM is what the model shows, not the
    photograph: no photograph value under the mask reaches any gradient. Every other pixel
    weighs as much as without a mask.

    Returns:
        Both, and the share of pixels that count, for :func:`counted_mean`. Without a mask the
        very tensors that came in, and 1.
    """
    ignored = target[..., :1].isnan()
    if not bool(ignored.any()):
        return image, target, 1.0
    shown = image.detach()
    share = 1.0 - float(ignored.float().mean())
    return torch.where(ignored, shown, image), torch.where(ignored, shown, target), share


def counted_mean(mean: float, share: float) -> float:
    """A mean over all pixels, of something that is 0 under the mask, for those that count."""
    return mean / share if share > 0 else 0.0


def content_box(view: View) -> tuple[float, float, float, float]:
    """Rows y0..y1 and columns x0..x1 of what the mask shows, in shares of the picture.

    A margin is added on each side, where colours that spill over the edge are punished.
    """
    h, w = view.camera.height, view.camera.width
    hit = view.pixels()[..., 3] > 0  # [H, W]
    ignored = view.left_out()
    if ignored is not None:
        hit = hit & ~ignored
    rows, columns = hit.any(1).nonzero()[:, 0], hit.any(0).nonzero()[:, 0]
    if rows.numel() == 0:
        return 0.0, 1.0, 0.0, 1.0
    y0, y1 = int(rows[0]) / h - MARGIN, (int(rows[-1]) + 1) / h + MARGIN
    x0, x1 = int(columns[0]) / w - MARGIN, (int(columns[-1]) + 1) / w + MARGIN
    return max(y0, 0.0), min(y1, 1.0), max(x0, 0.0), min(x1, 1.0)


def training_window(
    camera: Camera,
    target: Tensor,
    box: tuple[float, float, float, float],
    max_pixels: int,
    generator: torch.Generator,
) -> tuple[Camera, Tensor]:
    """The part of a picture that one step learns: mostly what the mask shows.

    Args:
        target: [H, W, 3].
        box: from :func:`content_box`; now and then the whole picture is taken instead, so that
            nothing grows unseen outside.
        max_pixels: of the part; larger ones are learnt in random windows of this size.
    """
    h, w = target.shape[:2]
    y0, y1, x0, x1 = 0, h, 0, w
    if float(torch.rand(1, generator=generator)) >= WHOLE_PICTURE:
        y0, y1 = int(box[0] * h), math.ceil(box[1] * h)
        x0, x1 = int(box[2] * w), math.ceil(box[3] * w)
    ch, cw = y1 - y0, x1 - x0
    if ch * cw > max_pixels:
        scale = (max_pixels / (ch * cw)) ** 0.5
        ch = min(max(1, int(ch * scale)), max_pixels)
        cw = min(max(1, int(cw * scale)), max_pixels // ch)  # slivers too stay below the limit
        y0 += int(torch.randint(y1 - y0 - ch + 1, (1,), generator=generator))
        x0 += int(torch.randint(x1 - x0 - cw + 1, (1,), generator=generator))
    if (ch, cw) == (h, w):
        return camera, target
    return camera.crop(x0, y0, cw, ch), target[y0 : y0 + ch, x0 : x0 + cw]
