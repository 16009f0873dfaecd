"""The papers' protocols: what each does to render and photograph before they are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.scenes.background import Background
from render.scenes.load import load_scene
from render.scenes.types import Scene, View
from render.training import protocols
from render.training.evaluation import EvalResult, ImageScore, Protocol, evaluate
from render.training.metrics import psnr, ssim, ssim_map
from render.training.protocols import PRESETS, departures, protocol_for, scene_kind
from tests.fakes import FakeMethod, FakeOptions

WHITE = torch.ones(3)


def view_of(pixels: Tensor) -> View:
    height, width = pixels.shape[:2]
    camera = Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=width, height=height)
    return View(camera, lambda: pixels, "view")


@pytest.fixture
def pixels() -> Tensor:
    """A photograph [14, 16, 4]: alpha 0, 51, 153 and 255 in four columns each."""
    pixels = torch.randint(0, 256, (14, 16, 4), generator=torch.Generator().manual_seed(0))
    pixels[..., 3] = torch.tensor([0, 51, 153, 255]).repeat_interleave(4)
    return pixels.to(torch.uint8)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(14, 16, 3, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1


@pytest.fixture
def scene(tiny_scene: Path) -> Scene:
    return load_scene(tiny_scene, needs_points=False)


def protocol_of(name: str, scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    monkeypatch.setattr(protocols, "scene_kind", lambda scene: kind)
    return protocol_for(name, scene)


def test_kbuffers_npf(
    scene: Scene, pixels: Tensor, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White, soft masks on DTU, 20 pixels less of ScanNet's scene 0000 only."""
    rgb, alpha = pixels[..., :3] / 255, pixels[..., 3:] / 255
    protocol = protocol_of("kbuffers-npf", scene, "dtu", monkeypatch)
    ours, photo, ignored = protocol.pair(image, view_of(pixels))
    torch.testing.assert_close(ours, image.clamp(0, 1) * alpha + 1 - alpha)
    torch.testing.assert_close(photo, rgb * alpha + 1 - alpha)
    assert ignored is None and protocol.lpips_net == "vgg"
    lego = protocol_of("kbuffers-npf", scene, "nerf-synthetic", monkeypatch)
    assert torch.equal(lego.pair(image, view_of(pixels))[0], image.clamp(0, 1))
    edges = {}
    for name in ("scene0000_00", "scan_0000", "scene0043_00", "scene1000"):
        named = replace(scene, name=name)
        edges[name] = protocol_of("kbuffers-npf", named, "scannet", monkeypatch).edge_crop
    assert edges == {"scene0000_00": 20, "scan_0000": 20, "scene0043_00": 0, "scene1000": 0}


