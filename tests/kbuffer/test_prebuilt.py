"""Libraries that come with the program: taken where they fit exactly, otherwise never opened."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from render.kbuffer import build, compiler, libraries

# The number tells who made the library: 1 is compiled here, others came with the program.
SOURCE = """
#if defined(_MSC_VER)
extern "C" __declspec(dllexport)
#else
extern "C" __attribute__((visibility("default")))
#endif
int value() { return VALUE; }
"""


class Shop:
    """A folder of sources, with libraries for it that give a number of our choice."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "cuda"
        self.prebuilt = self.folder / "prebuilt"
        self.prebuilt.mkdir(parents=True)
        # No test opens a library by a name that another has used: loaders know files by name.
        self.name = "k" + hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.source = self.folder / f"{self.name}.cpp"
        self.source.write_text("#define VALUE 1\n" + SOURCE)
        self._monkeypatch = monkeypatch

    def make(
        self,
        value: int,
        level: str = "baseline",
        platform: str | None = None,
        digest: str | None = None,
    ) -> Path:
        """Put a library into the folder of prebuilt ones, as tools/build_kernels.py names them."""
        found = compiler.find_compiler()
        assert found is not None
        source = self.folder.parent / f"{self.name}.cpp"
        source.write_text(f"#define VALUE {value}\n" + SOURCE)
        platform = platform or libraries.platform_name()
        digest = digest or build.prebuilt_key(self.source, level)
        stem = f"{self.name}-{platform}-{level}-{digest}"
        return compiler.compile_library(source, found, "baseline", self.prebuilt, stem)

    def load(self) -> tuple[int | None, str]:
        """What a new process would get: the number, or None, and the status."""
        self._monkeypatch.setattr(build, "_results", {})
        library = build.load(self.name)
        return None if library is None else library.value(), build.status(self.name)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    for name in ("BACKEND", "NO_COMPILER", "NO_PREBUILT", "CPU_LEVEL"):
        monkeypatch.delenv(f"KBUFFERS_{name}", raising=False)
    monkeypatch.setenv("KBUFFERS_CACHE", str(tmp_path / "cache"))
    if compiler.find_compiler() is None:
        pytest.skip("no C++ compiler")
    shop = Shop(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "SOURCE_DIR", shop.folder)
    monkeypatch.setattr(build, "cpu_level", lambda: "avx512")
    return shop


def test_best_level_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, level in enumerate(("baseline", "avx2", "avx512"), start=11):
        shop.make(value, level)
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    assert shop.load() == (13, "native (prebuilt, AVX-512)")
    monkeypatch.setattr(build, "cpu_level", lambda: "avx2")
    assert shop.load() == (12, "native (prebuilt, AVX2)")
    monkeypatch.setattr(build, "cpu_level", lambda: "baseline")
    value, status = shop.load()
    assert value == 11
    assert re.fullmatch(r"native \(prebuilt, (baseline|NEON)\)", status)


def test_a_plainer_level_when_the_best_is_missing(shop: Shop) -> None:
    shop.make(12, "avx2")
    assert shop.load() == (12, "native (prebuilt, AVX2)")


def test_never_above_the_level_of_the_cpu(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.make(13, "avx512")
    monkeypatch.setattr(build, "cpu_level", lambda: "avx2")
    assert shop.load()[0] == 1


@pytest.mark.parametrize("changed", ["source", "new header"])
def test_changed_sources_win(shop: Shop, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    shop.make(11)
    assert shop.load()[0] == 11
    if changed == "source":
        shop.source.write_text(shop.source.read_text() + "// changed\n")
    else:
        (shop.folder / "more.h").write_text("// new\n")
    value, status = shop.load()
    assert value == 1
    assert "built in" in status
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    value, status = shop.load()
    assert value is None
    assert status.endswith("(prebuilt libraries: made from other sources)")


def test_line_ends_of_the_checkout_do_not_count(shop: Shop) -> None:
    shop.make(11)
    shop.source.write_bytes(shop.source.read_bytes().replace(b"\n", b"\r\n"))
    assert shop.load()[0] == 11


@pytest.mark.parametrize("platform", ["linux-riscv64", "windows-x86_64", "macos-aarch64"])
def test_other_platforms_are_left_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    if platform == libraries.platform_name():
        pytest.skip("is this one")
    shop.make(11, platform=platform)
    assert shop.load()[0] == 1
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    assert f"none for {libraries.platform_name()}" in shop.load()[1]


@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage", "one bit"])
def test_damaged_ones_are_not_opened(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = shop.make(11)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "truncated": whole[:middle],
            "emptied": b"",
            "garbage": b"x" * 999,
            "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        }[damage]
    )
    value, status = shop.load()
    assert value == 1
    assert "built in" in status
    assert path.exists()  # pip's files are not ours to remove
    monkeypatch.setenv("KBUFFERS_NO_COMPILER", "1")
    assert shop.load() == (
        None,
        "no C++ compiler found; install g++ or clang for full speed "
        f"(prebuilt libraries: {path.name} is damaged)",
    )


def test_whole_file_that_is_no_library(shop: Shop) -> None:
    """As on a system whose C library is another: the loader refuses, a compiler helps."""
    path = shop.make(11)
    path.write_bytes(b"not a library")
    content = libraries.content_digest(path)
    path.rename(path.with_stem(f"{path.stem.rpartition('-')[0]}-{content}"))
    assert shop.load()[0] == 1


def test_prebuilt_before_cache_and_switched_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shop.load()[0] == 1
    shop.make(11)
    assert shop.load()[0] == 11
    monkeypatch.setenv("KBUFFERS_NO_PREBUILT", "1")
    value, status = shop.load()
    assert value == 1
    assert "cached" in status


@pytest.mark.parametrize(
    ("system", "python", "machine", "bits", "expected"),
    [
        ("linux", "linux-x86_64", "x86_64", 63, "linux-x86_64"),
        ("linux", "linux-x86_64", "x86_64", 31, "linux-x86_64-32bit"),
        ("linux", "linux-aarch64", "aarch64", 63, "linux-aarch64"),
        ("darwin", "macosx-11.0-universal2", "arm64", 63, "macos-aarch64"),
        ("darwin", "macosx-11.0-universal2", "x86_64", 63, "macos-x86_64"),
        ("win32", "win-amd64", "AMD64", 63, "windows-x86_64"),
        ("win32", "win-amd64", "ARM64", 63, "windows-x86_64"),  # emulated on ARM
    ],
)
def test_platform_names(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    python: str,
    machine: str,
    bits: int,
    expected: str,
) -> None:
    monkeypatch.setattr(libraries.sys, "platform", system)
    monkeypatch.setattr(libraries.sys, "maxsize", 2**bits - 1)
    monkeypatch.setattr(libraries.sysconfig, "get_platform", lambda: python)
    monkeypatch.setattr(libraries.platform, "machine", lambda: machine)
    assert libraries.platform_name() == expected
