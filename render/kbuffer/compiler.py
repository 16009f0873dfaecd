"""C++ compilers: find one, and compile a kernel of ``cuda/`` with it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from render.kbuffer.libraries import SUFFIX, content_digest

log = logging.getLogger(__name__)

# -ffp-contract=off: a fused multiply-add rounds once instead of twice, and the kernels promise the
# same bits as their Numba and torch twins.
GNU_FLAGS = ("-O3", "-std=c++17", "-ffp-contract=off", "-shared", "-fvisibility=hidden")
# Instruction sets, best first. ARM has only the last, which includes NEON there.
GNU_LEVELS = {
    "avx512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    "avx2": ("-mavx2", "-mfma"),
    "baseline": (),
}
_MSVC_FLAGS = ("/nologo", "/O2", "/std:c++17", "/EHsc", "/fp:precise", "/LD")
_MSVC_LEVELS = {"avx512": ("/arch:AVX512",), "avx2": ("/arch:AVX2",), "baseline": ()}
_COMPILE_SECONDS = 180  # give up on a compiler that hangs (a licence prompt, a dead network drive)


class CompileError(Exception):
    """The compiler ran and refused; the text is its first error."""


@dataclass(frozen=True)
class Compiler:
    """A compiler that has answered."""

    command: tuple[str, ...]
    version: str  # first line of what it says about itself
    label: str  # "g++ 12.2"
    msvc: bool

    def flags(self, level: str) -> tuple[str, ...]:
        """Everything but source and output, for one of ``GNU_LEVELS``."""
        if self.msvc:
            return _MSVC_FLAGS + _MSVC_LEVELS[level]
        # MinGW: without -static the library would need DLLs that only the compiler's folder has
        system = ("-static",) if os.name == "nt" else ("-fPIC",)
        return (*GNU_FLAGS, *system, "-pthread", *GNU_LEVELS[level])


def find_compiler() -> Compiler | None:
    """``$CXX``, else the first of the usual ones that answers."""
    if os.environ.get("KBUFFERS_NO_COMPILER", "") not in ("", "0"):
        return None
    # posix=False keeps the backslashes of Windows paths
    chosen = shlex.split(os.environ.get("CXX", ""), posix=os.name != "nt")
    for command in (chosen, ["g++"], ["clang++"], ["c++"], ["cl"]):
        path = shutil.which(command[0]) if command else None
        compiler = _identify((path, *command[1:])) if path else None
        if compiler is not None:
            return compiler
    return None


def _identify(command: tuple[str, ...]) -> Compiler | None:
    """Ask the compiler who it is; None for stubs (macOS without Xcode tools) and broken ones."""
    # "ccache g++" is g++, "g++ -m64" is g++ too
    name = Path([word for word in command if not word.startswith("-")][-1]).stem
    msvc = name.lower() == "cl"
    try:
        answer = subprocess.run(
            [*command] if msvc else [*command, "--version"],
            capture_output=True, text=True, errors="replace", timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = (answer.stdout + answer.stderr).strip().partition("\n")[0]
    if not version or (answer.returncode != 0 and not msvc):
        return None
    number = re.search(r"\d+\.\d+", version)
    return Compiler(command, version, f"{name} {number.group() if number else '?'}", msvc)


def compile_library(source: Path, compiler: Compiler, level: str, folder: Path, stem: str) -> Path:
    """Compile ``source`` to ``folder/STEM-DIGEST.so`` and return that path.

    Raises:
        CompileError: the compiler refuses.
        OSError: the folder cannot be used.
    """
    # Built beside its final place, so that the rename is atomic: another process sees either no
    # library or a whole one.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-", ignore_cleanup_errors=True) as t:
        output = Path(t) / f"out{SUFFIX}"
        out = [f"/Fe:{output}", f"/Fo:{t}{os.sep}"] if compiler.msvc else ["-o", str(output)]
        try:
            done = subprocess.run(
                [*compiler.command, *compiler.flags(level), str(source), *out],
                capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CompileError(f"no answer within {_COMPILE_SECONDS} s") from error
        if done.returncode != 0 or not output.is_file():
            lines = (done.stderr + done.stdout).strip().splitlines()
            fault = next((s for s in lines if "error" in s.lower()), lines[-1] if lines else "")
            log.debug("compiler output:\n%s", "\n".join(lines))
            raise CompileError(fault.strip() or f"exit status {done.returncode}")
        path = folder / f"{stem}-{content_digest(output)}{SUFFIX}"
        try:
            os.replace(output, path)
        except PermissionError:  # Windows: another process has just put it there and loaded it
            if not path.is_file():
                raise
        return path
