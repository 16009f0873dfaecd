"""Which run "resume last" means."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from app.resume import last_run


def make_run(folder: Path, scene: str, steps: list[int], when: float, metrics: str = "") -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    config = {"scene": {"name": scene, "path": f"/scenes/{scene}"}}
    (folder / "config.json").write_text(json.dumps(config))
    for step in steps:
        path = folder / "checkpoints" / f"step_{step:07d}.pt"
        path.touch()
        os.utime(path, (when, when))
    if metrics:
        (folder / "metrics.csv").write_text(metrics)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path / "lego" / "a", "lego", [100, 40], 2000.0, "step,seconds\n40,3.5\n100,9.25\n")
    make_run(tmp_path / "lego" / "b", "lego", [700], 1000.0, "step,seconds\n700,\n")
    make_run(tmp_path / "chair" / "c", "chair", [5], 3000.0)
    make_run(tmp_path / "lego" / "unsaved", "lego", [], 0.0)
    return tmp_path


def test_the_newest_of_all_and_of_a_scene(root: Path) -> None:
    newest = last_run(root=root)
    assert newest is not None and newest.run == root / "chair" / "c"
    assert (newest.step, newest.when, newest.seconds) == (5, 3000.0, None)
    for scene in ("lego", "/scenes/lego", Path("/scenes/lego")):
        found = last_run(scene, root)
        assert found is not None and found.run == root / "lego" / "a"
        assert found.checkpoint.name == "step_0000100.pt"
        assert (found.step, found.when, found.seconds) == (100, 2000.0, 9.25)


def test_nothing_there_and_broken_neighbours(root: Path, tmp_path: Path) -> None:
    assert last_run("ship", root) is None
    assert last_run(root=tmp_path / "missing") is None
    (root / "chair" / "c" / "config.json").write_text("{")
    found = last_run("lego", root)
    assert found is not None and found.run == root / "lego" / "a"
    (root / "lego" / "a" / "metrics.csv").write_bytes(b"\xff\xff\n\n")
    found = last_run("lego", root)
    assert found is not None and found.seconds is None


def test_renamed_checkpoints_have_no_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x" / "r", "x", [7], 10.0)
    (run / "checkpoints" / "step_0000007.pt").rename(run / "checkpoints" / "step_copy.pt")
    found = last_run("x", tmp_path)
    assert found is not None and found.step is None
