"""A session: scene, method and the worker thread that owns both.

Commands go in by queue and are carried out between two training steps; results come out as
immutable :class:`~app.snapshot.Snapshot` values that any thread may read at any time. The window
and the headless run drive the same class. An exception in the worker becomes the state
``FAILED`` with a sentence; the worker lives on, so what was loaded can still be looked at.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from app.options import Options, parse_every
from app.progress import StageTimes
from app.runtime import describe_device, error_sentence, give_way, release_memory
from app.snapshot import EvalPoint, Snapshot, State, Sweep, ViewRequest, ViewResult
from app.training import Training
from app.views import LargestPicture, picture, same_picture, same_wish, sweep
from app.workbench import Workbench, build, gaussian_sizes
from render.errors import UserError
from render.memory import is_shortage
from render.scenes.types import Scene
from render.training.evaluation import OnImage, Protocol
from render.training.metrics import Lpips

T = TypeVar("T")

SCALES = {"lr_scale": "rates", "loss_scale": "loss_weights"}  # and what they scale in a snapshot
LIVE_OPTIONS = ("steps", "seconds", "eval_every", *SCALES)
HOLD_SECONDS = 0.25  # that training waits for the next picture of a moving camera


class Cancelled(Exception):
    """The session is closing; raised inside long jobs by :meth:`Session.check`."""


class Session:
    """One scene and one method, from loading to the last checkpoint.

    Args:
        options: what to load and how long to train.
        autostart: train as soon as everything is loaded.
        log: called from the worker with every sentence for the user.
        scene: one that was loaded before, ``other.bench.scene``: what it shares with the scene
            of ``options`` is not loaded again.
        gives_way: other threads of the process go before the worker: there is a window.

    Attributes:
        view_share: share of the worker's time that pictures may take while it trains.
        pause_while_moving: pictures of a moving camera come at once, and training waits for the
            next one; else they too have only their share. What else was changed always comes at
            once: only newer pictures of the same have their share.
        bench: for jobs of the worker (see :meth:`submit`). Others may read its options and, once
            the session is ready, its scene and folder, which never change.
        exception: what is behind the ``error`` of the snapshot.
    """

    def __init__(
        self,
        options: Options,
        *,
        autostart: bool = True,
        log: Callable[[str], None] | None = None,
        scene: Scene | None = None,
        gives_way: bool = False,
    ) -> None:
        self.options = options
        self.view_share = 0.5
        self.pause_while_moving = True
        self.bench: Workbench | None = None
        self.exception: BaseException | None = None
        self._training: Training | None = None
        self._autostart = autostart
        self._log = log or (lambda text: None)
        self._steps_left: int | None = None  # of step(count)
        self._known = scene
        self._gives_way = gives_way
        self._stages = StageTimes()
        self._view_not_before = -math.inf  # time.monotonic() before which the share is used up
        self._hold_until = -math.inf  # time.monotonic() until which training waits for pictures
        self._sweep: Iterator[Sweep | None] | None = None  # of the picture in the snapshot
        self._answered: ViewRequest | None = None  # by the picture in the snapshot
        self._largest = LargestPicture()
        self._told_width: float = math.inf  # of the largest picture that the log tells of
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

        ``lr_scale`` and ``loss_scale`` take factors by name, {"means": 0.5}, of the parameter
        groups or loss terms that ``snapshot().scales`` names; others keep theirs.

        Raises:
            UserError: another option, or a value that cannot be.
        """
        if name not in LIVE_OPTIONS:
            raise UserError(f"{name}: only {', '.join(LIVE_OPTIONS)} can be changed in a run.")
        if name == "eval_every":
            parse_every(value)
        elif name in SCALES:
            value = self._checked_scales(name, value)
        elif value is not None and not value > 0:
            raise UserError(f"{name}: expected a number above 0, found {value}.")
        self._commands.put(lambda: self._trained().set_option(name, value))

    def _checked_scales(self, name: str, value: Any) -> dict[str, float]:
        known = getattr(self._snapshot, SCALES[name])
        for key, factor in value.items():
            if key not in known:
                names = ", ".join(known) or "none so far"
                raise UserError(f"{name}: expected a name among {names}, found {key}.")
            if not 0 <= factor < math.inf:
                raise UserError(f"{name} of {key}: expected a number from 0, found {factor}.")
        return {key: float(factor) for key, factor in value.items()}

    @property
    def options_in_use(self) -> Options:
        """The options of the run: with a resumed run's own and with what was changed since.

        Another session of the same kind starts from these, with another ``out``.
        """
        return self.options if self.bench is None else self.bench.options

    def request_view(self, request: ViewRequest) -> None:
        """Ask for a picture; it appears as ``snapshot().view``."""
        self._request.append(request)
        self._commands.put(_wake)

    def hold(self) -> None:
        """The camera is about to move: with ``pause_while_moving`` training waits for a moment.

        The first picture then need not wait for a step, nor the window for the processor.
        """
        self._hold_until = time.monotonic() + HOLD_SECONDS

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
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------ for jobs on the worker
    def check(self) -> None:
        """For long jobs, between two pieces of work: shows what the window asked for meanwhile.

        Raises:
            Cancelled: the session is closing.
        """
        if self._closing.is_set():
            raise Cancelled
        if self.bench is not None and threading.current_thread() is self._thread:
            self._serve_view()
            self._go_on_sweeping()

    def measure(
        self,
        *,
        protocol: Protocol | None = None,
        lpips: Lpips | None = None,
        on_image: OnImage | None = None,
    ) -> EvalPoint:
        """:meth:`app.training.Training.measure`."""
        return self._trained().measure(protocol=protocol, lpips=lpips, on_image=on_image)

    def note(self, text: str) -> None:
        """A sentence for the user: log, run folder, snapshot."""
        self._publish(notes=(*self._snapshot.notes, text))
        if self._snapshot.state is State.LOADING:
            self._publish(loading=text)
        self._log(text)
        if self.bench is not None:
            self.bench.folder.log(text)

    # ------------------------------------------------------------------ worker
    def _work(self) -> None:
        if self._gives_way:
            give_way()
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
        self._sweep = None
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

        def count(what: str, done: int, total: int) -> None:
            self._publish(counted=(what, done, total) if done < total else None)

        bench = build(self.options, log, known=self._known, check=self.check, progress=count)
        self._known = None
        for note in self._snapshot.notes:  # the run folder came after them
            bench.folder.log(note)
        if bench.trainer is not None:
            self._training = Training(bench, self._publish, self.check, self._stages, self.note)
        self.bench = bench
        scene = bench.scene
        self._publish(
            state=State.READY,
            loading=None,
            folder=str(bench.folder.path),
            scene_name=scene.name,
            method=bench.options.method if bench.method else "",
            k=bench.layers,
            device=describe_device(bench.device),
            views={name: len(indices) for name, indices in scene.splits.items()},
            points=0 if scene.points is None else len(scene.points),
            sizes=bench.method.describe() if bench.method else {},
            layer_values=bench.method.layer_values if bench.method else (),
            plan=bench.method.plan() if bench.method else (),
            **gaussian_sizes(bench.renderer),
        )
        if self._autostart and self._training is not None:
            self._start()

    def _turn(self) -> None:
        """Commands first, then a picture, then one training step."""
        self._carry_out(self._spare_seconds())
        if self._closed:
            return
        self._serve_view()
        if self._sweep is not None:
            self._go_on_sweeping()
        elif self._snapshot.state is State.RUNNING and not self._held():
            self._train()

    def _held(self) -> bool:
        """Whether training waits for the next picture of a moving camera."""
        return self.pause_while_moving and time.monotonic() < self._hold_until

    def _spare_seconds(self) -> float | None:
        """How long there is nothing to do but to wait for a command; None = for ever."""
        if self._sweep is not None or self._request:
            return 0.0
        if self._snapshot.state is not State.RUNNING:
            return None
        return max(0.0, self._hold_until - time.monotonic()) if self._held() else 0.0

    def _carry_out(self, wait: float | None) -> None:
        """All commands that there are; for the first one ``wait`` seconds (None: for ever)."""
        while not self._closed:
            try:
                command = self._commands.get(wait != 0, wait)
            except Empty:
                return
            wait = 0.0
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
        try:
            request = self._request[0]
        except IndexError:
            return
        answered = self._answered
        new = answered is None or not same_wish(request, answered)
        at_once = new and (self.pause_while_moving or not request.moving)
        if not at_once and self._training_now() and time.monotonic() < self._view_not_before:
            return
        request = self._request.pop()  # the newest, if another one came just now
        if self.bench is None:
            return
        try:
            if answered is None or request.moving or not same_picture(request, answered):
                self._sweep = None
            result = self._picture(self.bench, request)
        except Exception as error:  # a picture too large for the memory must not end the training
            self._report(error)
            return
        self._answered = request
        now = time.monotonic()
        if request.moving:
            self._hold_until = now + HOLD_SECONDS
        self._use_share(result.seconds)
        stages = self._stages.add({"render": 1000 * result.seconds})
        self._publish(view=result, stages=stages)
        if request.sweep:
            self._sweep = sweep(self.bench, result)

    def _picture(self, bench: Workbench, wanted: ViewRequest) -> ViewResult:
        """The picture at the size that is wanted, or the largest that the memory allows."""
        while True:
            request = self._largest.fitted(bench, wanted)
            try:
                result = picture(bench, request)
                break
            except Exception as error:
                if not self._largest.lower(request, error):
                    raise
            release_memory()
        camera, large = result.request.camera, wanted.camera
        if camera.width < self._told_width and camera is not large:
            self._told_width = camera.width
            self.note(
                f"Out of memory for a picture of {large.width}x{large.height}: it is made at "
                f"{camera.width}x{camera.height}; pictures stay that small in this session."
            )
        return result

    def _go_on_sweeping(self) -> None:
        """One picture more of the PSNR at every K; nothing trains before it is complete."""
        view = self._snapshot.view
        if self._sweep is None or view is None:
            return
        start = time.monotonic()
        try:
            psnrs = next(self._sweep)
        except Exception as error:
            self._sweep = None
            if not is_shortage(error):
                self._report(error)
            return
        self._use_share(time.monotonic() - start)
        if psnrs is not None:
            self._sweep = None
            self._publish(view=replace(view, sweep=psnrs))

    def _training_now(self) -> bool:
        return self._snapshot.state is State.RUNNING and not self._held()

    def _use_share(self, seconds: float) -> None:
        """Pictures took so long: none until training has had its share."""
        if not self._training_now():
            return
        share = min(max(self.view_share, 0.01), 1.0)
        since = max(self._view_not_before, time.monotonic())
        self._view_not_before = since + seconds * (1 - share) / share

    def _trained(self) -> Training:
        if self._training is None:
            name = "Nothing is loaded" if self.bench is None else self.bench.scene.name
            raise UserError(f"{name}: there are no photographs to train on.")
        return self._training

    # ------------------------------------------------------------------ worker: results
    def _fail(self, error: BaseException) -> None:
        self._report(error)
        if self._training is not None:
            if is_shortage(error):
                traceback.clear_frames(error.__traceback__)  # they hold what the step allocated
                release_memory()
            with contextlib.suppress(Exception):  # what has failed may fail once more
                kept = self._training.rescue()
                self._publish(error=f"{self._snapshot.error} {kept}".rstrip())
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
