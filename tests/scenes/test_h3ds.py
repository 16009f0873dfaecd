"""H3DS: found by its file names, read like DTU, split as H3D-Net and NPBG++ did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from render.scenes.formats.dtu import is_dtu
from render.scenes.formats.h3ds import is_h3ds, read_h3ds
from render.scenes.formats.h3ds_views import VIEWS
from render.scenes.load import load_scene
from tests.scenes.multiview import camera_ring, scale_matrix, sentence, write_npz_scene

NAME = "5ae021f2805c0854"


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A scene with the name and the 73 views of a real one, two pixels wide."""
    cameras, images = camera_ring(73)
    return write_npz_scene(
        tmp_path / NAME,
        [camera.resize(2, 2) for camera in cameras],
        [image[::16, ::16].contiguous() for image in images],
        scale_matrix(130.0, (1.0, 2.0, 3.0)),
        lambda i: (f"img_{i:04}.jpg", f"mask_{i:04}.png"),
        "cameras.npz",
    )


def test_reads_cameras_and_masks(head: Path) -> None:
    assert is_h3ds(head) and not is_dtu(head)
    photos = read_h3ds(head)
    cameras, images = camera_ring(73)
    for view, camera, image in zip(photos.views, cameras, images, strict=True):
        torch.testing.assert_close(
            view.camera.world_to_camera, camera.world_to_camera, atol=2e-5, rtol=0
        )
        torch.testing.assert_close(view.pixels()[..., 3], image[::16, ::16, 3])
    scene = load_scene(head, needs_points=False)
    assert float(scene.to_file[0, 0]) == pytest.approx(130, rel=1e-6)
    assert len(scene.splits["test"]) == 10


def test_splits(head: Path) -> None:
    few = read_h3ds(head, split="views3").splits
    assert few["train"] == [1, 7, 54] and len(few["test"]) == 70
    plus = read_h3ds(head, split="npbgpp").splits
    list32 = VIEWS[NAME][32]
    assert plus["val"] == [list32[i] for i in (7, 14, 21, 28)]
    assert plus["test"] == [list32[i] for i in (5, 10, 15, 20, 25, 30)]
    assert len(plus["train"]) == 22
    for name in ("views4", "views8", "views16", "views32"):
        assert len(read_h3ds(head, split=name).splits["train"]) == int(name[5:])


def test_splits_of_an_unknown_scene(head: Path) -> None:
    other = head.rename(head.parent / "my_head")
    text = sentence(lambda: read_h3ds(other, split="views8"))
    assert "ten scenes" in text and "my_head" in text
    assert "views32" in sentence(lambda: read_h3ds(other, split="views7"))
    assert len(read_h3ds(other).views) == 73


def test_lists_are_those_of_ten_scenes() -> None:
    assert len(VIEWS) == 10
    for lists in VIEWS.values():
        assert {count: len(set(views)) for count, views in lists.items()} == {
            count: count for count in (3, 4, 8, 16, 32)
        }
