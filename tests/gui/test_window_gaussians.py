"""Gaussians in the real window: a dropped file, ways to draw it, export, densification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from app.look import MODES, Mode
from app.shortcuts import MODE_KEYS
from render.camera import quat_to_rotation
from render.export.layers import LayerPictures
from render.export.splats import SplatRenderer
from render.export.styles import Style, styled, with_values
from render.gaussians.cloud import SH0, Cloud
from render.gaussians.ply import from_points, write_ply
from render.methods import method_names
from render.scenes.background import Background
from render.scenes.clouds.pointcloud import read_point_cloud
from render.scenes.clouds.pointcloud import write_ply as write_points
from render.scenes.load import load_scene
from render.scenes.types import PointCloud
from tests.driver import State, WindowDriver
from tests.fakes import write_scene
from tests.window_looks import AWAY, near, painted, shot, type_into
from tests.window_steps import camera, choose, choose_in_menu

COUNT, K = 60, 8
PLACE = (300, 400)  # where files are dropped: the middle of the view
BELOW_LABELS = 130  # px
WHITE = torch.ones(3)
SHAPES = ["splat", "ellipse", "point"]


def gaussians() -> Cloud:
    """Flat discs on a sphere, of several colours, sizes and opacities."""
    g = torch.Generator().manual_seed(1)
    means = 0.8 * torch.nn.functional.normalize(torch.randn(COUNT, 3, generator=g), dim=1)
    quats = torch.randn(COUNT, 4, generator=g)
    assert quat_to_rotation(quats).isfinite().all()
    sizes = torch.tensor([0.03, 0.12, 0.2]) * (0.6 + torch.rand(COUNT, 1, generator=g))
    rgb = torch.rand(COUNT, 3, generator=g)
    return Cloud(
        {
            "means": means,
            "quats": quats,
            "log_scales": sizes.log(),
            "logits": 0.5 + torch.randn(COUNT, generator=g),
            "sh0": (rgb - 0.5) / SH0,
            "sh_rest": 0.1 * torch.randn(COUNT, 8, 3, generator=g),
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``trained.ply``, ``half.ply`` with one property too few, ``points.ply``, scene ``disc``."""
    folder = tmp_path_factory.mktemp("gaussians")
    write_ply(folder / "trained.ply", gaussians())
    header, body = (folder / "trained.ply").read_bytes().split(b"end_header\n", 1)
    renamed = header.replace(b"float f_rest_23\n", b"float something\n")
    (folder / "half.ply").write_bytes(renamed + b"end_header\n" + body)
    xyz = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    write_points(folder / "points.ply", PointCloud(xyz, torch.rand(500, 3)))
    write_scene(folder / "disc")
    return folder


@pytest.fixture(scope="module")
def truth(files: Path) -> SplatRenderer:
    """The dropped file, drawn without a window."""
    scene = load_scene(
        str(files / "trained.ply"), data_roots=(), downscale=1.0, background=Background("white"),
        points=None, seed=0, needs_points=True, log=lambda text: None,
    )  # fmt: skip
    return SplatRenderer(scene, K)


@pytest.fixture(scope="module")
def opened(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowDriver]:
    """One window for the tests of the dropped file; opened without a scene."""
    with WindowDriver([], tmp_path_factory.mktemp("window"), display) as driver:
        yield driver


@pytest.fixture
def window(opened: WindowDriver, files: Path) -> WindowDriver:
    """The file is open, drawn as it is, and nothing covers it."""
    if opened.state()["popup"]:
        opened.key("Escape")
    if opened.state()["scene"] != "trained":
        opened.drop(files / "trained.ply", at=PLACE)
        opened.until(lambda state: state["scene"] == "trained" and state["gaussians"] == COUNT)
    if opened.state()["scale"] != 1:
        type_into(opened, "scale", "1")
    while opened.state()["shape"] != "splat":
        opened.key("m")
    while opened.state()["layer"] > 1:
        opened.key("shift+l")
    opened.key("1")
    opened.move(AWAY)
    styles(opened, Style())
    return opened


