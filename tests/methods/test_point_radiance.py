"""`point-radiance`: it learns, its stages do what they say, it resumes exactly, layers add up."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.methods.point_radiance import (
    FaithfulOptions,
    PointRadianceFaithful,
    PointRadianceMethod,
    PointRadianceOptions,
    refine,
)
from render.methods.point_radiance.stages import Stage, at, plan, rates
from render.scenes.types import PointCloud, View
from render.training.trainer import Trainer
from tests.methods.disc_scenes import (
    CPU,
    RADIUS,
    SMALL,
    WHITE,
    make,
    on_white,
    psnr,
    scene_of,
    sphere_scene,
    sphere_views,
)
from tests.methods.glass_ball import assert_same

pytestmark = pytest.mark.usefixtures("one_thread")
BLACK = torch.zeros(3)


def run(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.step().loss for _ in range(steps)]


@pytest.fixture(scope="module")
def trained() -> Trainer:
    """After all stages. Tests must leave it as it is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scene = sphere_scene(20)
    trainer = Trainer(make(scene=scene), scene, 0)
    run(trainer, 62)
    torch.set_num_threads(threads)
    return trainer


def method_of(trainer: Trainer) -> PointRadianceMethod:
    assert isinstance(trainer.method, PointRadianceMethod)
    return trainer.method


# ---------------------------------------------------------------------------- learning
def test_it_learns_views_that_it_has_not_seen(trained: Trainer) -> None:
    held_out = trained.scene.split("test")
    before, after = psnr(make(scene=trained.scene), held_out), psnr(method_of(trained), held_out)
    assert after > before + 3 and after > 21


def test_every_stage_is_entered_and_noted(trained: Trainer) -> None:
    method = method_of(trained)
    assert [e.step for e in method.events] == [9, 19, 39]
    assert [e.note.split(":")[0] for e in method.events] == [
        "view dependence",
        "refinement 1",
        "refinement 2",
    ]
    assert not method.events[0].rebuilt and method.events[0].before == method.events[0].after
    doubled = method.events[1]
    assert doubled.rebuilt and "doubled" in doubled.note
    assert method.events[2].before == doubled.after
    assert len(method.points) == method.events[-1].after <= method.limit
    assert [(s.name, s.first, s.steps) for s in method.plan()][-1] == ("refinement 2", 40, 20)


def test_base_stage_leaves_harmonics_alone() -> None:
    scene = sphere_scene()
    method = make(scene=scene)
    trainer = Trainer(method, scene, 0)
    before = copy.deepcopy(method.state_dict()["points"])
    run(trainer, 9)
    assert torch.equal(method.points.sh, before["sh"]) and not method.harmonics
    for name in ("xyz", "radius", "base"):
        assert not torch.equal(getattr(method.points, name), before[name])
    run(trainer, 2)
    assert method.harmonics and bool(method.points.sh.any())


def test_positions_from_silhouettes_then_colours_alone() -> None:
    """The stages for wrong masks: first only positions move, then all but them; ridge pulls in."""
    options = replace(SMALL, pos_first=True, pos_epochs=1, sh_alone=True, sh_alone_epochs=1)
    options = replace(options, ridge_position=0.5, outliers=True)
    scene = sphere_scene()
    method = make(options, scene)
    trainer = Trainer(method, scene, 0)
    assert [(s.name, s.first) for s in method.plan()][:3] == [
        ("positions from silhouettes", 0),
        ("colours alone", 10),
        ("base colours", 20),
    ]
    before = copy.deepcopy(method.state_dict()["points"])
    report = trainer.step()
    assert set(report.terms) == {"silhouette", "ridge"}
    assert report.loss == pytest.approx(report.terms["silhouette"] + 0.5 * report.terms["ridge"])
    away = (before["xyz"] - method.center) / method.radius
    assert report.terms["ridge"] == pytest.approx(float(away.square().mean()))
    run(trainer, 8)
    assert all(torch.equal(getattr(method.points, n), before[n]) for n in ("radius", "base", "sh"))
    assert float(method.points.xyz.detach().norm(dim=1).mean()) < float(
        before["xyz"].norm(dim=1).mean()
    )
    run(trainer, 1)
    assert "outlying points removed" in method.events[-1].note
    start = copy.deepcopy(method.state_dict()["points"])
    assert set(trainer.step().terms) == {"mse", "gradient"}
    assert torch.equal(method.points.xyz, start["xyz"])
    assert not torch.equal(method.points.sh, start["sh"])


def test_rates_fall_by_epochs_and_begin_anew() -> None:
    o = PointRadianceOptions(epoch=10, decay=0.5, lowest=0.2, base_epochs=5, sh_epochs=5)
    stages = plan(o, 7)
    base = at(stages, 49)
    assert base.name == "base colours" and at(stages, 50).name == "view dependence"
    found = [rates(base, o, 7, step)["base"] / o.lr_base_only for step in (0, 9, 10, 20, 30, 49)]
    assert found == [1, 1, 0.5, 0.25, 0.2, 0.2]
    assert rates(at(stages, 50), o, 7, 50)["xyz"] == o.lr_xyz
    assert at(stages, 10**6) is stages[-1]
    later = replace(o, refine_n=2, refine_epochs=3)
    found = [rates(at(plan(later, 7), step), later, 7, step)["sh"] for step in (90, 100, 130)]
    assert found == [0.2 * o.lr_sh] * 3  # refinements do not wake them
    direct = plan(replace(later, sh_epochs=0), 7)
    assert [s.since - s.first for s in direct] == [0, 0, -30]
    later = replace(later, refine_restart=True)
    assert rates(at(plan(later, 7), 130), later, 7, 130)["sh"] == o.lr_sh
    by_views = plan(replace(o, epoch=0), 7)
    assert [s.steps for s in by_views[:2]] == [35, 35]


def test_stages_can_be_left_out() -> None:
    none = replace(PointRadianceOptions(), base_epochs=0, sh_epochs=0, refine_n=0)
    assert [s.name for s in plan(none, 5)] == ["view dependence"]
    only = replace(none, pos_first=True, sh_epochs=2)
    for outliers, begin in ((False, "nothing"), (True, "outliers")):
        assert [(s.name, s.begin) for s in plan(replace(only, outliers=outliers), 5)] == [
            ("positions from silhouettes", "nothing"),
            ("view dependence", begin),
        ]
    alone = plan(replace(none, sh_alone=True, sh_epochs=2), 5)[0]
    assert (alone.rates["xyz"], alone.rates["radius"]) == (0, 0)
    assert 0 < alone.rates["sh"] < none.lr_sh and 0 < alone.rates["base"] < none.lr_base
    faithful = plan(replace(FaithfulOptions(), sh_alone=True), 5)[0].rates
    assert faithful["sh"] == faithful["base"] == pytest.approx(1.5e-2)  # the authors'


def test_wide_hull_shrinks_onto_the_silhouettes() -> None:
    """Points that wrong masks have put around the object are gone after the first stage."""
    options = replace(
        SMALL,
        filter_consistency_ratio=0.6,
        pc_jitter_amount=0.1,
        pos_first=True,
        pos_epochs=4,
        start="hull",
    )
    scene = sphere_scene(14, 32)
    method = make(options, scene)
    trainer = Trainer(method, scene, 0)

    def outside() -> float:
        return float((method.points.xyz.norm(dim=1) > RADIUS + 0.05).float().mean())

    before = outside()
    run(trainer, 40)
    assert before > 0.05 and outside() < 0.8 * before


def test_a_skipped_step_loses_no_stage() -> None:
    scene = sphere_scene()
    method = make(scene=scene)
    trainer = Trainer(method, scene, 0)
    run(trainer, 9)
    place = method.points.xyz.detach().clone()
    with torch.no_grad():
        method.points.xyz += 50
    assert trainer.step().skipped == "no point is in this window" and not method.events
    with torch.no_grad():
        method.points.xyz.copy_(place)
    assert trainer.step().skipped is None
    assert [event.step for event in method.events] == [10] and method.begun == 1


def test_same_seed_same_model_other_seed_another() -> None:
    scene = sphere_scene()
    a, b, c = (Trainer(make(scene=scene, seed=s), scene, s) for s in (1, 1, 2))
    assert run(a, 25) == run(b, 25) != run(c, 25)
    assert_same(a.method.state_dict(), b.method.state_dict())


@pytest.mark.parametrize("step", [5, 19, 20, 33])
def test_resume_repeats_every_loss(step: int) -> None:
    """Saved within a stage, and right before and after points are doubled."""
    scene = sphere_scene()
    trainer = Trainer(make(scene=scene), scene, 0)
    run(trainer, step)
    saved = copy.deepcopy(trainer.state_dict())
    expected = run(trainer, 15)
    other = Trainer(make(scene=scene), scene, 5)
    other.load_state_dict(saved)
    assert run(other, 15) == expected
    assert_same(other.method.state_dict(), trainer.method.state_dict())
    assert trainer.intact() and other.intact()


def test_without_masks_it_learns_too() -> None:
    views = [on_white(view) for view in sphere_views(40)]
    scene = scene_of(views)
    options = replace(SMALL, k=15, points=2500, radius=0.05, epoch=100, refine_n=0, lr_radius=0.05)
    trainer = Trainer(make(options, scene), scene, 0)
    before = psnr(method_of(trainer), scene.split("test"))
    run(trainer, 100)
    assert psnr(method_of(trainer), scene.split("test")) > before + 3


# ---------------------------------------------------------------------------- pictures
def test_layers_add_up_to_the_picture(trained: Trainer) -> None:
    method, camera = method_of(trained), trained.scene.split("test")[0].camera
    picture, inside = method.view(camera, WHITE)
    weight, valid = inside.weight, inside.kbuffer.valid
    opacity, light = inside.extra["opacity"][..., 0], inside.extra["transmittance"][..., 0]
    torch.testing.assert_close(weight, opacity * light, rtol=1e-4, atol=1e-6)
    peak = inside.kbuffer.gather(method._on_screen(camera).peak[:, None].detach())[..., 0]
    soft = peak * (1 - inside.kbuffer.distance)
    torch.testing.assert_close(opacity[valid], soft[valid], atol=1e-3, rtol=0)
    assert bool((light[..., 0] == valid[..., 0].float()).all())
    assert not bool(weight[~valid].any()) and not bool(light[~valid].any())
    assert picture.alpha is not None
    torch.testing.assert_close(picture.alpha, weight.sum(-1), rtol=1e-4, atol=1e-5)
    unclamped = method._colors(inside.kbuffer, camera)
    summed = (weight[..., None] * unclamped).sum(2) + (1 - picture.alpha)[..., None] * WHITE
    torch.testing.assert_close(picture.rgb, summed.clamp(0, 1), rtol=1e-4, atol=1e-4)
    assert torch.equal(inside.color, unclamped.detach().clamp(0, 1))


def test_background_shows_only_where_light_is_left(trained: Trainer) -> None:
    method, camera = method_of(trained), trained.scene.split("test")[0].camera
    white, black = method.render(camera, WHITE), method.render(camera, BLACK)
    assert white.alpha is not None
    left = 1 - white.alpha
    assert float(left.min()) < 0.02 and bool((left == 1).any())
    assert bool(((white.rgb - black.rgb) <= left[..., None] + 1e-5).all())
    assert bool((black.rgb[left == 1] == 0).all()) and bool((white.rgb[left == 1] == 1).all())


@pytest.mark.parametrize("k", [1, 2, None, 99])
def test_fewer_layers_are_the_nearest_of_all(trained: Trainer, k: int | None) -> None:
    method, camera = method_of(trained), trained.scene.split("test")[0].camera
    everything, few = method.inspect(camera), method.inspect(camera, k)
    layers = min(k or SMALL.k, SMALL.k)
    assert few.kbuffer.k == layers
    assert torch.equal(few.kbuffer.index, everything.kbuffer.take(layers).index)
    torch.testing.assert_close(few.weight, everything.weight[..., :layers])
    assert method.render(camera, WHITE, k).rgb.isfinite().all()


def test_pictures_of_any_size_and_none_in_sight(trained: Trainer) -> None:
    method, camera = method_of(trained), trained.scene.split("test")[0].camera
    for size in ((1, 1), (7, 31), (64, 20)):
        assert method.render(camera.resize(*size), WHITE).rgb.shape == (size[1], size[0], 3)
    far = Camera.look_at(camera.position, 2 * camera.position, width=8, height=8)
    picture, inside = method.view(far, WHITE)
    assert bool((picture.rgb == 1).all()) and not bool(inside.weight.any())


def test_hull_mask_is_what_was_carved_from() -> None:
    scene = sphere_scene()
    plain, wrong = make(scene=scene), make(replace(SMALL, pc_jitter_amount=0.1), scene)
    view, held_out = scene.split("train")[1], scene.split("test")[0]
    mask, moved = plain.hull_mask(view), wrong.hull_mask(view)
    assert mask is not None and moved is not None
    assert torch.equal(mask, view.pixels()[..., 3]) and not torch.equal(moved, mask)
    assert plain.hull_mask(held_out) is None


# ---------------------------------------------------------------------------- refinement
def test_outliers_go_and_crowded_voxels_keep_one() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = torch.rand(400, 3, generator=generator)
    xyz = torch.cat([cloud, torch.full((1, 3), 9.0), cloud[:50] + 1e-5])
    rows = refine.without_outliers(xyz, 1e-3, 20, 2.0)
    assert 400 not in rows.tolist()
    kept = set(rows.tolist())
    pairs = sum(i in kept and 401 + i in kept for i in range(50))
    assert pairs <= 3  # those that a wall between voxels separates
    assert len(rows) > 300 and bool((rows.diff() > 0).all())
    assert len(refine.without_outliers(xyz[:0], 1e-3, 20, 2.0)) == 0
    assert refine.without_outliers(xyz[:1], 1e-3, 20, 2.0).tolist() == [0]


def test_a_voxel_keeps_the_point_nearest_to_its_mean() -> None:
    xyz = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0.5, 0, 0], [3.0, 0, 0]])
    rows = refine.without_outliers(xyz, 1.0, 20, 99.0)
    assert rows.tolist() == [1, 3]


def test_twins_lie_beside_their_points() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {"xyz": torch.rand(100, 3, generator=generator), "radius": torch.arange(100.0)}
    rows = refine.parents(50, 100, None, generator)
    assert len(rows) == 50 and bool((rows.diff() > 0).all())
    jitter = torch.full((50,), 1e-3)
    out, origin, split = refine.doubled(tensors, rows, jitter, 0.5, generator)
    assert len(out["xyz"]) == len(out["radius"]) == 150 and int(split.sum()) == 100
    away = (out["xyz"] - tensors["xyz"][origin]).norm(dim=1)
    assert float(away.max()) < 0.01 and int((away > 0).sum()) == 50
    assert origin[away > 0].sort().values.tolist() == rows.tolist()
    assert set(origin[split].tolist()) == set(rows.tolist())
    expected = tensors["radius"][origin] + math.log(0.5) * split
    torch.testing.assert_close(out["radius"], expected)


def test_those_to_blame_get_the_twins() -> None:
    generator = torch.Generator().manual_seed(0)
    blame = torch.tensor([0.0, 5, 1, 7, 5])
    assert refine.parents(3, 5, blame, generator).tolist() == [1, 3, 4]
    assert refine.parents(9, 5, blame, generator).tolist() == [0, 1, 2, 3, 4]
    assert refine.parents(0, 5, blame, generator).tolist() == []


def test_blame_is_the_error_shared_out(trained: Trainer) -> None:
    """Of a pixel's error every point has the blame for its share: in all, error times alpha."""
    method, scene = method_of(trained), trained.scene
    views = scene.split("train")
    expected = torch.zeros(())
    for view in views:
        picture = method.render(view.camera, WHITE)
        composite = method._picture(view.camera, WHITE)
        assert picture.alpha is not None and composite is not None
        error = (composite.detach() - view.target(WHITE)).abs().mean(-1)
        expected = expected + (picture.alpha * error).sum()
    blame = method.parts(WHITE).blame
    assert float(blame.min()) >= 0
    torch.testing.assert_close(blame.sum(), expected, rtol=1e-4, atol=1e-3)

    def nothing_counts(view: View) -> Tensor:
        return torch.ones(view.camera.height, view.camera.width, dtype=torch.bool)

    method = make(
        scene=replace(
            scene, views=[replace(v, ignored=partial(nothing_counts, v)) for v in scene.views]
        )
    )
    assert not bool(method.parts(WHITE).blame.any())


def test_unneeded_points_go_where_the_picture_is_wrong() -> None:
    scene = sphere_scene()
    method = make(scene=scene)
    run(Trainer(method, scene, 0), 10)
    largest, blame = method.parts(WHITE)
    needed = largest >= largest.quantile(0.25)
    method.options = replace(SMALL, remove_unseen=float(largest.quantile(0.25)))
    change = method._changed(method.stages[-1], torch.Generator().manual_seed(0))
    assert torch.equal(change.origin.unique(), needed.nonzero()[:, 0])
    assert len(change.origin) == len(method.points)
    split = torch.zeros_like(needed)
    split[change.origin[change.fresh]] = True
    assert int(split.sum()) == int((~needed).sum()) > 100
    assert float(blame[split].min()) >= float(blame[needed & ~split].max())


def lonely_disc_scene() -> tuple[PointRadianceMethod, Tensor]:
    """A ball of small discs, and a large one far from all others that every view sees."""
    cloud = PointCloud(torch.cat([shell(600), torch.tensor([[0.0, 0, 1.5]])]), source="file")
    options = replace(SMALL, points=0, base_epochs=0, sh_epochs=1, refine_n=1)
    method = make(options, replace(sphere_scene(), points=cloud))
    lonely = method.points.xyz[:, 2] > 1.2
    with torch.no_grad():
        method.points.radius[lonely] = math.log(0.4)
    return method, lonely


def test_refinement_spares_what_carries_the_picture() -> None:
    """A disc far from its neighbours is large because it has their work to do: refinements of the
    default leave it, those of the authors take it away."""
    method, lonely = lonely_disc_scene()
    assert float(method.parts(WHITE).largest[lonely]) > 0.5
    generator, stage = torch.Generator().manual_seed(0), method.stages[-1]
    assert bool((method._changed(stage, generator).tensors["xyz"][:, 2] > 1.2).any())
    method.options = replace(method.options, outliers=True)
    assert not bool((method._changed(stage, generator).tensors["xyz"][:, 2] > 1.2).any())


@pytest.mark.parametrize("anew", [False, True])
def test_moments_go_along_through_a_refinement(anew: bool) -> None:
    """Points that stay go on with Adam's moments; of the two that were one the first is zero.
    With `refine_restart` all is forgotten."""
    scene = sphere_scene()
    method = make(replace(SMALL, refine_restart=anew), scene)
    trainer = Trainer(method, scene, 0)
    run(trainer, 19)
    changes: list[refine.Change] = []
    changed = method._changed

    def noted(stage: Stage, generator: torch.Generator) -> refine.Change:
        state = trainer.optimizer.state[method.points.xyz]
        before.update({name: value.clone() for name, value in state.items()})
        changes.append(changed(stage, generator))
        return changes[-1]

    before: dict[str, Tensor] = {}
    method._changed = noted
    run(trainer, 1)
    state = trainer.optimizer.state.get(method.points.xyz, {})
    if anew:
        assert not state
        return
    origin, fresh = changes[0].origin, changes[0].fresh
    assert torch.equal(state["exp_avg_sq"], before["exp_avg_sq"][origin])
    assert torch.equal(state["exp_avg"], before["exp_avg"][origin] * ~fresh[:, None])
    assert bool(fresh.any()) and bool((~fresh).any()) and float(state["step"]) == 10
    assert trainer.intact()


def test_unseen_points_go(trained: Trainer) -> None:
    """Points inside a ball that its surface hides have no share of any pixel."""
    shares = method_of(trained).parts(WHITE).largest
    assert float(shares.min()) >= 0 and float(shares.max()) <= 1.0001
    scene = trained.scene
    inner = 0.1 * torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    cloud = PointCloud(torch.cat([shell(4000), inner]), source="file")
    method = make(replace(SMALL, k=12, radius=0.12, points=0), replace(scene, points=cloud))
    hidden = method.points.xyz.norm(dim=1) < 0.3
    seen = method.parts(WHITE).largest
    assert float(seen[hidden].max()) < 0.01 < float(seen[~hidden].median())


def shell(count: int) -> Tensor:
    normal = torch.randn(count, 3, generator=torch.Generator().manual_seed(2))
    return RADIUS * torch.nn.functional.normalize(normal, dim=1)


def test_points_that_all_left_the_object_are_explained() -> None:
    scene = sphere_scene()
    method = make(replace(SMALL, base_epochs=0, sh_epochs=1, refine_n=1), scene)
    trainer = Trainer(method, scene, 0)
    run(trainer, 9)
    with torch.no_grad():
        method.points.xyz += 50
    report = trainer.step()  # nothing to learn from: the step is skipped, and so is the stage
    assert report.skipped == "no point is in this window"
    with pytest.raises(UserError, match="no point is left at the beginning of the stage refine"):
        method._changed(method.stages[-1], trainer.generator)


# ---------------------------------------------------------------------------- the authors' way
def test_faithful_does_as_the_authors_do() -> None:
    scene = sphere_scene(10)
    options = FaithfulOptions(k=6, data_r=0.003, base_epochs=1, sh_epochs=1, refine_epochs=1)
    generator = torch.Generator().manual_seed(0)
    method = PointRadianceFaithful(options, scene, CPU, generator)
    assert method.points.sh.shape[1] == 27 and float(method.points.sh.min()) >= 0
    assert not method.perspective
    per_point = sum(t[0].numel() for n, t in method.points.tensors().items() if n != "radius")
    assert per_point == 33
    half = scene.views[0].camera.width / 2
    radius = method._on_screen(scene.views[0].camera).radius
    torch.testing.assert_close(radius, torch.full_like(radius, 0.010 * half))
    trainer = Trainer(method, scene, 0)
    assert [s.first for s in method.plan()] == [0, 8, 16, 24]  # an epoch is all training views
    size = float(method.points.radius[0])
    run(trainer, 18)
    assert float((method.points.radius - size).abs().max()) == 0  # nobody's size learns
    twins = method.points.xyz.unique(dim=0)
    assert len(twins) <= len(method.points)


def test_options_out_of_range_are_refused() -> None:
    for name, value in (("k", 65), ("pc_jitter_amount", 0.6), ("filter_consistency_ratio", 1.1)):
        with pytest.raises(ValueError, match=name):
            PointRadianceOptions(**{name: value})  # pyright: ignore


def test_model_size_is_that_of_its_parameters() -> None:
    method = make(replace(SMALL, points=1000))
    assert method.points.size() == 1000 * 4 * (3 + 1 + 3 + 24)
    assert method.describe()["model MB"] == 0.12
