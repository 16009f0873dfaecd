"""What a session works on: scene, method, trainer and run folder, built from the options."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import render
from app.options import Options, apply_settings, parse_every
from app.resume import DEFAULT_ROOT, Resume, resolve_resume
from app.runtime import describe_device, import_ahead, resolve_device, set_threads
from render.errors import UserError
from render.export.cloud import CloudRenderer
from render.export.splats import SplatRenderer
from render.export.styles import cloud_of
from render.gaussians.ply import is_splat_cloud
from render.kbuffer.gaussians import MAX_LAYERS
from render.memory import is_shortage
from render.methods import method_class
from render.methods.base import Method
from render.scenes.background import Background
from render.scenes.types import Scene
from render.training import runfolder
from render.training.checkpoint import one_before, save_checkpoint
from render.training.runfolder import RunFolder
from render.training.trainer import Trainer

Log = Callable[[str], None]
Progress = Callable[[str, int, int], None]
Renderer = Method | CloudRenderer | SplatRenderer


@dataclass
class Workbench:
    """Owned by the worker thread; nobody else touches it.

    ``method`` and ``trainer`` are None for a point cloud alone; ``renderer`` is there for both.
    """

    options: Options
    scene: Scene
    device: torch.device
    folder: RunFolder
    method: Method | None
    trainer: Trainer | None
    renderer: Renderer
    best_val: float = -math.inf  # highest PSNR on the val split so far
    look_only: bool = False  # a checkpoint to measure or to look at: the run's records stay

    @property
    def layers(self) -> int:
        """K of the model, or of the pictures of a point cloud."""
        return self.renderer.k

    def save(self, *, best: bool = False) -> Path:
        """Write a checkpoint of the present step.

        Raises:
            OSError: disk full or not writable.
        """
        assert self.method is not None and self.trainer is not None
        content = {
            "step": self.trainer.step_count,
            "trainer": self.trainer.state_dict(),
            "method": self.options.method,
            "method_options": _plain(asdict(self.method.options)),
            "k": self.method.options.k,
            "best_val": self.best_val,
            "options": self.options.to_json(),
            "scene": _describe_scene(self.scene),
            "versions": _versions(),
        }
        return save_checkpoint(self.folder.checkpoints, content, best=best)


def build(
    options: Options,
    log: Log,
    *,
    known: Scene | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Progress = lambda what, done, total: None,
) -> Workbench:
    """Load the scene, build the method, make or reopen the run folder.

    Args:
        options: what to load.
        log: receives sentences for the user.
        known: a scene that was loaded before; what it shares with this one is not read again.
        check: called between two pieces of work, also from threads that load images; what it
            raises ends the loading.
        progress: told of what how much of how much is done: "photographs", 120, 300.

    Raises:
        UserError: whatever is wrong with the input, before any training.
    """
    resume = resolve_resume(options, log) if options.resume else None
    if resume is not None:
        options = resume.options
        log(f"Continuing {resume.run or resume.path.parent} from {resume.path.name}.")
    if options.scene is None:
        raise UserError("No scene: name one with --scene PATH|NAME, for example --scene lego.")
    cls = method_class(options.method)
    method_options = apply_settings(cls.Options(), options.settings, options.k)
    parse_every(options.eval_every)
    device = resolve_device(options.device, options.method)
    set_threads(options.method)
    if method_options.k > MAX_LAYERS:
        raise UserError(f"--k {method_options.k}: expected at most {MAX_LAYERS} layers.")
    if resume is None:
        runfolder.check_writable(options.out or DEFAULT_ROOT)
        if options.out is not None:
            runfolder.check_new(options.out)
        for root in options.data_root:
            if not root.expanduser().is_dir():
                raise UserError(f"--data-root {root}: expected a folder of scenes, found none.")

    if options.image_memory is not None and not options.image_memory > 0:
        raise UserError(f"--image-memory: expected a number above 0, found {options.image_memory}.")
    import_ahead()
    scene = _load_scene(options, cls.needs_points, log, known, check, progress)
    check()
    options = _absolute(options)
    if scene.views and not scene.splits.get("train"):
        raise UserError(f"{options.scene}: expected views to train on, found none.")
    method = trainer = None
    renderer: Renderer
    if scene.views:
        torch.manual_seed(options.seed)  # layers of torch.nn draw from the global generator
        generator = torch.Generator().manual_seed(options.seed)
        renderer = method = cls(method_options, scene, device, generator)
        trainer = Trainer(method, scene, options.seed)
        if resume is not None:
            _restore(trainer, resume, scene)
    else:
        assert scene.points is not None
        bare = SplatRenderer if is_splat_cloud(scene.points) else CloudRenderer
        renderer = bare(scene, method_options.k)
    look_only = resume is not None and (options.eval or options.render is not None)
    folder = _open_folder(options, resume, scene, look_only)
    bench = Workbench(options, scene, device, folder, method, trainer, renderer)
    if resume is not None:
        bench.best_val = resume.best_val
    if look_only:
        bench.look_only = True
        return bench
    config = {
        "options": options.to_json(),
        "method_options": _plain(asdict(method_options)),
        "model": method.describe() if method else {},
        "scene": _describe_scene(scene),
        "device": describe_device(device),
        "versions": _versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "resumed_from": None if resume is None else resume.path.name,
    }
    folder.write_json("config.json", config)
    return bench


def gaussian_sizes(renderer: Renderer) -> dict[str, int]:
    """How many Gaussians there are, the memory of their parameters, and how many Gaussians a file
    of the model would have, by the snapshot's names."""
    cloud = cloud_of(renderer)
    if cloud is None:
        exported = renderer.exported if isinstance(renderer, Method) else 0
        return {"gaussians": 0, "gaussian_bytes": 0, "exported": exported}
    size = sum(tensor.nbytes for tensor in cloud.tensors().values())
    return {"gaussians": len(cloud), "gaussian_bytes": size, "exported": len(cloud)}


