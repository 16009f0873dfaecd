"""The run without a window: the same session, told in lines or with one progress bar."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from app import evaluate, products
from app.options import DEFAULT_SECONDS, Options
from app.output import make_console
from app.runtime import describe_device, error_sentence, resolve_device
from app.session import Cancelled, Session
from app.signals import interruptions
from app.snapshot import EvalPoint, Snapshot, State
from render.errors import UserError
from render.training.evaluation import EvalResult, ImageScore
from render.training.runfolder import RunFolder

T = TypeVar("T")

LINE_SECONDS = 10.0  # between two lines where there is no terminal
POLL_SECONDS = 0.2
STATUS_WIDTH = 72  # characters of the numbers beside the bar
_DONE = (State.FINISHED, State.FAILED, State.IDLE)


class _Interrupted(Exception):
    """Ctrl-C or SIGTERM: everything is saved, the rest is left out."""


def run(options: Options) -> int:
    """Load, train, measure, write everything, say what was written.

    Returns:
        0, also after Ctrl-C or SIGTERM: then a checkpoint was saved and the end products are
        left out.

    Raises:
        UserError: whatever went wrong, in a sentence; earlier checkpoints stay.
    """
    console = make_console()
    products.check_output(options)
    if options.steps is None and options.seconds is None and options.resume is None:
        options = replace(options, seconds=DEFAULT_SECONDS)
    console.print(
        f"Device: {escape(describe_device(resolve_device(options.device, options.method)))}."
    )
    session = Session(options, autostart=False, log=lambda text: console.print(escape(text)))
    with interruptions() as interrupted:
        try:
            _load(session, interrupted)
            _work(session, options, console, interrupted)
        except _Interrupted:
            _say_interrupted(session, console)
        finally:
            session.stop()
            session.join(timeout=60)
    error = session.snapshot().error
    if error:
        raise UserError(error) from session.exception
    return 0


def _work(
    session: Session, options: Options, console: Console, interrupted: threading.Event
) -> None:
    """Everything after loading."""
    bench = session.bench
    assert bench is not None
    console.print(f"Run folder: {escape(str(bench.folder.path))}")
    if bench.trainer is None:
        _make(session, console, interrupted, "K-buffer montage", products.draw_montage)
        _make(session, console, interrupted, "orbit video", products.orbit_video)
        if options.export is not None:
            _export(session, console, interrupted, options)
        _list_files(bench.folder, console)
        return
    look_only = options.resume is not None and (options.eval or options.render is not None)
    if not look_only:
        _train(session, console, interrupted)
    point = None
    if bench.scene.splits.get("test") and (options.eval or not look_only):
        point = _make(
            session,
            console,
            interrupted,
            "held-out views",
            lambda s, b: evaluate.measure(s, b, options.protocol, images=not look_only),
        )
    if not look_only:
        _make(session, console, interrupted, "K-buffer montage", products.draw_montage)
    if options.render is not None:
        _make(
            session,
            console,
            interrupted,
            "camera path",
            lambda s, b: products.path_video(s, b, options),
        )
    elif not look_only:
        video = options.video
        _make(
            session, console, interrupted, "orbit", lambda s, b: products.orbit_video(s, b, video)
        )
    if point is not None:
        _table(point, console)
    if options.export is not None or (not look_only and session.snapshot().exported):
        _export(session, console, interrupted, options)
    _list_files(bench.folder, console)
    if options.video is not None:
        console.print(f"Video: {escape(str(options.video))}")


def _export(
    session: Session, console: Console, interrupted: threading.Event, options: Options
) -> None:
    _make(
        session,
        console,
        interrupted,
        "points as a file",
        lambda s, b: products.gaussians_file(s, b, options.export),
    )


# ---------------------------------------------------------------------------- training
def _train(session: Session, console: Console, interrupted: threading.Event) -> None:
    show = _bar if console.is_terminal else _lines
    with show(console) as update:
        session.start()
        while True:
            snapshot = session.wait(_DONE, POLL_SECONDS)
            if interrupted.is_set():
                raise _Interrupted
            update(snapshot)
            if snapshot.state is State.FINISHED:
                break
            if snapshot.state in _DONE:
                raise UserError(snapshot.error or "Training ended early.") from session.exception
    report = session.snapshot().report
    if report is None:
        console.print("The budget of this run is used up; --steps or --seconds gives it more.")
    else:
        console.print(f"Trained {report.step} steps in {report.seconds:.1f} s.")


def _status(snapshot: Snapshot, width: int = 1000) -> str:
    """The numbers of the status line; the first ones are left out where they are too wide."""
    held_out = snapshot.evals[-1].result.psnr if snapshot.evals else math.nan
    parts = [
        f"{snapshot.steps_per_second:.1f} steps/s",
        f"loss {_number(snapshot.loss, '.4f')}",
        f"train {_number(snapshot.train_psnr, '.2f')}",
        f"held out {_number(held_out, '.2f dB')}",
        f"{_number(snapshot.eta, '.0f')} s left",
    ]
    while len(parts) > 1 and len(", ".join(parts)) > width:
        del parts[0]
    return ", ".join(parts)


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[Snapshot], None]]:
    """One rich progress bar for a terminal."""
    bar = max(6, min(24, console.width - STATUS_WIDTH))
    columns = (BarColumn(bar, finished_style="green"), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda snapshot: progress.update(
            task,
            completed=snapshot.progress,
            description=_status(snapshot, console.width - bar - 2),
        )


@contextmanager
def _lines(console: Console) -> Iterator[Callable[[Snapshot], None]]:
    """A line every few seconds and at every evaluation, for files and pipes."""
    last = time.monotonic()
    measured = 0

    def update(snapshot: Snapshot) -> None:
        nonlocal last, measured
        new = len(snapshot.evals) > measured
        if snapshot.report is None or (not new and time.monotonic() < last + LINE_SECONDS):
            return
        last, measured = time.monotonic(), len(snapshot.evals)
        report = snapshot.report
        console.print(f"{report.seconds:6.1f} s  step {report.step}: {_status(snapshot)}")

    yield update


# ---------------------------------------------------------------------------- after training
def _make(
    session: Session,
    console: Console,
    interrupted: threading.Event,
    what: str,
    job: Callable[..., T],
) -> T:
    """Run ``job(session, bench)`` on the worker and wait for it."""
    console.print(f"Making: {what}.")
    future: Future[T] = session.submit(lambda bench: job(session, bench))
    while True:
        if interrupted.is_set():
            raise _Interrupted
        try:
            return future.result(timeout=POLL_SECONDS)
        except FutureTimeout:
            if future.done():  # the job itself ran into a time-out
                raise
        except (Cancelled, CancelledError):
            raise _Interrupted from None
        except UserError:
            raise
        except Exception as error:  # a full disk, no memory for the picture: no traceback either
            raise UserError(f"{what}: {error_sentence(error)}") from error


def _table(point: EvalPoint, console: Console) -> None:
    result = point.result
    protocol = result.protocol
    title = (
        f"Held-out views, step {point.step}, {point.seconds:.1f} s of training "
        f"(protocol {protocol.name}: {protocol.split} split, {', '.join(result.sizes)}, "
        f"{protocol.background} background)"
    )
    table = Table(title=title, title_justify="left")
    for name in ("view", "PSNR (dB)", "SSIM", "LPIPS"):
        table.add_column(name, justify="left" if name == "view" else "right")
    worst_first = sorted(result.per_image, key=lambda score: score.psnr)
    for score in worst_first[:3]:
        table.add_row(f"{escape(score.name)} (among the worst)", *_scores(score))
    for score in worst_first[max(3, len(worst_first) - 1) :]:
        table.add_row(f"{escape(score.name)} (the best)", *_scores(score))
    table.add_section()
    table.add_row(f"mean of {len(worst_first)}", *_scores(result), style="bold")
    console.print(table)


def _scores(score: ImageScore | EvalResult) -> list[str]:
    lpips = math.nan if score.lpips is None else score.lpips
    return [_number(score.psnr, ".2f"), _number(score.ssim, ".4f"), _number(lpips, ".4f")]


def _list_files(run: RunFolder, console: Console) -> None:
    console.print(f"Written to {escape(str(run.path))}:")
    for name, files in run.files().items():
        shown = ", ".join(files[:6]) + (f", ... ({len(files)} files)" if len(files) > 6 else "")
        console.print(f"  {escape(name + '/' if name else '')}{escape(shown)}")


# ---------------------------------------------------------------------------- interruption
def _load(session: Session, interrupted: threading.Event) -> None:
    """Until loading is over.

    Raises:
        UserError: it failed.
    """
    session.open()
    snapshot = session.snapshot()
    while snapshot.state not in (State.READY, State.FAILED):
        if interrupted.is_set():
            raise _Interrupted
        snapshot = session.wait((State.READY, State.FAILED), POLL_SECONDS)
    if snapshot.state is State.FAILED:
        raise UserError(snapshot.error or "Loading failed.") from session.exception


def _say_interrupted(session: Session, console: Console) -> None:
    session.stop()
    session.join(timeout=60)
    saved = session.snapshot().saved
    if saved:
        console.print(f"Interrupted; saved {escape(saved)}. Continue with --resume latest.")
    else:
        console.print("Interrupted before the first step; nothing to save.")


def _number(value: float, form: str) -> str:
    if value != value:
        return "-"
    form, _, unit = form.partition(" ")
    return f"{value:{form}} {unit}".rstrip()
