"""Evaluation: means of per-image values, under a protocol that stands beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from render.scenes.background import Background
from render.scenes.load import load_scene
from render.training.evaluation import Protocol, evaluate, house_protocol
from render.training.metrics import psnr
from tests.fakes import FakeMethod, FakeOptions

WHITE = Background("white")


def make(folder: Path, background: Background = WHITE) -> FakeMethod:
    scene = load_scene(folder, needs_points=False, background=background)
    generator = torch.Generator().manual_seed(0)
    return FakeMethod(FakeOptions(), scene, torch.device("cpu"), generator)


def test_mean_of_per_image_values(tiny_scene: Path) -> None:
    method = make(tiny_scene)
    views = method.scene.split("test")
    seen: list[str] = []
    result = evaluate(
        method,
        views,
        house_protocol(method.scene.background),
        on_image=lambda i, view, image, target: seen.append(f"{i} {view.name}"),
    )
    white = torch.ones(3)
    expected = [psnr(method.render(v.camera, white).rgb, v.target(white)) for v in views]
    assert [score.psnr for score in result.per_image] == expected
    assert result.psnr == pytest.approx(sum(expected) / 3)
    assert seen == [f"{i} {view.name}" for i, view in enumerate(views)]
    assert result.lpips is None


def test_background_reaches_the_targets(tiny_scene: Path) -> None:
    values = []
    for kind in ("white", "black"):
        method = make(tiny_scene, Background(kind))  # pyright: ignore[reportArgumentType]
        protocol = house_protocol(method.scene.background)
        assert protocol.background == kind
        values.append(evaluate(method, method.scene.split("test"), protocol).psnr)
    assert values[0] != values[1]


def test_protocol_clamps_and_quantises() -> None:
    image = torch.tensor([-0.5, 0.5, 1.5])
    assert Protocol().prepare(image).tolist() == [0.0, 0.5, 1.0]
    assert Protocol(clamp=False).prepare(image).tolist() == [-0.5, 0.5, 1.5]
    eight = Protocol(quantize_8bit=True).prepare(image)
    assert eight.tolist() == pytest.approx([0.0, 128 / 255, 1.0])


def test_json_is_strict_and_names_the_protocol(tiny_scene: Path) -> None:
    method = make(tiny_scene)
    views = method.scene.split("test")[:1]
    target = views[0].target(torch.ones(3))
    method.render = lambda camera, background, k=None: type(  # pyright: ignore
        "R", (), {"rgb": target}
    )()
    data = evaluate(method, views, house_protocol(Background())).to_json()
    text = json.dumps(data, allow_nan=False)
    assert data["psnr"] is None  # equal images: infinite
    assert json.loads(text)["protocol"]["sizes"] == ["24x24"]
    assert data["protocol"]["split"] == "test" and data["protocol"]["background"] == "white"


def test_nothing_to_evaluate_is_an_error(tiny_scene: Path) -> None:
    with pytest.raises(ValueError, match="no views"):
        evaluate(make(tiny_scene), [], Protocol())
