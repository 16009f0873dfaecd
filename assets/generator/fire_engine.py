"""The toy itself: a turntable-ladder fire engine, built from bricks, facing +x.

Lengths in studs; z = 0 is the road. The design is our own.
"""

from __future__ import annotations

import math

from lights import MATERIAL_ID as M
from shapes import Builder, Holes

AXLES = (4.75, -3.3, -5.7)
DECK = 2.8  # height at which the bodywork stands


def build_fire_engine(b: Builder) -> None:
    """The whole vehicle."""
    _chassis(b)
    for x in AXLES:
        for side in (-1, 1):
            _wheel(b, x, side)
    _nose(b)
    _cab(b)
    _pump(b)
    _equipment(b)
    _roof(b)
    _turntable(b)
    with b.at([-4.7, 0, 6.75], pitch=15.0):
        _ladder(b)


def _chassis(b: Builder) -> None:
    for side in (-1, 1):
        b.box([-7.4, side * 1.25 - 0.25, 1.35], [6.6, side * 1.25 + 0.25, 1.85], M["dark_gray"])
        # A technic beam with holes between the axles: one sees through both beams.
        b.panel([0.65, side * 2.55, 1.0], [2.9, 0.42, 0.25], "y", M["yellow"],
                Holes(6, 1, 0.96, 1.0, 0.31))  # fmt: skip
        for x in (-1.4, 2.7):
            b.box([x - 0.2, side * 2.55 - 0.3, 1.4], [x + 0.2, side * 2.55 + 0.3, 2.4], M["gray"])
    for x in AXLES:
        b.rod([x, -2.9, 1.12], [x, 2.9, 1.12], 0.16, M["light_gray"])
        b.box([x - 0.4, -0.6, 0.8], [x + 0.4, 0.6, 1.5], M["gray"])
    b.rod([-5.2, 0, 1.12], [4.5, 0, 1.12], 0.13, M["silver"])
    b.box([-7.4, -1.9, 1.85], [6.7, 1.9, 2.4], M["black"])
    # The belt of white plates that carries the body; one plate a piece shows the seams.
    for k in range(7):
        b.brick(-7.4 + 2 * k, -3, 2.4, 2, 6, M["white"], 0.4, studs=False)
    for side in (-1, 1):
        for x0, x1 in ((-1.9, 0.2), (0.2, 1.4), (1.4, 3.2)):
            b.box([x0, min(side * 1.9, side * 3), 1.5], [x1, max(side * 1.9, side * 3), 2.4],
                  M["red"] if x0 != 0.2 else M["light_gray"], gap=0.02)  # fmt: skip
        for k in range(3):
            b.rod([0.45 + 0.35 * k, side * 2.9, 1.95], [0.45 + 0.35 * k, side * 3.06, 1.95], 0.13,
                  M[("yellow", "azure", "lime")[k]])  # fmt: skip
        b.box([-7.6, side * 2.6 - 0.4, 1.8], [-7.3, side * 2.6 + 0.4, 2.4], M["red"])


def _wheel(b: Builder, x: float, side: int) -> None:
    y, z = side * 2.55, 1.12
    b.ring([x, y, z], [0, 1, 0], 0.83, 0.25, 0.42, 0.13, M["rubber"])
    for k in range(18):
        a = 2 * math.pi * k / 18
        for row, off in ((-0.2, 0.0), (0.2, math.pi / 18)):
            c, s = math.cos(a + off), math.sin(a + off)
            p = [x + 1.04 * c, y + row, z + 1.04 * s]
            b.bar(p, [x + 1.125 * c, y + row, z + 1.125 * s], 0.2, M["rubber"])
    b.ring([x, y + side * 0.1, z], [0, 1, 0], 0.55, 0.08, 0.3, 0.05, M["white"])
    for k in range(5):  # spokes, with open space between them
        a = 2 * math.pi * (k + 0.25) / 5
        tip = [x + 0.52 * math.cos(a), y + side * 0.2, z + 0.52 * math.sin(a)]
        b.bar([x, y + side * 0.2, z], tip, 0.17, M["white"])
    b.rod([x, y, z], [x, y + side * 0.42, z], 0.2, M["red"], 0.14)
    b.ball([x, y + side * 0.42, z], 0.12, M["chrome"])


