"""Checkpoints: whole or not there, never executing code, the one before it as a fallback."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from render.errors import UserError
from render.files import atomic_text, atomic_write
from render.training import checkpoint
from render.training.checkpoint import load_checkpoint, load_latest, pointed, save_checkpoint


def save(folder: Path, step: int, *, best: bool = False) -> Path:
    return save_checkpoint(folder, {"step": step, "value": torch.full((50,), step)}, best=best)


def test_round_trip_and_pointers(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    assert path.name == "step_0000007.pt"
    content = load_checkpoint(path)
    assert content["step"] == 7 and torch.equal(content["value"], torch.full((50,), 7))
    assert pointed(tmp_path, "latest") == path
    assert pointed(tmp_path, "best") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_0000007.pt"]


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5, 6):
        save(tmp_path, step, best=step == 2)
    steps = [int(path.stem[5:]) for path in checkpoint.list_checkpoints(tmp_path)]
    assert steps == [6, 5, 4, 2]


def test_later_steps_of_an_abandoned_branch_stay_but_are_not_the_latest(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    save(tmp_path, 15)
    assert len(checkpoint.list_checkpoints(tmp_path)) == 4
    path, _ = load_latest(tmp_path, print)
    assert path.name == "step_0000015.pt"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_torn_file_is_refused_and_the_one_before_it_taken(tmp_path: Path, share: float) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"torn or foreign.*before it is .*step_0000001\.pt"):
        load_checkpoint(path)
    said: list[str] = []
    found, content = load_latest(tmp_path, said.append)
    assert content["step"] == 1 and found.name == "step_0000001.pt"
    assert len(said) == 1 and "step_0000002.pt" in said[0]


def test_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    data = bytearray(path.read_bytes())
    place = data.index(torch.full((50,), 3).numpy().tobytes()) + 17
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="damage"):
        load_checkpoint(path)


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    path = save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(UserError, match="newer release"):
        load_checkpoint(path)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_hostile_file_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step_0000001.pt"
    if writer == "torch":
        torch.save({"format": "kbuffers-checkpoint", "version": 1, "x": Hostile()}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match="torn or foreign"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_foreign_and_missing_files(tmp_path: Path) -> None:
    foreign = tmp_path / "weights.pt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(UserError, match="another file"):
        load_checkpoint(foreign)
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(tmp_path / "step_0000009.pt")
    with pytest.raises(UserError, match="found none"):
        load_latest(tmp_path / "empty", print)


def test_pointer_cannot_leave_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (tmp_path / "outside.pt").write_bytes(b"x")
    (folder / "latest").write_text("../outside.pt\n")
    assert pointed(folder, "latest") is None


def test_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    atomic_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["data.txt"]
