"""Gaussians, or the points of a cloud alone, as a file that other viewers open.

Jobs of the worker.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from app.workbench import Workbench
from render.errors import UserError
from render.export.styles import cloud_of
from render.files import atomic_write
from render.gaussians.cloud import Cloud
from render.gaussians.files import SUFFIXES, write_gaussians
from render.scenes.clouds.pointcloud import write_ply
from render.scenes.normalize import place_cloud, place_points
from render.scenes.types import Scene

NO_GAUSSIANS = "There are no Gaussians here to export."
FORMATS = ", ".join(SUFFIXES)
_COARSE = 0.1  # of the median size of the Gaussians: larger steps of their positions are told
_LOST = {
    ".spz": " in 8 to 24 bits a number",
    ".splat": " in 8 bits a colour, without view-dependent colours",
}


def default_path(folder: Path, *, gaussians: bool = True) -> Path:
    """Where the Gaussians of a run, or the points of a cloud alone, go."""
    return folder / "export" / ("gaussians.ply" if gaussians else "points.ply")


def exports_points(scene: Scene | None) -> bool:
    """Whether a scene is nothing but points, which can be exported as they are."""
    return scene is not None and not scene.views and scene.points is not None


def export_gaussians(bench: Workbench, path: Path | None = None) -> str:
    """Write the Gaussians in the coordinates of the scene's own files; of bare points those.

    Args:
        path: its suffix is the format: .ply, .spz or .splat. None for ``export/gaussians.ply`` of
            the run; a file there is replaced, whole or not at all.

    Returns:
        What was written, in a sentence.

    Raises:
        UserError: there are none, or the file cannot be written.
    """
    cloud = cloud_of(bench.renderer)
    if cloud is None and bench.method is not None:
        cloud = bench.method.as_gaussians()
    if cloud is None and not exports_points(bench.scene):
        raise UserError(NO_GAUSSIANS)
    path = path or default_path(bench.folder.path, gaussians=cloud is not None)
    suffix = path.suffix.lower()
    allowed = SUFFIXES if cloud is not None else (".ply",)
    if suffix not in allowed:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(allowed)}.")
    try:
        if cloud is None:
            return f"Wrote {_write_points(path, bench.scene):,} points to {path}."
        write_gaussians(path, cloud, bench.scene.to_file)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name, or for .spz
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        what = "points" if cloud is None else "Gaussians"
        raise UserError(
            f"{path}: the {what} could not be written ({reason}); choose another place."
        ) from error
    network = ""
    if bench.method is not None and "network parameters" in bench.method.describe():
        network = ", without the network, which has no place in such a file"
    coarse = _coarse_steps(cloud, bench.scene.to_file) if suffix != ".spz" else ""
    return f"Wrote {len(cloud):,} Gaussians to {path}{_LOST.get(suffix, '')}{network}{coarse}."


def _write_points(path: Path, scene: Scene) -> int:
    """The points of a scene; coordinates far from the origin in float64."""
    assert scene.points is not None
    turn = scene.to_file.clone()
    turn[:3, 3] = 0
    x, y, z = scene.to_file[:3, 3].tolist()
    cloud = replace(place_cloud(scene.points, turn), offset=(x, y, z))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda temporary: write_ply(temporary, cloud))
    return len(cloud)


def _coarse_steps(cloud: Cloud, to_file: Tensor) -> str:
    """A clause for the sentence where float32 rounds the positions of the file visibly."""
    if not len(cloud):
        return ""
    factor = float(to_file[:3, :3].det().abs() ** (1 / 3))
    size = factor * float(cloud.log_scales.detach().exp().median())
    step = float(place_points(cloud.means.detach().cpu(), to_file).abs().median()) * 2.0**-23
    if step <= _COARSE * size:
        return ""
    return f"; at such coordinates float32 rounds positions to steps of {step:.2g}"
