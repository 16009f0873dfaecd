"""The fusion network: starts as plain compositing, works on the visible box, learns everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from render.methods.kbuffer import KBufferMethod, KBufferOptions
from render.methods.splatting import over
from render.nets import fusion as module
from render.nets.fusion import ALIGN, Fusion, fold, unfold, visible_box
from render.nets.gate import Gate
from tests.methods.glass_ball import SMALL, glass_ball, make, trained

pytestmark = pytest.mark.usefixtures("one_thread")
K, F = 5, 3
SIZES = [(1, 1), (1, 7), (5, 3), (8, 8), (13, 10), (31, 6)]


def network(awake: bool = True, seed: int = 0) -> Fusion:
    """As constructed, or with every weight away from zero, as after some training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = Fusion(K, F, 8)
        if awake:
            for parameter in out.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return out


def inputs(height: int, width: int, k: int = K, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Layers [h, w, k, F], colours and alphas, all visible."""
    generator = torch.Generator().manual_seed(seed)
    layers = torch.randn(height, width, k, F, generator=generator)
    rgb = torch.rand(height, width, 3, generator=generator)
    return layers, rgb, 0.1 + 0.9 * torch.rand(height, width, generator=generator)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 3, K])
def test_before_training_the_picture_is_the_composite(size: tuple[int, int], k: int) -> None:
    layers, rgb, alpha = inputs(*size, k)
    assert torch.equal(network(awake=False)(layers, rgb, alpha), rgb)


def test_before_training_every_gate_is_one() -> None:
    layers = inputs(6, 4)[0]
    gate = network(awake=False).gate
    assert torch.equal(gate.gates(layers), torch.ones(6, 4, K))
    torch.testing.assert_close(gate(layers), layers.sum(2))


def test_gates_lie_between_zero_and_two_and_see_all_layers() -> None:
    gate = Gate(K, F)
    torch.nn.init.normal_(gate.gate.weight, generator=torch.Generator().manual_seed(1))
    layers = inputs(6, 4)[0]
    before = gate.gates(layers).detach()
    assert 0 < float(before.min()) < 0.9 and 1.1 < float(before.max()) < 2
    layers[..., K - 1, :] += 3  # the last layer changes the gate of the first
    assert not torch.equal(gate.gates(layers)[..., 0], before[..., 0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 3, K])
def test_any_size_and_fewer_layers(size: tuple[int, int], k: int) -> None:
    layers, rgb, alpha = inputs(*size, k)
    out = network()(layers, rgb, alpha)
    assert out.shape == rgb.shape and out.dtype == rgb.dtype
    assert bool(out.isfinite().all()) and bool((out != rgb).any())
    missing = torch.zeros(*size, K - k, F)
    assert torch.equal(out, network()(torch.cat([layers, missing], 2), rgb, alpha))


def test_empty_picture_is_the_background() -> None:
    layers, rgb, alpha = inputs(6, 9)
    assert torch.equal(network()(layers, rgb, torch.zeros_like(alpha)), rgb)


@pytest.mark.parametrize("box", [(0, 6, 0, 9), (2, 3, 4, 5), (1, 6, 0, 7), (3, 11, 5, 14)])
def test_only_the_visible_box_is_computed(box: tuple[int, int, int, int]) -> None:
    layers, rgb, full = inputs(11, 14)
    y0, y1, x0, x1 = box
    inside = (slice(y0, y1), slice(x0, x1))
    alpha = torch.zeros(11, 14)
    alpha[inside] = full[inside]
    assert visible_box(alpha) == box
    out = network()(layers, rgb, alpha)
    cropped = network()(layers[inside], rgb[inside], full[inside])
    assert torch.equal(out[inside], cropped)
    outside = torch.ones(11, 14, dtype=torch.bool)
    outside[inside] = False
    assert torch.equal(out[outside], rgb[outside])


def test_box_does_nothing_to_a_full_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visible corners stretch the box to the border: then all is computed, holes too."""
    layers, rgb, alpha = inputs(11, 14)
    alpha[1:-1, 1:-1] = 0
    out = network()(layers, rgb, alpha)
    monkeypatch.setattr(module, "visible_box", lambda alpha: (0, 11, 0, 14))
    assert torch.equal(out, network()(layers, rgb, alpha))


def test_transparent_pixels_inside_the_box_stay() -> None:
    layers, rgb, alpha = inputs(12, 12)
    alpha[4:7, 5:9] = 0
    out = network()(layers, rgb, alpha)
    hole = alpha == 0
    assert torch.equal(out[hole], rgb[hole]) and bool((out[~hole] != rgb[~hole]).all())


def test_visible_box() -> None:
    alpha = torch.zeros(6, 7)
    assert visible_box(alpha) == (0, 0, 0, 0)
    alpha[2, 5] = 1e-6
    assert visible_box(alpha) == (2, 3, 5, 6)
    alpha[4, 0] = 1
    assert visible_box(alpha) == (2, 5, 0, 6)


def test_folding_is_undone_by_unfolding() -> None:
    x = inputs(8, 3 * ALIGN)[1]
    folded = fold(x)
    assert folded.shape == (1, 12, 4, 6)
    assert torch.equal(folded[0, :3, 1, 2], x[2, 4]) and torch.equal(folded[0, 9:, 1, 2], x[3, 5])
    assert torch.equal(unfold(folded), x)


def test_each_pixel_is_corrected_from_its_own_neighbourhood() -> None:
    """A change at one pixel moves its surroundings most and leaves far pixels alone."""
    layers, rgb, alpha = inputs(48, 48)
    changed = layers.clone()
    changed[24, 24] += 5
    difference = network()(changed, rgb, alpha) - network()(layers, rgb, alpha)
    difference = difference.detach().abs().amax(-1)
    row, column = divmod(int(difference.argmax()), 48)
    assert abs(row - 24) <= 4 and abs(column - 24) <= 4
    assert float(difference[:4].max()) == 0 and float(difference[:, -4:].max()) == 0


def test_gradients_reach_gate_features_colours_and_alpha() -> None:
    net = network()
    layers, rgb, alpha = (x.requires_grad_(True) for x in inputs(9, 10))
    net(layers, rgb, alpha).square().sum().backward()
    for tensor in (layers, rgb, alpha, *net.parameters()):
        assert tensor.grad is not None and float(tensor.grad.abs().sum()) > 0
    assert bool((layers.grad.abs().sum((0, 1, 3)) > 0).all())  # type: ignore[union-attr]


def test_gradients_of_the_correction_reach_the_gaussians() -> None:
    """Through the layers' shares alone: composite and alpha are held here."""
    method = make(scene=glass_ball(200))
    method.network_on = True
    camera = method.views[0].camera
    layers = method._layers(camera, SMALL.k)
    rgb = layers.image[..., :3].detach()
    net = Fusion(SMALL.k, SMALL.features, 8)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(2))
    (net(layers.features, rgb, layers.alpha.detach()) - rgb).square().sum().backward()
    for name in ("means", "quats", "log_scales", "logits", "features"):
        gradient = method.cloud.tensors()[name].grad
        assert gradient is not None and float(gradient.abs().sum()) > 0, name


