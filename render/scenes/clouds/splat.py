"""``.splat`` files: Gaussians of 32 bytes each, in the order in which a viewer wants them.

Three float32 positions, three float32 sizes (not their logarithms), red green blue opacity as
bytes, and the quaternion w x y z as bytes 128 + 128 q. There is no header, no count and no
view-dependent colour. The layout is that of antimatter15/splat.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from render.errors import UserError
from render.scenes.clouds.columns import SH_C0

_ROW = np.dtype([("xyz", "<f4", 3), ("size", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])
BYTES = _ROW.itemsize
_LEAST = 0.25 / 255  # opacities of the bytes 0 and 255 stay this far from 0 and 1


def looks_like_splats(head: bytes, size: int) -> bool:
    """Whether the first bytes can be such rows: nothing announces this format."""
    rows = np.frombuffer(head, _ROW, len(head) // BYTES)
    if not len(rows) or size % BYTES:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm((rows["rotation"].astype(np.float32) - 128) / 128, axis=1)
        sizes = rows["size"]
        good = np.isfinite(rows["xyz"]).all(1) & (sizes >= 0).all(1) & (sizes < 1e6).all(1)
        good &= (length > 0.9) & (length < 1.1) & (np.abs(rows["xyz"]) < 1e9).all(1)
    return bool(good.mean() > 0.9)


def read_splat(path: Path) -> dict[str, np.ndarray]:
    """The Gaussians as :func:`render.scenes.clouds.columns.splat_columns` takes them.

    Raises:
        UserError: the size is no multiple of 32 bytes.
    """
    size = path.stat().st_size
    if size % BYTES:
        raise UserError(
            f"{path}: expected Gaussians of {BYTES} bytes each, found {size:,} bytes, "
            f"{size % BYTES} more than {size // BYTES:,} Gaussians take; the file is cut off or "
            "no .splat file."
        )
    rows = np.fromfile(path, _ROW)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.log(np.maximum(rows["size"], 1e-12))
    rgba = rows["rgba"].astype(np.float32) / 255
    rotation = (rows["rotation"].astype(np.float32) - 128) / 128
    rotation[~rotation.any(1)] = (1, 0, 0, 0)
    return {
        "xyz": rows["xyz"],
        "f_dc": (rgba[:, :3] - 0.5) / SH_C0,
        "f_rest": np.zeros((len(rows), 0), np.float32),
        "opacity": logit(rgba[:, 3:]),
        "scale": scale,
        "rotation": rotation / np.linalg.norm(rotation, axis=1, keepdims=True),
    }


def splat_bytes(splats: dict[str, np.ndarray]) -> bytes:
    """The content of a ``.splat`` file: colours, opacities and rotations are rounded to bytes.

    The largest and most opaque Gaussians come first, as viewers load such files piece by piece.
    """
    opacity = sigmoid(splats["opacity"][:, 0].astype(np.float64))
    volume = np.exp(splats["scale"].astype(np.float64).sum(1).clip(-700, 700))
    rows = np.empty(len(opacity), _ROW)
    rows["xyz"] = splats["xyz"]
    rows["size"] = np.exp(splats["scale"].astype(np.float64).clip(-80, 80))
    rows["rgba"][:, :3] = to_byte(0.5 + SH_C0 * splats["f_dc"].astype(np.float64), 255)
    rows["rgba"][:, 3] = to_byte(opacity, 255)
    rows["rotation"] = to_byte(unit_quaternions(splats["rotation"]) + 1, 128)
    return rows[np.argsort(-volume * opacity, kind="stable")].tobytes()


def to_byte(values: np.ndarray, scale: float) -> np.ndarray:
    """``scale * values`` rounded and clipped to bytes; NaN becomes 0."""
    return np.nan_to_num(np.floor(values * scale + 0.5)).clip(0, 255).astype(np.uint8)


def unit_quaternions(values: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] of length 1, float64; (1, 0, 0, 0) where there was none."""
    values = np.nan_to_num(values.astype(np.float64))
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 0, values / np.where(length > 0, length, 1), (1.0, 0, 0, 0))


def logit(opacity: np.ndarray) -> np.ndarray:
    """The inverse of :func:`sigmoid`, finite for the bytes 0 and 255 too; float32."""
    inside = opacity.astype(np.float64).clip(_LEAST, 1 - _LEAST)
    return np.log(inside / (1 - inside)).astype(np.float32)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))
