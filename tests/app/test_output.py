"""Standard output that cannot be written must not touch the run."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.headless import _status
from app.output import LastingOutput, make_console
from app.snapshot import Snapshot

ROOT = Path(__file__).parents[2]


class Closed(io.StringIO):
    """A pipe whose reader has gone after the first text."""

    def write(self, text: str) -> int:
        if self.tell():
            raise BrokenPipeError
        return super().write(text)


def test_closed_pipe_is_given_up() -> None:
    stream = Closed()
    output = LastingOutput(stream)
    assert output.write("first") == 5
    assert output.write("second") == 6 and output.write("third") == 5
    output.flush()
    assert stream.getvalue() == "first" and not output.isatty()


def test_no_stream_at_all() -> None:
    output = LastingOutput(None)
    assert output.write("text") == 4 and not output.isatty()
    output.flush()


def test_unknown_characters_become_escapes() -> None:
    raw = io.BytesIO()
    output = LastingOutput(io.TextIOWrapper(raw, encoding="ascii"))
    output.write("b\u00fcro \udcff")
    output.flush()
    assert raw.getvalue() == b"b\\xfcro \\udcff" and output.encoding == "ascii"


def test_console_takes_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("b\udcfcro")
    assert capsys.readouterr().out == "b\\udcfcro\n"


@pytest.mark.parametrize("width", [19, 40, 72])
def test_status_leaves_out_what_does_not_fit(width: int) -> None:
    text = _status(Snapshot(), width)
    assert len(text) <= width and text.endswith("s left")
    assert ("held out" in text) == (width >= 40)


@pytest.mark.skipif(os.name == "nt", reason="POSIX descriptors")
def test_program_without_standard_output() -> None:
    code = "import os, sys; os.close(1); import subprocess; sys.exit(subprocess.call(sys.argv[1:]))"
    command = [sys.executable, "-c", code, sys.executable, "main.py", "--version"]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes_read_the_same_in_every_encoding(encoding: str) -> None:
    command = [sys.executable, "main.py", "--k", "1.5"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, timeout=60, check=False, capture_output=True, text=True
    )
    expected = "Error: --k 1.5: expected a whole number; main.py --help lists all options.\n"
    assert (result.returncode, result.stderr) == (1, expected)
