"""Pictures of the flying camera: when to ask for one, how large, and which one is shown.

The state machine of the live view. A camera that moves asks for small pictures, one that stands
still for a sharp one; while the model trains the same camera asks again and again, as often as
the worker's time budget allows. Requests that were overtaken are never rendered: worker and
preview keep only the newest.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.look import Look
from app.painter import Painter, Painting, PaintJob
from app.snapshot import Sweep, ViewRequest, ViewResult
from render.camera import Camera
from render.scenes.background import Background
from render.scenes.types import View

SETTLE_SECONDS = 0.2  # after the last move, before the sharp picture is asked for
SWEEP_SECONDS = 20.0  # between two rounds over all K while the model trains, at least
SWEEP_TIMES = 10  # the same, times the duration of a round
STILL_SECONDS = 0.6  # that a picture may take when the camera stands, with automatic size
TRAINING_SECONDS = 0.1  # the same while the model trains: the next move waits for it
LARGEST = 2.0  # of automatic sizes, against the photographs
PAINT_SECONDS = 0.015  # that a frame waits for the painter while the camera moves
AUTO_SECONDS = 0.06  # that a picture may take while the camera moves, with automatic size
SMALLEST = 96  # px: height of a picture while moving; below it hardly anything is saved
MOST_PIXELS = 1_500_000  # of a photograph that is compared pixel by pixel, with automatic size
LARGEST_PIXELS = 4_000_000  # of any picture: it is uploaded in every frame
FIRST_COST = 1e-6  # seconds per pixel, as long as nothing was measured
FPS_SECONDS = 2.0


@dataclass(frozen=True)
class Wish:
    """What the picture shall be, as the desk sees it this frame.

    Args:
        pose: camera at the full resolution of the picture.
        look: what of it.
        view: index of the photograph whose camera ``pose`` is, or None.
        photo: that photograph.
        background: None = the scene's.
        moving: the camera is moving right now.
        step: of the model: another step makes another picture.
        running: whether the model trains.
        atlas: width and height in pixels that the thumbnails may take.
        tall: pixels of the screen that the picture is high.
    """

    pose: Camera
    look: Look
    view: int | None = None
    photo: View | None = None
    background: Background | None = None
    moving: bool = False
    step: int = 0
    running: bool = False
    atlas: tuple[int, int] = (800, 120)
    tall: int = 0


class Pictures:
    """Asks, receives, and has it painted.

    Args:
        painter: colours results in its own thread; closed by the owner.
    """

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self.moving_scale: float | None = None  # None = as large as can be kept fluent
        self.still_scale: float | None = None  # None = as sharp as the screen shows
        self.shown: Painting | None = None
        self.latest: ViewResult | None = None
        self.sweep: Sweep | None = None  # of the present camera and style
        self._sweep_from = 0  # number of the first request that it may belong to
        self.latency = math.nan  # seconds from the newest camera move to its picture
        self._number = 0
        self._asked: tuple | None = None
        self._asked_at = 0.0
        self._asked_step = -1
        self._answered = 0
        self._painted: tuple | None = None
        self._last_move = 0.0
        self._scale = 1.0  # of Gaussians, as it was wished last
        self._moved_at: dict[int, float] = {}  # request number -> when the camera moved
        self._swept: tuple | None = None
        self._swept_at = -math.inf
        self._first = 0  # number of the first request that counts, see forget()
        self._costs: dict[bool, float] = {}  # moving -> seconds per pixel of the newest picture
        self._still_key: tuple | None = None
        self._still_choice = 1.0
        self._times: deque[float] = deque(maxlen=120)

    def forget(self) -> None:
        """Another scene: nothing that was shown counts any more."""
        self.shown = self.latest = self.sweep = None
        self._asked = self._painted = self._swept = None
        self._asked_step = -1
        self._first = self._number + 1
        self._costs = {}

    def again(self) -> None:
        """The same camera shall be rendered anew."""
        self._asked = None

    # ------------------------------------------------------------------ asking
    def ask(self, wish: Wish, send: Callable[[ViewRequest], None]) -> None:
        """Send a request if the newest one is not the picture that is wanted now."""
        now = time.monotonic()
        scale = wish.look.style.scale
        if wish.moving or scale != self._scale:  # a slider of sizes is dragged like a camera
            self._last_move, self._scale = now, scale
        moving = now - self._last_move < SETTLE_SECONDS
        camera = self.sized(wish, moving)
        ks, inspect = wish.look.needs()
        if moving and ks:  # thumbnails can wait until the camera stands
            ks, inspect = replace(wish.look, atlas=False).needs()
        signature = (
            camera.world_to_camera.numpy().tobytes(),
            camera.K.numpy().tobytes(),
            # The last picture of a move has no sweep, even where it is as large as the still one.
            (camera.width, camera.height, ks, inspect, wish.background, wish.view, moving),
            (wish.look.style, wish.look.values, wish.look.needs_mask),
        )
        changed = signature != self._asked
        waiting = self._number > self._answered and now - self._asked_at < 5.0
        if not changed and (waiting or wish.step == self._asked_step):
            return
        self._number += 1
        if self._asked is None or _shown(signature) != _shown(self._asked):
            self.sweep, self._sweep_from = None, self._number
        sweep = self._wants_sweep(signature, wish, moving, now)
        self._asked, self._asked_at, self._asked_step = signature, now, wish.step
        if wish.moving:
            self._moved_at[self._number] = now
        send(
            ViewRequest(
                camera,
                ks,
                inspect,
                wish.background,
                wish.view,
                sweep,
                moving,
                self._number,
                wish.look.style,
                wish.look.values,
                wish.look.needs_mask,
            )
        )

    def sized(self, wish: Wish, moving: bool) -> Camera:
        """The wished camera at the resolution to render now."""
        pose = wish.pose
        scale = self._moving_scale(wish) if moving else self._still_scale(wish)
        scale = min(scale, math.sqrt(LARGEST_PIXELS / (pose.width * pose.height)))
        if scale == 1:
            return pose
        width, height = round(pose.width * scale), round(pose.height * scale)
        return pose.resize(max(4, width), max(4, height))

    def _still_scale(self, wish: Wish) -> float:
        """Automatic: 1 at a photograph, to compare pixel by pixel; else what the screen shows.

        Ellipsoids and centres are no photograph: they are drawn as sharp as the screen.

        The screen also limits photographs that are much larger: ten megapixels with their layers
        take a minute and gigabytes.
        """
        pose = wish.pose
        if self.still_scale is not None:
            return self.still_scale
        if wish.photo is not None and wish.look.style.shape == "splat":
            large = pose.width * pose.height > MOST_PIXELS
            return min(1.0, wish.tall / pose.height) if large else 1.0
        shape = wish.look.style.shape
        key = (pose.world_to_camera.numpy().tobytes(), pose.width, pose.height, wish.running, shape)
        if key != self._still_key:  # chosen once per camera: costs are never twice the same
            self._still_key = key
            scale = min(max(wish.tall / pose.height, 1.0), LARGEST)
            cost = self._cost(False) * pose.width * pose.height * scale**2
            limit = TRAINING_SECONDS if wish.running else STILL_SECONDS
            self._still_choice = scale if cost <= limit else 1.0
        return self._still_choice

    def _moving_scale(self, wish: Wish) -> float:
        pose = wish.pose
        largest = min(1.0, self._still_scale(wish))
        if self.moving_scale is not None:
            return min(self.moving_scale, largest)
        full = self._cost(True) * pose.width * pose.height
        scale = 1.0 if full <= AUTO_SECONDS else math.sqrt(AUTO_SECONDS / full)
        # In steps, or every picture would have another size.
        scale = 2.0 ** (math.floor(2 * math.log2(scale)) / 2)
        return min(max(scale, SMALLEST / pose.height), largest)

    def _cost(self, moving: bool) -> float:
        """Seconds per pixel: pictures of a moving camera are without layers and cost less."""
        return self._costs.get(moving, self._costs.get(not moving, FIRST_COST))

    def _wants_sweep(self, signature: tuple, wish: Wish, moving: bool, now: float) -> bool:
        if moving:
            return False
        # Without a photograph it only compares with itself: once a camera is enough.
        key = (*_shown(signature), wish.step if wish.view is not None else None)
        if key == self._swept:
            return False
        same_camera = self._swept is not None and self._swept[:-1] == key[:-1]
        camera = self.latest.request.camera if self.latest else wish.pose
        seconds = wish.look.main.k * self._cost(False) * camera.width * camera.height
        pause = max(SWEEP_SECONDS, SWEEP_TIMES * seconds)
        if same_camera and wish.running and now - self._swept_at < pause:
            return False
        self._swept, self._swept_at = key, now
        return True

    # ------------------------------------------------------------------ receiving
    def receive(self, result: ViewResult | None, wish: Wish) -> None:
        """Hand a new result, or a new way of looking at the last one, to the painter."""
        if result is not None and result.request.number < self._first:
            result = None
        if result is not None and result is not self.latest:
            if result.sweep is not None and result.request.number >= self._sweep_from:
                self.sweep = result.sweep
            again = self.latest is not None and result.renders is self.latest.renders
            self.latest = result
            self._answered = max(self._answered, result.request.number)
            camera = result.request.camera
            self._costs[result.request.moving] = result.seconds / (camera.width * camera.height)
            if again:  # the same picture, now with its sweep: nothing to paint
                return
        if self.latest is None:
            return
        key = (id(self.latest.renders), wish.look, wish.atlas)
        if key != self._painted:
            self._painted = key
            same = self.latest.request.view is not None and self.latest.request.view == wish.view
            self.painter.submit(
                PaintJob(self.latest, wish.look, wish.photo if same else None, *wish.atlas)
            )

    def take(self, moving: bool = False) -> Painting | None:
        """The newest painting, once.

        While the camera moves a painting that is under way is waited for: a frame takes longer.
        """
        painting = self.painter.take(PAINT_SECONDS if moving else 0.0)
        if painting is None:
            return None
        number = painting.job.result.request.number
        if number < self._first:
            return None
        now = time.monotonic()
        self.shown = painting
        if number in self._moved_at:
            self.latency = now - self._moved_at[number]
        self._moved_at = {n: t for n, t in self._moved_at.items() if n > number}
        self._times.append(now)
        return painting

    @property
    def fps(self) -> float:
        """Pictures per second that reached the window."""
        now = time.monotonic()
        return sum(now - t < FPS_SECONDS for t in self._times) / FPS_SECONDS


def _shown(signature: tuple) -> tuple:
    """What of a signature changes the picture at every K: camera and style."""
    return (*signature[:2], signature[3][0])
