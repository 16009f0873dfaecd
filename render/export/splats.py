"""Pictures of Gaussians that come from a file: composited as they are, nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from render.camera import Camera
from render.gaussians.ply import from_points
from render.kbuffer.gaussians import Projected, Splatted
from render.methods.base import Inspection, Render
from render.methods.splatting import composite_layers, inspection_of, picture_of
from render.scenes.types import Scene


class SplatRenderer:
    """Renders and inspects the Gaussians of a scene without photographs.

    Args:
        scene: whose points ``render.gaussians.ply.is_splat_cloud`` accepts.
        k: layers of the inspector; pictures of fewer layers show the heaviest of them alone.

    Raises:
        UserError: colours of a degree that nobody knows.
    """

    def __init__(self, scene: Scene, k: int) -> None:
        assert scene.points is not None
        self.k = k
        self.cloud = from_points(scene.points)
        self.near = max(min(0.01, 0.01 * scene.bounds.radius), 1e-6)

    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """All contributions over ``background`` [3]; with ``k`` below K the k heaviest alone."""
        return picture_of(self._seen(self._project(camera), camera, k), background)

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """The K heaviest contributions to every pixel, in depth order."""
        projected = self._project(camera)
        return inspection_of(projected, self._seen(projected, camera, k))

    @torch.no_grad()
    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        """What :meth:`render` and :meth:`inspect` return."""
        projected = self._project(camera)
        seen = self._seen(projected, camera, k)
        return picture_of(seen, background), inspection_of(projected, seen)

    def _project(self, camera: Camera) -> Projected:
        return self.cloud.project(camera, self.near, antialias=False)

    def _seen(self, projected: Projected, camera: Camera, k: int | None) -> Splatted:
        layers = min(k or self.k, self.k)
        return composite_layers(projected, projected.rgb, camera, layers, self.k)
