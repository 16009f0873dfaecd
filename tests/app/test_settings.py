"""Settings of the window: what survives, and that no file keeps the program from starting."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from app import settings
from app.settings import MAX_RECENT, Recent, Settings, load, save, settings_path


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config ü"
    monkeypatch.setenv("KBUFFERS_CONFIG", str(folder))
    return folder


def write(config: Path, text: str) -> Path:
    config.mkdir(exist_ok=True)
    path = config / "settings.json"
    path.write_text(text, encoding="utf-8")
    return path


CHANGED = replace(
    Settings(), width=1920, x=-8, theme="light", font_scale=1.5, last_scene="lego",
    pause_while_moving=True, speed=3.0, show_grid=False,
).add_recent("/a/b \udcff.ply", "cloud")  # fmt: skip


def test_what_is_saved_comes_back(config: Path) -> None:
    assert load() == (Settings(), None)
    assert save(CHANGED) is None
    assert load() == (CHANGED, None)
    assert [path.name for path in config.iterdir()] == ["settings.json"]
    assert save(Settings()) is None and load() == (Settings(), None)


def test_place_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KBUFFERS_CONFIG")
    assert settings_path().name == "settings.json"
    assert settings_path().is_absolute() and "kbuffers" in settings_path().parts


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\ufeff", "{'width': 3}", "\0\0"]
)
def test_broken_files_give_defaults_and_are_kept(config: Path, text: str) -> None:
    path = write(config, text)
    found, note = load()
    assert found == Settings() and note is not None and str(path) in note and "\n" not in note
    assert (config / "settings.json.broken").read_text(encoding="utf-8") == text


def test_bytes_that_are_no_text(config: Path) -> None:
    write(config, "").write_bytes(b"\xff\xfe\x00")
    found, note = load()
    assert found == Settings() and note is not None and "UTF-8" in note


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", "wide"), ("width", 0), ("width", 1e9), ("width", True), ("width", None),
        ("height", 700.5), ("height", 10**400), ("x", "0"), ("theme", "pink"), ("theme", []),
        ("font_scale", 0.7), ("font_scale", 2.6), ("font_scale", float("nan")),
        ("font_scale", float("inf")), ("pause_while_moving", 1), ("show_grid", "yes"),
        ("recent", 3), ("recent", [3]), ("recent", [{"path": "a"}]),
        ("recent", [{"path": 1, "kind": "cloud"}]), ("last_scene", 5), ("view_share", -1),
        ("nonsense", 1),
    ],
)  # fmt: skip
def test_a_wrong_field_leaves_the_others(config: Path, name: str, value: object) -> None:
    data = {"version": 1, "speed": 2, "theme": "light"} | {name: value}
    write(config, json.dumps(data))
    found, note = load()
    expected = replace(Settings(), speed=2.0, theme="dark" if name == "theme" else "light")
    assert found == expected and type(found.speed) is float
    assert note is not None and name in note and "settings.json.broken" in note
    assert (config / "settings.json.broken").is_file()


def test_a_newer_version_is_read_as_far_as_possible_and_kept(config: Path) -> None:
    write(config, json.dumps({"version": 2, "width": 1000, "hologram": True}))
    found, note = load()
    assert found == replace(Settings(), width=1000)
    assert note is not None and "version 2" in note and "hologram" in note


def test_saving_where_nothing_can_be_written(config: Path) -> None:
    config.parent.mkdir(exist_ok=True)
    config.write_text("a file where the folder should be")
    said = save(CHANGED)
    assert said is not None and "cannot be saved" in said and str(config) in said
    assert load()[0] == Settings()


@pytest.mark.skipif(os.name == "nt", reason="links need privileges")
def test_a_linked_file_stays_a_link(config: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    config.mkdir()
    (config / "settings.json").symlink_to(real)
    assert save(CHANGED) is None
    assert (config / "settings.json").is_symlink() and real.is_file()
    assert load() == (CHANGED, None)


def test_a_failed_write_leaves_the_old_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(CHANGED)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(settings, "atomic_text", full)
    said = save(Settings())
    assert said is not None and "No space left" in said
    assert load() == (CHANGED, None)


def test_recent_ones_are_unique_newest_first_and_there(tmp_path: Path) -> None:
    present = tmp_path / "here.ply"
    present.touch()
    found = Settings().add_recent(tmp_path / "gone.ply", "cloud").add_recent(present, "cloud")
    found = found.add_recent("lego", "scene").add_recent(present, "cloud")
    here = Recent(str(present), "cloud")
    assert found.recent[:2] == (here, Recent("lego", "scene")) and len(found.recent) == 3
    assert found.listed_recent() == found.recent[:2]
    for i in range(20):
        found = found.add_recent(f"/{i}", "run")
    assert len(found.recent) == MAX_RECENT and found.recent[0].path == "/19"
    assert Settings().add_recent("a\0b/c", "run").listed_recent() == ()
