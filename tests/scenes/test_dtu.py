"""DTU in both layouts: cameras, masks, splits, and one sentence for everything broken."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.camera import Camera
from render.scenes.formats.dtu import SPLITS, is_dtu, read_dtu
from render.scenes.formats.dtu_cams import is_dtu_cams, read_dtu_cams
from render.scenes.load import load_scene
from render.scenes.normalize import place_camera
from tests.scenes.multiview import (
    camera_ring,
    scale_matrix,
    sentence,
    world_matrix,
    write_cams,
    write_npz_scene,
)

SCALE = scale_matrix(150.0, (-30.0, 40.0, 620.0))


@pytest.fixture
def dtu(tmp_path: Path) -> Path:
    """Ten views in both layouts."""
    cameras, images = camera_ring(10)
    folder = write_npz_scene(tmp_path / "scan", cameras, images, SCALE)
    write_cams(folder, cameras, SCALE)
    return folder


def assert_same(a: Camera, b: Camera) -> None:
    """The same picture, to what float32 files hold; lengths in units of about 1."""
    torch.testing.assert_close(a.world_to_camera, b.world_to_camera, atol=2e-5, rtol=0)
    torch.testing.assert_close(a.K, b.K, atol=2e-3, rtol=0)


def change_npz(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Rewrite the camera file after ``change``."""
    file = folder / "cameras_sphere.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------------ what is read
def test_unit_sphere_masks_and_way_back(dtu: Path) -> None:
    cameras, images = camera_ring(10)
    assert is_dtu(dtu)
    photos = read_dtu(dtu)
    assert photos.to_file is not None
    torch.testing.assert_close(photos.to_file, torch.from_numpy(SCALE), atol=1e-4, rtol=0)
    for view, camera, image in zip(photos.views, cameras, images, strict=True):
        assert_same(view.camera, camera)
        torch.testing.assert_close(view.pixels()[..., 3], image[..., 3])
        inside = image[..., 3] > 0
        torch.testing.assert_close(view.pixels()[inside], image[inside])
        assert view.has_alpha
    assert photos.splits == {"train": list(range(10))}


def test_both_layouts_agree(dtu: Path) -> None:
    npz, cams = read_dtu(dtu), read_dtu_cams(dtu / "cams_1")
    assert is_dtu_cams(dtu) and is_dtu_cams(dtu / "cams_1")
    assert npz.to_file is not None and cams.to_file is None
    for a, b in zip(npz.views, cams.views, strict=True):
        moved = place_camera(a.camera, npz.to_file)
        torch.testing.assert_close(moved.world_to_camera, b.camera.world_to_camera, rtol=0,
                                   atol=3e-3)  # fmt: skip
        torch.testing.assert_close(moved.K, b.camera.K, atol=2e-3, rtol=0)
        assert a.path == b.path and torch.equal(a.pixels(), b.pixels())


def test_through_load_scene_with_points_of_the_file(dtu: Path) -> None:
    ball = torch.nn.functional.normalize(torch.randn(300, 3), dim=1) * 0.8
    rows = (ball * 150 + torch.tensor([-30.0, 40.0, 620.0])).tolist()
    lines = "\n".join(" ".join(f"{v:.4f}" for v in row) for row in rows)
    header = "ply\nformat ascii 1.0\nelement vertex 300\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    (dtu / "points.ply").write_text(header + lines + "\n")
    scene = load_scene(dtu)
    assert (len(scene.splits["train"]), len(scene.splits["test"])) == (8, 2)
    assert scene.points is not None
    torch.testing.assert_close(scene.points.xyz, ball, atol=1e-4, rtol=0)
    torch.testing.assert_close(scene.to_file, torch.from_numpy(SCALE), atol=1e-4, rtol=0)
    assert scene.bounds.radius < 2


def test_downscale(dtu: Path) -> None:
    full, half = read_dtu(dtu).views[3], read_dtu(dtu, 2.0).views[3]
    assert half.pixels().shape == (16, 16, 4)
    torch.testing.assert_close(half.camera.K[:2], full.camera.K[:2] / 2)


