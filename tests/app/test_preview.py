"""The OpenGL preview against the rasteriser, and its life as a thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from app.snapshot import ViewRequest, ViewResult
from render.camera import Camera
from render.export.images import colorize
from render.kbuffer.rasterize import rasterize
from render.scenes.background import Background
from render.scenes.types import PointCloud
from tests.display import any_display, need_window_modules

WHITE = torch.ones(3)


@pytest.fixture(scope="module")
def window() -> Iterator[object]:
    """A hidden window with an OpenGL context."""
    need_window_modules()
    with any_display():
        from app import native

        system = native.start()
        yield system.hidden
        system.close()
        import glfw

        glfw.terminate()  # while the display is still there


@pytest.fixture
def preview(window: object) -> Iterator[object]:
    """A running preview without a cloud."""
    from app.preview import Preview

    thread = Preview(window)
    thread.start()
    assert thread.ready.wait(20) and thread.error is None, thread.error
    yield thread
    thread.close()
    assert not thread.is_alive() and thread.error is None, thread.error


def _wait(preview, number: int = 0) -> ViewResult:
    """The picture of the request with that number."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        result = preview.take()
        if result is not None and result.request.number == number:
            return result
        assert preview.error is None, preview.error
        time.sleep(0.002)
    raise AssertionError("no picture")


def _ask(preview, request: ViewRequest) -> ViewResult:
    preview.request(request)
    return _wait(preview, request.number)


def _camera(width: int = 90, height: int = 70, shift: tuple[float, float] = (0, 0)) -> Camera:
    """Four units in front of the origin; ``shift`` moves the principal point, in pixels."""
    camera = Camera.look_at((0, -4, 0), (0, 0, 0), width=width, height=height)
    K = camera.K.clone()
    K[:2, 2] += torch.tensor(shift, dtype=torch.float64)
    return replace(camera, K=K)


def _cloud(n: int, generator: torch.Generator) -> PointCloud:
    xyz = 2 * torch.rand(n, 3, generator=generator) - 1
    return PointCloud(xyz, torch.rand(n, 3, generator=generator))


def _inside(preview, camera: Camera, k: int, number: int = 0):
    return _ask(preview, ViewRequest(camera, inspect=(k,), number=number)).insides[k]


# ---------------------------------------------------------------------------- the K-buffer
@pytest.mark.parametrize("shift", [(0.0, 0.0), (13.3, -7.7)])
def test_every_layer_is_that_of_the_rasteriser(preview, shift: tuple[float, float]) -> None:
    cloud = _cloud(20_000, torch.Generator().manual_seed(1))
    camera, k = _camera(shift=shift), 8
    preview.set_cloud(cloud, WHITE)
    found = _inside(preview, camera, k)
    expected = rasterize(cloud.xyz, camera, k, mode="pixel")
    same = found.kbuffer.index == expected.index  # [H, W, K]
    assert expected.valid.float().mean() > 0.1
    assert (same.float().mean((0, 1)) >= 0.99).all(), same.float().mean((0, 1))
    torch.testing.assert_close(found.kbuffer.depth[same], expected.depth[same])
    assert cloud.rgb is not None
    torch.testing.assert_close(found.color, found.kbuffer.gather(cloud.rgb), rtol=0, atol=0)
    assert torch.equal(found.kbuffer.distance, found.kbuffer.valid.float() - 1)
    assert torch.equal(found.weight[..., 0], found.kbuffer.valid[..., 0].float())
    assert not found.weight[..., 1:].any()


def _behind_pixels(camera: Camera, uv: Tensor, z: Tensor) -> PointCloud:
    return PointCloud(camera.unproject(uv.double(), z.double()).float(), torch.rand(len(uv), 3))


def test_a_point_lands_in_its_pixel(preview) -> None:
    camera = _camera(64, 48, shift=(9.25, -5.5))
    column, row = torch.tensor([0, 63, 17, 40]), torch.tensor([0, 47, 31, 2])
    for nudge in (0.02, 0.5, 0.98):  # anywhere between the pixel's edges
        uv = torch.stack([column, row], 1) + nudge
        preview.set_cloud(_behind_pixels(camera, uv, torch.full((4,), 3.0)), WHITE)
        index = _inside(preview, camera, 1, number=int(100 * nudge)).kbuffer.index[..., 0]
        assert index[row, column].tolist() == [0, 1, 2, 3]
        assert (index >= 0).sum() == 4


def test_equal_depths_go_by_index_and_none_is_lost(preview) -> None:
    camera = _camera(8, 8)
    uv = torch.tensor([[3.5, 4.5]]).repeat(5, 1)
    z = torch.tensor([3.0, 2.0, 3.0, 2.0, 2.5])
    preview.set_cloud(_behind_pixels(camera, uv, z), WHITE)
    found = _inside(preview, camera, 6).kbuffer
    assert found.index[4, 3].tolist() == [1, 3, 4, 0, 2, -1]
    torch.testing.assert_close(
        found.depth[4, 3], torch.tensor([2, 2, 2.5, 3, 3, -1]), rtol=1e-5, atol=0
    )


