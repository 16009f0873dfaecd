"""Where the points come from: hulls of analytic solids, wrong masks, no masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from render.errors import UserError
from render.methods.point_radiance import PointRadianceOptions
from render.methods.point_radiance.masks import Corruption, carving_view, masked
from render.methods.point_radiance.start import agreement, default_count, starting_points
from render.scenes.bounds import bounds_of_cameras
from render.scenes.hull import carve
from render.scenes.types import PointCloud, Scene, View
from tests.methods.disc_scenes import (
    RADIUS,
    RING,
    TUBE,
    hits_sphere,
    hits_torus,
    on_white,
    scene_of,
    sphere_scene,
    sphere_views,
    torus_distance,
    torus_view,
    with_alpha,
)
from tests.scenes.synthetic import cameras_around

SIZE = 48
HULL = PointRadianceOptions(start="hull", filter_consistency_ratio=1.0, points=2000)


def in_all_silhouettes(points: Tensor, views: list[View], hits) -> Tensor:
    """Whether the true solid lies on the way from every camera to each point [N, 3]."""
    inside = torch.ones(len(points), dtype=torch.bool)
    for view in views:
        origin = view.camera.position
        direction = torch.nn.functional.normalize(points.double() - origin, dim=1)
        inside &= hits(origin, direction)
    return inside


def grown(voxels: np.ndarray) -> np.ndarray:
    """With all their neighbours."""
    return np.asarray(ndimage.binary_dilation(voxels, np.ones((3, 3, 3), bool)))


@pytest.mark.parametrize("solid", ["sphere", "torus"])
def test_hull_is_exact_within_a_voxel(solid: str) -> None:
    """Voxels and the analytic hull differ by less than a voxel, both ways."""
    if solid == "sphere":
        views, hits = sphere_views(24, SIZE), hits_sphere
    else:
        views = [torus_view(c, f"t{i}") for i, c in enumerate(cameras_around(24, SIZE))]
        hits = hits_torus
    cameras = [view.camera for view in views]
    masks = [view.pixels()[..., 3].numpy() >= 64 for view in views]
    carved = carve(cameras, masks, bounds_of_cameras(cameras), 0)
    low, high = carved.cells.min(0) - 3, carved.cells.max(0) + 4
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1)  # [x, y, z, 3]
    ours = np.zeros(grid.shape[:3], bool)
    ours[tuple((carved.cells - low).T)] = True
    centers = torch.from_numpy((grid + 0.5) * carved.size + carved.origin).view(-1, 3)
    truth = in_all_silhouettes(centers, views, hits).view(grid.shape[:3]).numpy()
    assert not (ours & ~grown(truth)).any()
    assert not (truth & ~grown(ours)).any()
    solid_volume = torus_distance(centers) < 0 if solid == "torus" else centers.norm(dim=1) < RADIUS
    assert not (solid_volume.view(grid.shape[:3]).numpy() & ~grown(ours)).any()


def test_hole_of_the_torus_is_open() -> None:
    views = [torus_view(c, f"t{i}") for i, c in enumerate(cameras_around(40, SIZE))]
    points = starting_points(HULL, scene_of(views, 0), 0).points
    assert float(points.xyz[:, :2].norm(dim=1).min()) > RING - TUBE - 0.12


@pytest.mark.parametrize("data_r", [0.005, 0.02])
def test_data_r_is_the_share_of_the_voxels(data_r: float) -> None:
    """The hull of a sphere in voxels of 0.01 / 1.366 of the radius that the cameras look at."""
    scene = sphere_scene(24, SIZE, 0)
    points = starting_points(replace(HULL, data_r=data_r), scene, 0).points
    edge = 0.01 / 1.366 * bounds_of_cameras([v.camera for v in scene.views]).radius
    voxels = 4 / 3 * np.pi * RADIUS**3 / edge**3
    assert len(points) == pytest.approx(data_r * voxels, rel=0.25)
    assert points.rgb is not None and points.rgb.shape == points.xyz.shape
    third = (points.xyz.norm(dim=1) < RADIUS * 0.5 ** (1 / 3)).float().mean()
    assert float(third) == pytest.approx(0.5, abs=0.12)  # evenly all over the volume


def test_scene_presets() -> None:
    options = PointRadianceOptions(data_r=-1, splatting_r=-1)
    assert options.scene_value("data_r", "Lego") == 0.08
    assert options.scene_value("splatting_r", "hotdog") == 0.015
    assert PointRadianceOptions().scene_value("data_r", "lego") == 0
    with pytest.raises(UserError, match=r"splatting_r=-2"):
        PointRadianceOptions(splatting_r=-2).scene_value("splatting_r", "lego")


# ---------------------------------------------------------------------------- empty hulls
def test_empty_hull_is_explained() -> None:
    views = sphere_views(12)
    for i, view in enumerate(views):
        if i % 2:
            view.pixels()[..., 3] = 0
            view.pixels()[0, 0, 3] = 255
    with pytest.raises(UserError, match=r"hull is empty.*12 of the 12.*filter_consistency_ratio"):
        starting_points(HULL, scene_of(views, 0), 0)
    half = replace(HULL, filter_consistency_ratio=0.5)
    assert len(starting_points(half, scene_of(views, 0), 0).points) == HULL.points


def test_too_much_corruption_is_explained() -> None:
    wrong = replace(HULL, pc_jitter_amount=0.5)
    with pytest.raises(UserError, match=r"smaller pc_jitter_amount than 0\.5"):
        starting_points(wrong, sphere_scene(30, 32, 0), 0)


def test_data_r_that_leaves_nothing_is_explained() -> None:
    with pytest.raises(UserError, match="data_r=1e-07 leaves none"):
        starting_points(replace(HULL, data_r=1e-7), sphere_scene(12, 32, 0), 0)


def test_start_that_is_not_there_is_explained() -> None:
    scene = scene_of([on_white(view) for view in sphere_views()])
    with pytest.raises(UserError, match="start=hull needs photographs with masks"):
        starting_points(HULL, scene, 0)
    with pytest.raises(UserError, match="start=points needs a point cloud"):
        starting_points(PointRadianceOptions(start="points"), scene, 0)


# ---------------------------------------------------------------------------- wrong masks
def test_no_corruption_changes_nothing() -> None:
    mask = sphere_views(1)[0].pixels()[..., 3]
    assert Corruption(0.0, 1, 42).apply(0, mask) is mask


def test_corruption_is_an_affine_map() -> None:
    """The middle of the mask moves as the matrix and the shift say, and its area by the
    determinant."""
    mask = torch.zeros(64, 96, dtype=torch.uint8)
    mask[26:38, 44:56] = 255  # around (50, 32); the picture's middle is (48, 32)
    corruption = Corruption(0.15, 6, 7)
    for i in range(6):
        matrix, shift = corruption.linear(i)
        moved = corruption.apply(i, mask).double()
        v, u = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
        center = torch.stack([(u * moved).sum(), (v * moved).sum()]) / moved.sum()
        middle = torch.tensor([48.0, 32.0], dtype=torch.float64)
        size = torch.tensor([96.0, 64.0], dtype=torch.float64)
        expected = matrix @ torch.tensor([2.0, 0.0], dtype=torch.float64) + middle + shift * size
        torch.testing.assert_close(center, expected, atol=0.1, rtol=0)
        area = float(moved.sum()) / 255 / 144
        assert area == pytest.approx(float(matrix.det()), rel=0.03)
        assert float(shift.abs().max()) <= 0.075


def test_larger_amounts_are_the_same_draws_magnified() -> None:
    small, large = (Corruption(x, 3, 42) for x in (0.05, 0.1))
    torch.testing.assert_close(2 * small.linear(1)[1], large.linear(1)[1])
    assert torch.equal(small.draws, large.draws)


def test_photographs_stay_as_they_are() -> None:
    view = sphere_views(1)[0]
    carved = carving_view(view, 0, "alpha", Corruption(0.2, 1, 1))
    assert torch.equal(carved.pixels()[..., :3], view.pixels()[..., :3])
    assert not torch.equal(carved.pixels()[..., 3], view.pixels()[..., 3])


def test_red_takes_blue_for_background() -> None:
    """What the authors' hull does, and why it is not the default."""
    view = sphere_views(1)[0]
    pixels = view.pixels()
    object_ = pixels[..., 3] > 0
    pixels[..., :3][object_] = torch.tensor([0, 0, 255], dtype=torch.uint8)
    mask = carving_view(view, 0, "red", Corruption(0, 1, 1)).pixels()[..., 3]
    assert not bool(mask.any()) and bool(object_.any())


