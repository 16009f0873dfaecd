"""A scene and a method that cost nothing: for tests of everything around them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import render.methods
from render.camera import Camera
from render.kbuffer import KBuffer
from render.methods.base import Inspection, Method, MethodOptions, Render, StepOutput
from render.scenes.types import Scene
from render.training.sampler import ViewSampler


@dataclass(frozen=True)
class FakeOptions(MethodOptions):
    """Options of every type that ``--set`` knows."""

    k: int = 3
    lr: float = 0.02
    grow: bool = True
    mode: Literal["plain", "noisy"] = "plain"
    fail_at: int = -1  # step that raises
    nan_from: int = -1  # step from which the loss is not finite


class FakeMethod(Method):
    """Learns one 8x8 picture for all views, and a vector that grows, as primitives do."""

    name: ClassVar[str] = "fake"
    Options: ClassVar[type[MethodOptions]] = FakeOptions
    needs_points: ClassVar[bool] = False
    options: FakeOptions

    def __init__(
        self,
        options: FakeOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self.options, self.scene, self.device = options, scene, device
        self.grid = torch.nn.Parameter(0.5 + 0.01 * torch.randn(3, 8, 8, generator=generator))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"name": "grid", "params": [self.grid], "lr": self.options.lr},
            {"name": "bias", "params": [self.bias], "lr": self.options.lr},
        ]

    def learning_rates(self, step: int) -> dict[str, float]:
        return {"grid": self.options.lr * 0.999**step, "bias": self.options.lr}

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        if step == self.options.fail_at:
            raise ZeroDivisionError("the fake was told to fail")
        view = self.scene.split("train")[sampler.next()]
        target = view.target(self.scene.background.color(generator))
        noise = 0.01 * torch.randn(target.shape, generator=generator)
        mse = (self._image(view.camera) - target - noise).square().mean()
        if 0 <= self.options.nan_from <= step:
            mse = mse * float("nan")
        return StepOutput({"mse": mse}, float(mse.detach()))

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        if not self.options.grow or step % 7 != 6:
            return
        old = self.bias
        self.bias = torch.nn.Parameter(torch.cat([old.detach(), torch.zeros(1)]))
        state = optimizer.state.pop(old)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.cat([state[name], torch.zeros(1)])
        optimizer.state[self.bias] = state
        optimizer.param_groups[1]["params"] = [self.bias]

    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        return Render(self._image(camera).clamp(0, 1))

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        layers = k or self.options.k
        shape = (camera.height, camera.width, layers)
        index = torch.arange(layers, dtype=torch.int32).expand(shape).clone()
        index[: camera.height // 2, :, 1:] = -1  # one layer only in the upper half
        valid = index >= 0
        depth = torch.where(valid, 2.0 + 0.5 * index.float(), -1.0)
        weight = torch.where(valid, 0.5 ** (1 + index.float()), 0.0)
        color = self._image(camera).clamp(0, 1)[:, :, None].expand(*shape, 3)
        return Inspection(KBuffer(index, depth, torch.zeros(shape), weight), color, weight)

    def state_dict(self) -> dict[str, Any]:
        return {"grid": self.grid.detach(), "bias": self.bias.detach()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.grid = torch.nn.Parameter(state["grid"].clone())
        self.bias = torch.nn.Parameter(state["bias"].clone())

    def describe(self) -> dict[str, int | float | str]:
        return {"bias": self.bias.numel()}

    def _image(self, camera: Camera) -> Tensor:
        size = (camera.height, camera.width)
        image = F.interpolate(self.grid[None], size, mode="bilinear", align_corners=False)
        return image[0].movedim(0, -1) + self.bias.mean()


def write_scene(folder: Path, *, size: int = 24, val: bool = True) -> Path:
    """A NeRF-Synthetic scene: 6 train, 2 val (or none) and 3 test views of a soft disc."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:size, 0:size] / size
    for split, count in (("train", 6), ("val", 2 if val else 0), ("test", 3)):
        if count == 0:
            continue
        (folder / split).mkdir(parents=True)
        frames = []
        for i in range(count):
            angle = 2 * np.pi * (i + 0.3 * len(split)) / count
            rgba = np.empty((size, size, 4))
            rgba[..., 0], rgba[..., 1] = rows, columns
            rgba[..., 2] = 0.5 + 0.1 * rng.random()
            rgba[..., 3] = ((rows - 0.5) ** 2 + (columns - 0.5) ** 2) < 0.16
            Image.fromarray((rgba * 255).round().astype(np.uint8)).save(
                folder / split / f"r_{i}.png"
            )
            camera = Camera.look_at((3 * np.cos(angle), 3 * np.sin(angle), 1.0), (0.0, 0.0, 0.0))
            frames.append(
                {
                    "file_path": f"./{split}/r_{i}",
                    "transform_matrix": camera.to_opengl().tolist(),
                }
            )
        text = json.dumps({"camera_angle_x": 0.69, "frames": frames})
        (folder / f"transforms_{split}.json").write_text(text)
    return folder


@pytest.fixture
def tiny_scene(tmp_path: Path) -> Path:
    """Folder of a scene of 24x24 pixels."""
    return write_scene(tmp_path / "tiny")


@pytest.fixture
def fake_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Registers ``--method fake`` and works in an empty folder."""
    monkeypatch.setitem(render.methods._METHODS, "fake", "tests.fakes:FakeMethod")
    monkeypatch.chdir(tmp_path)
