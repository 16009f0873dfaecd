"""Pictures of the discs, and what lies behind them: for training, viewing and measuring alike."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection, Method, Render
from render.methods.point_radiance import discs, refine
from render.methods.point_radiance.options import PointRadianceOptions
from render.methods.point_radiance.points import Points
from render.methods.targets import marked_target
from render.scenes.types import View
from render.training.stages import stage as timed

_SLOTS = 1 << 19  # slots of a picture that are shaded at a time


class DiscPictures(Method):
    """What a method needs to draw its discs.

    Attributes:
        points: the discs.
        views: that it learns from.
        near: smallest depth that is drawn, scene units.
        perspective: whether radii are scene units; else tangents, the same at any depth.
        harmonics: whether colours depend on the direction by now.
    """

    layer_values: ClassVar[tuple[str, ...]] = ("opacity", "transmittance")
    options: PointRadianceOptions
    points: Points
    views: list[View]
    near: float
    perspective: bool
    harmonics: bool

    def _picture(self, camera: Camera, background: Tensor) -> Tensor | None:
        """[H, W, 3] with graph, not clamped; None where no pixel has a point."""
        with timed("rasterise"):
            screen = self._on_screen(camera)
            kbuffer = discs.find(self.points.xyz, screen, camera, self.options.k, self.near)
            if not bool(kbuffer.valid[..., 0].any()):
                return None
        with timed("network"):
            seen = self._composited(kbuffer, screen, camera)
            return seen.rgb + seen.light[..., None] * background

    def _composited(self, kbuffer: KBuffer, screen: discs.Screen, camera: Camera) -> discs.Picture:
        o, points = self.options, self.points
        sh = points.sh if self.harmonics else points.sh[:, :0]
        return discs.picture(
            kbuffer,
            screen,
            points.base,
            sh,
            camera,
            constant=o.sh_constant,
            corners=o.ray_corners,
        )

    def _values(self) -> Tensor:
        """[N, C] what is composited: the base colour and, in their stages, the harmonics."""
        if not self.harmonics:
            return self.points.base
        return torch.cat([self.points.base, self.points.sh], 1)

    def _basis(self, camera: Camera) -> Tensor:
        """[H * W, B] of the pixels' rays."""
        o, dtype = self.options, self.points.base.dtype
        return discs.pixel_basis(camera, o.sh_constant, o.ray_corners, dtype).to(self.device)

    def _on_screen(self, camera: Camera) -> discs.Screen:
        return discs.on_screen(
            self.points.xyz,
            self.points.radius,
            camera,
            perspective=self.perspective,
            smallest=self.options.smallest_px,
            near=self.near,
        )

    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """Discs beyond the K nearest count as not there: what they would cover is background."""
        kbuffer, screen = self._found(camera, k)
        return self._rendered(kbuffer, screen, camera, background)

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """Layers with their colours and shares. ``extra``: "opacity" [H, W, K, 1], the share a
        disc takes of the light that reaches it; "transmittance" [H, W, K, 1], that light."""
        return self._inspected(*self._found(camera, k), camera)

    @torch.no_grad()
    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        kbuffer, screen = self._found(camera, k)
        inside = self._inspected(kbuffer, screen, camera)
        return self._rendered(kbuffer, screen, camera, background), inside

    def _found(self, camera: Camera, k: int | None) -> tuple[KBuffer, discs.Screen]:
        layers = self.options.k if k is None else max(1, min(k, self.options.k))
        screen = self._on_screen(camera)
        return discs.find(self.points.xyz, screen, camera, layers, self.near), screen

    def _rendered(
        self, kbuffer: KBuffer, screen: discs.Screen, camera: Camera, background: Tensor
    ) -> Render:
        seen = self._composited(kbuffer, screen, camera)
        rgb = seen.rgb + seen.light[..., None] * background.to(seen.rgb)
        weight = self._weights(kbuffer, screen, camera)[1]
        depth = torch.linalg.vecdot(weight, kbuffer.depth) / weight.sum(-1).clamp(min=1e-12)
        return Render(rgb.clamp(0, 1), 1 - seen.light, depth)

    def _weights(
        self, kbuffer: KBuffer, screen: discs.Screen, camera: Camera
    ) -> tuple[Tensor, Tensor]:
        """[H, W, K] each: what a disc takes of the light that reaches it, and its share."""
        index = kbuffer.index.flatten(0, 1)  # [H * W, K]
        pixels = (index[:, 0] >= 0).nonzero()[:, 0]
        centers = camera.pixel_centers().to(self.device).view(-1, 2)[pixels]
        part = discs.disc_alpha(index[pixels], screen, centers)
        share = discs.alpha_composite(part, part[..., None]).weight
        alpha, weight = torch.zeros(2, *index.shape, device=self.device)
        alpha[pixels], weight[pixels] = part, share
        return alpha.view(kbuffer.index.shape), weight.view(kbuffer.index.shape)

    def _inspected(self, kbuffer: KBuffer, screen: discs.Screen, camera: Camera) -> Inspection:
        alpha, weight = self._weights(kbuffer, screen, camera)
        before = 1 - weight.cumsum(-1) + weight  # [H, W, K]
        extra = {
            "opacity": alpha[..., None],
            "transmittance": torch.where(kbuffer.valid, before, 0)[..., None],
        }
        norm = kbuffer.gather(self.points.sh.detach().norm(dim=1, keepdim=True))[..., 0]
        color = self._colors(kbuffer, camera).clamp(0, 1)
        return Inspection(kbuffer, color, weight, norm, extra)

    def _colors(self, kbuffer: KBuffer, camera: Camera) -> Tensor:
        """[H, W, K, 3] of every disc alone, seen along the ray of its pixel, not clamped."""
        shape = kbuffer.index.shape
        index = kbuffer.index.flatten(0, 1)  # [H * W, K]
        values, basis = self._values(), self._basis(camera)
        color = torch.zeros(*index.shape, 3, device=self.device)
        covered = (index[:, 0] >= 0).nonzero()[:, 0]
        for pixels in covered.split(max(1, _SLOTS // shape[2])):
            rows = discs.rows_of(index[pixels], values).flatten(0, 1)  # [P * K, C]
            along = basis[pixels].repeat_interleave(shape[2], 0)
            color[pixels] = discs.shade(rows, along).view(-1, shape[2], 3)
        return color.view(*shape, 3)

    @torch.no_grad()
    def parts(self, background: Tensor) -> refine.Parts:
        """What part each point has in the training views, over ``background`` [3]."""
        parts = refine.Parts(*torch.zeros(2, len(self.points), device=self.device))
        for view in self.views:
            camera = view.camera
            kbuffer, screen = self._found(camera, None)
            weight = self._weights(kbuffer, screen, camera)[1]
            seen = self._composited(kbuffer, screen, camera)
            image = seen.rgb + seen.light[..., None] * background.to(seen.rgb)
            target = marked_target(view, background.cpu()).to(image)
            error = (image - target).abs().mean(-1).nan_to_num()  # left out: no error
            parts.add(kbuffer, weight, error)
        return parts
