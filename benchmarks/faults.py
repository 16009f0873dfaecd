"""The faults of ``benchmarks.reliability``, each provoked as nearly as it happens to people."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faultrow import Row, newest, output_to, saved, told
from benchmarks.faults_inside import clock, display, memory, nan, two, vanish
from render.training.checkpoint import list_checkpoints, load_latest

if TYPE_CHECKING:
    from benchmarks.reliability import Ground


# ---------------------------------------------------------------------------- killed
def kill(ground: Ground) -> Row:
    """SIGKILL at random moments, in loading, training, saving and measuring."""
    row = Row("killed", "SIGKILL at random moments of loading, training, saving, measuring")
    ends, before_first, torn = 0, 0, 0
    while row.runs < ground.options.kills:
        out = ground.new_folder() / "run"
        while True:
            known = newest(out)
            child = ground.train(out)
            last = row.runs >= ground.options.kills
            moment = math.inf if last else ground.random.uniform(0.0, 1.2 * ground.seconds)
            child.until(lambda: False, min(moment, 300.0))
            if child.poll() is not None:
                if child.code != 0:
                    row.lost.append(f"did not go on: {child.said()[-300:]}")
                break
            child.kill()
            row.runs += 1
            before_first += newest(out) == 0
            torn += any((out / "checkpoints").glob(".step_*"))
            if newest(out) < known:
                row.lost.append(f"step {known} was saved, only {newest(out)} is left")
        ends += 1
        if child.code == 0:
            row.lost += ground.differences(out)
    row.answer = (
        f"{row.runs} kills in {ends} runs to the end, {before_first} before the first checkpoint, "
        f"{torn} in the middle of writing one; all went on from a whole checkpoint"
    )
    return row


def end(ground: Ground) -> Row:
    """SIGTERM and SIGINT."""
    row = Row("ended", "SIGTERM, Ctrl-C in the middle of training")
    for number in (signal.SIGTERM, signal.SIGINT):
        out = ground.new_folder() / "run"
        child = ground.train(out)
        child.until(saved(out, ground.options.save_every))
        os.kill(child.pid, number)
        told(child, row, "Interrupted; saved", code=0)
        ground.finish(out, row)
        row.runs += 1
    row.answer = "saved, said so, exit code 0"
    return row


# ---------------------------------------------------------------------------- disks
@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of ``size`` bytes at ``folder``; False where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def disk(ground: Ground) -> Row:
    """A disk with room for few checkpoints, and one that somebody else fills."""
    row = Row("disk full", "tmpfs with room for 2.5 checkpoints; one filled during training")
    size = list_checkpoints(ground.reference / "checkpoints")[0].stat().st_size
    small = ground.new_folder() / "disk"
    with _small_disk(small, int(2.5 * size)) as mounted:
        if not mounted:
            return _limited_file(ground, row, size)
        child = ground.train(small / "run")
        if not child.until(saved(small / "run", 4 * ground.options.save_every)):
            row.lost.append(f"no checkpoint any more: {child.said()[-300:]}")
        child.kill()
    full = ground.new_folder() / "disk"
    with _small_disk(full, 8 * size):
        out = full / "run"
        child = ground.train(out)
        child.until(saved(out, ground.options.save_every))
        with contextlib.suppress(OSError), (full / "filler").open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        told(child, row, "Not saved", "No space left", "The last checkpoint is")
        load_latest(out / "checkpoints", print)
        (full / "filler").unlink()
        ground.finish(out, row)
    row.runs = 2
    row.answer = "older checkpoints made room; else a sentence, went on, exit code 1 at the end"
    return row


def _limited_file(ground: Ground, row: Row, size: int) -> Row:
    """Without mounts: no file may become larger than half a checkpoint."""
    import resource

    row.provoked = "RLIMIT_FSIZE at half a checkpoint (mounting was not allowed)"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    out = ground.new_folder() / "run"
    child = ground.train(out, prepare=limit)
    told(child, row, "Not saved", "File too large")
    ground.finish(out, row)
    row.runs, row.answer = 1, "a sentence, went on, exit code 1 at the end"
    return row


def readonly(ground: Ground) -> Row:
    """A run folder that cannot be written: from the start, and from the middle."""
    row = Row(
        "read-only output", "folder of mode 555; a folder that becomes read-only during training"
    )
    locked = Path(tempfile.mkdtemp())  # where everybody may go, and nobody may write
    locked.chmod(0o555)

    def be_nobody() -> None:
        if os.geteuid() == 0:  # for root, modes do not count
            os.setgid(65534)
            os.setuid(65534)

    try:
        out = ground.new_folder() / "unused"
        child = ground.train(out, "--out", str(locked / "run"), prepare=be_nobody)
        told(child, row, f"--out {locked / 'run'}: expected a folder that can be written")
    finally:
        locked.rmdir()
    row.runs += 1
    half = ground.new_folder() / "disk"
    with _small_disk(half, 64 << 20) as mounted:
        if mounted:
            out = half / "run"
            # The output lies outside, or nobody could read what it says.
            child = ground.train(out, prepare=lambda: output_to(half.parent / "output.txt"))
            child.output = half.parent / "output.txt"
            child.until(saved(out, ground.options.save_every))
            # A second mount above the first: that has files open, and would not let go of them.
            subprocess.run(["mount", "--bind", str(out), str(out)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(out)], check=True)
            try:
                told(child, row, "Not saved", "Read-only file system", "The last checkpoint is")
            finally:
                subprocess.run(["umount", "-l", str(out)], check=True)
            ground.finish(out, row)
            row.runs += 1
    row.answer = "refused before any work; later a sentence, exit code 1, older files whole"
    return row


FAULTS: dict[str, Callable[[Ground], Row]] = {
    "kill": kill,
    "end": end,
    "disk": disk,
    "readonly": readonly,
    "memory": memory,
    "nan": nan,
    "vanish": vanish,
    "two": two,
    "clock": clock,
    "display": display,
}
