"""``--ui-state FILE``: the state of the window as JSON, for tests and other tools."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.look import Side
from app.status import memory
from app.widgets import rectangles, texts
from render.files import atomic_text

if TYPE_CHECKING:
    from app.window import Window


class StateFile:
    """Writes the file, a few times a second; whole at any moment."""

    def __init__(self, path: Path, window: Window) -> None:
        self.path, self.window = path, window
        self._count = 0

    def write(self) -> None:
        """Write the present state; a failure to write ends nothing."""
        self._count += 1
        try:
            atomic_text(self.path, json.dumps(_finite(self._state())) + "\n", sync=False)
        except OSError as error:
            self.window.desk.messages.add(f"{self.path}: {error.strerror}.", "warning")

    def _state(self) -> dict[str, Any]:
        window, desk = self.window, self.window.desk
        viewing, snapshot, pictures = desk.viewing, desk.snapshot, desk.pictures
        look, shown = viewing.look, pictures.shown
        messages, card = desk.messages, desk.drops.card
        picture = None
        if shown is not None:
            result = shown.job.result
            picture = {
                "number": result.request.number,
                "width": result.request.camera.width,
                "height": result.request.camera.height,
                "step": result.step,
                "moving": result.request.moving,
                "seconds": result.seconds,
                "psnr": shown.psnr,
                "other_psnr": shown.other_psnr,
                "note": shown.note,
                "mean": float(shown.picture[..., :3].mean()),
                "main": _side(shown.job.look.main),
                "other": shown.job.look.other and _side(shown.job.look.other),
                "wipe": shown.job.look.wipe,
                "depth_range": shown.depth_range,
                "style": asdict(result.request.style),
                "legend": shown.legend and shown.legend.title,
                "box": window.viewport.picture_rect,
                "world_to_camera": result.request.camera.world_to_camera.tolist(),
            }
        sweep = pictures.sweep
        probe = window.probe.current
        return {
            "writes": self._count,
            "camera": viewing.control.to_json(),
            "moving": viewing.moving,
            "k": look.main.k,
            "trained_k": viewing.trained_k,
            "layer": look.main.layer,
            "mode": look.main.mode,
            "source": look.main.source,
            "wipe": None if look.other is None else look.wipe,
            "other": None if look.other is None else _side(look.other),
            "depth_range": look.depth_range,
            "percentiles": look.percentiles,
            "at_view": viewing.at_view,
            "place": viewing.view_place(),
            "preview": desk.shows_preview,
            "state": snapshot.state.value,
            "loading": desk.coming is not None,
            "counted": None if desk.coming is None else desk.coming.snapshot().counted,
            "scene": None if desk.scene is None else desk.scene.name,
            "views": {}
            if desk.scene is None
            else {name: len(indices) for name, indices in desk.scene.splits.items()},
            "points": 0
            if desk.scene is None or desk.scene.points is None
            else len(desk.scene.points),
            "gaussians": snapshot.gaussians,
            "gaussian_bytes": snapshot.gaussian_bytes,
            "refinements": [asdict(event) for event in snapshot.refinements],
            "shape": look.style.shape,
            "scale": look.style.scale,
            "method": snapshot.method,
            "folder": snapshot.folder,
            "step": snapshot.step,
            "seconds": snapshot.seconds,
            "metrics": {
                "loss": snapshot.loss,
                "train_psnr": snapshot.train_psnr,
                "test_psnr": snapshot.evals[-1].result.psnr if snapshot.evals else None,
                "steps_per_second": snapshot.steps_per_second,
            },
            "progress": snapshot.progress,
            "eta": snapshot.eta,
            "rates": snapshot.rates,
            "loss_weights": snapshot.loss_weights,
            "scales": snapshot.scales,
            "stages": snapshot.stages,
            "saved": snapshot.saved,
            "picture": picture,
            "view_fps": pictures.fps,
            "latency": pictures.latency,
            "sweep": None if sweep is None else {"psnr": sweep.psnr, "photo": sweep.photo},
            "probe": None
            if probe is None
            else {
                "x": probe.x,
                "y": probe.y,
                "layers": [row.layer for row in probe.rows],
                "ids": [row.id for row in probe.rows],
                "depths": [row.depth for row in probe.rows],
                "shares": [row.weight for row in probe.rows],
            },
            "drops": desk.drops.paths,
            "reading": desk.drops.reading,
            "card": None
            if card is None
            else {
                "path": str(card.path),
                "points": card.total,
                "verdict": card.alignment and card.alignment.verdict,
            },
            "errors": [m.text for m in messages.all if m.level == "error"],
            "popup": messages.popup and messages.popup.text,
            "messages": [m.text for m in list(messages.all)[-20:]],
            "message_count": messages.count,
            "theme": window.theme.name,
            "settings": {
                "panel_width": desk.settings.panel_width,
                "atlas_height": desk.settings.atlas_height,
                "show_frusta": desk.settings.show_frusta,
                "show_grid": desk.settings.show_grid,
                "view_share": desk.settings.view_share,
                "pause_while_moving": desk.settings.pause_while_moving,
                "speed": desk.settings.speed,
                "smoothing": desk.settings.smoothing,
                "point_size": desk.settings.point_size,
            },
            "size": window.size,
            "focused": window.native.focused,
            "memory": memory(),
            "tiles": window.viewport.tile_rects,
            "rects": rectangles(),
            "texts": texts(),
        }


def _side(side: Side) -> dict[str, Any]:
    return {"source": side.source, "mode": side.mode, "k": side.k, "layer": side.layer}


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