def coverage(points: PointCloud) -> float:
    """Largest distance from the sphere's surface to a point."""
    normal = torch.randn(1500, 3, generator=torch.Generator().manual_seed(1))
    surface = RADIUS * torch.nn.functional.normalize(normal, dim=1)
    return float(torch.cdist(surface, points.xyz).amin(1).max())


def damaged(kind: str, view: View, number: int) -> View:
    """A view of every third number has a wrong mask, or none."""
    if number % 3:
        return view
    alpha = view.pixels()[..., 3]
    if kind == "missing":
        return on_white(view)
    if kind == "holed":
        alpha = alpha.clone()
        alpha[12:22, 10:20] = 0
        return with_alpha(view, alpha)
    grow = ndimage.binary_dilation if kind == "dilated" else ndimage.binary_erosion
    return with_alpha(view, 255 * torch.from_numpy(grow(alpha.numpy() > 0, iterations=3)).byte())


@pytest.mark.parametrize("kind", ["dilated", "eroded", "holed", "missing"])
def test_masks_of_the_real_world(kind: str) -> None:
    """A third of the masks is wrong: with a consistency of 0.6 the hull covers the sphere."""
    views = [damaged(kind, view, i) for i, view in enumerate(sphere_views(30, 40))]
    lenient = replace(HULL, filter_consistency_ratio=0.6, points=3000)
    points = starting_points(lenient, scene_of(views, 0), 0).points
    assert coverage(points) < 0.15
    # As far as rays of a third fewer views, and pixels of the rim, leave it open.
    assert float(points.xyz.norm(dim=1).max()) < RADIUS + 0.35
    if kind in ("eroded", "holed"):
        strict = starting_points(HULL, scene_of(views, 0), 0).points
        assert coverage(strict) > coverage(points)


