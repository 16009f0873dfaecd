"""Finding CUDA kernels: prebuilt, cached, nvcc, NVRTC, and one line where none of them works.

No GPU and no nvcc: the compiler is a script that has g++ build a library with the same interface.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest
import torch

from render.kbuffer import build, cuda_build, cuda_nvrtc, libraries, rasterize
from render.kbuffer.compiler import CompileError
from render.kbuffer.cuda_impl import Input, Output

STUB = """
extern "C" int kb_cuda_abi() { return ABI; }
extern "C" int kb_cuda_probe(int device) { return device == 9 ? 35 : 0; }
extern "C" int kb_cuda_rasterize(const void*, void*) { return 700; }
extern "C" const char* kb_cuda_error(int) { return "driver too old"; }
""".replace("ABI", str(1000 * ctypes.sizeof(Input) + ctypes.sizeof(Output)))
HOPPER = (9, 0)


def runs(_: cuda_build.Library) -> str:
    return ""


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvcc, sources of its own and an empty cache; counts in ``calls``."""
    if os.name == "nt" or shutil.which("g++") is None:
        pytest.skip("needs a POSIX shell and g++")
    sources = tmp_path / "cuda"
    sources.mkdir()
    for name in ("kb_cuda.cu", "kb_kernels.cuh", "kb_device.h"):
        (sources / name).write_text("// kernels\n")
    (tmp_path / "stub.cpp").write_text(STUB)
    script = tmp_path / "nvcc"
    script.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release 12.4, V12.4.1"; exit 0; fi
