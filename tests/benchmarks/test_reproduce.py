"""The smoke table: the bundled scene with a tiny budget, and a scene that is not there."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import reproduce
from benchmarks.reproduce import Options, main
from render.scenes.lookup import BUNDLED
from render.training.protocols import PRESETS

TINY = Options(
    scenes=[str(BUNDLED / "lego"), "no-such-scene"], steps=4, downscale=8, k=[2], device="cpu",
    protocols=["house", "3dgs"],
)  # fmt: skip


def test_smoke_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(TINY, out=tmp_path / "out", methods=["gaussians"])
    assert main(options) == 1  # one cell fails, the other is there
    rows = json.loads((options.out / "table.json").read_text())
    assert [(row["scene"], row["protocol"], row["published"].split(" [")[0]) for row in rows] == [
        ("lego", "house", "Point-NeRF"),
        ("lego", "3dgs", "3DGS"),
        ("lego", "3dgs", "3DGS (paper)"),
        ("lego", "3dgs", "3DGS-MCMC"),
        ("no-such-scene", "", ""),
    ]
    assert rows[0]["steps"] == 4 and rows[0]["psnr"] > 5 and "no-such-scene" in rows[-1]["error"]
    assert rows[2]["ahead"] == rows[2]["psnr"] - 35.78
    for words in ("20 test views, published with 200", "4steps", "ours: 20 views of "):
        assert words in rows[2]["differences"]
    text = (options.out / "table.md").read_text()
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "failed: " in text and "35.78 3DGS (paper)" in text
    with (options.out / "table.csv").open() as file:
        assert [row["scene"] for row in csv.DictReader(file)] == [row["scene"] for row in rows]

    # Again: what is done is only read.
    monkeypatch.setattr(reproduce, "_main", lambda arguments, folder: f"ran {arguments}")
    assert main(options) == 1
    again = json.loads((options.out / "table.json").read_text())
    assert again[:4] == rows[:4] and again[4]["error"].startswith("ran ")


def test_an_interrupted_cell_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(TINY, out=tmp_path)
    cell = next(iter(reproduce.cells(options)))
    run = tmp_path / "cells" / cell.name / "run"
    (run / "checkpoints").mkdir(parents=True)
    said: list[list[str]] = []
    monkeypatch.setattr(reproduce, "_main", lambda arguments, folder: said.append(arguments))
    (run / "config.json").write_text("{}")
    assert reproduce.train(cell, options) is None
    assert "--steps" in said[0] and not run.exists()  # without a checkpoint it begins anew
    (run.parent / "done").unlink()
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "checkpoints" / "step_0000002.pt").touch()
    assert reproduce.train(cell, options) is None
    assert said[1] == ["--headless", "--resume", str(run)]


def test_averages_need_every_scene() -> None:
    options = Options(dataset="nerf-synthetic", methods=["gaussians"], k=[2])
    published = json.loads(reproduce.PUBLISHED.read_text())
    row = dict.fromkeys(reproduce.COLUMNS, "") | {"method": "gaussians", "k": 2, "lpips": None}
    row |= {"protocol": "3dgs", "ssim": 0.5, "steps": 10, "seconds": 1.0}
    rows = [row | {"scene": s, "psnr": 30.0 + i} for i, s in enumerate(reproduce.SYNTHETIC)]
    assert reproduce.averages(rows[:-1], options, published) == []
    found = reproduce.averages(rows, options, published)
    assert {r["psnr"] for r in found} == {33.5} and found[0]["lpips"] is None
    assert [r["published_psnr"] for r in found] == [33.31, 33.31, 33.64]
    assert reproduce.averages(rows, replace(options, dataset="dtu"), published) == []


def test_other_arguments_are_other_cells() -> None:
    names = {next(iter(reproduce.cells(options))).name for options in (
        TINY, replace(TINY, seed=1), replace(TINY, steps=5), replace(TINY, set=["a=1"]),
        replace(TINY, steps=None, seconds=5.0), replace(TINY, downscale=4.0),
    )}  # fmt: skip
    assert len(names) == 6


def test_published_numbers_are_whole_and_have_a_source() -> None:
    published = json.loads(reproduce.PUBLISHED.read_text())
    known = {scene for scenes in reproduce.DATASETS.values() for scene in scenes} | {"average"}
    for row in published:
        assert row["source"] and row["label"] and 10 < row["psnr"] < 50
        assert row["protocol"] in PRESETS and row["scene"] in known
        assert row["dataset"] in reproduce.DATASETS
    keys = [(row["scene"], row["dataset"], row["label"], row["source"]) for row in published]
    assert len(keys) == len(set(keys))


def test_commands_name_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(replace(TINY, commands=True)) == 0
    text = capsys.readouterr().out
    for dataset, scenes in reproduce.DATASETS.items():
        assert f"--dataset {dataset} " in text and ", ".join(scenes) in text
