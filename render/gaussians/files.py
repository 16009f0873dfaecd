"""Gaussians in files of other programs: PLY as it is, ``.spz`` and ``.splat`` rounded to bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from render.files import atomic_write
from render.gaussians.cloud import COLORS, GEOMETRY, Cloud
from render.gaussians.ply import moved, write_ply
from render.scenes.clouds.splat import splat_bytes
from render.scenes.clouds.spz import spz_bytes

SUFFIXES = (".ply", ".spz", ".splat")


def write_gaussians(path: Path, cloud: Cloud, to_file: Tensor | None = None) -> None:
    """Write geometry and colours in the format that the suffix names; PLY for all others.

    PLY keeps every bit (:func:`render.gaussians.ply.write_ply`). ``.spz`` rounds everything to
    8 to 24 bits, ``.splat`` all but positions and sizes to 8, and has no view-dependent colours.

    Args:
        to_file: [4, 4] from the scene's coordinates to those to write, a similarity.

    Raises:
        OSError: disk full or not writable.
        ValueError: ``.spz`` cannot hold them.
    """
    encode = {".spz": spz_bytes, ".splat": splat_bytes}.get(path.suffix.lower())
    if encode is None:
        write_ply(path, cloud, to_file)
        return
    tensors = {name: getattr(cloud, name).detach().cpu() for name in GEOMETRY + COLORS}
    if to_file is not None and not torch.equal(to_file, torch.eye(4).to(to_file)):
        tensors = moved(tensors, to_file)
    rest = tensors["sh_rest"].transpose(1, 2).reshape(len(cloud), -1)  # channel-major
    content = encode(
        {
            "xyz": tensors["means"].numpy(),
            "f_dc": tensors["sh0"].numpy(),
            "f_rest": rest.numpy(),
            "opacity": tensors["logits"][:, None].numpy(),
            "scale": tensors["log_scales"].numpy(),
            "rotation": tensors["quats"].numpy(),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda temporary: temporary.write_bytes(content))