def styles(window: WindowDriver, style: Style, mode: Mode = "picture") -> State:
    """Wait until the picture is in this style."""
    wanted = {"scale": pytest.approx(style.scale, abs=1e-4), "shape": style.shape}
    return painted(
        window, lambda p: p["style"] == wanted and p["main"]["mode"] == mode and not p["moving"]
    )


def off(window: WindowDriver, expected: torch.Tensor) -> float:
    """Mean difference of the shown picture to ``expected`` [H, W, 3], below the labels."""
    x, y, width, height = (round(value) for value in window.state()["picture"]["box"])
    assert (height, width) == expected.shape[:2], "the cloud fills the view, pixel for pixel"
    seen = window.screenshot()[y : y + height, x : x + width] / 255.0
    part = (slice(BELOW_LABELS, None), slice(None, -120))  # nor where legends are
    return float(np.abs(seen[part] - expected.numpy()[part]).mean())


def drawn(truth: SplatRenderer, state: State, style: Style, k: int = K) -> torch.Tensor:
    return styled(truth, style).render(camera(state), WHITE, k).rgb


# ---------------------------------------------------------------------- a dropped file
def test_a_dropped_file_flies_as_what_it_is(window: WindowDriver, truth: SplatRenderer) -> None:
    state = window.state()
    assert state["gaussians"] == COUNT == state["points"] and state["errors"] == []
    assert f"trained.ply: {COUNT} Gaussians." in state["messages"]
    assert state["texts"]["train_line"] == "Trained Gaussians: to look at, not to train"
    window.until(lambda state: f"   {COUNT} Gaussians   " in state["texts"]["status"])
    assert off(window, drawn(truth, state, Style())) < 0.004
    x, y = window.center("view")
    window.drag((x, y), (x + 90, y + 30), steps=3)
    window.move(AWAY)
    state = styles(window, Style())
    assert off(window, drawn(truth, state, Style())) < 0.004, "and from elsewhere"
    window.click("tab_scene")
    text = window.until(lambda state: "scene_text" in state["texts"])["texts"]["scene_text"]
    assert f"{COUNT} Gaussians of 0.0 MiB" in text and "no photographs" in text
    window.click("tab_camera")


def test_k_layers_and_probe_of_the_file(window: WindowDriver, truth: SplatRenderer) -> None:
    window.click(window.center("k_bars", 1.5 / K))
    window.move(AWAY)
    state = painted(window, lambda picture: picture["main"]["k"] == 2)
    two = drawn(truth, state, Style(), 2)
    assert off(window, two) < 0.004 < float((two - drawn(truth, state, Style())).abs().mean())
    window.click(window.center("k_bars", (K - 0.5) / K))
    window.key("2")
    window.move(AWAY)
    state = painted(window, lambda picture: picture["main"]["mode"] == "depth")
    inside = truth.inspect(camera(state))
    span = tuple(state["picture"]["depth_range"])
    image = LayerPictures(inside, WHITE).picture("depth", 1, span)  # pyright: ignore
    assert image is not None and off(window, image) < 0.004
    window.click("tab_probe")
    count = inside.kbuffer.count()
    row, column = divmod(int(count[BELOW_LABELS:].argmax()), count.shape[1])
    row += BELOW_LABELS
    x, y, _, _ = state["picture"]["box"]
    window.move((x + column, y + row))
    found = window.until(
        lambda s: s["probe"] and (s["probe"]["x"], s["probe"]["y"]) == (column, row)
    )
    filled = int(count[row, column])
    assert filled >= 3
    assert found["probe"]["ids"] == inside.kbuffer.index[row, column, :filled].tolist()
    assert found["probe"]["shares"] == pytest.approx(inside.weight[row, column, :filled].tolist())
    window.click("tab_camera")


# ---------------------------------------------------------------------- ways to draw it
def test_shapes_by_list_and_by_key(window: WindowDriver, truth: SplatRenderer) -> None:
    pictures = []
    for row in (1, 2, 0):
        choose(window, "shape", row, 3)
        window.move(AWAY)
        style = Style(shape=SHAPES[row])  # pyright: ignore[reportArgumentType]
        state = styles(window, style)
        pictures.append(drawn(truth, state, style))
        assert off(window, pictures[-1]) < 0.004, style.shape
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (pictures[a] - pictures[b]).abs().mean() > 0.01, "no two look alike"
    for shape in (*SHAPES[1:], SHAPES[0]):
        window.key("m")
        assert window.until(lambda s, shape=shape: s["shape"] == shape)


