"""The visual hull of shapes whose true surface is known, and the colours of its points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor

from render.camera import Camera
from render.scenes.bounds import bounds_of_cameras
from render.scenes.colors import colors_from_views, point_spacing
from render.scenes.hull import has_silhouettes, visual_hull
from render.scenes.types import PointCloud, View
from tests.scenes.synthetic import (
    as_views,
    cameras_around,
    render_box,
    render_sphere,
    two_colours,
)

SIZE = 64
RADIUS = 0.8
PIXEL = 4.0 * 2 * 0.3650 / SIZE  # width of a pixel at the origin (tan(0.35) = 0.3650)


def sphere_views(count: int = 40, size: int = SIZE) -> list[View]:
    cameras = cameras_around(count, size)
    return as_views(cameras, [render_sphere(camera, RADIUS) for camera in cameras])


def on_sphere(count: int) -> Tensor:
    normal = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(normal, dim=1)


def coverage(cloud: PointCloud, surface: Tensor) -> float:
    """Largest distance from a surface point to the cloud."""
    return float(KDTree(cloud.xyz.numpy()).query(surface.numpy())[0].max())


@pytest.fixture(scope="module")
def views() -> list[View]:
    return sphere_views()


@pytest.fixture(scope="module")
def ball(views: list[View]) -> PointCloud:
    return visual_hull(views, target_points=6000)


def test_points_are_in_the_sphere_and_cover_it(ball: PointCloud) -> None:
    assert len(ball) == 6000
    assert float(ball.xyz.norm(dim=1).max()) < RADIUS + 2.5 * PIXEL
    assert coverage(ball, RADIUS * on_sphere(2000)) < 3 * PIXEL


def test_density_falls_towards_the_middle(ball: PointCloud) -> None:
    """Several full layers below the surface, and fewer but some points all the way in."""
    distance = ball.xyz.norm(dim=1)
    edges = torch.tensor([0.0, 0.3, 0.6, RADIUS])
    counts = torch.histogram(distance, edges).hist
    density = counts / (edges[1:] ** 3 - edges[:-1] ** 3)
    assert float(counts[0]) > 0
    assert density[0] < density[1] < density[2]
    spacing = point_spacing(ball.xyz)
    assert float((distance > RADIUS - 4 * spacing).float().mean()) > 0.5


def test_points_keep_their_distance(ball: PointCloud) -> None:
    nearest = KDTree(ball.xyz.numpy()).query(ball.xyz.numpy(), k=2)[0][:, 1]
    assert nearest.min() > 0
    assert np.quantile(nearest, 0.1) > 0.25 * np.median(nearest)


def test_normals_point_outward(ball: PointCloud) -> None:
    assert ball.normals is not None
    distance = ball.xyz.norm(dim=1)
    outer = distance > 0.6
    cosine = (ball.normals * ball.xyz / distance[:, None]).sum(1)[outer]
    assert float(cosine.median()) > 0.95 and float((cosine > 0.7).float().mean()) > 0.97


def test_same_seed_same_points(views: list[View], ball: PointCloud) -> None:
    torch.testing.assert_close(visual_hull(views, target_points=6000).xyz, ball.xyz)
    other = visual_hull(views, target_points=6000, seed=1)
    assert not torch.equal(other.xyz, ball.xyz)


@pytest.mark.parametrize("target", [50, 1000, 200_000])
def test_any_number_of_points(views: list[View], target: int) -> None:
    cloud = visual_hull(views, target_points=target)
    assert len(cloud) == target
    assert float(cloud.xyz.norm(dim=1).max()) < RADIUS + 2.5 * PIXEL


def test_box_with_thin_side() -> None:
    half = torch.tensor([0.7, 0.4, 0.04])  # the plate is about two pixels thick
    cameras = cameras_around(60, SIZE)
    views = as_views(cameras, [render_box(camera, half) for camera in cameras])
    cloud = visual_hull(views, target_points=6000)
    assert bool((cloud.xyz.abs() < half + 3 * PIXEL).all())
    generator = torch.Generator().manual_seed(2)
    surface = (2 * torch.rand(2000, 3, generator=generator) - 1) * half
    surface[:, 2] = half[2] * surface[:, 2].sign()
    assert coverage(cloud, surface) < 3 * PIXEL


def test_cropped_views_do_not_carve(views: list[View]) -> None:
    """Every second view shows a window only; outside it nothing is known."""
    cropped = []
    for i, view in enumerate(views):
        if i % 2:
            x, y = 8 + i % 20, 12 + i % 16
            camera = view.camera.crop(x, y, 30, 28)
            image = view.pixels()[y : y + 28, x : x + 30].clone()
            view = View(camera, lambda image=image: image, view.name)
        cropped.append(view)
    bounds = bounds_of_cameras([view.camera for view in views])
    cloud = visual_hull(cropped, target_points=6000, bounds=bounds)
    assert float(cloud.xyz.norm(dim=1).max()) < RADIUS + 3 * PIXEL
    assert coverage(cloud, RADIUS * on_sphere(2000)) < 3.5 * PIXEL


def test_one_wrong_mask_in_fifty_is_forgiven() -> None:
    views = sphere_views(50)
    hole = views[7].pixels()
    hole[20:44, 20:44, 3] = 0
    forgiving = visual_hull(views, target_points=6000)
    strict = visual_hull(views, target_points=6000, tolerance=0)
    assert coverage(forgiving, RADIUS * on_sphere(2000)) < 3 * PIXEL
    assert coverage(strict, RADIUS * on_sphere(2000)) > 5 * PIXEL


def test_contradicting_masks_give_no_points() -> None:
    views = sphere_views(12)
    for view in views[::2]:
        view.pixels()[..., 3] = 0
    cloud = visual_hull(views, target_points=1000)
    assert len(cloud) == 0


def test_object_away_from_the_origin() -> None:
    center = torch.tensor([5.0, -3.0, 2.0])
    cameras = [
        Camera.look_at(camera.position + center, center, fov_x=0.7, width=SIZE, height=SIZE)
        for camera in cameras_around(40, SIZE)
    ]
    images = [render_sphere(camera, RADIUS, center=center) for camera in cameras]
    cloud = visual_hull(as_views(cameras, images), target_points=3000)
    assert float((cloud.xyz - center).norm(dim=1).max()) < RADIUS + 2.5 * PIXEL
    assert coverage(cloud, center + RADIUS * on_sphere(1000)) < 4 * PIXEL


def test_silhouettes_are_recognised(views: list[View]) -> None:
    assert has_silhouettes(views)
    opaque = sphere_views(6)
    for view in opaque:
        view.pixels()[..., 3] = 255
    assert not has_silhouettes(opaque)
    without = sphere_views(6)
    for view in without:
        view.has_alpha = False
    assert not has_silhouettes(without)


# ------------------------------------------------------------------ colours
def test_colours_of_a_two_coloured_sphere(views: list[View], ball: PointCloud) -> None:
    rgb = colors_from_views(ball.xyz, views, ball.normals)
    outer = (ball.xyz.norm(dim=1) > RADIUS - 0.1) & (ball.xyz[:, 0].abs() > 0.1)
    error = (rgb - two_colours(ball.xyz)).abs().amax(1)
    assert float((error[outer] < 0.05).float().mean()) > 0.99


def test_hidden_points_take_the_nearest_colour(views: list[View], ball: PointCloud) -> None:
    rgb = colors_from_views(ball.xyz, views, ball.normals)
    inner = (ball.xyz.norm(dim=1) < 0.5) & (ball.xyz[:, 0].abs() > 0.3)
    error = (rgb - two_colours(ball.xyz)).abs().amax(1)
    assert int(inner.sum()) > 20
    assert float((error[inner] < 0.05).float().mean()) > 0.95


def test_points_behind_others_do_not_take_their_colour() -> None:
    """A red sheet in front of a blue one: without occlusion the blue one would turn purple."""
    axis = torch.linspace(-0.5, 0.5, 41)
    y, z = torch.meshgrid(axis, axis, indexing="ij")
    sheet = torch.stack([torch.zeros_like(y), y, z], -1).reshape(-1, 3)
    offset = torch.tensor([0.3, 0.0, 0.0])
    xyz = torch.cat([sheet + offset, sheet - offset])
    red, blue = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])

    def picture(camera: Camera) -> Tensor:
        color = red if float(camera.position[0]) > 0 else blue
        image = torch.full((SIZE, SIZE, 4), 255, dtype=torch.uint8)
        image[..., :3] = (color * 255).to(torch.uint8)
        return image

    cameras = [
        Camera.look_at((side * 3.0, 0.5 * i, 0.2), (0, 0, 0), width=SIZE, height=SIZE)
        for side in (-1, 1)
        for i in range(-2, 3)
    ]
    views = as_views(cameras, [picture(camera) for camera in cameras])
    rgb = colors_from_views(xyz, views)
    count = len(sheet)
    assert float((rgb[:count] - red).abs().amax(1).mean()) < 0.03
    assert float((rgb[count:] - blue).abs().amax(1).mean()) < 0.03
    blind = colors_from_views(xyz, views, occlusion=False)
    assert float((blind[:count] - red).abs().amax(1).mean()) > 0.2


def test_highlights_in_few_views_do_not_count(views: list[View], ball: PointCloud) -> None:
    spoiled = sphere_views()
    for i in np.random.default_rng(0).permutation(len(spoiled))[:4]:
        spoiled[i].pixels()[..., :3] = 255
    rgb = colors_from_views(ball.xyz, spoiled, ball.normals)
    outer = (ball.xyz.norm(dim=1) > RADIUS - 0.1) & (ball.xyz[:, 0].abs() > 0.1)
    error = (rgb - two_colours(ball.xyz)).abs().amax(1)[outer]
    assert float((error < 0.1).float().mean()) > 0.95


def test_nobody_sees_anything() -> None:
    far = torch.full((5, 3), 100.0)
    assert colors_from_views(far, sphere_views(3)).tolist() == [[0.5] * 3] * 5
    assert colors_from_views(torch.zeros(0, 3), sphere_views(2)).shape == (0, 3)
    assert colors_from_views(torch.zeros(2, 3), []).tolist() == [[0.5] * 3] * 2
