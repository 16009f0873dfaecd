"""The Gaussians: parameters, their start from a point cloud, their state."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.kbuffer.gaussians import Projected, project
from render.methods.kbuffer.options import KBufferOptions
from render.scenes.types import PointCloud

SH0 = 0.28209479177387814  # value of the constant spherical harmonic
NAMES = ("means", "quats", "log_scales", "logits", "sh0", "sh_rest", "features")


class Cloud:
    """N Gaussians as leaf tensors, one attribute each.

    Attributes:
        means [N, 3], quats [N, 4] (w, x, y, z), log_scales [N, 3], logits [N] (opacity),
        sh0 [N, 3] and sh_rest [N, B, 3] (colour), features [N, F] (for the fusion network).
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logits: Tensor
    sh0: Tensor
    sh_rest: Tensor
    features: Tensor

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.replace(tensors)

    def __len__(self) -> int:
        return self.means.shape[0]

    def replace(self, tensors: dict[str, Tensor]) -> None:
        """Set all parameters; each becomes a new leaf that requires grad."""
        for name in NAMES:
            setattr(self, name, tensors[name].detach().clone().requires_grad_(True))

    def tensors(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return {name: getattr(self, name) for name in NAMES}

    def project(self, camera: Camera, near: float, antialias: bool) -> Projected:
        """Screen-space splats and colours; see ``render.kbuffer.gaussians.project``."""
        return project(
            self.means,
            self.quats,
            self.log_scales,
            self.logits,
            self.sh0,
            self.sh_rest,
            camera,
            near=near,
            antialias=antialias,
        )

    @classmethod
    def from_points(
        cls,
        points: PointCloud,
        count: int,
        radius: float,
        options: KBufferOptions,
        device: torch.device,
        generator: torch.Generator,
    ) -> Cloud:
        """Round Gaussians at (a random subset of) the points.

        Args:
            count: at most so many.
            radius: of the scene; bounds the size of isolated points.

        Raises:
            UserError: when there is no point at all.
        """
        n = len(points)
        if n == 0:
            raise UserError(f"{points.source or 'the point cloud'}: expected points, found none.")
        if n > count:
            points = points.subset(torch.randperm(n, generator=generator)[:count])
            n = count
        xyz = points.xyz.float()
        rgb = points.rgb if points.rgb is not None else torch.full_like(xyz, 0.5)
        volume = points.fills_volume
        opacity = options.volume_opacity if volume else options.surface_opacity
        relative = options.volume_scale if volume else options.surface_scale
        scale = neighbour_distance(xyz.numpy(), radius) * relative
        rest = (options.sh_degree + 1) ** 2 - 1
        tensors = {
            "means": xyz,
            "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
            "log_scales": torch.from_numpy(np.log(scale)).float()[:, None].repeat(1, 3),
            "logits": torch.full((n,), math.log(opacity / (1 - opacity))),
            "sh0": (rgb.float() - 0.5) / SH0,
            "sh_rest": torch.zeros(n, rest, 3),
            "features": 0.1 * torch.randn(n, options.features, generator=generator),
        }
        return cls({name: tensor.to(device) for name, tensor in tensors.items()})


def neighbour_distance(xyz: np.ndarray, radius: float) -> np.ndarray:
    """Root mean square distance [N] to the 3 nearest other points, within (1e-4, 0.05) radii."""
    k = min(4, len(xyz))
    if k < 2:
        return np.full(len(xyz), 0.01 * radius)
    distance = KDTree(xyz).query(xyz, k, workers=-1)[0][:, 1:]
    return np.sqrt((distance**2).mean(1)).clip(1e-4 * radius, 0.05 * radius)
