"""Checkpoints from strangers: no code runs, no memory is taken, every refusal is a sentence."""

from __future__ import annotations

import copy
import errno
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from app.opening import recognise
from app.options import Options
from app.session import Session
from app.snapshot import State
from app.workbench import Workbench, build
from render.errors import UserError
from render.methods.saved import check_rows
from render.training import checkpoint
from render.training.checkpoint import load_checkpoint, load_latest, save_checkpoint

pytestmark = pytest.mark.usefixtures("fake_method")


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Calls(bytearray, 1 << 40), "bytearray"),  # torch alone would take a terabyte
        (torch.zeros(1).expand(1 << 40), "1,099,511,627,776 numbers"),
        (nested(60), "without end"),
        (torch.zeros(3).to_sparse(), "foreign"),
        ({(1, 2): 3}, "key of type tuple"),
        (OrderedDict(x=b"bytes"), "foreign"),
    ],
)
def test_values_that_no_run_has(tmp_path: Path, value: Any, words: str) -> None:
    before = save_checkpoint(tmp_path, {"step": 1})
    path = save_checkpoint(tmp_path, {"step": 2, "x": value})
    with pytest.raises(UserError, match=words) as refusal:
        load_checkpoint(path)
    assert f"The one before it is {before}." in str(refusal.value)
    said: list[str] = []
    assert load_latest(tmp_path, said.append)[0] == before
    assert len(said) == 1


def test_bombs_of_archives(tmp_path: Path) -> None:
    path = tmp_path / "step_0000001.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
    with pytest.raises(UserError, match="packed parts"):
        load_checkpoint(path)
    # Many names for the same bytes, which are not packed at all.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", b"\0" * 100_000)
        for number in range(1, 50):
            again = copy.copy(archive.filelist[0])
            again.filename = f"archive/data/{number}"
            archive.filelist.append(again)
    with pytest.raises(UserError, match="larger than the file"):
        load_checkpoint(path)
    path.write_bytes(b"anything" + path.read_bytes())
    with pytest.raises(UserError, match="torn or foreign"):
        load_checkpoint(path)


def test_huge_structure_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path, {"step": 1, "x": list(range(1000))})
    monkeypatch.setattr(checkpoint, "MAX_STRUCTURE", 1000)
    with pytest.raises(UserError, match="a structure of"):
        load_checkpoint(path)


def test_older_format_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    path = save_checkpoint(tmp_path, {"step": 1, "trainer": {"step": 1}})
    monkeypatch.undo()
    content = load_checkpoint(path)
    assert content["version"] == checkpoint.VERSION
    assert content["trainer"] == {"step": 1, "lr_scale": {}, "loss_scale": {}}


# ---------------------------------------------------------------------------- in a run
def run_of(scene: Path) -> tuple[Workbench, dict[str, Any]]:
    bench = build(Options(scene=str(scene), method="fake", device="cpu"), print)
    assert bench.trainer is not None
    bench.trainer.step()
    return bench, load_checkpoint(bench.save())


def wrong_grid(content: dict[str, Any]) -> None:
    content["trainer"]["method"]["grid"] = torch.zeros(3, 9, 9)


def no_state(content: dict[str, Any]) -> None:
    content["trainer"] = 7


def option_of_another_type(content: dict[str, Any]) -> None:
    content["options"]["scene"] = ["lego"]


def no_number(content: dict[str, Any]) -> None:
    content["best_val"] = "high"


def no_position(content: dict[str, Any]) -> None:
    content["trainer"]["sampler"]["position"] = None


@pytest.mark.parametrize(
    "spoil", [wrong_grid, no_state, option_of_another_type, no_number, no_position]
)
def test_wrong_contents_are_refused_in_a_sentence(tiny_scene: Path, spoil: Any) -> None:
    bench, content = run_of(tiny_scene)
    content["step"] += 1
    spoil(content)
    path = save_checkpoint(bench.folder.checkpoints, content)
    with pytest.raises(UserError, match=r"step_0000002\.pt: expected .*before it is .*0001\.pt"):
        build(Options(resume=str(path)), print)


def test_a_checkpoint_names_no_file_to_write(tiny_scene: Path, tmp_path: Path) -> None:
    bench, content = run_of(tiny_scene)
    for name in ("export", "video", "out", "ui_state", "render"):
        content["options"][name] = str(tmp_path / "elsewhere.ply")
    path = save_checkpoint(bench.folder.checkpoints, content)
    options = build(Options(resume=str(path)), print).options
    assert not any(getattr(options, n) for n in ("export", "video", "out", "ui_state", "render"))


def test_rows_of_primitives() -> None:
    present = {"a": torch.zeros(4, 3), "b": torch.zeros(4)}
    check_rows({"a": torch.zeros(9, 3), "b": torch.zeros(9)}, present)
    for wrong in (
        {"a": torch.zeros(9, 3)},
        {"a": torch.zeros(9, 3), "b": torch.zeros(8)},
        {"a": torch.zeros(9, 4), "b": torch.zeros(9)},
        {"a": torch.zeros(9, 3), "b": torch.zeros(9).int()},
        {"a": torch.zeros(9, 3), "b": torch.zeros(())},
    ):
        with pytest.raises(ValueError, match=r"a\b|b\b"):
            check_rows(wrong, present)


# ---------------------------------------------------------------------------- full disks
def test_a_full_disk_costs_older_files_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = save_checkpoint(tmp_path, {"step": 1}, best=True)
    for step in (2, 3):
        save_checkpoint(tmp_path, {"step": step})
    write, told = checkpoint.atomic_write, []

    def full(path: Path, fill: Any) -> None:
        if not told:
            told.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, fill)

    monkeypatch.setattr(checkpoint, "atomic_write", full)
    path = save_checkpoint(tmp_path, {"step": 4})
    assert checkpoint.list_checkpoints(tmp_path) == [path, tmp_path / "step_0000003.pt", best]


def test_leftovers_of_killed_programs_are_removed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"step": 1})
    (tmp_path / ".step_0000002.x7y.pt").write_bytes(b"half")
    (tmp_path / ".latest.x7y").write_bytes(b"")
    checkpoint.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", path.name]


# ---------------------------------------------------------------------------- in the window
def test_dropped_and_opened_it_is_a_sentence(tiny_scene: Path) -> None:
    """As the window does it: recognise what was dropped, then load it in a session."""
    bench, content = run_of(tiny_scene)
    whole = bench.folder.checkpoints / "step_0000001.pt"
    packed = bench.folder.checkpoints / "step_0000007.pt"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
    with pytest.raises(UserError, match="cut off or damaged; the one before it is"):
        recognise(packed)
    content["trainer"]["method"]["grid"] = torch.zeros(1).expand(1 << 40)
    path = save_checkpoint(bench.folder.checkpoints, content | {"step": 8})
    assert recognise(path).kind == "checkpoint"  # nothing of it was built
    for each in (packed, path):
        session = Session(Options(resume=str(each)), autostart=False)
        session.open()
        snapshot = session.wait([State.READY, State.FAILED], 30)
        session.stop()
        assert session.join(30) and snapshot.state is State.FAILED
        assert f"The one before it is {whole}." in str(snapshot.error)
