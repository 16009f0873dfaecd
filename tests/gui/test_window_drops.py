"""Files dropped on the window or opened in it: what happens, what is said, and what is seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from app.theme import DARK
from render.camera import Camera
from render.export.camera_path import CameraPath, save_camera_path
from render.scenes.clouds.pointcloud import write_ply
from render.scenes.types import PointCloud
from tests.driver import State, WindowDriver
from tests.fakes import write_scene
from tests.window_steps import MENU_BAR, change, choose, count, matrix, position, still

ORANGE = (255, 128, 0)
PLACE = (300, 400)  # where files are dropped: the middle of the view


def sphere(path: Path, *, radius: float = 0.85, at: tuple[float, float, float] = (0, 0, 0)) -> Path:
    """An orange sphere of 4,000 points."""
    generator = np.random.default_rng(0)
    xyz = generator.normal(size=(4000, 3))
    xyz = radius * xyz / np.linalg.norm(xyz, axis=1, keepdims=True) + np.array(at)
    rgb = torch.tensor(ORANGE) / 255
    cloud = PointCloud(torch.from_numpy(xyz).float(), rgb.float().expand(4000, 3).contiguous())
    write_ply(path, cloud)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene that fits ``fits.ply`` and one that cannot be loaded."""
    folder = tmp_path_factory.mktemp("files")
    write_scene(folder / "disc")
    sphere(folder / "fits.ply")
    sphere(folder / "far away é.ply", at=(12.0, 0.0, 0.0))
    write_scene(folder / "torn")
    for photo in (folder / "torn/train").iterdir():
        photo.write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def opened(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowDriver]:
    """One window for all tests of this file; opened without a scene."""
    with WindowDriver([], tmp_path_factory.mktemp("drops"), display) as driver:
        yield driver


@pytest.fixture
def window(opened: WindowDriver, files: Path) -> WindowDriver:
    """The scene ``disc`` trains and nothing covers the picture."""
    state = opened.state()
    if state["card"] or state["popup"]:
        opened.key("Escape")
        opened.until(lambda state: not state["card"] and not state["popup"])
    if not (state["scene"] == "disc" and state["state"] == "running"):
        opened.drop(files / "disc", at=PLACE)
        opened.until(lambda state: state["scene"] == "disc" and state["folder"] is not None)
    running(opened)
    return opened


def running(window: WindowDriver) -> State:
    """Training goes on: the step grows."""
    step = window.state()["step"]
    return window.until(lambda state: state["state"] == "running" and state["step"] > step)


def new_run(window: WindowDriver, act: Callable[[], None]) -> State:
    """What ``act`` opens takes the place of the present run and trains."""
    before = window.state()
    act()
    window.until(lambda state: state["folder"] != before["folder"] and not state["loading"])
    return running(window)


def view(window: WindowDriver) -> np.ndarray:
    window.frames()  # the state is told before the screen shows it
    return window.picture("view")


def lit_view(window: WindowDriver) -> np.ndarray:
    """A scene that has just begun is told before its first picture is on the screen."""
    window.until(lambda _: view(window).max() > 240 and np.median(view(window)) > 60)
    return view(window)


# ---------------------------------------------------------------------- without a scene
def test_a_cloud_without_a_scene_opens_on_its_own(opened: WindowDriver, files: Path) -> None:
    assert opened.rect("welcome")[2] > 300 and opened.state()["scene"] is None
    assert count(view(opened), ORANGE) == 0
    opened.drop(files / "fits.ply", at=PLACE)
    state = opened.until(lambda state: state["scene"] == "fits" and not state["card"])
    assert state["points"] == 4000 and state["views"] == {"train": 0, "val": 0, "test": 0}
    assert "welcome" not in state["rects"]
    opened.until(lambda _: count(view(opened), ORANGE) > 5000)