def test_the_size_by_slider_and_back(window: WindowDriver, truth: SplatRenderer) -> None:
    x, y, width, height = window.rect("scale")
    middle = y + 0.5 * height
    window.drag((x + 0.49 * width, middle), (x + 0.2 * width, middle), steps=4)
    window.move(AWAY)
    scale = window.until(lambda state: state["scale"] < 0.6)["scale"]
    state = styles(window, Style(scale))
    small = drawn(truth, state, Style(scale))
    assert off(window, small) < 0.004
    assert (small - drawn(truth, state, Style())).abs().mean() > 0.02
    window.double_click((x + 0.2 * width, middle))
    window.move(AWAY)
    state = styles(window, Style())
    assert state["scale"] == 1 and off(window, drawn(truth, state, Style())) < 0.004
    type_into(window, "scale", "1.5")
    window.until(lambda state: state["scale"] == 1.5)
    window.key("m")
    style = Style(1.5, "ellipse")
    assert off(window, drawn(truth, styles(window, style), style)) < 0.004


@pytest.mark.parametrize(("mode", "key"), [("normal", "9"), ("opacity", "0")])
def test_normals_and_opacities_of_each_layer(
    window: WindowDriver, truth: SplatRenderer, mode: Mode, key: str
) -> None:
    window.click(f"mode_{mode}")
    window.move(AWAY)
    for layer in (1, 2):
        state = painted(window, main={"source": "model", "mode": mode, "k": K, "layer": layer})
        view = camera(state)
        inside = with_values(truth.inspect(view), truth.cloud, view, (mode,))  # pyright: ignore
        image = LayerPictures(inside, WHITE).picture(mode, layer)  # pyright: ignore
        assert image is not None and off(window, image) < 0.004
        title = {"normal": "Normal", "opacity": "Opacity"}[mode]
        assert state["picture"]["legend"] == title
        window.key("l")
    assert len(window.state()["tiles"]) == K
    window.key("1")
    window.key("shift+l")
    window.key(key)
    assert window.state()["mode"] == mode


def test_what_points_do_not_have_is_not_offered(window: WindowDriver, files: Path) -> None:
    tags = ("mode_normal", "mode_opacity", "shape", "scale")
    assert all(tag in window.state()["rects"] for tag in tags)
    window.key("9")
    window.key("m")
    window.until(lambda state: state["mode"] == "normal" and state["shape"] == "ellipse")
    window.drop(files / "points.ply", at=PLACE)
    state = window.until(lambda s: s["scene"] == "points" and "shape" not in s["rects"])
    assert not any(tag in state["rects"] for tag in tags) and state["gaussians"] == 0
    assert (state["mode"], state["shape"]) == ("color", "splat")
    window.key("0")
    window.key("m")
    state = window.frames(3)
    assert (state["mode"], state["shape"]) == ("color", "splat")
    assert "there are none here" in "".join(state["messages"][-2:])


# ---------------------------------------------------------------------- files
def test_a_file_of_half_a_degree_is_a_sentence(window: WindowDriver, files: Path) -> None:
    window.drop(files / "half.ply", at=PLACE)
    state = window.until(lambda state: "error_text" in state["texts"])
    told = state["texts"]["error_text"]
    assert "half.ply" in told and "expected 0, 9, 24 or 45 properties f_rest_*" in told
    window.click("error_ok")
    state = window.until(lambda state: not state["popup"])
    assert state["scene"] == "trained" and not state["loading"]


