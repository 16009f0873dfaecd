"""Roads to Gaussians on a GPU: the GPU itself, and a stand-in for it made of CPU code.

The stand-in runs ``gaussians_gsplat`` on CPU tensors, with the kernels of ``cuda/gs_emu.cpp`` and
with the three functions of gsplat that it uses written in plain torch, as gsplat 1.5.3 behaves.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from torch import Tensor

from render.kbuffer import build, gaussians, gaussians_gsplat, gsplat_found

ALPHA_MIN = 1 / 255
STOP = 1e-4


class Gsplat:
    """The part of gsplat's interface that is used; one image, not packed."""

    def isect_tiles(
        self, means2d: Tensor, radii: Tensor, depths: Tensor, tile: int, columns: int, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gaussians per tile: count [1, N], sorted keys (tile, depth) [M], Gaussians [M] int32."""
        n = means2d.shape[1]
        assert means2d.shape == (1, n, 2) and radii.shape == (1, n, 2) and depths.shape == (1, n)
        assert radii.dtype == torch.int32 and depths.dtype == means2d.dtype == torch.float32
        keys, ids = [], []
        depth_bits = depths[0].contiguous().view(torch.int32).tolist()
        low, high = (means2d[0] - radii[0]) / tile, (means2d[0] + radii[0]) / tile
        most = torch.tensor([columns, rows])
        first = low.floor().clamp(min=0).minimum(most).int().tolist()
        last = high.ceil().clamp(min=0).minimum(most).int().tolist()
        for i, radius in enumerate(radii[0].tolist()):
            if min(radius) <= 0:
                continue
            for row in range(first[i][1], last[i][1]):
                for column in range(first[i][0], last[i][0]):
                    keys.append((row * columns + column) << 32 | depth_bits[i])
                    ids.append(i)
        sorted_keys, order = torch.tensor(keys, dtype=torch.int64).sort(stable=True)
        return radii[..., 0], sorted_keys, torch.tensor(ids, dtype=torch.int32)[order]

    def isect_offset_encode(self, keys: Tensor, images: int, columns: int, rows: int) -> Tensor:
        """Where each tile begins, [1, rows, columns] int32."""
        tiles = torch.arange(rows * columns)
        return torch.searchsorted(keys >> 32, tiles).int().reshape(images, rows, columns)

    def rasterize_to_pixels(
        self, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, width: int,
        height: int, tile: int, offsets: Tensor, ids: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Image [1, H, W, C] and alpha [1, H, W, 1]; stops *before* little is left."""
        n, channels = colors.shape[1:]
        assert conics.shape == (1, n, 3) and opacities.shape == (1, n) and 1 <= channels <= 513
        rows, columns = offsets.shape[1:]
        ends = [*offsets.flatten().tolist()[1:], len(ids)]
        image, alpha = [], []
        for number, (begin, end) in enumerate(zip(offsets.flatten().tolist(), ends, strict=True)):
            at = torch.stack(
                torch.meshgrid(torch.arange(tile), torch.arange(tile), indexing="ij"), -1
            ).reshape(-1, 2) + tile * torch.tensor([number // columns, number % columns])
            here = ids[begin:end].long()
            delta = means2d[0, here, None] - (at.flip(1) + 0.5)  # [M, 256, 2]
            dx, dy = delta.unbind(-1)
            a, b, c = conics[0, here].unbind(-1)
            sigma = 0.5 * (a[:, None] * dx * dx + c[:, None] * dy * dy) + b[:, None] * dx * dy
            found = (opacities[0, here, None] * (-sigma).exp()).clamp(max=0.999)
            found = torch.where((sigma >= 0) & (found >= ALPHA_MIN), found, 0.0)
            open_ = (1 - found).cumprod(0) > STOP
            found = torch.where(open_, found, 0.0)
            T = torch.cat([torch.ones(1, tile * tile), (1 - found).cumprod(0)])
            image.append((found * T[:-1]).T @ colors[0, here])
            alpha.append(1 - T[-1])

        def joined(parts: list[Tensor], c: int) -> Tensor:
            whole = torch.stack(parts).reshape(rows, columns, tile, tile, c)
            whole = whole.permute(0, 2, 1, 3, 4).reshape(1, rows * tile, columns * tile, c)
            return whole[:, :height, :width]

        return joined(image, channels), joined(alpha, 1)


class Emulator:
    """``gaussians_cuda.Kernels`` on CPU tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._launch = library.gs_emu_launch
        self._launch.argtypes = (ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p)

    def launch(self, name: str, blocks: int, task: ctypes.Structure) -> None:
        """See ``gaussians_cuda.Kernels``."""
        if self._launch(name.encode(), blocks, ctypes.byref(task)):
            raise RuntimeError(f"{name}: no such kernel")


class Road:
    """One way to run ``gaussians_gsplat``.

    Attributes:
        device: where its tensors are.
        exact: whether its composite has exact arithmetic; gsplat's is fast.
    """

    def __init__(self, device: str, exact: bool) -> None:
        self.device, self.exact, self.on = torch.device(device), exact, False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within, Gaussians on ``device`` are splatted by this road; elsewhere on the CPU."""
        self.on = True
        try:
            yield
        finally:
            self.on = False


def emulated(monkeypatch: pytest.MonkeyPatch) -> Road:
    """The stand-in; skips without a compiler."""
    library = build.load("gs_emu")
    if library is None:
        pytest.skip(build.status("gs_emu"))
    road, kernels, gsplat = Road("cpu", exact=True), Emulator(library), Gsplat()

    def gpu(device: torch.device) -> ModuleType | None:
        return gaussians_gsplat if road.on else None

    monkeypatch.setattr(gaussians, "_gpu", gpu)
    monkeypatch.setattr(gaussians_gsplat, "_kernels", lambda device: kernels)
    monkeypatch.setattr(gaussians_gsplat, "_gsplat", lambda: gsplat)
    return road


def real() -> Road:
    """The GPU; skips where there is none, fails where it cannot be used."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    if not gsplat_found.installed():
        pytest.skip("gsplat is not installed")
    device = torch.device("cuda", 0)
    assert gsplat_found.usable(device), gsplat_found.status(device)
    return Road("cuda:0", exact=False)
