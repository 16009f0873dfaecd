"""A session: scene, method and the worker thread that owns both.

Commands go in by queue and are carried out between two training steps; results come out as
immutable :class:`~app.snapshot.Snapshot` values that any thread may read at any time. The window
and the headless run drive the same class. An exception in the worker becomes the state
``FAILED`` with a sentence; the worker lives on, so what was loaded can still be looked at.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from app.options import Options, parse_every
from app.runtime import error_sentence
from app.snapshot import EvalPoint, Snapshot, State, ViewRequest, ViewResult, to_cpu
from app.training import Training
from app.workbench import Workbench, build
from render.errors import UserError
from render.methods.base import Inspection, Render
from render.training.evaluation import OnImage
from render.training.metrics import Lpips

T = TypeVar("T")

LIVE_OPTIONS = ("steps", "seconds", "eval_every")


class Cancelled(Exception):
    """The session is closing; raised inside long jobs by :meth:`Session.check`."""


class Session:
    """One scene and one method, from loading to the last checkpoint.

    Args:
        options: what to load and how long to train.
        autostart: train as soon as everything is loaded.
        log: called from the worker with every sentence for the user.
    """

    def __init__(
        self,
        options: Options,
        *,
        autostart: bool = True,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self.view_share = 0.5  # of the worker's time that pictures may take while it trains
        self.bench: Workbench | None = None  # touched by the worker only, see submit()
        self.exception: BaseException | None = None  # behind `error`, for --debug
        self._training: Training | None = None
        self._autostart = autostart
        self._log = log or (lambda text: None)
        self._steps_left: int | None = None  # of step(count)
        self._view_not_before = 0.0
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._request: deque[ViewRequest] = deque(maxlen=1)  # newest wins
        self._snapshot = Snapshot()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    # ------------------------------------------------------------------ any thread: commands
    def open(self) -> None:
        """Start the worker, which loads the scene first."""
        self._thread.start()

    def start(self) -> None:
        """Train until the budget is used up."""
        self._commands.put(self._start)

    def pause(self) -> None:
        """Stop training after the present step."""
        self._commands.put(self._pause)

    def step(self, count: int = 1) -> None:
        """Train ``count`` steps, then pause."""
        self._commands.put(lambda: self._start(count))

    def stop(self) -> None:
        """Save a checkpoint and end the worker; running evaluations and exports are abandoned."""
        self._closing.set()
        self._commands.put(self._stop)

    def save(self) -> Future[str]:
        """Write a checkpoint; the result is its path."""
        return self.submit(lambda bench: str(self._trained().save()))

    def evaluate(self) -> Future[EvalPoint]:
        """Measure the test split now."""
        return self.submit(lambda bench: self.measure())

    def set_option(self, name: str, value: Any) -> None:
        """Change one of :data:`LIVE_OPTIONS` for the rest of the run.

        Raises:
            UserError: another option, or a value that cannot be.
        """
        if name not in LIVE_OPTIONS:
            raise UserError(f"{name}: only {', '.join(LIVE_OPTIONS)} can be changed in a run.")
        if name == "eval_every":
            parse_every(value)
        elif value is not None and not value > 0:
            raise UserError(f"{name}: expected a number above 0, found {value}.")
        self._commands.put(lambda: self._trained().set_option(name, value))

    def request_view(self, request: ViewRequest) -> None:
        """Ask for a picture; it appears as ``snapshot().view``."""
        self._request.append(request)
        self._commands.put(_wake)

    def submit(self, job: Callable[[Workbench], T]) -> Future[T]:
        """Run ``job`` on the worker between two steps; its error goes to the future only."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._closed:
                    raise Cancelled
                if self.bench is None:
                    raise UserError("Nothing is loaded.")
                future.set_result(job(self.bench))
            except BaseException as error:
                future.set_exception(error)

        self._commands.put(run)
        if self._thread.ident is not None and not self._thread.is_alive():
            self._refuse_jobs()
        return future

    # ------------------------------------------------------------------ any thread: results
    def snapshot(self) -> Snapshot:
        """The newest results."""
        return self._snapshot

    def wait(self, states: Iterable[State], timeout: float | None = None) -> Snapshot:
        """Block until the session is in one of ``states`` (or the time is over)."""
        wanted = set(states)
        return self.wait_for(lambda snapshot: snapshot.state in wanted, timeout)

    def wait_for(
        self, wanted: Callable[[Snapshot], bool], timeout: float | None = None
    ) -> Snapshot:
        """Block until the snapshot is as ``wanted`` (or the time is over)."""
        with self._changed:
            self._changed.wait_for(lambda: wanted(self._snapshot), timeout)
        return self._snapshot

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the worker to end; false when it did not in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------ for jobs on the worker
    def check(self) -> None:
        """For long jobs, between two pieces of work.

        Raises:
            Cancelled: the session is closing.
        """
        if self._closing.is_set():
            raise Cancelled

    def measure(self, *, lpips: Lpips | None = None, on_image: OnImage | None = None) -> EvalPoint:
        """:meth:`app.training.Training.measure`."""
        return self._trained().measure(lpips=lpips, on_image=on_image)

    def note(self, text: str) -> None:
        """A sentence for the user: log, run folder, snapshot."""
        self._publish(notes=(*self._snapshot.notes, text))
        self._log(text)
        if self.bench is not None:
            self.bench.folder.log(text)

    # ------------------------------------------------------------------ worker
    def _work(self) -> None:
        self._publish(state=State.LOADING)
        try:
            self._load()
        except Cancelled:
            self._closed = True
        except BaseException as error:  # no matter what: somebody waits for this thread
            self._fail(error)
        while not self._closed:
            try:
                self._turn()
            except Cancelled:
                continue
            except BaseException as error:
                self._fail(error)
        if self._snapshot.state is not State.FAILED:
            self._publish(state=State.IDLE)
        self._refuse_jobs()

    def _refuse_jobs(self) -> None:
        """Nobody may wait for ever for a job that came too late."""
        while True:
            try:
                self._commands.get_nowait()()
            except Empty:
                return
            except UserError:
                continue

    def _load(self) -> None:
        def log(text: str) -> None:
            self.check()
            self.note(text)

        bench = build(self.options, log)
        for note in self._snapshot.notes:  # the run folder came after them
            bench.folder.log(note)
        if bench.trainer is not None:
            self._training = Training(bench, self._publish, self.check)
        self.bench = bench
        self._publish(state=State.READY)
        if self._autostart and self._training is not None:
            self._start()

    def _turn(self) -> None:
        """Commands first, then a picture, then one training step."""
        running = self._snapshot.state is State.RUNNING
        self._carry_out(block=not running and not self._request)
        if self._closed:
            return
        self._serve_view()
        if self._snapshot.state is State.RUNNING:
            self._train()

    def _carry_out(self, block: bool) -> None:
        while not self._closed:
            try:
                command = self._commands.get(block=block)
            except Empty:
                return
            block = False
            try:
                command()
            except UserError as error:  # the command was wrong, the session is not
                if self._snapshot.state is not State.FAILED:
                    self._publish(error=str(error))

    def _train(self) -> None:
        if self._trained().step():
            self._publish(state=State.FINISHED)
        elif self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left <= 0:
                self._pause()

    def _start(self, count: int | None = None) -> None:
        if self._closed:
            return
        done = self._trained().used_up()
        self._steps_left = count
        self._publish(state=State.FINISHED if done else State.RUNNING, error=None)

    def _pause(self) -> None:
        if self._snapshot.state is State.RUNNING:
            self._publish(state=State.PAUSED)

    def _stop(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._snapshot.state is State.FAILED:
            return  # the last checkpoint is from before the failure
        self._publish(state=State.STOPPING)
        if self._training is not None:
            self._training.close()

    def _serve_view(self) -> None:
        """Render the newest request, unless pictures have had their share of the time."""
        running = self._snapshot.state is State.RUNNING
        if not self._request or (running and time.perf_counter() < self._view_not_before):
            return
        try:
            request = self._request.pop()
        except IndexError:  # replaced just now; the next turn finds the newer one
            return
        if self.bench is None:
            return
        start = time.perf_counter()
        try:
            rendered, inside = self._picture(self.bench, request)
        except Exception as error:  # a picture too large for the memory must not end the training
            self._report(error)
            return
        cost = time.perf_counter() - start
        share = min(max(self.view_share, 0.01), 1.0)
        self._view_not_before = time.perf_counter() + cost * (1 - share) / share
        step = self.bench.trainer.step_count if self.bench.trainer else 0
        self._publish(view=ViewResult(request, rendered, inside, step, cost))

    @staticmethod
    def _picture(bench: Workbench, request: ViewRequest) -> tuple[Render, Inspection | None]:
        policy = bench.scene.background if request.background is None else request.background
        rendered = bench.renderer.render(request.camera, policy.color(), request.k)
        inside = bench.renderer.inspect(request.camera, request.k) if request.inspect else None
        return to_cpu(rendered), to_cpu(inside)

    def _trained(self) -> Training:
        if self._training is None:
            name = "Nothing is loaded" if self.bench is None else self.bench.scene.name
            raise UserError(f"{name}: there are no photographs to train on.")
        return self._training

    # ------------------------------------------------------------------ worker: results
    def _fail(self, error: BaseException) -> None:
        self._report(error)
        self._publish(state=State.FAILED)

    def _report(self, error: BaseException) -> None:
        """The sentence into the snapshot, the traceback into log.txt."""
        self.exception = error
        sentence = error_sentence(error)
        self._publish(error=sentence)
        if self.bench is not None:
            trace = "".join(traceback.format_exception(error))
            with contextlib.suppress(OSError):  # a full disk may be the very reason
                self.bench.folder.log(f"{sentence}\n{trace}")

    def _publish(self, **changes: Any) -> None:
        """Only the worker writes, so a plain reference is enough for the readers."""
        with self._changed:
            self._snapshot = replace(self._snapshot, **changes)
            self._changed.notify_all()


def _wake() -> None:
    """A command that only ends the worker's wait."""
