"""From a name or path to a whole scene: lookup, choice of points, bounds."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.camera import Camera
from render.errors import UserError
from render.scenes.bounds import bounds_of_cameras, bounds_of_points, up_of_cameras
from render.scenes.clouds.pointcloud import write_ply
from render.scenes.load import load_scene
from render.scenes.types import PointCloud, Scene
from tests.scenes.synthetic import BlenderFolder, MakeScene, cameras_around

XYZ = 0.7 * torch.nn.functional.normalize(
    torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1
)


def says(scene: Scene, *words: str) -> bool:
    return any(all(word in note for word in words) for note in scene.notes)


def drop_alpha(folder: BlenderFolder) -> None:
    for path in folder.path.glob("*/*.png"):
        Image.open(path).convert("RGB").save(path)


# ------------------------------------------------------------------ lookup
@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, so that ./data and ./NAME do not exist."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("KBUFFERS_DATA", raising=False)
    return folder


def test_order_of_the_lookup(
    make_scene: MakeScene, nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(parent: Path) -> Path:
        made = make_scene({"train": 2}, size=4, name=f"{parent.relative_to(tmp_path)}/ball")
        return made.path

    def where(**options: object) -> tuple[Path | None, str]:
        scene = load_scene("ball", needs_points=False, **options)  # pyright: ignore
        return scene.path and scene.path.resolve(), scene.notes[0]

    local = place(nowhere / "data" / "nerf_synthetic")
    assert where() == (local, f'Scene "ball": {Path("data/nerf_synthetic/ball")} (data/).')
    env = place(tmp_path / "second")
    monkeypatch.setenv("KBUFFERS_DATA", os.pathsep.join([str(tmp_path / "x"), str(env.parent)]))
    assert where()[0] == env and "$KBUFFERS_DATA" in where()[1]
    given = place(tmp_path / "root" / "nerf_synthetic")
    assert where(data_roots=[tmp_path / "root"])[0] == given
    assert "--data-root" in where(data_roots=[tmp_path / "root"])[1]
    direct = place(nowhere)
    assert where(data_roots=[tmp_path / "root"])[0] == direct


def test_a_folder_of_that_name_that_is_no_scene_is_passed_over(
    make_scene: MakeScene, nowhere: Path, tmp_path: Path
) -> None:
    (nowhere / "ball").mkdir()
    folder = make_scene({"train": 2}, size=4, name="root/ball")
    scene = load_scene("ball", data_roots=[tmp_path / "root"], needs_points=False)
    assert scene.path == folder.path
    with pytest.raises(UserError, match="an empty folder"):
        load_scene("ball")


def test_unknown_names(make_scene: MakeScene, nowhere: Path, tmp_path: Path) -> None:
    make_scene({"train": 2}, size=4, name="root/bulldozer")
    roots = [tmp_path / "root"]
    with pytest.raises(UserError) as caught:
        load_scene("buldozer", data_roots=roots)
    text = str(caught.value)
    assert "did you mean bulldozer" in text and str(tmp_path / "root") in text and "\n" not in text
    with pytest.raises(UserError, match=r"scenes that are there: .*bulldozer"):
        load_scene("xyzzy", data_roots=roots)
    with pytest.raises(UserError, match="beside it there is bulldozer"):
        load_scene(tmp_path / "root" / "bulldozr")
    (tmp_path / "root" / "link").symlink_to("gone")
    with pytest.raises(UserError, match="it is a link to gone"):
        load_scene(tmp_path / "root" / "link")


def test_image_that_is_listed_twice_is_not_trained_on_when_held_out(
    make_scene: MakeScene,
) -> None:
    folder = make_scene({"train": 4}, size=4)
    path = folder.path / "transforms_train.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"frames": data["frames"] * 2}))
    scene = load_scene(folder.path, needs_points=False)
    held = {view.path for view in scene.split("test")}
    assert held and not held & {view.path for view in scene.split("train")}


# ------------------------------------------------------------------ splits
def test_splits_that_every_format_has(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 10, "test": 3}, size=4).path

    def sizes(split: str) -> tuple[int, ...]:
        scene = load_scene(folder, needs_points=False, split=split)
        held, train = scene.split("test"), scene.split("train")
        assert not {view.path for view in held} & {view.path for view in train}
        return len(train), len(scene.split("val")), len(held)

    assert sizes("auto") == (10, 0, 3)
    assert sizes("every8") == (11, 0, 2)
    assert sizes("all") == (13, 0, 0)
    with pytest.raises(UserError, match=r"--split dtu9: expected one of auto, every8, all for"):
        load_scene(folder, split="dtu9")
    write_ply(folder / "cloud.ply", PointCloud(XYZ))
    with pytest.raises(UserError, match=r"--split all: .*cloud\.ply is a point cloud without"):
        load_scene(folder / "cloud.ply", split="all")
    first, again = (load_scene(folder, needs_points=False, split=s) for s in ("auto", "all"))
    assert first.recipe != again.recipe and first.fingerprint() != again.fingerprint()


# ------------------------------------------------------------------ which points
def test_hull_when_nothing_is_given(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 24})
    lines: list[str] = []
    scene = load_scene(folder.path, point_budget=3000, log=lines.append)
    assert scene.points is not None and scene.points.rgb is not None
    assert len(scene.points) == 3000 and scene.points.normals is not None
    assert says(scene, "visual hull of 21 training views", "3,000")
    assert lines == scene.notes
    assert 0.75 < scene.bounds.radius < 1.0


def test_hull_uses_training_views_only(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 16, "test": 4})
    before = load_scene(folder.path, point_budget=1000)
    for path in (folder.path / "test").iterdir():  # other pictures, other masks
        Image.new("RGBA", (32, 32), (0, 255, 0, 0)).save(path)
    after = load_scene(folder.path, point_budget=1000)
    assert before.points is not None and after.points is not None
    assert after.points.rgb is not None and before.points.rgb is not None
    torch.testing.assert_close(after.points.xyz, before.points.xyz, atol=0, rtol=0)
    torch.testing.assert_close(after.points.rgb, before.points.rgb, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["points.ply", "points3d.ply", "points3D.ply", "a_pointnerf.ply"])
def test_points_beside_the_scene(make_scene: MakeScene, name: str) -> None:
    folder = make_scene()
    write_ply(folder.path / name, PointCloud(XYZ, torch.full_like(XYZ, 0.25)))
    scene = load_scene(folder.path)
    assert scene.points is not None
    torch.testing.assert_close(scene.points.xyz, XYZ)
    assert says(scene, "Points: 300", name)


def test_points_on_the_command_line_win_and_get_colours(
    make_scene: MakeScene, tmp_path: Path
) -> None:
    folder = make_scene({"train": 24})
    write_ply(folder.path / "points.ply", PointCloud(torch.zeros(4, 3)))
    np.save(tmp_path / "mine.npy", XYZ.numpy())
    scene = load_scene(folder.path, points=tmp_path / "mine.npy", needs_points=False)
    assert scene.points is not None and scene.points.rgb is not None
    assert len(scene.points) == 300
    assert says(scene, "mine.npy has no colours")
    right = XYZ[:, 0] > 0.2
    assert float(scene.points.rgb[right].mean(0)[0]) > 0.6  # the sphere is red there
    assert float(scene.points.rgb[XYZ[:, 0] < -0.2].mean(0)[2]) > 0.5  # and blue there


def test_named_point_cloud(make_scene: MakeScene) -> None:
    folder = make_scene()
    write_ply(folder.path / "sparse_pc.ply", PointCloud(XYZ, XYZ.abs()))
    folder.rewrite("train", lambda d: d.update(ply_file_path="sparse_pc.ply"))
    assert says(load_scene(folder.path), "sparse_pc.ply")


def colmap_binary(path: Path, xyz: torch.Tensor) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(xyz)))
        for i, point in enumerate(xyz.tolist()):
            file.write(struct.pack("<Q3d3BdQ", i, *point, 255, 0, i % 256, 0.5, i % 4))
            file.write(struct.pack(f"<{2 * (i % 4)}I", *range(2 * (i % 4))))


def colmap_text(path: Path, xyz: torch.Tensor) -> None:
    rows = [f"{i} {x} {y} {z} 255 0 {i % 256} 0.5 1 2" for i, (x, y, z) in enumerate(xyz.tolist())]
    path.write_text("# 3D point list\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize(("name", "write"), [("bin", colmap_binary), ("txt", colmap_text)])
def test_colmap_points(
    make_scene: MakeScene, name: str, write: Callable[[Path, torch.Tensor], None]
) -> None:
    folder = make_scene()
    model = folder.path / "sparse" / "0"
    model.mkdir(parents=True)
    write(model / f"points3D.{name}", XYZ)
    scene = load_scene(folder.path)
    assert scene.points is not None and scene.points.rgb is not None
    torch.testing.assert_close(scene.points.xyz, XYZ)
    assert scene.points.rgb[7].tolist() == pytest.approx([1, 0, 7 / 255])
    path = model / f"points3D.{name}"
    path.write_bytes(path.read_bytes()[:-12] if name == "bin" else b"1 2 3\n")
    with pytest.raises(UserError, match=f"points3D.{name}"):
        load_scene(folder.path)


def test_points_of_another_world_are_not_used(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 16})
    write_ply(folder.path / "points.ply", PointCloud(XYZ + 500))
    scene = load_scene(folder.path, point_budget=500)
    assert says(scene, "another coordinate system")
    assert says(scene, "visual hull")


def test_random_points_without_masks(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 16})
    drop_alpha(folder)
    scene = load_scene(folder.path, point_budget=500)
    assert scene.points is not None and len(scene.points) == 500
    assert says(scene, "500 random ones in the bounds")
    true = bounds_of_cameras([view.camera for view in scene.split("train")])
    assert float((scene.points.xyz - true.center).norm(dim=1).max()) <= true.radius * 1.0001
    again = load_scene(folder.path, point_budget=500)
    other = load_scene(folder.path, point_budget=500, seed=1)
    assert again.fingerprint() == scene.fingerprint() != other.fingerprint()


def test_contradicting_masks_fall_back_to_random(make_scene: MakeScene) -> None:
    folder = make_scene({"train": 16})
    for i in range(0, 16, 2):
        path = folder.path / "train" / f"r_{i}.png"
        image = np.array(Image.open(path))
        image[..., 3] = 0
        image[:4, :4, 3] = 255
        Image.fromarray(image).save(path)
    scene = load_scene(folder.path, point_budget=500)
    assert says(scene, "hull is empty") and says(scene, "random")


def test_no_points_wanted(make_scene: MakeScene) -> None:
    scene = load_scene(make_scene().path, needs_points=False)
    assert scene.points is None
    assert all(view._pixels is None for view in scene.views)


def test_budget(make_scene: MakeScene) -> None:
    folder = make_scene()
    write_ply(folder.path / "points.ply", PointCloud(XYZ, XYZ.abs()))
    scene = load_scene(folder.path, point_budget=100)
    assert scene.points is not None and len(scene.points) == 100
    assert says(scene, "100 of the 300 points")
    assert len(load_scene(folder.path, point_budget=1000).points or ()) == 300


# ------------------------------------------------------------------ a cloud alone
def test_point_cloud_alone(tmp_path: Path) -> None:
    write_ply(tmp_path / "bust.ply", PointCloud(XYZ, XYZ.abs()))
    scene = load_scene(tmp_path / "bust.ply")
    assert scene.name == "bust" and scene.views == []
    assert scene.splits == {"train": [], "val": [], "test": []}
    assert scene.points is not None and len(scene.points) == 300
    assert 0.6 < scene.bounds.radius < 0.8
    assert says(scene, "300 points without photographs")
    (tmp_path / "bust.ply").write_bytes(b"ply\n")
    with pytest.raises(UserError, match=r"bust\.ply"):
        load_scene(tmp_path / "bust.ply")


# ------------------------------------------------------------------ bounds and up
def test_bounds_of_points_ignore_strays() -> None:
    strays = torch.tensor([[1e4, 0, 0], [0, -1e5, 3.0]])
    bounds = bounds_of_points(torch.cat([XYZ, strays]), cameras_around(5, 8))
    assert float(bounds.center.norm()) < 0.1 and 0.6 < bounds.radius < 1.0
    assert 2.9 < bounds.near < 3.4 and 4.6 < bounds.far < 5.1
    single = bounds_of_points(torch.tensor([[1.0, 2.0, 3.0]]))
    assert single.radius > 0 and 0 < single.near < single.far


def test_bounds_of_cameras() -> None:
    bounds = bounds_of_cameras(cameras_around(12, 32))
    assert float(bounds.center.norm()) < 1e-9
    assert bounds.radius == pytest.approx(4 * np.sin(0.35))  # what every image shows in full
    row = [Camera.look_at((x, 0, 5), (x, 0, 0), up=(0, 1, 0)) for x in (-1.0, 0.0, 1.0)]
    parallel = bounds_of_cameras(row)
    assert parallel.radius > 0 and float(parallel.center[2]) == pytest.approx(4)
    alone = bounds_of_cameras(row[:1])
    assert alone.radius > 0 and 0 < alone.near < alone.far


def test_up() -> None:
    level = [Camera.look_at((3, y, 1 + y), (0, 0, 0)) for y in (-1.0, 0.5, 1.0, 2.0)]
    assert up_of_cameras(level).tolist() == [0.0, 0.0, 1.0]
    tilted = torch.nn.functional.normalize(
        torch.tensor([0.3, 1.0, 0.2], dtype=torch.float64), dim=0
    )
    around = [
        Camera.look_at(eye, (0, 0, 0), up=tilted)
        for eye in ((3.0, 0.4, 0.0), (0.0, 0.5, 3.0), (-3.0, 1.0, 0.3), (1.0, -0.5, -3.0))
    ]
    torch.testing.assert_close(up_of_cameras(around), tilted, atol=1e-6, rtol=0)
    assert float(up_of_cameras(level[:1])[2]) > 0.9
    assert up_of_cameras([]).tolist() == [0.0, 0.0, 1.0]


# ------------------------------------------------------------------ real data
@pytest.mark.shared_data
def test_real_lego_hull(shared_data: Path) -> None:
    """The hull encloses the true object (170,000 points of its surface) and little else."""
    from scipy.spatial import KDTree

    from render.scenes.clouds.pointcloud import read_point_cloud

    scene = load_scene("lego", data_roots=[shared_data], downscale=8, point_budget=20_000)
    truth = read_point_cloud(shared_data / "pc" / "nerf" / "lego.ply").xyz[::20].numpy()
    assert scene.points is not None
    distance = KDTree(scene.points.xyz.numpy()).query(truth)[0]
    assert distance.mean() < 0.035 and np.quantile(distance, 0.99) < 0.09
    assert says(scene, "visual hull of 74 training views")


@pytest.mark.shared_data
def test_real_colmap_points(shared_data: Path) -> None:
    from render.scenes.formats.colmap_points import find_colmap_points, read_colmap_points

    path = find_colmap_points(shared_data / "colmap" / "plush")
    assert path is not None
    assert len(read_colmap_points(path)) == 32_376
    assert json.dumps(str(path)).endswith('points3D.bin"')