# ---------------------------------------------------------------------------- without masks
def test_without_masks_points_gather_where_photographs_agree() -> None:
    views = [on_white(view) for view in sphere_views(30, 40)]
    assert not any(masked(view, "alpha") for view in views)
    options = PointRadianceOptions(points=1500)
    points = starting_points(options, scene_of(views, 0), 0).points
    assert len(points) == 1500
    distance = points.xyz.norm(dim=1)
    radius = bounds_of_cameras([view.camera for view in views]).radius
    chance = ((RADIUS + 0.1) ** 3 - (RADIUS - 0.1) ** 3) / radius**3
    found = float(((distance - RADIUS).abs() < 0.1).float().mean())
    assert found > 1.5 * chance


def test_agreement_counts_views_in_frame() -> None:
    views = [on_white(view) for view in sphere_views(6, 32)]
    middle = torch.zeros(1, 3)
    white = torch.ones(1, 3)
    assert float(agreement(torch.tensor([[0.0, 0.0, 1.25]]), white, views, 0.1)) > 0.5
    assert float(agreement(middle, torch.tensor([[0.0, 0.0, 0.0]]), views, 0.05)) < 0.5
    behind = torch.tensor([[900.0, 0.0, 0.0]])
    assert float(agreement(behind, white, views[:1], 0.1)) == 0.0


# ---------------------------------------------------------------------------- given points
def test_a_given_cloud_is_taken_and_thinned() -> None:
    cloud = PointCloud(torch.rand(500, 3), torch.rand(500, 3), source="points.ply")
    scene: Scene = replace(sphere_scene(), points=cloud)
    start = starting_points(PointRadianceOptions(points=100), scene, 3)
    assert len(start.points) == 100 and "points.ply" in start.note
    assert starting_points(PointRadianceOptions(), scene, 3).points.xyz.equal(cloud.xyz)
    bare = replace(scene, points=replace(cloud, rgb=None))
    rgb = starting_points(PointRadianceOptions(), bare, 3).points.rgb
    assert rgb is not None and bool((rgb == 0.5).all())


def test_the_scenes_own_hull_is_used_unless_another_is_asked_for() -> None:
    loaded = PointCloud(torch.rand(300, 3), torch.rand(300, 3), source="hull", fills_volume=True)
    scene = replace(sphere_scene(12, 32, 0), points=loaded)
    assert starting_points(PointRadianceOptions(), scene, 0).points.source == "hull"
    assert len(starting_points(PointRadianceOptions(), scene, 0).points) == 300
    other = PointRadianceOptions(points=700, mask_threshold=0.5)
    assert len(starting_points(other, scene, 0).points) == 700


def test_default_count_follows_the_size() -> None:
    assert default_count(sphere_views(1, 200)) == 40_000
    assert default_count(sphere_views(1, 400)) == 80_000
    assert default_count(sphere_views(1, 8)) == 4_000