def test_points_behind_the_camera_and_broken_ones_are_left_out(preview) -> None:
    camera = _camera(8, 8)
    uv, z = torch.full((4, 2), 4.5), torch.tensor([3.0, -3.0, 2.0, 0.001])
    cloud = _behind_pixels(camera, uv, z)
    broken = cloud.xyz.clone()
    broken = torch.cat([torch.tensor([[float("nan"), 0, 0], [0, float("inf"), 0]]), broken])
    preview.set_cloud(PointCloud(broken, torch.rand(6, 3)), WHITE)
    found = _inside(preview, camera, 3).kbuffer
    assert found.index[4, 4].tolist() == [4, 2, -1]  # numbers are those of the cloud
    assert (found.index >= 0).sum() == 2


def test_a_cloud_far_from_the_origin_keeps_its_detail(preview) -> None:
    far = torch.tensor([500_000.0, -4_000_000.0, 100.0])  # metres of a map; 0.25 apart in float32
    camera = Camera.look_at(far.double() - torch.tensor([0, 40, 0]), far, width=60, height=60)
    xyz = far + torch.tensor([[-4.0, 0, 0], [0, 0, 0], [4.0, 0, 4.0]])
    preview.set_cloud(PointCloud(xyz), WHITE)
    index = _inside(preview, camera, 1).kbuffer.index[..., 0]
    uv, _ = camera.project(xyz.double())
    columns, rows = uv.floor().long().clamp(0, 59).unbind(1)
    near = [(index[r - 1 : r + 2, c - 1 : c + 2] == i).any() for i, (c, r) in
            enumerate(zip(columns.tolist(), rows.tolist(), strict=True))]  # fmt: skip
    assert all(near) and (index >= 0).sum() == 3


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_point_size_is_a_square_of_pixels(preview, size: int) -> None:
    camera = _camera(16, 16)
    preview.point_size = float(size)
    preview.set_cloud(_behind_pixels(camera, torch.tensor([[7.8, 9.2]] * 2),
                                     torch.tensor([3.0, 2.0])), WHITE)  # fmt: skip
    index = _inside(preview, camera, 2).kbuffer.index
    for layer, point in ((0, 1), (1, 0)):
        rows, columns = (index[..., layer] == point).nonzero().T
        assert len(rows) == size * size
        assert rows.max() - rows.min() == columns.max() - columns.min() == size - 1
        assert rows.min() <= 9 <= rows.max() and columns.min() <= 7 <= columns.max()


# ---------------------------------------------------------------------------- pictures
def test_pictures_for_every_number_of_layers(preview) -> None:
    cloud = _cloud(3000, torch.Generator().manual_seed(2))
    background = torch.tensor([0.2, 0.4, 0.6])
    preview.set_cloud(cloud, background)
    result = _ask(preview, ViewRequest(_camera(), ks=(1, 3), inspect=(2, 5)))
    assert set(result.renders) == {1, 3} and set(result.insides) == {2, 5}
    assert {k: inside.kbuffer.k for k, inside in result.insides.items()} == {2: 2, 5: 5}
    assert torch.equal(result.insides[5].kbuffer.index[..., :2], result.insides[2].kbuffer.index)
    picture, first = result.renders[3], result.insides[2]
    filled = first.kbuffer.valid[..., 0]
    assert 0 < filled.float().mean() < 1
    assert torch.equal(picture.rgb[filled], first.color[..., 0, :][filled])
    assert torch.equal(picture.rgb[~filled], background.expand_as(picture.rgb[~filled]))
    assert picture.alpha is not None and torch.equal(picture.alpha, filled.float())
    assert picture.depth is not None
    assert torch.equal(picture.depth, first.kbuffer.depth[..., 0].clamp(min=0))
    assert torch.equal(result.background, background)


def test_the_background_of_the_request_wins(preview) -> None:
    preview.set_cloud(PointCloud(torch.zeros(0, 3)), WHITE)
    result = _ask(preview, ViewRequest(_camera(), ks=(1,), background=Background("black")))
    assert not result.renders[1].rgb.any() and not result.background.any()


def test_an_empty_cloud_is_an_empty_picture(preview) -> None:
    for number, xyz in enumerate((torch.zeros(0, 3), torch.full((3, 3), float("nan")))):
        preview.set_cloud(PointCloud(xyz), WHITE)
        inside = _inside(preview, _camera(), 4, number)
        assert inside.kbuffer.index.shape == (70, 90, 4) and not inside.kbuffer.valid.any()
        assert (inside.kbuffer.depth == -1).all() and not inside.color.any()


