"""From named columns of a file, whatever the format, to a point cloud."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from render.errors import UserError
from render.sampling import PUBLISHED, Sampling
from render.scenes.types import PointCloud

Columns = dict[str, np.ndarray]  # lower-case names, each [N]

# Colour of a splat of degree 0: rgb = 0.5 + SH_C0 * f_dc.
SH_C0 = 0.28209479177387814
_COLOR_COLUMNS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green",
                  "diffuse_blue"))  # fmt: skip
_BLUR = 1e-5  # of the extent: coarser steps of float32 than this call for an offset
_SAMPLE = 100_000  # points that the extent is measured on


@dataclass(frozen=True)
class Table:
    """What a reader of one format returns: x, y, z, colours and so on by name.

    Args:
        columns: each [N]; names as in PLY (red, nx, f_dc_0, ...).
        note: what the reader assumed or left out, for the log.
        sampling: of Gaussians; see :class:`PointCloud`.
    """

    columns: Columns
    note: str = ""
    sampling: Sampling = PUBLISHED


def to_cloud(path: Path, table: Table) -> PointCloud:
    """The cloud of a table; points with NaN or infinite coordinates are dropped and counted.

    Raises:
        UserError: no coordinates, no points, or not a single finite one.
    """
    columns = table.columns
    xyz = stack(columns, ("x", "y", "z"))
    if xyz is None:
        raise UserError(f"{path}: expected columns x, y, z, found {', '.join(columns) or 'none'}.")
    if len(xyz) == 0:
        raise no_points(path)
    offset = _offset(xyz)
    if any(offset):
        xyz = xyz.astype(np.float64) - offset
    # Double coordinates may be finite and still overflow float32.
    with np.errstate(over="ignore", invalid="ignore"):
        xyz = xyz.astype(np.float32, copy=False)
    keep = np.isfinite(xyz).all(1)
    dropped = int(len(xyz) - keep.sum())
    if dropped == len(xyz):
        raise UserError(f"{path}: all of its {dropped:,} points have NaN or infinite coordinates.")
    gaussians = _gaussians(columns)
    normals = stack(columns, ("nx", "ny", "nz"))
    if normals is not None:
        normals = normals.astype(np.float32, copy=False)
        normals[~np.isfinite(normals).all(1)] = 0
        if not normals.any():  # 3DGS writes zeros where the standard wants normals
            normals = None
    rgb = _rgb(columns, gaussians)
    said = [table.note] if table.note else []
    if gaussians is not None:
        said.append(f"3D Gaussian Splatting, {len(xyz):,} Gaussians")
    if dropped:
        said.append(f"{dropped:,} points with NaN or infinite coordinates dropped")
    if any(offset):
        place = ", ".join(f"{value:,.10g}" for value in offset)
        said.append(f"coordinates relative to ({place}), which float32 would have blurred")
    cloud = PointCloud(
        torch.from_numpy(xyz),
        None if rgb is None else torch.from_numpy(rgb),
        None if normals is None else torch.from_numpy(normals),
        " ".join([path.name, *(f"({text})" for text in said)]),
        gaussians=gaussians,
        offset=offset,
        sampling=table.sampling,
    )
    return cloud.subset(torch.from_numpy(keep)) if dropped else cloud


def splat_columns(splats: dict[str, np.ndarray]) -> Columns:
    """Columns of Gaussians as a 3DGS PLY names them.

    Args:
        splats: "xyz" [N, 3], "f_dc" [N, 3], "f_rest" [N, 3 B] channel by channel, "opacity"
            [N, 1] (logits), "scale" [N, 3] (logarithms), "rotation" [N, 4] (w x y z).
    """
    columns = dict(zip("xyz", splats["xyz"].T, strict=True))
    for name, prefix in (("f_dc", "f_dc_"), ("f_rest", "f_rest_"), ("scale", "scale_"),
                         ("rotation", "rot_")):  # fmt: skip
        columns |= {f"{prefix}{i}": values for i, values in enumerate(splats[name].T)}
    columns["opacity"] = splats["opacity"][:, 0]
    return columns


def stack(columns: Columns, names: tuple[str, ...]) -> np.ndarray | None:
    """The columns of these names [N, C], or None when one is missing."""
    if not all(name in columns for name in names):
        return None
    return np.stack([columns[name] for name in names], -1)


def no_points(path: Path) -> UserError:
    """The sentence about a file without points."""
    return UserError(f"{path}: the file holds zero points; at least one is needed.")


def color_to_unit(values: np.ndarray) -> np.ndarray:
    """Colours of any type as float32 in [0, 1]: bytes, 16-bit, 0..1 or 0..255 floats."""
    if values.dtype == np.int8:  # bytes written with the wrong sign
        values = values.view(np.uint8)
    out = values.astype(np.float32)
    if values.dtype.kind == "f":
        np.nan_to_num(out, copy=False, nan=0.5, posinf=1.0, neginf=0.0)
    if values.dtype == np.uint8:
        top = 255.0
    elif values.dtype == np.uint16:
        top = 65535.0
    else:
        largest = float(out.max(initial=0))
        if np.issubdtype(values.dtype, np.integer):
            top = 255.0 if largest <= 255 else 65535.0
        else:
            top = 1.0 if largest <= 1.001 else 255.0 if largest <= 255 else 65535.0
    out /= top
    return out.clip(0, 1, out=out)


def _offset(xyz: np.ndarray) -> tuple[float, float, float]:
    """A round place near the points; zero unless float32 steps there are too coarse for them."""
    with np.errstate(invalid="ignore", over="ignore"):  # longdouble
        some = xyz[:: max(1, len(xyz) // _SAMPLE)].astype(np.float64)
    some = some[np.isfinite(some).all(1)]
    if not len(some):
        return (0.0, 0.0, 0.0)
    with np.errstate(over="ignore"):
        low, high = np.quantile(some, (0.01, 0.99), axis=0)
        extent = float((high - low).max())
        step = float(max(np.abs(low).max(), np.abs(high).max())) * 2.0**-23
    if not 0 < extent < math.inf or not _BLUR * extent < step < math.inf:
        return (0.0, 0.0, 0.0)
    unit = max(10.0 ** math.floor(math.log10(extent)), step)  # else the division may overflow
    x, y, z = (np.round((0.5 * low + 0.5 * high) / unit) * unit).tolist()
    return x, y, z


def _rgb(columns: Columns, gaussians: dict[str, Tensor] | None) -> np.ndarray | None:
    """Colours [N, 3] float32 in [0, 1] from whatever type and range the file has."""
    for names in _COLOR_COLUMNS:
        values = stack(columns, names)
        if values is not None and len(values):
            return color_to_unit(values)
    if gaussians is not None:
        return (0.5 + SH_C0 * gaussians["f_dc"]).clamp(0, 1).numpy()
    return None


def _gaussians(columns: Columns) -> dict[str, Tensor] | None:
    dc = stack(columns, ("f_dc_0", "f_dc_1", "f_dc_2"))
    if dc is None:
        return None

    def family(prefix: str) -> Tensor | None:
        names = [n for n in columns if n.startswith(prefix) and n[len(prefix) :].isdigit()]
        names.sort(key=lambda n: int(n[len(prefix) :]))
        values = stack(columns, tuple(names)) if names else None
        return None if values is None else torch.from_numpy(values.astype(np.float32, copy=False))

    out = {"f_dc": torch.from_numpy(dc.astype(np.float32, copy=False))}
    for name, prefix in (("f_rest", "f_rest_"), ("scale", "scale_"), ("rotation", "rot_")):
        values = family(prefix)
        if values is not None:
            out[name] = values
    if "opacity" in columns:
        out["opacity"] = torch.from_numpy(columns["opacity"].astype(np.float32))[:, None]
    return out
