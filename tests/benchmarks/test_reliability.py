"""The faults of ``benchmarks.reliability``, each once, and a few kills: nothing may be lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUPS = (("kill", "end"), ("disk", "readonly", "nan"), ("vanish", "two", "clock"), ("memory",))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, limits, /proc")
@pytest.mark.parametrize("faults", GROUPS, ids="-".join)
def test_nothing_is_lost(faults: tuple[str, ...], tmp_path: Path) -> None:
    done = _provoke(*faults, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing lost") + done.stdout.count("not tried") == len(faults)


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed")
def test_a_lost_display_costs_nothing(tmp_path: Path) -> None:
    pytest.importorskip("dearpygui")
    done = _provoke("display", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_lost_is_found(tmp_path: Path) -> None:
    """The comparison itself: another state, and a table that says so."""
    import torch

    from benchmarks.faultrow import Row
    from benchmarks.reliability import same

    state = {"a": [torch.tensor([1.0, 2.0])], "b": float("nan"), "c": (1, "x")}
    copy = {"a": [torch.tensor([1.0, 2.0])], "b": float("nan"), "c": (1, "x")}
    assert same(state, copy)
    copy["a"] = [torch.tensor([1.0, 2.0 + 2**-22])]
    assert not same(state, copy)
    assert not same(state, state | {"d": 0})
    assert not same({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.float64)})
    assert Row("fault", "how").lost == []


def _provoke(*faults: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # A process of its own: it forks, which a process that computes with torch must not.
    return subprocess.run(
        [
            sys.executable, "-m", "benchmarks.reliability", "--faults", *faults,
            "--kills", "2", "--steps", "30", "--memory", "8", "64", "--keep", str(folder / "runs"),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