def test_points_without_colours_get_one_by_height(preview) -> None:
    camera = _camera(8, 8)
    xyz = torch.tensor([[0.0, 0.0, -0.3], [0.0, 0.0, 0.3], [float("nan")] * 3])
    for number, (up, heights) in enumerate(((1.0, [0.0, 1.0]), (-1.0, [1.0, 0.0]))):
        preview.set_cloud(PointCloud(xyz), WHITE, up=torch.tensor([0, 0, up]))
        inside = _inside(preview, camera, 1, number)
        for i, color in enumerate(colorize(torch.tensor(heights))):
            assert torch.equal(inside.color[inside.kbuffer.index == i][0], color)


def test_a_part_of_a_large_cloud_comes_first_in_software(preview) -> None:
    from app.preview.thread import MOVING_POINTS

    cloud = _cloud(2 * MOVING_POINTS, torch.Generator().manual_seed(3))
    preview.software = True  # whatever this machine has
    preview.set_cloud(cloud, WHITE)
    part = _ask(preview, ViewRequest(_camera(), inspect=(1,), number=1)).insides[1].kbuffer
    still = _wait(preview, 1).insides[1].kbuffer  # what comes at once is completed
    moving = _ask(preview, ViewRequest(_camera(), inspect=(1,), moving=True, number=2))
    index = moving.insides[1].kbuffer.index
    assert still.valid.float().mean() > index.ge(0).float().mean() > 0.3
    assert torch.equal(part.index, index)
    seen = index >= 0
    depth = _camera().to_camera(cloud.xyz)[index[seen].long(), 2]  # ids are of the whole cloud
    torch.testing.assert_close(moving.insides[1].kbuffer.depth[seen], depth)
    assert index.max() > MOVING_POINTS


# ---------------------------------------------------------------------------- the thread
def test_sizes_may_change_from_picture_to_picture(preview) -> None:
    cloud = _cloud(3000, torch.Generator().manual_seed(4))
    preview.set_cloud(cloud, WHITE)
    for number, (width, height) in enumerate(((60, 40), (61, 33), (20, 90), (61, 33))):
        camera = _camera(width, height)
        found = _inside(preview, camera, 3, number).kbuffer.index
        expected = rasterize(cloud.xyz, camera, 3, mode="pixel").index
        assert (found == expected).float().mean() > 0.99


def test_a_new_cloud_shows_without_a_new_request(preview) -> None:
    preview.request(ViewRequest(_camera(8, 8), inspect=(1,), number=7))  # nothing to show yet
    for z in (3.0, 2.0):
        cloud = _behind_pixels(_camera(8, 8), torch.tensor([[4.5, 4.5]]), torch.tensor([z]))
        preview.set_cloud(cloud, WHITE)
        depth = _wait(preview, 7).insides[1].kbuffer.depth[4, 4, 0]
        assert float(depth) == pytest.approx(z, rel=1e-5)
        assert preview.take() is None  # once
    preview.set_cloud(None, WHITE)
    assert preview.take() is None


def test_the_newest_request_wins(preview) -> None:
    preview.set_cloud(_cloud(20_000, torch.Generator().manual_seed(5)), WHITE)
    for number in range(200):
        preview.request(ViewRequest(_camera(), ks=(1,), number=number))
    assert _wait(preview, 199).request.number == 199
    assert preview.take() is None


def test_without_a_context_there_is_an_error_not_a_crash(window: object) -> None:
    from app.preview import Preview

    thread = Preview(None)
    thread.start()
    assert thread.ready.wait(20) and "OpenGL" in str(thread.error)
    thread.close()


def test_a_failure_is_a_sentence(window: object) -> None:
    from app.preview import Preview

    thread = Preview(window)
    thread.start()
    thread.set_cloud(_cloud(10, torch.Generator().manual_seed(6)), WHITE)
    thread.request(ViewRequest(_camera(1_000_000, 1), ks=(1,)))
    thread.join(20)
    assert thread.error is not None and "1000000x1" in thread.error
    assert not thread.is_alive() and thread.ready.is_set()
    thread.request(ViewRequest(_camera(), ks=(1,)))  # to no avail, but harmless
    assert thread.take() is None
    thread.close()


def test_points_in_batches_and_pictures_that_were_given_up(
    window: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import app.preview.thread as thread

    cloud = _cloud(3000, torch.Generator().manual_seed(5))
    drawn: list[int] = []

    class Batches(thread.Peeler):
        def __init__(self) -> None:
            super().__init__(batch=700)

        def _draw(self, layer: int, *args) -> bool:
            drawn.append(layer)
            if drawn == [0, 1]:  # in the middle of request 1
                preview.request(ViewRequest(camera, inspect=(4,), number=2))
            return super()._draw(layer, *args)

    monkeypatch.setattr(thread, "Peeler", Batches)
    preview = thread.Preview(window)
    preview.start()
    camera = _camera()
    preview.set_cloud(cloud, WHITE)
    preview.request(ViewRequest(camera, inspect=(4,), number=1))
    index = _wait(preview, 2).insides[4].kbuffer.index
    preview.close()
    assert drawn == [0, 1, 0, 1, 2, 3]
    expected = rasterize(cloud.xyz, camera, 4, mode="pixel").index
    assert (index == expected).float().mean() > 0.999
