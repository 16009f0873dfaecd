"""Look into cross-built libraries: are they what the users' systems will load?

    python -m tools.check_kernels [FOLDER]

Checks, for each library: the format and machine of its name, digests of sources and content,
exactly the exported names of the sources, no other library needed than what every system has, no
newer glibc or macOS than promised, a stack that is not executable, a signature on macOS.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lief  # pyright: ignore[reportMissingImports]

from render.kbuffer.build import prebuilt_key
from render.kbuffer.libraries import content_digest
from tools.build_kernels import KERNELS, SOURCES, TARGETS, exported

GLIBC = (2, 17)
MACOS = [11, 0, 0]
ELF_NEEDS = ("libc.so.", "libm.so.", "libpthread.so.", "libdl.so.", "librt.so.", "ld-linux-")
PE_NEEDS = ("kernel32.dll", "ntdll.dll", "msvcrt.dll", "api-ms-win-crt-")
MACHINES = {
    ("ELF", "x86_64"): "X86_64",
    ("ELF", "aarch64"): "AARCH64",
    ("PE", "x86_64"): "AMD64",
    ("MACHO", "x86_64"): "X86_64",
    ("MACHO", "aarch64"): "ARM64",
}
FORMATS = {"linux": "ELF", "windows": "PE", "macos": "MACHO"}


def faults(path: Path) -> list[str]:
    """What is wrong with a library, one sentence each."""
    parts = path.stem.split("-")
    if len(parts) != 6 or parts[0] not in KERNELS:
        return ["a name that is not KERNEL-SYSTEM-MACHINE-LEVEL-SOURCES-CONTENT"]
    kernel, system, machine, level, sources, content = parts
    found = []
    if content != content_digest(path):
        found.append("its content is not the one of its name")
    if sources != prebuilt_key(SOURCES / f"{kernel}.cpp", level):
        found.append("made from other sources")
    binary = lief.parse(path)
    if isinstance(binary, lief.MachO.FatBinary):
        binary = binary.at(0)
    if binary is None or binary.format.name != FORMATS[system]:
        return [*found, f"not a {FORMATS[system]} file"]
    inspect = {"ELF": _elf, "PE": _pe, "MACHO": _macho}[FORMATS[system]]
    kind, names, needs, more = inspect(binary)
    if kind != MACHINES[FORMATS[system], machine]:
        found.append(f"made for {kind}")
    if names != set(exported(kernel)):
        found.append(f"exports {sorted(names ^ set(exported(kernel)))} too much or not")
    if needs:
        found.append(f"needs {needs}")
    return found + more


def _elf(binary: lief.ELF.Binary) -> tuple[str, set[str], list[str], list[str]]:
    needs = [name for name in binary.libraries if not str(name).startswith(ELF_NEEDS)]
    versions = {
        tuple(int(n) for n in str(symbol.name).removeprefix("GLIBC_").split("."))
        for needed in binary.symbols_version_requirement
        for symbol in needed.get_auxiliary_symbols()
        if str(symbol.name).startswith("GLIBC_")
    }
    more = [f"needs glibc {version}" for version in versions if version > GLIBC]
    stack = binary.get(lief.ELF.Segment.TYPE.GNU_STACK)
    if stack is None or lief.ELF.Segment.FLAGS.X in stack.flags:
        more.append("wants an executable stack")
    names = {str(symbol.name) for symbol in binary.exported_symbols}
    return binary.header.machine_type.name, names, [str(n) for n in needs], more


def _pe(binary: lief.PE.Binary) -> tuple[str, set[str], list[str], list[str]]:
    needs = [i.name for i in binary.imports if not i.name.lower().startswith(PE_NEEDS)]
    export = binary.get_export()
    names = {entry.name for entry in export.entries} if export is not None else set()
    return binary.header.machine.name, names, needs, []


def _macho(binary: lief.MachO.Binary) -> tuple[str, set[str], list[str], list[str]]:
    needs = [
        library.name
        for library in binary.libraries
        if library.command != lief.MachO.LoadCommand.TYPE.ID_DYLIB
        and library.name != "/usr/lib/libSystem.B.dylib"
    ]
    more = []
    version = binary.build_version
    if version is None or version.minos > MACOS:
        more.append(f"needs macOS {version.minos if version else '?'}")
    kind = binary.header.cpu_type.name
    if kind == "ARM64" and not binary.has_code_signature:
        more.append("has no signature, which Apple's chips refuse")
    # Weak C++ operators are bound to those of the system; the linker's own names are no functions.
    names = {str(s.name) for s in binary.symbols if s.has_export_info}
    names = {n[1:] for n in names if not n.startswith(("__Z", "__mh_", "___dso"))}
    return kind, names, needs, more


def main() -> int:
    """Check a folder against ``TARGETS``; the result is the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES / "prebuilt"
    failed = 0
    for path in sorted(folder.iterdir()):
        found = faults(path)
        failed += bool(found)
        print(f"{path.name}: {'; '.join(found) or 'ok'}")
    wanted = {
        f"{kernel}-{platform}-{level}"
        for platform, target in TARGETS.items()
        for level in target.levels
        for kernel in KERNELS
    }
    missing = wanted - {path.stem.rsplit("-", 2)[0] for path in folder.iterdir()}
    for name in sorted(missing):
        print(f"{name}: missing")
    return int(bool(failed or missing))


if __name__ == "__main__":
    sys.exit(main())
