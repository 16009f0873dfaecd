"""Methods by name. To add one, write its module and add a line here (docs/adding.md)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from render.errors import UserError

if TYPE_CHECKING:  # the names are asked for where torch would cost too much
    from render.methods.base import Method

# name -> "module:class"; modules load on demand, so an optional package never blocks the others.
_METHODS = {
    "kbuffer": "render.methods.kbuffer:KBufferMethod",
    "gaussians": "render.methods.gaussians:GaussiansMethod",
    "gaussians-k": "render.methods.gaussians:GaussiansKMethod",
    "bpcr": "render.methods.npf:Bpcr",
    "frepcr": "render.methods.npf:Frepcr",
    "point-radiance": "render.methods.point_radiance:PointRadianceMethod",
    "point-radiance-faithful": "render.methods.point_radiance:PointRadianceFaithful",
}


def method_names() -> list[str]:
    """All registered names, the default first."""
    return list(_METHODS)


def method_class(name: str) -> type[Method]:
    """The class registered as ``name``.

    Raises:
        UserError: for an unknown name.
    """
    if name not in _METHODS:
        raise UserError(f"--method {name}: unknown method, expected one of {', '.join(_METHODS)}.")
    module, _, attribute = _METHODS[name].partition(":")
    return getattr(import_module(module), attribute)
