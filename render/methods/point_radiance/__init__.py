"""``point-radiance``: soft discs with spherical harmonics, optimised through K-buffers."""

from render.methods.point_radiance.method import PointRadianceFaithful, PointRadianceMethod
from render.methods.point_radiance.options import FaithfulOptions, PointRadianceOptions

__all__ = [
    "FaithfulOptions",
    "PointRadianceFaithful",
    "PointRadianceMethod",
    "PointRadianceOptions",
]
