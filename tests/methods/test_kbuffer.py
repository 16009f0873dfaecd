"""`kbuffer` as a method: what it learns, what K does, its schedule, the bundled scene."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from render.camera import Camera
from render.errors import UserError
from render.methods import method_class
from render.methods import splatting as method_module
from render.methods.kbuffer import KBufferMethod, KBufferOptions
from render.methods.splatting import RAMP
from render.scenes.background import Background
from render.scenes.load import load_scene
from render.training.trainer import Trainer
from tests.methods.glass_ball import (
    CPU,
    SMALL,
    WHITE,
    Grown,
    assert_same,
    away,
    ball_points,
    glass_ball,
    make,
    psnr,
    run,
    scene_of,
    trained,
    without_network,
)
from tests.scenes.synthetic import as_views, cameras_around

BLACK = torch.zeros(3)
BUNDLED = Path(__file__).parents[2] / "assets" / "scenes" / "lego"
pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ what is learnt
def test_it_is_the_method_named_kbuffer() -> None:
    assert method_class("kbuffer") is KBufferMethod and KBufferMethod.Options is KBufferOptions


def test_loss_falls_and_held_out_views_get_right(grown: Grown) -> None:
    method, scene, losses = grown
    assert sum(losses[-24:]) < 0.5 * sum(losses[:24])
    start = psnr(make(replace(SMALL, points=1200), scene), scene.split("test"))
    end = psnr(method, scene.split("test"))
    assert end > 26 and end > start + 5


def test_more_layers_are_better(grown: Grown) -> None:
    method, scene, _ = grown
    quality = [psnr(method, scene.split("test"), k) for k in range(1, 9)]
    assert quality[0] < quality[7] - 1
    for k in range(1, 8):
        assert quality[k] > max(quality[:k]) - 0.05, (k + 1, quality)
    assert psnr(method, scene.split("test")) == quality[7]
    assert psnr(method, scene.split("test"), 99) == quality[7]


def test_eight_layers_stand_for_all_contributions(grown: Grown) -> None:
    method, scene, _ = grown
    views = scene.split("test")
    errors = [
        (method.render_all(v.camera, WHITE).rgb - v.target(WHITE)).square().mean() for v in views
    ]
    everything = -10 * float(torch.stack(errors).mean().log10())
    assert psnr(method, views) > everything - 0.2


def test_network_pays_for_itself(grown: Grown) -> None:
    method, scene, _ = grown
    views = scene.split("test")
    assert method.network_on
    assert psnr(method, views) > psnr(without_network(method), views) + 0.3


def test_network_starts_where_the_composite_is() -> None:
    trainer, _ = trained(60, SMALL)
    method, camera = trainer.method, trainer.scene.views[0].camera
    assert isinstance(method, KBufferMethod) and not method.network_on
    plain = method.render(camera, WHITE).rgb
    method.network_on = True
    assert torch.equal(method.render(camera, WHITE).rgb, plain)


def test_random_backgrounds_are_drawn_and_learnt_over() -> None:
    scene = glass_ball(views=8, background=Background("random"))
    trainer, losses = trained(60, SMALL, scene)
    assert sum(losses[-16:]) < 0.8 * sum(losses[:16])
    method = trainer.method
    assert isinstance(method, KBufferMethod)
    for view in scene.split("test"):  # the mask itself is learnt
        error = (method.render(view.camera, BLACK).alpha - view.rgba()[1]).abs()  # type: ignore[operator]
        assert float(error.mean()) < 0.15


def test_views_without_a_mask() -> None:
    scene = glass_ball(views=8)
    images = [(v.target(WHITE) * 255).round().to(torch.uint8) for v in scene.views]
    opaque = [torch.cat([i, torch.full_like(i[..., :1], 255)], -1) for i in images]
    views = as_views([v.camera for v in scene.views], opaque)
    for view in views:
        view.has_alpha = False
    scene = scene_of(views, scene.points)
    trainer, losses = trained(60, SMALL, scene)
    assert sum(losses[-16:]) < 0.7 * sum(losses[:16])
    assert trainer.method._boxes == [(0.0, 1.0, 0.0, 1.0)] * 8  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")  # no features
@pytest.mark.parametrize(
    "change",
    [{"k": 1}, {"k": 2, "features": 1}, {"network": False}, {"antialias": True}, {"ssim": 0.2},
     {"features": 0}, {"max_pixels": 500}, {"refine_from": 1, "refine_every": 1}],
)  # fmt: skip
def test_options_train_and_load(change: dict) -> None:
    options = replace(SMALL, warm_up=5, network_from=10, **change)
    scene = glass_ball(300, views=6)
    trainer, losses = trained(25, options, scene)
    assert sum(losses[-6:]) < sum(losses[:6]) and trainer.skipped_steps == 0
    fresh = make(options, scene, seed=3)
    fresh.load_state_dict(trainer.method.state_dict())
    camera = scene.views[0].camera
    one, two = fresh.render(camera, WHITE).rgb, trainer.method.render(camera, WHITE).rgb
    assert torch.equal(one, two)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 18)])
def test_training_on_photographs_of_any_size(size: tuple[int, int]) -> None:
    cameras = [
        Camera.look_at((4.0, y, 1.0), (0.0, 0.0, 0.0), width=size[0], height=size[1])
        for y in (-1.0, 0.0, 1.0)
    ]
    image = torch.full((size[1], size[0], 4), 200, dtype=torch.uint8)
    scene = scene_of(as_views(cameras, [image] * 3), ball_points(200))
    options = replace(SMALL, ssim=0.2, warm_up=2, network_from=5, refine_from=3, refine_every=4)
    trainer, losses = trained(30, options, scene)
    assert sum(losses[-5:]) < sum(losses[:5]) and trainer.skipped_steps == 0


def test_training_where_nothing_is_visible_changes_nothing() -> None:
    cameras = [away(c) for c in cameras_around(4, 16)]
    image = torch.full((16, 16, 4), 255, dtype=torch.uint8)
    scene = scene_of(as_views(cameras, [image] * 4), ball_points(100))
    options = replace(SMALL, warm_up=1, network_from=4, refine_from=2, refine_every=2)
    trainer, _ = trained(0, options, scene)
    before = copy.deepcopy(trainer.method.state_dict())
    assert run(trainer, 8) == [0.0] * 8
    after = trainer.method.state_dict()
    assert_same(before["cloud"], after["cloud"])
    assert_same(before["fusion"], after["fusion"])


# ------------------------------------------------------------------ the schedule
def test_pictures_grow_and_layers_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes and K of every step: coarse first; fewer layers only while the network learns."""
    seen: list[tuple[int, int]] = []

    def spy(method: KBufferMethod, camera: Camera, k: int, probe=None):
        seen.append((camera.width, k))
        return layers(method, camera, k, probe)

    layers = KBufferMethod._layers
    monkeypatch.setattr(KBufferMethod, "_layers", spy)
    monkeypatch.setattr("render.methods.targets.SMALLEST_SIDE", 8)
    monkeypatch.setattr(method_module, "content_box", lambda view: (0.0, 1.0, 0.0, 1.0))
    trained(80, replace(SMALL, coarse_steps=10, network_from=30, warm_up=0, layer_dropout=0.5))
    assert [w for w, _ in seen] == [8] * 10 + [16] * 10 + [32] * 60
    assert {k for _, k in seen[:30]} == {8}
    assert {k for _, k in seen[30:]} == set(range(1, 9))
    assert 15 < sum(k == 8 for _, k in seen[30:]) < 42


