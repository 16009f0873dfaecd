"""Lens distortion: all camera models of COLMAP (and so of OpenCV) beyond the pinhole.

A lens bends normalised image coordinates (x, y) = (X / Z, Y / Z) of a perfect pinhole to where
the photograph shows them; focal lengths and centre come after it. The polynomial models share one
form: an optional fisheye step (radius -> angle to the optical axis), a radial factor
N(s) / D(s) with s = squared radius, and small tangential and prism terms. FOV, DIVISION and EUCM
have closed forms. Parameters are named and ordered as in COLMAP's "Camera Models"; the equations
are those of Brown (1971), Kannala & Brandt (2006), Devernay & Faugeras (2001, FOV), Fitzgibbon
(2001, division), Khomutenko et al. (2016, EUCM) and Project Aria (RAD_TAN_THIN_PRISM_FISHEYE).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Distortion parameters by model, in COLMAP's order.
DISTORTION: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "FOV": ("omega",),
    "SIMPLE_RADIAL_FISHEYE": ("k1",),
    "RADIAL_FISHEYE": ("k1", "k2"),
    "THIN_PRISM_FISHEYE": ("k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        "k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "sx1", "sx2", "sy1", "sy2"
    ),
    "SIMPLE_DIVISION": ("k1",),
    "DIVISION": ("k1",),
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "EUCM": ("alpha", "beta"),
}  # fmt: skip

_FAR = 1e3  # a radius that stands for 90 degrees off the axis: no photograph reaches it
_STEPS = 100  # of the iterations below; they stop as soon as nothing changes


@dataclass(frozen=True)
class Lens:
    """The distortion of one camera.

    Args:
        model: COLMAP's name of the model (a key of ``DISTORTION``).
        params: its distortion parameters, without focal lengths and centre.

    Raises:
        ValueError: unknown model, wrong number of parameters, or one that is NaN or huge.
    """

    model: str
    params: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        names = DISTORTION.get(self.model)
        if names is None:
            raise ValueError(f'unknown camera model "{self.model}"')
        if len(self.params) != len(names):
            raise ValueError(
                f"{self.model} has {len(names)} distortion parameters, found {len(self.params)}"
            )
        if not all(abs(value) < 1e4 for value in self.params):  # NaN fails too
            raise ValueError(f"a distortion parameter of {self.model} is no sensible number")

    @classmethod
    def from_opencv(cls, values: Mapping[str, float], fisheye: bool = False) -> Lens | None:
        """From k1 ... k6, p1, p2 as OpenCV and transforms.json name them; None when all are zero.

        With ``fisheye`` they are OpenCV's fisheye model (k1 ... k4), which bends light even when
        all are zero.
        """
        model = "OPENCV_FISHEYE" if fisheye else "FULL_OPENCV"
        params = tuple(float(values.get(name, 0.0)) for name in DISTORTION[model])
        lens = cls(model, params)
        return None if lens.is_identity else lens

    @property
    def is_identity(self) -> bool:
        """Whether photographs of this lens are those of a pinhole."""
        if self.model == "EUCM":
            return self.params[0] == 0
        return not self.is_fisheye and not any(self.params)

    @property
    def is_fisheye(self) -> bool:
        """Whether the radius in the photograph goes with the angle, not with its tangent."""
        return self.model.endswith("FISHEYE")

    def distort(self, xy: Array) -> Array:
        """Pinhole coordinates [N, 2] to distorted ones [N, 2]; both normalised.

        NaN outside the range in which the model is one-to-one: a polynomial that folds back would
        show the same place twice.
        """
        xy = np.asarray(xy, dtype=np.float64)
        with np.errstate(all="ignore"):
            if self.model in _CLOSED:
                r = np.hypot(xy[:, 0], xy[:, 1])
                return xy * _ratio(_CLOSED[self.model][0](r, *self.params), r)[:, None]
            q = xy * self._fisheye_ratio(xy)[:, None] if self.is_fisheye else xy
            t = np.hypot(q[:, 0], q[:, 1])
            bent = q * _ratio(self._radial(t)[0], t)[:, None]
            out = bent + self._extras(bent if self._extras_after else q)
            out[~(t <= self._limit)] = np.nan
            return out

    def undistort(self, xy: Array) -> Array:
        """The inverse of :meth:`distort`, [N, 2]; NaN where no pinhole ray leads there."""
        xy = np.asarray(xy, dtype=np.float64)
        with np.errstate(all="ignore"):
            if self.model in _CLOSED:
                r = np.hypot(xy[:, 0], xy[:, 1])
                out = xy * _ratio(_CLOSED[self.model][1](r, *self.params), r)[:, None]
            else:
                out = self._undistort_form(xy)
            back = self.distort(out)
            lost = ~(np.abs(back - xy).max(1, initial=0) <= 1e-9 * (1 + np.abs(xy).max(1)))
            out[lost] = np.nan
            return out

    # ------------------------------------------------------------------ the polynomial models
    @cached_property
    def _named(self) -> dict[str, float]:
        return dict(zip(DISTORTION[self.model], self.params, strict=True))

    @cached_property
    def _polynomials(self) -> tuple[np.polynomial.Polynomial, np.polynomial.Polynomial]:
        """N and D of the radial factor, in s = t^2."""
        k = [self._named.get(f"k{i}", 0.0) for i in range(1, 7)]
        top, bottom = (k[:3], k[3:]) if self.model == "FULL_OPENCV" else (k, [])
        return np.polynomial.Polynomial([1, *top]), np.polynomial.Polynomial([1, *bottom])

    @cached_property
    def _limit(self) -> float:
        """Largest t for which t N(t^2) / D(t^2) still grows."""
        N, D = self._polynomials
        s = np.polynomial.Polynomial([0, 1])
        slope = (N + 2 * s * N.deriv()) * D - 2 * s * N * D.deriv()
        top = math.pi / 2 if self.is_fisheye else _FAR
        roots = np.concatenate([slope.trim().roots(), D.trim().roots()]).astype(complex)
        real = np.real(roots)[
            (np.abs(np.imag(roots)) <= 1e-9 * np.abs(roots)) & (np.real(roots) > 0)
        ]
        return min(top, math.sqrt(real.min(initial=top**2)))

    @property
    def _extras_after(self) -> bool:
        """Whether the small terms act on the radially distorted point."""
        return self.model == "RAD_TAN_THIN_PRISM_FISHEYE"

    def _fisheye_ratio(self, xy: Array) -> Array:
        r = np.hypot(xy[:, 0], xy[:, 1])
        return _ratio(np.arctan(r), r)

    def _radial(self, t: Array) -> tuple[Array, Array]:
        """Distorted radius and its derivative at t."""
        N, D = self._polynomials
        s = t * t
        n, d = N(s), D(s)
        slope = (n + 2 * s * N.deriv()(s)) / d - 2 * s * n * D.deriv()(s) / (d * d)
        return t * n / d, slope

    def _extras(self, q: Array) -> Array:
        """Tangential and thin-prism terms at q [N, 2]."""
        get = self._named.get
        p1, p2 = get("p1", 0.0), get("p2", 0.0)
        if self._extras_after:  # Aria names the two the other way round
            p1, p2 = p2, p1
        x, y = q[:, 0], q[:, 1]
        s = x * x + y * y
        dx = 2 * p1 * x * y + p2 * (s + 2 * x * x) + s * (get("sx1", 0.0) + s * get("sx2", 0.0))
        dy = 2 * p2 * x * y + p1 * (s + 2 * y * y) + s * (get("sy1", 0.0) + s * get("sy2", 0.0))
        return np.stack([dx, dy], -1)

    def _undistort_form(self, xy: Array) -> Array:
        q = self._invert_radial(xy)
        if any(self._named.get(name) for name in ("p1", "p2", "sx1", "sx2", "sy1", "sy2")):
            bent = xy
            for _ in range(_STEPS):  # the small terms hardly depend on where exactly they are taken
                before = bent if self._extras_after else q
                bent = xy - self._extras(before)
                q = self._invert_radial(bent)
                after = bent if self._extras_after else q
                if not np.nanmax(np.abs(after - before), initial=0) > 1e-14:
                    break
        if self.is_fisheye:
            t = np.hypot(q[:, 0], q[:, 1])
            q = q * np.where(t < math.pi / 2, _ratio(np.tan(t), t), np.nan)[:, None]
        return q

    def _invert_radial(self, bent: Array) -> Array:
        """Undo the radial factor by Newton's method inside a bracket; NaN beyond the range."""
        d = np.hypot(bent[:, 0], bent[:, 1])
        low, high = np.zeros_like(d), np.full_like(d, self._limit)
        t = np.minimum(d, self._limit)
        for _ in range(_STEPS):
            value, slope = self._radial(t)
            low, high = np.where(value <= d, t, low), np.where(value >= d, t, high)
            step = t - (value - d) / slope
            step = np.where((step >= low) & (step <= high), step, (low + high) / 2)
            done = not np.nanmax(np.abs(step - t), initial=0) > 1e-15
            t = step
            if done:
                break
        return bent * np.where(d <= self._radial(high)[0], _ratio(t, d), np.nan)[:, None]


