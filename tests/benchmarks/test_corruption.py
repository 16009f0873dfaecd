"""The corruption study: its rows, its table, empty hulls, and going on after a break."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import corruption
from benchmarks.corruption import Options, main, mean_psnr, method_options, table
from render.methods.point_radiance.stages import plan

ROWS = [
    {"jitter": 0.1, "consistency": 0.9, "pretrained": False, "seed": 0, "psnr": 20.0},
    {"jitter": 0.1, "consistency": 0.9, "pretrained": False, "seed": 1, "psnr": 22.0},
    {"jitter": 0.1, "consistency": 0.9, "pretrained": True, "seed": 0, "psnr": 24.0},
    {"jitter": 0.2, "consistency": 0.9, "pretrained": True, "seed": 0, "psnr": None},
]
SMALL = {"epoch": 1, "downscale": 8.0, "set": ["points=300", "k=4"], "consistency": [1.0]}


def test_all_rows_train_as_long() -> None:
    plain = plan(method_options(Options(epoch=7), 0.1, 0.9, False), 50)
    first = plan(method_options(Options(epoch=7), 0.1, 0.9, True), 50)
    assert len(first) == len(plain) + 2
    assert plain[-1].first + plain[-1].steps == first[-1].first + first[-1].steps == 7 * 77


def test_means_and_gains_and_empty_hulls() -> None:
    assert mean_psnr(ROWS, 0.1, 0.9, False) == 21.0
    assert mean_psnr(ROWS, 0.2, 0.9, True) is None and mean_psnr(ROWS, 0.5, 0.9, True) is None
    options = Options(jitter=[0.1, 0.2], consistency=[0.9])
    console = Console(width=100, record=True, quiet=True)
    console.begin_capture()
    console.quiet = False
    console.print(table(ROWS, options, "title"))
    text = console.end_capture()
    assert "21.00" in text and "+3.00" in text and "empty" in text


def test_a_study_is_written_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    main(Options(jitter=[0.02, 0.5], out=out, **SMALL))  # pyright: ignore[reportArgumentType]
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [(row["jitter"], row["pretrained"]) for row in rows] == [
        (0.02, False), (0.02, True), (0.5, False), (0.5, True),
    ]  # fmt: skip
    assert rows[0]["psnr"] > 5 and rows[0]["steps"] == rows[1]["steps"] == 77
    assert rows[2]["psnr"] is None and "hull is empty" in rows[2]["why"]
    assert out.with_suffix(".png").stat().st_size > 10_000

    def fail(*args: object) -> None:
        raise AssertionError("everything is there already")

    monkeypatch.setattr(corruption, "measure", fail)
    main(Options(jitter=[0.02, 0.5], out=out, **SMALL))  # pyright: ignore[reportArgumentType]
    with pytest.raises(SystemExit, match="of another study"):
        main(Options(out=out, epoch=2))
    capsys.readouterr()