@pytest.mark.parametrize(
    "names",
    [
        lambda i: (f"{i + 1:03}.jpg", f"mask_{i + 1}.png"),  # from 1, both
        lambda i: (f"img_{i:04}.PNG", f"{i + 5:03}.png"),
        lambda i: (f"rect_001_{i}.png", f"{i:08}_mask.png"),
        lambda i: (f"{'abcdefghij'[i]}.png", f"{i}.png"),  # no numbers at all
    ],
)
def test_names_that_differ(tmp_path: Path, names: Callable[[int], tuple[str, str]]) -> None:
    cameras, images = camera_ring(10)
    photos = read_dtu(write_npz_scene(tmp_path / "scan", cameras, images, SCALE, names))
    for view, camera, image in zip(photos.views, cameras, images, strict=True):
        assert_same(view.camera, camera)
        torch.testing.assert_close(view.pixels()[..., 3], image[..., 3])


def test_files_are_matched_by_number(dtu: Path) -> None:
    cameras, images = camera_ring(10)
    (dtu / "image" / "000003.png").unlink()
    (dtu / "mask" / "005.png").unlink()
    (dtu / "image" / "._000004.png").write_bytes(b"resource fork")
    photos = read_dtu(dtu)
    assert [view.name for view in photos.views] == [f"{i:06}" for i in range(10) if i != 3]
    assert_same(photos.views[3].camera, cameras[4])
    torch.testing.assert_close(photos.views[3].pixels()[..., 3], images[4][..., 3])
    assert not photos.views[4].has_alpha and bool((photos.views[4].pixels()[..., 3] == 255).all())
    assert "cameras_sphere.npz: 1 of 10 cameras have no photograph." in photos.notes
    assert any("1 of 9 photographs have no mask" in note for note in photos.notes)


def test_other_names_of_folders_and_files(dtu: Path) -> None:
    (dtu / "image").rename(dtu / "Images")
    (dtu / "mask").rename(dtu / "masks")
    (dtu / "cameras_sphere.npz").rename(dtu / "cameras.npz")
    photos = read_dtu(dtu)
    assert len(photos.views) == 10 and all(view.has_alpha for view in photos.views)


def test_without_masks_and_without_scale(dtu: Path) -> None:
    for mask in (dtu / "mask").iterdir():
        mask.unlink()
    (dtu / "mask").rmdir()
    change_npz(dtu, lambda a: [a.pop(key) for key in list(a) if key.startswith("scale")])
    photos = read_dtu(dtu)
    assert photos.to_file is None and not any(view.has_alpha for view in photos.views)
    assert any("no scale_mat" in note for note in photos.notes)
    cams = read_dtu_cams(dtu)
    for a, b in zip(photos.views, cams.views, strict=True):
        torch.testing.assert_close(a.camera.world_to_camera, b.camera.world_to_camera, rtol=1e-5,
                                   atol=3e-3)  # fmt: skip


def test_a_scale_that_differs_between_views_moves_no_camera(dtu: Path) -> None:
    cameras, _ = camera_ring(10)
    change_npz(dtu, lambda a: a["scale_mat_7"].__imul__(2))
    photos = read_dtu(dtu)
    assert_same(photos.views[7].camera, cameras[7])
    assert any("differs between views" in note for note in photos.notes)


def test_projections_of_any_sign_and_size(dtu: Path) -> None:
    cameras, _ = camera_ring(10)

    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["world_mat_2"] = -arrays["world_mat_2"]
        arrays["world_mat_3"] = 1e-6 * arrays["world_mat_3"]
        arrays["world_mat_4"] = arrays["world_mat_4"][:3]

    change_npz(dtu, change)
    for i in (2, 3, 4):
        assert_same(read_dtu(dtu).views[i].camera, cameras[i])


