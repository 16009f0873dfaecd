"""``--eval``: the numbers of a run or checkpoint under any protocol, with the protocol beside them.

The house protocol goes into ``eval.json``, as at the end of training and with the very same
numbers; any other into ``eval-NAME.json``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from app.session import Session
from app.snapshot import EvalPoint
from app.workbench import Workbench
from render.export.images import save_image, side_by_side
from render.scenes.types import View
from render.training.metrics import load_lpips
from render.training.protocols import departures, protocol_for

COMPARED = 4  # test views that are also saved beside their photographs


def measure(
    session: Session, bench: Workbench, name: str = "house", *, images: bool = True
) -> EvalPoint:
    """Full evaluation of the test split, written to the run folder: a job of the worker.

    Args:
        name: of the protocol.
        images: also write the pictures that it is about.

    Raises:
        UserError: no such protocol, or one that these pictures are too small for.
    """
    assert bench.trainer is not None
    scene, folder = bench.scene, bench.folder.images
    protocol = protocol_for(name, scene)
    lpips = None
    if protocol.lpips_net != "none":
        lpips, sentence = load_lpips(protocol.lpips_net, bench.device)
        session.note(sentence)
        if lpips is None and name == "house":
            protocol = replace(protocol, lpips_net="none")
    count = len(scene.splits["test"])
    compared = set(range(0, count, max(1, -(-count // COMPARED))))

    def on_image(i: int, view: View, image: Tensor, target: Tensor) -> None:
        if not images:
            return
        save_image(folder / f"{_safe(view.name)}.png", image)
        if i in compared:
            pair = side_by_side([image, target])
            save_image(folder / f"{_safe(view.name)}_beside_photo.png", pair)

    point = session.measure(protocol=protocol, lpips=lpips, on_image=on_image)
    differing = departures(point.result, scene, trained_on=scene.background.kind)
    data = point.result.to_json() | {"step": point.step, "seconds": point.seconds}
    data["protocol"] |= {"trained_on": scene.background.kind, "departures": differing}
    if name != "house":
        for sentence in differing:
            session.note(f"Differs from published numbers: {sentence}.")
    path = _write(session, bench, eval_name(name), data)
    if path is not None and name != "house":
        session.note(f"Measured under the protocol {name}: {path}.")
    return point


def eval_name(protocol: str) -> str:
    """The file of a run folder that has the numbers of a protocol."""
    return "eval.json" if protocol == "house" else f"eval-{protocol}.json"


def _write(session: Session, bench: Workbench, name: str, data: dict) -> Path | None:
    try:
        return bench.folder.write_json(name, data)
    except OSError as error:
        if not bench.look_only:
            raise
        # Numbers of somebody else's run, on a disc that is only read, are still worth showing.
        session.note(f"{bench.folder.path / name} could not be written ({error.strerror}).")
        return None


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
