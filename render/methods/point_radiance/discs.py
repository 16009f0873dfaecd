"""Soft discs through a K-buffer: which part a disc has in a pixel, and what follows from it.

The rasteriser says who is at a pixel. Everything else is computed here from the positions, radii
and colours of those discs, so gradients reach all of them: a disc of radius r (pixels) whose
centre is d pixels away from that of the pixel covers the share ``1 - d^2 / r^2`` of what the
nearer layers let through. (A disc that is small against a pixel takes less: :func:`on_screen`.)
Colours are deferred: coefficients are composited first, and the sum is
turned into a colour with the direction of the pixel's ray. The order of depth has no gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer.composite import alpha_composite
from render.kbuffer.gaussians_torch import sh_basis
from render.kbuffer.rasterize import rasterize
from render.kbuffer.types import KBuffer
from render.methods.point_radiance import native

SH0 = 0.28209479177387814
HARMONICS = 8  # of degrees 1 and 2


class Screen(NamedTuple):
    """Discs on the screen of one camera."""

    uv: Tensor  # [N, 2] pixels
    radius: Tensor  # [N] pixels
    depth: Tensor  # [N] camera z, scene units
    peak: Tensor  # [N] share that a disc takes in its middle


class Picture(NamedTuple):
    """A picture over black, and how much of a background shines through."""

    rgb: Tensor  # [H, W, 3], not clamped
    light: Tensor  # [H, W]


def on_screen(
    xyz: Tensor,
    log_radius: Tensor,
    camera: Camera,
    *,
    perspective: bool = True,
    smallest: float = 0.0,
    near: float = 0.0,
) -> Screen:
    """Project discs [N, 3] with log radii [N]. Differentiable.

    Args:
        perspective: radii are scene units; else tangents of the angle they are seen under, the
            same at any depth.
        smallest: radius in pixels that is added in quadrature, so that no disc falls between the
            pixels' centres. Its share shrinks as its area grows: small discs fade.
        near: depths below it are replaced; the rasteriser leaves such discs out.
    """
    p = camera.to_camera(xyz)  # [N, 3]
    depth = p[:, 2]
    z = torch.where(depth > near, depth, torch.ones_like(depth))
    focal, center = camera.focal.to(xyz), camera.center.to(xyz)
    skew = float(camera.K[0, 1])
    u = focal[0] * p[:, 0] / z + skew * p[:, 1] / z + center[0]
    v = focal[1] * p[:, 1] / z + center[1]
    radius = log_radius.exp() * focal.mean()
    if perspective:
        radius = radius / z
    peak = torch.ones_like(radius)
    if smallest > 0:
        area = radius.square()
        peak = area / (area + smallest**2)
        radius = (area + smallest**2).sqrt()
    return Screen(torch.stack([u, v], 1), radius, depth, peak)


def find(xyz: Tensor, screen: Screen, camera: Camera, k: int, near: float) -> KBuffer:
    """The K nearest discs of every pixel; no gradient."""
    radius = screen.radius.detach().float()
    return rasterize(xyz.detach(), camera, k, radius=radius, mode="px", near=near)


def _rows(screen: Screen) -> Tensor:
    """[N, 4] u, v, 1 / r^2 and the share in the middle."""
    falloff = screen.radius.square().reciprocal()
    return torch.cat([screen.uv, torch.stack([falloff, screen.peak], 1)], 1)


def rows_of(index: Tensor, values: Tensor) -> Tensor:
    """``values`` [N, C] at ``index`` [P, K], [P, K, C]; 0 where the index is negative."""
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])  # [N + 1, C]
    slots = torch.where(index >= 0, index, len(values)).flatten()
    return padded.index_select(0, slots).view(*index.shape, values.shape[1])


def disc_alpha(index: Tensor, screen: Screen, centers: Tensor) -> Tensor:
    """[P, K] share that each disc takes of the light that reaches it; 0 where empty.

    Args:
        index: [P, K], -1 where empty.
        centers: [P, 2] of the pixels, in pixels.
    """
    u, v, falloff, peak = rows_of(index, _rows(screen)).unbind(-1)  # [P, K] each
    squared = (u - centers[:, :1]).square() + (v - centers[:, 1:]).square()
    # Rounding may put the rim of a disc on the other side than the rasteriser did.
    return peak * (1 - squared * falloff).clamp(min=0)  # empty rows have peak 0


def shade(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Colours [P, 3] of composited coefficients [P, 3 + 3 B]: base colour, then B harmonics of
    three channels each, with their values ``basis`` [P, B] in the pixels' directions."""
    base, harmonics = coefficients[:, :3], coefficients[:, 3:]
    if harmonics.shape[1] == 0:
        return base
    return base + torch.einsum("pb,pbc->pc", basis, harmonics.unflatten(1, (-1, 3)))


