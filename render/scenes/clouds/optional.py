"""Libraries that only some file formats need."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from render.errors import UserError

PACKAGES = {"laspy": '"laspy[lazrs]"', "lazrs": "lazrs", "pye57": "pye57", "trimesh": "trimesh"}


def require(name: str, path: Path, what: str) -> ModuleType:
    """Import a library of the extra ``clouds``.

    Args:
        path: the file that needs it, and ``what`` such files are called.

    Raises:
        UserError: it is not there; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path}: {what} are read through {name}, which is not installed: "
            f"pip install {PACKAGES[name]}, or convert the file to PLY."
        ) from error
