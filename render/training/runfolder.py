"""The run folder: what a run leaves behind (design.md section 7), and nothing outside it.

::

    config.json  metrics.csv  eval.json  log.txt
    checkpoints/step_XXXXXXX.pt  latest  best
    images/  video/
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from render.errors import UserError
from render.files import atomic_text, small_text
from render.training.checkpoint import list_checkpoints, remove_leftovers
from render.training.runlock import RunLock, hold


@dataclass(frozen=True)
class MetricsRow:
    """One line of metrics.csv; None leaves a cell empty.

    ``seconds`` is the training wall clock without evaluation and saving; ``loss`` and
    ``train_psnr`` are means over the steps since the row before.
    """

    step: int
    seconds: float
    loss: float | None = None
    train_psnr: float | None = None
    test_psnr: float | None = None
    test_ssim: float | None = None
    val_psnr: float | None = None
    steps_per_second: float | None = None


COLUMNS = [field.name for field in fields(MetricsRow)]


class RunFolder:
    """One folder of results. :meth:`create` makes a new one, :meth:`open` continues an old one.

    No other program trains in the folder while this object lives, unless it was only looked at.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: RunLock | None = None
        self.checkpoints = path / "checkpoints"
        self.images = path / "images"
        self.video = path / "video"

    @classmethod
    def create(cls, path: Path, *, exact: bool) -> RunFolder:
        """Make a new folder.

        Args:
            path: where.
            exact: the user named this folder: a full one is an error. Otherwise a number is
                appended until the name is free.

        Raises:
            UserError: it holds files already, or cannot be written.
        """
        if exact:
            check_new(path)
        try:
            run = cls(path if exact else _reserve(path))
            for folder in (run.checkpoints, run.images, run.video):
                folder.mkdir(parents=True, exist_ok=True)
            run._lock = hold(run.path)
            run.log_path.touch()
        except OSError as error:
            raise UserError(
                f"--out {path}: expected a folder that can be written, "
                f"got: {error.strerror or error}."
            ) from error
        return run

    @classmethod
    def open(cls, path: Path, *, look_only: bool = False) -> RunFolder:
        """An existing run.

        Args:
            look_only: it need not be writable, and another program may train there.

        Raises:
            UserError: there is no run at ``path``, it cannot be written, or another program
                trains there.
        """
        run = cls(path)
        if not is_run(path):
            raise UserError(f"{path}: expected a run folder with checkpoints, found none.")
        if look_only:
            return run
        try:
            run._lock = hold(path)
            remove_leftovers(run.checkpoints)
            for folder in (run.images, run.video):
                folder.mkdir(exist_ok=True)
            with run.log_path.open("a", encoding="utf-8"):
                pass
        except OSError as error:
            raise UserError(
                f"{path}: expected a run folder that can be written, got: "
                f"{error.strerror or error}."
            ) from error
        return run

    @property
    def log_path(self) -> Path:
        """log.txt"""
        return self.path / "log.txt"

    # ------------------------------------------------------------------ writing
    def log(self, text: str) -> None:
        """Append a line with its time of day to log.txt; a full disk must not end a run for it."""
        # File names may hold bytes that are no text in any encoding.
        with (
            contextlib.suppress(OSError),
            self.log_path.open("a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def write_json(self, name: str, data: dict[str, Any]) -> Path:
        """Write config.json or eval.json; always whole, strict JSON."""
        path = self.path / name
        text = json.dumps(data, indent=2, allow_nan=False) + "\n"
        atomic_text(path, text)
        return path

    def append_metrics(self, row: MetricsRow) -> None:
        """Add one line to metrics.csv, and its header when it is new.

        A line of the same step is replaced by one that has what either has.
        """
        path = self.path / "metrics.csv"
        last = self._last_row()
        if last is not None and last.step == row.step:
            self.truncate_metrics(row.step - 1)
            old, new = asdict(last), asdict(row)
            row = MetricsRow(**{n: old[n] if _cell(new[n]) == "" else new[n] for n in COLUMNS})
        text = io.StringIO()
        csv.writer(text).writerow([_cell(getattr(row, name)) for name in COLUMNS])
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            begin = b"" if size else (",".join(COLUMNS) + "\r\n").encode()
            if size:
                file.seek(size - 1)
                begin = b"" if file.read(1) == b"\n" else b"\r\n"  # a full disk tore the last line
            file.write(begin + text.getvalue().encode())

    def truncate_metrics(self, step: int) -> None:
        """Drop lines after ``step`` (they will be trained again) and a last torn line."""
        path = self.path / "metrics.csv"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [",".join(COLUMNS)]
        for line in lines[1:]:
            cells = line.split(",")
            if len(cells) == len(COLUMNS) and cells[0].isdigit() and int(cells[0]) <= step:
                kept.append(line)
        atomic_text(path, "\n".join(kept) + "\n")

    def metrics(self) -> list[MetricsRow]:
        """The whole lines of metrics.csv; none where it cannot be read."""
        try:
            text = (self.path / "metrics.csv").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        rows = []
        for line in text.splitlines()[1:]:
            with contextlib.suppress(ValueError, TypeError, IndexError):  # torn, or edited
                rows.append(_row(line))
        return rows

    def trained_seconds(self) -> float | None:
        """Seconds of training in the last line of metrics.csv; None when it does not say."""
        row = self._last_row()
        return None if row is None else row.seconds

    def _last_row(self) -> MetricsRow | None:
        try:
            with (self.path / "metrics.csv").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                return _row(file.read().decode(errors="replace").splitlines()[-1])
        except (OSError, IndexError, ValueError, TypeError):
            return None

    def files(self) -> dict[str, list[str]]:
        """Names of all files, by folder relative to the run ("" for the run itself)."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.path.rglob("*")):
            if path.is_file() and path.name[0] != ".":
                folder = path.parent.relative_to(self.path).as_posix()
                found.setdefault("" if folder == "." else folder, []).append(path.name)
        return found


def default_path(root: Path, scene: str, method: str) -> Path:
    """``root/<scene>/<method>-<time>``, with names made safe for every file system."""
    safe = re.sub(r"[^\w.-]+", "_", scene).strip("._") or "scene"
    return root / safe / f"{method}-{time.strftime('%Y%m%d-%H%M%S')}"


def _reserve(path: Path) -> Path:
    """Make ``path``, or the first of ``path-2``, ``path-3``, ... that nobody else has made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir()  # atomic: of two runs that start together one goes on to the next
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")


def check_new(path: Path) -> None:
    """Find out before any work whether a run may fill ``path``.

    Raises:
        UserError: there are files in it, or it cannot be looked into.
    """
    try:
        full = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise UserError(f"--out {path}: cannot be looked into ({error.strerror}).") from error
    if full:
        raise UserError(
            f"--out {path}: expected a new or empty folder, found files in it; "
            "choose another, or continue that run with --resume."
        )


def check_writable(path: Path) -> None:
    """Find out before any work whether ``path`` can be made and filled.

    Raises:
        UserError: it cannot.
    """
    parent = path
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"--out {path}: expected a folder, found the file {parent}.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--out {path}: expected a folder that can be written, {parent} is not.")


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder that can be continued."""
    return (path / "config.json").is_file() and bool(list_checkpoints(path / "checkpoints"))


def find_runs(root: Path) -> list[Path]:
    """All run folders below ``root`` (or ``root`` itself), the one that trained last first."""
    if is_run(root):
        return [root]
    runs = [config.parent for config in root.glob("*/*/config.json") if is_run(config.parent)]
    runs += [config.parent for config in root.glob("*/config.json") if is_run(config.parent)]

    def trained(run: Path) -> float:
        return max(path.stat().st_mtime for path in list_checkpoints(run / "checkpoints"))

    return sorted(runs, key=trained, reverse=True)


def read_config(run: Path) -> dict[str, Any]:
    """config.json of a run.

    Raises:
        UserError: missing or not JSON.
    """
    path = run / "config.json"
    try:
        config = json.loads(small_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected the run's options as JSON, got: {error}.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(config).__name__}.")
    return config


def _row(line: str) -> MetricsRow:
    cells = line.split(",")
    values = [float(cell) if cell else None for cell in cells[2:]]
    return MetricsRow(int(cells[0]), float(cells[1]), *values)


def _cell(value: float | int | None) -> str:
    if value is None or value != value:  # NaN: nothing was measured
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
