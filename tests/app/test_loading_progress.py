"""What a session tells while a scene loads, and how the window puts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.options import Options
from app.progress import count_share, count_text
from app.session import Session
from app.snapshot import Snapshot, State
from tests.fakes import FakeMethod


def test_photographs_are_counted_while_they_are_decoded(
    tiny_scene: Path, fake_method: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeMethod, "needs_points", True)
    options = Options(scene=str(tiny_scene), method="fake", out=tmp_path / "run", steps=1)
    session = Session(options, autostart=False)
    told: list[Snapshot] = []
    publish = session._publish

    def record(**changes: Any) -> None:
        publish(**changes)
        told.append(session.snapshot())

    monkeypatch.setattr(session, "_publish", record)
    session.open()
    assert session.wait((State.READY, State.FAILED), 60).state is State.READY
    session.stop()
    assert session.join(20)
    counted = [snapshot.counted for snapshot in told if snapshot.counted is not None]
    assert counted[:5] == [("photographs", i + 1, 6) for i in range(5)]
    assert session.snapshot().counted is None


def test_counts_in_words() -> None:
    assert count_text(Snapshot()) == "" and count_share(Snapshot()) is None
    snapshot = Snapshot(counted=("photographs", 1200, 4000))
    assert count_text(snapshot) == "photographs 1,200 of 4,000"
    assert count_share(snapshot) == pytest.approx(0.3)