# ---------------------------------------------------------------------- clouds
def test_a_cloud_that_fits_is_shown_at_once_and_can_be_dismissed(
    window: WindowDriver, files: Path
) -> None:
    before = window.state()
    window.until(lambda _: count(view(window), ORANGE) < 500)
    window.drop(files / "fits.ply", at=PLACE)
    state = window.until(lambda state: state["card"])
    assert state["card"]["verdict"] == "aligned" and state["card"]["points"] == 4000
    assert state["preview"]
    window.until(lambda _: count(view(window), ORANGE) > 3000)
    assert window.state()["camera"] == before["camera"]  # the same place of the same scene
    assert window.state()["texts"]["card_title"] == "fits.ply: 4,000 points"
    window.click("card_back")
    state = window.until(lambda state: not state["card"] and not state["preview"])
    window.until(lambda _: count(view(window), ORANGE) < 500)
    assert "card" not in window.state()["rects"]
    assert running(window)["folder"] == before["folder"]


def test_train_the_scene_from_the_cloud(window: WindowDriver, files: Path) -> None:
    window.drop(files / "fits.ply", at=PLACE)
    window.until(lambda state: state["card"] and "card_use" in state["rects"])
    state = new_run(window, lambda: window.click("card_use"))
    assert state["scene"] == "disc" and state["points"] == 4000 and not state["card"]
    assert state["views"] == {"train": 6, "val": 2, "test": 3}
    options = json.loads((window.state_file.parent / state["folder"] / "config.json").read_text())
    assert options["options"]["points"] == str(files / "fits.ply")


def test_open_the_cloud_alone_and_come_back(window: WindowDriver, files: Path) -> None:
    window.drop(files / "fits.ply", at=PLACE)
    window.until(lambda state: state["card"] and "card_alone" in state["rects"])
    window.click("card_alone")
    state = window.until(lambda state: state["scene"] == "fits")
    assert not state["card"] and state["views"] == {"train": 0, "val": 0, "test": 0}
    window.until(lambda _: count(view(window), ORANGE) > 5000)
    state = new_run(window, lambda: window.drop(files / "disc/transforms_train.json", at=PLACE))
    assert state["scene"] == "disc"


def test_a_cloud_that_does_not_fit_warns_and_is_framed(window: WindowDriver, files: Path) -> None:
    before = window.state()
    window.drop(files / "far away é.ply", at=PLACE)
    state = window.until(lambda state: state["card"] and "card" in state["rects"])
    assert state["card"]["verdict"] == "misaligned"
    assert position(state)[0] > 5  # it went there to see it
    window.until(lambda _: count(view(window), ORANGE) > 3000)
    window.key("Escape")
    window.until(lambda state: not state["card"])
    state = still(window)
    assert np.linalg.norm(position(state) - position(before)) < 5
    assert state["folder"] == before["folder"]


def test_good_and_bad_files_together(window: WindowDriver, files: Path, tmp_path: Path) -> None:
    bad = tmp_path / "photo.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 nothing")
    drops = len(window.state()["drops"])
    window.drop(bad, files / "fits.ply", files / "far away é.ply", at=PLACE)
    state = window.until(lambda state: state["card"] and state["popup"])
    assert len(state["drops"]) == drops + 3
    assert state["card"]["path"] == str(files / "fits.ply")  # the first of two
    told = "\n".join(state["errors"][-2:])
    assert str(bad) in told and "one point cloud at a time" in told
    window.click("error_ok")
    window.until(lambda state: not state["popup"])
    assert window.state()["card"]


