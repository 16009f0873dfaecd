"""Pictures: saving, placing side by side, and colours for numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from render.files import atomic_write

_ENTRIES = 256


def _ramp(samples: str) -> Tensor:
    """[256, 3] between evenly spaced samples "rrggbb rrggbb ..."."""
    anchors = torch.tensor([list(bytes.fromhex(sample)) for sample in samples.split()]) / 255
    ramp = F.interpolate(anchors.T[None], _ENTRIES, mode="linear", align_corners=True)
    return ramp[0].T.contiguous()


# Nine samples each of two maps of S. van der Walt and N. Smith (CC0), perceptually uniform.
VIRIDIS = _ramp("440154 472c7a 3b518b 2c718e 21908d 27ad81 5cc863 aadc32 fde725")
INFERNO = _ramp("000004 210c4a 56106e 89226a bb3754 e35932 f98c0a f9c932 fcffa4")


def colorize(values: Tensor, colors: Tensor = VIRIDIS) -> Tensor:
    """Colours [..., 3] of values [...] in [0, 1] from a map ``colors`` [n, 3].

    The map is cut into n equal parts. Values outside take the end colours, NaN the first.
    """
    entry = (values.clamp(0, 1).nan_to_num(0) * len(colors)).int().clamp(max=len(colors) - 1)
    return colors.index_select(0, entry.flatten()).view(*values.shape, 3)


def to_uint8(image: Tensor) -> np.ndarray:
    """uint8 [H, W, 3] of an image [H, W, 3] in [0, 1], rounded."""
    return (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def save_image(path: Path, image: Tensor) -> None:
    """Write [H, W, 3] in [0, 1] as PNG or whatever the suffix says."""
    save_pil(path, Image.fromarray(to_uint8(image)))


def save_pil(path: Path, image: Image.Image) -> None:
    """Write a Pillow image in the format of the suffix; always a whole file."""
    atomic_write(path, lambda temporary: image.save(temporary))


def side_by_side(images: list[Tensor], gap: int = 4) -> Tensor:
    """Images [H, W_i, 3] of one height in a row on white, ``gap`` pixels apart."""
    spacer = torch.ones(images[0].shape[0], gap, 3)
    row: list[Tensor] = []
    for image in images:
        row += [image.cpu(), spacer]
    return torch.cat(row[:-1], 1)
