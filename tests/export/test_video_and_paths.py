"""Videos of any size, frame budgets, camera path files, clouds without training."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch

from render.camera import Camera, orbit_path
from render.errors import UserError
from render.export.camera_path import CameraPath, load_camera_path, save_camera_path
from render.export.cloud import CloudRenderer, frame_cloud, point_radius
from render.export.video import RenderFrame, fit_budget, write_video
from render.scenes.background import Background
from render.scenes.bounds import bounds_of_points
from render.scenes.types import Bounds, PointCloud, Scene


def camera(width: int = 32, height: int = 24) -> Camera:
    return Camera.look_at((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), width=width, height=height)


@pytest.mark.parametrize(("height", "width"), [(24, 32), (25, 33)])
def test_video_plays_with_even_sizes(tmp_path: Path, height: int, width: int) -> None:
    frames = (torch.full((height, width, 3), i / 9) for i in range(10))
    path = tmp_path / "a.mp4"
    assert write_video(path, frames, 24) == 10
    read = iio.imread(path, plugin="FFMPEG")
    assert read.shape == (10, height + height % 2, width + width % 2, 3)
    assert abs(float(read[0].mean()) - 0) < 12 and abs(float(read[-1].mean()) - 255) < 12
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[torch.Tensor]:
        yield torch.zeros(16, 16, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames())
    assert list(tmp_path.iterdir()) == []


def test_budget_lowers_resolution_then_frames() -> None:
    cameras = orbit_path(camera(), torch.zeros(3), 20)

    def render(seconds: float) -> RenderFrame:
        def run(camera: Camera) -> torch.Tensor:
            time.sleep(seconds)
            return torch.zeros(camera.height, camera.width, 3)

        return run

    kept, stride = fit_budget(cameras, render(0.0), 1.0)
    assert stride == 1 and len(kept) == 20 and kept[0].width == 32
    kept, stride = fit_budget(cameras, render(0.02), 0.2)
    assert stride == 1 and len(kept) == 20 and 16 <= kept[0].width < 32
    kept, stride = fit_budget(cameras, render(0.02), 0.02)
    assert kept[0].width == 16 and stride >= 4 and len(kept) < 6


def test_camera_path_round_trip(tmp_path: Path) -> None:
    cameras = orbit_path(camera(), torch.zeros(3), 5)
    save_camera_path(tmp_path / "p.json", CameraPath(cameras, 30.0))
    read = load_camera_path(tmp_path / "p.json")
    assert read.fps == 30.0 and len(read.cameras) == 5
    assert torch.equal(read.cameras[3].world_to_camera, cameras[3].world_to_camera)


def test_nerfstudio_path_means_the_same_camera(tmp_path: Path) -> None:
    expected = camera()
    fov = 2 * math.degrees(math.atan(0.5 * expected.height / float(expected.focal[1])))
    entry = {"camera_to_world": expected.to_opengl().flatten().tolist(), "fov": fov, "aspect": 1}
    data = {"camera_path": [entry], "render_width": 32, "render_height": 24, "fps": 24}
    (tmp_path / "p.json").write_text(json.dumps(data))
    read = load_camera_path(tmp_path / "p.json").cameras[0]
    torch.testing.assert_close(read.world_to_camera, expected.world_to_camera)
    torch.testing.assert_close(read.K, expected.K)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cameras": []}',
        '{"cameras": 5}',
        '{"cameras": [{"K": 3}]}',
        '{"camera_path": [{"fov": 50}], "render_width": 4, "render_height": 4}',
        '{"camera_path": [{"camera_to_world": [1, 2], "fov": 5}], '
        '"render_width": 4, "render_height": 4}',
    ],
)
def test_bad_camera_paths_are_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"p\.json: expected a camera path"):
        load_camera_path(path)


def cloud_scene(rgb: torch.Tensor | None = None) -> Scene:
    n = 2000
    xyz = torch.nn.functional.normalize(
        torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 0.1, 10.0)
    return Scene("ball", [], {}, PointCloud(xyz, rgb), Background(), bounds)


@pytest.mark.parametrize(
    "changed",
    [
        {"fov": 0},
        {"fov": 180},
        {"camera_to_world": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 4, 0, 0, 0, 1]},  # mirrors
        {"camera_to_world": [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 4, 0, 0, 0, 1]},  # scales
    ],
)
def test_cameras_that_cannot_be_are_named(tmp_path: Path, changed: dict[str, object]) -> None:
    good = {"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 50}
    data = {"render_width": 8, "render_height": 6, "camera_path": [good, good]}
    (tmp_path / "p.json").write_text(json.dumps(data))
    assert len(load_camera_path(tmp_path / "p.json").cameras) == 2
    data["camera_path"] = [good, good | changed]
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="camera 1 that cannot be used"):
        load_camera_path(tmp_path / "p.json")
    data |= {"camera_path": [good], "camera_type": "fisheye"}
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="fisheye"):
        load_camera_path(tmp_path / "p.json")


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_clouds_of_a_few_points_are_seen_at_any_scale(scale: float, count: int) -> None:
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)[:count] * scale
    cloud = PointCloud(corners, None)
    scene = Scene("few", [], {}, cloud, Background(), bounds_of_points(corners))
    index = CloudRenderer(scene, 8).inspect(frame_cloud(scene, 160, 120)).kbuffer.index
    assert len(index.unique()) == count + 1  # every point, and none
    assert float((index[..., 0] >= 0).float().mean()) < 0.1 * count


def test_cloud_is_framed_and_rendered() -> None:
    scene = cloud_scene(torch.full((2000, 3), 0.25))
    renderer = CloudRenderer(scene, 4)
    view = frame_cloud(scene, 80, 60)
    uv, z = view.project(scene.points.xyz)  # pyright: ignore[reportOptionalMemberAccess]
    assert bool((z > 0).all())
    assert bool(((uv >= 0) & (uv <= torch.tensor([80.0, 60.0]))).all())
    picture = renderer.render(view, torch.ones(3))
    assert picture.alpha is not None and picture.depth is not None
    middle = picture.rgb[25:35, 35:45]
    assert float(middle.mean()) < 0.5  # the ball, not the background
    assert bool((picture.rgb[0, 0] == 1).all())
    inside = renderer.inspect(view, 2)
    assert inside.kbuffer.k == 2 and float(inside.weight.sum(-1).max()) <= 1 + 1e-5


def test_a_draft_shows_the_same_cloud_with_fewer_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("render.export.cloud.DRAFT_POINTS", 500)
    scene = cloud_scene(torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)))
    renderer = CloudRenderer(scene, 4)
    draft = renderer.draft()
    assert draft is renderer.draft() is draft.draft() and len(draft.xyz) == 500
    view = frame_cloud(scene, 80, 60)
    whole, part = renderer.render(view, torch.ones(3)), draft.render(view, torch.ones(3))
    assert whole.alpha is not None and part.alpha is not None
    assert float(part.alpha.mean()) == pytest.approx(float(whole.alpha.mean()), rel=0.15)
    inside = draft.inspect(view)
    valid = inside.kbuffer.valid
    ids = inside.kbuffer.index[valid].long()  # those of the whole cloud
    assert renderer.rgb is not None and int(ids.max()) > 500
    assert torch.equal(renderer.rgb[ids], inside.color[valid])
    monkeypatch.undo()
    few = CloudRenderer(scene, 4)
    assert few.draft() is few


def test_cloud_without_colours_is_coloured_by_height() -> None:
    renderer = CloudRenderer(cloud_scene(), 2)
    assert renderer.rgb is not None and renderer.rgb.std(0).min() > 0.05


@pytest.mark.parametrize("xyz", [torch.zeros(1, 3), torch.zeros(9, 3), torch.ones(3, 3)])
def test_radius_of_degenerate_clouds_is_positive(xyz: torch.Tensor) -> None:
    assert point_radius(xyz) > 0
