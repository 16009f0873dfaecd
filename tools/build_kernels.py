"""Cross-compile the CPU kernels for all platforms of the wheels, from one machine, with Zig.

    pip install -e ".[release]"
    python -m tools.build_kernels                    # everything, into cuda/prebuilt
    python -m tools.build_kernels --only linux-x86_64

Zig is clang with the headers and libraries of every system: it links its own C++ library into the
result, so that the user needs none. The first build for a system takes minutes (that library is
compiled), later ones seconds. docs/kernels.md tells the rest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from render.kbuffer.build import prebuilt_key
from render.kbuffer.compiler import GNU_FLAGS, GNU_LEVELS
from render.kbuffer.libraries import content_digest

SOURCES = Path(__file__).resolve().parents[1] / "cuda"
KERNELS = tuple(sorted(path.stem for path in SOURCES.glob("*_cpu.cpp")))
X86 = tuple(GNU_LEVELS)


@dataclass(frozen=True)
class Target:
    """A platform of ``libraries.platform_name`` as Zig calls it."""

    triple: str
    cpu: str
    suffix: str
    levels: tuple[str, ...]

    def mcpu(self, level: str) -> str:
        """``-mcpu`` for a level: the plainest CPU plus what the level's compiler flags name."""
        return self.cpu + "".join(flag.replace("-m", "+", 1) for flag in GNU_LEVELS[level])


TARGETS = {
    # glibc 2.17 (2012) is what manylinux2014 promises
    "linux-x86_64": Target("x86_64-linux-gnu.2.17", "x86_64", ".so", X86),
    "linux-aarch64": Target("aarch64-linux-gnu.2.17", "generic", ".so", X86[-1:]),
    "windows-x86_64": Target("x86_64-windows-gnu", "x86_64", ".dll", X86),
    "macos-aarch64": Target("aarch64-macos.11.0", "apple_m1", ".dylib", X86[-1:]),
    "macos-x86_64": Target("x86_64-macos.11.0", "x86_64", ".dylib", X86[1:]),  # few have AVX-512
}


def exported(kernel: str) -> list[str]:
    """Names of the functions that a kernel declares with KB_EXPORT."""
    text = (SOURCES / f"{kernel}.cpp").read_text(encoding="utf-8")
    return re.findall(r"^KB_EXPORT[^(]*?(\w+)\(", text, re.MULTILINE)


def build(kernel: str, platform: str, level: str, out: Path) -> Path:
    """Compile one library into ``out``; returns its path. Raises CalledProcessError."""
    target, source = TARGETS[platform], SOURCES / f"{kernel}.cpp"
    stem = f"{kernel}-{platform}-{level}"
    with tempfile.TemporaryDirectory(dir=out) as folder:
        code, library = (Path(folder) / f"{kernel}{suffix}" for suffix in (".o", target.suffix))
        pic = () if target.suffix == ".dll" else ("-fPIC",)
        flags = (*GNU_FLAGS, *pic, "-pthread")
        zig = (sys.executable, "-m", "ziglang", "c++", "-target", target.triple)
        # Only the kernel is for the level: what it is linked with is built once for each system.
        compiled = (*flags, f"-mcpu={target.mcpu(level)}", "-c", str(source), "-o", str(code))
        linking = _linking(kernel, target, Path(folder))
        linked = (*flags, f"-mcpu={target.cpu}", "-s", *linking, str(code), "-o", str(library))
        for command in (compiled, linked):
            subprocess.run([*zig, *command], check=True, cwd=folder)
        name = f"{stem}-{prebuilt_key(source, level)}-{content_digest(library)}{target.suffix}"
        for old in out.glob(f"{stem}-*"):
            old.unlink()
        return library.replace(out / name)


def _linking(kernel: str, target: Target, folder: Path) -> list[str]:
    """What each system needs to export the kernels' names and nothing else."""
    if target.suffix == ".so":
        # Without the list operator new and delete would be exported, and could be mixed with
        # those of other C++ libraries in the process.
        script = folder / "exports.map"
        script.write_text(f"{{ global: {'; '.join(exported(kernel))}; local: *; }};\n")
        return [f"-Wl,--version-script={script}"]
    if target.suffix == ".dylib":
        return ["-Wl,-install_name,@rpath/kernel.dylib"]
    return []


def main() -> int:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=TARGETS, action="append", help="can be repeated")
    parser.add_argument("--out", type=Path, default=SOURCES / "prebuilt")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for platform in options.only or TARGETS:
        for level in TARGETS[platform].levels:
            for kernel in KERNELS:
                started = time.perf_counter()
                path = build(kernel, platform, level, options.out)
                seconds = time.perf_counter() - started
                print(
                    f"{path.name}  {path.stat().st_size / 1e3:.0f} kB  {seconds:.1f} s", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
