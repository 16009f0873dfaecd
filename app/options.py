"""One dataclass = every command-line option. ``tyro`` makes the command line from it.

Importing this module must stay cheap: torch is not imported here, nor what needs it.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Fixed, Positional, Suppress, UseAppendAction, arg

from render.errors import UserError
from render.methods import method_names

DEFAULT_SECONDS = 150.0  # headless, when neither --steps nor --seconds is given
# Options that make a run what it is: a resumed run keeps its own.
IDENTITY = (
    "method", "k", "downscale", "split", "normalize", "background", "seed", "points",
    "points_crop", "points_outliers", "points_voxel", "points_most", "settings",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Train K-buffers on a scene, live in a window or headless."""

    # One line each: --help would keep the line breaks of longer ones.
    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="[PATH ...]")] = ()
    """Scene folder, file or name; run or checkpoint to continue; point cloud; camera path."""
    scene: Annotated[str | None, arg(metavar="PATH|NAME")] = None
    """Scene folder, file or name; names are looked up in the data roots and bundled scenes."""
    method: Annotated[str, arg(metavar="NAME", help=f"One of {', '.join(method_names())}.")] = (
        "kbuffer"
    )
    k: Annotated[int | None, arg(metavar="N")] = None
    """Layers of the K-buffer. Default: the method's own."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Stop training after this many steps in all."""
    seconds: Annotated[float | None, arg(metavar="S")] = None
    """Stop after this many seconds of training in all, measuring not counted; headless: 150."""
    downscale: Annotated[float, arg(metavar="F")] = 1.0
    """Train on images F times smaller."""
    split: Annotated[str, arg(metavar="NAME")] = "auto"
    """Which views are held out: auto, every8, all (none is), or a protocol of the format."""
    normalize: Literal["auto", "on", "off"] = "auto"
    """Train in units of the scene's size, near the origin; auto: where float32 needs it."""
    image_memory: Annotated[float | None, arg(metavar="GB")] = None
    """Memory for decoded photographs; default: half of what is free. Changes no result."""
    background: Literal["white", "black", "random"] = "white"
    """What stands behind transparent pixels."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of everything random."""
    headless: bool = False
    """No window; the same job with a progress bar."""
    eval_every: Annotated[str | None, arg(metavar="30s|500")] = None
    """Measure test views every 30 s or 500 steps, or "never"; without: at 15, 30, 60, ... s."""
    save_every: Annotated[str | None, arg(metavar="60s|500")] = None
    """Write a checkpoint every 60 s (so by default) or 500 steps; one at the end in any case."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Run folder; never overwritten. Default: runs/SCENE/METHOD-TIME."""
    resume: Annotated[str | None, arg(metavar="latest|DIR|FILE")] = None
    """Continue exactly: the newest run (of --scene, if given), a run folder or a checkpoint."""
    eval: bool = False
    """With a run or checkpoint: measure its test split and end, without training."""
    protocol: Annotated[str, arg(metavar="NAME")] = "house"
    """With --eval: how is measured: house, kbuffers-npf, kbuffers-gs, 3dgs, npbgpp, ..."""
    render: Annotated[Path | None, arg(metavar="PATH.json")] = None
    """Render the pictures of a camera path after training; with --resume, without training."""
    video: Annotated[Path | None, arg(metavar="OUT.mp4")] = None
    """Where the video of --render (else of the orbit) goes; without suffix: a folder of frames."""
    export: Annotated[Path | None, arg(metavar="OUT.ply|.spz|.splat")] = None
    """Headless: where Gaussians, or a cloud's own points (PLY), go; else export/ of the run."""
    data_root: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="DIR")] = ()
    """Where scene names are looked up, besides $KBUFFERS_DATA and data/; can be repeated."""
    points: Annotated[Path | None, arg(metavar="FILE")] = None
    """Point cloud to train the scene from."""
    points_crop: Annotated[str | None, arg(metavar='"x y z X Y Z"')] = None
    """Keep the points of the scene between these two corners, in the units of its files."""
    points_outliers: Annotated[str | None, arg(metavar="KIND")] = None
    """Remove stray points: "statistical[:16,2]" or "radius:4,0.05" (fewer than 4 within 0.05)."""
    points_voxel: Annotated[float | None, arg(metavar="SIZE")] = None
    """Keep one point in each cube of this size, in the units of the scene's files."""
    points_most: Annotated[int | None, arg(metavar="N")] = None
    """Keep N points at most, chosen at random."""
    settings: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="set", metavar="NAME=VALUE")
    ] = ()
    """An option of the method itself; can be repeated. A wrong name lists them all."""
    doctor: bool = False
    """Say what was found: torch, CUDA, GL, display, kernels, gsplat, ffmpeg, data."""
    ui_state: Annotated[Path | None, arg(metavar="FILE")] = None
    """The window writes its state to this file as JSON while it runs."""
    exit_after: Annotated[float | None, arg(metavar="SECONDS")] = None
    """The window closes by itself."""
    debug: bool = False
    """Show the traceback of errors."""
    version: bool = False
    """Print the version and end."""
    # Fields that the command line named: what was asked for, even where it equals the default.
    given: Suppress[Fixed[frozenset[str]]] = field(default=frozenset(), compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the inverse of :func:`from_json`."""
        return {
            name: [str(v) for v in value]
            if isinstance(value, tuple)
            else str(value)
            if isinstance(value, Path)
            else value
            for name, value in asdict(self).items()
            if name != "given"
        }


def from_json(data: dict[str, Any]) -> Options:
    """Options from :meth:`Options.to_json`; names of other versions are ignored."""
    known = {field.name: field for field in fields(Options)}
    paths = {"out", "export", "render", "video", "points", "ui_state"}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            continue
        if isinstance(value, list):
            value = tuple(Path(v) if name == "data_root" else v for v in value)
        elif name in paths and value is not None:
            value = Path(value)
        values[name] = value
    return Options(**values)


def parse(args: Sequence[str] | None = None) -> Options:
    """Read the command line.

    Raises:
        UserError: an unknown option or a value out of range, in one sentence.
        SystemExit: 0 after --help.
    """
    import tyro

    message = io.StringIO()
    try:
        with redirect_stderr(message):
            options = tyro.cli(
                Options,
                prog=program_name(),
                args=None if args is None else list(args),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_one_sentence(message.getvalue())) from None
    options = replace(options, given=_given(sys.argv[1:] if args is None else args))
    _check(options)
    return _sort_sources(options)


def program_name() -> str:
    """What the user typed to start the program: the installed command, or main.py."""
    return "kbuffers" if Path(sys.argv[0]).stem.lower() == "kbuffers" else "main.py"


def _given(args: Sequence[str]) -> frozenset[str]:
    """The fields that ``args`` name."""
    flags = {arg.partition("=")[0].lstrip("-").replace("-", "_") for arg in args if arg[:2] == "--"}
    names = {"settings" if flag == "set" else flag for flag in flags}
    return frozenset(names & {field.name for field in fields(Options)})


@dataclass(frozen=True)
class Every:
    """When to measure on the way. All None: at 15, 30, 60, 120, ... seconds."""

    seconds: float | None = None
    steps: int | None = None
    never: bool = False

    def next_after(self, step: int, seconds: float) -> tuple[float, float]:
        """The step and the second at which the next evaluation is due (infinite: not by that)."""
        infinity = float("inf")
        if self.never:
            return infinity, infinity
        if self.steps is not None:
            return (step // self.steps + 1) * self.steps, infinity
        if self.seconds is not None:
            return infinity, (seconds // self.seconds + 1) * self.seconds
        due = 15.0
        while due <= seconds:
            due *= 2
        return infinity, due


def parse_every(text: str | None, flag: str = "eval-every") -> Every:
    """``30s`` = seconds of training, ``500`` = steps, ``never``.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return Every()
    if text == "never":
        return Every(never=True)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s?)", text)
    number = float(match[1]) if match else 0.0
    if match and number > 0 and (match[2] or number.is_integer()):
        return Every(seconds=number) if match[2] else Every(steps=int(number))
    raise UserError(f'--{flag} {text}: expected seconds like "30s", steps like "500", or "never".')