def test_rates_fall_and_positions_scale_with_the_scene() -> None:
    method = make()
    first, later = method.learning_rates(0), method.learning_rates(SMALL.half_life)
    assert first.keys() == {g["name"] for g in method.parameter_groups()}
    assert later["means"] == pytest.approx(first["means"] / 2)
    assert all(0 < later[name] < first[name] for name in first if name != "network")
    joins = [method.learning_rates(SMALL.network_from + n)["network"] for n in (-1, 0, 1)]
    assert joins[0] == 0 < joins[1] < joins[2]
    whole = method.learning_rates(SMALL.network_from + RAMP)["network"]
    assert 0 < later["network"] < whole < SMALL.lr_network
    scene = glass_ball()
    wide = replace(scene, bounds=replace(scene.bounds, radius=7.0))
    assert make(scene=wide).learning_rates(0)["means"] == pytest.approx(7 * first["means"])


def test_describe_counts() -> None:
    method = make(scene=glass_ball(300))
    assert method.fusion is not None
    parameters = sum(p.numel() for p in method.fusion.parameters())
    assert method.describe() == {"gaussians": 300, "network parameters": parameters}
    plain = make(replace(SMALL, network=False))
    assert plain.describe()["network parameters"] == 0


# ------------------------------------------------------------------ the bundled scene
def test_bundled_scene_is_recognisable_at_once_and_better_soon() -> None:
    torch.set_num_threads(2)  # one_thread restores it
    scene = load_scene(str(BUNDLED), downscale=4)
    views = scene.split("val")
    method = KBufferMethod(KBufferOptions(), scene, CPU, torch.Generator().manual_seed(0))
    trainer = Trainer(method, scene, 0)
    run(trainer, 1)
    first = psnr(method, views)
    run(trainer, 59)
    assert first > 18.5 and psnr(method, views) > first + 4
    assert psnr(method, views, 1) < psnr(method, views) - 1


@pytest.mark.parametrize("change", [{"k": 0}, {"k": 65}, {"sh_degree": 4}, {"samples": 0}])
def test_options_out_of_range_are_told_in_a_sentence(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match="expected"):
        make(replace(SMALL, **change), glass_ball(20))