def _nose(b: Builder) -> None:
    b.box([6.6, -3, 1.0], [7.15, 3, 1.75], M["chrome"], bevel=0.16)
    for y in (-1.9, 1.9):
        b.rod([7.15, y, 1.37], [7.3, y, 1.37], 0.2, M["orange"])
    # A grille of small holes with darkness behind it.
    b.box([6.3, -1.9, 1.85], [6.5, 1.9, 2.75], M["black"])
    b.panel([6.72, 0, 2.28], [1.75, 0.44, 0.05], "x", M["silver"],
            Holes(12, 3, 0.28, 0.27, 0.1, square=True))  # fmt: skip
    for side in (-1, 1):
        b.box([6.2, side * 2.4 - 0.58, 1.8], [6.7, side * 2.4 + 0.58, 2.8], M["red"])
        for y, r in ((side * 2.12, 0.26), (side * 2.7, 0.2)):
            b.ring([6.72, y, 2.3], [1, 0, 0], r, 0.06, 0.08, 0.05, M["chrome"])
            b.rod([6.6, y, 2.3], [6.75, y, 2.3], r, M["lamp"])


def _cab(b: Builder) -> None:
    x0, x1 = 3.2, 6.6
    for side in (-1, 1):
        y = side * 2.8
        b.box([x0, y - 0.2, DECK], [x0 + 1.65, y + 0.2, 4.0], M["red"], gap=0.02)
        b.box([x0 + 1.65, y - 0.2, DECK], [x1, y + 0.2, 4.0], M["red"], gap=0.02)
        b.box([x0, side * 3 - 0.04, 3.3], [x1, side * 3 + 0.04, 3.52], M["white"], bevel=0.02)
        b.box([x0 + 1.85, side * 3 - 0.1, 3.68], [x0 + 2.3, side * 3 + 0.1, 3.8], M["chrome"])
        for x, w in ((x0 + 0.2, 0.4), (x0 + 1.65, 0.3)):
            b.box([x - w / 2, y - 0.2, 4.0], [x + w / 2, y + 0.2, 5.4], M["red"])
        b.bar([x1 - 0.2, y, 3.95], [x1 - 0.55, y, 5.42], 0.34, M["red"])
        b.rod([x1 - 0.3, y, 4.3], [x1 + 0.25, y + side * 0.5, 4.5], 0.05, M["black"])
        b.box([x1 + 0.12, y + side * 0.5 - 0.2, 4.3], [x1 + 0.24, y + side * 0.5 + 0.2, 5.0],
              M["black"])  # fmt: skip
        b.brick(x0 + 0.6, side * 1.3 - 1, DECK, 1, 2, M["blue"], 1.0, studs=False)
        b.box([x0 + 0.45, side * 1.3 - 0.8, 3.6], [x0 + 0.7, side * 1.3 + 0.8, 5.0], M["blue"])
    b.box([x0, -2.6, DECK], [x0 + 0.3, 2.6, 4.0], M["red"])
    b.box([x1 - 0.4, -2.6, DECK], [x1, 2.6, 3.9], M["red"], gap=0.02)
    b.box([x1 - 0.06, -2.6, 3.3], [x1 + 0.04, 2.6, 3.52], M["white"], bevel=0.02)
    b.box([x1 - 0.9, -2.5, 3.6], [x1 - 0.4, 2.5, 4.0], M["dark_gray"])
    b.ring([x1 - 1.1, 1.3, 4.15], [-0.8, 0, 0.6], 0.4, 0.06, 0.06, 0.06, M["black"])
    b.rod([x1 - 1.1, 1.3, 4.15], [x1 - 0.7, 1.3, 3.8], 0.07, M["black"])
    for y in (-1.1, 0.9):  # wipers
        b.bar([x1 - 0.12, y, 4.0], [x1 - 0.3, y - 0.7, 4.7], 0.06, M["black"])
    b.ball([x1 + 0.06, 0, 3.42], 0.26, M["gold"])
    for k in range(3):
        b.brick(x0 - 0.1 + k, -3, 5.4, 1, 6, M["white"], 0.4, studs=k == 0)
    b.brick(x0 + 0.9, -3, 5.8, 1, 6, M["red"], 0.4, studs=False)
    b.brick(x0 + 1.9, -2, 5.8, 1, 4, M["red"], 0.4)
    for y in (-2.4, 2.4):
        b.rod([x0 + 1.4, y, 6.2], [x0 + 1.4, y, 6.35], 0.42, M["black"])
        b.rod([x0 + 1.4, y, 6.35], [x0 + 1.4, y, 6.85], 0.34, M["blue"], 0.28)
    for y in (-0.75, 0.75):
        b.rod([x0 + 1.2, y, 6.4], [x0 + 2.2, y, 6.4], 0.1, M["chrome"], 0.24)
    b.rod([x0 + 0.3, -2.6, 6.0], [x0 - 0.5, -2.7, 8.6], 0.05, M["black"], 0.025)
    b.ball([x0 - 0.5, -2.7, 8.6], 0.09, M["red"])


