"""The network of BPCR and FrePCR with K-Buffers: points of a picture in, colours out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from render.kbuffer.types import KBuffer
from render.methods.npf.options import NpfOptions
from render.nets.encodings import HashGrid, SphericalHarmonics
from render.nets.kfn import Kfn
from render.nets.mlp import FrequencyModulatedMlp, PointMlp, RectificationMlp
from render.nets.unet import GatedUNet

_DISC_OPACITY = 0.9  # in the middle of a point, for each of 8 layers
_THICKNESS = 8.0  # of all layers together, in such discs
_MLP_CHUNK = 65536  # rows of F at a time when no gradient is needed


@dataclass(frozen=True)
class Rays:
    """Rays of a picture: origin [3], unit directions [H, W, 3], cos [H, W] (depth per length)."""

    origin: Tensor
    directions: Tensor
    cos: Tensor


@dataclass(frozen=True)
class NpfOutput:
    """What the network made of a picture.

    Args:
        rgb: [H, W, 3] float32, not clamped; ``color_skip`` leaves room for the background:
            show rgb + (1 - alpha) * background.
        alpha: [H, W] opacity of the points' colours; 1 without ``color_skip``.
        weight: [H, W, K] share of each layer, sums to 1 over valid layers, 0 where empty.
        features: [H, W, K, D] of the points, 0 where empty.
        rectified: [H, W, K, D] with the pixel's correction added.
    """

    rgb: Tensor
    alpha: Tensor
    weight: Tensor
    features: Tensor
    rectified: Tensor


class NpfNetwork(nn.Module):
    """F per point, T per pixel, KFN over the layers, U-Net over the picture.

    Args:
        options: sizes and switches.
        frequency_modulated: FrePCR's F instead of BPCR's.
        color_skip: the cloud has colours and the picture starts from them.
        center, radius: position of the scene; F sees (x - center) / radius.
        lower, upper: [3] box of the camera positions, for rectification version 1.
    """

    center: Tensor  # [3]
    radius: Tensor  # []

    def __init__(
        self,
        options: NpfOptions,
        *,
        frequency_modulated: bool,
        color_skip: bool,
        center: Tensor,
        radius: float,
        lower: Tensor,
        upper: Tensor,
    ) -> None:
        super().__init__()
        k, dim = options.k, options.dim
        self.k, self.dim, self.version = k, dim, options.version
        self.color_skip = color_skip
        self.register_buffer("center", center.float())
        self.register_buffer("radius", torch.tensor(float(radius)))
        mlp = FrequencyModulatedMlp if frequency_modulated else PointMlp
        self.mlp = mlp(dim, options.mlp_width, options.scaled_init)
        # K = 1 is the host: no rectification, no fusion.
        self.grid = HashGrid(lower, upper) if k > 1 and options.version == 1 else None
        self.harmonics = SphericalHarmonics()
        self.rect = RectificationMlp(self._rect_inputs(), dim) if k > 1 else None
        self.kfn = Kfn(k, dim, options.kfn_width, options.scaled_init) if k > 1 else None
        in_dim = dim + 4 if color_skip else dim  # colour and share of filled layers
        self.unet = GatedUNet(in_dim, 3, options.unet, options.unet_levels, zero_last=color_skip)

    def forward(self, kbuffer: KBuffer, rays: Rays, colors: Tensor | None = None) -> NpfOutput:
        """Picture of a K-buffer with at least one valid entry.

        Args:
            kbuffer: [H, W, k], k <= K; missing layers are empty.
            rays: of the same pixels.
            colors: [N, 3] of the points, needed with ``color_skip``.

        Raises:
            ValueError: for a K-buffer without entries; the caller decides before this call.
        """
        valid = self._widen(kbuffer.valid)  # [H, W, K], the one mask of gather and scatter
        height, width, k = valid.shape
        slots = valid.flatten().nonzero()[:, 0]  # [M] row-major (row, col, layer)
        if slots.numel() == 0:
            raise ValueError("the K-buffer is empty")
        depth = kbuffer.depth[kbuffer.valid]  # [M], same order
        pixel = slots // k  # [M]

        if self.kfn is None:  # host: every pixel asks for itself
            feature = self._query(pixel, depth, rays)
        else:
            # Query pruning: each visible point is asked for once, on the ray of its first pixel.
            # Its depth is the same in all its entries.
            ids, inverse, first = kbuffer.unique()
            depths = depth.new_empty(ids.shape).index_copy(0, inverse, depth)
            feature = self._query(first, depths, rays).index_select(0, inverse)
        features = feature.new_zeros(height * width * k, self.dim).index_copy(0, slots, feature)
        features = features.view(height, width, k, self.dim)
        rectified = self._rectify(features, valid, rays)

        layers = rectified.permute(2, 3, 0, 1).reshape(1, k * self.dim, height, width)
        if self.kfn is None:
            fused, mass = layers, valid.float()
        else:
            fused, mask = self.kfn(layers)
            mass = self.kfn.layer_mass(mask).float() * valid
        weight = mass / mass.sum(-1, keepdim=True).clamp(min=1e-8)
        if not self.color_skip:
            opaque = mass.new_ones(height, width)
            return NpfOutput(self._picture(fused), opaque, weight, features, rectified)
        if colors is None:
            raise ValueError("a network with color_skip needs the points' colours")
        # Fewer layers, each as much thicker: the object stays as opaque as with all of them.
        thickness = _THICKNESS * k / kbuffer.k * mass[..., : kbuffer.k]
        start, alpha = splat(kbuffer, colors, thickness)
        extra = torch.cat([start, alpha[..., None]], -1).movedim(-1, 0)[None].to(fused)
        rgb = start + self._picture(torch.cat([fused, extra], 1))
        return NpfOutput(rgb, alpha, weight, features, rectified)

    def _picture(self, x: Tensor) -> Tensor:
        """[1, C, H, W] -> [H, W, 3]."""
        return self.unet(x)[0].movedim(0, -1)

    def _widen(self, valid: Tensor) -> Tensor:
        """[H, W, k] -> [H, W, K] with empty layers behind."""
        if valid.shape[-1] > self.k:
            raise ValueError(f"{valid.shape[-1]} layers, the network has {self.k}")
        return nn.functional.pad(valid, (0, self.k - valid.shape[-1]))

    def _query(self, pixel: Tensor, depth: Tensor, rays: Rays) -> Tensor:
        """Features [M, D] at ``depth`` [M] on the rays of ``pixel`` [M] (row * W + col)."""
        directions = rays.directions.flatten(0, 1).index_select(0, pixel)
        length = depth / rays.cos.flatten().index_select(0, pixel)
        xyz = self._normalized(rays.origin + length[:, None] * directions)
        if torch.is_grad_enabled():
            return self.mlp(xyz, directions)
        chunks = zip(xyz.split(_MLP_CHUNK), directions.split(_MLP_CHUNK), strict=True)
        return torch.cat([self.mlp(*chunk) for chunk in chunks])

    def _normalized(self, xyz: Tensor) -> Tensor:
        return (xyz - self.center) / self.radius

    def _rect_inputs(self) -> int:
        return {1: 48, 2: 16, 3: 16, 4: 3}[self.version]

    def _rectify(self, features: Tensor, valid: Tensor, rays: Rays) -> Tensor:
        """Add T of a pixel's ray to all its layers where the first layer is valid."""
        if self.rect is None:
            return features
        height, width, _, dim = features.shape
        pixels = valid[..., 0].flatten().nonzero()[:, 0]  # [P]
        directions = rays.directions.flatten(0, 1).index_select(0, pixels)
        d = directions / rays.cos.flatten().index_select(0, pixels)[:, None]  # camera z is 1
        if self.version == 4:
            code = d
        elif self.version == 3:
            code = self.harmonics(d)
        elif self.version == 2:
            code = self.harmonics(self._normalized(rays.origin + d))
        else:
            assert self.grid is not None
            place = self.grid(rays.origin[None]).expand(pixels.numel(), -1)  # one camera, one row
            code = torch.cat([place, self.harmonics(d)], -1)
        correction = self.rect(code).to(features)
        plane = features.new_zeros(height * width, dim).index_copy(0, pixels, correction)
        return features + plane.view(height, width, 1, dim)


def splat(kbuffer: KBuffer, colors: Tensor, thickness: Tensor) -> tuple[Tensor, Tensor]:
    """The points themselves as a picture: soft discs composited front to back.

    A disc is opaque in its middle and fades to its rim. Depth order hides the far side of the
    object and faint rims soften its silhouette, so even without any training this is a picture.

    Args:
        kbuffer: [H, W, K].
        colors: [N, 3] of the points.
        thickness: [H, W, K] factor on the optical thickness of each layer, 1 = the disc as it is.

    Returns:
        Colour [H, W, 3] premultiplied with alpha, and alpha [H, W].
    """
    opacity = _DISC_OPACITY * (1 - kbuffer.distance.clamp(0, 1)) * kbuffer.valid
    optical = -torch.log1p(-opacity) * thickness  # [H, W, K]
    behind = torch.exp(-optical.cumsum(-1))  # light that passes layers 0..k
    before = torch.cat([torch.ones_like(behind[..., :1]), behind[..., :-1]], -1)
    weight = before - behind
    return (weight[..., None] * kbuffer.gather(colors)).sum(2), 1 - behind[..., -1]
