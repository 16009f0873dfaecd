"""Two programs never train in one run folder, and a dead one locks nobody out."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from render.errors import UserError
from render.training.runfolder import RunFolder
from render.training.runlock import hold

ROOT = Path(__file__).parents[2]
HOLDER = (
    "import sys; from pathlib import Path; from render.training.runlock import hold;"
    "lock = hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


def test_another_program_is_told_who_holds_it(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"another program trains .*process {other.pid} on"):
            hold(tmp_path)
    finally:
        other.kill()
        other.wait()
    assert hold(tmp_path) is not None  # SIGKILL leaves no lock


def test_sessions_of_one_program_share_it_and_the_last_gives_it_back(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run", exact=True)
    second = RunFolder.create(tmp_path / "other", exact=True)
    again = hold(tmp_path / "run")
    del first
    gc.collect()
    assert _other_can_hold(tmp_path / "run") is False
    del again
    gc.collect()
    assert _other_can_hold(tmp_path / "run") is True
    assert second.files() == {"": ["log.txt"]}


def _other_can_hold(folder: Path) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, input="", capture_output=True
    )
    return done.returncode == 0
