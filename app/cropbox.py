"""The box around the points that shall stay, in the units of the scene's files."""

from __future__ import annotations

import torch
from torch import Tensor

from render.scenes.normalize import inverse, place_points
from render.scenes.types import Scene

_MARGIN = 1e-6  # of the extent: the box holds the outermost points whatever is rounded
_PIECES = 8  # of an edge: where one end is behind the camera the rest is drawn
# Corners by three bits, x first; an edge joins two that differ in one.
_EDGES = [(a, a | bit) for bit in (4, 2, 1) for a in range(8) if not a & bit]


class CropBox:
    """Shown over the view while it is on; the scene itself knows nothing of it.

    Attributes:
        low, high: corners [3] float64.
        limits: [2, 3] float64, of all points of the scene.
    """

    def __init__(self) -> None:
        self.low = torch.zeros(3, dtype=torch.float64)
        self.high = torch.ones(3, dtype=torch.float64)
        self.limits = torch.stack([self.low, self.high])
        self.version = 0  # grows with every change
        self._scene: Scene | None = None
        self._on = False

    @property
    def on(self) -> bool:
        """Whether there is a box to be seen."""
        return self._on

    def follow(self, scene: Scene | None) -> None:
        """Another scene has no box yet."""
        if scene is not self._scene:
            self._scene, self._on = scene, False
            self.version += 1

    def switch(self, on: bool) -> None:
        """Show a box around all points, or none."""
        self.version += 1
        points = None if self._scene is None else self._scene.points
        self._on = on and points is not None and len(points) > 0
        if self._on and self._scene is not None and points is not None:
            turn = self._scene.to_file.clone()
            turn[:3, 3] = 0
            xyz = points.xyz @ turn[:3, :3].T.float()
            limits = torch.stack([xyz.amin(0), xyz.amax(0)]).double()
            margin = _MARGIN * float((limits[1] - limits[0]).max().clamp(min=1e-9))
            limits += torch.tensor([[-margin], [margin]]).double() + self._scene.to_file[:3, 3]
            self.limits = limits
            self.low, self.high = limits[0].clone(), limits[1].clone()

    def move(self, axis: int, upper: bool, value: float) -> None:
        """Put one face somewhere; the opposite one gives way."""
        (self.high if upper else self.low)[axis] = value
        other = self.low if upper else self.high
        gap = _MARGIN * float((self.limits[1] - self.limits[0])[axis])
        if upper:
            other[axis] = min(float(other[axis]), value - gap)
        else:
            other[axis] = max(float(other[axis]), value + gap)
        self.version += 1

    def text(self) -> str:
        """As ``--points-crop`` takes it."""
        return " ".join(f"{value:.12g}" for value in (*self.low.tolist(), *self.high.tolist()))

    def edges(self) -> Tensor:
        """The pieces of the twelve edges in the world of the scene: [96, 2, 3] float64."""
        assert self._scene is not None
        corner = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).double()
        corner = self.low + corner * (self.high - self.low)
        corner = place_points(corner, inverse(self._scene.to_file))
        a, b = (corner[[edge[end] for edge in _EDGES]] for end in (0, 1))  # [12, 3]
        at = torch.linspace(0, 1, _PIECES + 1, dtype=torch.float64)[:, None, None]
        line = a + at * (b - a)  # [9, 12, 3]
        return torch.stack([line[:-1], line[1:]], 2).reshape(-1, 2, 3)
