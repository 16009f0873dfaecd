"""What nvcc makes of ``cuda/*.cu``. Takes a minute: ``make cuda-check`` runs it, where nvcc is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from render.kbuffer import build, cuda_build

NVCC = cuda_build.find_nvcc()
pytestmark = [
    pytest.mark.skipif(
        os.environ.get("KBUFFERS_CUDA_CHECK", "") in ("", "0"), reason="make cuda-check runs this"
    ),
    pytest.mark.skipif(NVCC is None, reason="nvcc not found: the CUDA kernels were not compiled"),
]
SOURCES = sorted(build.SOURCE_DIR.glob("*.cu"))
STRICT = ("-Xptxas", "-v", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra")
OURS = re.compile(r"_ZN2kb\d+kb_")  # mangled names of our kernels; CUB's are not ours to judge


def nvcc(*words: str | Path) -> str:
    """Run nvcc; what it said."""
    assert NVCC is not None
    done = subprocess.run([NVCC, *map(str, words)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module", params=SOURCES, ids=lambda source: source.name)
def built(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[Path, str]:
    """The library for all architectures, and what ptxas said about it."""
    library = tmp_path_factory.mktemp("nvcc") / f"{request.param.stem}.so"
    flags = cuda_build.flags(cuda_build.ARCHITECTURES)
    return library, nvcc(*flags, *STRICT, request.param, "-o", library)


def test_no_warnings(built: tuple[Path, str]) -> None:
    assert not re.search("warning", built[1], re.IGNORECASE)


def test_no_kernel_spills_registers(built: tuple[Path, str]) -> None:
    seen: dict[str, int] = {}
    entries = re.findall(
        r"Compiling entry function '(\S+)' for '(sm_\d+)'(.*?Used \d+ registers)", built[1], re.S
    )
    for name, architecture, said in entries:
        if not OURS.match(name):
            continue
        registers = int(said.split()[-2])
        print(f"{architecture} {registers:3} registers  {name}")
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said, said
        assert registers <= 80  # three blocks of 256 threads on a multiprocessor
        seen[architecture] = seen.get(architecture, 0) + 1
    assert seen == dict.fromkeys((f"sm_{a}" for a in cuda_build.ARCHITECTURES), 15)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nothing_is_fused(source: Path, tmp_path: Path) -> None:
    """A fused multiply-add rounds once: the pictures of CPU and GPU would differ."""
    ptx = tmp_path / "kernels.ptx"
    nvcc("-ptx", "-O3", "-std=c++17", "-arch=compute_75", source, "-o", ptx)
    kernels = re.split(r"(?=\.entry )", ptx.read_text())[1:]
    ours = [text for text in kernels if OURS.match(text.split()[1].split("(")[0])]
    assert len(ours) == 15
    for text in ours:
        assert "fma.rn.f32" not in text
        assert "fma.rn.f64" not in text
        assert ".approx" not in text
        assert ".ftz" not in text
    assert any("mul.rn.f32" in text for text in ours)
    assert any("div.rn.f32" in text for text in ours)


LOAD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.kb_cuda_error.restype = ctypes.c_char_p
code = library.kb_cuda_probe(0)
print(code, library.kb_cuda_error(code).decode(), sep="|")
print(library.kb_cuda_rasterize(bytes(1000), bytes(1000)))
"""


def test_library_loads_without_a_driver(built: tuple[Path, str]) -> None:
    """In a process of its own: it must answer with a code, not with a crash."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(built[0])], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    probe, refused = done.stdout.splitlines()
    assert probe.startswith(("0|", "35|CUDA driver version is insufficient", "100|")), probe
    assert refused == "-1"  # arguments are looked at before the driver


def test_interface_is_what_python_mirrors(built: tuple[Path, str]) -> None:
    import ctypes

    cuda_build.Library(ctypes.CDLL(str(built[0])))  # raises if the structs differ
