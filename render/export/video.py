"""Videos: H.264 in MP4, one frame at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from torch import Tensor

from render.camera import Camera
from render.export.images import to_uint8
from render.files import atomic_write

RenderFrame = Callable[[Camera], Tensor]


def write_video(path: Path, frames: Iterator[Tensor], fps: float = 24) -> int:
    """Stream frames [H, W, 3] in [0, 1] of one size into ``path``; returns how many.

    H.264 with 4:2:0 colour needs even sizes: an odd last row or column is repeated once. An
    exception from ``frames`` leaves no file behind.
    """
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        writer = None
        try:
            for frame in frames:
                pixels = _even(to_uint8(frame))
                if writer is None:
                    writer = imageio_ffmpeg.write_frames(
                        str(temporary),
                        (pixels.shape[1], pixels.shape[0]),
                        fps=fps,  # pyright: ignore[reportArgumentType] - ffmpeg takes fractions
                        codec="libx264",
                        quality=8,
                        macro_block_size=1,  # the default would rescale to multiples of 16
                        ffmpeg_log_level="error",
                    )
                    writer.send(None)
                writer.send(np.ascontiguousarray(pixels))
                count += 1
        finally:
            if writer is not None:
                writer.close()

    atomic_write(path, write)
    return count


def fit_budget(
    cameras: Sequence[Camera], render: RenderFrame, seconds: float
) -> tuple[list[Camera], int]:
    """Cameras that can be rendered in about ``seconds``, and every how many-th was kept.

    Renders the first camera twice (the first call may build caches) and takes the second time.
    Too slow for the budget: first the resolution falls to a half at most, then frames are left
    out, so that the turn stays complete.
    """
    render(cameras[0])
    start = time.perf_counter()
    render(cameras[0])
    cost = (time.perf_counter() - start) * len(cameras)
    scale = min(1.0, max(0.5, (seconds / max(cost, 1e-9)) ** 0.5))
    stride = max(1, round(cost * scale * scale / seconds))
    resized = []
    for camera in cameras[::stride]:
        width, height = (max(2, round(v * scale)) for v in (camera.width, camera.height))
        resized.append(camera.resize(width, height))
    return resized, stride


def _even(pixels: np.ndarray) -> np.ndarray:
    rows, columns = pixels.shape[0] % 2, pixels.shape[1] % 2
    return np.pad(pixels, ((0, rows), (0, columns), (0, 0)), mode="edge")