def _pump(b: Builder) -> None:
    """The mirror-bright tank behind the cab, with its pipes."""
    b.box([1.2, -2.6, DECK], [3.0, 2.6, 3.2], M["dark_gray"])
    b.ring([2.15, 0, 4.15], [0, 1, 0], 0.0, 0.88, 2.7, 0.55, M["chrome"])
    for y in (-1.5, 1.5):
        b.ring([2.15, y, 4.15], [0, 1, 0], 0.9, 0.06, 0.14, 0.04, M["dark_red"])
        b.box([1.5, y - 0.25, 3.1], [2.8, y + 0.25, 3.5], M["dark_red"])
    b.rod([2.15, 0, 5.0], [2.15, 0, 5.25], 0.3, M["gold"])
    b.ring([2.15, 0, 5.35], [0, 0, 1], 0.3, 0.06, 0.06, 0.06, M["red"])
    b.bar([1.85, 0, 5.33], [2.45, 0, 5.33], 0.07, M["red"])
    for side in (-1, 1):
        b.rod([2.15, side * 2.6, 3.9], [2.15, side * 2.95, 3.9], 0.28, M["gold"])
        b.ring([2.15, side * 2.98, 3.9], [0, 1, 0], 0.28, 0.07, 0.07, 0.07, M["black"])
        b.rod([1.25, side * 2.75, DECK], [1.25, side * 2.75, 6.0], 0.12, M["chrome"])
        b.rod([1.25, side * 2.75, 5.1], [1.25, side * 2.75, 5.9], 0.18, M["chrome"])


