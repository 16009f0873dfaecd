"""`bpcr` and `frepcr` as methods: training, empty views, resume, save and load, odd pictures."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from render.camera import Camera
from render.errors import UserError
from render.methods import method_class
from render.methods.npf import Bpcr, Frepcr, NpfOptions
from render.methods.npf.crop import Region, draw_crop
from render.methods.npf.radius import covering_radius
from render.scenes.background import Background
from render.scenes.types import Bounds, PointCloud, Scene, View
from render.training.trainer import Trainer
from tests.scenes.synthetic import cameras_around, render_sphere

TINY = NpfOptions(
    k=4, dim=4, mlp_width=16, kfn_width=8, unet="pp", unet_levels=2, crop=24, unet_lr=3e-3
)
CPU = torch.device("cpu")
WHITE = torch.ones(3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The networks here are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sphere_points(n: int, radius: float = 0.8) -> PointCloud:
    """Points on the sphere, red where x > 0 and blue elsewhere, but paler than the photographs."""
    i = torch.arange(n) + 0.5
    z, turn = 1 - 2 * i / n, math.pi * (1 + 5**0.5) * i
    r = (1 - z * z).sqrt()
    xyz = radius * torch.stack([r * turn.cos(), r * turn.sin(), z], -1)
    red, blue = torch.tensor([0.7, 0.4, 0.4]), torch.tensor([0.4, 0.4, 0.6])
    return PointCloud(xyz, torch.where(xyz[:, :1] > 0, red, blue))


def as_scene(cameras: list[Camera], points: PointCloud | None, has_alpha: bool = True) -> Scene:
    """Sphere photographs of ``cameras``, all for training."""

    def view(i: int, camera: Camera) -> View:
        return View(camera, lambda: render_sphere(camera), f"r_{i}", has_alpha=has_alpha)

    views = [view(i, camera) for i, camera in enumerate(cameras)]
    bounds = Bounds(torch.zeros(3, dtype=torch.float64), 1.0, 2.0, 6.0)
    splits = {"train": list(range(len(views)))}
    return Scene("ball", views, splits, points, Background(), bounds)  # type: ignore[arg-type]


def ball(n: int = 800, size: int = 32) -> Scene:
    return as_scene(cameras_around(4, size), sphere_points(n))


def make(
    options: NpfOptions = TINY, scene: Scene | None = None, kind: type[Bpcr] = Bpcr, seed: int = 0
) -> Bpcr:
    return kind(options, scene or ball(), CPU, torch.Generator().manual_seed(seed))


def run(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.step().loss for _ in range(steps)]


def away(camera: Camera) -> Camera:
    """The same place, looking the other way."""
    return Camera.look_at(
        camera.position, 2 * camera.position, width=camera.width, height=camera.height
    )


# ------------------------------------------------------------------ training
@pytest.mark.parametrize("kind", [Bpcr, Frepcr])
@pytest.mark.parametrize(
    "change", [{}, {"k": 1}, {"color_skip": False}, {"pix_mask": False, "crop_area": (0.3, 1.0)}]
)
def test_loss_decreases(kind: type[Bpcr], change: dict[str, Any]) -> None:
    options = dataclasses.replace(TINY, **change)
    scene = ball()
    losses = run(Trainer(make(options, scene, kind), scene, seed=0), 40)
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


@pytest.mark.parametrize("name", ["bpcr", "frepcr"])
def test_resume_is_exact(name: str) -> None:
    """Losses of steps n+1 .. n+20 equal those of the uninterrupted run bit for bit."""
    scene = ball()
    first = Trainer(make(scene=scene, kind=method_class(name)), scene, seed=3)  # type: ignore[arg-type]
    run(first, 6)
    state = torch.load(through_file(first.state_dict()), weights_only=True)
    expected = run(first, 20)
    fresh = make(scene=scene, kind=method_class(name), seed=9)  # type: ignore[arg-type]
    second = Trainer(fresh, scene, seed=4)
    run(second, 2)
    second.load_state_dict(state)
    assert run(second, 20) == expected


def through_file(state: dict[str, Any]) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_construction_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    same = [
        torch.equal(a, b)
        for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True)
    ]
    differs = [
        not torch.equal(a, b)
        for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True)
    ]
    assert all(same) and any(differs)


@pytest.mark.parametrize("fit", [True, False])
def test_a_view_without_points_is_skipped_before_any_network(
    fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = as_scene([away(c) for c in cameras_around(3, 32)], sphere_points(500))
    method = make(dataclasses.replace(TINY, version=1, fit=fit), scene)
    monkeypatch.setattr(
        method.network, "forward", lambda *_: pytest.fail("the network saw an empty batch")
    )
    before = [p.clone() for p in method.network.parameters()]
    trainer = Trainer(method, scene, seed=0)
    reports = [trainer.step() for _ in range(4)]
    assert all(r.skipped and "point" in r.skipped for r in reports)
    for old, new in zip(before, method.network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_blank_windows_are_drawn_again() -> None:
    """Most small windows of the padded picture show no point; the step still learns."""
    scene = as_scene(cameras_around(4, 64), sphere_points(3000, 0.3))
    options = dataclasses.replace(TINY, fit=False, crop=12, pad=0.5)
    one_try = Trainer(make(dataclasses.replace(options, crop_tries=1), scene), scene, seed=0)
    many = Trainer(make(dataclasses.replace(options, crop_tries=30), scene), scene, seed=0)
    run(one_try, 20)
    run(many, 20)
    assert many.skipped_steps < one_try.skipped_steps


def test_ids_rays_depths_and_colours_of_a_crop_belong_to_one_pixel() -> None:
    """One point on the ray of each pixel; the photograph's colour is the pixel's place."""
    width, height = 45, 31
    camera = Camera.look_at((0, -3, 1), (0, 0, 0), width=width, height=height)
    xyz = camera.unproject(camera.pixel_centers(), torch.full((height, width), 3.0)).view(-1, 3)
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([cols, rows, cols * 0, cols * 0 + 255], -1).to(torch.uint8)
    scene = as_scene([camera], PointCloud(xyz))
    scene.views[0].load = lambda: pixels
    method = make(dataclasses.replace(TINY, k=1, radius=0.8 / height), scene)
    generator = torch.Generator().manual_seed(0)
    for area in (None, (0.2, 1.0)):
        for _ in range(8):
            region = Region.padded(camera, 0.2)
            crop = draw_crop(region, generator, side=26, area=area)
            batch = method.crop_batch(scene.views[0], crop)
            assert batch is not None
            kbuffer, rays, target = batch
            valid = kbuffer.valid[..., 0]
            place = (target[..., :2] * 255)[valid]  # [M, 2] column, row
            length = (kbuffer.depth[..., 0] / rays.cos)[..., None]
            uv, _ = camera.project((rays.origin + length * rays.directions)[valid])
            assert float((uv - (place + 0.5)).abs().max()) < 0.1
            ids = place[:, 1].round() * width + place[:, 0].round()
            assert torch.equal(ids.int(), kbuffer.index[..., 0][valid])
            inside = crop.inside(camera)
            assert torch.equal(valid, inside)  # nothing invented beyond the border
            assert bool((target[~inside] == 1).all())


def test_learning_rates_fall_by_the_papers_factor_every_epoch() -> None:
    method = make(NpfOptions.faithful())
    assert method.learning_rates(3) == {"mlp": 5e-4, "rect": 1e-4, "kfn": 1.5e-4, "unet": 1.5e-4}
    assert method.learning_rates(8)["mlp"] == pytest.approx(5e-4 * 0.9999**2)
    groups = {g["name"]: sum(p.numel() for p in g["params"]) for g in method.parameter_groups()}
    assert groups == {"mlp": 187_272, "rect": 1608, "kfn": 52_136, "unet": 1_962_467}


def test_every_parameter_is_optimised() -> None:
    method = make(dataclasses.replace(TINY, version=1))
    optimised = {id(p) for group in method.parameter_groups() for p in group["params"]}
    assert optimised == {id(p) for p in method.network.parameters()}


def test_lpips_without_weights_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    scene = ball()
    method = make(dataclasses.replace(TINY, lpips_weight=0.01), scene)
    assert "left out" in str(method.describe()["LPIPS loss"])
    assert set(Trainer(method, scene, seed=0).step().terms) == {"mse"}


# ------------------------------------------------------------------ pictures
@pytest.mark.parametrize("size", [(1, 1), (33, 17), (40, 64)])
@pytest.mark.parametrize("fit", [True, False])
def test_pictures_of_any_size(size: tuple[int, int], fit: bool) -> None:
    method = make(dataclasses.replace(TINY, fit=fit))
    camera = Camera.look_at((0, -4, 0), (0, 0, 0), width=size[0], height=size[1])
    for k in (1, 2, None, 9):
        picture = method.render(camera, WHITE, k)
        assert picture.rgb.shape == (size[1], size[0], 3) and not picture.rgb.requires_grad
        assert float(picture.rgb.min()) >= 0 and float(picture.rgb.max()) <= 1
        assert picture.alpha is not None and picture.depth is not None
        assert bool(((picture.depth > 2) == (picture.alpha > 0)).all())
    assert method.inspect(camera).color.shape == (size[1], size[0], 4, 3)


def test_nothing_in_view_is_the_background() -> None:
    method = make()
    camera = away(method.views[0].camera)
    color = torch.tensor([0.1, 0.5, 0.9])
    picture = method.render(camera, color)
    assert torch.equal(picture.rgb, color.expand(32, 32, 3))
    inspection = method.inspect(camera)
    assert not inspection.kbuffer.valid.any() and not inspection.weight.any()


def test_the_background_shows_where_no_point_is() -> None:
    method = make()
    camera = method.views[0].camera
    black, white = method.render(camera, torch.zeros(3)), method.render(camera, WHITE)
    assert black.alpha is not None and black.depth is not None
    covered = black.depth > 0
    assert not black.rgb[~covered].any() and bool((white.rgb[~covered] == 1).all())
    assert bool((black.alpha[~covered] == 0).all()) and float(black.alpha.max()) > 0.9
    light = (1 - black.alpha)[..., None].expand(-1, -1, 3)  # untrained: nothing is clamped
    torch.testing.assert_close(white.rgb - black.rgb, light)
    network = make(dataclasses.replace(TINY, color_skip=False))  # has no alpha of its own
    black, white = network.render(camera, torch.zeros(3)), network.render(camera, WHITE)
    assert torch.equal(black.rgb[covered], white.rgb[covered])


def test_inspection_describes_the_layers() -> None:
    method = make()
    camera = method.views[1].camera
    for k in (2, 4):
        inside = method.inspect(camera, k)
        kbuffer = inside.kbuffer
        assert kbuffer.k == k and inside.feature_norm is not None
        depth = torch.where(kbuffer.valid, kbuffer.depth, torch.inf)
        assert bool((depth[..., 1:] >= depth[..., :-1]).all())
        covered = kbuffer.valid[..., 0].float()
        torch.testing.assert_close(inside.weight.sum(-1), covered)
        assert bool((inside.feature_norm[kbuffer.valid] > 0).all())
        assert not inside.feature_norm[~kbuffer.valid].any()
        assert method.rgb is not None
        shown = method.rgb[kbuffer.index[kbuffer.valid].long()]
        assert torch.equal(inside.color[kbuffer.valid], shown)


def test_the_rule_covers_the_object() -> None:
    """With the rule's radius at least 95 % of the sphere's pixels have a point."""
    scene = ball(n=3000, size=64)
    method = make(scene=scene)
    for view in scene.views:
        alpha = method.render(view.camera, WHITE).alpha
        assert alpha is not None
        sphere = view.rgba()[1] > 0
        assert float((alpha > 0)[sphere].float().mean()) > 0.95
    cameras = [view.camera for view in scene.views]
    sparse = covering_radius(sphere_points(750).xyz, cameras)
    assert sparse == pytest.approx(2 * covering_radius(sphere_points(3000).xyz, cameras), rel=0.2)
    assert covering_radius(torch.zeros(1, 3), cameras) > 0


# ------------------------------------------------------------------ state
@pytest.mark.parametrize("kind", [Bpcr, Frepcr])
def test_saved_and_loaded_pictures_are_equal_though_the_cloud_differs(kind: type[Bpcr]) -> None:
    scene = ball()
    method = make(scene=scene, kind=kind)
    run(Trainer(method, scene, seed=0), 3)
    state = torch.load(through_file(method.state_dict()), weights_only=True)
    other = as_scene(cameras_around(2, 32), PointCloud(sphere_points(100).xyz))
    loaded = make(scene=other, kind=kind, seed=7)
    loaded.load_state_dict(state)
    camera = cameras_around(5, 40)[2]
    assert torch.equal(method.render(camera, WHITE).rgb, loaded.render(camera, WHITE).rgb)


def test_other_network_sizes_are_refused_in_a_sentence() -> None:
    state = make().state_dict()
    with pytest.raises(UserError, match="'k': 4"):
        make(dataclasses.replace(TINY, k=2)).load_state_dict(state)


def test_scenes_without_points_or_colours() -> None:
    with pytest.raises(UserError, match="point cloud"):
        make(scene=as_scene(cameras_around(2, 16), None))
    scene = as_scene(cameras_around(2, 32), PointCloud(sphere_points(300).xyz))
    method = make(scene=scene)
    assert math.isfinite(Trainer(method, scene, seed=0).step().loss)
    valid = (inside := method.inspect(scene.views[0].camera)).kbuffer.valid
    assert bool((inside.color[valid] == 0.5).all())
