"""The command line: what it accepts, and one sentence with exit code 1 for what it does not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import main
from app import products
from app.options import (
    Every,
    apply_settings,
    from_json,
    parse,
    parse_every,
)
from render.errors import UserError
from render.training.checkpoint import load_latest
from tests.fakes import FakeOptions, write_scene

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "assets" / "scenes" / "lego"


# ---------------------------------------------------------------------------- parsing
def test_every_option_of_the_contract() -> None:
    line = (
        "--scene lego --method bpcr --k 4 --steps 10 --seconds 5 --downscale 2 --background black "
        "--device cpu --seed 7 --headless --eval-every 30s --out o --resume latest --video v.mp4 "
        "--ui-state s.json --exit-after 3 --data-root a --data_root b --set x=1 --set y=2"
    )
    options = parse(line.split())
    assert (options.scene, options.method, options.k) == ("lego", "bpcr", 4)
    assert (options.steps, options.seconds, options.downscale) == (10, 5.0, 2.0)
    assert (options.background, options.device, options.seed) == ("black", "cpu", 7)
    assert options.headless and options.eval_every == "30s" and options.out == Path("o")
    assert options.data_root == (Path("a"), Path("b"))
    assert options.settings == ("x=1", "y=2")
    assert from_json(json.loads(json.dumps(options.to_json()))) == options


def test_positional_paths_are_sorted_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_0000001.pt").touch()
    (tmp_path / "run" / "config.json").write_text("{}")
    run = str(tmp_path / "run")
    assert parse(["lego"]).scene == "lego"
    both = parse(["lego", "cloud.ply"])
    assert (both.scene, both.points) == ("lego", Path("cloud.ply"))
    assert parse(["cloud.ply"]).scene == "cloud.ply"
    assert parse([run]).resume == run
    assert parse(["checkpoints/step_0000001.pt"]).resume == "checkpoints/step_0000001.pt"
    (tmp_path / "scan.dat").write_text("1 2 3\n4 5 6\n")
    assert parse(["lego", str(tmp_path / "scan.dat")]).points == tmp_path / "scan.dat"
    (tmp_path / "flight").write_text('{"cameras": []}')
    assert parse(["lego", str(tmp_path / "flight")]).render == tmp_path / "flight"
    with pytest.raises(UserError, match="one scene"):
        parse(["lego", "chair"])
    with pytest.raises(UserError, match="one point cloud"):
        parse(["lego", "a.ply", "b.ply"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--foo 3", "--foo"),
        ("--k x", "--k"),
        ("--k 0", "--k 0: expected a number above 0"),
        ("--k 1.5", "--k 1.5: expected a whole number"),
        ("--seconds nan", "--seconds nan"),
        ("--seconds inf", "--seconds inf"),
        ("--downscale 0.5", "--downscale 0.5: expected a factor of at least 1"),
        ("--downscale inf", "--downscale inf"),
        ("--seed -1", "--seed -1"),
        ("--seed 99999999999999999999", "from 0 to"),
        ("--background green", "'white', 'black', 'random'"),
        ("--eval-every soon", "30s"),
        ("--eval-every 0", "30s"),
        ("--eval", "--resume"),
        ("--render missing.json", "missing.json"),
        ("--k", "--k"),
    ],
)
def test_bad_options_are_one_sentence(
    args: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(args.split()) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ") and captured.err.count("\n") == 1
    assert said in captured.err
    assert captured.out == ""


def test_eval_every() -> None:
    assert parse_every("30s") == Every(seconds=30) and parse_every("500") == Every(steps=500)
    assert parse_every("30s").next_after(5, 61.0)[1] == 90.0
    assert parse_every("500").next_after(500, 0.0)[0] == 1000
    assert [Every().next_after(0, s)[1] for s in (0.0, 14.9, 15.0, 59.0, 60.0)] == [
        15.0,
        15.0,
        30.0,
        60.0,
        120.0,
    ]
    assert parse_every("never").next_after(9, 9.0) == (float("inf"), float("inf"))


def test_settings_are_typed_by_the_method() -> None:
    defaults = FakeOptions()
    changed = apply_settings(defaults, ["lr=0.5", "grow=false", "mode=noisy", "fail_at=9"], 5)
    assert changed == replace(defaults, lr=0.5, grow=False, mode="noisy", fail_at=9, k=5)
    for setting, said in (
        ("size=3", "lr, grow, mode"),
        ("lr", "NAME=VALUE"),
        ("lr=fast", "type float"),
        ("grow=maybe", "type bool"),
        ("mode=loud", "plain, noisy"),
    ):
        with pytest.raises(UserError, match=said):
            apply_settings(defaults, [setting], None)


# ---------------------------------------------------------------------------- errors
@pytest.fixture
def run(
    fake_method: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """main() with the fake method registered and a short orbit: (exit code, output, errors)."""
    monkeypatch.setattr(products, "ORBIT_FRAMES", 4)

    def call(*args: str) -> tuple[int, str, str]:
        code = main.main(["--headless", "--device", "cpu", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def fails(result: tuple[int, str, str], *said: str) -> None:
    code, _, error = result
    assert code == 1
    assert error.startswith("Error: ") and error.count("\n") == 1, error
    for text in said:
        assert text in error


def test_user_mistakes(run: Run, tiny_scene: Path, tmp_path: Path) -> None:
    scene = ("--scene", str(tiny_scene))
    fails(run(), "--scene")
    fails(run("--scene", str(tmp_path / "no" / "where")), "where")
    fails(run(*scene, "--method", "foo"), "foo", "kbuffer")
    fails(run(*scene, "--method", "fake", "--set", "size=3"), "size", "grow")
    (tmp_path / "file").write_text("")
    fails(run(*scene, "--method", "fake", "--out", str(tmp_path / "file" / "run")), "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    fails(run(*scene, "--method", "fake", "--out", str(tmp_path / "full")), "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    fails(run("--resume", "latest"), "latest")
    fails(run("--resume", str(tmp_path / "missing")), "missing")
    fails(run(*scene, "--method", "fake", "--video", "v.avi"), ".mp4")
    (tmp_path / "v.mp4").mkdir()
    fails(run(*scene, "--method", "fake", "--video", str(tmp_path / "v.mp4")), "v.mp4", "folder")
    fails(run(*scene, "--method", "fake", "--k", "99"), "--k 99", "at most 64")
    fails(run(*scene, "--method", "fake", "--data-root", str(tmp_path / "gone")), "gone")
    (tmp_path / "path.json").write_text("{}")
    fails(run(*scene, "--method", "fake", "--render", str(tmp_path / "path.json")), "path.json")
    fails(run(*scene, "--method", "fake", "--set", "fail_at=2"), "told to fail")


def test_failed_picture_is_one_sentence_and_the_training_is_kept(
    run: Run, tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "kbuffer.png")

    monkeypatch.setattr(products, "draw_montage", full_disk)
    out = tmp_path / "out"
    fails(
        run("--scene", str(tiny_scene), "--method", "fake", "--steps", "2", "--out", str(out)),
        "K-buffer montage: kbuffer.png: No space left",
    )
    assert (out / "checkpoints" / "step_0000002.pt").is_file()


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run("--scene", str(tmp_path / "no" / "where"), "--debug")


# ---------------------------------------------------------------------------- whole runs
def test_headless_run_writes_everything(run: Run, tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, error = run(
        "--scene", str(tiny_scene), "--method", "fake", "--steps", "20", "--eval-every", "10",
        "--out", str(out),
    )  # fmt: skip
    assert (code, error) == (0, "")
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["steps"] == 20 and config["scene"]["fingerprint"]
    measured = json.loads((out / "eval.json").read_text())
    assert measured["step"] == 20 and len(measured["per_image"]) == 3
    assert measured["protocol"]["background"] == "white" and measured["lpips"] is None
    rows = (out / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("10,") and rows[-1].startswith("20,")
    assert (out / "checkpoints" / "latest").read_text() == "step_0000020.pt\n"
    assert (out / "images" / "kbuffer.png").is_file()
    assert len(list((out / "images").glob("*r_?.png"))) == 3
    assert len(list((out / "images").glob("*beside_photo.png"))) == 3
    assert (out / "video" / "orbit.mp4").stat().st_size > 500
    assert "Trained 20 steps" in (out / "log.txt").read_text() + text
    assert f"{measured['psnr']:.2f}" in text and "eval.json" in text

    # --eval on the checkpoint: the same numbers to the last digit.
    code, text, _ = run("--resume", str(out), "--eval")
    assert code == 0 and "Trained" not in text
    assert json.loads((out / "eval.json").read_text()) == measured

    # --render on the checkpoint: frames without training.
    from render.camera import Camera
    from render.export.camera_path import CameraPath, save_camera_path

    camera = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=16, height=16)
    save_camera_path(tmp_path / "path.json", CameraPath([camera, camera]))
    code, text, _ = run(
        "--resume", str(out), "--render", str(tmp_path / "path.json"),
        "--video", str(tmp_path / "frames"),
    )  # fmt: skip
    assert code == 0 and "Trained" not in text
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [
        "frame_00000.png",
        "frame_00001.png",
    ]


def test_looking_at_an_old_checkpoint_leaves_the_records(
    run: Run, tiny_scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start = ("--scene", str(tiny_scene), "--method", "fake", "--out", str(out), "--steps", "4")
    assert run(*start)[0] == 0
    assert run("--resume", str(out), "--steps", "8")[0] == 0
    before = {p: (out / p).read_bytes() for p in ("metrics.csv", "config.json")}
    old = str(out / "checkpoints" / "step_0000004.pt")
    assert run("--resume", old, "--eval")[0] == 0
    assert json.loads((out / "eval.json").read_text())["step"] == 4
    assert {p: (out / p).read_bytes() for p in before} == before
    assert (out / "checkpoints" / "latest").read_text() == "step_0000008.pt\n"


def test_cloud_alone_gives_montage_and_orbit(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ball.xyz"
    points = [f"{i / 50} {(i * 7 % 50) / 50} {(i * 13 % 50) / 50}" for i in range(50)]
    path.write_text("\n".join(points) + "\n")
    code, _, error = run(str(path), "--out", str(tmp_path / "out"), "--k", "2")
    assert (code, error) == (0, "")
    assert (tmp_path / "out" / "images" / "kbuffer.png").is_file()
    assert (tmp_path / "out" / "video" / "orbit.mp4").is_file()


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--doctor"]) == 0
    text = capsys.readouterr().out
    for name in (
        "torch",
        "CUDA",
        "Memory",
        "Kernels",
        "CUDA kernels",
        "Window",
        "ffmpeg",
        "gsplat",
        "Scenes",
    ):
        assert name in text
    assert "cannot be examined" not in text


@pytest.mark.parametrize(
    ("typed", "name"),
    [("/usr/bin/kbuffers", "kbuffers"), ("kbuffers.exe", "kbuffers"), ("main.py", "main.py")],
)
def test_help_and_errors_name_the_command_that_was_typed(
    typed: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [typed])
    with pytest.raises(SystemExit):
        main.main(["--help"])
    assert f"usage: {name} " in capsys.readouterr().out
    assert main.main(["--no-such-option"]) == 1
    assert f"{name} --help lists all options" in capsys.readouterr().err


def test_default_method_on_the_bundled_scene(run: Run, tmp_path: Path) -> None:
    code, _, error = run(
        "--scene", str(BUNDLED), "--downscale", "4", "--steps", "15", "--k", "3",
        "--eval-every", "never", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert (code, error) == (0, "")
    measured = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert measured["psnr"] > 17  # a white page has 10 dB
    assert len(measured["per_image"]) == 20


# ---------------------------------------------------------------------------- interruption
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_exits_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    scene = write_scene(tmp_path / "tiny")
    code = (
        "import sys, main, render.methods as m; "
        "m._METHODS['fake'] = 'tests.fakes:FakeMethod'; sys.exit(main.main())"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            sys.executable, "-u", "-c", code, "--headless", "--scene", str(scene),
            "--method", "fake", "--steps", "100000000", "--out", str(out), "--eval-every", "200",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (out / "metrics.csv").is_file() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        output, error = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, error
    assert "Interrupted; saved" in output and "Traceback" not in error
    path, content = load_latest(out / "checkpoints", print)
    assert content["step"] >= 200 and path.is_file()
    assert [p.name for p in out.rglob(".*")] == [".lock"]  # no temporary files
