"""The run folder: never overwritten, always whole, resumable metrics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from render.errors import UserError
from render.training import runfolder
from render.training.checkpoint import save_checkpoint
from render.training.runfolder import MetricsRow, RunFolder


def test_default_gets_a_number_and_a_named_folder_is_an_error(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run", exact=False)
    second = RunFolder.create(tmp_path / "run", exact=False)
    third = RunFolder.create(tmp_path / "run", exact=False)
    assert [run.path.name for run in (first, second, third)] == ["run", "run-2", "run-3"]
    with pytest.raises(UserError, match="--resume"):
        RunFolder.create(tmp_path / "run", exact=True)
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", exact=True).images.is_dir()


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = pool.map(lambda _: RunFolder.create(tmp_path / "s" / "run", exact=False), range(8))
    assert len({run.path for run in runs}) == 8


def test_log_takes_names_that_are_no_text(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", exact=True)
    run.log("scene b\udcfcro")
    assert "scene b\\udcfcro" in run.log_path.read_text()


def test_unwritable_places(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="found the file"):
        runfolder.check_writable(file / "run")
    with pytest.raises(UserError, match="can be written"):
        RunFolder.create(file / "run", exact=True)
    runfolder.check_writable(tmp_path / "new" / "deep")


def test_metrics_are_truncated_at_the_step(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", exact=True)
    for step in (10, 20, 30):
        run.append_metrics(MetricsRow(step, step / 10, 0.5, float("nan"), test_psnr=30.0))
    with (run.path / "metrics.csv").open("a") as file:
        file.write("40,4.0")  # killed while writing
    run.truncate_metrics(20)
    rows = (run.path / "metrics.csv").read_text().splitlines()
    assert rows == [",".join(runfolder.COLUMNS), "10,1,0.5,,30,,,", "20,2,0.5,,30,,,"]


def test_default_path_is_safe_for_any_scene_name(tmp_path: Path) -> None:
    path = runfolder.default_path(tmp_path, "../../etc: lego é", "kbuffer")
    assert path.parent.parent == tmp_path
    assert path.parent.name == "etc_lego_é"
    assert path.name.startswith("kbuffer-")


def test_find_runs_newest_first(tmp_path: Path) -> None:
    import os

    runs = []
    for i, name in enumerate(("a/one", "b/two", "c")):
        run = RunFolder.create(tmp_path / name, exact=True)
        run.write_json("config.json", {"scene": {"name": name}})
        path = save_checkpoint(run.checkpoints, {"step": 1})
        os.utime(path, (1000 + i, 1000 + i))
        runs.append(run.path)
    RunFolder.create(tmp_path / "d" / "empty", exact=True)
    assert runfolder.find_runs(tmp_path) == runs[::-1]
    assert runfolder.find_runs(runs[0]) == [runs[0]]
    assert runfolder.find_runs(tmp_path / "missing") == []


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        runfolder.read_config(tmp_path)


def test_metrics_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", exact=True)
    assert run.metrics() == []
    rows = [
        MetricsRow(5, 1.5, 0.25, 20.0, steps_per_second=3.0),
        MetricsRow(9, 2.5, test_psnr=21.5),
    ]
    for row in rows:
        run.append_metrics(row)
    with (run.path / "metrics.csv").open("a") as file:
        file.write("12,")  # torn
    assert run.metrics() == rows
