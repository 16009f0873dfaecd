"""The line at the bottom of the window."""

from __future__ import annotations

import math
import time

import psutil
import torch

from app.desk import Desk
from app.progress import count_text
from app.snapshot import Snapshot

NEWS_SECONDS = 4.0  # that a new message stands instead of the numbers
_process = psutil.Process()


def memory() -> int:
    """Bytes that the program holds: in main memory, and on the GPU where one is used."""
    used = _process.memory_info().rss
    if torch.cuda.is_initialized():
        used += torch.cuda.memory_allocated()
    return used


def gaussians_text(snapshot: Snapshot) -> str:
    """How many Gaussians there are, and the memory of their parameters."""
    return f"{snapshot.gaussians:,} Gaussians of {snapshot.gaussian_bytes / 2**20:,.1f} MiB"


def status_line(desk: Desk) -> str:
    """Scene, device, Gaussians, step, rate, loss, PSNR, picture rate and size, memory."""
    snapshot, scene = desk.snapshot, desk.scene
    newest = desk.messages.newest
    coming = None if desk.coming is None else desk.coming.snapshot()
    counted = "" if coming is None else count_text(coming)
    if newest is not None and not counted and time.monotonic() - newest.added < NEWS_SECONDS:
        return newest.text
    parts = []
    if coming is not None:
        news = counted or (coming.notes[-1] if coming.notes else "")
        parts.append(f"Loading: {news}" if news else "Loading ...")
    if scene is not None:
        parts.append(scene.name)
        if snapshot.device:
            parts.append(snapshot.device)
    if snapshot.gaussians:
        parts.append(f"{snapshot.gaussians:,} Gaussians")
    if snapshot.step:
        parts.append(f"step {snapshot.step:,}")
    if snapshot.report is not None:
        parts += [
            f"{snapshot.steps_per_second:.1f} steps/s",
            f"loss {snapshot.loss:.4f}",
        ]
    if math.isfinite(snapshot.train_psnr):
        parts.append(f"train {snapshot.train_psnr:.1f} dB")
    if snapshot.evals:
        parts.append(f"held out {snapshot.evals[-1].result.psnr:.2f} dB")
    shown = desk.pictures.shown
    if shown is not None:
        camera = shown.job.result.request.camera
        parts += [f"view {desk.pictures.fps:.1f} fps", f"{camera.width} x {camera.height}"]
    parts.append(f"{memory() / 2**20:,.0f} MiB")
    return "   ".join(parts)
