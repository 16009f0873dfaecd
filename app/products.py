"""What a run leaves behind at its end, each a job of the worker: pictures, video, points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from torch import Tensor

from app.export import export_gaussians
from app.options import Options
from app.session import Session
from app.workbench import Workbench
from render.camera import Camera, orbit_path
from render.errors import UserError
from render.export.camera_path import load_camera_path
from render.export.cloud import frame_cloud
from render.export.images import save_image, save_pil
from render.export.montage import montage
from render.export.video import fit_budget, write_video
from render.gaussians.files import SUFFIXES
from render.scenes.normalize import inverse, place_cameras
from render.scenes.types import Scene, View

Step = Callable[[str], None]  # told what is being made

SHOWPIECES = 8  # test views among which the montage's is chosen
ORBIT_FRAMES, ORBIT_FPS = 60, 24
ORBIT_SECONDS = 15.0  # that rendering the orbit may take, about
ORBIT_SIDE = 640  # pixels of its longer side at most


def draw_montage(session: Session, bench: Workbench) -> Path:
    """images/kbuffer.png: the K depth buffers of one test view, or of a cloud."""
    scene = bench.scene
    view = _showpiece(scene)
    background = scene.background.color()
    camera = view.camera if view else frame_cloud(scene)
    inspection = bench.renderer.inspect(camera)
    session.check()
    pictures = [("render", bench.renderer.render(camera, background).rgb.cpu())]
    if view:
        pictures.append(("photo", view.target(background)))
    what = f"{bench.options.method}, step {bench.trainer.step_count}" if bench.trainer else "points"
    where = f", view {view.name}" if view else ""
    title = f"{scene.name}{where}: {inspection.kbuffer.k} depth buffers ({what})"
    path = bench.folder.images / "kbuffer.png"
    save_pil(path, montage(inspection, background, title=title, pictures=pictures))
    return path


def orbit_video(session: Session, bench: Workbench, path: Path | None = None) -> Path:
    """One turn around the scene, at a size that the machine can render in a few seconds."""
    scene = bench.scene
    views = scene.split("test") or scene.split("train")
    camera = views[0].camera if views else frame_cloud(scene)
    side = max(camera.width, camera.height)
    if side > ORBIT_SIDE:
        scale = ORBIT_SIDE / side
        camera = camera.resize(
            max(2, round(camera.width * scale)), max(2, round(camera.height * scale))
        )
    cameras = orbit_path(camera, scene.bounds.center, ORBIT_FRAMES, up=scene.up)
    render = _renderer(session, bench)
    cameras, stride = fit_budget(cameras, render, ORBIT_SECONDS)
    path = path or bench.folder.video / "orbit.mp4"
    return _write_frames(path, cameras, render, max(4.0, ORBIT_FPS / stride))


def path_video(session: Session, bench: Workbench, options: Options) -> Path:
    """The pictures of ``--render``, a path in the file's units; a video, or frames in a folder."""
    assert options.render is not None
    camera_path = load_camera_path(options.render)
    cameras = place_cameras(camera_path.cameras, inverse(bench.scene.to_file))
    path = options.video or bench.folder.video / f"{options.render.stem}.mp4"
    return _write_frames(path, cameras, _renderer(session, bench), camera_path.fps)


def gaussians_file(session: Session, bench: Workbench, path: Path | None = None) -> None:
    """``path`` or export/gaussians.ply, said in the log."""
    session.note(export_gaussians(bench, path))


def check_output(options: Options) -> None:
    """Find out before training whether ``--render`` can be read, and the rest be written.

    Raises:
        UserError: it cannot.
    """
    if options.render is not None:
        load_camera_path(options.render)
    export = options.export
    if export is not None and (export.suffix.lower() not in SUFFIXES or export.is_dir()):
        raise UserError(f"--export {export}: expected a file that ends in {', '.join(SUFFIXES)}.")
    if options.video is None:
        return
    path = options.video
    folder = path if not path.suffix else path.parent
    if path.suffix and path.suffix.lower() != ".mp4":
        raise UserError(f"--video {path}: expected a name that ends in .mp4, or a folder.")
    if path.suffix and path.is_dir():
        raise UserError(f"--video {path}: expected a file, found a folder of that name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--video {path}: expected a place to write to, got: {error.strerror}."
        ) from error


def _showpiece(scene: Scene) -> View | None:
    """The held-out view that shows most of the scene, of a few; None for a cloud alone."""
    views = scene.split("test") or scene.split("train")
    few = views[:: max(1, -(-len(views) // SHOWPIECES))]
    return max(few, key=lambda view: float(view.pixels()[..., 3].float().mean()), default=None)


def _renderer(session: Session, bench: Workbench) -> Callable[[Camera], Tensor]:
    background = bench.scene.background.color()

    def render(camera: Camera) -> Tensor:
        session.check()
        return bench.renderer.render(camera, background).rgb

    return render


def _write_frames(
    path: Path, cameras: list[Camera], render: Callable[[Camera], Tensor], fps: float
) -> Path:
    if path.suffix:
        frames: Iterator[Tensor] = (render(camera) for camera in cameras)
        write_video(path, frames, fps)
        return path
    for number, camera in enumerate(cameras):
        save_image(path / f"frame_{number:05d}.png", render(camera))
    return path