def pixel_basis(camera: Camera, constant: bool, corners: bool, dtype: torch.dtype) -> Tensor:
    """Harmonics of degrees 1 and 2, and before them 0 if ``constant``, of every pixel's ray.

    Args:
        corners: rays through the upper left corners of the pixels instead of their centres.

    Returns:
        [H * W, B].
    """
    if corners:
        camera = replace(camera, K=_moved(camera.K, 0.5))
    directions = camera.rays(dtype)[1].reshape(-1, 3)
    basis = sh_basis(directions, HARMONICS)
    return torch.cat([torch.full_like(basis[:, :1], SH0), basis], 1) if constant else basis


def _moved(K: Tensor, pixels: float) -> Tensor:
    K = K.clone()
    K[:2, 2] += pixels
    return K


def picture(
    kbuffer: KBuffer,
    screen: Screen,
    base: Tensor,
    sh: Tensor,
    camera: Camera,
    *,
    constant: bool = False,
    corners: bool = False,
) -> Picture:
    """Composite and shade what is in ``kbuffer``. Differentiable by positions and radii (through
    ``screen``) and by the colours.

    Args:
        base: [N, 3] base colours.
        sh: [N, 3 B] harmonics, red, green and blue of each; B = 0 leaves them out.
        constant: whether a constant is the first of them.
        corners: see :func:`pixel_basis`.
    """
    rows = _rows(screen)
    if native.serves(kbuffer.index, rows, base, sh):
        ray = camera.camera_to_world[:3, :3] @ torch.linalg.inv(camera.K)
        corner = 0.0 if corners else 0.5
        return Picture(*native.composite(kbuffer.index, rows, base, sh, ray.float(), corner))
    return picture_twin(kbuffer, screen, base, sh, camera, constant=constant, corners=corners)


def picture_twin(
    kbuffer: KBuffer,
    screen: Screen,
    base: Tensor,
    sh: Tensor,
    camera: Camera,
    *,
    constant: bool = False,
    corners: bool = False,
) -> Picture:
    """:func:`picture` in plain torch: the oracle of the tests, and what runs on a GPU."""
    index = kbuffer.index.flatten(0, 1)  # [H * W, K]
    pixels = (index[:, 0] >= 0).nonzero()[:, 0]  # [P]
    slots = index[pixels]
    centers = camera.pixel_centers(base.dtype).to(base.device).view(-1, 2)[pixels]
    alpha = disc_alpha(slots, screen, centers)
    values = torch.cat([base, sh], 1)
    out, _, light = alpha_composite(alpha, rows_of(slots, values))
    rgb = out[:, :3]
    if sh.shape[1]:
        basis = pixel_basis(camera, constant, corners, base.dtype).to(base.device)[pixels]
        rgb = shade(out, basis)
    size = (camera.height, camera.width)
    whole = base.new_zeros(len(index), 3).index_copy(0, pixels, rgb)
    left = base.new_ones(len(index)).index_copy(0, pixels, light)
    return Picture(whole.view(*size, 3), left.view(size))


def gradient_loss(image: Tensor, target: Tensor) -> Tensor:
    """How differently two pictures [H, W, 3] change over 1, 2 and 3 pixels: the mean absolute
    difference of their finite differences along x plus that along y, mean of the three steps."""
    error = image - target
    total = error.new_zeros(())
    for step in (1, 2, 3):
        for axis in (0, 1):
            size = error.shape[axis]
            if size > step:
                ahead, behind = (
                    error.narrow(axis, step, size - step),
                    error.narrow(axis, 0, size - step),
                )
                total = total + (ahead - behind).abs().mean()
    return total / 3


def silhouette(image: Tensor, background: Tensor) -> Tensor:
    """Soft silhouette [H, W] of a picture [H, W, 3]: tanh of 5 times its largest difference from
    the background [3] in any channel. On black this is the authors' formula."""
    return torch.tanh(5 * (image - background).abs().amax(-1))