def _equipment(b: Builder) -> None:
    """Lockers with roller shutters; two stand open."""
    top = 4.8
    b.box([-7.3, -1.5, DECK], [0.9, 1.5, top], M["dark_gray"])
    b.box([-7.5, -3, DECK], [-7.1, 3, top], M["red"], gap=0.02)
    b.box([0.5, -3, DECK], [0.9, 3, top], M["red"], gap=0.02)
    lockers = ((-7.1, -4.7), (-4.3, -2.1), (-1.7, 0.5))
    for side in (-1, 1):
        for x in (-4.5, -1.9):
            b.box([x - 0.2, min(side * 1.5, side * 3), DECK], [x + 0.2, max(side * 1.5, side * 3),
                  top], M["red"], gap=0.01)  # fmt: skip
        for k, (x0, x1) in enumerate(lockers):
            opened = (side, k) in ((-1, 1), (1, 2))
            for row in range(11):
                if opened and row < 9:
                    continue
                z = DECK + 0.1 + 0.182 * row
                b.rod([x0, side * 2.8, z], [x1, side * 2.8, z], 0.1, M["silver"])
            if not opened:
                b.bar([x0 + 0.8, side * 2.92, 3.0], [x1 - 0.8, side * 2.92, 3.0], 0.12, M["black"])
    # Open locker on the right: hose reel. On the left: extinguishers and a crate.
    for k, r in enumerate((0.72, 0.54, 0.36)):
        b.ring([-3.2, -2.3 + 0.06 * k, 3.7], [0, 1, 0], r, 0.1, 0.3, 0.1, M["yellow"])
    b.rod([-3.2, -2.7, 3.7], [-3.2, -1.5, 3.7], 0.22, M["chrome"])
    for k in range(2):
        x = -1.3 + 0.62 * k
        b.rod([x, 2.35, DECK], [x, 2.35, 3.8], 0.25, M["red"])
        b.rod([x, 2.35, 3.8], [x, 2.35, 4.05], 0.12, M["black"])
    b.box([-0.35, 1.9, DECK], [0.35, 2.75, 3.6], M["azure"])
    _stern(b, top)


def _stern(b: Builder, top: float) -> None:
    """The back: lights, a narrow ladder, a warning pattern."""
    for side in (-1, 1):
        for k, color in enumerate(("red", "orange", "white")):
            z = 3.1 + 0.5 * k
            b.rod([-7.5, side * 2.6, z], [-7.65, side * 2.6, z], 0.19, M[color])
        b.rod([-7.7, side * 0.5, 2.2], [-7.7, side * 0.5, top + 0.7], 0.07, M["light_gray"])
        b.rod([-7.7, side * 0.5, top + 0.7], [-7.0, side * 0.5, top + 0.7], 0.07, M["light_gray"])
        for k in range(4):
            y = side * (0.95 + 0.34 * k)
            b.box([-7.56, y - 0.17, 2.95], [-7.48, y + 0.17, 4.5], M["yellow" if k % 2 else "red"],
                  bevel=0.02)  # fmt: skip
    for k in range(7):
        z = 2.35 + 0.42 * k
        b.rod([-7.7, -0.5, z], [-7.7, 0.5, z], 0.055, M["light_gray"])
    b.box([-7.75, -3, 1.9], [-7.4, 3, 2.3], M["dark_gray"])


def _roof(b: Builder) -> None:
    for k in range(4):
        b.brick(-7.5 + 2 * k, -3, 4.8, 2, 6, M["red"], 0.4, studs=False)
    for k in range(8):
        for y in (-1.5, -0.5, 0.5, 1.5):
            if math.hypot(-7 + k + 4.7, y) > 2.1:  # the turntable stands on smooth plates
                b.stud(-7 + k, y, 5.2, M["red"])
    for side in (-1, 1):
        y = side * 2.75
        # Railings of perforated sheet: they look transparent, and are made of small holes.
        b.panel([-3.5, y, 5.72], [3.85, 0.42, 0.04], "y", M["light_gray"],
                Holes(26, 3, 0.29, 0.27, 0.112, square=True))  # fmt: skip
        b.rod([-7.4, y, 6.22], [0.4, y, 6.22], 0.09, M["yellow"])
        for k in range(5):
            x = -7.4 + 1.95 * k
            b.rod([x, y, 5.2], [x, y, 6.22], 0.08, M["yellow"])
    b.box([-1.2, -2.3, 5.2], [0.2, -0.9, 5.9], M["orange"])
    b.brick(-1.0, 1.0, 5.2, 1, 1, M["azure"], 0.8)


