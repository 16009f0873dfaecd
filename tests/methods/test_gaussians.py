"""`gaussians` and `gaussians-k`: they learn, resume exactly, keep one background, stay finite."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.gaussians.cloud import Cloud, morton_order
from render.gaussians.ply import from_points, write_ply
from render.kbuffer.gaussians import splat
from render.methods import method_class
from render.methods.gaussians import GaussiansKOptions, GaussiansMethod, GaussiansOptions
from render.sampling import Sampling
from render.scenes.background import Background
from render.scenes.types import PointCloud, Scene
from render.training.trainer import Trainer
from tests.methods.glass_ball import CPU, WHITE, assert_same, away, glass_ball, run
from tests.scenes.synthetic import as_views, cameras_around

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT: dict[str, Any] = {
    "points": 500, "refine_from": 20, "refine_every": 15, "refine_until": 200, "ssim": 0.1,
    "sh_every": 10,
}  # fmt: skip
PLAIN = [
    GaussiansOptions(**SHORT, strategy="blame"),
    GaussiansOptions(**SHORT, strategy="default", reset_every=40),
    GaussiansOptions(**SHORT, strategy="mcmc"),
]
NETWORKS = [
    GaussiansKOptions(**SHORT, reading="layers", network_from=20, width=8, samples_from=10),
    GaussiansKOptions(**SHORT, reading="channels", features=8),
]
ALL = PLAIN + NETWORKS
IDS = ["blame", "default", "mcmc", "layers", "channels"]


def start(options: GaussiansOptions, scene: Scene | None = None, seed: int = 0) -> Trainer:
    scene = scene or glass_ball(600)
    name = "gaussians-k" if isinstance(options, GaussiansKOptions) else "gaussians"
    generator = torch.Generator().manual_seed(seed)
    return Trainer(method_class(name)(options, scene, CPU, generator), scene, seed)


def psnr(trainer: Trainer, split: str = "test") -> float:
    views = trainer.scene.split(split)  # type: ignore[arg-type]
    errors = [
        (trainer.method.render(v.camera, WHITE).rgb - v.target(WHITE)).square().mean()
        for v in views
    ]
    return -10 * math.log10(float(torch.stack(errors).mean()))


@pytest.mark.parametrize("options", ALL, ids=IDS)
def test_it_learns_what_it_has_not_seen(options: GaussiansOptions) -> None:
    trainer = start(replace(options, reset_every=10**6))  # lowering takes more steps to recover
    before = psnr(trainer)
    losses = run(trainer, 120)
    assert all(map(math.isfinite, losses)) and trainer.skipped_steps == 0
    assert psnr(trainer) - before > (1.0 if options.strategy == "default" else 1.5)
    assert sum(losses[-10:]) < 0.8 * sum(losses[30:40])  # from 30 on at full resolution


@pytest.mark.parametrize("options", ALL, ids=IDS)
def test_a_resumed_run_takes_the_same_steps(options: GaussiansOptions) -> None:
    one = start(options)
    run(one, 27)
    state = copy.deepcopy(one.state_dict())
    expected = run(one, 25)  # through refinements, a reset of the opacities, a new degree
    other = start(options, seed=5)
    other.load_state_dict(state)
    assert run(other, 25) == expected
    assert_same(one.method.state_dict(), other.method.state_dict())


def test_view_dependence_learns_degree_by_degree() -> None:
    trainer = start(GaussiansOptions(**(SHORT | {"sh_every": 5}), sh_degree=2))
    method = trainer.method
    assert isinstance(method, GaussiansMethod)
    used = []
    for _ in range(3):
        run(trainer, 5)
        used.append((method.cloud.sh_rest.detach().abs().sum((0, 2)) > 0).tolist())
    assert used[0] == [False] * 8 and used[1] == [True] * 3 + [False] * 5 and used[2] == [True] * 8


def test_refinements_are_noted() -> None:
    trainer = start(PLAIN[0])
    run(trainer, 70)
    events = trainer.method.events  # type: ignore[attr-defined]
    assert [e.step for e in events] == [20, 35, 50, 65]
    assert events[-1].after == len(trainer.method.cloud)  # type: ignore[attr-defined]
    assert all(e.after >= e.before and "moved" in e.note for e in events)


@pytest.mark.parametrize("kind", ["white", "black", "random"])
def test_floaters_in_the_background_colour_are_an_error(kind: str) -> None:
    """The authors' program rendered over black and dropped the alpha of its photographs, so black
    Gaussians in empty space cost nothing. Here they fade, whatever the background is."""
    scene = glass_ball(300, size=32, views=10)
    assert scene.points is not None
    g = torch.Generator().manual_seed(0)
    far = 1.6 * torch.nn.functional.normalize(torch.randn(60, 3, generator=g), dim=1)
    color = 0.0 if kind == "black" else 1.0
    points = PointCloud(
        torch.cat([scene.points.xyz, far]),
        torch.cat([scene.points.rgb, torch.full((60, 3), color)]),  # type: ignore[list-item]
    )
    scene = replace(scene, points=points, background=Background("random"))
    options = replace(PLAIN[0], refine_from=10**6, points=1000, surface_scale=0.8)
    trainer = start(options, scene)
    run(trainer, 150)
    shown = []
    for background in (torch.zeros(3), torch.ones(3), torch.tensor([0.9, 0.1, 0.2])):
        for view in scene.split("test"):
            outside = view.pixels()[..., 3] == 0
            rgb = trainer.method.render(view.camera, background).rgb
            shown.append(float((rgb[outside] - background).abs().mean()))
    assert max(shown) < 0.05, shown  # empty space shows the background, any background


@pytest.mark.parametrize("options", [PLAIN[0], *NETWORKS], ids=["plain", *IDS[3:]])
def test_fewer_layers_are_less_and_all_are_the_picture(options: GaussiansOptions) -> None:
    trainer = start(replace(options, k=6, samples=1))
    run(trainer, 60)
    view = trainer.scene.split("test")[0]
    method, target = trainer.method, view.target(WHITE)
    errors = [
        float((method.render(view.camera, WHITE, k).rgb - target).square().mean()) for k in (1, 6)
    ]
    assert errors[0] > errors[1]
    assert torch.equal(
        method.render(view.camera, WHITE).rgb, method.render(view.camera, WHITE, 99).rgb
    )


@pytest.mark.parametrize("options", ALL, ids=IDS)
def test_hostile_gaussians(options: GaussiansOptions) -> None:
    """NaN, huge, needle-like, behind the camera, transparent: pictures and steps stay finite."""
    trainer = start(options)
    cloud = trainer.method.cloud  # type: ignore[attr-defined]
    with torch.no_grad():
        cloud.means[0] = math.nan
        cloud.log_scales[1] = 50.0
        cloud.log_scales[2] = torch.tensor([3.0, -20.0, -20.0])
        cloud.quats[3] = 0.0
        cloud.logits[4] = math.inf
        cloud.logits[5] = -200.0
        cloud.sh0[6] = 1e6
        cloud.means[7] = 1e20
    for camera in (trainer.scene.views[0].camera, away(trainer.scene.views[0].camera)):
        assert bool(trainer.method.render(camera, WHITE).rgb.isfinite().all())
    run(trainer, 40)
    view = trainer.scene.split("test")[0]
    assert bool(trainer.method.render(view.camera, WHITE).rgb.isfinite().all())
    broken = ~torch.stack(
        [
            t.detach().flatten(1).isfinite().all(1) if t.ndim > 1 else t.detach().isfinite()
            for t in cloud.tensors().values()
        ]
    ).all(0)
    assert int(broken.sum()) <= 4  # nothing spreads


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_points(count: int) -> None:
    scene = glass_ball(300)
    assert scene.points is not None
    few = replace(scene, points=scene.points.subset(torch.arange(count)))
    for options in ALL:
        losses = run(start(options, few), 30)
        assert all(map(math.isfinite, losses))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"strategy": "foo"}, "blame, default or mcmc"),
        ({"k": 0}, "1 to 64"),
        ({"sh_degree": 4}, "0, 1, 2 or 3"),
        ({"low_pass": 0.0}, "positive number"),
        ({"samples": 0}, "1 to 4"),
        ({"samples": 5}, "1 to 4"),
    ],
)
def test_wrong_options_are_a_sentence(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        start(replace(PLAIN[0], **change))


def test_a_known_set_of_gaussians_is_recovered() -> None:
    """Photographs of 12 Gaussians; the fit starts from them, displaced, grey, round and faint."""
    g = torch.Generator().manual_seed(1)
    truth = Cloud(
        {
            "means": 0.6 * (torch.rand(12, 3, generator=g) - 0.5) * 2,
            "quats": torch.randn(12, 4, generator=g),
            "log_scales": torch.log(0.08 + 0.12 * torch.rand(12, 3, generator=g)),
            "logits": torch.full((12,), 2.0),
            "sh0": 1.5 * torch.randn(12, 3, generator=g).clamp(-1, 1),
            "sh_rest": torch.zeros(12, 0, 3),
        }
    )

    def photograph(camera: Camera) -> Tensor:
        with torch.no_grad():
            projected = truth.project(camera, 0.01, antialias=False)
            seen = splat(projected, projected.rgb, camera.width, camera.height, 0)
        straight = seen.image / seen.alpha.clamp(min=1e-6)[..., None]
        rgba = torch.cat([straight.clamp(0, 1), seen.alpha[..., None]], -1)
        return (255 * rgba).round().to(torch.uint8)

    cameras = cameras_around(14, 48)
    views = as_views(cameras, [photograph(c) for c in cameras])
    moved = truth.means.detach() + 0.04 * torch.randn(12, 3, generator=g)
    scene = replace(
        glass_ball(100),
        views=views,
        splits={"train": list(range(12)), "test": [12, 13]},
        points=PointCloud(moved),
        background=Background("random"),
    )
    options = GaussiansOptions(
        sh_degree=0, refine_from=10**6, ssim=0.0, coarse_steps=0, surface_lr_means=2e-3
    )
    trainer = start(options, scene)
    run(trainer, 700)
    cloud = trainer.method.cloud  # type: ignore[attr-defined]
    assert psnr(trainer) > 36
    truth.replace({n: t[morton_order(moved)] for n, t in truth.tensors().items()})
    distance = (cloud.means - truth.means).detach().norm(dim=1)
    assert float(distance.quantile(0.8)) < 0.01  # one or two may hide behind others
    color = (cloud.sh0 - truth.sh0).detach().abs() * 0.282
    assert float(color.median()) < 0.03
    ours, theirs = cloud.log_scales.detach().sort(1).values, truth.log_scales.sort(1).values
    assert float((ours - theirs).abs().median()) < 0.15


def test_a_trained_cloud_is_written_and_seen_the_same(tmp_path: Any) -> None:
    from render.export.splats import SplatRenderer
    from render.scenes.clouds.pointcloud import read_point_cloud

    trainer = start(replace(PLAIN[0], samples=2, samples_from=30))
    run(trainer, 60)
    cloud = trainer.method.cloud  # type: ignore[attr-defined]
    write_ply(tmp_path / "out.ply", cloud)
    points = read_point_cloud(tmp_path / "out.ply")
    assert points.sampling == cloud.sampling == Sampling(0.1, 2)
    assert_same(
        {n: t.detach() for n, t in cloud.tensors().items()},
        {n: t.detach() for n, t in from_points(points).tensors().items()},
    )
    renderer = SplatRenderer(replace(trainer.scene, views=[], splits={}, points=points), 8)
    view = trainer.scene.split("test")[0]
    ours, theirs = (r.render(view.camera, WHITE).rgb for r in (trainer.method, renderer))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    inside = renderer.inspect(view.camera, 3)
    assert inside.kbuffer.k == 3 and bool(inside.kbuffer.valid.any())
    fewer = renderer.render(view.camera, WHITE, 1).rgb
    assert not torch.equal(fewer, theirs)
