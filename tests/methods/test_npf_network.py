"""The K-Buffers network on made-up K-buffers: pruning, one mask, dense, empty, huge ids, K = 1."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from render.camera import Camera
from render.kbuffer.types import KBuffer
from render.methods.npf.network import NpfNetwork, Rays
from render.methods.npf.options import NpfOptions

TINY = NpfOptions(k=3, dim=4, mlp_width=16, kfn_width=8, unet="pp", unet_levels=1)


def network(options: NpfOptions = TINY, *, skip: bool = False, fre: bool = False) -> NpfNetwork:
    torch.manual_seed(0)
    return NpfNetwork(
        options,
        frequency_modulated=fre,
        color_skip=skip,
        center=torch.zeros(3),
        radius=1.0,
        lower=-torch.ones(3),
        upper=torch.ones(3),
    )


def rays(height: int, width: int) -> Rays:
    return Rays(*Camera.look_at((0, -4, 1), (0, 0, 0), width=width, height=height).rays())


def random_kbuffer(height: int, width: int, k: int, fill: float, points: int = 12) -> KBuffer:
    """Valid slots first, depth a function of the id (ascending), as the rasteriser makes them."""
    generator = torch.Generator().manual_seed(1)
    order = torch.rand(height * width, points, generator=generator).argsort(-1)[:, :k].sort(-1)[0]
    index = order.view(height, width, k).int()
    filled = (torch.rand(height, width, generator=generator) * (k + 1) * 2 * fill).long()
    index[torch.arange(k) >= filled[..., None]] = -1
    depth = torch.where(index >= 0, 3 + 0.1 * index.float(), torch.tensor(-1.0))
    return KBuffer(index, depth, torch.where(index >= 0, 0.5, -1.0))


def full_kbuffer(height: int, width: int, k: int) -> KBuffer:
    index = torch.arange(k, dtype=torch.int32).expand(height, width, k).contiguous()
    index = index + k * torch.arange(height * width, dtype=torch.int32).view(height, width, 1)
    return KBuffer(index, 3.0 + 0.01 * (index % k), torch.full(index.shape, 0.5))


def test_each_point_is_asked_once_on_the_ray_of_its_first_pixel() -> None:
    net, kbuffer, r = network(), random_kbuffer(6, 7, 3, 0.7), rays(6, 7)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    net.mlp.register_forward_pre_hook(lambda _, args: calls.append(args))
    out = net(kbuffer, r)
    flat = kbuffer.index.flatten().tolist()
    ids = sorted(set(flat) - {-1})
    assert len(calls) == 1 and len(calls[0][0]) == len(ids)
    for row, i in enumerate(ids):
        slot = flat.index(i)  # first occurrence in (row, col, layer) order
        y, x = divmod(slot // 3, 7)
        d = r.directions[y, x]
        xyz = r.origin + kbuffer.depth.flatten()[slot] / r.cos[y, x] * d
        torch.testing.assert_close(calls[0][0][row], xyz)
        torch.testing.assert_close(calls[0][1][row], d)
        # The same id has the same feature in all its slots.
        values = out.features[kbuffer.index == i]
        assert bool((values == values[0]).all()) and bool(values[0].any())
    assert not out.features[kbuffer.index < 0].any()


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("fre", [False, True])
def test_dense_and_sparse_pictures_train_every_parameter(version: int, fre: bool) -> None:
    net = network(dataclasses.replace(TINY, version=version), fre=fre)
    for kbuffer in (full_kbuffer(9, 13, 3), random_kbuffer(9, 13, 3, 0.3)):
        net.zero_grad()
        out = net(kbuffer, rays(9, 13))
        assert out.rgb.shape == (9, 13, 3)
        out.rgb.square().mean().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    assert net.rect is not None
    assert all(bool(p.grad.any()) for p in net.rect.parameters() if p.grad is not None)
    if version == 1:  # upstream's grid was dead, unregistered and unsaved
        assert net.grid is not None and net.grid.table.grad is not None
        assert bool(net.grid.table.grad.any())
        assert "grid.table" in net.state_dict()


def test_rectification_reaches_all_layers_of_covered_pixels_only() -> None:
    net, kbuffer = network(), random_kbuffer(8, 8, 3, 0.5)
    out = net(kbuffer, rays(8, 8))
    change = (out.rectified - out.features).detach()  # [H, W, K, D]
    covered = kbuffer.valid[..., 0]
    assert bool(covered.any()) and not bool(covered.all())
    assert bool(change[covered].any()) and not change[~covered].any()
    torch.testing.assert_close(change[..., 0, :], change[..., 2, :], atol=1e-6, rtol=0)


def test_ids_beyond_two_to_the_24_stay_apart() -> None:
    """float32 ids would merge 2**24 and 2**24 + 1 and break gather and scatter apart."""
    net, small, r = network(), full_kbuffer(4, 5, 3), rays(4, 5)
    large = KBuffer(small.index + 2**24, small.depth, small.distance)
    assert torch.equal(net(small, r).rgb, net(large, r).rgb)


def test_missing_layers_are_empty_layers() -> None:
    net, full, r = network(), random_kbuffer(7, 5, 3, 0.8), rays(7, 5)
    taken = full.take(2)
    pad = (0, 1)
    padded = KBuffer(
        torch.nn.functional.pad(taken.index, pad, value=-1),
        torch.nn.functional.pad(taken.depth, pad, value=-1.0),
        torch.nn.functional.pad(taken.distance, pad, value=-1.0),
    )
    assert torch.equal(net(taken, r).rgb, net(padded, r).rgb)


def test_layer_shares_sum_to_one_where_something_is() -> None:
    kbuffer = random_kbuffer(6, 6, 3, 0.6)
    weight = network()(kbuffer, rays(6, 6)).weight
    torch.testing.assert_close(weight.sum(-1), kbuffer.valid[..., 0].float())
    assert not weight[~kbuffer.valid].any()


def test_one_layer_is_the_host() -> None:
    """K = 1: every pixel asks for itself, and there is neither rectification nor fusion."""
    net, r = network(dataclasses.replace(TINY, k=1)), rays(4, 6)
    assert net.kfn is None and net.rect is None
    index = torch.zeros(4, 6, 1, dtype=torch.int32)  # one point over the whole picture
    kbuffer = KBuffer(index, torch.full((4, 6, 1), 3.0), torch.zeros(4, 6, 1))
    out = net(kbuffer, r)
    xyz = (r.origin + 3.0 / r.cos[..., None] * r.directions).view(-1, 3)
    feature = net.mlp(xyz, r.directions.view(-1, 3)).view(4, 6, 1, -1)
    torch.testing.assert_close(out.features, feature, atol=2e-4, rtol=0)
    picture = net.unet(feature[:, :, 0].movedim(-1, 0)[None])[0].movedim(0, -1)
    torch.testing.assert_close(out.rgb, picture, atol=1e-2, rtol=0)


def test_colour_skip_starts_from_the_points_front_to_back() -> None:
    net, kbuffer = network(skip=True), random_kbuffer(6, 6, 3, 0.6)
    colors = torch.rand(12, 3)
    torch.nn.init.zeros_(net.kfn.gate[-1].weight)  # type: ignore[union-attr, index]
    torch.nn.init.zeros_(net.kfn.gate[-1].bias)  # type: ignore[union-attr, index]
    out = net(kbuffer, rays(6, 6), colors)  # every layer has the same mass: discs as they are
    alpha = (1 - (1 - 0.9 * (1 - kbuffer.distance.clamp(min=0))) ** (8 / 3)) * kbuffer.valid
    expected, light = torch.zeros(6, 6, 3), torch.ones(6, 6, 1)
    for k in range(3):
        a = alpha[..., k, None]
        expected += light * a * kbuffer.gather(colors)[..., k, :]
        light = light * (1 - a)
    torch.testing.assert_close(out.rgb, expected)
    torch.testing.assert_close(out.alpha, 1 - light[..., 0])
    out.rgb.sum().backward()
    assert net.kfn is not None
    assert bool(net.kfn.gate[-1].weight.grad.any())  # type: ignore[union-attr]


def test_an_empty_kbuffer_never_reaches_a_network() -> None:
    empty = KBuffer(*(torch.full((4, 4, 3), v) for v in (-1, -1.0, -1.0)))
    with pytest.raises(ValueError, match="empty"):
        network()(empty, rays(4, 4))
