"""What the window remembers for each user: sizes, theme, recent files.

A file that is broken never keeps the program from starting: what can be read is used, the rest is
as delivered, and the file is kept beside as ``settings.json.broken``.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path

from render.files import atomic_text, small_text

VERSION = 1
MAX_RECENT = 12


@dataclass(frozen=True)
class Recent:
    """Something that was opened: an absolute path (or a scene's name) and its kind."""

    path: str
    kind: str


def _number(default: float | None, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _choice(*names: str) -> Any:
    return field(default=names[0], metadata={"choices": names})


@dataclass
class Settings:
    """Everything that survives the window.

    Args:
        width, height: of the window in pixels; ``x``, ``y`` its corner (None: the system's choice).
        panel_width, atlas_height: pixels at font scale 1.
        recent: what was opened, newest first.
        last_scene: path or name.
        view_share: of the worker's time that pictures may take while it trains.
        smoothing: of camera moves, half life in seconds, 0 = none.
        move_scale: resolution while the camera moves, 1 = full (None: as large as stays fluent).
        point_size: pixels in the point preview.
        speed: of flying, times the scene's own.
    """

    width: int = _number(1280, 320, 16384)
    height: int = _number(800, 240, 16384)
    x: int | None = _number(None, -32768, 32767)
    y: int | None = _number(None, -32768, 32767)
    panel_width: int = _number(380, 160, 4096)
    atlas_height: int = _number(132, 32, 2048)
    theme: Literal["dark", "light"] = _choice("dark", "light")
    font_scale: float = _number(1.0, 0.75, 2.5)
    recent: tuple[Recent, ...] = ()
    last_scene: str | None = None
    view_share: float = _number(0.05, 0.01, 1.0)
    pause_while_moving: bool = True
    smoothing: float = _number(0.05, 0.0, 1.0)
    move_scale: float | None = _number(None, 0.1, 1.0)
    point_size: float = _number(2.0, 1.0, 32.0)
    show_frusta: bool = False
    show_grid: bool = False
    speed: float = _number(1.0, 0.01, 100.0)

    def add_recent(self, path: str | Path, kind: str) -> Settings:
        """The same with ``path`` as the newest of the recent ones, each there once."""
        new = Recent(str(path), kind)
        others = tuple(old for old in self.recent if old.path != new.path)
        return replace(self, recent=(new, *others)[:MAX_RECENT])

    def listed_recent(self) -> tuple[Recent, ...]:
        """The recent ones that are still there, and those that are names."""
        return tuple(each for each in self.recent if _is_there(each.path))


def settings_path() -> Path:
    """Where the settings lie: in $KBUFFERS_CONFIG, else where this system keeps such files."""
    folder = os.environ.get("KBUFFERS_CONFIG")
    if folder:
        return Path(folder).expanduser() / "settings.json"
    return user_config_path("kbuffers", appauthor=False) / "settings.json"


def load() -> tuple[Settings, str | None]:
    """The settings, and a sentence about what could not be used in the file; never raises."""
    path = settings_path()
    try:
        text = small_text(path, "utf-8-sig")
    except FileNotFoundError:
        return Settings(), None
    except OSError as error:
        return Settings(), f"{path}: settings cannot be read ({error.strerror}); defaults are used."
    except UnicodeDecodeError:
        return Settings(), _keep_broken(path, "no text in UTF-8")
    except ValueError as error:
        return Settings(), _keep_broken(path, str(error))
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Settings(), _keep_broken(path, f"no valid JSON ({error})")
    if not isinstance(data, dict):
        return Settings(), _keep_broken(path, f"a {type(data).__name__} instead of an object")
    version = data.pop("version", None)
    values: dict[str, Any] = {}
    wrong: list[str] = [] if version == VERSION else [f"version {version!r}"]
    known = {each.name: each for each in fields(Settings)}
    for name, value in data.items():
        if name not in known:
            wrong.append(f"{name!r} is unknown"[:60])
            continue
        try:
            values[name] = _checked(known[name], value)
        except (TypeError, ValueError, KeyError):
            wrong.append(f"{name} = {value!r}"[:60])
    settings = Settings(**values)
    return settings, _keep_broken(path, ", ".join(wrong[:4])) if wrong else None


def save(settings: Settings) -> str | None:
    """Write the settings, whole or not at all; a sentence when that is not possible."""
    path = settings_path()
    data = {"version": VERSION, **asdict(settings)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_text(path.resolve(), json.dumps(data, indent=2) + "\n")  # a link stays a link
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        return f"{path}: settings cannot be saved ({reason}); they last until the window closes."
    return None


def _checked(known: Any, value: Any) -> Any:
    """``value`` from JSON as the field's own type.

    Raises:
        TypeError, ValueError, KeyError: it has another type or is out of range.
    """
    if known.name == "recent":
        recent = [Recent(_text(each["path"]), _text(each["kind"])) for each in value]
        return tuple(recent[:MAX_RECENT])
    if known.name == "last_scene":
        return None if value is None else _text(value)
    if "choices" in known.metadata:
        if value not in known.metadata["choices"]:
            raise ValueError
        return value
    if isinstance(known.default, bool):
        if not isinstance(value, bool):
            raise TypeError
        return value
    if value is None and known.default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    low, high = known.metadata["range"]
    if not low <= value <= high:  # also catches NaN
        raise ValueError
    if isinstance(known.default, float):
        return float(value)
    if not math.isclose(value, round(value)):
        raise ValueError
    return round(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _keep_broken(path: Path, found: str) -> str:
    broken = path.with_name(path.name + ".broken")
    try:
        shutil.copyfile(path, broken)
        kept = f"the file is kept as {broken.name}"
    except OSError:
        kept = "the file could not be kept"
    return f"{path}: expected settings, found {found}; defaults are used instead, and {kept}."


def _is_there(path: str) -> bool:
    if len(Path(path).parts) == 1:  # a scene's name
        return True
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
