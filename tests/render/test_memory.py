"""Memory: formulas against measured peaks, limits of machine, container and process, sentences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from render import memory
from render.errors import UserError
from render.kbuffer import native
from render.scenes.clouds.pointcloud import point_cloud_size, write_ply
from render.scenes.load import load_scene
from render.scenes.types import PointCloud

ROOT = Path(__file__).parents[2]
GB = 10**9
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Prints the peaks of resident memory, in bytes, that pieces of work add.
MEASURE = """
import sys, json
sys.path.insert(0, {root!r})
import torch
from render import memory
torch.set_num_threads(1)
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return {{l.split(":")[0]: int(l.split()[1]) * 1024 for l in lines if l.startswith("Vm")}}
{prepare}
peaks = []
for work in {works!r}:
    memory.give_back()
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()["VmRSS"]
    exec(work)
    peaks.append(peak()["VmHWM"] - before)
print(json.dumps(peaks))
"""


def measured(prepare: str, *works: str) -> list[int]:
    """Bytes that each piece of work takes at its peak, in a process of their own."""
    code = MEASURE.format(root=str(ROOT), prepare=prepare, works=works)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def limited(code: str, megabytes: int) -> str:
    """The output of ``code`` in a process that may take so much more than it has at its start."""
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch, psutil, resource\n"
        "torch.set_num_threads(1)\n"
        "def limit():\n"
        f"    most = psutil.Process().memory_info().vms + {megabytes << 20}\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=dict(os.environ, MALLOC_ARENA_MAX="1"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def cloud_file(folder: Path, count: int) -> Path:
    xyz = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    path = folder / "cloud.ply"
    write_ply(path, PointCloud(xyz, xyz))
    return path


# ---------------------------------------------------------------------------- formulas
@linux
def test_loading_takes_about_what_is_stated(tmp_path: Path) -> None:
    path = cloud_file(tmp_path, 2_000_000)
    count, stated = point_cloud_size(path)
    assert count == 2_000_000
    (taken,) = measured(
        "from render.scenes.clouds.pointcloud import read_point_cloud",
        f"cloud = read_point_cloud({str(path)!r})",
    )
    assert stated / 2 < taken < stated * 1.3


@linux
def test_a_frame_of_points_takes_about_what_is_stated() -> None:
    taken = measured(
        "from render.camera import Camera\n"
        "from render.kbuffer import native\n"
        "from render.kbuffer.rasterize import rasterize\n"
        "xyz = torch.rand(2_000_000, 3) - 0.5\n"
        "def draw(size, k, points=xyz):\n"
        "    camera = Camera.look_at((0.0, -2.0, 1.0), (0.0, 0.0, 0.0), width=size, height=size)\n"
        "    return rasterize(points, camera, k)\n"
        "draw(8, 1, xyz[:8])",
        "draw(800, 1)",
        "native.trim(); draw(800, 8)",
    )
    for k, found in zip((1, 8), taken, strict=True):
        stated = memory.point_frame_bytes(2_000_000, 800, 800, k)
        assert stated / 2 < found < stated * 2


@linux
def test_a_picture_and_a_step_take_about_what_is_stated() -> None:
    prepare = """
