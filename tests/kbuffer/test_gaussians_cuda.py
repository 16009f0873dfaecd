"""The road of Gaussians to a GPU, without one: who is taken, what is said, what compilers say."""

from __future__ import annotations

import ctypes
import importlib.machinery
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from app import doctor
from app.runtime import resolve_device
from render.camera import Camera
from render.kbuffer import (
    build,
    cuda_build,
    cuda_nvrtc,
    gaussians,
    gaussians_cuda,
    gaussians_gsplat,
)
from render.kbuffer import gsplat_found as road
from render.methods import method_class
from render.methods.gaussians import GaussiansMethod
from tests.kbuffer.gaussian_roads import Emulator
from tests.kbuffer.gaussian_scenes import camera, cloud

CUDA = torch.device("cuda", 0)
KERNELS = ["gs::gs_project", "gs::gs_project_backward"]
KERNELS += [gaussians_cuda.keeper_name(k) for k in (0, 4, 8, 16, 17)]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found once is asked for again."""
    monkeypatch.delenv("KBUFFERS_BACKEND", raising=False)
    road._fault.cache_clear()
    gaussians._warn.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, version: str, toolkit: bool = True) -> None:
    """A GPU and gsplat of that version."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(road, "installed", lambda: version)
    monkeypatch.setattr(road, "_toolkit", lambda: toolkit)


# ---------------------------------------------------------------------------- who is taken
@pytest.mark.parametrize(
    ("version", "toolkit", "sentence"),
    [
        ("", True, r'gsplat is not installed: pip install "kbuffers\[cuda\]"'),
        ("1.4.0", True, r"gsplat 1\.4\.0 found, 1\.5 needed"),
        ("of unknown version", True, "of unknown version found"),
        ("1.5.3", False, r"gsplat 1\.5\.3 needs nvcc"),
    ],
)
def test_why_it_is_not_taken(
    version: str, toolkit: bool, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, version, toolkit)
    assert re.search(sentence, road.expected())
    assert not road.usable(CUDA)
    assert road.status(CUDA) == road.expected()
    assert not GaussiansMethod.gpu_ready()


def test_without_a_gpu_gsplat_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "gsplat", None)  # importing it would fail
    assert road.expected() in ("this torch is built without CUDA", "no GPU found")
    assert not road.usable(CUDA)
    assert method_class("bpcr").gpu_ready() and not GaussiansMethod.gpu_ready()


def test_the_methods_are_ready_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "1.5.3")
    assert GaussiansMethod.gpu_ready()
    assert resolve_device("auto", "gaussians") == torch.device("cuda")
    assert "1.5.3, for Gaussians on a GPU" in doctor._gsplat()
    monkeypatch.setenv("KBUFFERS_BACKEND", "native")
    assert not GaussiansMethod.gpu_ready()
    assert resolve_device("auto", "gaussians") == torch.device("cpu")


def test_the_doctor_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "1.4.0")
    assert doctor._gsplat().startswith("1.4.0, not used: gsplat 1.4.0 found, 1.5 needed")
    pretend(monkeypatch, "")
    assert doctor._gsplat() == "not installed (for Gaussians on a GPU; they run on the CPU)"


def test_a_gsplat_that_does_not_build_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "1.5.3")
    package, cuda = ModuleType("gsplat"), ModuleType("gsplat.cuda")
    monkeypatch.setitem(sys.modules, "gsplat", package)
    monkeypatch.setitem(sys.modules, "gsplat.cuda", cuda)
    assert "did not build: cannot import name '_backend'" in road.status(CUDA)
    road._fault.cache_clear()
    cuda._backend = ModuleType("gsplat.cuda._backend")  # type: ignore[attr-defined]
    cuda._backend._C = None
    assert road.status(CUDA) == "gsplat 1.5.3 found no CUDA toolkit"
    road._fault.cache_clear()
    cuda._backend._C = object()

    def missing(index: int) -> None:
        raise OSError("NVRTC (libnvrtc.so.13)\nnot found")

    monkeypatch.setattr(gaussians_cuda, "load", missing)
    assert road.status(CUDA) == "splatting kernels did not build: NVRTC (libnvrtc.so.13) not found"


