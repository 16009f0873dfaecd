"""COLMAP scenes: both formats, every camera model, every quirk, and one sentence per failure."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.scenes.formats.colmap import is_colmap, read_colmap
from render.scenes.formats.colmap_model import MODELS, read_cameras, read_images
from render.scenes.formats.colmap_points import read_colmap_points
from render.scenes.load import load_scene
from render.scenes.photos.lens_models import DISTORTION
from tests.scenes.colmap_files import ColmapScene, colmap_scene, points_bytes
from tests.scenes.multiview import SIZE, sentence


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUFFERS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def colmap(tmp_path: Path) -> ColmapScene:
    """Nine photographs; the model is still to be written."""
    return colmap_scene(tmp_path / "ball")


def error_of(path: Path, split: str = "auto") -> str:
    return sentence(lambda: load_scene(path, split=split))


# ------------------------------------------------------------------ what it reads
@pytest.mark.parametrize("text", [False, True])
def test_cameras_images_and_points(colmap: ColmapScene, text: bool) -> None:
    colmap.write(text=text)
    scene = load_scene(colmap.path)
    assert [view.name for view in scene.views] == [f"shot_{i:02}" for i in range(9)]
    for view in scene.views:
        assert view.path is not None
        true = colmap.true[view.path.name]
        torch.testing.assert_close(
            view.camera.world_to_camera, true.world_to_camera, atol=1e-9, rtol=0
        )
        torch.testing.assert_close(view.camera.K, true.K, atol=1e-9, rtol=0)
        assert tuple(view.pixels().shape) == (SIZE, SIZE, 4)
    assert [view.name for view in scene.split("test")] == ["shot_00", "shot_08"]
    assert scene.points is not None and scene.points.rgb is not None
    assert "Points: 5 from" in "".join(scene.notes) and len(scene.points) > 5  # and around them
    torch.testing.assert_close(scene.points.xyz[0], torch.tensor([0.3, 0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        scene.points.rgb[0], torch.tensor([10.0, 20, 30]) / 255, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    "model",
    ["sparse/0", "sparse", "dense/0/sparse", "dense/sparse", "colmap/sparse/0", "colmap", "."],
)
def test_places(colmap: ColmapScene, model: str) -> None:
    folder = colmap.write(model, text=model == ".")
    assert is_colmap(colmap.path)
    by_scene = load_scene(colmap.path)
    assert by_scene.name == "ball"
    opened = [folder, folder / next(folder.glob("images.*")).name, folder / "points3D.txt"]
    for path in opened if model == "." else opened[:2]:
        scene = load_scene(path)
        assert scene.fingerprint() == by_scene.fingerprint() and scene.name == "ball"


def test_photographs_beside_a_text_export(colmap: ColmapScene) -> None:
    colmap.write(".", text=True)
    for photo in (colmap.path / "images").iterdir():
        photo.rename(colmap.path / photo.name)
    (colmap.path / "images").rmdir()
    assert len(load_scene(colmap.path).views) == 9


def test_the_folder_of_photographs_leads_to_the_scene(colmap: ColmapScene) -> None:
    colmap.write()
    assert len(load_scene(colmap.path / "images").views) == 9
    assert not is_colmap(colmap.path / "sparse" / "1") and not is_colmap(colmap.path.parent)


def test_the_largest_of_several_models(colmap: ColmapScene) -> None:
    every = colmap.images
    for number, count in ((0, 2), (1, 7), (2, 3)):
        colmap.images = every[:count]
        colmap.write(f"sparse/{number}")
    (colmap.path / "sparse" / "2" / "images.bin").write_bytes(b"\xff" * 20)
    scene = load_scene(colmap.path)
    assert len(scene.views) == 7
    assert any("0 with 2 images, 1 with 7 images" in note for note in scene.notes)
    assert any("1 could not be read" in note and "1 is read" in note for note in scene.notes)


def test_a_model_without_photographs_is_passed_over(colmap: ColmapScene) -> None:
    colmap.write("sparse/0")
    colmap.write("dense/0/sparse")
    shutil.move(colmap.path / "images", colmap.path / "dense/0/images")
    scene = load_scene(colmap.path)
    assert len(scene.views) == 9
    assert any(note.startswith("Passed over:") for note in scene.notes)
    assert "none of the 9 photographs" in error_of(colmap.path / "sparse/0")


def test_rigs_and_frames_do_not_matter(colmap: ColmapScene) -> None:
    folder = colmap.write()
    before = load_scene(colmap.path).fingerprint()
    (folder / "rigs.bin").write_bytes(b"\x01")
    (folder / "frames.bin").write_bytes(b"")
    assert load_scene(colmap.path).fingerprint() == before
    assert is_colmap(folder / "frames.bin")


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", [m for m in MODELS if m != "EQUIRECTANGULAR"])
def test_every_camera_model(colmap: ColmapScene, model: str, text: bool) -> None:
    _, _, _, (fx, fy, cx, cy) = colmap.cameras[1]
    straight = {"EUCM": (0.5, 1.0), "FOV": (0.3,)}
    extra = straight.get(model, tuple(0.001 * (i + 1) for i in range(len(DISTORTION[model]))))
    one_focal = model.startswith(("SIMPLE", "RADIAL"))
    params = (fx, cx, cy, *extra) if one_focal else (fx, fy, cx, cy, *extra)
    colmap.cameras[1] = (model, SIZE, SIZE, params)
    camera = read_cameras(colmap.write(text=text))[1]
    torch.testing.assert_close(camera.K, next(iter(colmap.true.values())).K)
    assert (camera.lens is None) == model.endswith("PINHOLE")
    scene = load_scene(colmap.path)
    assert any("undistorted" in note for note in scene.notes) == (camera.lens is not None)
    if camera.lens is not None:
        assert camera.lens.params == extra
        assert tuple(scene.views[0].pixels().shape) == (SIZE, SIZE, 4)


def test_cameras_fit_the_photographs_that_are_there(colmap: ColmapScene) -> None:
    colmap.cameras[1] = ("PINHOLE", 3201, 3199, (4383.0, 4383.0, 1600.5, 1599.5))
    colmap.write()
    scene = load_scene(colmap.path)
    K = scene.views[0].camera.K
    torch.testing.assert_close(K[0, 0], torch.tensor(4383.0 * SIZE / 3201, dtype=torch.float64))
    torch.testing.assert_close(K[1, 2], torch.tensor(SIZE / 2, dtype=torch.float64))
    assert any("3201x3199 to 32x32, 9 times" in note for note in scene.notes)


def test_folders_of_shrunk_photographs(colmap: ColmapScene) -> None:
    colmap.write()
    small = colmap.path / "images_4"
    small.mkdir()
    for name in colmap.true:
        Image.new("RGB", (8, 8), (7, 7, 7)).save(small / f"{Path(name).stem}.JPG")
    by_four = load_scene(colmap.path, downscale=4)
    assert by_four.views[0].camera.width == 8 and int(by_four.views[0].pixels()[0, 0, 0]) == 7
    assert any("images_4, made beforehand" in note for note in by_four.notes)
    by_two = load_scene(colmap.path, downscale=2)  # no images_2: scaled on the fly
    assert by_two.views[0].camera.width == 16
    assert int(by_two.views[0].pixels().float().std()) > 20
    shutil.rmtree(colmap.path / "images")
    for downscale, width in ((1, 8), (8, 4)):
        scene = load_scene(colmap.path, downscale=downscale)
        assert scene.views[0].camera.width == width
        assert any("the full ones are not there" in note for note in scene.notes)


def test_folders_in_names_and_other_suffixes(colmap: ColmapScene) -> None:
    (colmap.path / "images" / "left").mkdir()
    renamed = []
    for name, *rest in colmap.images:
        (colmap.path / "images" / name).rename(colmap.path / "images" / "left" / name)
        renamed.append((f"left/{Path(name).stem}.JPG", *rest))
    colmap.images = renamed
    colmap.write()
    scene = load_scene(colmap.path)
    assert scene.views[3].name == "left_shot_03" and len(scene.views) == 9
    assert any("9 files found under another name" in note for note in scene.notes)


@pytest.mark.parametrize("name", ["shot_03.png.png", "shot_03.png"])
def test_masks_are_ignored_pixels(colmap: ColmapScene, name: str) -> None:
    colmap.write()
    (colmap.path / "masks").mkdir()
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    mask[:, :5] = 0
    Image.fromarray(mask).save(colmap.path / "masks" / name)
    scene = load_scene(colmap.path)
    masked = [view for view in scene.views if view.ignored is not None]
    assert [view.name for view in masked] == ["shot_03"] and not masked[0].has_alpha
    assert masked[0].ignored is not None
    torch.testing.assert_close(masked[0].ignored(), torch.from_numpy(mask == 0))
    assert any("1 of 9 photographs have masks" in note for note in scene.notes)


@pytest.mark.parametrize("place", [".", "sparse/0"])
@pytest.mark.parametrize(
    ("files", "train", "test", "said"),
    [
        ({"test.txt": "shot_03.png\nshot_04\n"}, 7, [3, 4], "7 train"),
        (
            {"train_list.txt": "images/shot_01.png\nshot_02.png"},
            2,
            [0, 3, 4, 5, 6, 7, 8],
            "2 train",
        ),
        ({"train.txt": "shot_01\nshot_02", "test.txt": "shot_02\nshot_05"}, 1, [2, 5], "6 images"),
        ({"test.txt": "another.png\n"}, 7, [0, 8], "every 8th"),
    ],
)
def test_lists_of_splits(
    colmap: ColmapScene, place: str, files: dict[str, str], train: int, test: list[int], said: str
) -> None:
    colmap.write()
    for name, text in files.items():
        (colmap.path / place / name).write_text(text)
    scene = load_scene(colmap.path)
    assert len(scene.split("train")) == train
    assert scene.splits["test"] == test
    assert any(said in note for note in scene.notes)


def test_unknown_protocols_are_refused(colmap: ColmapScene) -> None:
    colmap.write()
    assert len(load_scene(colmap.path, split="all").split("train")) == 9
    assert "--split mine" in error_of(colmap.path, split="mine")


def test_a_transforms_json_comes_first_and_it_is_said(colmap: ColmapScene) -> None:
    colmap.write()
    frame = '{"file_path": "images/shot_00.png", "transform_matrix": %s}'
    pose = colmap.true["shot_00.png"].to_opengl().tolist()
    text = f'{{"camera_angle_x": 0.7, "frames": [{frame % pose}]}}'
    (colmap.path / "transforms.json").write_text(text)
    scene = load_scene(colmap.path)
    assert len(scene.views) == 1
    assert any("it is COLMAP too" in note for note in scene.notes)
    assert len(load_scene(colmap.path / "sparse/0").views) == 9


# ------------------------------------------------------------------ what is left out
def test_missing_photographs_are_counted(colmap: ColmapScene) -> None:
    colmap.write()
    for number in (0, 5):
        (colmap.path / "images" / f"shot_{number:02}.png").unlink()
    scene = load_scene(colmap.path)
    assert len(scene.views) == 7
    assert any("2 of 9 images skipped" in note and "shot_00" in note for note in scene.notes)


def test_bad_poses_and_repeated_names_are_dropped(colmap: ColmapScene) -> None:
    name, quaternion, translation, _ = colmap.images[0]
    colmap.images[1] = (colmap.images[1][0], (0, 0, 0, 0), translation, 1)
    colmap.images[2] = (colmap.images[2][0], quaternion, (np.nan, 0, 0), 1)
    colmap.images[3] = (colmap.images[3][0], (np.inf, 0, 0, 0), translation, 1)
    colmap.images[4] = (colmap.images[4][0], quaternion, (0, 1e300, 0), 1)
    colmap.images[5] = (name, quaternion, translation, 1)
    colmap.images[6] = (
        colmap.images[6][0],
        [3 * q for q in colmap.images[6][1]],
        *colmap.images[6][2:],
    )
    colmap.write()
    scene = load_scene(colmap.path)
    assert len(scene.views) == 4
    text = "\n".join(scene.notes)
    assert "4 of 9 images dropped: their poses are not finite" in text
    assert "1 images dropped because the model lists their names twice" in text
    tripled = next(v for v in scene.views if v.path and v.path.name == colmap.images[6][0])
    torch.testing.assert_close(
        tripled.camera.world_to_camera, colmap.true[colmap.images[6][0]].world_to_camera
    )


def test_photographs_of_another_shape_are_skipped(colmap: ColmapScene) -> None:
    colmap.write()
    Image.new("RGB", (SIZE, 2 * SIZE)).save(colmap.path / "images" / "shot_02.png")
    scene = load_scene(colmap.path)
    assert len(scene.views) == 8
    assert any(
        "1 of 9 images skipped" in n and "32x64 but its camera 32x32" in n for n in scene.notes
    )
    for name in colmap.true:
        Image.new("RGB", (SIZE, 2 * SIZE)).save(colmap.path / "images" / name)
    assert "another shape" in error_of(colmap.path)


# ------------------------------------------------------------------ failures
def damage_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[ColmapScene], None]:
    def damage(scene: ColmapScene) -> None:
        file = scene.write(text=name.endswith("txt")) / name
        file.write_bytes(change(file.read_bytes()))

    return damage


def put(at: int, form: str, value: float) -> Callable[[bytes], bytes]:
    data = struct.pack(form, value)
    return lambda old: old[:at] + data + old[at + len(data) :]


FAILURES = {
    "cameras empty": (damage_file("cameras.bin", lambda d: b""), "expected a count"),
    "cameras none": (damage_file("cameras.bin", lambda d: bytes(8)), "at least one camera"),
    "cameras cut": (damage_file("cameras.bin", lambda d: d[:-9]), "cut off"),
    "cameras cut early": (damage_file("cameras.bin", lambda d: d[:20]), "cut off"),
    "cameras huge count": (damage_file("cameras.bin", put(0, "<Q", 2**63)), "cut off"),
    "camera model": (damage_file("cameras.bin", put(12, "<i", 99)), 'unknown model "99"'),
    "camera panorama": (damage_file("cameras.bin", put(12, "<i", 17)), "panorama"),
    "camera size": (damage_file("cameras.bin", put(16, "<Q", 2**60)), "size in pixels"),
    "camera size zero": (damage_file("cameras.bin", put(24, "<Q", 0)), "size in pixels"),
    "camera focal": (damage_file("cameras.bin", put(32, "<d", np.nan)), "focal"),
    "camera focal negative": (damage_file("cameras.bin", put(32, "<d", -5)), "focal"),
    "camera centre": (damage_file("cameras.bin", put(48, "<d", np.inf)), "centre"),
    "images none": (damage_file("images.bin", lambda d: bytes(8)), "at least one registered"),
    "images cut": (damage_file("images.bin", lambda d: d[:-3]), "cut off"),
    "images huge count": (damage_file("images.bin", put(0, "<Q", 2**62)), "cut off"),
    "images endless name": (
        damage_file("images.bin", lambda d: d[:72] + b"a" * 9000),
        "cut off",
    ),
    "images many observations": (
        damage_file("images.bin", put(72 + 12, "<Q", 2**64 - 1)),
        "cut off",
    ),
    "images other camera": (damage_file("images.bin", put(68, "<I", 7)), "camera 7"),
    "points cut": (damage_file("points3D.bin", lambda d: d[:-3]), "cut off"),
    "points none": (damage_file("points3D.bin", lambda d: bytes(8)), "zero points"),
    "points huge count": (damage_file("points3D.bin", put(0, "<Q", 2**61)), "cut off"),
    "points long track": (damage_file("points3D.bin", put(51, "<Q", 2**62)), "cut off"),
    "text camera words": (damage_file("cameras.txt", lambda d: b"1 PINHOLE x 5\n"), "line 1"),
    "text camera model": (damage_file("cameras.txt", lambda d: b"1 ODD 5 5 1\n"), "unknown model"),
    "text camera params": (
        damage_file("cameras.txt", lambda d: b"1 PINHOLE 5 5 1\n"),
        "expected 4",
    ),
    "text camera digits": (
        damage_file("cameras.txt", lambda d: b"1 PINHOLE " + b"9" * 5000 + b" 5 1 1 1 1\n"),
        "line 1",
    ),
    "text camera lens": (
        damage_file("cameras.txt", lambda d: b"1 SIMPLE_RADIAL 32 32 40 16 16 nan\n"),
        "no sensible number",
    ),
    "text images words": (damage_file("images.txt", lambda d: b"1 2 3\n"), "line 1"),
    "text images binary": (damage_file("images.txt", lambda d: b"\0" * 99), "binary"),
    "text images empty": (damage_file("images.txt", lambda d: b"# nothing\n"), "at least one"),
    "text points": (damage_file("points3D.txt", lambda d: b"1 2 three\n"), "line 1"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_broken_files_are_a_error_of(colmap: ColmapScene, case: str) -> None:
    damage, expected = FAILURES[case]
    damage(colmap)
    assert expected in error_of(colmap.path)


def test_a_model_without_images_file(colmap: ColmapScene) -> None:
    (colmap.write() / "images.bin").unlink()
    assert "found no images.bin and no images.txt" in error_of(colmap.path)


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "..\\secret.png"])
def test_names_that_leave_the_folder_are_refused(colmap: ColmapScene, name: str) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(colmap.path / "secret.png")
    colmap.images[4] = (name, *colmap.images[4][1:])
    colmap.write()
    assert "leads out of the folder" in error_of(colmap.path)


def test_absolute_names_outside_of_the_scene_are_refused(
    colmap: ColmapScene, tmp_path: Path
) -> None:
    secret = tmp_path / "elsewhere" / "secret.png"
    secret.parent.mkdir()
    Image.new("RGB", (SIZE, SIZE)).save(secret)
    colmap.images[4] = (str(secret), *colmap.images[4][1:])
    colmap.write()
    assert "outside of the scene" in error_of(colmap.path)


def test_a_lens_that_contradicts_itself_names_the_photograph(colmap: ColmapScene) -> None:
    colmap.cameras[1] = ("SIMPLE_RADIAL", SIZE, SIZE, (40.0, -16.0, 16.0, 0.1))
    colmap.write()
    text = error_of(colmap.path)
    assert "shot_00.png" in text and "no pinhole camera fits" in text


# ------------------------------------------------------------------ the parts
def test_text_images_without_lines_of_observations(tmp_path: Path) -> None:
    pose = "1 0 0 0 0 0 1"
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 4 4 5 5 2 2\n")
    (tmp_path / "images.txt").write_text(
        f"# list\n\n1 {pose} 1 a b.png\n2 {pose} 1 c.png\n\n3 {pose} 1 2.png\n1 1 1\n"
    )
    assert [image.name for image in read_images(tmp_path)] == ["a b.png", "c.png", "2.png"]


def test_points_with_numbers_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "points3D.bin"
    path.write_bytes(put(16, "<d", np.nan)(points_bytes(4, text=False)))
    cloud = read_colmap_points(path)
    assert len(cloud) == 3 and "1 points with NaN" in cloud.source


def test_georeferenced_points_keep_their_digits(tmp_path: Path) -> None:
    rows = [f"{i} {4e6 + i / 16} {5e6 - i / 16} 100 1 2 3 0.5" for i in range(9)]
    (tmp_path / "points3D.txt").write_text("\n".join(rows))
    xyz = read_colmap_points(tmp_path / "points3D.txt").file_xyz()
    assert float(xyz[3, 0]) == pytest.approx(4e6 + 3 / 16, abs=1e-4)


# ------------------------------------------------------------------ real models
@pytest.mark.shared_data
def test_plush(shared_data: Path) -> None:
    folder = shared_data / "colmap" / "plush"
    scene = load_scene(folder, downscale=2)
    assert (len(scene.split("train")), len(scene.split("test"))) == (84, 13)
    assert (scene.views[0].camera.width, scene.views[0].camera.height) == (400, 300)
    assert scene.points is not None
    assert "Points: 32,376 from" in "".join(scene.notes)
    error = median_error(folder / "sparse" / "0", folder / "sparse" / "0" / "points3D.bin")
    assert error < 1.5 / 3962  # in widths of the photograph
    assert "no images.bin" in error_of(folder / "author")


@pytest.mark.shared_data
def test_chess_bust(shared_data: Path) -> None:
    folder = shared_data / "colmap" / "chess_bust"
    scene = load_scene(folder)
    assert len(scene.views) == 23 and scene.points is not None
    assert "Points: 1,443 from" in "".join(scene.notes)
    assert any("dense/0/sparse" in note for note in scene.notes)
    model = folder / "dense" / "0" / "sparse"
    assert median_error(model, model / "points3D.bin") < 0.35 / 1000
    distorted = read_cameras(folder / "sparse" / "0")
    assert all(camera.model == "SIMPLE_RADIAL" and camera.lens for camera in distorted.values())
    assert "none of the 23 photographs" in error_of(folder / "sparse" / "0")


def median_error(model: Path, points: Path) -> float:
    """Median distance between the stored observations and our projections, in image widths."""
    where: dict[int, tuple[float, ...]] = {}
    data, at = points.read_bytes(), 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, *xyz = struct.unpack_from("<Q3d", data, at)
        where[number] = tuple(xyz)
        at += 51 + 8 * struct.unpack_from("<Q", data, at + 43)[0]
    cameras = read_cameras(model)
    views = {view.path: view.camera for view in read_colmap(model).views}
    by_name = {path.name: camera for path, camera in views.items() if path is not None}
    data, at = (model / "images.bin").read_bytes(), 8
    errors = []
    for image in read_images(model):
        end = data.index(b"\0", at + 64)
        (count,) = struct.unpack_from("<Q", data, end + 1)
        kind = np.dtype([("uv", "<f8", 2), ("point", "<i8")])
        seen = np.frombuffer(data, kind, count, end + 9)
        seen = seen[seen["point"] >= 0]
        at = end + 9 + 24 * count
        camera, stored = by_name[image.name], cameras[image.camera]
        uv, _ = camera.project(
            torch.tensor([where[number] for number in seen["point"]], dtype=torch.float64)
        )
        share = uv.numpy() / (camera.width, camera.height)
        difference = (share - seen["uv"] / (stored.width, stored.height)) * (
            1, stored.height / stored.width,
        )  # fmt: skip
        errors.append(np.linalg.norm(difference, axis=1))
    return float(np.median(np.concatenate(errors)))
