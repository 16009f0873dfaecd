"""``benchmarks/cuda_all.sh``: every part is run and told, whatever happens to the others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cuda_all.sh"
pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("sh") is None, reason="a shell script"
)
PYTHON = """#!/bin/sh
case "$*" in
  *is_available*) echo "{gpu}" ;;
  *test_cuda_emulator*) echo "no emulator"; exit 3 ;;
  *) echo "ran: $*" ;;
esac
"""


def run(folder: Path, *parts: str, gpu: str = "") -> tuple[int, dict[str, str]]:
    """Exit code and summary by part, with a Python that only says what it was asked to do."""
    python = folder / "python"
    python.write_text(PYTHON.format(gpu=gpu))
    python.chmod(0o755)
    report = folder / "report"
    done = subprocess.run(
        ["sh", str(SCRIPT), str(report), *parts],
        env=dict(os.environ, PYTHON=str(python)),
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = (report / "summary.txt").read_text().splitlines()
    return done.returncode, {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_parts_go_on_after_a_failure(tmp_path: Path) -> None:
    code, told = run(tmp_path)
    assert told["compile"].startswith("ok")
    assert told["emulator"].startswith("FAILED (3)") and "no emulator" in told["emulator"]
    assert told["tests"].startswith("ok") and told["rasterize"].startswith("ok")
    assert code == sum("FAILED" in line for line in told.values()) > 0


def test_without_a_gpu_only_what_needs_none_is_run(tmp_path: Path) -> None:
    code, told = run(tmp_path, gpu="torch finds no GPU")
    assert code == 1  # the emulator of this test
    ran = {part for part, line in told.items() if not line.startswith("skipped")}
    assert ran == {"compile", "emulator"}
    assert told["memcheck"] == "skipped: torch finds no GPU"


def test_single_parts(tmp_path: Path) -> None:
    code, told = run(tmp_path, "nvrtc", "tests")
    assert (code, set(told)) == (0, {"nvrtc", "tests"})
    assert "rasterize_cuda --quick" in (tmp_path / "report" / "nvrtc.log").read_text()
