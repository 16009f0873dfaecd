"""transforms.json of nerfstudio and instant-ngp: lenses, masks, points, lists, odd names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from render.camera import Camera
from render.scenes.formats.blender import is_blender, read_blender
from render.scenes.load import load_scene
from render.scenes.normalize import place_points
from render.scenes.photos.lens_models import Lens
from tests.scenes.multiview import sentence
from tests.scenes.synthetic import cameras_around, render_sphere

SIZE = 48
FOCAL = 60.0
# What ns-process-data applies: x, z, -y.
APPLIED = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("render.scenes.photos.disk_cache.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def fox(tmp_path: Path) -> Path:
    """Nine photographs of a ball with intrinsics in pixels, as nerfstudio writes them."""
    folder = tmp_path / "fox"
    (folder / "images").mkdir(parents=True)
    frames = []
    for i, camera in enumerate(cameras_around(9, SIZE)):
        name = f"images/frame_{i:05}.png"
        Image.fromarray(np.asarray(render_sphere(camera))).convert("RGB").save(folder / name)
        frames.append({"file_path": name, "transform_matrix": camera.to_opengl().tolist()})
    data = {
        "camera_model": "OPENCV",
        **{"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE / 2, "cy": SIZE / 2, "w": SIZE, "h": SIZE},
        "frames": frames,
    }
    (folder / "transforms.json").write_text(json.dumps(data))
    return folder


def change(folder: Path, **entries: Any) -> dict[str, Any]:
    """Set entries of the json; returns what it holds."""
    file = folder / "transforms.json"
    data = json.loads(file.read_text())
    data.update(entries)
    file.write_text(json.dumps(data))
    return data


def change_frame(folder: Path, number: int, **entries: Any) -> None:
    """Set entries of one frame."""
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    frames[number].update(entries)
    change(folder, frames=frames)


def write_ply(path: Path, points: torch.Tensor) -> None:
    header = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_text(header + "".join(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in points.tolist()))


def ball(count: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.8 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


# ------------------------------------------------------------------ lenses
def distorted_photograph(camera: Camera, lens: Lens) -> np.ndarray:
    """uint8 [H, W, 3] of a white ball through a lens, four rays a pixel."""
    offset = torch.tensor([0.25, 0.75]).double()
    axis = (torch.arange(SIZE)[:, None] + offset).flatten()  # [2 SIZE]
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([u, v], -1).reshape(-1, 2)
    xy = torch.from_numpy(lens.undistort(((pixels - camera.center) / camera.focal).numpy()))
    rays = torch.cat([xy, torch.ones(len(xy), 1)], 1) @ camera.camera_to_world[:3, :3].T
    rays = torch.nn.functional.normalize(rays, dim=1)
    closest = torch.linalg.cross(camera.position.expand_as(rays), rays).norm(dim=1)
    hit = (closest < 0.8).double().view(SIZE, 2, SIZE, 2).mean((1, 3))
    return (hit * 255).round().to(torch.uint8)[..., None].expand(-1, -1, 3).numpy()


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("OPENCV", {"k1": -0.15, "k2": 0.03, "p1": 0.004, "p2": -0.003}),
        ("OPENCV_FISHEYE", {"k1": 0.05, "k2": -0.01, "k3": 0.0, "k4": 0.0}),
        ("SIMPLE_RADIAL", {"k1": 0.1}),
    ],
)
def test_lenses_are_undone(fox: Path, model: str, distortion: dict[str, float]) -> None:
    change(fox, camera_model=model, **distortion)
    lens = Lens.from_opencv(distortion, fisheye=model.endswith("FISHEYE"))
    assert lens is not None
    for view in read_blender(fox).views:
        K = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
        through = Camera(view.camera.world_to_camera, K, SIZE, SIZE)
        assert view.path is not None
        Image.fromarray(distorted_photograph(through, lens)).save(view.path)
    photos = read_blender(fox)
    assert any("9 photographs are undistorted" in note for note in photos.notes)
    for view in photos.views[::4]:
        expected = render_sphere(view.camera.resize(8 * SIZE, 8 * SIZE))[..., 3].float() / 255
        expected = expected.view(SIZE, 8, SIZE, 8).mean((1, 3))
        difference = (view.rgba()[0][..., 0] - expected).abs()
        assert difference.mean() < 0.01 and difference.max() < 0.5


def test_a_pinhole_with_zeros_stays_as_it_is(fox: Path) -> None:
    before = read_blender(fox)
    change(fox, camera_model="PINHOLE", k1=0.0, k2=0, p1=0.0, p2=0.0, is_fisheye=False)
    after = read_blender(fox)
    assert after.notes == before.notes == []
    torch.testing.assert_close(after.views[0].camera.K, before.views[0].camera.K)


def test_lens_and_intrinsics_per_frame(fox: Path) -> None:
    change_frame(fox, 2, k1=0.1, fl_x=70.0, camera_model="opencv")
    change_frame(fox, 3, camera_angle_x=0.8)
    photos = read_blender(fox)
    assert any("1 photographs are undistorted" in note for note in photos.notes)
    assert float(photos.views[2].camera.focal[0]) > 65
    assert float(photos.views[3].camera.focal[0]) == pytest.approx(24 / np.tan(0.4))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({"camera_model": 7}, "expected one of PINHOLE"),
        ({"k1": "much"}, 'finite number for "k1"'),
        ({"k1": float("nan")}, 'finite number for "k1"'),
        ({"k1": 1e7}, "k1 ... p2"),
        ({"k1": 0.1, "cx": -500.0}, "no pinhole camera fits"),
        ({"fl_x": 10**400}, 'finite number for "fl_x"'),
        ({"fl_x": True}, 'finite number for "fl_x"'),
        ({"w": 1e300}, 'finite number for "w"'),
        ({"h": 0}, "positive number"),
    ],
)
def test_cameras_that_are_none(fox: Path, entries: dict[str, Any], expected: str) -> None:
    change(fox, **entries)
    text = sentence(lambda: read_blender(fox))
    assert "transforms.json" in text and expected in text


# ------------------------------------------------------------------ masks and depths
@pytest.mark.parametrize("k1", [0.0, 0.05])
def test_masks(fox: Path, k1: float) -> None:
    (fox / "masks").mkdir()
    half = np.zeros((SIZE, SIZE), np.uint8)
    half[:, : SIZE // 2] = 255
    Image.fromarray(half).save(fox / "masks" / "left.PNG")
    change(fox, k1=k1)
    change_frame(fox, 1, mask_path="masks/left.png", depth_file_path="depth/1.png")
    change_frame(fox, 2, mask_path="masks/none.png")
    photos = read_blender(fox, 2.0)
    ignored = photos.views[1].left_out()
    assert ignored is not None and ignored.shape == (24, 24)
    assert not ignored[:, :11].any() and bool(ignored[:, 13:].all())
    assert photos.views[0].left_out() is None and photos.views[2].left_out() is None
    notes = " ".join(photos.notes)
    assert "masks of 1 frames" in notes and "1 masks do not exist" in notes
    assert "depth maps of 1 frames are not used" in notes
    assert "masks/left.PNG for masks/left.png" in notes


@pytest.mark.parametrize("k1", [0.0, 0.05])
def test_a_mask_that_leaves_nothing(fox: Path, k1: float) -> None:
    Image.new("L", (SIZE, SIZE)).save(fox / "black.png")
    change(fox, k1=k1)
    change_frame(fox, 1, mask_path="black.png")
    view = read_blender(fox).views[1]
    assert "black.png" in sentence(view.left_out)


# ------------------------------------------------------------------ points and their frame
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_points_that_went_through_applied_transform(fox: Path, scale: float) -> None:
    change(fox, ply_file_path="sparse_pc.ply", applied_transform=APPLIED, applied_scale=scale)
    write_ply(fox / "sparse_pc.ply", ball() / scale)  # the transform is in, the scale is not
    scene = load_scene(fox)
    assert scene.points is not None
    torch.testing.assert_close(scene.points.xyz[: len(ball())], ball(), atol=1e-5, rtol=0)
    before = place_points(ball(), scene.to_file)
    x, y, z = (ball().double() / scale).unbind(1)
    torch.testing.assert_close(before, torch.stack([x, -z, y], 1), atol=1e-9, rtol=0)


def test_points_of_the_world_before_are_recognised(fox: Path) -> None:
    applied = [[*row[:3], shift] for row, shift in zip(APPLIED, (9.0, -7.0, 8.0), strict=True)]
    change(fox, ply_file_path="dense.ply", applied_transform=applied)
    x, y, z = (ball() - torch.tensor([9.0, -7.0, 8.0])).unbind(1)
    write_ply(fox / "dense.ply", torch.stack([x, -z, y], 1))
    scene = load_scene(fox)
    assert scene.points is not None and "dense.ply" in scene.points.source
    torch.testing.assert_close(scene.points.xyz[: len(ball())], ball(), atol=1e-4, rtol=0)


def test_old_nerfstudio_scenes_beside_their_colmap_model(fox: Path) -> None:
    model = fox / "colmap" / "sparse" / "0"
    model.mkdir(parents=True)
    saved = ball() + torch.tensor([0.0, 0.0, 0.1])
    x, y, z = saved.unbind(1)  # saved = (y, x, -z) of COLMAP's world
    rows = torch.stack([y, x, -z], 1).tolist()
    lines = [f"{i} {a:.6f} {b:.6f} {c:.6f} 200 10 10 0.5" for i, (a, b, c) in enumerate(rows)]
    (model / "points3D.txt").write_text("\n".join(lines) + "\n")
    scene = load_scene(fox)
    assert scene.points is not None
    torch.testing.assert_close(scene.points.xyz[: len(saved)], saved, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "entries",
    [
        {"applied_transform": [[1, 2], [3, 4]]},
        {"applied_transform": [[0, 0, 0, 0]] * 3},
        {"applied_transform": "none"},
        {"applied_transform": [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]},
        {"applied_transform": APPLIED, "applied_scale": 0},
        {"applied_scale": "x"},
        {"applied_scale": float("inf")},
    ],
)
def test_transforms_that_are_none(fox: Path, entries: dict[str, Any]) -> None:
    change(fox, **entries)
    assert "applied_transform" in sentence(lambda: read_blender(fox))


def test_a_cloud_that_is_not_there(fox: Path) -> None:
    change(fox, ply_file_path="gone.ply")
    assert "ply_file_path: gone.ply does not exist." in read_blender(fox).notes
    write_ply(fox.parent.parent / "far.ply", ball(3))
    change(fox, ply_file_path="../../far.ply")
    assert any("outside of the scene" in note for note in read_blender(fox).notes)


# ------------------------------------------------------------------ splits and names
def test_listed_splits(fox: Path) -> None:
    names = [frame["file_path"] for frame in change(fox)["frames"]]
    change(fox, train_filenames=names[:5], val_filenames=names[5:6], test_filenames=names[6:])
    photos = read_blender(fox)
    assert photos.splits == {"train": [0, 1, 2, 3, 4], "val": [5], "test": [6, 7, 8]}
    change(fox, train_filenames=["./" + names[3], "images/gone.png", "gone too"])
    photos = read_blender(fox)
    assert photos.splits["train"] == [3]
    assert any("2 names in its lists" in note for note in photos.notes)
    change(fox, train_filenames=None, val_filenames=None, test_filenames=names[:1])
    assert read_blender(fox).splits == {"train": list(range(1, 9)), "test": [0]}
    change(fox, train_filenames=names[:4], test_filenames=None)
    assert read_blender(fox).splits == {"train": [0, 1, 2, 3], "test": [4, 5, 6, 7, 8]}


@pytest.mark.parametrize("value", ["images/frame_00000.png", [1, 2], {"a": 1}])
def test_lists_that_are_none(fox: Path, value: object) -> None:
    change(fox, train_filenames=value)
    assert '"train_filenames"' in sentence(lambda: read_blender(fox))


def test_lists_that_leave_nothing(fox: Path) -> None:
    change(fox, train_filenames=["gone.png"])
    assert "names none of the 9 images" in sentence(lambda: read_blender(fox))


def test_bent_names_are_counted(fox: Path) -> None:
    for image in (fox / "images").iterdir():
        image.rename(image.with_suffix(".PNG"))
    change_frame(fox, 0, file_path="C:\\captures\\fox\\images\\frame_00000.jpg")
    photos = read_blender(fox)
    assert len(photos.views) == 9
    assert any("9 files found under another name" in note for note in photos.notes)


def test_names_that_lead_outside(fox: Path) -> None:
    (fox.parent.parent / "far.png").write_bytes(b"x")
    change_frame(fox, 0, file_path="../../far.png")
    text = sentence(lambda: read_blender(fox))
    (fox.parent.parent / "far.png").unlink()
    assert "outside of the scene" in text


def test_a_missing_letter_in_the_name(fox: Path) -> None:
    (fox / "transforms.json").rename(fox / "transform.json")
    assert is_blender(fox)
    photos = read_blender(fox)
    assert "transform.json is read as transforms.json." in photos.notes


def test_settings_of_the_grid_are_said_to_be_unused(fox: Path) -> None:
    change(fox, aabb_scale=16, offset=[0.5, 0.5, 0.5])
    assert any(note.startswith("aabb_scale, offset: not used") for note in read_blender(fox).notes)


def test_json_of_absurd_size(fox: Path) -> None:
    with (fox / "transforms.json").open("r+b") as file:
        file.truncate(200 << 20)
    assert "200 MB" in sentence(lambda: read_blender(fox))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"frames": ' + "9" * 5000 + "}", '{"frames": 3}'])
def test_odd_json(fox: Path, text: str) -> None:
    (fox / "transforms.json").write_text(text)
    assert "transforms.json" in sentence(lambda: read_blender(fox))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["transforms.json", "transforms_upstream_1080x1920.json"])
def test_real_fox(shared_data: Path, name: str) -> None:
    scene = load_scene(shared_data / "instant-ngp" / "fox" / name, downscale=4)
    assert len(scene.views) == 50 and scene.points is not None
    assert "points3d.ply" in scene.points.source
    view = scene.views[0]
    assert view.pixels().shape == (240, 135, 4)
    # The barrel of k1 > 0 is undone: a little is cut off, so the focal length grows.
    assert 1 < float(view.camera.focal[0]) / (687.76 / 4) < 1.05
