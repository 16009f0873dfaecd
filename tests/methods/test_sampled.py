"""Methods whose pixels are means of several samples: when they begin, what they show and save."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from render.methods import method_class
from render.methods.gaussians import GaussiansKOptions, GaussiansOptions
from render.methods.splatting import SplattingMethod, SplattingOptions
from render.sampling import Sampling
from render.training.trainer import Trainer
from tests.methods.glass_ball import CPU, SMALL, WHITE, glass_ball, run

pytestmark = pytest.mark.usefixtures("one_thread")
FEW: dict[str, Any] = {"points": 400, "samples": 2, "samples_from": 14}
ALL: dict[str, SplattingOptions] = {
    "kbuffer": replace(SMALL, **FEW, network_from=12),
    "gaussians": GaussiansOptions(**FEW),
    "gaussians-k": GaussiansKOptions(**FEW, network_from=12, width=8),
}


def start(name: str, **change: Any) -> Trainer:
    scene, options = glass_ball(500), replace(ALL[name], **change)
    generator = torch.Generator().manual_seed(0)
    return Trainer(method_class(name)(options, scene, CPU, generator), scene, 0)


def method_of(trainer: Trainer) -> SplattingMethod:
    assert isinstance(trainer.method, SplattingMethod)
    return trainer.method


@pytest.mark.parametrize("name", ALL)
def test_samples_begin_at_their_step_and_what_is_learnt_goes_on(name: str) -> None:
    trainer = start(name)
    method, camera = method_of(trainer), trainer.scene.split("test")[0].camera
    run(trainer, 14)
    assert method.cloud.sampling == Sampling(0.1, 1)
    before = method.render(camera, WHITE)
    run(trainer, 1)
    assert method.cloud.sampling == Sampling(0.1, 2)
    after = method.render(camera, WHITE)
    assert after.rgb.shape == before.rgb.shape
    # The same filter from more spots: nothing jumps, but it is another picture.
    assert 0 < float((after.rgb - before.rgb).square().mean()) < 10**-2.5
    losses = run(trainer, 40)
    assert sum(losses[-8:]) < sum(losses[:8])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("k", [2, None])
def test_pictures_are_sampled_and_layers_are_those_of_centres(name: str, k: int | None) -> None:
    trainer = start(name, samples_from=0)
    run(trainer, 20)
    method, camera = method_of(trainer), trainer.scene.split("test")[0].camera
    picture, inside = method.view(camera, WHITE, k)
    assert torch.equal(picture.rgb, method.render(camera, WHITE, k).rgb)
    size = (camera.height, camera.width)
    assert picture.rgb.shape[:2] == inside.kbuffer.index.shape[:2] == size
    assert picture.alpha is not None and picture.depth is not None
    covered = picture.alpha > 0.5
    assert bool(covered.any()) and bool((picture.depth[picture.alpha == 0] == 0).all())
    assert 2.9 < float(picture.depth[covered].min()) < float(picture.depth[covered].max()) < 5.1
    with method.cloud.sampled_once():
        once = method.inspect(camera, k)
        draft = method.render(camera, WHITE, k)
    assert torch.equal(once.kbuffer.index, inside.kbuffer.index)
    assert torch.equal(once.weight, inside.weight)
    assert not torch.equal(draft.rgb, picture.rgb)


def test_all_contributions_are_sampled_too() -> None:
    trainer = start("kbuffer", samples_from=0, k=64, network=False)
    run(trainer, 20)
    method, camera = trainer.method, trainer.scene.split("test")[0].camera
    everything = method.render_all(camera, WHITE)  # type: ignore[attr-defined]
    torch.testing.assert_close(everything.rgb, method.render(camera, WHITE).rgb, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_states_keep_the_sampling_and_older_ones_had_one_sample(name: str) -> None:
    trainer = start(name, samples_from=0)
    run(trainer, 3)
    state = method_of(trainer).state_dict()
    other = method_of(start(name))
    assert other.cloud.sampling == Sampling(0.1, 1)
    other.load_state_dict(state)
    assert other.cloud.sampling == Sampling(0.1, 2)
    other.load_state_dict({key: value for key, value in state.items() if key != "samples"})
    assert other.cloud.sampling == Sampling(0.1, 1)
    with pytest.raises(ValueError, match="impossible sampling"):
        other.load_state_dict(state | {"samples": 1000})
    with pytest.raises(ValueError, match="impossible sampling"):
        other.load_state_dict(state | {"low_pass": float("nan")})