def units(net: Fusion, given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """How much the output of every hidden unit varies over a picture, [3 * width]."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: found.append(out.detach().float()))
        for layer in (net.enter, net.down, net.wide)
    ]
    net(*given)
    for hook in hooks:
        hook.remove()
    bend = module.F.silu if bool(net.smooth) else module.F.relu
    return torch.cat([bend(out)[0].flatten(1).std(1) for out in found])


def test_units_stay_alive_while_it_learns() -> None:
    """With ReLU and the full rate at once most were dead here: always below zero."""
    options = replace(SMALL, network_from=12, lr_network=KBufferOptions().lr_network)
    trainer, _ = trained(150, options)
    method, camera = trainer.method, trainer.scene.views[0].camera
    assert isinstance(method, KBufferMethod) and method.fusion is not None
    layers = method._layers(camera, SMALL.k)
    rgb = over(layers.image[..., :3], layers.alpha, torch.ones(3))
    varies = units(method.fusion, (layers.features, rgb, layers.alpha))
    assert len(varies) == 96
    assert float((varies > 1e-3).float().mean()) > 0.9


def test_models_from_before_keep_their_units() -> None:
    net, given = network(), inputs(8, 8)
    state = net.state_dict()
    assert bool(state.pop("smooth"))
    older = network(seed=1)
    older.load_state_dict(state)
    assert not bool(older.smooth) and not bool(older.state_dict()["smooth"])
    again = network(seed=2)
    again.load_state_dict(older.state_dict())
    assert torch.equal(again(*given), older(*given))
    assert not torch.equal(older(*given), net(*given))
    older.smooth.fill_(True)
    assert torch.equal(older(*given), net(*given))
