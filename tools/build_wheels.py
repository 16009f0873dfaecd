"""Make the wheels: one for each platform with its libraries, and one without for all others.

    python -m tools.build_kernels && python -m tools.check_kernels && python -m tools.build_wheels

They go to dist/. The kernels have a C ABI, so a wheel serves every version of Python and torch.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.build_kernels import KERNELS, TARGETS

ROOT = Path(__file__).resolve().parents[1]


def make(platform: str, out: Path) -> Path:
    """The wheel of a platform of ``TARGETS``, or with "" the one without libraries."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would add what lies there
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)],
            check=True,
            env=os.environ | {"KBUFFERS_WHEEL": platform},
        )
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.replace(out / wheel.name)


def libraries(wheel: Path) -> set[str]:
    """KERNEL-PLATFORM-LEVEL of each library in a wheel."""
    with zipfile.ZipFile(wheel) as file:
        names = [Path(name) for name in file.namelist()]
    return {name.stem.rsplit("-", 2)[0] for name in names if name.parent.name == "prebuilt"}


def main() -> int:
    """Make all wheels; the result is the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=TARGETS, action="append", help="can be repeated")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    for platform in options.only or ["", *TARGETS]:
        levels = TARGETS[platform].levels if platform else ()
        wanted = {f"{kernel}-{platform}-{level}" for kernel in KERNELS for level in levels}
        wheel = make(platform, options.out)
        found = libraries(wheel)
        print(
            f"{wheel.name}  {wheel.stat().st_size / 1e6:.1f} MB, {len(found)} libraries", flush=True
        )
        if found != wanted:
            print(f"expected {len(wanted)} libraries; differing: {sorted(found ^ wanted)}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
