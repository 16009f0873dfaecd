"""Other ways to draw Gaussians: smaller or larger, as solid ellipsoids, as their centres.

Only for looking: a style makes a view of the model and changes nothing in it, and the plain style
is the model itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from render.camera import Camera, quat_to_rotation
from render.export.splats import SplatRenderer
from render.gaussians.cloud import Cloud
from render.kbuffer.gaussians import Projected, splat
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection, Render
from render.methods.splatting import SplattingMethod, mean_depth, over

Shape = Literal["splat", "ellipse", "point"]
LayerValue = Literal["normal", "opacity", "transmittance"]

RADIUS = 2.0  # of an ellipsoid, in standard deviations
POINT = 1.5  # px: radius of a centre
SMALLEST_POINT = 0.71  # px: below it lies between the middles of four pixels
FAINTEST = 0.1  # opacity below which there is no ellipsoid or centre: haze would hide everything
RIM = 0.92  # squared share of the radius at which the dark rim begins
_CUT = 15.0  # the kernels leave out what is farther: exp(-15) of the opacity
_SOLID = 1e8  # an opacity that is still opaque there


@dataclass(frozen=True)
class Style:
    """How Gaussians are drawn.

    Args:
        scale: on the standard deviations; on the size of points.
        shape: the model's own picture, opaque ellipsoids with a dark rim, or centres.
    """

    scale: float = 1.0
    shape: Shape = "splat"

    def describe(self) -> str:
        """A few words; none for the plain style."""
        size = "" if self.scale == 1 else f"size x {self.scale:.2f}"
        shape = {"splat": "", "ellipse": "Ellipsoids", "point": "Centres"}[self.shape]
        return ", ".join(filter(None, (shape, size))).capitalize()


def cloud_of(renderer: object) -> Cloud | None:
    """The Gaussians that a method or renderer draws, if it does."""
    return renderer.cloud if isinstance(renderer, (SplattingMethod, SplatRenderer)) else None


def styled(
    renderer: SplattingMethod | SplatRenderer, style: Style
) -> SplattingMethod | SplatRenderer | SolidRenderer:
    """A view of ``renderer`` that draws in another style; for the plain one ``renderer``."""
    if style.shape != "splat":
        return SolidRenderer(renderer.cloud, renderer.near, renderer.k, style)
    if style.scale == 1:
        return renderer
    view = copy(renderer)
    view.cloud = _scaled(renderer.cloud, style.scale)
    return view


class SolidRenderer:
    """Draws opaque ellipsoids or centres, nearest on top, by the depth of their centres.

    Args:
        cloud: only read.
        near: smallest camera z that is drawn, scene units.
        k: layers of the inspector. What is opaque hides what lies behind it: two are filled.
        style: of shape ``ellipse`` or ``point``.
    """

    def __init__(self, cloud: Cloud, near: float, k: int, style: Style) -> None:
        self.k, self.near, self.style = k, near, style
        self.cloud = _on_cpu(cloud)  # the sharp edge is a property of our own kernels
        if style.shape == "ellipse":
            self.cloud = _scaled(self.cloud, style.scale)

    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """The picture over ``background`` [3]."""
        return self.view(camera, background, k)[0]

    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """What is in front, and what it covers."""
        return self._seen(camera, k)[0]

    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        """What :meth:`render` and :meth:`inspect` return."""
        inside, alpha = self._seen(camera, k)
        image = torch.einsum("hwk,hwkc->hwc", inside.weight, inside.color)
        rgb = over(image, alpha, background.to(image)).clamp(0, 1)
        return Render(rgb, alpha, mean_depth(inside.kbuffer)), inside

    @torch.no_grad()
    def _seen(self, camera: Camera, k: int | None) -> tuple[Inspection, Tensor]:
        """The layers, and what they cover [H, W]."""
        projected, rim = self._project(camera)
        layers = max(1, min(k or self.k, self.k))
        seen = splat(projected, projected.rgb, camera.width, camera.height, layers)
        found = seen.kbuffer
        assert found.weight is not None
        inner = (found.distance * (rim / _CUT)).clamp(max=1)  # squared share of the radius
        total = found.weight.sum(-1, keepdim=True).clamp(min=1e-12)
        weight = found.weight * seen.alpha[..., None] / total
        distance = torch.where(found.valid, inner, -1.0)
        kbuffer = KBuffer(found.index, found.depth, distance, weight)
        color = kbuffer.gather(projected.rgb.clamp(max=1))
        if self.style.shape == "ellipse":
            color = color * _shade(inner)[..., None]
        return Inspection(kbuffer, color, weight), seen.alpha

    def _project(self, camera: Camera) -> tuple[Projected, float]:
        """Splats that are opaque up to a sharp edge, and the kernel's sigma at ``distance`` 1."""
        with self.cloud.sampled_once():
            p = self.cloud.project(camera, self.near, antialias=False)
        splats, opacity = p.splats.clone(), p.splats[:, 5]
        if self.style.shape == "ellipse":
            splats[:, 2:5] *= 2 * _CUT / RADIUS**2
            at_faintest = (2 * (255 * opacity.clamp(min=FAINTEST)).log()).sqrt()
            extent = p.extent * (RADIUS / at_faintest)[:, None]
        else:
            radius = max(SMALLEST_POINT, POINT * self.style.scale)
            splats[:, 2:5] = torch.tensor([1.0, 0.0, 1.0]).to(splats) * (2 * _CUT / radius**2)
            extent = torch.full_like(p.extent, radius)
        shown = (p.extent > 0) & (opacity >= FAINTEST)[:, None]
        splats[:, 5] = _SOLID
        extent = torch.where(shown, extent, 0.0)
        return p._replace(splats=splats, extent=extent), math.log(255 * _SOLID)


