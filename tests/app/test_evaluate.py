"""``--eval``: the same numbers as in training, for any run or checkpoint, under any protocol."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import main
from tests.fakes import fake_method, tiny_scene

__all__ = ["fake_method", "tiny_scene"]
pytestmark = pytest.mark.usefixtures("fake_method")


@pytest.fixture
def run_folder(tiny_scene: Path, tmp_path: Path) -> Path:
    """A run of 4 steps and its eval.json, measured at the end of training."""
    out = tmp_path / "trained"
    arguments = ["--headless", "--scene", str(tiny_scene), "--method", "fake", "--steps", "4"]
    assert main.main([*arguments, "--out", str(out)]) == 0
    return out


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_same_bits_as_in_training(run_folder: Path, tmp_path: Path) -> None:
    trained = (run_folder / "eval.json").read_bytes()
    newest = run_folder / "checkpoints" / "step_0000004.pt"
    for source in (run_folder, run_folder / "checkpoints", newest):
        (run_folder / "eval.json").unlink()
        assert main.main(["--eval", str(source)]) == 0
        assert (run_folder / "eval.json").read_bytes() == trained
    alone = shutil.copy(newest, tmp_path / "alone.pt")
    assert main.main(["--eval", str(alone), "--out", str(tmp_path / "measured")]) == 0
    assert (tmp_path / "measured" / "eval.json").read_bytes() == trained
    assert main.main(["--eval", "--resume", str(alone)]) == 0
    [found] = (tmp_path / "runs" / "tiny").iterdir()
    assert found.name.startswith("fake-eval-")
    assert (found / "eval.json").read_bytes() == trained


@pytest.mark.parametrize(
    "name", ["kbuffers-npf", "kbuffers-gs", "3dgs", "npbgpp", "point-radiance"]
)
def test_other_protocols_stand_beside(
    run_folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: (run_folder / p).read_bytes() for p in ("eval.json", "metrics.csv", "config.json")}
    assert main.main(["--eval", str(run_folder), "--protocol", name]) == 0
    assert {p: (run_folder / p).read_bytes() for p in before} == before
    data = read(run_folder / f"eval-{name}.json")
    assert data["protocol"]["name"] == name and data["step"] == 4
    assert len(data["per_image"]) == 3 and data["psnr"] > 0
    assert "3 test views, published with 200" in data["protocol"]["departures"]
    output = capsys.readouterr().out
    assert f"(protocol {name}: " in output and "Differs from published numbers: 3 test" in output
    assert (data["psnr"] == read(run_folder / "eval.json")["psnr"]) == (
        "k" in name or "npb" in name
    )


def test_mistakes(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--eval", str(run_folder), "--protocol", "nerf"]) == 1
    assert "--protocol nerf: expected one of house, kbuffers-npf" in capsys.readouterr().err
    assert main.main(["--scene", "lego", "--protocol", "3dgs"]) == 1
    assert "goes with --eval" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="POSIX modes")
def test_a_run_that_is_only_read(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:  # for whom modes do not count

        def refuse(*args: Any, **kwargs: Any) -> Path:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("render.training.runfolder.atomic_text", refuse)
    else:
        run_folder.chmod(0o555)
    try:
        assert main.main(["--eval", str(run_folder)]) == 0
    finally:
        run_folder.chmod(0o755)
    output = capsys.readouterr().out
    assert "could not be written (Permission denied)" in output and "mean of 3" in output
