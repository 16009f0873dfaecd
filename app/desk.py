"""What lies on the desk: the session, the view of it, and everything a person can do with them.

Panels, shortcuts and drops all call the methods here and in :mod:`app.viewing`, on the main
thread; nothing here draws. A new scene loads in a session of its own beside the present one,
which goes on training until the new one is ready: a file that turns out to be broken costs
nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from app.cropbox import CropBox
from app.drops import Drops
from app.export import export_gaussians
from app.messages import Messages
from app.options import Options
from app.painter import Painter
from app.pictures import Pictures
from app.preview import Preview
from app.resume import LastRun, last_run
from app.runtime import error_sentence, release_memory
from app.session import Cancelled, Session
from app.settings import Settings
from app.snapshot import Snapshot, State
from app.viewing import DEFAULT_K, Viewing
from render.errors import UserError
from render.scenes.types import Scene

T = TypeVar("T")

TIDY_SECONDS = 60.0  # between two times that free memory is given back
CLOSE_SECONDS = 2.5  # that the window waits for checkpoints when it closes
SAVE_SECONDS = 30.0  # the same for one that is being written
_LOADED = (State.READY, State.RUNNING, State.PAUSED, State.FINISHED)


class Desk:
    """See the module's text.

    Args:
        settings: of the user; changed here, saved by the window.
        preview: the OpenGL point preview, or None where it could not start.
        wake: ends the main loop's wait, from any thread.
    """

    def __init__(
        self, settings: Settings, preview: Preview | None, wake: Callable[[], None]
    ) -> None:
        self.settings = settings
        self.preview = preview
        self.messages = Messages()
        self.viewing = Viewing(self.messages)
        self.viewing.control.smoothing = settings.smoothing
        self.viewing.control.speed = settings.speed
        self.painter = Painter(wake)
        self.pictures = Pictures(self.painter)
        self.pictures.moving_scale = settings.move_scale
        self.drops = Drops(self, wake)
        self.crop = CropBox()
        self.session: Session | None = None
        self.coming: Session | None = None  # loading beside `session`
        self.snapshot = Snapshot()
        self.preview_on = False  # points by OpenGL instead of the model
        self._first: Session | None = None  # has to end before `coming` may begin
        self._retired: list[Session] = []
        self._tidy_at = time.monotonic() + TIDY_SECONDS
        self._jobs: list[tuple[Future[Any], Callable[[Any], None]]] = []
        self._error: str | None = None  # of the snapshot, already shown
        self._paint_error: str | None = None  # of the painter, already shown
        self.painter.start()

    # ------------------------------------------------------------------ scenes
    def open(self, options: Options) -> None:
        """Load in a new session; it replaces the present one when it is ready, and trains."""
        if self.coming is not None:
            self._retire(self.coming)
        self.coming = Session(
            options, autostart=False, log=self.messages.add, scene=self.scene, gives_way=True
        )
        if self.session is not None and self._is_own(options.resume):
            # Back to a checkpoint of this very run: two sessions must not write into one folder.
            self._retire(self.session)
            self._first, self.session, self.snapshot = self.session, None, Snapshot()
        elif self._first is None:
            self.coming.open()

    def restart(self, **changes: Any) -> None:
        """Train the present scene from the beginning, in a new run, with ``changes`` of options."""
        if self.session is not None and self.session.bench is not None:
            self.open(replace(self.session.options_in_use, resume=None, out=None, **changes))

    def resume(self, path: str) -> None:
        """Continue a run folder or a checkpoint."""
        self.open(Options(resume=path))

    def resume_last(self) -> None:
        """Continue the newest run besides the present one, of this scene if it has one."""
        found = self.earlier_run()
        if found is None:
            self.messages.add("There is no earlier run here to continue.", "warning")
        else:
            self.resume(str(found.run))

    def earlier_run(self) -> LastRun | None:
        """The newest run besides the present one: of this scene, or without a scene of any."""
        path = None if self.scene is None else self.scene.path
        folder = self.snapshot.folder
        return last_run(path, besides=None if folder is None else Path(folder))

    def _is_own(self, resume: str | None) -> bool:
        """Whether this is a path in the folder of the present run."""
        folder = self.snapshot.folder
        if resume is None or folder is None:
            return False
        return Path(resume).resolve().is_relative_to(Path(folder).resolve())

    @property
    def scene(self) -> Scene | None:
        """Of the present session; immutable."""
        bench = None if self.session is None else self.session.bench
        return None if bench is None else bench.scene

    @property
    def running(self) -> bool:
        """Whether the model trains right now."""
        return self.snapshot.state is State.RUNNING

    @property
    def can_train(self) -> bool:
        """Whether there are photographs to train on."""
        return self.scene is not None and bool(self.scene.views)

    def _swap(self, coming: Session) -> None:
        """Take over the session that was loading, if it is ready."""
        snapshot = coming.snapshot()
        if snapshot.state is State.FAILED:
            self.messages.error(snapshot.error or "The scene could not be opened.")
            self.coming = None
            self._retire(coming)
        if snapshot.state not in _LOADED or coming.bench is None:
            return
        old, seen = self.session, self.viewing.scene
        self.session, self.coming = coming, None
        if old is not None:
            self._retire(old)
        scene = coming.bench.scene
        self.snapshot, self._error = snapshot, None
        self.pictures.forget()
        self.preview_on, self.drops.card = False, None
        coming.view_share = self.settings.view_share
        coming.pause_while_moving = self.settings.pause_while_moving
        same_place = seen is not None and seen.path is not None and seen.path == scene.path
        self.viewing.enter(
            scene,
            snapshot.k or DEFAULT_K,
            keep_camera=same_place,
            gaussians=snapshot.gaussians > 0,
            values=snapshot.layer_values,
        )
        self.preview_scene()
        if scene.path is not None:
            kind = "scene" if scene.views else "cloud"
            self.settings.recent = self.settings.add_recent(scene.path, kind).recent
            self.settings.last_scene = str(scene.path)
        if self.can_train:
            coming.start()
            threading.Thread(target=self._tell_of_earlier, name="earlier", daemon=True).start()

    def preview_scene(self) -> None:
        """The OpenGL preview shows the points of the scene (again)."""
        scene = self.scene
        if self.preview is not None and scene is not None:
            self.preview.set_cloud(scene.points, scene.background.color(), scene.up)

    def _tell_of_earlier(self) -> None:
        """A thread of its own: there may be many runs to look through."""
        with contextlib.suppress(UserError, OSError):
            found = self.earlier_run()
            if found is not None and found.step and self.snapshot.report is None:
                self.messages.add(
                    f"An earlier run of this scene stopped at step {found.step:,}: "
                    "Model > Resume last goes on with it."
                )

    def _retire(self, session: Session) -> None:
        session.stop()
        self._retired.append(session)

    def close(self) -> bool:
        """Save and end everything; false when some of it took longer than ``CLOSE_SECONDS``."""
        end = time.monotonic() + CLOSE_SECONDS

        def left() -> float:
            return max(0.05, end - time.monotonic())

        for session in (self.session, self.coming):
            if session is not None:
                self._retire(session)
        ended = [self.painter.close(left())]
        if self.preview is not None:
            ended.append(self.preview.close(left()))
        for session in self._retired:
            done = session.join(left())
            if not done and session.snapshot().state is State.STOPPING:
                done = session.join(SAVE_SECONDS)  # rather late than without the checkpoint
            ended.append(done)
        return all(ended)

    def keep(self) -> None:
        """Save and end what trains, from any thread, without touching the window."""
        sessions = [s for s in (self.session, self.coming, *self._retired) if s is not None]
        for session in sessions:
            session.stop()
        for session in sessions:
            session.join(SAVE_SECONDS)

    # ------------------------------------------------------------------ training
    def toggle_training(self) -> None:
        """Start or pause; beyond a budget that is used up it goes on without one."""
        if self.session is None:
            return
        if not self.can_train:
            self.messages.add("There are no photographs here to train on.", "warning")
        elif self.running:
            self.session.pause()
        else:
            if self.snapshot.state is State.FINISHED:
                for name in ("steps", "seconds"):
                    self.session.set_option(name, None)
            self.session.start()

    def step(self, count: int = 1) -> None:
        """Train ``count`` steps, then pause."""
        if self.session is not None and self.can_train:
            self.session.step(count)

    def evaluate(self) -> None:
        """Measure the test views now."""
        if self.session is not None and self.can_train:
            self.when_done(
                self.session.evaluate(),
                lambda point: self.messages.add(
                    f"Held out: {point.result.psnr:.2f} dB at step {point.step:,}.", "good"
                ),
            )

    def save(self) -> None:
        """Write a checkpoint, and say so when it is there."""
        if self.session is None or not self.can_train:
            self.messages.add("There is nothing to save yet.", "warning")
            return
        self.when_done(
            self.session.save(), lambda path: self.messages.add(f"Saved {path}.", "good")
        )

    def export_gaussians(self, path: Path) -> None:
        """Write the Gaussians of the model to ``path``, and say so when they are there."""
        if self.session is not None:
            self.when_done(
                self.session.submit(lambda bench: export_gaussians(bench, path)),
                lambda sentence: self.messages.add(sentence, "good"),
            )

    def set_live(self, name: str, value: Any) -> None:
        """Change an option that may change in a run."""
        if self.session is not None:
            try:
                self.session.set_option(name, value)
            except UserError as error:
                self.messages.error(str(error))

    def set_view_share(self, share: float) -> None:
        """The share of the worker's time that pictures may take while it trains, 0..1."""
        self.settings.view_share = share
        if self.session is not None:
            self.session.view_share = share

    def set_pause_while_moving(self, pause: bool) -> None:
        """Whether training waits while the camera moves."""
        self.settings.pause_while_moving = pause
        if self.session is not None:
            self.session.pause_while_moving = pause

    def about_to_move(self) -> None:
        """A mouse button is down on the picture."""
        if self.session is not None:
            self.session.hold()

    def when_done(self, future: Future[T], then: Callable[[T], None]) -> None:
        """Call ``then`` on the main thread with the result; an error becomes a message."""
        self._jobs.append((future, then))

    # ------------------------------------------------------------------ every frame
    def tick(self, dt: float, area: tuple[int, int], atlas: tuple[int, int]) -> bool:
        """One frame: jobs, drops, sessions, camera, and the next picture.

        Args:
            dt: seconds since the last frame.
            area: width and height in pixels where the picture is shown.
            atlas: the same for the thumbnails; (0, 0) = hidden.

        Returns:
            Whether a new picture arrived.
        """
        self._collect_jobs()
        if self.coming is not None:
            if self._first is None:
                self._swap(self.coming)
            elif self._first.join(0):
                self._first = None
                self.coming.open()
        self.drops.tick()
        if self.session is not None:
            self.snapshot = self.session.snapshot()
            if self.snapshot.error != self._error:
                self._error = self.snapshot.error
                if self._error:
                    self.messages.error(self._error)
        self._watch_threads()
        self.viewing.advance(dt)
        self._look(area, atlas)
        self._tidy_up()
        return self.pictures.take(self.viewing.moving) is not None

    def _tidy_up(self) -> None:
        """Let go of sessions that have ended, and of free memory while the camera stands."""
        waiting = [session for session in self._retired if not session.join(0)]
        ended = len(waiting) < len(self._retired)
        self._retired = waiting
        now = time.monotonic()
        if ended or (now > self._tidy_at and not self.viewing.moving):
            self._tidy_at = now + TIDY_SECONDS
            release_memory(ended=ended)

    def _watch_threads(self) -> None:
        """Tell why a picture could not be painted, and go on without a preview that has failed."""
        if self.painter.error != self._paint_error:
            self._paint_error = self.painter.error
            if self._paint_error:
                self.messages.error(self._paint_error)
        if self.preview is not None and self.preview.error:
            self.messages.error(self.preview.error)
            self.preview, self.preview_on = None, False
            self.pictures.forget()

    @property
    def shows_preview(self) -> bool:
        """Whether the picture is the OpenGL preview's: asked for, or a cloud was dropped."""
        return self.preview is not None and (self.preview_on or self.drops.card is not None)

    def _look(self, area: tuple[int, int], atlas: tuple[int, int]) -> None:
        wish = self.viewing.wish(area, atlas)
        if self.shows_preview and self.preview is not None:
            look = wish.look.clipped(DEFAULT_K).without_gaussians()
            wish = replace(wish, look=look, view=None, photo=None)
            self.pictures.ask(wish, self.preview.request)
            self.pictures.receive(self.preview.take(), wish)
        elif self.session is not None and self.session.bench is not None:
            wish = replace(wish, step=self.snapshot.step, running=self.running)
            self.pictures.ask(wish, self.session.request_view)
            self.pictures.receive(self.snapshot.view, wish)

    def _collect_jobs(self) -> None:
        done = [job for job in self._jobs if job[0].done()]
        self._jobs = [job for job in self._jobs if job not in done]
        for future, then in done:
            try:
                result = future.result()
            except (Cancelled, CancelledError):
                continue
            except BaseException as error:
                self.messages.error(error_sentence(error))
                continue
            then(result)