echo "$@" >> {tmp_path}/calls
for word; do out="$word"; done
exec g++ -shared -fPIC {tmp_path}/stub.cpp -o "$out"
"""
    )
    script.chmod(0o755)
    for name in ("CUDA", "NO_COMPILER", "NO_PREBUILT"):
        monkeypatch.delenv(f"KBUFFERS_{name}", raising=False)
    monkeypatch.setattr(build, "SOURCE_DIR", sources)
    monkeypatch.setenv("KBUFFERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NVCC", str(script))
    cuda_build.nvcc_version.cache_clear()
    return script


def calls(nvcc: Path) -> list[str]:
    file = nvcc.parent / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_nvcc_once_then_the_cache(nvcc: Path) -> None:
    found = cuda_build.find(HOPPER, runs)
    assert found.status.startswith("nvcc 12.4, sm_90, built in")
    assert found.kernels is not None
    assert found.kernels.rasterize(Input(), Output()) == 700
    assert found.kernels.error_text(700) == "driver too old"
    again = cuda_build.find(HOPPER, runs)
    assert again.status == "nvcc 12.4, sm_90, cached"
    assert len(calls(nvcc)) == 1
    assert "arch=compute_90,code=sm_90" in calls(nvcc)[0]
    assert len(list((nvcc.parent / "cache").iterdir())) == 1  # no debris of the build
    cuda_build.find((7, 5), runs)  # another GPU
    assert "sm_75" in calls(nvcc)[1]


@pytest.mark.parametrize("changed", ["kb_cuda.cu", "kb_kernels.cuh", "kb_device.h"])
def test_changed_sources_are_built_again(nvcc: Path, changed: str) -> None:
    cuda_build.find(HOPPER, runs)
    (build.SOURCE_DIR / changed).write_text("// other kernels\n")
    cuda_build.find(HOPPER, runs)
    assert len(calls(nvcc)) == 2


def test_prebuilt_comes_first_if_it_is_of_these_sources(nvcc: Path, monkeypatch) -> None:
    path = cuda_build.make_prebuilt(build.SOURCE_DIR / "prebuilt")
    assert path.name.startswith(f"kb_cuda-{libraries.platform_name()}-all-")
    for architecture in cuda_build.ARCHITECTURES:
        assert f"code=sm_{architecture}" in calls(nvcc)[0]
    assert "code=compute_90" in calls(nvcc)[0]
    assert cuda_build.find(HOPPER, runs).status == "prebuilt"
    monkeypatch.setenv("KBUFFERS_NO_PREBUILT", "1")
    assert "built in" in cuda_build.find(HOPPER, runs).status
    monkeypatch.delenv("KBUFFERS_NO_PREBUILT")
    (build.SOURCE_DIR / "kb_cuda.cu").write_text("// newer\n")
    assert "built in" in cuda_build.find(HOPPER, runs).status


def test_library_that_cannot_run_gives_way_and_says_why(nvcc: Path, monkeypatch) -> None:
    cuda_build.make_prebuilt(build.SOURCE_DIR / "prebuilt")
    monkeypatch.setattr(cuda_nvrtc, "Compiler", no_nvrtc)
    found = cuda_build.find(HOPPER, lambda library: library.probe(9))
    assert found.kernels is None
    assert "prebuilt: driver too old (35); nvcc 12.4, sm_90, built in" in found.status
    assert found.status.endswith("driver too old (35); NVRTC not found")
    assert cuda_build.find(HOPPER, lambda library: library.probe(0)).status == "prebuilt"


def no_nvrtc() -> None:
    raise OSError("NVRTC not found")


def test_nothing_found_is_one_line(nvcc: Path, monkeypatch) -> None:
    monkeypatch.setattr(cuda_nvrtc, "Compiler", no_nvrtc)
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    found = cuda_build.find(HOPPER, runs)
    assert found.kernels is None
    assert found.status == "nvcc not found (install the CUDA toolkit); NVRTC not found"


def test_compiler_that_refuses(nvcc: Path, monkeypatch) -> None:
    nvcc.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "release 12.4,"; exit 0; fi\n'
        'echo "nvcc fatal   : Unsupported gpu architecture" >&2\nexit 1\n'
    )
    monkeypatch.setattr(cuda_nvrtc, "Compiler", no_nvrtc)
    found = cuda_build.find(HOPPER, runs)
    assert found.kernels is None
    assert found.status.startswith(
        "nvcc 12.4 could not build kb_cuda.cu: nvcc fatal : Unsupported gpu architecture"
    )
    with pytest.raises(CompileError, match="Unsupported gpu architecture"):
        cuda_build.make_prebuilt(nvcc.parent / "prebuilt")


def test_library_of_another_interface_is_not_called(nvcc: Path, monkeypatch) -> None:
    stub = nvcc.parent / "stub.cpp"
    stub.write_text(STUB.replace("return 1", "return 9", 1))
    monkeypatch.setattr(cuda_nvrtc, "Compiler", no_nvrtc)
    found = cuda_build.find(HOPPER, runs)
    assert found.kernels is None
    assert "another interface" in found.status


@pytest.mark.parametrize("road", ["off", "prebuilt", "nvcc", "nvrtc"])
def test_a_chosen_road_is_the_only_one(nvcc: Path, road: str, monkeypatch) -> None:
    monkeypatch.setenv("KBUFFERS_CUDA", road)
    monkeypatch.setattr(cuda_nvrtc, "Compiler", no_nvrtc)
    status = cuda_build.find(HOPPER, runs).status
    wanted = {
        "off": "not used: KBUFFERS_CUDA=off",
        "prebuilt": "nothing found",
        "nvcc": "nvcc 12.4, sm_90",
        "nvrtc": "NVRTC not found",
    }
    assert status.startswith(wanted[road])


def test_damaged_cache_is_built_again(nvcc: Path) -> None:
    cuda_build.find(HOPPER, runs)
    (built,) = (nvcc.parent / "cache").iterdir()
    built.unlink()  # mapped by this process: it must not be cut under its own feet
    built.write_bytes(b"x" * 100)
    assert cuda_build.find(HOPPER, runs).status.startswith("nvcc 12.4, sm_90, built")
    assert len(calls(nvcc)) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_a_line() -> None:
    assert cuda_build.load(0) is None
    assert cuda_build.status() in ("this torch is built without CUDA", "no GPU found")


def test_fallback_is_said_once(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    """The choice that ``rasterize`` makes for points on a GPU."""
    device = torch.device("cuda", 0)
    monkeypatch.delenv("KBUFFERS_BACKEND", raising=False)
    monkeypatch.setattr(cuda_build, "load", lambda index: None)
    monkeypatch.setattr(cuda_build, "status", lambda index: "nvcc not found")
    rasterize._announce_cuda.cache_clear()
    with caplog.at_level("INFO"):
        assert rasterize._cuda_kernels(device) is None
        assert rasterize._cuda_kernels(device) is None
    assert [r.getMessage() for r in caplog.records] == [
        "point rasteriser on CPU although the points are on a GPU: nvcc not found"
    ]
    kernels = object()
    monkeypatch.setattr(cuda_build, "load", lambda index: kernels)
    assert rasterize._cuda_kernels(device) is kernels
    monkeypatch.setenv("KBUFFERS_BACKEND", "native")
    assert rasterize._cuda_kernels(device) is None


# ---------------------------------------------------------------------------- NVRTC
@pytest.fixture(scope="module")
def nvrtc() -> cuda_nvrtc.Compiler:
    try:
        return cuda_nvrtc.Compiler()
    except OSError as missing:
        pytest.skip(f"{missing}; pip install nvidia-cuda-nvrtc, or a torch with CUDA")


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize(
    "name",
    ["kb::kb_count", "kb::kb_emit", "kb::kb_ranges", *(
        cuda_nvrtc.raster_name(k, k % 2) for k in (1, 2, 4, 8, 9, 40)
    )],
)  # fmt: skip
def test_nvrtc_compiles_every_kernel(
    nvrtc: cuda_nvrtc.Compiler, architecture: str, name: str
) -> None:
    code, symbol = nvrtc.compile(build.SOURCE_DIR, architecture, name)
    assert code[:4] == b"\x7fELF"
    assert symbol in code


def test_nvrtc_says_what_it_does_not_know(nvrtc: cuda_nvrtc.Compiler) -> None:
    with pytest.raises(OSError, match="gpu-architecture"):
        nvrtc.compile(build.SOURCE_DIR, "sm_10", "kb::kb_count")
    with pytest.raises(OSError, match="gpu-architecture"):
        cuda_nvrtc.Nvrtc(build.SOURCE_DIR, (1, 0))
