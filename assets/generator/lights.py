"""Materials and light: a soft sun, an analytic sky, and the curve from light to picture."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

SUN_DIRECTION = (0.463, -0.521, 0.717)  # towards the sun, unit length
SUN_COLOR = (2.25, 2.07, 1.77)  # irradiance / pi on a surface that faces it
SUN_SPREAD = 0.11  # tangent of the sun's angular radius: soft shadows
# Columns of the table: r, g, b, specular at normal incidence, roughness, metal.


class Material(NamedTuple):
    """Linear albedo (or mirror tint, for metal) and how shiny the surface is."""

    rgb: tuple[float, float, float]
    specular: float = 0.035
    roughness: float = 0.10
    metal: bool = False


MATERIALS: dict[str, Material] = {
    "red": Material((0.60, 0.022, 0.018)),
    "dark_red": Material((0.27, 0.012, 0.02)),
    "white": Material((0.74, 0.73, 0.70)),
    "yellow": Material((0.83, 0.50, 0.015)),
    "orange": Material((0.80, 0.21, 0.012)),
    "blue": Material((0.02, 0.13, 0.55)),
    "azure": Material((0.06, 0.36, 0.68)),
    "green": Material((0.055, 0.30, 0.065)),
    "lime": Material((0.28, 0.52, 0.035)),
    "dark_green": Material((0.022, 0.14, 0.05)),
    "brown": Material((0.20, 0.085, 0.035)),
    "tan": Material((0.66, 0.53, 0.33)),
    "pink": Material((0.76, 0.20, 0.36)),
    "light_gray": Material((0.42, 0.43, 0.44)),
    "gray": Material((0.19, 0.20, 0.21)),
    "dark_gray": Material((0.075, 0.08, 0.088)),
    "road": Material((0.085, 0.09, 0.10), 0.015, 0.25),
    "black": Material((0.022, 0.022, 0.024)),
    "rubber": Material((0.03, 0.03, 0.031), 0.015, 0.35),
    "lamp": Material((1.0, 0.88, 0.52), 0.05, 0.05),
    "silver": Material((0.62, 0.63, 0.65), 0.9, 0.22, True),
    "chrome": Material((0.86, 0.87, 0.89), 0.9, 0.02, True),
    "gold": Material((0.90, 0.62, 0.22), 0.9, 0.08, True),
}
MATERIAL_ID: dict[str, int] = {name: i for i, name in enumerate(MATERIALS)}


def material_table() -> NDArray[np.float64]:
    """All materials as [M, 6]."""
    rows = [[*m.rgb, m.specular, m.roughness, float(m.metal)] for m in MATERIALS.values()]
    return np.asarray(rows, np.float64)


@njit
def sky(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Radiance of the surroundings towards the unit direction (x, y, z).

    Blue above, bright at the horizon, warm ground below, and one broad soft light opposite the
    sun, which gives the shiny parts something to reflect.
    """
    if z >= 0.0:
        up = z**0.55
        r, g, b = 0.98 - 0.62 * up, 1.0 - 0.50 * up, 1.03 - 0.22 * up
    else:
        down = min(1.0, -z * 3.0)
        r, g, b = 0.62 - 0.34 * down, 0.60 - 0.34 * down, 0.58 - 0.36 * down
    facing = -0.66 * x + 0.55 * y + 0.51 * z
    glow = math.exp(-(((1.0 - facing) / 0.09) ** 2))
    return r + glow, g + 0.97 * glow, b + 0.9 * glow


@njit
def tone(x: float) -> float:
    """Display value in [0, 1] of linear radiance: sRGB with a soft shoulder for highlights."""
    knee = 0.55
    if x > knee:
        x = 1.0 - (1.0 - knee) * math.exp(-(x - knee) / (1.0 - knee))
    if x <= 0.0031308:
        return 12.92 * max(x, 0.0)
    return 1.055 * x ** (1.0 / 2.4) - 0.055
