"""Analytic primitives, and a builder that places them in nested frames.

Three kinds are enough for a brick-built model, each in a local frame of its own:

- ``BOX``: half sizes; its shading normals are rounded near the edges; it may carry a lattice of
  round or square holes along local z (technic beams, perforated sheet, window frames).
- ``FRUSTUM``: a capped cylinder or cone around local z.
- ``RING``: a rounded rectangle turned around local z (tyres, tori, domed tanks, balls).

The model is written in *studs* (the pitch of the studs is 1); `Builder.freeze` turns it into
arrays in scene units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vector = Sequence[float] | Floats
BRICK, PLATE = 1.2, 0.4  # heights of a brick and of a plate, in studs
STUD_RADIUS, STUD_HEIGHT = 0.3, 0.21
GAP = 0.018  # free space around a brick, on each side


class Kind(IntEnum):
    """What a primitive is; selects its intersection code in the tracer."""

    BOX = 0
    FRUSTUM = 1
    RING = 2


class Primitives(NamedTuple):
    """All primitives of a model as arrays, in scene units."""

    kind: NDArray[np.int64]  # [N]
    material: NDArray[np.int64]  # [N] row of the material table
    center: Floats  # [N, 3] origin of the local frame
    rotation: Floats  # [N, 3, 3] rows are the local axes: local = rotation @ (world - center)
    params: Floats  # [N, 10], see the builder methods for what each kind stores
    lo: Floats  # [N, 3] world bounds
    hi: Floats  # [N, 3]


@dataclass(frozen=True)
class Holes:
    """A lattice of holes along local z of a box, centred on its origin; lengths in studs."""

    nx: int
    ny: int
    pitch_x: float
    pitch_y: float
    radius: float
    square: bool = False


def axes_for(z: Vector) -> Floats:
    """Rotation [3, 3] whose rows are a right-handed frame with third axis along z [3]."""
    w = np.asarray(z, np.float64)
    w = w / np.linalg.norm(w)
    side = np.array([0.0, 0.0, 1.0]) if abs(w[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    u = np.cross(side, w)
    u /= np.linalg.norm(u)
    return np.stack([u, np.cross(w, u), w])


@dataclass
class Builder:
    """Collects primitives; lengths in studs, angles in degrees."""

    kinds: list[int] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)
    centers: list[Floats] = field(default_factory=list)
    rotations: list[Floats] = field(default_factory=list)
    params: list[list[float]] = field(default_factory=list)
    extents: list[Vector] = field(default_factory=list)  # local half sizes
    frame: Floats = field(default_factory=lambda: np.eye(4))

    @contextmanager
    def at(self, origin: Vector, yaw: float = 0.0, pitch: float = 0.0) -> Iterator[None]:
        """Nested frame: moved to `origin`, its x axis turned by yaw and then raised by pitch."""
        cy, sy = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        cp, sp = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
        local = np.eye(4)
        turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        local[:3, :3] = turn @ np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
        local[:3, 3] = origin
        before, self.frame = self.frame, self.frame @ local
        try:
            yield
        finally:
            self.frame = before

    def _add(
        self, kind: Kind, material: int, center: Vector, axes: Floats, params: Vector, half: Vector
    ) -> None:
        """Place one primitive: center [3] and axes [3, 3] (rows) in the current frame."""
        rotation, origin = self.frame[:3, :3], self.frame[:3, 3]
        self.kinds.append(int(kind))
        self.materials.append(material)
        self.centers.append(rotation @ np.asarray(center, np.float64) + origin)
        self.rotations.append(axes @ rotation.T)
        self.params.append([*params, *([0.0] * (10 - len(params)))])
        self.extents.append(half)

    def box(
        self, lo: Vector, hi: Vector, material: int, bevel: float = 0.07, gap: float = 0.0
    ) -> None:
        """Box from corner lo [3] to corner hi [3], smaller by `gap` on every side."""
        low, high = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
        half = (high - low) / 2 - gap
        self._add(Kind.BOX, material, (low + high) / 2, np.eye(3), [*half, bevel], half)

    def panel(self, center: Vector, half: Vector, normal: str, material: int, holes: Holes) -> None:
        """Box with holes along the frame's axis `normal`.

        half [3] is given in the panel's own axes: along its holes' x, their y, its thickness.
        The holes' (x, y) are the frame's (x, z) for normal "y", (y, z) for "x", (x, y) for "z".
        """
        axes = {
            "x": np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
            "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
            "z": np.eye(3),
        }[normal]
        lattice = [holes.nx, holes.ny, holes.pitch_x, holes.pitch_y, holes.radius, holes.square]
        self._add(Kind.BOX, material, center, axes, [*half, 0.03, *map(float, lattice)], half)

    def bar(self, p0: Vector, p1: Vector, width: float, material: int) -> None:
        """Square bar of this width between two points."""
        a, b = np.asarray(p0, np.float64), np.asarray(p1, np.float64)
        half = [width / 2, width / 2, float(np.linalg.norm(b - a)) / 2]
        self._add(Kind.BOX, material, (a + b) / 2, axes_for(b - a), [*half, 0.05], half)

    def rod(
        self, p0: Vector, p1: Vector, r0: float, material: int, r1: float | None = None
    ) -> None:
        """Capped cylinder (or cone, with another radius r1 at p1) from p0 to p1."""
        a, b = np.asarray(p0, np.float64), np.asarray(p1, np.float64)
        end = r0 if r1 is None else r1
        half = float(np.linalg.norm(b - a)) / 2
        widest = max(r0, end)
        self._add(
            Kind.FRUSTUM, material, (a + b) / 2, axes_for(b - a), [half, r0, end, 0.05],
            [widest, widest, half],
        )  # fmt: skip

    def ring(
        self, center: Vector, axis: Vector, radius: float, half_radial: float, half_width: float,
        rounding: float, material: int,
    ) -> None:  # fmt: skip
        """Rounded rectangle (half sizes include the rounding) turned around `axis`.

        `radius` is that of the rectangle's centre. radius 0 makes a rounded disc or a ball.
        """
        outer = radius + half_radial
        inner = [half_radial - rounding, half_width - rounding]
        self._add(
            Kind.RING, material, center, axes_for(axis), [radius, *inner, rounding],
            [outer, outer, half_width],
        )  # fmt: skip

    def ball(self, center: Vector, radius: float, material: int) -> None:
        """Sphere."""
        self.ring(center, [0, 0, 1], 0.0, radius, radius, radius, material)

    def stud(self, x: float, y: float, z: float, material: int) -> None:
        """One stud standing on height z."""
        self.rod([x, y, z - 0.02], [x, y, z + STUD_HEIGHT], STUD_RADIUS, material)

    def brick(
        self, x: float, y: float, z: float, nx: int, ny: int, material: int,
        height: float = BRICK, studs: bool = True,
    ) -> None:  # fmt: skip
        """Brick (or plate, or tile without studs) with its lowest corner at (x, y, z)."""
        low = [x + GAP, y + GAP, z + 0.004]
        self.box(low, [x + nx - GAP, y + ny - GAP, z + height - 0.004], material)
        for i in range(nx if studs else 0):
            for j in range(ny):
                self.stud(x + i + 0.5, y + j + 0.5, z + height, material)

    def freeze(self, stud: float, origin: Vector) -> Primitives:
        """Arrays in scene units, where a stud is `stud` long and `origin` (studs) goes to 0."""
        rotation = np.stack(self.rotations)  # [N, 3, 3]
        center = (np.stack(self.centers) - np.asarray(origin)) * stud  # [N, 3]
        # Counts and flags of the hole lattice are not lengths.
        scale = np.full((len(center), 10), stud)
        scale[:, [4, 5, 9]] = 1.0
        half = np.abs(np.asarray(self.extents, np.float64)) * stud  # [N, 3]
        reach = np.einsum("nij,ni->nj", np.abs(rotation), half) + 1e-6  # [N, 3]
        return Primitives(
            np.asarray(self.kinds), np.asarray(self.materials), center, rotation,
            np.asarray(self.params, np.float64) * scale, center - reach, center + reach,
        )  # fmt: skip
