"""``--resume``: which run and checkpoint are meant, and with which options it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from app.options import IDENTITY, Options, from_json
from render.errors import UserError
from render.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_latest,
    one_before,
    step_of,
)
from render.training.runfolder import RunFolder, find_runs, is_run, read_config

DEFAULT_ROOT = Path("runs")
_ENTRIES = {"step", "trainer", "k", "best_val"}  # of a checkpoint, besides its options
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Path": (str,),
    "tuple": (list,),
    "None": (type(None),),
}


def _types() -> dict[str, tuple[type, ...]]:
    """What may stand in a checkpoint for each option, by the annotations of :class:`Options`."""
    found = {}
    for name, kind in get_type_hints(Options).items():
        parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        kinds: list[type] = []
        for part in parts:
            origin = get_origin(part) or part
            key = "str" if origin is Literal else getattr(origin, "__name__", "str")
            kinds += _KINDS.get("None" if key == "NoneType" else key, (str,))
        found[name] = tuple(kinds)
    return found


_TYPES = _types()


@dataclass(frozen=True)
class Resume:
    """A checkpoint that was read, the run folder that it belongs to, and the options to go on."""

    run: Path | None  # None: a checkpoint on its own, which can only be measured
    path: Path
    content: dict[str, Any]
    options: Options
    best_val: float


def resolve_resume(options: Options, log: Callable[[str], None]) -> Resume:
    """Read what ``--resume`` names.

    Raises:
        UserError: nothing there, or an option that would make it another run.
    """
    assert options.resume is not None
    named = Path(options.resume)
    if options.resume == "latest":
        run = _newest_run(options)
        path, content = load_latest(run / "checkpoints", log)
    elif named.is_file():
        run = named.absolute().parent.parent
        if not is_run(run):
            if not options.eval:
                raise UserError(f"--resume {named}: expected a checkpoint inside a run folder.")
            run = None
        path, content = named, load_checkpoint(named)
    else:
        run = named.parent if named.name == "checkpoints" else named
        if not is_run(run):
            raise UserError(
                f"--resume {named}: expected latest, a run folder or a checkpoint, found none."
            )
        path, content = load_latest(run / "checkpoints", log)
    if options.out is not None and options.resume != "latest" and not options.eval:
        raise UserError(
            f"--out {options.out}: a continued run stays in its folder, {run}; leave --out out."
        )
    saved, best_val = _parts(path, content)
    return Resume(run, path, content, merge(options, saved), best_val)


def _parts(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Options and best PSNR of a checkpoint, with the types that they must have.

    Raises:
        UserError: parts are missing, or are something else.
    """
    options, k = content.get("options"), content.get("k")
    if not (isinstance(options, dict) and content.keys() >= _ENTRIES):
        raise UserError(
            f"{path}: expected a whole run's checkpoint, found one with parts missing."
            f"{one_before(path)}"
        )
    saved = options | {"k": k}
    for name, kinds in _TYPES.items():
        if name in saved and not isinstance(saved[name], kinds):
            raise UserError(
                f"{path}: expected the options of a run, found a {type(saved[name]).__name__} "
                f"as {name}.{one_before(path)}"
            )
    numbers = (content["step"], content["best_val"])
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise UserError(f"{path}: expected numbers of a run, found others.{one_before(path)}")
    return saved, float(content["best_val"])


def merge(asked: Options, saved: dict[str, Any]) -> Options:
    """The run's own options with what was asked for now on top.

    Options that differ from their defaults, or that the command line named, count as asked for. A
    new budget replaces the run's own, else a run with ``--steps`` could not go on by ``--seconds``.

    Raises:
        UserError: one of :data:`app.options.IDENTITY` was asked to change.
    """
    stored, defaults = from_json(saved), Options()
    changed = {
        field.name: getattr(asked, field.name)
        for field in fields(Options)
        if field.name in asked.given or getattr(asked, field.name) != getattr(defaults, field.name)
    }
    for name in IDENTITY:
        if name in changed and changed[name] != getattr(stored, name):
            flag = "set" if name == "settings" else name
            raise UserError(
                f"--{flag} {changed[name]}: this run was trained with {getattr(stored, name)}; "
                f"leave --{flag} out to continue it, or leave --resume out to start another."
            )
    # What belongs to one call only does not come back with the run.
    once: dict[str, Any] = {"headless": False, "debug": False, "eval": False, "out": None}
    once |= {"protocol": "house", "export": None}  # no file may say where else we write
    once |= {"render": None, "video": None, "ui_state": None, "exit_after": None}
    if {"steps", "seconds"} & changed.keys():
        once |= {"steps": None, "seconds": None}
    return replace(stored, **(once | changed))


@dataclass(frozen=True)
class LastRun:
    """A run that can be gone on with; ``checkpoint`` is its newest one.

    Args:
        step: of the checkpoint; None when it was renamed.
        when: time it was saved, in seconds since the epoch.
        seconds: of training until then; None when metrics.csv does not say.
    """

    run: Path
    checkpoint: Path
    step: int | None
    when: float
    seconds: float | None


def last_run(
    scene: str | Path | None = None, root: Path = DEFAULT_ROOT, *, besides: Path | None = None
) -> LastRun | None:
    """The run in ``root`` that trained last, of ``scene`` (a name or path) if given; None: none.

    ``besides`` names a run that does not count, the present one.

    Reads small text files and names only, no checkpoint.
    """
    own = None if besides is None else besides.resolve()
    runs = _runs(None if scene is None else str(scene), root)
    run = next((run for run in runs if run.resolve() != own), None)
    if run is None:
        return None
    try:
        checkpoint = list_checkpoints(run / "checkpoints")[0]
        when = checkpoint.stat().st_mtime
    except (OSError, IndexError):  # removed at this moment
        return None
    return LastRun(run, checkpoint, step_of(checkpoint), when, RunFolder(run).trained_seconds())


def _newest_run(options: Options) -> Path:
    root = options.out or DEFAULT_ROOT
    run = next(_runs(options.scene, root), None)
    if run is None:
        of = f" of scene {options.scene}" if options.scene else ""
        raise UserError(f"--resume latest: expected a run{of} in {root}, found none.")
    return run


def _runs(scene: str | None, root: Path) -> Iterator[Path]:
    """Run folders in ``root``, the one that trained last first."""
    return (run for run in find_runs(root) if scene is None or _is_of_scene(run, scene))


def _is_of_scene(run: Path, scene: str) -> bool:
    try:
        config = read_config(run)
    except UserError:  # a broken neighbour must not hide the run that is meant
        return False
    found = config.get("scene", {})
    if not isinstance(found, dict):
        return False
    path = found.get("path")
    return scene == found.get("name") or (
        path is not None and Path(scene).expanduser().resolve() == Path(path)
    )
