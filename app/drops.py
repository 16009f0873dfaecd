"""Files that were dropped or opened: recognised and read beside the running program.

A point cloud is shown at once by the OpenGL preview, with a card that asks what to do with it;
everything else opens in a session of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from app.opening import Plan, plan, recognise
from app.options import Options
from app.runtime import error_sentence
from render.errors import UserError
from render.export.camera_path import CameraPath, load_camera_path
from render.gaussians.ply import is_splat_cloud
from render.scenes.alignment import Alignment, check_alignment
from render.scenes.background import Background
from render.scenes.bounds import bounds_of_points
from render.scenes.clouds.pointcloud import can_sample, point_cloud_size, read_point_cloud
from render.scenes.filetype import file_type
from render.scenes.normalize import inverse, place_cameras
from render.scenes.startpoints import Frames, into_world, read_cloud
from render.scenes.types import Bounds, PointCloud

if TYPE_CHECKING:
    from app.desk import Desk

SHOWN_POINTS = 1_000_000  # of a dropped cloud while nobody has decided what to do with it


@dataclass
class Card:
    """A dropped cloud that waits for a decision.

    Args:
        cloud: its points, or an even subset of very many.
        total: how many the file holds, about.
        alignment: how it fits the photographs of the scene, or None without a scene.
    """

    path: Path
    cloud: PointCloud
    total: int
    bounds: Bounds
    alignment: Alignment | None

    @property
    def count(self) -> str:
        """How many points or Gaussians."""
        return f"{self.total:,} {'Gaussians' if is_splat_cloud(self.cloud) else 'points'}"


class Drops:
    """Reads in a thread of its own; everything else happens on the main thread in :meth:`tick`."""

    def __init__(self, desk: Desk, wake: Callable[[], None]) -> None:
        self.desk = desk
        self.card: Card | None = None
        self.paths: list[str] = []  # everything that was ever dropped, for --ui-state
        self.reading = 0  # batches that are being read
        self._wake = wake
        self._results: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def take(self, paths: Sequence[str]) -> None:
        """Main thread: several files or folders at once."""
        self.paths += paths
        self.reading += 1
        files = [Path(path) for path in paths]
        threading.Thread(target=self._read, args=(files,), name="drop", daemon=True).start()

    def take_text(self, text: str) -> None:
        """A path that was typed; what does not exist may be a scene's name."""
        try:
            path = Path(text).expanduser()
            is_path = path.exists()
        except (OSError, ValueError, RuntimeError):  # no permission, too long, no such user
            path, is_path = Path(text), True  # the reader says what is wrong with it
        if is_path:
            self.take([str(path)])
        else:
            self.desk.open(Options(scene=text))

    def tick(self) -> None:
        """Main thread: act on what was read."""
        while True:
            try:
                result = self._results.get_nowait()
            except Empty:
                return
            result()

    # ------------------------------------------------------------------ the card's buttons
    def use_points(self) -> None:
        """Train the present scene from the dropped cloud."""
        if self.card is not None:
            self.desk.restart(points=self.card.path.resolve())
            self.dismiss()

    def open_alone(self) -> None:
        """The dropped cloud becomes a scene without photographs."""
        if self.card is not None:
            self.desk.open(Options(scene=str(self.card.path.resolve())))

    def dismiss(self) -> None:
        """Back to the scene."""
        self.card = None
        desk = self.desk
        desk.pictures.forget()
        if desk.scene is not None:
            bounds, control = desk.scene.bounds, desk.viewing.control
            desk.preview_scene()
            far = float((control.pivot - bounds.center).norm()) > 3 * bounds.radius
            k, gaussians = desk.viewing.trained_k, desk.viewing.gaussians
            desk.viewing.enter(desk.scene, k, keep_camera=not far, gaussians=gaussians)

    # ------------------------------------------------------------------ the reading thread
    def _read(self, files: list[Path]) -> None:
        def finished() -> None:
            self.reading -= 1

        try:
            todo = plan(files)
            for sentence in todo.unused:
                self.desk.messages.error(sentence)
            self._act(todo)
        except BaseException as error:
            self.desk.messages.error(error_sentence(error))
        finally:
            self._results.put(finished)
            self._wake()

    def _act(self, todo: Plan) -> None:
        desk = self.desk
        if todo.run is not None:
            run = str(todo.run.path)
            self._results.put(lambda: desk.resume(run))
        elif todo.scene is not None:
            points = todo.cloud and todo.cloud.path
            options = Options(scene=str(todo.scene.path), points=points)
            self._results.put(lambda: desk.open(options))
        elif todo.cloud is not None:
            path = todo.cloud.path
            cloud, total = self._sample(path)
            self._wait_for_scene(path)
            scene = desk.scene
            alignment = None
            if scene is not None and scene.views:
                train = scene.split("train")
                cloud = into_world(cloud, Frames.of(scene), train).cloud
                alignment = check_alignment(cloud.xyz, train)
            card = Card(path, cloud, total, bounds_of_points(cloud.xyz), alignment)
            self._results.put(lambda: self._show(card))
        if todo.camera_path is not None:
            tour = load_camera_path(todo.camera_path.path)
            self._results.put(lambda: self._fly(tour))

    def _sample(self, path: Path) -> tuple[PointCloud, int]:
        """The points of a file, and how many it holds; of very many an even subset, at once.

        That is enough to look at and to compare; a session reads them all.
        """
        count, _ = point_cloud_size(path)
        if count <= SHOWN_POINTS or not can_sample(file_type(path)):
            cloud = read_cloud(path, self.desk.messages.add)
            return cloud, len(cloud)
        self.desk.messages.add(f"{path.name}: {count:,} points; every {count / SHOWN_POINTS:.0f}th "
                               "is shown first.")  # fmt: skip
        return read_point_cloud(path, SHOWN_POINTS), count

    def _wait_for_scene(self, path: Path) -> None:
        """A cloud that comes while a scene is loading belongs to that one, not in its place."""
        told = False
        while (coming := self.desk.coming) is not None and not _is_cloud(coming.options):
            if not told:
                self.desk.messages.add(f"{path.name} waits until the scene is loaded.")
                told = True
            time.sleep(0.05)

    # ------------------------------------------------------------------ back on the main thread
    def _show(self, card: Card) -> None:
        desk = self.desk
        self.card = card
        background = Background() if desk.scene is None else desk.scene.background
        desk.messages.add(f"{card.path.name}: {card.count}.")
        if card.alignment is not None:
            level = "good" if card.alignment.verdict == "aligned" else "warning"
            desk.messages.add(card.alignment.sentence, level)
        if desk.preview is not None:
            desk.preview.set_cloud(card.cloud, background.color())
        desk.pictures.forget()
        if card.alignment is None:  # nothing it could belong to
            self.open_alone()
        elif card.alignment.verdict == "misaligned":  # it may lie anywhere
            desk.viewing.frame(card.bounds)

    def _fly(self, tour: CameraPath) -> None:
        scene = self.desk.scene
        if scene is not None:  # the path is in the units of its file
            cameras = place_cameras(tour.cameras, inverse(scene.to_file))
            tour = CameraPath(cameras, tour.fps)
        self.desk.messages.add(f"Flying along a path of {len(tour.cameras)} cameras.")
        self.desk.viewing.play(tour)


def _is_cloud(options: Options) -> bool:
    """Whether these options open a point cloud alone."""
    try:
        return options.scene is not None and recognise(Path(options.scene)).kind == "cloud"
    except UserError:  # a scene's name, or wrong
        return False
