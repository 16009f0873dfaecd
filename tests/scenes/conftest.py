"""Fixtures: scene folders on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import fake_method
from tests.scenes.synthetic import ANGLE, BlenderFolder, MakeScene, cameras_around, render_sphere

__all__ = ["fake_method", "make_scene"]


@pytest.fixture
def make_scene(tmp_path: Path) -> MakeScene:
    """Writes a NeRF-Synthetic folder of a two-coloured sphere."""

    def make(
        splits: dict[str, int] | None = None, size: int = 32, name: str = "ball"
    ) -> BlenderFolder:
        folder = BlenderFolder(tmp_path / name, {}, {})
        for number, (split, count) in enumerate((splits or {"train": 9}).items()):
            (folder.path / split).mkdir(parents=True)
            cameras = cameras_around(count, size, seed=number)
            frames = []
            folder.cameras[split], folder.images[split] = cameras, []
            for i, camera in enumerate(cameras):
                image = render_sphere(camera)
                folder.images[split].append(image)
                Image.fromarray(np.asarray(image)).save(folder.path / split / f"r_{i}.png")
                matrix = camera.to_opengl().tolist()
                frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": matrix})
            data = {"camera_angle_x": ANGLE, "frames": frames}
            (folder.path / f"transforms_{split}.json").write_text(json.dumps(data))
        return folder

    return make