from dataclasses import replace
from render.camera import Camera
from render.methods import method_class
from render.scenes.load import load_scene
from render.training.trainer import Trainer
scene = load_scene("assets/scenes/lego")
options = method_class("kbuffer").Options()
options = replace(options, network_from=0, warm_up=0, coarse_steps=0, points=20000)
generator = torch.Generator().manual_seed(0)
method = method_class("kbuffer")(options, scene, torch.device("cpu"), generator)
method.network_on = True
trainer = Trainer(method, scene, 0)
camera, white = scene.views[0].camera, torch.ones(3)
method.view(camera.resize(32, 32), white, 8)
"""
    picture, step = measured(
        prepare,
        "method.view(camera.resize(500, 500), white, 8)",
        "trainer.step(); trainer.step()",
    )
    stated = memory.picture_bytes(500, 500, 8)
    assert stated / 2.5 < picture < stated * 1.5
    stated = memory.training_bytes(20000, 256 * 256, 8)
    assert stated / 4 < step < stated * 1.5


# ---------------------------------------------------------------------------- what is free
def groups(tmp_path: Path, lines: str, files: dict[str, str]) -> int | None:
    """The least room of control groups made of ``files`` below the mount."""
    (tmp_path / "cgroup").write_text(lines)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return min(memory._container_rooms(tmp_path / "cgroup", tmp_path / "mount"), default=None)


def test_version_2_limits_of_all_groups_above_count(tmp_path: Path) -> None:
    files = {
        "a/memory.max": f"{8 * GB}\n",
        "a/memory.current": f"{7 * GB}\n",
        "a/memory.stat": f"anon 5\nfile 3\ninactive_file {2 * GB}\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": f"{GB}\n",
    }
    assert groups(tmp_path, "0::/a/b\n", files) == 3 * GB


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    files = {"memory.max": f"{2 * GB}", "memory.current": f"{GB}"}
    assert groups(tmp_path, "0::/docker/0123\n", files) == GB


def test_version_1_limits(tmp_path: Path) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": f"{4 * GB}",
        "memory/box/memory.usage_in_bytes": f"{GB}",
        "memory/box/memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}\n",
    }
    assert groups(tmp_path, "5:cpu:/box\n4:hugetlb,memory:/box\n", files) == 4 * GB


def test_no_limits(tmp_path: Path) -> None:
    assert groups(tmp_path, "0::/\n1:name=systemd:/\n", {"memory.max": "max"}) is None
    assert list(memory._container_rooms(tmp_path / "absent")) == []


@linux
def test_the_limit_of_the_process_counts() -> None:
    out = limited("from render import memory\nlimit()\nprint(memory.free_bytes())", 400)
    assert 100 << 20 < int(out) < 410 << 20


# ---------------------------------------------------------------------------- refusals
def test_what_cannot_fit_is_refused_with_size_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device="cpu": 2 * GB)
    memory.check_room("a small thing", GB, "nothing")
    with pytest.raises(UserError) as caught:
        memory.check_room("cloud.ply, 9 points", 3 * GB, "use a file with fewer points")
    assert memory.is_shortage(caught.value)
    assert str(caught.value) == (
        "cloud.ply, 9 points: not enough memory: it takes about 3.0 GB, 2.0 GB are free; "
        "use a file with fewer points."
    )


def test_a_cloud_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cloud_file(tmp_path, 1_500_000)
    monkeypatch.setattr(memory, "free_bytes", lambda device="cpu": 50_000_000)
    never = "render.scenes.startpoints.read_point_cloud"
    monkeypatch.setattr(never, lambda path: pytest.fail("was read"))
    said: list[str] = []
    with pytest.raises(memory.NotEnoughMemoryError, match=r"1,500,000 points: not enough .* 76 MB"):
        load_scene(path, log=said.append)
    assert any("1,500,000 points, about 76 MB while loading" in line for line in said)


@pytest.mark.parametrize("suffix", ["npy", "npz", "txt", "splat"])
def test_sizes_of_other_files(tmp_path: Path, suffix: str) -> None:
    xyz = np.random.default_rng(0).random((5000, 3), np.float32)
    path = tmp_path / f"cloud.{'ply' if suffix == 'splat' else suffix}"
    if suffix == "npy":
        np.save(path, xyz)
    elif suffix == "npz":
        np.savez(path, xyz=xyz, rgb=xyz)
    elif suffix == "txt":
        np.savetxt(path, xyz)
    else:
        from render.scenes.clouds.ply import write_ply_rows

        names = [*"xyz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(45))]
        write_ply_rows(path, np.zeros(5000, [(name, "f4") for name in names]), [])
    count, size = point_cloud_size(path)
    assert count == pytest.approx(5000, rel=0.1)
    row = {"splat": 2 * 4 * 51, "txt": 10 * 75, "npz": 48}.get(suffix, 24)
    assert size == pytest.approx(5000 * (row + 36), rel=0.4)


# ---------------------------------------------------------------------------- shortages
@linux
def test_torch_and_numpy_shortages_are_known() -> None:
    out = limited(
        "from render.memory import is_shortage, shortage_sentence\n"
        "import numpy\n"
        "limit()\n"
        "for call in (lambda: torch.empty(1 << 30), lambda: numpy.empty(1 << 30)):\n"
        "    try:\n"
        "        call()\n"
        "    except Exception as error:\n"
        "        print(is_shortage(error), shortage_sentence(error))\n",
        300,
    )
    first, second = out.splitlines()
    assert first.startswith("True Out of memory, 4.3 GB more could not be had: use a larger")
    assert second.startswith("True Out of memory, 8.6 GB more could not be had: use a larger")


def test_other_errors_are_no_shortage() -> None:
    assert memory.is_shortage(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert memory.is_shortage(RuntimeError("CUDA error: out of memory"))
    assert not memory.is_shortage(RuntimeError("shape mismatch"))
    assert not memory.is_shortage(OSError(28, "No space left on device"))
    tried = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0")
    assert "2.7 GB more could not be had" in memory.shortage_sentence(tried)
    ours = MemoryError("not enough memory to rasterise 5 points; use fewer points")
    assert memory.shortage_sentence(ours) == (
        "Not enough memory to rasterise 5 points; use fewer points."
    )


@linux
@pytest.mark.skipif(native.load() is None, reason="no native kernels")
def test_the_rasteriser_takes_narrower_bands_where_memory_is_short() -> None:
    # Large points: 40 pairs each, 64 MB of keys and as much sorted; 50 MB are there.
    out = limited(
        "from render.camera import Camera\n"
        "from render.kbuffer import native\n"
        "from render.kbuffer.rasterize import rasterize\n"
        "xyz = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)) - 0.5\n"
        "camera = Camera.look_at((0.0, -2.0, 1.0), (0.0, 0.0, 0.0), width=400, height=400)\n"
        "def draw(n):\n"
        "    return rasterize(xyz[:n], camera, 4, radius=0.2, threads=1)\n"
        "draw(100)\n"
        "wanted = draw(200_000)\n"
        "native.trim()\n"
        "calls, real = [], native.load().kb_rasterize\n"
        "class Library:\n"
        "    kb_trim = native.load().kb_trim\n"
        "    def kb_rasterize(self, task, result):\n"
        "        code = real(task, result)\n"
        "        calls.append(code)\n"
        "        return code\n"
        "library = Library()\n"
        "import render.kbuffer.native as module\n"
        "module.load = lambda: library\n"
        "from render.memory import give_back\n"
        "give_back()\n"
        "limit()\n"
        "found = draw(200_000)\n"
        "print(calls, all(torch.equal(getattr(found, n), getattr(wanted, n))\n"
        "                 for n in ('index', 'depth', 'distance')))\n",
        50,
    )
    codes, equal = out.rsplit(" ", 1)
    assert equal.strip() == "True"
    tried = json.loads(codes)
    assert tried[-1] == 0 and tried[0] == native.OUT_OF_MEMORY