def test_export_by_the_menu(window: WindowDriver, files: Path, tmp_path: Path) -> None:
    def write(text: str) -> None:
        choose_in_menu(window, "menu_file", "menu_export")
        window.until(lambda state: state["rects"].get("export_yes", [0] * 4)[2] > 0)
        window.frames(4)  # the dialog has found its size
        window.click("export_path")  # which selects what is there
        window.type_text(text)
        window.click("export_yes")

    path = tmp_path / "copy.ply"
    write(str(path.with_suffix("")))
    window.until(lambda s: f"Wrote {COUNT} Gaussians to {path}." in s["messages"])
    one, other = (from_points(read_point_cloud(p)) for p in (path, files / "trained.ply"))
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name
    write(str(path / "in a file.ply"))
    state = window.until(lambda state: "error_text" in state["texts"])
    assert "the Gaussians could not be written" in state["texts"]["error_text"]
    window.click("error_ok")
    window.until(lambda state: not state["popup"])


# ---------------------------------------------------------------------- training
@pytest.fixture
def training(open_window: Callable[..., WindowDriver], files: Path) -> WindowDriver:
    """``gaussians`` learns a small scene and refines again and again."""
    settings = ("points=300", "refine_from=40", "refine_every=200", "coarse_steps=1", "growth=9")
    flags = [part for setting in settings for part in ("--set", setting)]
    scene = ("--scene", files / "disc", "--method", "gaussians", "--eval-every", "never")
    return open_window(*scene, *flags)


def test_refinements_on_the_plots_and_another_method(training: WindowDriver, files: Path) -> None:
    window = training
    window.move(AWAY)
    window.until(lambda state: len(state["refinements"]) >= 3, 60)
    window.key("t")
    state = window.until(lambda state: state["state"] == "paused")
    events = state["refinements"]
    assert events[0]["before"] == 300 and events[-1]["after"] == state["gaussians"] > 300
    _check_lines(window, state)

    window.click("tab_count")
    window.move(AWAY)
    window.until(lambda state: "count_plot" in state["rects"])
    curve = near(shot(window, "count_plot"), (76, 114, 176), 40)
    assert curve.any(0).sum() > 100, "stairs across the plot"
    assert f"{state['gaussians']} Gaussians" in window.state()["texts"]["status"]

    window.drop(files / "trained.ply", at=PLACE)
    state = window.until(lambda state: "card_title" in state["texts"])
    assert state["texts"]["card_title"] == f"trained.ply: {COUNT} Gaussians"
    window.click("card_back")
    window.until(lambda state: not state["card"])

    window.click("tab_model")
    before = window.state()["folder"]
    choose(window, "method", 2, len(method_names()))
    window.click("restart")
    window.click("confirm_yes")
    state = window.until(
        lambda s: s["method"] == "gaussians-k" and s["folder"] != before and s["step"] > 3, 60
    )
    assert state["refinements"] == [] and state["errors"] == [] and state["gaussians"] > 0
    for info in MODES[:MODE_KEYS]:
        if info.value is not None:
            window.key(str((1 + MODES.index(info)) % 10))
            painted(window, lambda p, mode=info.mode: p["main"]["mode"] == mode and p["legend"])


def _check_lines(window: WindowDriver, state: State) -> None:
    """A thin line for each refinement; pointing at one tells of it."""
    plot = shot(window, "psnr_plot").astype(int)
    x, y, width, height = window.rect("psnr_plot")
    inner = plot[8 : round(0.6 * height), 30 : round(width) - 8].sum(2)
    # Columns that are brighter than their neighbours from top to bottom; the grid is fainter.
    lit = (inner[:, 1:-1] > inner[:, :-2] + 20) & (inner[:, 1:-1] > inner[:, 2:] + 20)
    columns = 31 + np.flatnonzero(lit.mean(0) > 0.6)
    told = set()
    for column in columns:
        window.move((x + float(column), y + 20))
        told.add(window.frames(4)["texts"].get("psnr_event", ""))
    expected = {f"Step {event['step']:,}, ": event["note"] for event in state["refinements"]}
    known = [text for text in told if text]
    # A line between two columns of the screen is not found above.
    assert len(known) >= max(1, len(expected) - 2)
    for text in known:
        assert any(text.startswith(step) and note in text for step, note in expected.items())
    window.move(AWAY)
    window.until(lambda state: "psnr_event" not in state["texts"])
