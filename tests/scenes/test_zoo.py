"""Every malformed scene ends in one sentence and exit code 1, through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import main
from render.errors import UserError
from render.scenes.load import load_scene
from tests.driver import ROOT
from tests.fakes import FakeMethod
from tests.scenes.zoo import CASES, MAY_LOAD

SECONDS = 60  # of a process, with importing torch on a busy machine; the errors take milliseconds
# A few through a process of their own: what would take time or memory, what comes from C code.
IN_PROCESS_OF_ITS_OWN = (
    "images: bomb", "cloud: npz bomb", "json: path without end", "place: a pipe", "cloud.e57-noise",
)  # fmt: skip
# The program, with at most a gigabyte beyond what its libraries map.
_LIMITED = """
import resource, main, app.headless
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30),) * 2)
main.run()
"""


def assert_sentence(text: str) -> None:
    assert text.startswith("Error: ") and text.count("\n") == 1 and text.endswith(".\n"), text
    assert 40 < len(text) < 1200, text


@pytest.fixture
def points_wanted(fake_method: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method that costs nothing asks for points, so that clouds are read too."""
    monkeypatch.setattr(FakeMethod, "needs_points", True)


def test_the_zoo_is_large() -> None:
    assert len(CASES) - len(MAY_LOAD) >= 120
    assert set(CASES) >= MAY_LOAD


@pytest.mark.parametrize("name", sorted(set(CASES) - MAY_LOAD))
def test_one_sentence(
    name: str, points_wanted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "zoo").mkdir()
    scene = CASES[name](tmp_path / "zoo")
    code = main.main(["--scene", str(scene), "--headless", "--steps", "1", "--method", "fake"])
    said = capsys.readouterr()
    assert code == 1
    assert_sentence(said.err)
    assert "Traceback" not in said.out and "Warning" not in said.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", sorted(MAY_LOAD))
def test_a_scene_or_a_sentence(name: str, tmp_path: Path) -> None:
    try:
        scene = load_scene(CASES[name](tmp_path), point_budget=1000)
    except UserError as error:
        assert_sentence(f"Error: {error}\n")
    else:
        assert scene.points is not None and bool(scene.points.xyz.isfinite().all())


@pytest.mark.parametrize("name", IN_PROCESS_OF_ITS_OWN)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_in_a_process_with_little_memory(name: str, tmp_path: Path) -> None:
    scene = CASES[name](tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", _LIMITED, "--scene", str(scene), "--headless", "--steps", "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, timeout=SECONDS,
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert_sentence(result.stderr)
    assert "out of memory" not in result.stderr.lower()