def _load_scene(
    options: Options,
    needs_points: bool,
    log: Log,
    known: Scene | None,
    check: Callable[[], None],
    progress: Progress,
) -> Scene:
    from render.scenes.clouds.cleaning import Cleaning
    from render.scenes.load import load_scene

    assert options.scene is not None
    gigabytes = options.image_memory
    return load_scene(
        options.scene,
        data_roots=options.data_root,
        downscale=options.downscale,
        split=options.split,
        normalize=options.normalize,
        background=Background(options.background),
        points=options.points,
        seed=options.seed,
        needs_points=needs_points,
        log=log,
        known=known,
        check=check,
        progress=progress,
        image_memory=None if gigabytes is None else int(gigabytes * 1e9),
        cleaning=Cleaning.parse(
            options.points_crop, options.points_outliers, options.points_voxel, options.points_most
        ),
    )


def _open_folder(
    options: Options, resume: Resume | None, scene: Scene, look_only: bool
) -> RunFolder:
    if look_only and options.out is not None:
        return RunFolder.create(options.out, exact=True)
    if resume is not None and resume.run is None:  # a checkpoint on its own, to be measured
        name = runfolder.default_path(DEFAULT_ROOT, scene.name, f"{options.method}-eval")
        return RunFolder.create(name, exact=False)
    if resume is not None:
        assert resume.run is not None
        folder = RunFolder.open(resume.run, look_only=look_only)
        if not look_only:  # what comes after the checkpoint will be trained again
            folder.truncate_metrics(int(resume.content["step"]))
        return folder
    if options.out is not None:
        return RunFolder.create(options.out, exact=True)
    name = options.method if scene.views else "cloud"
    return RunFolder.create(runfolder.default_path(DEFAULT_ROOT, scene.name, name), exact=False)


def _restore(trainer: Trainer, resume: Resume, scene: Scene) -> None:
    saved = resume.content.get("scene", {}).get("fingerprint")
    if saved != scene.fingerprint():
        raise UserError(
            f"{resume.path}: the run was trained on another state of scene {scene.name}; its "
            "images, cameras, splits or points have changed since."
        )
    try:
        trainer.load_state_dict(resume.content["trainer"])
        if not trainer.intact():
            raise ValueError("an optimiser of other parameters")
    except UserError:
        raise
    except Exception as error:  # values of any kind may stand in a file
        if is_shortage(error):
            raise
        raise UserError(
            f"{resume.path}: expected the state of method {resume.options.method}, got: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}."
            f"{one_before(resume.path)}"
        ) from error


def _absolute(options: Options) -> Options:
    """Paths that still mean the same when the run is continued from another folder."""
    assert options.scene is not None
    scene = options.scene
    if Path(scene).expanduser().exists():
        scene = str(Path(scene).expanduser().resolve())
    return replace(
        options,
        scene=scene,
        points=options.points and options.points.expanduser().resolve(),
        data_root=tuple(root.expanduser().resolve() for root in options.data_root),
        resume=None,
    )


def _describe_scene(scene: Scene) -> dict[str, Any]:
    return {
        "name": scene.name,
        "path": str(scene.path.resolve()) if scene.path else None,
        "fingerprint": scene.fingerprint(),
        "views": {name: len(indices) for name, indices in scene.splits.items()},
        "points": 0 if scene.points is None else len(scene.points),
        "points_source": "" if scene.points is None else scene.points.source,
        "up": scene.up.tolist(),
        "to_file": scene.to_file.tolist(),
    }


def _versions() -> dict[str, str]:
    return {
        "kbuffers": render.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Dataclass values as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
