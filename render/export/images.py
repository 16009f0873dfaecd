"""Pictures: saving, placing side by side, and colours for numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from render.files import atomic_write

# Nine samples of viridis (S. van der Walt and N. Smith, CC0), perceptually uniform.
_VIRIDIS = (
    torch.tensor(
        [
            (68, 1, 84),
            (71, 44, 122),
            (59, 81, 139),
            (44, 113, 142),
            (33, 144, 141),
            (39, 173, 129),
            (92, 200, 99),
            (170, 220, 50),
            (253, 231, 37),
        ]
    )
    .float()
    .div(255)
)


def colorize(values: Tensor) -> Tensor:
    """Viridis colours [..., 3] of values [...] in [0, 1]; values outside take the end colours."""
    position = values.clamp(0, 1) * (len(_VIRIDIS) - 1)
    low = position.floor().long().clamp(max=len(_VIRIDIS) - 2)
    fraction = (position - low)[..., None]
    return _VIRIDIS[low] * (1 - fraction) + _VIRIDIS[low + 1] * fraction


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
