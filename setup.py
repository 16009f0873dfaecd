"""What pyproject.toml cannot say: files that travel in the package, and wheels per platform.

The kernel sources, the bundled scene and the fonts lie beside the packages in the repository and
are copied to ``render/shipped``, where ``render.files.shipped`` finds them. A plain build makes a
wheel for any platform, without libraries; with ``$KBUFFERS_WHEEL`` set to one of ``TAGS`` the
libraries that tools/build_kernels.py has made for it travel too.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("cuda", "assets/scenes", "assets/font")
TAGS = {
    "linux-x86_64": "manylinux2014_x86_64",
    "linux-aarch64": "manylinux2014_aarch64",
    "windows-x86_64": "win_amd64",
    "macos-aarch64": "macosx_11_0_arm64",
    "macos-x86_64": "macosx_11_0_x86_64",
}
PLATFORM = os.environ.get("KBUFFERS_WHEEL", "")
if PLATFORM and PLATFORM not in TAGS:
    raise SystemExit(f"KBUFFERS_WHEEL={PLATFORM}: expected one of {', '.join(TAGS)}")


class BuildPy(build_py):
    """Also copies ``SHIPPED``."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "render" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            ignore = shutil.ignore_patterns("prebuilt", "__pycache__", ".*")
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        if PLATFORM:
            libraries = sorted((ROOT / "cuda" / "prebuilt").glob(f"*_cpu-{PLATFORM}-*"))
            if not libraries:
                raise SystemExit(f"no libraries for {PLATFORM}: run python -m tools.build_kernels")
            folder = target / "cuda" / "prebuilt"
            folder.mkdir()
            for library in libraries:
                shutil.copy2(library, folder)


class BdistWheel(bdist_wheel):
    """Any Python, no Python ABI, and the platform of the libraries."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", TAGS[PLATFORM]) if PLATFORM else super().get_tag()


class PlatformDistribution(Distribution):
    """Counts as binary where libraries travel: they belong to the folder for such packages."""

    def has_ext_modules(self) -> bool:
        return bool(PLATFORM)


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel})
