"""Gaussians as the PLY of 3D Gaussian splatting, which other viewers open.

One row a Gaussian, float32: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* channel by channel (all red
harmonics first), opacity (logit), scale_0..2 (logarithms), rot_0..3 (w x y z). Comments tell
the sampling that they were trained with; viewers that do not read it blur them a little more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from render.camera import rotation_to_quat
from render.errors import UserError
from render.files import atomic_write
from render.gaussians.cloud import COLORS, GEOMETRY, Cloud
from render.gaussians.harmonics import HARMONICS, rotate_harmonics
from render.scenes.types import PointCloud


def is_splat_cloud(points: PointCloud) -> bool:
    """Whether the file had everything that a 3D Gaussian needs."""
    found = points.gaussians or {}
    return all(
        name in found and found[name].shape[1] == width
        for name, width in (("f_dc", 3), ("opacity", 1), ("scale", 3), ("rotation", 4))
    )


def from_points(points: PointCloud, device: torch.device | None = None) -> Cloud:
    """The Gaussians of a file that :func:`is_splat_cloud` accepts.

    Raises:
        UserError: view-dependent colours of another number than degrees 0 to 3 have.
    """
    found = points.gaussians
    assert found is not None and is_splat_cloud(points)
    rest = found.get("f_rest", found["f_dc"][:, :0])  # [N, 3 B]
    if rest.shape[1] % 3 or rest.shape[1] // 3 not in HARMONICS:
        raise UserError(
            f"{points.source or 'the file'}: expected 0, 9, 24 or 45 properties f_rest_*, "
            f"found {rest.shape[1]}; write the file again with whole degrees."
        )
    tensors = {
        "means": points.xyz,
        "quats": found["rotation"],
        "log_scales": found["scale"],
        "logits": found["opacity"][:, 0],
        "sh0": found["f_dc"],
        "sh_rest": rest.unflatten(1, (3, -1)).transpose(1, 2),  # [N, B, 3]
    }
    device = device or torch.device("cpu")
    tensors = {name: t.float().contiguous().to(device) for name, t in tensors.items()}
    return Cloud(tensors, points.sampling)


def write_ply(path: Path, cloud: Cloud, to_file: Tensor | None = None) -> None:
    """Write a cloud's geometry and colours; features of a network have no place there.

    Args:
        to_file: [4, 4] from the scene's coordinates to those to write, a similarity. Without it
            nothing is computed: what is read back is bit for bit what was written.

    Raises:
        OSError: disk full or not writable.
    """
    tensors = {name: getattr(cloud, name).detach().cpu() for name in GEOMETRY + COLORS}
    if to_file is not None and not torch.equal(to_file, torch.eye(4).to(to_file)):
        tensors = moved(tensors, to_file)
    n = len(cloud)
    columns: dict[str, Tensor] = {}

    def add(names: list[str], values: Tensor) -> None:
        columns.update(zip(names, values.float().unbind(1), strict=True))

    add(["x", "y", "z"], tensors["means"])
    add(["nx", "ny", "nz"], torch.zeros(n, 3))
    add([f"f_dc_{i}" for i in range(3)], tensors["sh0"])
    rest = tensors["sh_rest"].transpose(1, 2).reshape(n, -1)  # channel-major
    add([f"f_rest_{i}" for i in range(rest.shape[1])], rest)
    add(["opacity"], tensors["logits"][:, None])
    add([f"scale_{i}" for i in range(3)], tensors["log_scales"])
    add([f"rot_{i}" for i in range(4)], tensors["quats"])
    rows = np.empty(n, dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        rows[name] = values.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    sampling = cloud.sampling
    comments = [f"low_pass {sampling.low_pass:g} px^2", f"samples {sampling.samples} a side"]
    content = PlyData([PlyElement.describe(rows, "vertex")], byte_order="<", comments=comments)
    atomic_write(path, lambda temporary: content.write(str(temporary)))


def moved(tensors: dict[str, Tensor], similarity: Tensor) -> dict[str, Tensor]:
    """Gaussians after a rotation, a scaling and a translation [4, 4] of the world."""
    linear, shift = similarity[:3, :3].double(), similarity[:3, 3].double()
    factor = linear.det().abs() ** (1 / 3)
    rotation = linear / factor  # [3, 3]
    out = dict(tensors)
    out["means"] = (tensors["means"].double() @ linear.T + shift).float()
    out["log_scales"] = (tensors["log_scales"].double() + factor.log()).float()
    out["quats"] = quat_product(rotation_to_quat(rotation), tensors["quats"].double()).float()
    out["sh_rest"] = rotate_harmonics(tensors["sh_rest"], rotation)
    return out


def quat_product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product [..., 4], (w, x, y, z): the rotation b, then a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )
