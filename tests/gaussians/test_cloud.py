"""How Gaussians start from a point cloud, and how the optimiser follows when rows change."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from render.errors import UserError
from render.gaussians.cloud import SH0, Cloud, morton_order, neighbour_distance
from render.methods.kbuffer.options import KBufferOptions
from render.methods.splatting import default_count
from render.scenes.types import PointCloud
from tests.methods.glass_ball import CPU, ball_points, glass_ball, make, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def start(points: PointCloud, count: int = 10**6, seed: int = 0) -> Cloud:
    generator = torch.Generator().manual_seed(seed)
    return Cloud.from_points(
        points, count, 2.0, CPU, generator, scale=0.5, opacity=0.3, sh_degree=1, features=5
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 50])
def test_any_number_of_points(n: int) -> None:
    cloud = start(ball_points(60).subset(torch.arange(n)))
    shapes = {name: tuple(t.shape) for name, t in cloud.tensors().items()}
    assert shapes == {
        "means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "logits": (n,),
        "sh0": (n, 3), "sh_rest": (n, 3, 3), "features": (n, 5),
    }  # fmt: skip
    for tensor in cloud.tensors().values():
        assert tensor.is_leaf and tensor.requires_grad and tensor.dtype == torch.float32
        assert bool(tensor.isfinite().all())
    assert len(cloud) == n


def test_no_points_are_an_error_that_names_the_source() -> None:
    with pytest.raises(UserError, match=r"empty\.ply: expected points, found none"):
        start(PointCloud(torch.zeros(0, 3), source="empty.ply"))
    with pytest.raises(UserError, match="needs points"):
        make(scene=replace(glass_ball(), points=None))


def test_positions_and_colours_are_those_of_the_points() -> None:
    cloud = start(ball_points(90))
    points = ball_points(90).subset(morton_order(ball_points(90).xyz))
    assert points.rgb is not None
    assert torch.equal(cloud.means, points.xyz)
    torch.testing.assert_close(cloud.sh0 * SH0 + 0.5, points.rgb)
    assert not bool(cloud.sh_rest.any())


def test_points_without_colour_are_grey() -> None:
    cloud = start(PointCloud(ball_points(30).xyz))
    assert torch.equal(cloud.sh0, torch.zeros(30, 3))


def test_more_points_than_asked_for_are_drawn_at_random() -> None:
    points = ball_points(500)
    one, same, other = start(points, 40, 1), start(points, 40, 1), start(points, 40, 2)
    assert len(one) == 40
    assert torch.equal(one.means, same.means) and not torch.equal(one.means, other.means)
    distance = torch.cdist(one.means.detach(), points.xyz)
    nearest = distance.argmin(1)
    assert torch.equal(points.xyz[nearest], one.means) and nearest.unique().numel() == 40
    assert points.rgb is not None  # colours came along
    torch.testing.assert_close(one.sh0 * SH0 + 0.5, points.rgb[nearest])


def test_size_and_opacity_are_those_asked_for() -> None:
    points = ball_points(200)
    cloud = start(points)
    assert torch.allclose(cloud.logits.sigmoid(), torch.tensor(0.3))
    distance = neighbour_distance(points.xyz[morton_order(points.xyz)].numpy(), 2.0)
    expected = 0.5 * torch.from_numpy(distance).float()
    torch.testing.assert_close(cloud.log_scales.exp(), expected[:, None].expand(-1, 3))


@pytest.mark.parametrize("volume", [False, True])
def test_faint_and_wide_in_volumes_firm_and_small_on_surfaces(volume: bool) -> None:
    scene = glass_ball(200)
    assert scene.points is not None
    points, o = replace(scene.points, fills_volume=volume), KBufferOptions(points=200)
    cloud = make(o, replace(scene, points=points)).cloud
    opacity = o.volume_opacity if volume else o.surface_opacity
    assert torch.allclose(cloud.logits.sigmoid(), torch.tensor(opacity))
    distance = neighbour_distance(cloud.means.detach().numpy(), scene.bounds.radius)
    relative = cloud.log_scales.detach().exp().numpy() / distance[:, None]
    np.testing.assert_allclose(relative, o.volume_scale if volume else o.surface_scale, rtol=1e-5)


def test_rows_change_and_adam_follows() -> None:
    """Dropping, repeating and reordering: values and moments go along, fresh rows begin anew."""
    cloud = start(ball_points(30))
    groups = [{"name": n, "params": [t], "lr": 1e-3} for n, t in cloud.tensors().items()]
    network = torch.nn.Parameter(torch.ones(3))
    groups.append({"name": "network", "params": [network], "lr": 1e-3})
    optimizer = torch.optim.Adam(groups)
    for tensor in (*cloud.tensors().values(), network):
        tensor.grad = torch.rand_like(tensor)
    optimizer.step()
    old = {name: t.detach().clone() for name, t in cloud.tensors().items()}
    moments = {name: dict(optimizer.state[t]) for name, t in cloud.tensors().items()}
    rows, fresh = torch.tensor([7, 3, 3, 20]), torch.tensor([False, False, True, False])
    cloud.rebuild(optimizer, rows, fresh)
    assert len(cloud) == 4
    for name, tensor in cloud.tensors().items():
        assert torch.equal(tensor, old[name][rows]) and tensor.is_leaf and tensor.requires_grad
        state = optimizer.state[tensor]
        assert torch.equal(state["exp_avg_sq"], moments[name]["exp_avg_sq"][rows])
        assert torch.equal(state["exp_avg"][~fresh], moments[name]["exp_avg"][rows[~fresh]])
        assert not bool(state["exp_avg"][fresh].any()) and float(state["step"]) == 1
    assert len(optimizer.state) == len(groups) and "exp_avg" in optimizer.state[network]
    for tensor in cloud.tensors().values():
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()  # the groups hold the new parameters
    assert all(bool((t != old[n][rows]).any()) for n, t in cloud.tensors().items())


def test_neighbours_in_space_are_neighbours_in_memory() -> None:
    xyz = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0))
    rows = morton_order(xyz)
    assert rows.sort().values.tolist() == list(range(4096))
    step = (xyz[rows][1:] - xyz[rows][:-1]).norm(dim=1)
    assert float(step.median()) < 0.08  # at random 0.66
    assert float(step.mean()) < 0.12
    cube = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    assert morton_order(cube[:, [2, 1, 0]]).tolist() == list(range(8))  # x first
    broken = torch.full((5, 3), float("nan"))
    assert morton_order(broken).sort().values.tolist() == list(range(5))


def test_neighbour_distance_is_that_of_the_three_nearest() -> None:
    xyz = ball_points(70).xyz.numpy()
    nearest = np.sort(cdist(xyz, xyz), 1)[:, 1:4]
    wide = neighbour_distance(xyz, 100.0)  # the radius bounds nothing here
    np.testing.assert_allclose(wide, np.sqrt((nearest**2).mean(1)), rtol=1e-5)


def test_sizes_of_isolated_and_of_equal_points_are_bounded() -> None:
    xyz = np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [90, 0, 0]], np.float32)
    assert neighbour_distance(xyz, 1.0).tolist() == pytest.approx([1e-4] * 4 + [0.4])
    near = np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [1.5, 0, 0]], np.float32)
    assert neighbour_distance(near, 1.0)[4] == pytest.approx(0.05)
    assert neighbour_distance(xyz[:1], 1.0).tolist() == pytest.approx([0.01])


def test_count_follows_the_picture_size() -> None:
    assert [default_count(n * n) for n in (200, 400)] == [30000, 60000]
    assert default_count(1) == 5000 and default_count(10**12) == 250000
    method = make(KBufferOptions(points=100, growth=1.37), glass_ball(300))
    assert len(method.cloud) == 100 and method.limit == 137


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_points_trains_through_refinements(n: int) -> None:
    """There is nothing to split then, which must not stop the training."""
    options = KBufferOptions(refine_from=2, refine_every=2, warm_up=2, network_from=5)
    scene = replace(glass_ball(), points=ball_points(60).subset(torch.arange(n)))
    trainer, losses = trained(10, options, scene)
    assert all(map(math.isfinite, losses)) and trainer.skipped_steps == 0


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_degree_of_view_dependence_learns(degree: int) -> None:
    trainer, losses = trained(12, KBufferOptions(sh_degree=degree), glass_ball(200))
    rest = trainer.method.cloud.sh_rest  # type: ignore[attr-defined]
    assert rest.shape[1] == (degree + 1) ** 2 - 1 and all(map(math.isfinite, losses))
    assert degree == 0 or bool(rest.any())


def test_tensors_are_replaced_by_new_leaves() -> None:
    cloud = start(ball_points(20))
    old = cloud.tensors()
    cloud.replace({name: t.detach()[:7] for name, t in old.items()})
    assert len(cloud) == 7
    for name in cloud.names:
        new = cloud.tensors()[name]
        assert new is not old[name] and new.is_leaf and new.requires_grad
        assert new.data_ptr() != old[name].data_ptr()  # its own memory
