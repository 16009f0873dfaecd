"""How Gaussians on the screen become pixels: how much they are blurred, at how many spots.

A photograph's pixel is the mean over an area, a splat is worth what it is at one spot. Blurring
every Gaussian makes up for that where it is alone (EWA splatting, Zwicker et al., 2002), but not
where one hides another: there a pixel's colour jumps while its photograph fades, and a model that
learns to match the photographs at their pixels' centres is wrong between them. With ``samples``
spots along each side of a pixel the picture is composited on a finer grid and averaged.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from render.camera import Camera

LOW_PASS = 0.3  # px^2: what 3D Gaussian splatting adds to every covariance on the screen
AREA = 1 / 12  # px^2: variance of a pixel's own area
LEAST = 0.05  # px^2 of the finer grid: sharper Gaussians would fall between its spots
MAX_SAMPLES = 4


class Sampling(NamedTuple):
    """A cloud's way to the screen; by default that of 3D Gaussian splatting.

    Args:
        low_pass: variance of a pixel's filter, px^2: of the blur of every Gaussian and, with
            several samples, of their spread over the pixel.
        samples: spots along each side of a pixel; a pixel is the mean of ``samples**2``.
    """

    low_pass: float = LOW_PASS
    samples: int = 1

    @property
    def usable(self) -> bool:
        """Whether the kernels take it."""
        return 0 < self.low_pass < math.inf and 1 <= self.samples <= MAX_SAMPLES

    def blur(self) -> float:
        """What is left to add to the covariances, px^2 of the finer grid."""
        if self.samples == 1:
            return self.low_pass
        left = self.low_pass - AREA * (1 - self.samples**-2)
        return max(LEAST, left * self.samples**2)

    def once(self) -> Sampling:
        """One spot a pixel with the same filter."""
        return self._replace(samples=1)

    def finer(self, camera: Camera) -> Camera:
        """The camera of the finer grid."""
        if self.samples == 1:
            return camera
        return camera.resize(camera.width * self.samples, camera.height * self.samples)

    def mean(self, image: Tensor) -> Tensor:
        """Pixels [H, W, ...] of what was composited on the finer grid [H s, W s, ...]."""
        if self.samples == 1:
            return image
        return _Mean.apply(image, self.samples)

    def mean_depth(self, depth: Tensor, alpha: Tensor) -> Tensor:
        """Depth [H, W] of pixels from that of the finer grid, weighed by its alpha [H s, W s]."""
        if self.samples == 1:
            return depth
        return self.mean(depth * alpha) / self.mean(alpha).clamp(min=1e-12)


PUBLISHED = Sampling()  # that of 3D Gaussian splatting, for files that do not tell theirs


class _Mean(torch.autograd.Function):
    """Mean of blocks of ``s`` x ``s`` pixels, channels last: 10 times faster on a CPU than
    ``Tensor.mean`` over two axes and than ``avg_pool2d``."""

    @staticmethod
    def forward(ctx, image: Tensor, s: int) -> Tensor:
        ctx.s, rest = s, image.shape[2:]
        height, width = image.shape[0] // s, image.shape[1] // s
        rows = functools.reduce(torch.add, image.reshape(height, s, width, s, *rest).unbind(1))
        return functools.reduce(torch.add, rows.unbind(2)) / (s * s)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        s, (height, width, *rest) = ctx.s, gradient.shape
        spread = (gradient / (s * s))[:, None, :, None].expand(height, s, width, s, *rest)
        return spread.reshape(height * s, width * s, *rest), None