def with_values(
    inside: Inspection, cloud: Cloud, camera: Camera, names: Iterable[LayerValue]
) -> Inspection:
    """``inside`` with what ``names`` asks for in ``extra``, [H, W, K, C]; 0 where empty.

    "normal" [.., 3]: the shortest axis, turned towards the camera, unit length, in the world's
    axes. "opacity" [.., 1]. Others are not the Gaussians' own.
    """
    table = {"normal": lambda: _normals(cloud, camera), "opacity": lambda: _opacities(cloud)}
    device = inside.kbuffer.index.device
    extra = {n: inside.kbuffer.gather(table[n]().to(device)) for n in names if n in table}
    return replace(inside, extra=inside.extra | extra) if extra else inside


@torch.no_grad()
def _normals(cloud: Cloud, camera: Camera) -> Tensor:
    """[N, 3]."""
    shortest = cloud.log_scales.argmin(1)
    axes = quat_to_rotation(cloud.quats)  # [N, 3, 3], an axis a column
    normal = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    away = torch.linalg.vecdot(normal, cloud.means - camera.position.to(normal)) > 0
    return torch.where(away[:, None], -normal, normal)


@torch.no_grad()
def _opacities(cloud: Cloud) -> Tensor:
    """[N, 1]."""
    return cloud.logits.sigmoid()[:, None]


def _scaled(cloud: Cloud, scale: float) -> Cloud:
    """A view of ``cloud`` with other sizes; all other parameters are its own."""
    view = copy(cloud)
    view.log_scales = cloud.log_scales.detach() + math.log(scale)
    return view


def _on_cpu(cloud: Cloud) -> Cloud:
    """A view of ``cloud``; copied only where it lies on a GPU."""
    view = copy(cloud)
    for name, tensor in cloud.tensors().items():
        setattr(view, name, tensor.detach().cpu())
    return view


def _shade(inner: Tensor) -> Tensor:
    """Brightness of a ball lit from the camera, with a dark rim; of the squared share of its
    radius."""
    light = 0.4 + 0.6 * (1 - inner).sqrt()
    return torch.where(inner > RIM, 0.35 * light, light)
