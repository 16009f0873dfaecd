"""The studded base plate: a road between grass and pavement, and what stands beside it."""

from __future__ import annotations

import numpy as np
from lights import MATERIAL_ID as M
from shapes import PLATE, Builder, Holes

X, Y = 8, 6  # half sizes of the base plate, studs; the road's surface is z = 0
GROUND = -PLATE


def build_street(b: Builder) -> None:
    """Everything that is not the fire engine."""
    _base_plate(b)
    _road(b)
    _grass(b)
    _pavement(b)
    with b.at([-5.4, -5.0, 0]):
        _tree(b)
    _lamp_post(b, -6.5, 5.1)
    _hydrant(b, 6.5, 5.0)
    for x, y in ((7.45, -3.4), (7.45, 3.3), (-7.5, -3.4)):
        _cone(b, x, y)
    _fence(b)


def _base_plate(b: Builder) -> None:
    # The four corner studs are left out: the model then fills the pictures better.
    b.box([-X, 1 - Y, GROUND - PLATE], [X, Y - 1, GROUND], M["green"], bevel=0.1)
    for y in (-Y, Y - 1):
        b.box([1 - X, y, GROUND - PLATE], [X - 1, y + 1, GROUND], M["green"], bevel=0.1)
    for i in range(-X, X):
        for j in range(-Y, Y):
            on_road = -4 <= j < 4
            on_end = i in (-X, X - 1)
            if (on_road and not on_end) or (on_end and j in (-Y, Y - 1)):
                continue
            b.stud(i + 0.5, j + 0.5, GROUND, M["green"])


def _road(b: Builder) -> None:
    for i in range(-X + 1, X - 1, 2):
        for j in range(-4, 4, 2):
            if j in (-2, 0):
                b.brick(i, j, GROUND, 2, 2, M["road"], PLATE, studs=False)
        dash = M["white"] if (i + X) % 4 == 1 else M["road"]
        for j, edge in ((-4, -3), (3, 2)):
            b.brick(i, edge, GROUND, 2, 1, M["road"], PLATE, studs=False)
            b.brick(i, j, GROUND, 2, 1, dash, PLATE, studs=False)


def _grass(b: Builder) -> None:
    rng = np.random.default_rng(7)
    b.brick(-7, -6, GROUND, 3, 2, M["lime"], PLATE)
    b.brick(1, -6, GROUND, 2, 1, M["lime"], PLATE)
    b.brick(5, -5, GROUND, 3, 1, M["dark_green"], PLATE)
    b.brick(5, -6, GROUND, 2, 1, M["lime"], PLATE)
    colors = ("pink", "yellow", "white", "orange", "azure")
    for k, (x, y) in enumerate(((-1, -6), (0, -5), (2, -5), (4, -6), (-2, -5), (-3, -6))):
        height = 0.45 + 0.5 * rng.random()
        px, py, z = x + 0.5, y + 0.5, GROUND + 0.2
        b.rod([px, py, z], [px, py, z + height], 0.07, M["dark_green"])
        b.rod([px, py, z + height], [px, py, z + height + 0.14], 0.32, M[colors[k % 5]])
        b.rod([px, py, z + height], [px, py, z + height + 0.26], 0.14, M["yellow"])
        for turn in (0, 1):
            side = 0.27 * (-1) ** turn
            b.bar([px, py, z + 0.12], [px + side, py + side / 2, z + 0.3], 0.1, M["lime"])


