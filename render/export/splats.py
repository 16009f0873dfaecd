"""Pictures of Gaussians that come from a file: composited as they are, nothing is trained."""

from __future__ import annotations

from render.camera import Camera
from render.gaussians.ply import from_points
from render.kbuffer.gaussians import Projected
from render.methods.splatting import CompositePictures
from render.scenes.types import Scene


class SplatRenderer(CompositePictures):
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

    def _project(self, camera: Camera) -> Projected:
        return self.cloud.project(camera, self.near, antialias=False)