def test_unusable_cameras_are_dropped_and_counted(dtu: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["world_mat_1"][0, 0] = np.nan
        arrays["world_mat_2"][:] = 0
        arrays["world_mat_3"] = np.zeros(7)

    change_npz(dtu, change)
    text = (dtu / "cams_1" / "00000005_cam.txt").read_text().split("\n")
    text[1] = "nan nan nan nan"
    (dtu / "cams_1" / "00000005_cam.txt").write_text("\n".join(text))
    photos = read_dtu(dtu)
    assert len(photos.views) == 7
    assert any("3 of 10 cameras dropped" in note for note in photos.notes)
    assert len(read_dtu_cams(dtu).views) == 9


def test_images_shrunk_without_their_cameras(dtu: Path) -> None:
    cameras, _ = camera_ring(10)

    def enlarge(arrays: dict[str, np.ndarray]) -> None:
        for i, camera in enumerate(cameras):
            arrays[f"world_mat_{i}"] = world_matrix(camera.resize(96, 96), SCALE)
            arrays[f"camera_mat_{i}"] = np.array([[2 / 96, 0, -1], [0, 2 / 96, -1], [0, 0, 1]])

    change_npz(dtu, enlarge)
    photos = read_dtu(dtu)
    torch.testing.assert_close(photos.views[0].camera.K, cameras[0].K, atol=1e-3, rtol=0)
    assert any("10 views were scaled by 0.3333" in note for note in photos.notes)
    change_npz(dtu, lambda a: [a.pop(key) for key in list(a) if key.startswith("camera_mat")])
    text = sentence(lambda: read_dtu(dtu))
    assert "about 96x96" in text and "32x32" in text


# ------------------------------------------------------------------ splits
@pytest.fixture
def all_views(tmp_path: Path) -> Path:
    """The 49 views of DTU, two pixels wide."""
    cameras, images = camera_ring(49)
    cameras = [camera.resize(2, 2) for camera in cameras]
    small = [image[::16, ::16].contiguous() for image in images]
    return write_npz_scene(tmp_path / "scan49", cameras, small, SCALE)


def test_named_splits(all_views: Path) -> None:
    nine = read_dtu(all_views, split="dtu9").splits
    assert nine["test"] == [7, 12, 17, 22, 27, 32, 37, 42, 47] and len(nine["train"]) == 40
    plus = read_dtu(all_views, split="npbgpp").splits
    assert plus["test"] == nine["test"] and plus["val"] == [5, 15, 25, 35, 45]
    assert len(plus["train"]) == 35
    few = read_dtu(all_views, split="pixelnerf3").splits
    assert few["train"] == [22, 25, 28] and len(few["test"]) == 25
    for name in SPLITS:
        splits = read_dtu(all_views, split=name).splits
        used = [i for indices in splits.values() for i in indices]
        assert len(used) == len(set(used)), name


def test_splits_go_by_number_and_say_when_they_cannot(all_views: Path, dtu: Path) -> None:
    (all_views / "image" / "000003.png").unlink()
    test = read_dtu(all_views, split="dtu9")
    assert [test.views[i].name for i in test.splits["test"]][:2] == ["000007", "000012"]
    text = sentence(lambda: read_dtu(dtu, split="pixelnerf3"))
    assert "wants views 25, 22, 28 for train" in text and "found views 0 to 9" in text
    text = sentence(lambda: read_dtu(dtu, split="dtu10"))
    assert "dtu9" in text and "npbgpp" in text and "every8" in text


# ------------------------------------------------------------------ what cannot be read
def npz_bytes(name: str = "world_mat_0", data: bytes = b"", deflate: bool = False) -> bytes:
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(f"{name}.npy", data)
    return out.getvalue()


def npy_bytes(shape: str, dtype: str = "<f8", rest: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (117 - len(header) % 64 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + rest


def pickled() -> bytes:
    out = io.BytesIO()
    np.savez(out, world_mat_0=np.array([{"a": 1}], dtype=object))
    return out.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"no archive at all",
    "cut": npz_bytes(data=npy_bytes("(4, 4)", rest=bytes(128)))[:-30],
    "pickled": pickled(),
    "bomb": npz_bytes(data=bytes(300_000_000), deflate=True),
    "huge shape": npz_bytes(data=npy_bytes("(1000000000, 1000000000)")),
    "negative shape": npz_bytes(data=npy_bytes("(-4, -4)", rest=bytes(128))),
    "short": npz_bytes(data=npy_bytes("(4, 4)", rest=bytes(100))),
    "bad header": npz_bytes(data=npy_bytes("((((((", rest=bytes(128))),
    "nested header": npz_bytes(data=npy_bytes("(" * 3000 + ")" * 3000)),
    "words": npz_bytes(data=npy_bytes("(4, 4)", "<U4", bytes(256))),
    "not npy": npz_bytes(data=b"hello"),
    "other names": npz_bytes("poses", npy_bytes("(4, 4)", rest=bytes(128))),
    "all zero": npz_bytes(data=npy_bytes("(4, 4)", rest=bytes(128))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_npz(dtu: Path, name: str) -> None:
    file = dtu / "cameras_sphere.npz"
    file.write_bytes(BROKEN[name])
    assert str(file) in sentence(lambda: read_dtu(dtu))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "extrinsic"),
        ("extrinsic\n1 2 3\nintrinsic\n1 0 0 0 1 0 0 0 1", "copy it again"),
        ("extrinsic\n" + "1 0 0 0 " * 4 + "\nintrinsic\n1 0 x 0 1 0 0 0 1", "copy it again"),
        (
            "extrinsic 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1 intrinsic -9 0 1 0 9 1 0 0 1",
            "positive focal lengths",
        ),
        ("extrinsic " * 20_000, "64 kB"),
        ("\x00\xff\xfe", "binary"),
    ],
)
def test_broken_camera_text(dtu: Path, text: str, expected: str) -> None:
    file = dtu / "cams_1" / "00000002_cam.txt"
    file.write_bytes(text.encode("latin-1"))
    error = sentence(lambda: read_dtu_cams(dtu))
    assert str(file) in error and expected in error


def test_no_images(dtu: Path) -> None:
    for image in (dtu / "image").iterdir():
        image.unlink()
    assert "expected photographs in a folder" in sentence(lambda: read_dtu(dtu))
    (dtu / "image").rmdir()
    assert not is_dtu(dtu) and not is_dtu_cams(dtu)
    assert "image/ with cameras_sphere.npz" in sentence(lambda: load_scene(dtu))


def test_images_of_another_scene(dtu: Path) -> None:
    for i, image in enumerate(sorted((dtu / "image").iterdir())[:4]):
        image.rename(dtu / "image" / f"{i + 500}.png")
    for image in (dtu / "image").glob("0*.png"):
        image.unlink()
    text = sentence(lambda: read_dtu(dtu))
    assert "500 to 503" in text and "0 to 9" in text


def test_a_mask_of_another_shape(dtu: Path) -> None:
    Image.new("L", (32, 20)).save(dtu / "mask" / "004.png")
    text = sentence(lambda: read_dtu(dtu))
    assert "004.png" in text and "32x20" in text and "32x32" in text


def test_masks_of_zero_and_one_and_of_another_size(dtu: Path) -> None:
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, :8] = 1
    Image.fromarray(alpha).save(dtu / "mask" / "004.png")
    found = read_dtu(dtu).views[4].pixels()[..., 3]
    assert bool((found[:, :16] == 255).all()) and bool((found[:, 16:] == 0).all())


