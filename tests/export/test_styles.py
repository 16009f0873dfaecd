"""Other ways to draw Gaussians: sizes, ellipsoids, centres, normals, opacities."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.export.splats import SplatRenderer
from render.export.styles import (
    FAINTEST,
    POINT,
    RADIUS,
    LayerValue,
    SolidRenderer,
    Style,
    cloud_of,
    styled,
    with_values,
)
from render.gaussians.cloud import SH0, Cloud
from render.methods.base import Inspection
from render.scenes.background import Background
from render.scenes.types import Bounds, PointCloud, Scene

WHITE, RED, BLUE = torch.ones(3), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
SIZE, DISTANCE = 100, 5.0
CAMERA = Camera.look_at((DISTANCE, 0.0, 0.0), (0.0, 0.0, 0.0), width=SIZE, height=SIZE)
SHAPES = [Style(shape="ellipse"), Style(shape="point")]


def renderer(
    *gaussians: tuple[tuple[float, float, float], tuple[float, float, float]],
    sizes: tuple[float, float, float] = (0.3, 0.3, 0.3),
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0),
    opacity: float = 0.6,
    k: int = 4,
) -> SplatRenderer:
    """Of Gaussians (place, colour) that are all of one shape."""
    n = len(gaussians)
    xyz = torch.tensor([place for place, _ in gaussians]).reshape(n, 3)
    rgb = torch.tensor([color for _, color in gaussians]).reshape(n, 3)
    table = {
        "f_dc": (rgb - 0.5) / SH0,
        "opacity": torch.full((n, 1), math.log(opacity / (1 - opacity))),
        "scale": torch.tensor(sizes).log().repeat(n, 1),
        "rotation": torch.tensor(quat).repeat(n, 1),
    }
    bounds = Bounds(torch.zeros(3).double(), 1.0, 0.1, 10.0)
    points = PointCloud(xyz, gaussians=table)
    scene = Scene("s", [], {"train": [], "test": []}, points, Background(), bounds)
    return SplatRenderer(scene, k)


def tensors(cloud: Cloud) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in cloud.tensors().items()}


def covered(source: SplatRenderer, style: Style) -> Tensor:
    """Where there is anything, [H, W]."""
    return styled(source, style).inspect(CAMERA).kbuffer.count() > 0


def pixels(length: float, at: float = DISTANCE) -> float:
    return length * float(CAMERA.focal[0]) / at


# ---------------------------------------------------------------------- size
def test_the_plain_style_is_the_model_itself() -> None:
    source = renderer(((0, 0, 0), RED))
    assert styled(source, Style()) is source
    assert Style().describe() == ""
    assert Style(0.5, "ellipse").describe() == "Ellipsoids, size x 0.50"


@pytest.mark.parametrize("shape", ["splat", "ellipse", "point"])
def test_a_style_changes_nothing_in_the_model(shape) -> None:
    source = renderer(((0, 0, 0), RED), ((0, 0.5, 0.1), BLUE))
    before, picture = tensors(source.cloud), source.render(CAMERA, WHITE).rgb
    own = source.cloud
    image = styled(source, Style(0.4, shape)).view(CAMERA, WHITE)[0].rgb
    assert (image - picture).abs().max() > 0.1, "it is another picture"
    assert source.cloud is own and all(t.requires_grad for t in own.tensors().values())
    for name, tensor in tensors(source.cloud).items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(source.render(CAMERA, WHITE).rgb, picture), "bit for bit"


def test_a_scale_is_that_of_all_sizes() -> None:
    source = renderer(((0, 0, 0), RED), ((0, 0.5, 0.1), BLUE), sizes=(0.4, 0.2, 0.1))
    small = renderer(((0, 0, 0), RED), ((0, 0.5, 0.1), BLUE), sizes=(0.2, 0.1, 0.05))
    image, inside = styled(source, Style(0.5)).view(CAMERA, WHITE, 2)
    expected, inside_small = small.view(CAMERA, WHITE, 2)
    assert torch.allclose(image.rgb, expected.rgb, atol=1e-5)
    assert torch.equal(inside.kbuffer.index, inside_small.kbuffer.index)


# ---------------------------------------------------------------------- ellipsoids
def test_an_ellipsoid_is_opaque_with_a_dark_rim_and_a_sharp_edge() -> None:
    source = renderer(((0, 0, 0), RED), opacity=0.3)
    render, inside = styled(source, Style(shape="ellipse")).view(CAMERA, WHITE)
    radius = RADIUS * math.hypot(pixels(0.3), math.sqrt(0.3))  # with the kernels' low-pass
    inside_it = inside.kbuffer.count() > 0
    assert int(inside_it.sum()) == pytest.approx(math.pi * radius**2, rel=0.03)
    assert render.alpha is not None
    assert (render.alpha[inside_it] > 0.998).all() and (render.alpha[~inside_it] == 0).all()
    assert torch.equal(render.rgb[0, 0], WHITE)
    row = render.rgb[SIZE // 2, :, 0][inside_it[SIZE // 2]]
    middle = len(row) // 2
    assert row[middle] > 0.95 and row[0] < 0.25 and row[-1] < 0.25, "rim"
    assert (row[2:middle].diff() > -1e-3).all(), "brighter towards the middle"


def test_an_ellipsoid_shows_the_shape() -> None:
    source = renderer(((0, 0, 0), RED), sizes=(0.1, 0.6, 0.15))
    seen = covered(source, Style(shape="ellipse"))
    wide, high = seen.any(0).sum(), seen.any(1).sum()
    assert int(wide) == pytest.approx(2 * RADIUS * pixels(0.6), rel=0.06)
    assert int(high) == pytest.approx(2 * RADIUS * pixels(0.15), rel=0.15)
    half = covered(source, Style(0.5, "ellipse"))
    assert int(half.sum()) == pytest.approx(int(seen.sum()) / 4, rel=0.15)


@pytest.mark.parametrize("style", SHAPES, ids=lambda style: style.shape)
def test_what_is_in_front_hides_what_is_behind(style: Style) -> None:
    for near, far in ((RED, BLUE), (BLUE, RED)):
        source = renderer(((-1.0, 0, 0), far), ((1.0, 0, 0), near))
        render, inside = styled(source, style).view(CAMERA, WHITE)
        middle = (SIZE // 2, SIZE // 2)
        assert inside.kbuffer.index[middle].tolist() == [1, 0, -1, -1]
        assert inside.weight[middle][0] > 0.99
        assert (render.rgb[middle] - torch.tensor(near)).abs().max() < 0.06
        assert render.depth is not None and float(render.depth[middle]) == pytest.approx(
            DISTANCE - 1, abs=0.01
        )


@pytest.mark.parametrize("style", SHAPES, ids=lambda style: style.shape)
def test_what_is_faint_or_behind_the_camera_is_left_out(style: Style) -> None:
    assert covered(renderer(((0, 0, 0), RED), opacity=FAINTEST + 0.02), style).any()
    assert not covered(renderer(((0, 0, 0), RED), opacity=FAINTEST - 0.02), style).any()
    assert not covered(renderer(((9.0, 0, 0), RED)), style).any()
    nothing = styled(renderer(), style)
    assert torch.equal(nothing.render(CAMERA, BLUE_BACK).rgb, BLUE_BACK.expand(SIZE, SIZE, 3))


BLUE_BACK = torch.tensor(BLUE)


@pytest.mark.parametrize("style", SHAPES, ids=lambda style: style.shape)
@pytest.mark.parametrize("k", [1, 3, 9])
def test_layers_are_as_many_as_asked_for(style: Style, k: int) -> None:
    source = renderer(((-1.0, 0, 0), BLUE), ((1.0, 0, 0), RED), k=3)
    drawn = styled(source, style)
    inside = drawn.inspect(CAMERA, k)
    assert inside.kbuffer.k == min(k, 3) == inside.weight.shape[-1]
    valid = inside.kbuffer.valid
    assert (inside.kbuffer.distance[valid] >= 0).all() and (inside.kbuffer.distance <= 1).all()
    assert (inside.weight[~valid] == 0).all()
    assert torch.equal(drawn.render(CAMERA, WHITE, k).rgb, drawn.view(CAMERA, WHITE, k)[0].rgb)


# ---------------------------------------------------------------------- centres
def test_centres_have_a_size_on_the_screen() -> None:
    for sizes in ((0.5, 0.5, 0.5), (0.01, 0.01, 0.01)):
        source = renderer(((0, 0, 0), RED), sizes=sizes)
        for scale in (1.0, 2.0):
            area = int(covered(source, Style(scale, "point")).sum())
            assert area == pytest.approx(math.pi * (scale * POINT) ** 2, abs=5)
        assert covered(source, Style(0.05, "point")).any(), "never lost"
    image = styled(source, Style(2.0, "point")).render(CAMERA, WHITE).rgb
    assert torch.allclose(image[SIZE // 2, SIZE // 2], torch.tensor(RED), atol=0.01)


# ---------------------------------------------------------------------- normals, opacities
def values(source: SplatRenderer, camera: Camera, *names: LayerValue) -> Inspection:
    return with_values(source.inspect(camera), source.cloud, camera, names)


@pytest.mark.parametrize("eye", [DISTANCE, -DISTANCE])
def test_normals_are_the_shortest_axes_facing_the_camera(eye: float) -> None:
    turn = (math.cos(0.3), 0.0, 0.0, math.sin(0.3))  # by 0.6 around z
    source = renderer(((0, 0, 0), RED), sizes=(0.02, 0.3, 0.5), quat=turn)
    camera = Camera.look_at((eye, 0.0, 0.0), (0.0, 0.0, 0.0), width=40, height=40)
    inside = values(source, camera, "normal")
    normal = inside.extra["normal"][20, 20, 0]
    expected = torch.tensor([math.cos(0.6), math.sin(0.6), 0.0]) * math.copysign(1, eye)
    assert torch.allclose(normal, expected, atol=1e-5)
    assert (inside.extra["normal"][~inside.kbuffer.valid] == 0).all()
    assert not inside.extra["normal"].requires_grad


def test_opacities_are_those_of_the_gaussians() -> None:
    source = renderer(((-1.0, 0, 0), BLUE), ((1.0, 0, 0), RED), opacity=0.25)
    inside = values(source, CAMERA, "opacity", "normal")
    assert set(inside.extra) == {"opacity", "normal"}
    found = inside.extra["opacity"][..., 0]
    assert torch.allclose(found[inside.kbuffer.valid], torch.tensor(0.25), atol=1e-6)
    assert (found[~inside.kbuffer.valid] == 0).all()


def test_nothing_is_added_unasked() -> None:
    source = renderer(((0, 0, 0), RED))
    inside = replace(source.inspect(CAMERA))
    assert with_values(inside, source.cloud, CAMERA, ()) is inside


def test_only_gaussians_have_a_cloud() -> None:
    source = renderer(((0, 0, 0), RED))
    assert cloud_of(source) is source.cloud
    assert cloud_of(object()) is None
    assert isinstance(styled(source, SHAPES[0]), SolidRenderer)