def test_toolkit_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils.cpp_extension as extension

    monkeypatch.setattr(road, "find_spec", lambda name: None)
    monkeypatch.setattr(extension, "CUDA_HOME", None)
    assert not road._toolkit() and road.installed() == ""
    monkeypatch.setattr(extension, "CUDA_HOME", "/usr/local/cuda")
    assert road._toolkit()
    monkeypatch.setattr(extension, "CUDA_HOME", None)
    spec = importlib.machinery.ModuleSpec("gsplat", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(road, "find_spec", lambda name: spec)
    assert not road._toolkit()
    (tmp_path / "csrc.cpython-311-x86_64-linux-gnu.so").touch()  # it brings its kernels along
    assert road._toolkit()


def test_tensors_stay_or_are_copied_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(road, "usable", lambda device: device.type == "cuda")
    assert gaussians._gpu(CUDA) is gaussians_gsplat
    assert gaussians._gpu(torch.device("cpu")) is None
    monkeypatch.setenv("KBUFFERS_BACKEND", "native")
    assert gaussians._gpu(CUDA) is None
    monkeypatch.delenv("KBUFFERS_BACKEND")
    monkeypatch.setattr(road, "usable", lambda device: False)
    monkeypatch.setattr(road, "status", lambda device: "gsplat is not installed")
    caplog.set_level(logging.WARNING)
    assert gaussians._gpu(CUDA) is None and gaussians._gpu(CUDA) is None
    assert [record.message for record in caplog.records] == [
        "splatting: on the CPU, tensors are copied there and back (gsplat is not installed)"
    ]


# ---------------------------------------------------------------------------- calls
def test_camera_is_passed_as_the_kernels_read_it() -> None:
    """The whole of it: an emulated projection would not notice a field that nobody uses."""
    view = Camera.look_at((1.0, -3.0, 2.0), (0.0, 0.0, 0.0), width=30, height=20)
    struct = gaussians_cuda.View(view, 0.25, 0.5, True).struct
    words = torch.frombuffer(bytearray(struct), dtype=torch.float32)
    assert ctypes.sizeof(struct) == 96  # 24 words, as gs::Camera
    torch.testing.assert_close(words[:9], view.world_to_camera[:3, :3].float().flatten())
    torch.testing.assert_close(words[16:19], view.position.float())
    assert words[21:23].tolist() == [0.25, 0.5]
    assert words.view(torch.int32)[[19, 20, 23]].tolist() == [30, 20, 1]


def test_tiles_must_cover_the_picture() -> None:
    library = build.load("gs_emu")
    if library is None:
        pytest.skip(build.status("gs_emu"))
    nothing = torch.zeros(0, dtype=torch.int32)
    splats = gaussians.project(*cloud(3), camera(33, 20))
    offsets = torch.zeros(2, 2, dtype=torch.int32)
    with pytest.raises(ValueError, match="2x2 tiles do not cover 33x20 pixels"):
        gaussians_cuda.heaviest(
            Emulator(library), splats.splats, splats.depth, nothing, offsets, (33, 20), 4
        )
    with pytest.raises(RuntimeError, match="no such kernel"):
        Emulator(library).launch(
            "gs::gs_other", 1, gaussians_cuda.View(camera(2, 2), 1, 1, True).struct
        )


class Driver:
    """As much of the CUDA driver as a launch calls; ``context`` is that of the thread."""

    def __init__(self, context: int | None, refused: int = 0) -> None:
        self.context, self.refused, self.calls = context, refused, []

    def cuCtxGetCurrent(self, to: Any) -> int:
        to._obj.value = self.context
        return 0

    def cuDevicePrimaryCtxRetain(self, to: Any, device: int) -> int:
        to._obj.value = 70 + device
        return self.refused

    def cuCtxSetCurrent(self, context: ctypes.c_void_p) -> int:
        self.context = context.value
        return 0

    def cuLaunchKernel(self, function: Any, blocks: int, *more: Any) -> int:
        self.calls.append((self.context, blocks, more[6].value, more[7][0]))
        return 0


@pytest.mark.parametrize(("before", "within"), [(None, 71), (5, 5)])
def test_a_new_thread_enters_the_context_of_torch(before: int | None, within: int) -> None:
    module = cuda_nvrtc.Module.__new__(cuda_nvrtc.Module)
    module._driver = driver = Driver(before)  # type: ignore[assignment]
    module._function = lambda name, device: ctypes.c_void_p(1)  # type: ignore[method-assign]
    task = ctypes.c_int(3)
    assert module.launch("k", 9, (task,), 1, 44) == 0
    assert driver.calls == [(within, 9, 44, ctypes.addressof(task))]
    module._driver = Driver(None, refused=2)  # type: ignore[assignment]
    assert module.launch("k", 9, (task,), 1, 44) == 2


# ---------------------------------------------------------------------------- compilers
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize("name", KERNELS)
def test_nvrtc_compiles_every_kernel(architecture: str, name: str) -> None:
    try:
        compiler = cuda_nvrtc.Compiler()
    except OSError as missing:
        pytest.skip(f"{missing}; pip install nvidia-cuda-nvrtc, or a torch with CUDA")
    program = gaussians_cuda.PROGRAM
    code, symbol = compiler.compile(build.SOURCE_DIR, architecture, name, program)
    assert code[:4] == b"\x7fELF"
    assert symbol in code


@pytest.mark.skipif(
    os.environ.get("KBUFFERS_CUDA_CHECK", "") in ("", "0"), reason="make cuda-check runs this"
)
@pytest.mark.parametrize("architecture", cuda_build.ARCHITECTURES)
def test_nvcc_neither_warns_nor_spills_nor_fuses(architecture: str, tmp_path: Path) -> None:
    nvcc = cuda_build.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc not found: the splatting kernels were not compiled")
    source = tmp_path / "all.cu"
    keepers = "".join(
        f"template __global__ void {name}(gs::HeaviestTask);\n" for name in KERNELS[2:]
    )
    source.write_text(f'#include "gs_kernels.cuh"\n{keepers}')
    words = [nvcc, "-O3", "-std=c++17", "--fmad=false", f"-arch=sm_{architecture}"]
    words += ["-I", str(build.SOURCE_DIR), "-Xptxas", "-v", "-Werror", "all-warnings"]
    words += ["-Xcompiler", "-Wall,-Wextra", "-keep", "-keep-dir", str(tmp_path), "-cubin"]
    done = subprocess.run(
        [*words, str(source), "-o", str(tmp_path / "all.cubin")], capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "warning" not in said.lower(), said
    kept = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
    assert said.count(kept) == len(KERNELS), said
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    assert len(registers) == len(KERNELS)
    assert max(registers) <= 128  # two blocks of 256 threads on a multiprocessor
    text = (tmp_path / "all.ptx").read_text()
    assert "mul.f32" in text or "mul.rn.f32" in text
    for word in ("fma.rn.f32", ".approx", ".ftz"):
        assert word not in text