def test_a_truncated_image(dtu: Path) -> None:
    image = dtu / "image" / "000004.png"
    image.write_bytes(image.read_bytes()[:100])
    assert str(image) in sentence(lambda: read_dtu(dtu))


# ------------------------------------------------------------------ real data
@pytest.mark.shared_data
def test_real_layouts_agree(shared_data: Path) -> None:
    folder = shared_data / "dtu" / "scan65"
    npz, cams = read_dtu(folder), read_dtu_cams(folder / "cams_1")
    assert npz.to_file is not None
    for a, b in zip(npz.views, cams.views, strict=True):
        moved = place_camera(a.camera, npz.to_file)
        difference = (moved.world_to_camera - b.camera.world_to_camera).abs()
        assert difference[:3, :3].max() < 1e-5
        assert difference[:3, 3].max() < 1e-5 * b.camera.world_to_camera[:3, 3].norm()
        torch.testing.assert_close(moved.K, b.camera.K, atol=5e-3, rtol=0)


@pytest.mark.shared_data
def test_real_points_lie_in_the_masks(shared_data: Path) -> None:
    scene = load_scene(shared_data / "dtu" / "scan65")
    assert scene.points is not None and len(scene.points) == 5254
    inside = total = 0
    for view in scene.views[::6]:
        uv, z = view.camera.project(scene.points.xyz)
        column, row = uv.floor().long().unbind(1)
        assert bool((z > 0).all())
        mask = view.pixels()[..., 3]
        framed = (column >= 0) & (column < mask.shape[1]) & (row >= 0) & (row < mask.shape[0])
        inside += int((mask[row[framed], column[framed]] > 127).sum())
        total += int(framed.sum())
    assert inside > 0.985 * total


@pytest.mark.shared_data
def test_real_original_cameras_with_small_images(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "dtu" / "scan65"
    (tmp_path / "image").symlink_to(real / "image")
    original = shared_data / "dtu" / "scan65_original_cameras"
    (tmp_path / "cameras_sphere.npz").symlink_to(original / "cameras_sphere.npz")
    (tmp_path / "cams_1").symlink_to(original / "cams_1")
    true = read_dtu(real).views
    for photos in (read_dtu(tmp_path), read_dtu_cams(tmp_path)):
        for view, expected in zip(photos.views, true, strict=True):
            torch.testing.assert_close(view.camera.K, expected.camera.K, atol=5e-3, rtol=0)
        assert any("scaled by 0.32" in note for note in photos.notes)
