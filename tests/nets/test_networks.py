"""Per-point MLPs, KFN and U-Net: sizes of the paper, layouts, odd shapes, zero rows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from render.nets.kfn import Kfn
from render.nets.mlp import FrequencyModulatedMlp, PointMlp, RectificationMlp
from render.nets.unet import FILTERS, GatedUNet


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_papers() -> None:
    assert count(PointMlp()) == 187_272
    assert count(FrequencyModulatedMlp()) == 187_272 + 17_672
    assert count(Kfn(8, 8)) == 52_136
    assert [count(RectificationMlp(n)) for n in (48, 16, 3)] == [3656, 1608, 776]


def test_unet_parameter_count_follows_its_filters() -> None:
    def gated(i: int, o: int) -> int:
        return 2 * (9 * i * o + o)

    for name, f in FILTERS.items():
        down = gated(8, f[0]) + sum(gated(f[i], f[i + 1]) for i in range(4))
        up = sum(9 * f[i + 1] * f[i] + f[i] + gated(2 * f[i], f[i]) for i in range(4))
        assert count(GatedUNet(8, filters=name)) == down + up + 3 * f[0] + 3
    assert count(GatedUNet(8)) == 1_962_467


def test_frequency_modulation_multiplies_by_the_sine_of_itself() -> None:
    mlp = FrequencyModulatedMlp(dim=3, width=8)
    last = mlp.hyper[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.7, 0.2] * 4))
    xyz, d = torch.randn(5, 3), F.normalize(torch.randn(5, 3), dim=-1)
    x = mlp.encode_xyz(xyz)
    for i, layer in enumerate(mlp.layers):
        x = layer(torch.cat([x, mlp.encode_dir(d)], -1) if i == 2 else x)
        x = x * torch.sin(0.7 * x + 0.2)
    torch.testing.assert_close(mlp(xyz, d), mlp.head(x))


@pytest.mark.parametrize("make", [PointMlp, FrequencyModulatedMlp])
def test_scaled_init_keeps_the_signals_size(make: type[PointMlp]) -> None:
    torch.manual_seed(0)
    xyz, d = torch.rand(500, 3) * 2 - 1, F.normalize(torch.randn(500, 3), dim=-1)
    spread = [
        float(make(8, 64, scaled_init=s)(xyz, d).detach().std(0).mean()) for s in (True, False)
    ]
    assert 0.1 < spread[0] < 10 and spread[1] < 0.3 * spread[0]


@pytest.mark.parametrize("make", [PointMlp, FrequencyModulatedMlp])
def test_zero_points_pass_forward_and_backward(make: type[PointMlp]) -> None:
    mlp = make(8, 16)
    out = mlp(torch.zeros(0, 3), torch.zeros(0, 3))
    assert out.shape == (0, 8)
    out.sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) == 0 for p in mlp.parameters())


def test_kfn_is_layer_major_with_one_softmax_over_all_channels() -> None:
    kfn = Kfn(k=3, dim=2, width=4)
    x = torch.randn(1, 6, 5, 7)
    fused, mask = kfn(x)
    assert fused.shape == (1, 2, 5, 7)
    torch.testing.assert_close(mask.sum(1), torch.ones(1, 5, 7))
    mass = kfn.layer_mass(mask)
    for k in range(3):
        torch.testing.assert_close(mass[..., k], mask[0, 2 * k : 2 * k + 2].sum(0))
    torch.testing.assert_close(fused, kfn.fuse(x * mask))


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (16, 48), (50, 3)])
def test_unet_takes_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    unet = GatedUNet(4, filters="pp")
    out = unet(torch.randn(1, 4, *size, requires_grad=True))
    assert out.shape == (1, 3, *size) and bool(out.isfinite().all())
    out.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in unet.parameters() if p.grad is not None)


def test_unet_pads_with_zeros_and_crops_back() -> None:
    torch.manual_seed(0)
    unet = GatedUNet(4, filters="pp", levels=2)
    x = torch.randn(1, 4, 13, 22)
    padded = F.pad(x, (0, 2, 0, 3))  # [1, 4, 16, 24]
    torch.testing.assert_close(unet(x), unet(padded)[..., :13, :22])


def test_unet_can_start_with_a_zero_picture() -> None:
    unet = GatedUNet(4, filters="pp", zero_last=True)
    assert not unet(torch.randn(1, 4, 9, 9)).any()
    with pytest.raises(ValueError, match="levels"):
        GatedUNet(levels=5)
