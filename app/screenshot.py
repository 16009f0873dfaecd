"""What the picture shows, as a PNG with its camera beside it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from app.desk import Desk
from render.export.images import save_image
from render.files import atomic_text
from render.scenes.normalize import place_cameras


def save_screenshot(desk: Desk) -> Path | None:
    """Write the shown picture into the run folder (without one: here); says where.

    The ``.json`` beside it holds the camera, in the units of the scene's file, and what was shown,
    so that it can be made again.
    """
    shown = desk.pictures.shown
    if shown is None:
        desk.messages.add("There is no picture to save yet.", "warning")
        return None
    folder = Path(desk.snapshot.folder) if desk.snapshot.folder else Path.cwd()
    result = shown.job.result
    name = f"shot_{time.strftime('%Y%m%d-%H%M%S')}_step{result.step}"
    path = folder / "images" / f"{name}.png" if desk.snapshot.folder else folder / f"{name}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = 2
        while path.exists():
            path = path.with_name(f"{name}_{number}.png")
            number += 1
        save_image(path, torch.from_numpy(shown.picture[..., :3]))
        look, camera = shown.job.look, result.request.camera
        to_file = torch.eye(4) if desk.scene is None else desk.scene.to_file
        content = {
            "camera": place_cameras([camera], to_file)[0].to_json(),
            "step": result.step,
            "shows": [side.describe() for side in look.sides],
            "wipe": look.wipe if look.other is not None else None,
            "style": asdict(result.request.style),
        }
        atomic_text(path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    except OSError as error:
        desk.messages.error(f"{path}: {error.strerror}; the screenshot was not saved.")
        return None
    desk.messages.add(f"Saved {path}.", "good")
    return path
