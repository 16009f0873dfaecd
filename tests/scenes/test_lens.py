"""Lens models against COLMAP's own answers, and pictures without distortion."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from render.camera import intrinsics
from render.errors import UserError
from render.scenes.photos import disk_cache, lens
from render.scenes.photos.images import read_header
from render.scenes.photos.lens import (
    Lens,
    lens_notes,
    pinhole_of,
    undistorted_mask,
    undistorted_view,
)
from render.scenes.photos.lens_models import DISTORTION, Array

# Where pycolmap 4.2.1 sees the point (0.4, -0.3, 1).
COLMAP = [
    ("SIMPLE_RADIAL", (-0.12,), (0.388000000000, -0.291000000000)),
    ("RADIAL", (-0.2, 0.05), (0.381250000000, -0.285937500000)),
    ("OPENCV", (-0.2, 0.06, 0.003, -0.002), (0.379640000000, -0.284355000000)),
    ("OPENCV_FISHEYE", (0.03, -0.01, 0.004, -0.001), (0.373152704300, -0.279864528225)),
    (
        "FULL_OPENCV",
        (0.2, -0.05, 0.002, -0.001, 0.03, 0.4, -0.02, 0.01),
        (0.380181337978, -0.284823503484),
    ),
    ("FOV", (0.8,), (0.400000000000, -0.300000000000)),
    ("SIMPLE_RADIAL_FISHEYE", (0.02,), (0.372512805788, -0.279384604341)),
    ("RADIAL_FISHEYE", (0.02, -0.01), (0.372341398174, -0.279256048630)),
    (
        "THIN_PRISM_FISHEYE",
        (0.02, -0.01, 0.002, -0.003, 0.003, -0.001, 0.004, -0.002),
        (0.371328407331, -0.278335078669),
    ),
    (
        "RAD_TAN_THIN_PRISM_FISHEYE",
        (0.02, -0.03, 0.02, -0.01, 0.004, -0.001, 0.002, -0.003, 0.004, -0.002, 0.001, 0.003),
        (0.374445907747, -0.280223500479),
    ),
    ("SIMPLE_DIVISION", (-0.15,), (0.386029490541, -0.289522117905)),
    ("DIVISION", (-0.15,), (0.386029490541, -0.289522117905)),
    ("SIMPLE_FISHEYE", (), (0.370918087201, -0.278188565400)),
    ("FISHEYE", (), (0.370918087201, -0.278188565400)),
    ("EUCM", (0.6, 1.1), (0.371231287543, -0.278423465657)),
]
W, H = 96, 72
K = intrinsics((70.0, 71.0), (49.0, 35.0))
FOCAL, CENTER = np.array([70.0, 71.0]), np.array([49.0, 35.0])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUFFERS_CACHE", str(tmp_path / "cache"))


def test_every_model_is_compared() -> None:
    assert {model for model, _, _ in COLMAP} == set(DISTORTION) - {"PINHOLE", "SIMPLE_PINHOLE"}


@pytest.mark.parametrize(("model", "params", "seen"), COLMAP, ids=[c[0] for c in COLMAP])
def test_distorts_as_colmap_and_back(
    model: str, params: tuple[float, ...], seen: tuple[float, float]
) -> None:
    bent = Lens(model, params)
    np.testing.assert_allclose(bent.distort(np.array([[0.4, -0.3]])), [seen], atol=1e-11)
    grid = np.stack(np.meshgrid(np.linspace(-0.9, 0.9, 9), np.linspace(-0.7, 0.7, 7)), -1)
    xy = grid.reshape(-1, 2)
    np.testing.assert_allclose(bent.undistort(bent.distort(xy)), xy, atol=1e-10)
    assert not bent.is_identity


@pytest.mark.parametrize(
    "straight",
    [Lens("PINHOLE"), Lens("RADIAL", (0, 0)), Lens("EUCM", (0, 1)), Lens("FOV", (0,))],
    ids=lambda lens: lens.model,
)
def test_lenses_that_do_nothing(straight: Lens) -> None:
    xy = np.array([[0.0, 0.0], [0.5, -0.7]])
    assert straight.is_identity
    np.testing.assert_allclose(straight.distort(xy), xy, atol=1e-12)
    np.testing.assert_allclose(straight.undistort(xy), xy, atol=1e-12)


def test_points_without_an_inverse_are_nan() -> None:
    folding = Lens("SIMPLE_RADIAL", (-0.3,))  # r - 0.3 r^3 grows up to r = 1.054, where it is 0.703
    out = folding.undistort(np.array([[0.70, 0.0], [0.72, 0.0]]))
    assert 0.9 < out[0, 0] < 1.054 and np.isnan(out[1]).all()
    assert np.isnan(folding.distort(np.array([[1.06, 0.0]]))).all()
    fisheye = Lens("OPENCV_FISHEYE", (0, 0, 0, 0))  # 90 degrees off the axis are at radius pi / 2
    out = fisheye.undistort(np.array([[1.5, 0.0], [1.6, 0.0]]))
    assert math.isclose(out[0, 0], math.tan(1.5)) and np.isnan(out[1]).all()


def test_names_of_opencv() -> None:
    assert Lens.from_opencv({"k1": 0.0, "p2": 0.0}) is None
    five = Lens.from_opencv({"k1": -0.2, "k2": 0.06, "p1": 0.003, "p2": -0.002, "w": 5.0})
    assert five is not None
    np.testing.assert_allclose(
        five.distort(np.array([[0.4, -0.3]])), [[0.37964, -0.284355]], atol=1e-11
    )
    fisheye = Lens.from_opencv({"k1": 0.03, "k2": -0.01, "k3": 0.004, "k4": -0.001}, fisheye=True)
    assert fisheye == Lens("OPENCV_FISHEYE", (0.03, -0.01, 0.004, -0.001))
    assert Lens.from_opencv({}, fisheye=True) == Lens("OPENCV_FISHEYE", (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("MAGIC", ()),
        ("RADIAL", (0.1,)),
        ("FOV", (math.nan,)),
        ("FOV", (math.inf,)),
        ("FOV", (1e9,)),
    ],
)
def test_refuses_what_is_no_lens(model: str, params: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=model):
        Lens(model, params)


# ------------------------------------------------------------------ the pinhole
@pytest.mark.parametrize(("model", "params", "_"), COLMAP, ids=[c[0] for c in COLMAP])
def test_every_pixel_has_a_source(model: str, params: tuple[float, ...], _: object) -> None:
    bent = Lens(model, params)
    pinhole = pinhole_of(K, bent, W, H)
    y, x = np.mgrid[0 : H + 1, 0 : W + 1]
    pixels = np.stack([x.ravel(), y.ravel()], -1)
    source = bent.distort((pixels - CENTER) / (FOCAL * pinhole.zoom)) * FOCAL + CENTER
    assert (source >= -0.5).all() and (source <= (W + 0.5, H + 0.5)).all()
    # And a picture 2 % wider would leave the photograph: no more is cut off than need be.
    source = bent.distort((pixels - CENTER) / (FOCAL * pinhole.zoom * 0.98)) * FOCAL + CENTER
    assert not ((source >= 0) & (source <= (W, H))).all()
    assert not pinhole.limited


def test_wide_fisheyes_are_cut_and_it_is_said() -> None:
    wide = Lens("OPENCV_FISHEYE", (0, 0, 0, 0))
    narrow = intrinsics((30.0, 30.0), (48.0, 36.0))  # 183 degrees from side to side
    pinhole = pinhole_of(narrow, wide, W, H)
    assert pinhole.limited
    assert math.isclose(math.degrees(pinhole.field_of_view), 120, abs_tol=0.1)
    notes = lens_notes([(wide, pinhole), (wide, pinhole)])
    assert "2 photographs are undistorted (OPENCV_FISHEYE)" in notes[0]
    assert "see more than a pinhole can show" in notes[1]
    assert lens_notes([]) == []


def test_a_lens_that_folds_inside_the_photograph_is_cut() -> None:
    folding = Lens("SIMPLE_RADIAL", (-0.6,))
    pinhole = pinhole_of(intrinsics((40.0, 40.0), (48.0, 36.0)), folding, W, H)
    assert pinhole.limited and pinhole.zoom > 1


@pytest.mark.parametrize(
    "broken",
    [intrinsics((70.0, 70.0), (-5.0, 35.0)), intrinsics((0.0, 70.0), (49.0, 35.0))],
)
def test_contradictions_are_a_sentence(broken: torch.Tensor) -> None:
    with pytest.raises(UserError, match="no pinhole camera fits the lens RADIAL"):
        pinhole_of(broken, Lens("RADIAL", (0.1, 0.0)), W, H)


# ------------------------------------------------------------------ the picture
def waves(xy: Array) -> Array:
    """A smooth scene at infinity: colour [N, 3] in 0..1 seen in a direction [N, 2]."""
    phase = np.array([0.0, 1.0, 2.0])
    u, v = 14 * xy[:, :1], 14 * xy[:, 1:]
    return 0.5 + 0.2 * np.sin(u + phase) + 0.2 * np.cos(v - u / 2 + phase)


def picture(directions: Callable[[Array], Array], size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] of the waves, the mean of 16 samples a pixel."""
    total = np.zeros((size[0] * size[1], 3))
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    for i in range(16):
        at = np.stack([x.ravel() + (i % 4 + 0.5) / 4, y.ravel() + (i // 4 + 0.5) / 4], -1)
        total += np.nan_to_num(waves(directions(at)))
    return (total / 16 * 255 + 0.5).astype(np.uint8).reshape(size[1], size[0], 3)


@pytest.mark.parametrize("size", [(96, 72), (48, 36), (32, 24), (64, 48)])
@pytest.mark.parametrize(
    "bent",
    [
        Lens("OPENCV", (-0.2, 0.06, 0.003, -0.002)),
        Lens("RADIAL", (0.15, 0.02)),
        Lens("OPENCV_FISHEYE", (0.03, -0.01, 0.004, -0.001)),
    ],
    ids=lambda lens: lens.model,
)
def test_picture_is_that_of_the_pinhole(tmp_path: Path, bent: Lens, size: tuple[int, int]) -> None:
    path = tmp_path / "photo.png"
    photo = picture(lambda at: bent.undistort((at - CENTER) / FOCAL), (W, H))
    Image.fromarray(photo).save(path)
    flat, load = undistorted_view(path, K, read_header(path), bent, size)
    out = load()
    assert out.dtype == torch.uint8 and tuple(out.shape) == (size[1], size[0], 4)
    assert bool((out[..., 3] == 255).all())
    focal, center = flat.numpy()[[0, 1], [0, 1]], flat.numpy()[:2, 2]
    true = picture(lambda at: (at - center) / focal, size)
    error = np.abs(out.numpy()[..., :3].astype(int) - true)
    assert error.mean() < 1.0 and error.max() <= 8


def test_masks_and_transparency_move_along(tmp_path: Path) -> None:
    bent = Lens("SIMPLE_RADIAL", (0.2,))
    photo = np.zeros((H, W, 4), np.uint8) + np.array((255, 0, 0, 255), np.uint8)
    photo[:, : W // 2] = (0, 255, 0, 0)  # green that nobody may see
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask = np.full((H, W), 255, np.uint8)
    mask[: H // 2] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    header = read_header(tmp_path / "photo.png")
    size = (W // 2, H // 2)
    _, load = undistorted_view(tmp_path / "photo.png", K, header, bent, size, tmp_path / "mask.png")
    out = load()
    visible = out[..., 3] > 0
    assert bool((out[visible][:, 0] > 250).all()) and bool((out[visible][:, 1] < 5).all())
    assert 0.15 < float(visible.float().mean()) < 0.35
    share = undistorted_mask(tmp_path / "mask.png", K, header, bent, size)()
    assert tuple(share.shape) == (H // 2, W // 2)
    assert float(share[:12].max()) == 0 and float(share[-12:].min()) == 1


def test_pictures_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)
    bent = Lens("RADIAL", (0.1, 0.0))
    _, load = undistorted_view(path, K, read_header(path), bent, (W, H))
    first = load()
    made: list[object] = []
    resample = lens._resample
    monkeypatch.setattr(lens, "_resample", lambda job: made.append(job) or resample(job))
    assert torch.equal(load(), first) and not made
    kept = next((tmp_path / "cache" / "undistorted").glob("*.png"))
    kept.write_bytes(b"no image")  # a damaged cache is made anew
    assert torch.equal(load(), first) and len(made) == 1
    Image.fromarray(np.full((H, W, 3), 200, np.uint8)).save(path)  # another photograph
    assert int(load()[0, 0, 0]) == 200 and len(made) == 2


def test_a_useless_cache_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KBUFFERS_CACHE", str(tmp_path / "file"))
    bent = Lens("RADIAL", (0.1, 0.0))
    _, load = undistorted_view(path, K, read_header(path), bent, (W, H))
    assert int(load()[0, 0, 0]) == 90
    path.unlink()
    with pytest.raises(UserError, match=r"photo\.png"):
        load()


def test_the_oldest_pictures_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 4), np.uint8)
    monkeypatch.setattr(disk_cache, "LIMIT", 6000)  # three pictures, of 1.6 kB each
    for i in range(8):
        disk_cache.write_picture("some", f"{i}", noise)
    folder = disk_cache.folder("some")
    assert folder is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6000
    newest = disk_cache.read_picture("some", "7")
    assert newest is not None and np.array_equal(newest, noise)
    assert disk_cache.read_picture("some", "0") is None
