"""Crops: one integer map for ids, depths, rays and targets."""

from __future__ import annotations

import pytest
import torch

from render.camera import Camera
from render.methods.npf.crop import Region, draw_crop, nearest_map, points_box


def camera(width: int, height: int) -> Camera:
    return Camera.look_at((0, -4, 1), (0, 0, 0), width=width, height=height)


def test_nearest_map_is_the_identity_for_equal_sizes_and_exact_otherwise() -> None:
    assert nearest_map(7, 7).tolist() == list(range(7))
    assert nearest_map(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest_map(9, 3).tolist() == [1, 4, 7]
    assert nearest_map(1, 5).tolist() == [0] * 5


@pytest.mark.parametrize("size", [(64, 64), (37, 23), (1, 1)])
@pytest.mark.parametrize("area", [None, (0.1, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize("pad", [0.0, 0.125])
def test_every_map_stays_in_its_window(
    size: tuple[int, int], area: tuple[float, float] | None, pad: float
) -> None:
    view = camera(*size)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        crop = draw_crop(Region.padded(view, pad), generator, side=16, area=area)
        assert int(crop.rows.min()) >= 0 and int(crop.rows.max()) < crop.height
        assert int(crop.cols.min()) >= 0 and int(crop.cols.max()) < crop.width
        assert crop.x >= -round(pad * size[0]) and crop.y >= -round(pad * size[1])
        assert crop.x + crop.width <= size[0] + round(pad * size[0])
        assert crop.y + crop.height <= size[1] + round(pad * size[1])
        if pad == 0:
            assert bool(crop.inside(view).all())
        if area is not None:
            assert crop.width == crop.height and len(crop.rows) == len(crop.cols) == 16
        else:
            assert (len(crop.cols), len(crop.rows)) == (crop.width, crop.height)


def test_pixel_positions_and_rays_agree_with_the_photograph() -> None:
    """A crop's rays are the photograph's rays at the pixels that its colours come from."""
    view = camera(41, 29)
    _, directions, cos = view.rays()
    rows, cols = torch.meshgrid(torch.arange(29), torch.arange(41), indexing="ij")
    place = torch.stack([rows, cols], -1)
    generator = torch.Generator().manual_seed(1)
    for area in (None, (0.2, 1.0)):
        for _ in range(10):
            crop = draw_crop(Region.padded(view, 0.2), generator, side=20, area=area)
            _, d, c = crop.camera(view).rays()
            inside = crop.inside(view)
            at = crop.pick_photo(place)[inside]  # [M, 2]
            torch.testing.assert_close(crop.pick(d)[inside], directions[at[:, 0], at[:, 1]])
            torch.testing.assert_close(crop.pick(c)[inside], cos[at[:, 0], at[:, 1]])


def test_ids_beyond_two_to_the_24_survive_a_crop() -> None:
    ids = torch.tensor([[2**24, 2**24 + 1], [2**31 - 1, -1]], dtype=torch.int32)
    region = Region.padded(camera(2, 2), 0.0)
    crop = draw_crop(region, torch.Generator().manual_seed(0), side=4, area=(1.0, 1.0))
    assert crop.pick(ids).dtype == torch.int32
    assert crop.pick(ids)[::2, ::2].tolist() == ids.tolist()


def test_the_region_holds_every_pixel_that_a_point_covers() -> None:
    uv = torch.tensor([[10.2, 5.0], [30.9, 20.1], [-50.0, 3.0]])
    box = points_box(uv, 1.5, 40, 30)
    assert box is not None and box == (8, 3, 33, 22)  # the point beyond the border does not count
    region = Region.around(box, 4, 16)
    assert region.width % 16 == 0 and region.height % 16 == 0
    assert region.x <= 4 and region.x + region.width >= 37
    assert region.y <= -1 and region.y + region.height >= 26
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # jitter never cuts the box off
        crop = draw_crop(region, generator, side=999, area=None, jitter=4)
        assert crop.x <= box[0] and crop.x + crop.width >= box[2]
        assert crop.y <= box[1] and crop.y + crop.height >= box[3]
    assert points_box(torch.tensor([[-9.0, 5.0]]), 2.0, 40, 30) is None
    assert points_box(torch.zeros(0, 2), 2.0, 40, 30) is None
