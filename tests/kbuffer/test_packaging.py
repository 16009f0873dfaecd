"""What travels in wheels, and libraries that Zig builds for them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from render.kbuffer import build, libraries
from render.kbuffer.axes import pixel_axis
from render.kbuffer.compiler import find_compiler
from render.kbuffer.rasterize import rasterize_screen
from tests.kbuffer.gaussian_scenes import levels
from tests.kbuffer.test_gaussians_backends import assert_identical, everything
from tools.build_kernels import KERNELS, TARGETS, exported

ROOT = Path(__file__).parents[2]


def files_of_build(folder: Path, **environment: str) -> set[str]:
    """What a wheel of the copy of this repository in ``folder`` would hold."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built"],
        cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = folder / "built"
    return {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}


def test_wheels_hold_sources_assets_and_the_libraries_of_one_platform(tmp_path: Path) -> None:
    if find_spec("setuptools") is None:
        pytest.skip("no setuptools here; wheels are made in an environment of their own")
    for name in ("setup.py", "pyproject.toml", "main.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("render/kbuffer", "cuda", "assets/font"):
        ignored = shutil.ignore_patterns("prebuilt", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "render/__init__.py", tmp_path / "render")
    (tmp_path / "assets/scenes/toy").mkdir(parents=True)
    (tmp_path / "assets/scenes/toy/points.ply").write_text("ply\n")

    plain = files_of_build(tmp_path)
    sources = {p.name for p in (ROOT / "cuda").glob("*.*") if p.is_file()}
    assert {f"render/shipped/cuda/{name}" for name in sources} <= plain
    assert "render/shipped/assets/scenes/toy/points.ply" in plain
    assert "render/shipped/assets/font/Inter-Regular.otf" in plain
    assert "render/kbuffer/build.py" in plain
    assert not [name for name in plain if name.startswith(("cuda", "assets", "tools"))]

    prebuilt = tmp_path / "cuda" / "prebuilt"
    prebuilt.mkdir()
    for name in ("kb_cpu-linux-x86_64-avx2-1-2.so", "kb_cpu-windows-x86_64-avx2-1-2.dll"):
        (prebuilt / name).write_text("library")
    assert files_of_build(tmp_path) == plain
    more = files_of_build(tmp_path, KBUFFERS_WHEEL="windows-x86_64") - plain
    assert more == {"render/shipped/cuda/prebuilt/kb_cpu-windows-x86_64-avx2-1-2.dll"}


def test_every_platform_of_the_tool_has_a_wheel_tag() -> None:
    text = (ROOT / "setup.py").read_text()
    tags = re.findall(r'^    "(\w+-\w+)": "(\w+)",$', text, re.MULTILINE)
    assert sorted(platform for platform, _ in tags) == sorted(TARGETS)


def test_exported_names_are_those_that_python_calls() -> None:
    called: set[str] = set()
    for module in ("native", "gaussians_native"):
        text = (ROOT / "render/kbuffer" / f"{module}.py").read_text()
        called |= set(re.findall(r'library\.(kb_\w+)|"(gs_\w+)": \[', text))
    wanted = {name for pair in called for name in pair if name}
    assert wanted <= {name for kernel in KERNELS for name in exported(kernel)}


def outputs() -> list[torch.Tensor]:
    """Values and gradients of both kernels on random clouds."""
    found: list[torch.Tensor] = []
    for k, seed in ((1, 0), (8, 1), (16, 2)):
        g = torch.Generator().manual_seed(seed)
        uvz = torch.rand(6000, 3, generator=g) * torch.tensor([61.0, 47.0, 4.0])
        radius = torch.rand(6000, generator=g) * 3
        buffer = rasterize_screen(uvz, radius, pixel_axis(61), pixel_axis(47), k, backend="native")
        found += [buffer.index, buffer.depth, buffer.distance, *everything(k, seed)]
    return found


def test_zig_builds_the_bits_of_the_local_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed; only releases need it: pip install -e .[release]")
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    if libraries.platform_name() not in TARGETS:
        pytest.skip(f"no wheel for {libraries.platform_name()}")
    sources = tmp_path / "cuda"
    shutil.copytree(ROOT / "cuda", sources, ignore=shutil.ignore_patterns("prebuilt"))
    where = ("--only", libraries.platform_name(), "--out", str(sources / "prebuilt"))
    made = subprocess.run(
        [sys.executable, "-m", "tools.build_kernels", *where],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    monkeypatch.setattr(build, "SOURCE_DIR", sources)
    monkeypatch.setenv("KBUFFERS_BACKEND", "native")
    for level in levels():
        found = []
        monkeypatch.setenv("KBUFFERS_CPU_LEVEL", level)
        for without, how in (("0", "prebuilt"), ("1", "built in|cached")):
            monkeypatch.setenv("KBUFFERS_NO_PREBUILT", without)
            for kernel in KERNELS:
                assert re.search(how, build.status(kernel)), build.status(kernel)
            found.append(outputs())
        assert_identical(*found)