def _ratio(a: Array, b: Array) -> Array:
    """a / b for two radii that vanish together; all models have slope 1 at the axis."""
    return np.where(b > 1e-9, a / b, 1.0)


# ------------------------------------------------------------------ closed forms, of the radius
def _fov(r: Array, omega: float) -> Array:
    return np.arctan(2 * r * math.tan(omega / 2)) / omega if abs(omega) > 1e-6 else r


def _fov_inverse(r: Array, omega: float) -> Array:
    if abs(omega) <= 1e-6:
        return r
    angle = r * omega
    return np.where(np.abs(angle) < math.pi / 2, np.tan(angle) / (2 * math.tan(omega / 2)), np.nan)


def _division(r: Array, k: float) -> Array:
    return 2 * r / (1 + np.sqrt(1 - 4 * k * r * r))  # NaN where the square root has no value


def _division_inverse(r: Array, k: float) -> Array:
    return np.where(np.abs(k) * r * r < 1, r / (1 + k * r * r), np.nan)


def _eucm(r: Array, alpha: float, beta: float) -> Array:
    depth = alpha * np.sqrt(beta * r * r + 1) + 1 - alpha
    return np.where(depth > 0, r / depth, np.nan)


def _eucm_inverse(r: Array, alpha: float, beta: float) -> Array:
    s = r * r
    z = (1 - beta * alpha**2 * s) / (alpha * np.sqrt(1 - (2 * alpha - 1) * beta * s) + 1 - alpha)
    return np.where(z > 0, r / z, np.nan)


_CLOSED = {
    "FOV": (_fov, _fov_inverse),
    "SIMPLE_DIVISION": (_division, _division_inverse),
    "DIVISION": (_division, _division_inverse),
    "EUCM": (_eucm, _eucm_inverse),
}
