"""Gaussians as a file that other viewers open; a job of the worker."""

from __future__ import annotations

from pathlib import Path

from app.workbench import Workbench
from render.errors import UserError
from render.export.styles import cloud_of
from render.gaussians.ply import write_ply

NO_GAUSSIANS = "There are no Gaussians here to export."


def default_path(folder: Path) -> Path:
    """Where the Gaussians of a run go."""
    return folder / "export" / "gaussians.ply"


def export_gaussians(bench: Workbench, path: Path | None = None) -> str:
    """Write the Gaussians as 3DGS PLY, in the coordinates of the scene's own files.

    Args:
        path: None for ``export/gaussians.ply`` of the run; a file there is replaced, whole or not
            at all.

    Returns:
        What was written, in a sentence.

    Raises:
        UserError: there are none, or the file cannot be written.
    """
    cloud = cloud_of(bench.renderer)
    if cloud is None:
        raise UserError(NO_GAUSSIANS)
    path = path or default_path(bench.folder.path)
    try:
        write_ply(path, cloud, bench.scene.to_file)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(
            f"{path}: the Gaussians could not be written ({reason}); choose another place."
        ) from error
    network = ""
    if bench.method is not None and "network parameters" in bench.method.describe():
        network = ", without the network, which has no place in such a file"
    return f"Wrote {len(cloud):,} Gaussians to {path}{network}."
