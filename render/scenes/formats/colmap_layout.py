"""Where in a folder the COLMAP model, its photographs and its lists of splits are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from render.errors import UserError
from render.scenes.formats.colmap_model import ColmapImage, is_model, lines_of, read_images
from render.scenes.formats.paths import ImageFinder
from render.scenes.photos.images import IMAGE_SUFFIXES

# Folders of a scene that hold a model, or numbered models ("0", "1", ...), the usual one first.
_PLACES = (
    "sparse", "colmap/sparse", "dense/0/sparse", "dense/sparse", "dense", "colmap", ".",
    "undistorted/sparse", "distorted/sparse", "sfm", "model",
)  # fmt: skip
_INNER = ("sparse", "colmap", "dense", "undistorted", "distorted", "sfm", "model")
_FILES = re.compile(r"(cameras|images|points3D|rigs|frames)\.(bin|txt)")
_IMAGES = ("images", "image", "input", "imgs", "photos", "rgb", "color")
_SHRUNK = (2, 4, 8)  # images_2 and so on: made beforehand, as for Mip-NeRF 360 and 3DGS
_UP = 4  # folders from the model upwards in which photographs are looked for
_SAMPLE = 40  # names that decide which folder holds the photographs
_MOST_MODELS = 50


@dataclass(frozen=True)
class Model:
    """A model, the folder of the scene that it belongs to, and which of several it is."""

    folder: Path
    scene: Path
    images: list[ColmapImage]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImageFolder:
    """A folder of photographs and by how much they were shrunk beforehand."""

    path: Path
    shrunk: int = 1


def is_colmap(path: Path) -> bool:
    """Whether ``path`` is a scene with a COLMAP model, such a model, or one of its files."""
    return bool(_model_folders(path))


def find_model(path: Path) -> Model:
    """The model of a scene: the first whose photographs are there, of numbered ones the largest.

    Raises:
        UserError: no model can be read, or the photographs of none are there.
    """
    failures: list[UserError] = []
    for folders in _model_folders(path):
        try:
            model = _largest(folders)
            choose_images(model, 1)
        except UserError as error:
            failures.append(error)
        else:
            passed = [f"Passed over: {failure}" for failure in failures]
            return replace(model, notes=[*model.notes, *passed])
    raise failures[0]


def choose_images(model: Model, downscale: float) -> ImageFolder:
    """The folder with the photographs of a model; ``images_4`` where downscale is 4.

    Raises:
        UserError: no folder has any of them.
    """
    step = max(1, len(model.images) // _SAMPLE)
    names = [image.name for image in model.images[::step]]
    folders = _image_folders(model.folder)
    hits = [_hits(folder, names) for folder in folders]
    best = max(hits, default=0)
    if best:
        full = folders[hits.index(best)]
        shrunk = ImageFolder(_shrunk(full, int(downscale)), int(downscale))
        if downscale in _SHRUNK and _hits(shrunk.path, names) >= best:
            return shrunk
        return ImageFolder(full)
    for factor in _SHRUNK:  # the photographs themselves were not copied
        for folder in folders:
            if _hits(_shrunk(folder, factor), names):
                return ImageFolder(_shrunk(folder, factor), factor)
    near = list(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    looked = ", ".join(str(folder) for folder in near[:6])
    raise UserError(
        f"{model.folder}: none of the {len(model.images)} photographs of this COLMAP model is "
        f'there (the first is "{names[0][:100]}"); expected them in a folder called images beside '
        f"the model, looked in {looked}."
    )


def read_split(model: Model, names: Sequence[str]) -> dict[str, set[str]]:
    """Lists of names (``test.txt``, ``train_list.txt``, ...) beside the model or in the scene.

    Returns:
        For "train", "val" and "test", where such a list is there, those of ``names`` on it. A
        list may leave out suffixes and folders.
    """
    found: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for file in (f"{split}.txt", f"{split}_list.txt"):
            for folder in (model.folder, model.scene):
                path = folder / file
                if split not in found and path.is_file():
                    wanted = {_plain(line.strip()) for _, line in lines_of(path)} - {""}
                    on_it = {n for n in names if wanted & {_plain(n), _plain(Path(n).name)}}
                    if on_it:
                        found[split] = on_it
    return found


def check_name(model: Model, name: str) -> None:
    """Refuse a name that leads out of the folder of photographs.

    Raises:
        UserError: it does.
    """
    if ".." in name.replace("\\", "/").split("/") or "\0" in name:
        raise UserError(
            f'{model.folder}: the image name "{name[:100]}" leads out of the folder of '
            "photographs; expected names inside it: rename the image in the model."
        )


# ------------------------------------------------------------------ models
def _model_folders(path: Path) -> list[list[Path]]:
    """Groups of models; the members of a group are parts of one reconstruction."""
    if path.is_file():
        if not _FILES.fullmatch(path.name) or not is_model(path.parent):
            return []
        return [[path.parent]]
    if is_model(path):
        return [[path]]
    scenes = [path]
    if path.name in _IMAGES:  # the user points at the photographs
        scenes.append(path.parent)
    groups = [_models_in(scene / place) for scene in scenes for place in _PLACES]
    return [group for group in groups if group]


def _models_in(folder: Path) -> list[Path]:
    if is_model(folder):
        return [folder]
    numbered = (folder / str(number) for number in range(_MOST_MODELS))
    return [model for model in numbered if is_model(model)] if folder.is_dir() else []


def _largest(folders: Sequence[Path]) -> Model:
    if len(folders) == 1:
        return Model(folders[0], _scene_of(folders[0]), read_images(folders[0]))
    models: list[tuple[Path, list[ColmapImage]]] = []
    failures: list[UserError] = []
    for folder in folders:
        try:
            models.append((folder, read_images(folder)))
        except UserError as error:
            failures.append(error)
    if not models:
        raise failures[0]
    folder, images = max(models, key=lambda model: len(model[1]))  # the first of equals
    sizes = ", ".join(f"{each.name} with {len(some)} images" for each, some in models)
    broken = f" ({len(failures)} could not be read: {failures[0]})" if failures else ""
    note = (
        f"{folder.parent}: {len(folders)} models that COLMAP could not join: {sizes}{broken}; "
        f"{folder.name} is read."
    )
    return Model(folder, _scene_of(folder), images, [note])


def _scene_of(model: Path) -> Path:
    """The folder above ``sparse/0`` and the like."""
    folder = model.resolve()
    if folder.name.isdigit() and folder.parent.name in _INNER:
        folder = folder.parent
    while folder.name in _INNER or (folder.name.isdigit() and folder.parent.name == "dense"):
        folder = folder.parent
    return folder


# ------------------------------------------------------------------ photographs
def _image_folders(model: Path) -> list[Path]:
    """Where photographs may be, the nearest first."""
    place = model.resolve()
    above = [place, *place.parents][:_UP]
    return [folder / name for folder in above for name in _IMAGES] + above


def _shrunk(folder: Path, factor: int) -> Path:
    return folder.with_name(f"{folder.name}_{factor}")


def _hits(folder: Path, names: Sequence[str]) -> int:
    """How many of the names are photographs in a folder."""
    if not folder.is_dir():
        return 0
    finder = ImageFinder(folder, folder)
    found = 0
    for name in names:
        try:
            path = finder.find(name)
        except UserError:  # it leads elsewhere: said when the image is read
            continue
        found += path is not None and path.resolve().is_relative_to(folder.resolve())
    return found


def _plain(name: str) -> str:
    """A name without image suffix and leading ``images/``, with forward slashes."""
    name = name.replace("\\", "/").removeprefix("./").removeprefix("images/")
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
