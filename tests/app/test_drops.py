"""Files that were dropped: read beside, acted on in a frame; no window."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import app.drops
from app.drops import Drops
from app.messages import Messages
from app.options import Options
from app.pictures import Pictures
from app.viewing import Viewing
from render.camera import Camera
from render.export.camera_path import CameraPath, save_camera_path
from render.scenes.alignment import Alignment
from render.scenes.background import Background
from render.scenes.types import Bounds, PointCloud, Scene, View

SECONDS = 20


class FakeDesk:
    """Writes down what drops ask for."""

    def __init__(self) -> None:
        self.messages = Messages()
        self.viewing = Viewing(self.messages)
        self.pictures = Pictures(SimpleNamespace())  # pyright: ignore[reportArgumentType]
        self.clouds: list[PointCloud] = []
        self.preview = SimpleNamespace(set_cloud=lambda cloud, *_: self.clouds.append(cloud))
        self.scene: Scene | None = None
        self.coming: Any = None
        self.done: list[tuple[str, Any]] = []
        self.woken = 0
        self.drops = Drops(self, self.wake)  # pyright: ignore[reportArgumentType]

    def wake(self) -> None:
        self.woken += 1

    def open(self, options: Options) -> None:
        self.done.append(("open", options))

    def preview_scene(self) -> None:
        assert self.scene is not None and self.scene.points is not None
        self.preview.set_cloud(self.scene.points)

    def restart(self, **changes: Any) -> None:
        self.done.append(("restart", changes))

    def resume(self, path: str) -> None:
        self.done.append(("resume", path))

    def tick_until(self, wanted: Callable[[], Any]) -> None:
        end = time.monotonic() + SECONDS
        while not wanted():
            assert time.monotonic() < end, [m.text for m in self.messages.all]
            self.drops.tick()
            self.messages.collect()
            time.sleep(0.002)

    def read(self, *paths: Path | str) -> None:
        """Drop them and wait until they are read and acted on."""
        self.drops.take([str(path) for path in paths])
        assert self.drops.reading == 1
        self.tick_until(lambda: self.drops.reading == 0)

    def told(self, level: str) -> list[str]:
        self.messages.collect()
        return [m.text for m in self.messages.all if m.level == level]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDesk:
    monkeypatch.chdir(tmp_path)
    return FakeDesk()


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """2000 points around (50, 0, 0)."""
    xyz = np.random.default_rng(0).normal(size=(2000, 3), loc=(50, 0, 0))
    path = tmp_path / "a cloud.xyz"
    np.savetxt(path, xyz)
    return path


def with_photographs(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch, verdict: str) -> Scene:
    """A scene is open, and clouds are found to fit it as ``verdict`` says."""
    camera = Camera.look_at((4.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=30, height=20)
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 1.0, 6.0)
    views = [View(camera, lambda: torch.zeros(20, 30, 4), "v")]
    points = PointCloud(torch.zeros(4, 3))
    desk.scene = Scene("s", views, {"train": [0]}, points, Background(), bounds)
    desk.viewing.enter(desk.scene, 8, keep_camera=False)
    found = Alignment(0.5, 0.5, 0.5, 1, verdict, f"It is {verdict}.")  # pyright: ignore
    monkeypatch.setattr(app.drops, "check_alignment", lambda *_: found)
    return desk.scene


def test_a_cloud_without_a_scene_is_opened(desk: FakeDesk, cloud: Path) -> None:
    desk.read(cloud)
    assert desk.done == [("open", Options(scene=str(cloud)))] and desk.woken == 1
    assert len(desk.clouds[0]) == 2000 and desk.drops.card is not None
    assert desk.drops.paths == [str(cloud)] and "2,000 points" in desk.told("info")[0]


@pytest.mark.parametrize("verdict", ["aligned", "partly", "unknown", "misaligned"])
def test_a_cloud_beside_a_scene_asks(
    desk: FakeDesk, cloud: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    with_photographs(desk, monkeypatch, verdict)
    desk.read(cloud)
    card = desk.drops.card
    assert desk.done == [] and card is not None and card.alignment is not None
    assert desk.told("good" if verdict == "aligned" else "warning") == [f"It is {verdict}."]
    stays = verdict != "misaligned"  # else the cloud may be anywhere: look at it
    assert (desk.viewing.at_view == 0) == stays
    if not stays:
        assert float(desk.viewing.control.pivot[0]) == pytest.approx(50, abs=1)


def test_the_answers_of_the_card(
    desk: FakeDesk, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = with_photographs(desk, monkeypatch, "misaligned")
    for answer in (desk.drops.use_points, desk.drops.open_alone, desk.drops.dismiss):
        answer()  # without a card: nothing
    assert desk.done == []
    desk.read(cloud)
    desk.drops.dismiss()
    assert desk.drops.card is None and desk.clouds[-1] is scene.points
    assert desk.viewing.at_view == 0  # back from the cloud far away
    desk.read(cloud)
    desk.drops.use_points()
    assert desk.done == [("restart", {"points": cloud})] and desk.drops.card is None
    assert desk.clouds[-1] is scene.points  # in the preview too, should it not be loaded
    desk.read(cloud)
    desk.drops.open_alone()
    assert desk.done[1:] == [("open", Options(scene=str(cloud)))]


def test_a_cloud_waits_for_the_scene_that_is_loading(
    desk: FakeDesk, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.coming = SimpleNamespace(options=Options(scene="lego"))
    desk.drops.take([str(cloud)])
    desk.tick_until(lambda: desk.told("info"))
    assert "waits" in desk.told("info")[0] and desk.drops.card is None and desk.drops.reading == 1
    with_photographs(desk, monkeypatch, "aligned")
    desk.coming = None
    desk.tick_until(lambda: desk.drops.reading == 0)
    assert desk.done == [] and desk.drops.card is not None and desk.drops.card.alignment


def test_a_cloud_takes_the_place_of_a_cloud_that_is_loading(desk: FakeDesk, cloud: Path) -> None:
    desk.coming = SimpleNamespace(options=Options(scene=str(cloud)))
    desk.read(cloud)
    assert [name for name, _ in desk.done] == ["open"]


def test_bad_files_are_told_and_the_good_one_opened(
    desk: FakeDesk, cloud: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat nonsense")
    (tmp_path / "empty.json").write_text("{}")
    desk.read(tmp_path / "bad.ply", cloud, tmp_path / "empty.json", tmp_path / "not there")
    errors = desk.told("error")
    assert len(errors) == 3 and all("\n" not in text for text in errors)
    assert [options.scene for _, options in desk.done] == [str(cloud)]


def test_even_an_error_of_our_own_is_told(
    desk: FakeDesk, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, note: object) -> PointCloud:
        raise MemoryError

    monkeypatch.setattr(app.drops, "read_cloud", fail)
    desk.read(cloud)
    assert desk.drops.reading == 0 and len(desk.told("error")) == 1 and desk.woken == 1


def test_a_camera_path_is_flown(desk: FakeDesk, tmp_path: Path) -> None:
    camera = Camera.look_at((4.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=30, height=20)
    save_camera_path(tmp_path / "path.json", CameraPath([camera] * 3))
    desk.read(tmp_path / "path.json")
    desk.viewing.advance(0.01)
    here = desk.viewing.control.camera(30, 20)
    torch.testing.assert_close(here.position, camera.position)


@pytest.mark.parametrize("text", ["lego", "a name with spaces"])
def test_what_is_no_path_may_be_the_name_of_a_scene(desk: FakeDesk, text: str) -> None:
    desk.drops.take_text(text)
    assert desk.done == [("open", Options(scene=text))]


@pytest.mark.parametrize("text", ["x" * 5000, "~nobody-of-that-name/x"])
def test_impossible_paths_are_told(desk: FakeDesk, text: str) -> None:
    desk.drops.take_text(text)
    desk.tick_until(lambda: desk.drops.reading == 0)
    assert len(desk.told("error")) == 1 and desk.done == []


def test_a_typed_path_is_read_as_if_dropped(desk: FakeDesk, cloud: Path) -> None:
    desk.drops.take_text(cloud.name)
    desk.tick_until(lambda: desk.done)
    assert desk.done[0][0] == "open" and desk.drops.paths == [cloud.name]