def apply_settings(defaults: Any, settings: Sequence[str], k: int | None) -> Any:
    """A method's options with ``--k`` and every ``--set name=value`` in place.

    Args:
        defaults: instance of the method's frozen options dataclass.

    Raises:
        UserError: unknown name (the sentence lists them all) or a value of the wrong type.
    """
    values = {} if k is None else {"k": k}
    current = asdict(defaults)
    types = get_type_hints(type(defaults))
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in current:
            names = ", ".join(current)
            raise UserError(f"--set {setting}: expected NAME=VALUE with a name among {names}.")
        if get_origin(types[name]) is Literal:
            by_text = {str(choice): choice for choice in get_args(types[name])}
            if text not in by_text:
                raise UserError(f"--set {setting}: expected one of {', '.join(by_text)}.")
            values[name] = by_text[text]
        else:
            values[name] = _typed(setting, text, current[name])
    try:
        return replace(defaults, **values)
    except ValueError as error:  # the dataclass checks its own ranges
        raise UserError(f"--set {' '.join(settings) or f'k={k}'}: {error}.") from error


def _typed(setting: str, text: str, example: Any) -> Any:
    """``text`` as the type of the default value ``example``."""
    try:
        if isinstance(example, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(example, int):
            return int(text)
        if isinstance(example, float):
            return float(text)
        if isinstance(example, (tuple, list)):
            kind = type(example[0]) if example else str
            return tuple(kind(part) for part in text.split(",") if part)
        if example is None:
            return None if text.lower() == "none" else _number_or_text(text)
        return text
    except (KeyError, ValueError):
        kind = type(example).__name__
        raise UserError(f"--set {setting}: expected a value of type {kind}.") from None


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check(options: Options) -> None:
    """Ranges that need no scene."""
    for name in ("k", "steps", "seconds", "exit_after"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:  # also catches NaN
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {value:g}: expected a number above 0.")
    if not 1 <= options.downscale < math.inf:
        raise UserError(
            f"--downscale {options.downscale:g}: expected a factor of at least 1; "
            "4 makes images four times smaller."
        )
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed}: expected a whole number from 0 to 2^63 - 1.")
    parse_every(options.eval_every)
    parse_every(options.save_every, "save-every")
    if options.eval and not (options.resume or options.sources):
        raise UserError("--eval measures a trained model: name it with --resume latest|DIR|FILE.")
    if options.protocol != "house" and not options.eval:
        raise UserError(f"--protocol {options.protocol}: goes with --eval and a run to measure.")
    if options.render is not None and not options.render.is_file():
        raise UserError(f"--render {options.render}: expected a camera path file, found none.")


def _sort_sources(options: Options) -> Options:
    """Give every positional path its option, by what it is."""
    scenes: list[str] = [] if options.scene is None else [options.scene]
    clouds: list[str] = []
    for source in options.sources:
        alone = options.eval and source.endswith(".pt") and Path(source).is_file()
        kind, place = ("checkpoint", source) if alone else _kind(source)
        if kind in ("run", "checkpoint"):
            if options.resume not in (None, place):
                raise UserError(f"{source}: a run to continue was given twice.")
            options = replace(options, resume=place)
        elif kind == "camera_path":
            if options.render is not None:
                raise UserError(f"{source}: expected one camera path, found a second one.")
            options = replace(options, render=Path(place))
        elif kind == "cloud":
            clouds.append(place)
        else:
            scenes.append(place)
    if clouds and (scenes or options.resume):
        if options.points is not None or len(clouds) > 1:
            raise UserError(f"{clouds[-1]}: expected one point cloud, found a second one.")
        options = replace(options, points=Path(clouds[0]))
    else:
        scenes += clouds
    if len(scenes) > 1:
        raise UserError(f"{scenes[1]}: expected one scene, found a second one ({scenes[0]}).")
    return replace(options, sources=(), scene=scenes[0] if scenes else None)


def _kind(source: str) -> tuple[str, str]:
    """What ``source`` is and where: by content, or by its name where there is no such file."""
    path = Path(source)
    suffix = path.suffix.lower()
    if os.path.lexists(path.expanduser() if source.startswith("~/") else path):
        from app.opening import recognise  # imports torch

        plain_name = len(path.parts) == 1 and not suffix  # perhaps a scene somewhere else
        try:
            found = recognise(path, look_inside=not plain_name)
        except UserError:
            if not plain_name:
                raise
            return "scene", source
        return found.kind, source if found.path == path else str(found.path)
    if suffix == ".pt":
        return "checkpoint", source
    if suffix in (".ply", ".npy", ".npz", ".xyz", ".txt"):
        return "cloud", source
    return "scene", source


def _one_sentence(box: str) -> str:
    """The message inside the box that tyro draws around an error."""
    rows = [row.strip(" │|") for row in box.splitlines()]
    rows = [row for row in rows if row and not row.startswith(("╭", "╰"))]
    if "╭" not in box:  # without UTF-8 the title has a line of its own, and a rule below it
        rows = rows[2:]
    text: list[str] = []
    for row in rows:
        if row.startswith(("─", "---", "Got errors", "For full helptext")):
            break
        text.append(row)
    sentence = " ".join(text).replace("{None}|", "").rstrip(".")
    wrong = re.fullmatch(r"Error parsing (--\S+): .*?(INT|int|float|FLOAT).*'(.*)'\]?", sentence)
    if wrong:
        kind = "a whole number" if wrong[2].lower() == "int" else "a number"
        sentence = f"{wrong[1]} {wrong[3]}: expected {kind}"
    return f"{sentence}; {program_name()} --help lists all options."