def _pavement(b: Builder) -> None:
    for i in range(-X, X, 2):
        b.brick(i, 4, GROUND, 2, 1, M["light_gray"], 1.3 * PLATE, studs=False)
    for i in range(1 - X, X - 1, 2):
        shade = M["tan"] if (i // 2) % 2 else M["light_gray"]
        b.brick(i, 5, GROUND, 2, 1, shade, PLATE, studs=(i // 2) % 3 == 0)


def _tree(b: Builder) -> None:
    for k in range(4):
        b.rod([0, 0, 0.62 * k], [0, 0, 0.62 * k + 0.6], 0.42, M["brown"], 0.38)
    b.bar([0, 0, 1.5], [0.9, 0.3, 2.3], 0.22, M["brown"])
    for dx, dy, z, n, color in (
        (-1, -1, 2.4, 2, "dark_green"), (0, -1, 2.8, 2, "green"), (-1, 0, 3.2, 2, "lime"),
        (-1, -1, 3.6, 2, "green"), (0, 0, 2.4, 1, "green"), (-2, -1, 2.8, 1, "lime"),
        (-2, 0, 2.4, 1, "green"), (0, 0, 4.0, 1, "dark_green"), (-1, -1, 4.0, 1, "lime"),
    ):  # fmt: skip
        b.brick(dx, dy, z, n, n, M[color], PLATE)
    for x, y, z in ((0.6, -0.95, 2.6), (-1.05, 0.5, 2.95), (1.05, -0.3, 3.0)):
        b.ball([x, y, z], 0.21, M["red"])


def _lamp_post(b: Builder, x: float, y: float) -> None:
    b.rod([x, y, GROUND], [x, y, 0.5], 0.42, M["black"], 0.26)
    b.rod([x, y, 0.5], [x, y, 6.4], 0.11, M["black"])
    for z in (0.9, 3.4, 6.1):
        b.ring([x, y, z], [0, 0, 1], 0.13, 0.07, 0.07, 0.07, M["gold"])
    b.rod([x, y, 6.3], [x + 1.5, y - 0.4, 6.7], 0.07, M["black"])
    b.rod([x + 1.5, y - 0.4, 6.05], [x + 1.5, y - 0.4, 6.75], 0.34, M["black"], 0.07)
    b.ball([x + 1.5, y - 0.4, 5.9], 0.3, M["lamp"])
    b.rod([x, y, 4.3], [x, y + 0.1, 4.3], 0.1, M["black"])
    b.box([x - 0.05, y - 0.75, 3.9], [x + 0.05, y + 0.75, 4.7], M["azure"])
    for k in range(3):
        b.box([x - 0.07, y - 0.6, 4.06 + 0.2 * k], [x + 0.07, y + 0.5 - 0.25 * k, 4.14 + 0.2 * k],
              M["white"], bevel=0.02)  # fmt: skip


def _hydrant(b: Builder, x: float, y: float) -> None:
    b.rod([x, y, 0], [x, y, 0.16], 0.42, M["gold"])
    b.rod([x, y, 0.14], [x, y, 1.05], 0.29, M["red"])
    b.ball([x, y, 1.05], 0.3, M["red"])
    b.rod([x, y, 1.3], [x, y, 1.5], 0.1, M["gold"])
    b.rod([x - 0.46, y, 0.75], [x + 0.46, y, 0.75], 0.14, M["gold"])
    b.rod([x, y - 0.44, 0.75], [x, y, 0.75], 0.17, M["gold"])


def _cone(b: Builder, x: float, y: float) -> None:
    b.box([x - 0.42, y - 0.42, -0.2], [x + 0.42, y + 0.42, -0.06], M["orange"])
    for k, color in enumerate(("orange", "white", "orange", "white", "orange")):
        r0, r1 = 0.33 - 0.055 * k, 0.33 - 0.055 * (k + 1)
        b.rod([x, y, -0.06 + 0.22 * k], [x, y, 0.16 + 0.22 * k], r0, M[color], r1)


def _fence(b: Builder) -> None:
    """A low fence of wire mesh between grass and road."""
    for x in (4.1, 7.9):
        b.rod([x, -4.2, GROUND], [x, -4.2, 1.15], 0.1, M["white"])
        b.ball([x, -4.2, 1.2], 0.15, M["gold"])
    b.panel([6.0, -4.2, 0.45], [1.8, 0.5, 0.035], "y", M["white"],
            Holes(12, 3, 0.29, 0.29, 0.105, square=True))  # fmt: skip
