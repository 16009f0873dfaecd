"""Text of files that somebody else made: whole, or refused before it fills the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import settings
from render import files
from render.errors import UserError
from render.export.camera_path import load_camera_path
from render.files import small_text
from render.training.runfolder import read_config


def test_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_TEXT", 1 << 20)
    path = tmp_path / "config.json"
    path.write_bytes(b" " * ((1 << 20) - 2) + b"{}")
    assert len(small_text(path)) == 1 << 20
    assert read_config(tmp_path) == {}
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="more than 1 MB"):
        small_text(path)
    for read in (lambda: read_config(tmp_path), lambda: load_camera_path(path)):
        with pytest.raises(UserError, match="more than 1 MB"):
            read()
    monkeypatch.setattr(settings, "settings_path", lambda: path)
    loaded, sentence = settings.load()
    assert loaded == settings.Settings() and sentence is not None and "more than 1 MB" in sentence


def test_nesting_without_end(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="as JSON"):
        read_config(tmp_path)
