"""While a scene loads, the window counts its photographs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.driver import WindowDriver
from tests.fakes import write_scene


def test_photographs_are_counted(open_window: Callable[..., WindowDriver], tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "many", size=700, val=False)
    file = folder / "transforms_train.json"
    data = json.loads(file.read_text())
    for i in range(60):  # each a file of its own, which takes a moment to decode
        name = f"train/again_{i}"
        with Image.open(folder / "train" / f"r_{i % 6}.png") as image:
            pixels = np.array(image)
        pixels[::7, ::5, i % 3] = i
        Image.fromarray(pixels).save(folder / f"{name}.png")
        data["frames"].append(data["frames"][i % 6] | {"file_path": name})
    file.write_text(json.dumps(data))
    with open_window("--scene", folder, "--eval-every", "never") as window:
        line = re.compile(r"Loading: photographs (\d+) of 66")
        state = window.until(lambda s: line.match(s["texts"]["status"]) is not None, 60)
        found = line.match(state["texts"]["status"])
        assert found is not None and 0 < int(found[1]) < 66
        window.until(lambda s: s["scene"] == "many" and s["counted"] is None, 90)
        assert not window.state()["errors"]
