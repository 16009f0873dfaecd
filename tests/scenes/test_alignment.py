"""Whether a cloud is told from one that lies somewhere else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from render.scenes.alignment import Alignment, check_alignment
from render.scenes.load import load_scene
from render.scenes.lookup import BUNDLED
from render.scenes.types import Scene, View
from tests.scenes.synthetic import cameras_around, render_box

HALF = torch.tensor([0.9, 0.5, 0.3])
GENERATOR = torch.Generator().manual_seed(3)


def box_views(count: int = 10, size: int = 64, *, has_alpha: bool = True) -> list[View]:
    def view(i: int) -> View:
        camera = cameras_around(count, size)[i]
        pixels = render_box(camera, HALF)
        if not has_alpha:
            pixels[..., 3] = 255
        return View(camera, lambda: pixels, f"view {i}", has_alpha=has_alpha)

    return [view(i) for i in range(count)]


def box_points(count: int = 4000) -> Tensor:
    return (2 * torch.rand(count, 3, generator=GENERATOR) - 1) * HALF


def turned(xyz: Tensor) -> Tensor:
    """By 90 degrees about z."""
    return xyz @ torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def lego() -> Scene:
    return load_scene(BUNDLED / "lego")


def lego_check(lego: Scene, xyz: Tensor) -> Alignment:
    return check_alignment(xyz, lego.split("train"), max_views=6)


def test_the_bundled_points_fit(lego: Scene) -> None:
    assert lego.points is not None
    found = lego_check(lego, lego.points.xyz)
    assert found.verdict == "aligned" and found.views == 6 and found.visible == 1
    assert found.inside is not None and found.inside > 0.98
    assert found.coverage is not None and found.coverage > 0.98
    assert "100%" in found.sentence and "fits" in found.sentence


def test_bundled_points_in_another_frame_do_not(lego: Scene) -> None:
    assert lego.points is not None
    xyz = lego.points.xyz
    middle = xyz.mean(0)
    wrong = {
        "turned": turned(xyz - middle) + middle,
        "tripled": 3 * xyz,
        "shifted": xyz + torch.tensor([0.6, 0.0, 0.0]),
        "gone": xyz + torch.tensor([50.0, 0.0, 0.0]),
        "millimetres": 1000 * xyz,
    }
    for name, moved in wrong.items():
        found = lego_check(lego, moved)
        assert found.verdict == "misaligned", (name, found)
        assert "does not fit" in found.sentence


def test_more_or_less_than_the_object_is_partly(lego: Scene) -> None:
    assert lego.points is not None
    xyz = lego.points.xyz
    low, high = xyz.amin(0), xyz.amax(0)
    box = low + torch.rand(20_000, 3, generator=GENERATOR) * (high - low)
    around = lego_check(lego, box)
    assert around.verdict == "partly" and "more than the object" in around.sentence
    half = lego_check(lego, xyz[xyz[:, 0] > xyz[:, 0].mean()])
    assert half.verdict == "partly" and "part of the object" in half.sentence


def test_synthetic_box_sparse_and_dense() -> None:
    views = box_views()
    for count in (100, 4000, 200_000):
        assert check_alignment(box_points(count), views).verdict == "aligned", count
    assert check_alignment(turned(box_points()), views).verdict == "misaligned"


def test_photographs_without_masks_leave_it_open() -> None:
    for views in (box_views(has_alpha=False), opaque(box_views())):
        found = check_alignment(box_points(), views)
        assert (found.verdict, found.inside, found.coverage) == ("unknown", None, None)
        assert found.visible == 1 and "no masks" in found.sentence
        far = check_alignment(box_points() + 40, views)
        assert far.verdict == "misaligned" and far.visible == 0
    nothing = check_alignment(box_points(), [])
    assert nothing.verdict == "unknown" and nothing.views == 0


def opaque(views: list[View]) -> list[View]:
    """Files with an alpha channel that is 255 everywhere."""
    for view in views:
        view.pixels()[..., 3] = 255
    return views


def test_points_that_cannot_be_used() -> None:
    views = box_views(4)
    broken = box_points()
    broken[::2] = math.nan
    broken[1] = math.inf
    assert check_alignment(broken, views).verdict == "aligned"
    for none in (torch.zeros(0, 3), torch.full((5, 3), math.nan)):
        found = check_alignment(none, views)
        assert found.verdict == "misaligned" and found.inside == 0


def test_the_answer_repeats_and_views_are_few() -> None:
    decoded: list[int] = []

    def counted(i: int, view: View) -> View:
        def load() -> Tensor:
            decoded.append(i)
            return view.load()

        return View(view.camera, load, view.name)

    views = [counted(i, view) for i, view in enumerate(box_views(20))]
    xyz = box_points(50_000)
    first = check_alignment(xyz, views, sample=500, max_views=5)
    assert first == check_alignment(xyz, views, sample=500, max_views=5)
    assert first.views == 5 and decoded == [0, 4, 8, 12, 16]


def test_views_of_different_sizes_and_large_ones() -> None:
    views = box_views(3) + box_views(3, size=600)
    assert check_alignment(box_points(), views).verdict == "aligned"


def test_other_units_are_named_with_their_factor() -> None:
    views = box_views()
    for factor, said in ((1000.0, "times as large"), (1e-3, " 1/")):
        found = check_alignment(box_points() * factor, views)
        assert found.verdict == ("misaligned" if factor > 1 else "partly")
        assert said in found.sentence and "perhaps other units" in found.sentence
    beside = check_alignment(box_points() + torch.tensor([9.0, 0, 0]), views)
    assert beside.verdict == "misaligned" and "units" not in beside.sentence
