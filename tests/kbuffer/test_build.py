"""Building kernels: cached, safe from several sides at once, and never in the way."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from render.kbuffer import build, compiler

ROOT = Path(__file__).parents[2]
SOURCE = """
#include "value.h"
#if defined(_MSC_VER)
extern "C" __declspec(dllexport)
#else
extern "C" __attribute__((visibility("default")))
#endif
int value() { return VALUE; }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources with one tiny kernel, and an empty cache."""
    sources = tmp_path / "cuda"
    sources.mkdir()
    (sources / "tiny.cpp").write_text(SOURCE)
    (sources / "value.h").write_text("#define VALUE 7\n")
    for name in ("BACKEND", "NO_COMPILER", "NO_PREBUILT", "CPU_LEVEL"):
        monkeypatch.delenv(f"KBUFFERS_{name}", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build, "SOURCE_DIR", sources)
    monkeypatch.setattr(build, "_results", {})
    monkeypatch.setenv("KBUFFERS_CACHE", str(tmp_path / "cache"))
    if compiler.find_compiler() is None:
        pytest.skip("no C++ compiler")
    return tmp_path / "cache"


def value() -> int:
    library = build.load("tiny")
    assert library is not None, build.status("tiny")
    return library.value()


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has loaded."""
    monkeypatch.setattr(build, "_results", {})


def compiler_script(folder: Path, body: str) -> str:
    """A compiler for $CXX that answers --version and then does as ``body`` says."""
    if os.name == "nt":
        pytest.skip("needs a POSIX shell")
    script = folder / "compiler"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "mycc 1.2"; exit 0; fi\n{body}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_builds_once_then_hits_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value() == 7
    assert build.status("tiny").startswith("native (")
    assert "built in" in build.status("tiny")
    assert len(list(cache.iterdir())) == 1  # no debris of the build

    def never(*_: object) -> Path:
        raise AssertionError("compiled although it was cached")

    monkeypatch.setattr(build, "compile_library", never)
    new_process(monkeypatch)
    assert value() == 7
    assert "cached" in build.status("tiny")


@pytest.mark.parametrize("changed", ["tiny.cpp", "value.h"])
def test_changed_source_or_header_is_built_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    assert value() == 7
    file = build.SOURCE_DIR / changed
    file.write_text(file.read_text().replace("VALUE 7", "VALUE 8") + "\n")
    new_process(monkeypatch)
    assert value() == (8 if changed == "value.h" else 7)
    assert "built in" in build.status("tiny")
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage"])
def test_damaged_library_is_built_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    # Never loaded in this process: a mapped file must not be truncated under its own feet.
    name = f"tiny_{damage}"
    (build.SOURCE_DIR / "tiny.cpp").rename(build.SOURCE_DIR / f"{name}.cpp")
    found, level = compiler.find_compiler(), build.cpu_level()
    assert found is not None
    source = build.SOURCE_DIR / f"{name}.cpp"
    stem = f"{name}-{level}-{build._cache_key(source, found, level)}"
    cache.mkdir()
    path = compiler.compile_library(source, found, level, cache, stem)
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "emptied": b"", "garbage": b"x" * 999}[damage]
    )
    library = build.load(name)
    assert library is not None
    assert library.value() == 7
    assert "built in" in build.status(name)
    new_process(monkeypatch)
    assert "cached" in build.status(name)


@pytest.mark.parametrize("how", ["KBUFFERS_NO_COMPILER", "PATH"])
def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv(how, "1")
    assert build.load("tiny") is None
    assert build.status("tiny") == "no C++ compiler found; install g++ or clang for full speed"


def test_compiler_that_refuses(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = compiler_script(cache.parent, 'echo "tiny.cpp:1: error: out of ideas" >&2; exit 1')
    monkeypatch.setenv("CXX", script)
    assert build.load("tiny") is None
    assert "could not build tiny.cpp: tiny.cpp:1: error: out of ideas" in build.status("tiny")
    assert list(cache.iterdir()) == []


def test_compiler_that_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O7")
    assert value() == 7  # the next one in the list


def test_compiler_without_avx_builds_for_less(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = compiler.find_compiler()
    assert real is not None
    reject = 'for a in "$@"; do case "$a" in -mavx*) echo "error: unknown $a"; exit 1;; esac; done'
    monkeypatch.setenv("CXX", compiler_script(cache.parent, f'{reject}\n{real.command[0]} "$@"'))
    monkeypatch.setattr(build, "cpu_level", lambda: "avx512")
    assert value() == 7
    assert "baseline" in build.status("tiny")


def test_cache_that_cannot_be_written(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert value() == 7
    assert cache.is_file()


def test_missing_source(cache: Path) -> None:
    assert build.load("nothing") is None
    assert "nothing.cpp not found" in build.status("nothing")


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_forced_backend_leaves_the_library_unused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("KBUFFERS_BACKEND", backend)
    assert build.forced_backend() == backend
    assert build.load("tiny") is None
    assert build.status("tiny") == f"not used: KBUFFERS_BACKEND={backend}"
    monkeypatch.setenv("KBUFFERS_BACKEND", "native")
    assert value() == 7
    monkeypatch.setenv("KBUFFERS_BACKEND", "nonsense")
    assert build.forced_backend() is None


def test_surprises_do_not_escape(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise UnicodeError("odd file name")

    monkeypatch.setattr(build, "_cache_key", broken)
    assert build.load("tiny") is None
    assert build.status("tiny") == "not built: odd file name"


def test_cpu_level_can_only_be_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KBUFFERS_CPU_LEVEL", raising=False)
    found = build.cpu_level()
    for asked in ("avx512", found, "nonsense"):
        monkeypatch.setenv("KBUFFERS_CPU_LEVEL", asked)
        assert build.cpu_level() == found
    monkeypatch.setenv("KBUFFERS_CPU_LEVEL", "baseline")
    assert build.cpu_level() == "baseline"


def test_many_threads_build_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[str] = []
    compile_library = compiler.compile_library

    def counted(*args):
        builds.append(args[-1])
        return compile_library(*args)

    monkeypatch.setattr(build, "compile_library", counted)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: value(), range(8))) == [7] * 8
    assert len(builds) == 1


def test_builders_without_a_common_lock_do_not_clash(cache: Path) -> None:
    """As from several processes: all compile at once, into the same folder."""
    start = threading.Barrier(6)

    def find_or_build(_: int) -> build._Result:
        start.wait()
        return build._find_or_build("tiny")

    with ThreadPoolExecutor(6) as pool:
        for library, status in (
            (found.library, found.status) for found in pool.map(find_or_build, range(6))
        ):
            assert library is not None, status
            assert library.value() == 7
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]
    assert "cached" in build.status("tiny")


def test_other_process_shares_the_cache_and_import_builds_nothing(cache: Path) -> None:
    assert value() == 7
    code = (
        "import pathlib, sys; from render.kbuffer import build, rasterize\n"
        "assert not build._results\n"
        "build.SOURCE_DIR = pathlib.Path(sys.argv[1])\n"
        "print(build.load('tiny').value(), build.status('tiny'))"
    )
    command = [sys.executable, "-c", code, str(build.SOURCE_DIR)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7 native")
    assert "cached" in done.stdout
