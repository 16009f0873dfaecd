"""Files that a scene names: found leniently, and only inside the scene or beside it.

Names in scene files come from other machines: drive letters, backslashes, absolute folders that
exist nowhere else, ``.JPG`` where the disk has ``.png``. ``ImageFinder`` resolves them and keeps
count of what it had to bend, so that the reader can say so.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from render.errors import UserError
from render.scenes.photos.images import IMAGE_SUFFIXES

_DEEPEST = 32  # folders from the end of a name that are tried
_DRIVE = re.compile(r"^[A-Za-z]:")


def find_file(folder: Path, name: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Path | None:
    """One file as ``ImageFinder.find`` resolves it; for many files of a folder use the class."""
    return ImageFinder(folder, folder, suffixes).find(name)


class ImageFinder:
    """Finds the files that ``source`` names relative to ``folder``.

    A name is tried as it is; with another image suffix; in another case or Unicode form; and, when
    its folders do not exist here (absolute and Windows paths), from its last folders or its bare
    file name. A bent name never takes a file that another name has already taken.

    Args:
        folder: names are relative to it. What is found lies inside it or its parent folder.
        source: the file that holds the names, for messages.
        suffixes: other endings that a file may have.
    """

    def __init__(
        self, folder: Path, source: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES
    ) -> None:
        self.folder = folder
        self.source = source
        self.bent: list[tuple[str, Path]] = []
        self._suffixes = tuple(suffixes)
        self._top = os.path.dirname(os.path.abspath(folder))
        self._listings: dict[str, dict[str, str]] = {}
        self._folders: dict[str, str | None] = {}
        self._inside = os.path.abspath(folder)
        self._taken: dict[Path, str] = {}

    def find(self, name: str) -> Path | None:
        """The file, or None.

        Raises:
            UserError: the name leads to an existing file outside of the scene, or to something
                beside the scene that is no image.
        """
        plain = _DRIVE.sub("", name.replace("\\", "/"))
        path = None
        if not plain.startswith("//"):  # a network share is not asked
            exact = self.folder / name
            path = exact if os.path.isfile(exact) else None
            if path is None and not _DRIVE.match(name):
                path = self._search(plain)
        if path is not None and self._allowed(path):
            return self._take(name, path, bent=not self._is_regular(plain, path))
        parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
        for start in range(max(0, len(parts) - _DEEPEST), len(parts)):
            tail = "/".join(parts[start:])
            inside = self._search(tail)
            if inside is not None:
                return self._take(name, inside, bent=True)
        if path is not None:
            raise UserError(
                f'{self.source}: "{name[:200]}" is outside of the scene; expected a file in '
                f"{self.folder} or in the folder above it ({self._suffixes[0]} and its like): "
                "move or copy it there."
            )
        return None

    def note(self) -> str | None:
        """One sentence about the names that had to be bent, or None."""
        if not self.bent:
            return None
        name, path = self.bent[0]
        plural = "s" if len(self.bent) > 1 else ""
        return (
            f"{self.source.name}: {len(self.bent)} file{plural} found under another name than "
            f"given (first: {self._shown(path)} for {name})."
        )

    def _take(self, name: str, path: Path, bent: bool) -> Path | None:
        taken_by = self._taken.setdefault(path, name)
        if bent:
            if taken_by != name:
                return None
            if (name, path) not in self.bent:
                self.bent.append((name, path))
        return path

    def _is_regular(self, plain: str, path: Path) -> bool:
        """Whether the name was right, or right but for a suffix that it leaves out."""
        given = self.folder / plain
        if path == given or given.suffix.lower() in self._suffixes:
            return path == given
        return path.with_suffix("") == given

    def _allowed(self, path: Path) -> bool:
        """Inside the scene, or an image beside it. Links count where they lie, not where they lead:
        who links an image folder into a scene wants it used."""
        place = os.path.abspath(path)
        if _is_inside(place, self._inside):
            return True
        return _is_inside(place, self._top) and path.suffix.lower() in self._suffixes

    def _search(self, name: str) -> Path | None:
        """``name`` (with forward slashes) under the folder, with other suffixes and cases."""
        given = os.path.join(self.folder, name)
        if os.path.isfile(given):
            return Path(given)
        above, _, last = name.rpartition("/")
        folder = self._folder(above)
        if folder is None:
            return None
        listing = self._listing(folder)
        stem, suffix = os.path.splitext(last)
        stems = [last, stem] if suffix.lower() in self._suffixes else [last]
        wanted = [last, *(other + ending for other in stems for ending in self._suffixes)]
        for spelling in (str, _folded):
            for candidate in wanted:
                found = listing.get(spelling(candidate))
                if found is not None and os.path.isfile(os.path.join(folder, found)):
                    return Path(folder, found)
        return None

    def _folder(self, name: str) -> str | None:
        """A folder under the folder, in any case."""
        if name not in self._folders:
            path = os.path.join(self.folder, name) if name else os.fspath(self.folder)
            self._folders[name] = path if os.path.isdir(path) else self._folder_in_any_case(name)
        return self._folders[name]

    def _folder_in_any_case(self, name: str) -> str | None:
        path = os.fspath(self.folder)
        for part in name.split("/"):
            if part in ("", "."):
                continue
            found = part if part == ".." else self._listing(path).get(_folded(part))
            if found is None:
                return None
            path = os.path.join(path, found)
        return path if os.path.isdir(path) else None

    def _listing(self, folder: str) -> dict[str, str]:
        """The names in a folder by themselves and, where nothing is called so, by folded name."""
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except (OSError, ValueError):
                names = []
            self._listings[folder] = {_folded(name): name for name in names} | {
                name: name for name in names
            }
        return self._listings[folder]

    def _shown(self, path: Path) -> str:
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else str(path)


def _folded(name: str) -> str:
    """One spelling for upper and lower case and for composed and decomposed letters."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_inside(path: str, folder: str) -> bool:
    try:
        return os.path.commonpath([path, folder]) == folder
    except ValueError:  # another drive
        return False
