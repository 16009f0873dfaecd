"""Curves from the files of several runs."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from benchmarks.curves import curves, main


def write(path: Path, method: str, seconds: list[float], settings: list[str]) -> Path:
    rows = [{"seconds": s, "step": 1, "psnr": 20 + s / 10, "ssim": 0.9} for s in seconds]
    result = {"method": method, "k": 8, "set": settings, "rows": rows}
    path.write_text(json.dumps({"scene": "lego", "results": [result]}))
    return path


def test_runs_of_a_scene_share_a_panel(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.json", "kbuffer", [0, 15, 30], []),
        write(tmp_path / "b.json", "gaussians", [0, 60], ["strategy=mcmc"]),
    ]
    found = curves(files)
    assert list(found) == ["lego"]
    assert found["lego"]["kbuffer K=8"] == [(0, 20), (15, 21.5), (30, 23)]
    assert list(found["lego"]) == ["kbuffer K=8", "gaussians K=8 (strategy=mcmc)"]
    main(files, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 600
        assert len(set(picture.convert("RGB").getdata())) > 20