def _turntable(b: Builder) -> None:
    x = -4.7
    b.rod([x, 0, 5.2], [x, 0, 5.5], 1.75, M["dark_gray"])
    b.ring([x, 0, 5.6], [0, 0, 1], 1.4, 0.14, 0.14, 0.14, M["gold"])
    b.rod([x, 0, 5.5], [x, 0, 5.85], 1.3, M["light_gray"])
    for side in (-1, 1):
        with b.at([x, side * 1.15, 5.85], yaw=0):
            b.panel([0, 0, 0.65], [0.5, 0.75, 0.2], "y", M["blue"], Holes(1, 1, 1, 1, 0.27))
            b.panel([-1.0, 0, 0.25], [0.5, 0.3, 0.2], "y", M["blue"], Holes(1, 1, 1, 1, 0.2))
        b.rod([x + 1.0, side * 0.75, 5.9], [x + 3.2, side * 0.75, 7.2], 0.2, M["gray"])
        b.rod([x + 2.0, side * 0.75, 6.49], [x + 3.4, side * 0.75, 7.32], 0.11, M["chrome"])
    b.rod([x, -1.5, 6.75], [x, 1.5, 6.75], 0.2, M["yellow"])
    b.box([x - 1.6, -0.9, 5.85], [x - 0.7, 0.9, 6.3], M["gray"])


def _rail_pair(
    b: Builder, x0: float, x1: float, y: float, z: float, color: str, count: int
) -> None:
    """A ladder section: rails below and above, lattice between them, rungs across."""
    for side in (-1, 1):
        b.bar([x0, side * y, z], [x1, side * y, z], 0.2, M[color])
        b.bar([x0, side * y, z + 0.75], [x1, side * y, z + 0.75], 0.14, M[color])
        step = (x1 - x0) / count
        for k in range(count):
            a, m, c = x0 + step * k, x0 + step * (k + 0.5), x0 + step * (k + 1)
            b.rod([a, side * y, z], [m, side * y, z + 0.75], 0.05, M[color])
            b.rod([m, side * y, z + 0.75], [c, side * y, z], 0.05, M[color])
    for k in range(2 * count + 1):
        x = x0 + (x1 - x0) * k / (2 * count)
        b.rod([x, -y, z], [x, y, z], 0.06, M["light_gray"])


def _ladder(b: Builder) -> None:
    _rail_pair(b, -1.3, 7.4, 0.85, 0.1, "white", 8)
    _rail_pair(b, 2.4, 10.2, 0.6, 0.34, "yellow", 8)
    b.box([-1.6, -1.0, -0.25], [-0.7, 1.0, 0.45], M["dark_red"])
    b.rod([7.2, -0.85, 0.35], [7.2, 0.85, 0.35], 0.14, M["red"])
    with b.at([10.2, 0, 0.3], pitch=-15.0):
        _basket(b)


def _basket(b: Builder) -> None:
    """The rescue cage of wire mesh at the ladder's end."""
    mesh = Holes(6, 4, 0.29, 0.27, 0.107, square=True)
    b.box([-0.05, -1.0, -0.25], [1.85, 1.0, -0.1], M["red"])
    for side in (-1, 1):
        b.panel([0.9, side * 0.95, 0.5], [0.9, 0.56, 0.035], "y", M["light_gray"], mesh)
        for x in (0.0, 1.8):
            b.rod([x, side * 0.95, -0.1], [x, side * 0.95, 1.12], 0.08, M["red"])
        b.rod([0, side * 0.95, 1.12], [1.8, side * 0.95, 1.12], 0.08, M["red"])
    for x in (0.0, 1.8):
        b.panel([x, 0, 0.5], [0.9, 0.56, 0.035], "x", M["light_gray"], mesh)
        b.rod([x, -0.95, 1.12], [x, 0.95, 1.12], 0.08, M["red"])
    b.rod([1.85, 0, 0.95], [2.35, 0, 1.1], 0.13, M["gold"], 0.2)
    b.rod([1.9, 0.7, -0.18], [2.05, 0.7, -0.18], 0.2, M["lamp"])