def test_kbuffers_gs(
    scene: Scene, pixels: Tensor, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DTU: both times the mask, in which everything but 0 is 1."""
    protocol = protocol_of("kbuffers-gs", scene, "dtu", monkeypatch)
    ours, photo, _ = protocol.pair(image, view_of(pixels))
    assert torch.equal(ours[:, :4], torch.zeros(14, 4, 3))
    assert torch.equal(ours[:, 4:], image[:, 4:].clamp(0, 1))
    assert torch.equal(photo[:, 4:], pixels[:, 4:, :3] / 255) and not photo[:, :4].any()
    lego = protocol_of("kbuffers-gs", scene, "nerf-synthetic", monkeypatch)
    assert lego == Protocol(name="kbuffers-gs", lpips_net="alex")


def test_gaussian_splatting(scene: Scene, pixels: Tensor, image: Tensor) -> None:
    """Photographs are cut off and renders rounded to 8 bits; LPIPS sees [0, 1]."""
    protocol = protocol_for("3dgs", scene)
    ours, photo, _ = protocol.pair(image, view_of(pixels))
    rgb, alpha = pixels[..., :3].double() / 255, pixels[..., 3:].double() / 255
    exact = (rgb * alpha + 1 - alpha) * 255
    assert torch.equal((photo * 255).round(), (exact + 1e-6).floor().float())
    assert torch.equal((ours * 255).round(), (image.clamp(0, 1) * 255).round())
    assert (protocol.lpips_net, protocol.lpips_range) == ("vgg", "0..1")


def test_npbgpp(
    scene: Scene, pixels: Tensor, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks from one half on white; ScanNet without 20 pixels at every side."""
    protocol = protocol_of("npbgpp", scene, "dtu", monkeypatch)
    ours, photo, _ = protocol.pair(image, view_of(pixels))
    assert torch.equal(photo[:, :8], torch.ones(14, 8, 3))
    assert torch.equal(photo[:, 8:], pixels[:, 8:, :3] / 255)
    assert torch.equal(ours, image.clamp(0, 1))
    scannet = protocol_of("npbgpp", scene, "scannet", monkeypatch)
    large = torch.rand(50, 60, 3)
    cut, photo, _ = scannet.pair(large, view_of(torch.zeros(50, 60, 4, dtype=torch.uint8)))
    assert torch.equal(cut, large[20:30, 20:40]) and photo.shape == cut.shape
    with pytest.raises(UserError, match="edge of 20 pixels"):
        scannet.pair(image, view_of(pixels))


def test_point_radiance(scene: Scene, pixels: Tensor, image: Tensor) -> None:
    """Black, and photographs as if they had no alpha."""
    protocol = protocol_for("point-radiance", scene)
    assert protocol.background_rgb == (0.0, 0.0, 0.0) and protocol.lpips_net == "none"
    assert torch.equal(protocol.pair(image, view_of(pixels))[1], pixels[..., :3] / 255)


def test_ssim_over_the_border_has_a_window_for_every_pixel() -> None:
    a, b = (torch.rand(20, 24, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    padded = torch.zeros(30, 34, 3), torch.zeros(30, 34, 3)
    for large, small in zip(padded, (a, b), strict=True):
        large[5:-5, 5:-5] = small
    whole = ssim_map(*padded)
    assert whole.shape == (20, 24, 3)
    assert ssim(a, b, border="zeros") == pytest.approx(float(whole.double().mean()))
    assert ssim(a, b, border="zeros") != pytest.approx(ssim(a, b), abs=1e-4)
    ignored = torch.zeros(20, 24, dtype=torch.bool)
    ignored[0, 0] = True  # touches the windows of 6x6 pixels
    rest = whole.double().sum() - whole[:6, :6].double().sum()
    assert ssim(a, b, ignored, border="zeros") == pytest.approx(float(rest / (3 * (480 - 36))))


def test_evaluate_under_a_protocol(scene: Scene) -> None:
    method = FakeMethod(FakeOptions(), scene, torch.device("cpu"), torch.Generator().manual_seed(0))
    views = scene.split("test")
    result = evaluate(method, views, protocol_for("3dgs", scene))
    expected = []
    for view in views:
        image = (method.render(view.camera, WHITE).rgb * 255).round() / 255
        photo = (view.target(WHITE) * 255 + 1e-3).floor() / 255
        expected.append((psnr(image, photo), ssim(image, photo, border="zeros")))
    assert [(s.psnr, s.ssim) for s in result.per_image] == expected
    stored = result.to_json()["protocol"]
    assert stored["name"] == "3dgs" and stored["ssim_border"] == "zeros"
    assert stored["photo_8bit"] and stored["quantize_8bit"]


def test_kinds_of_scenes(scene: Scene) -> None:
    assert scene_kind(scene) == "nerf-synthetic"
    assert scene_kind(replace(scene, path=None)) == "other"
    for view in scene.views:
        view.has_alpha = False
    assert scene_kind(scene) == "other"  # transforms.json of photographs


def test_departures_are_told(scene: Scene) -> None:
    result = EvalResult(
        20.0, 0.9, None, [ImageScore("a", 20.0, 0.9)], protocol_for("point-radiance", scene),
        ["800x800"],
    )  # fmt: skip
    said = departures(result, scene, trained_on="white")
    assert [text.split(",")[0] for text in said] == [
        "published: the mean of 23 views",
        "pictures of 800x800",
        "trained on a white background",
        "1 test views",
    ]
    house = replace(result, protocol=protocol_for("house", scene))
    assert departures(house, scene, trained_on="black") == []


def test_every_preset_builds_and_an_unknown_one_lists_them(scene: Scene) -> None:
    for name in PRESETS:
        assert protocol_for(name, scene).name == name
    assert protocol_for("house", replace(scene, background=Background("black"))).background == (
        "black"
    )
    with pytest.raises(UserError, match="house, kbuffers-npf, kbuffers-gs, 3dgs, npbgpp"):
        protocol_for("nerf", scene)