# ---------------------------------------------------------------------- what cannot be opened
def test_bad_files_say_so_and_training_goes_on(
    window: WindowDriver, files: Path, tmp_path: Path
) -> None:
    whole = (files / "fits.ply").read_bytes()
    contents = {"empty.ply": b"", "cut.ply": whole[: len(whole) // 2], "photo.jpg": b"\xff\xd8\xff"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "nothing inside").mkdir()
    folder = window.state()["folder"]
    for name in (*contents, "nothing inside", "not there.ply"):
        window.drop(tmp_path / name, at=PLACE)
        state = window.until(
            lambda state, n=name: (
                "error" in state["rects"] and n in state["texts"].get("error_text", "")
            )
        )
        assert state["popup"] == state["texts"]["error_text"]
        window.click("error_ok")
        window.until(lambda state: not state["popup"] and "error" not in state["rects"])
    state = running(window)
    assert state["folder"] == folder and not state["card"]


def test_a_scene_that_cannot_be_loaded_costs_nothing(window: WindowDriver, files: Path) -> None:
    picture, before = lit_view(window), window.state()
    window.drop(files / "torn", at=PLACE)
    state = window.until(lambda state: state["popup"])
    assert "torn" in state["popup"]
    window.key("Escape")
    window.until(lambda state: not state["popup"])
    state = running(window)
    assert (state["folder"], state["scene"]) == (before["folder"], "disc")
    assert state["camera"] == before["camera"] and not state["loading"]
    assert change(picture, lit_view(window)) < 20


# ---------------------------------------------------------------------- runs, camera paths
def test_a_checkpoint_continues_at_its_step(window: WindowDriver) -> None:
    window.key("ctrl+s")
    state = window.until(lambda state: "Saved " in state["messages"][-1])
    path = Path(state["messages"][-1].removeprefix("Saved ").removesuffix("."))
    path = window.state_file.parent / path
    run = path.parent.parent
    step = int("".join(c for c in path.stem if c.isdigit()))
    window.until(lambda state: state["step"] > step + 5)
    other = window.state_file.parent / "moved" / run.name
    shutil.copytree(run, other)
    for dropped in (other, other / "checkpoints" / path.name):
        window.drop(dropped, at=PLACE)
        state = window.until(
            lambda state: (
                any(f"from {path.name}" in text for text in state["messages"][-6:])
                and Path(state["folder"] or "").name == other.name
                and not state["loading"]
            )
        )
        assert running(window)["step"] > step
    rows = (other / "metrics.csv").read_text().splitlines()
    assert len(rows) >= 1


def test_a_camera_path_is_flown_along(window: WindowDriver, tmp_path: Path) -> None:
    turns = np.linspace(0, np.pi, 40)
    cameras = [
        Camera.look_at((4 * np.cos(a), 4 * np.sin(a), 1.0), (0, 0, 0), width=40, height=30)
        for a in turns
    ]
    path = tmp_path / "flight.json"
    save_camera_path(path, CameraPath(cameras))
    window.drop(path, at=PLACE)
    middle = window.until(lambda state: state["moving"] and position(state)[1] > 2)
    assert np.linalg.norm(position(middle)) == pytest.approx(np.sqrt(17), rel=1e-6)
    window.until(lambda state: not state["moving"])
    state = still(window)
    torch.testing.assert_close(matrix(state), cameras[-1].world_to_camera)
    assert "path of 40 cameras" in "\n".join(state["messages"])


# ---------------------------------------------------------------------- without a drop
def test_type_a_path_or_a_name_and_recent(window: WindowDriver, files: Path) -> None:
    window.click("tab_scene")

    def enter(text: str) -> None:
        window.click("path")
        window.type_text(text)
        window.key("Return")

    enter(str(files / "fits.ply"))
    window.until(lambda state: state["card"])
    window.click("card_back")
    enter("no such scene")
    state = window.until(lambda state: state["popup"])
    assert "no such scene" in state["popup"]
    window.key("Escape")
    window.until(lambda state: not state["popup"])
    state = new_run(window, lambda: enter("lego"))
    assert state["scene"] == "lego"
    window.until(lambda state: state["texts"]["scene_text"].startswith("lego: 60 train"))
    # Newest first: lego, then disc.
    state = new_run(window, lambda: choose(window, "recent", 1, 3))
    assert state["scene"] == "disc"


def test_the_open_dialog_and_escape(window: WindowDriver) -> None:
    def dimmed() -> bool:
        """A dialog darkens all behind it; nothing else changes the menu bar."""
        bar = window.screenshot()[2 : MENU_BAR - 2, 300:]
        return count(bar, DARK.panel, 3) < 0.1 * bar.shape[0] * bar.shape[1]

    assert not dimmed()
    window.key("ctrl+o")
    window.until(lambda _: dimmed())
    window.key("Escape")
    window.until(lambda _: not dimmed())
    running(window)
