"""The Gaussians: parameters, their start from a point cloud, their state, and the optimiser's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from render.camera import Camera, quat_to_rotation
from render.errors import UserError
from render.kbuffer.gaussians import Projected, project
from render.sampling import PUBLISHED, Sampling
from render.scenes.types import PointCloud

SH0 = 0.28209479177387814  # value of the constant spherical harmonic
OUTSIDE = 8.0  # times larger than Gaussians of the scene itself those of its surroundings may be
GEOMETRY = ("means", "quats", "log_scales", "logits")
COLORS = ("sh0", "sh_rest")


class Cloud:
    """N Gaussians as leaf tensors, one attribute each.

    Attributes:
        means [N, 3], quats [N, 4] (w, x, y, z), log_scales [N, 3], logits [N] (opacity),
        sh0 [N, 3] and sh_rest [N, B, 3] (colour), and features [N, F] for a network, if any.
        sampling: how they become pixels.
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logits: Tensor
    sh0: Tensor
    sh_rest: Tensor
    features: Tensor

    def __init__(self, tensors: dict[str, Tensor], sampling: Sampling = PUBLISHED) -> None:
        self.sampling = sampling
        self.replace(tensors)

    def __len__(self) -> int:
        return self.means.shape[0]

    def replace(self, tensors: dict[str, Tensor]) -> None:
        """Set all parameters; each becomes a new leaf that requires grad."""
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            setattr(self, name, tensor.detach().clone().requires_grad_(True))

    @contextmanager
    def sampled_once(self) -> Iterator[None]:
        """Inside, pictures have one spot a pixel: for those that need not last."""
        usual = self.sampling
        self.sampling = usual.once()
        try:
            yield
        finally:
            self.sampling = usual

    def tensors(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return {name: getattr(self, name) for name in self.names}

    def rebuild(self, optimizer: torch.optim.Optimizer, rows: Tensor, fresh: Tensor) -> None:
        """From now on be the Gaussians at ``rows``, and let the optimiser follow.

        Args:
            optimizer: with a group of each parameter's name; other groups are left alone.
            rows: [M] int64, which may leave out, repeat and reorder.
            fresh: [M] bool: rows that begin anew. Their first moments are zero; the second ones
                are kept, or their next update would be many times too large.
        """
        before = self.tensors()
        self.replace({name: tensor.detach()[rows] for name, tensor in before.items()})
        for group in optimizer.param_groups:
            if group["name"] not in before:
                continue
            state = optimizer.state.pop(before[group["name"]], None)
            parameter = getattr(self, group["name"])
            group["params"] = [parameter]
            if state:
                optimizer.state[parameter] = {k: _rows(k, v, rows, fresh) for k, v in state.items()}

    def sort(self, optimizer: torch.optim.Optimizer) -> None:
        """Put neighbours in space beside each other in memory: the kernels miss the cache less."""
        rows = morton_order(self.means.detach())
        fresh = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self.rebuild(optimizer, rows, fresh)

    @torch.no_grad()
    def offsets(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """A random offset [M, 3] from the centre of each of ``rows``, drawn from the Gaussian."""
        scales = self.log_scales[rows].exp()
        noise = torch.randn(scales.shape, generator=generator).to(scales)
        return (quat_to_rotation(self.quats[rows]) @ (noise * scales)[..., None])[..., 0]

    def project(self, camera: Camera, near: float, antialias: bool, sh_rest: int = 15) -> Projected:
        """Screen-space splats and colours; see ``render.kbuffer.gaussians.project``.

        Args:
            camera: of the picture; the splats are in pixels of the sampling's finer grid.
            sh_rest: view-dependent harmonics at most that are used: 0, 3, 8 or 15.
        """
        return project(
            self.means,
            self.quats,
            self.log_scales,
            self.logits,
            self.sh0,
            self.sh_rest[:, :sh_rest],
            self.sampling.finer(camera),
            near=near,
            eps2d=self.sampling.blur(),
            antialias=antialias,
        )

    @classmethod
    def from_points(
        cls,
        points: PointCloud,
        count: int,
        radius: float,
        device: torch.device,
        generator: torch.Generator,
        *,
        scale: float,
        opacity: float,
        sh_degree: int,
        features: int | None = None,
    ) -> Cloud:
        """Round Gaussians at (a random subset of) the points.

        Args:
            count: at most so many.
            radius: of the scene; bounds the size of isolated points.
            scale: size as a share of the mean distance of the 3 nearest neighbours.
            opacity: of each, in (0, 1).
            sh_degree: of the view-dependent colours, 0 to 3; they start at zero.
            features: F, random channels for a network; None: there is no network.

        Raises:
            UserError: when there is no point at all.
        """
        n = len(points)
        if n == 0:
            raise UserError(f"{points.source or 'the point cloud'}: expected points, found none.")
        if n > count:
            points = points.subset(torch.randperm(n, generator=generator)[:count])
            n = count
        points = points.subset(morton_order(points.xyz))
        xyz = points.xyz.float()
        rgb = points.rgb if points.rgb is not None else torch.full_like(xyz, 0.5)
        size = neighbour_distance(xyz.numpy(), radius) * scale
        tensors = {
            "means": xyz,
            "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
            "log_scales": torch.from_numpy(np.log(size)).float()[:, None].repeat(1, 3),
            "logits": torch.full((n,), math.log(opacity / (1 - opacity))),
            "sh0": (rgb.float() - 0.5) / SH0,
            "sh_rest": torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3),
        }
        if features is not None:
            tensors["features"] = 0.1 * torch.randn(n, features, generator=generator)
        return cls({name: tensor.to(device) for name, tensor in tensors.items()})


def _rows(name: str, value: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """Adam's state ``name`` for other rows."""
    if value.ndim == 0:  # the step counter
        return value
    taken = value[rows]
    if name == "exp_avg":
        taken[fresh] = 0.0
    return taken


def neighbour_distance(xyz: np.ndarray, radius: float) -> np.ndarray:
    """Root mean square distance [N] to the 3 nearest other points.

    Within (1e-4, 0.05) radii; what lies far outside may be larger in proportion, up to
    ``OUTSIDE`` times.
    """
    k = min(4, len(xyz))
    if k < 2:
        return np.full(len(xyz), 0.01 * radius)
    distance = KDTree(xyz).query(xyz, k, workers=-1)[0][:, 1:]
    reach = (np.linalg.norm(xyz - np.median(xyz, 0), axis=1) / 2).clip(radius, OUTSIDE * radius)
    return np.sqrt((distance**2).mean(1)).clip(1e-4 * radius, 0.05 * reach)


def morton_order(xyz: Tensor) -> Tensor:
    """Rows [N] int64 of ``xyz`` [N, 3] along a Z-order curve; NaNs come anywhere."""
    low, high = xyz.nan_to_num().amin(0), xyz.nan_to_num().amax(0)
    cells = ((xyz - low) / (high - low).clamp(min=1e-30) * 1023).nan_to_num().clamp(0, 1023).long()
    code = torch.zeros_like(cells[:, 0])
    for bit in range(10):
        for axis in range(3):
            code |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return code.argsort(stable=True)
