"""Every door of the program speaks the units of the scene's file, whatever the world inside is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from app import products
from app.drops import Drops
from app.export import export_gaussians
from app.messages import Messages
from app.options import Options
from app.pictures import Pictures
from app.screenshot import save_screenshot
from app.viewing import Viewing
from render.camera import Camera
from render.export.camera_path import CameraPath, save_camera_path
from render.export.splats import SplatRenderer
from render.export.styles import Style
from render.methods.base import Render
from render.scenes.background import Background
from render.scenes.clouds.pointcloud import read_point_cloud
from render.scenes.clouds.pointcloud import write_ply as write_points
from render.scenes.normalize import inverse, place_camera, place_cloud, place_points
from render.scenes.types import Bounds, PointCloud, Scene, View

TURN = torch.from_numpy(Rotation.from_rotvec([0.3, -2.0, 0.9]).as_matrix())
TO_FILE = torch.eye(4, dtype=torch.float64)
TO_FILE[:3, :3] = 350.0 * TURN
TO_FILE[:3, 3] = torch.tensor([7e3, -2e3, 40.0])
XYZ = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).clamp(-0.9, 0.9)
CAMERAS = [
    Camera.look_at((4.0, x, 1.0), (0.0, 0.0, 0.0), width=30, height=20) for x in (-1.0, 0.0, 1.0)
]


@pytest.fixture
def scene() -> Scene:
    """Normalised inside; its file has quite other units."""
    views = [View(camera, lambda: torch.zeros(20, 30, 4).byte(), "v") for camera in CAMERAS]
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 1.0, 6.0)
    splits: Any = {"train": [0, 1, 2], "val": [], "test": []}
    return Scene("s", views, splits, PointCloud(XYZ), Background(), bounds, to_file=TO_FILE)


def path_file(path: Path) -> Path:
    save_camera_path(path, CameraPath([place_camera(camera, TO_FILE) for camera in CAMERAS]))
    return path


def assert_same_pose(a: Camera, b: Camera) -> None:
    torch.testing.assert_close(a.world_to_camera, b.world_to_camera, atol=1e-9, rtol=0)


def drops_of(scene: Scene) -> tuple[Drops, Any]:
    shown: list[PointCloud] = []
    desk: Any = SimpleNamespace(messages=Messages(), scene=scene, coming=None)
    desk.viewing = Viewing(desk.messages)
    desk.pictures = Pictures(SimpleNamespace())  # pyright: ignore[reportArgumentType]
    desk.preview = SimpleNamespace(set_cloud=lambda cloud, *_: shown.append(cloud))
    desk.shown = shown
    return Drops(desk, lambda: None), desk


def test_a_camera_path_is_rendered_where_its_file_says(scene: Scene, tmp_path: Path) -> None:
    seen: list[Camera] = []

    def render(camera: Camera, background: Tensor) -> Render:
        seen.append(camera)
        return Render(torch.zeros(20, 30, 3), None, None)

    bench: Any = SimpleNamespace(scene=scene, renderer=SimpleNamespace(render=render))
    (tmp_path / "frames").mkdir()
    options = Options(render=path_file(tmp_path / "path.json"), video=tmp_path / "frames")
    products.path_video(SimpleNamespace(check=lambda: None), bench, options)  # pyright: ignore
    assert len(seen) == 3 and len(list((tmp_path / "frames").iterdir())) == 3
    for a, b in zip(seen, CAMERAS, strict=True):
        assert_same_pose(a, b)


def test_a_dropped_camera_path_flies_where_its_file_says(scene: Scene, tmp_path: Path) -> None:
    drops, desk = drops_of(scene)
    drops._read([path_file(tmp_path / "path.json")])
    drops.tick()
    desk.viewing.advance(0.0)
    here = desk.viewing.control.camera(30, 20)
    torch.testing.assert_close(here.position, CAMERAS[0].position)


def test_a_dropped_cloud_lies_where_its_file_says(scene: Scene, tmp_path: Path) -> None:
    write_points(tmp_path / "cloud.ply", PointCloud(place_points(XYZ, TO_FILE).float()))
    drops, desk = drops_of(scene)
    drops._read([tmp_path / "cloud.ply"])
    drops.tick()
    assert drops.card is not None and drops.card.alignment is not None
    assert drops.card.alignment.visible > 0.9
    torch.testing.assert_close(desk.shown[0].xyz, XYZ, atol=1e-4, rtol=0)


def test_the_camera_of_a_screenshot_is_in_the_units_of_the_file(
    scene: Scene, tmp_path: Path
) -> None:
    side = SimpleNamespace(describe=lambda: "picture")
    job = SimpleNamespace(
        look=SimpleNamespace(sides=[side], other=None, wipe=0.5),
        result=SimpleNamespace(request=SimpleNamespace(camera=CAMERAS[1], style=Style()), step=7),
    )
    shown = SimpleNamespace(job=job, picture=np.zeros((20, 30, 4), np.float32))
    desk: Any = SimpleNamespace(
        scene=scene, pictures=SimpleNamespace(shown=shown), messages=Messages(),
        snapshot=SimpleNamespace(folder=str(tmp_path)),
    )  # fmt: skip
    path = save_screenshot(desk)
    assert path is not None
    saved = Camera.from_json(json.loads(path.with_suffix(".json").read_text())["camera"])
    assert_same_pose(place_camera(saved, inverse(TO_FILE)), CAMERAS[1])
    assert not torch.allclose(saved.position, CAMERAS[1].position)


def test_exported_gaussians_come_back_to_the_same_place(scene: Scene, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    raw = {
        "f_dc": torch.randn(200, 3, generator=generator),
        "f_rest": torch.randn(200, 24, generator=generator),
        "opacity": torch.randn(200, 1, generator=generator),
        "scale": torch.randn(200, 3, generator=generator) - 3,
        "rotation": torch.nn.functional.normalize(torch.randn(200, 4, generator=generator), dim=1),
    }
    scene.points = PointCloud(XYZ, gaussians=raw)
    bench: Any = SimpleNamespace(scene=scene, renderer=SplatRenderer(scene, 4), method=None)
    export_gaussians(bench, tmp_path / "out.ply")
    found = read_point_cloud(tmp_path / "out.ply")
    there = found.file_xyz()
    torch.testing.assert_close(there, place_points(XYZ, TO_FILE), atol=2e-3, rtol=0)
    assert found.gaussians is not None
    grown = found.gaussians["scale"] - raw["scale"]
    torch.testing.assert_close(grown, torch.full_like(grown, np.log(350.0)))
    back = place_cloud(found, inverse(TO_FILE))
    torch.testing.assert_close(back.xyz, XYZ, atol=1e-5, rtol=0)
    assert back.gaussians is not None
    for name, values in raw.items():
        torch.testing.assert_close(back.gaussians[name], values, atol=1e-4, rtol=1e-4, msg=name)
