"""The evaluation protocols by name: ours, and those in which the papers' numbers were measured.

A published number and ours may only stand side by side when both were measured alike. Each preset
repeats what the program behind a paper does; what it cannot repeat stands in ``departures``.
docs/reliability.md explains the differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from render.errors import UserError
from render.scenes.load import READERS
from render.scenes.types import Scene
from render.training.evaluation import EvalResult, Protocol, house_protocol

Kind = Literal["nerf-synthetic", "dtu", "h3ds", "scannet", "other"]

_KINDS: tuple[tuple[str, Kind], ...] = (("DTU", "dtu"), ("H3DS", "h3ds"), ("ScanNet", "scannet"))
_SCANNET_EDGE = 20  # pixels


@dataclass(frozen=True)
class Preset:
    """A protocol with a name.

    Args:
        what: who measures like that, in a few words.
        build: the protocol for a scene; protocols differ between the data sets of one paper.
        departures: what the paper's numbers have that this does not repeat.
        size: "WxH" of the pictures that the numbers were measured on, where it is one.
        backgrounds: of training that the paper's models had; another is named in the result.
    """

    what: str
    build: Callable[[Scene, Kind], Protocol]
    departures: tuple[str, ...] = ()
    size: str | None = None
    backgrounds: tuple[str, ...] = ("white",)


def scene_kind(scene: Scene) -> Kind:
    """Which data set's rules hold for ``scene``, by its format."""
    if scene.path is None:
        return "other"
    reader = next((reader for reader in READERS if reader.matches(scene.path)), None)
    if reader is None:
        return "other"
    if reader.name.startswith("NeRF-Synthetic"):
        views = scene.split("test") or scene.views
        return "nerf-synthetic" if all(view.has_alpha for view in views) else "other"
    for name, kind in _KINDS:
        if reader.name.startswith(name):
            return kind
    return "other"


def preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in PRESETS:
        raise UserError(f"--protocol {name}: expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def protocol_for(name: str, scene: Scene) -> Protocol:
    """The protocol called ``name`` on ``scene``.

    Raises:
        UserError: there is none.
    """
    return replace(preset(name).build(scene, scene_kind(scene)), name=name)


def departures(result: EvalResult, scene: Scene, *, trained_on: str) -> list[str]:
    """Sentences: in what these numbers still differ from published ones of the same protocol.

    Args:
        result: measured under one of :data:`PRESETS`.
        scene: that it was measured on.
        trained_on: the kind of background that the model was trained with.
    """
    if result.protocol.name == "house":
        return []
    chosen = preset(result.protocol.name)
    found = list(chosen.departures)
    if chosen.size is not None and result.sizes != [chosen.size]:
        found.append(f"pictures of {', '.join(result.sizes)}, published at {chosen.size}")
    if trained_on not in chosen.backgrounds:
        found.append(f"trained on a {trained_on} background")
    if result.protocol.lpips_net != "none" and result.lpips is None:
        found.append(f"LPIPS-{result.protocol.lpips_net} not measured: no weights here")
    if scene_kind(scene) == "nerf-synthetic" and len(result.per_image) != 200:
        found.append(f"{len(result.per_image)} test views, published with 200")
    return found


def _house(scene: Scene, kind: Kind) -> Protocol:
    return house_protocol(scene.background, lpips_net="alex")


def _kbuffers_npf(scene: Scene, kind: Kind) -> Protocol:
    """piqa's PSNR, SSIM and LPIPS-VGG; DTU with soft masks, ScanNet 0000 without its edge."""
    edge = _SCANNET_EDGE if kind == "scannet" and re.search(r"0000(?!\d)", scene.name) else 0
    mask = "composite" if kind == "dtu" else "none"
    return Protocol(object_mask=mask, edge_crop=edge, lpips_net="vgg")


def _kbuffers_gs(scene: Scene, kind: Kind) -> Protocol:
    """torchmetrics' PSNR, SSIM and LPIPS-Alex; DTU multiplied by its mask, all but 0 counts."""
    if kind == "dtu":
        return Protocol(
            background="black",
            background_rgb=(0.0, 0.0, 0.0),
            photo="straight",
            object_mask="multiply",
            mask_above=0.0,
            lpips_net="alex",
        )
    return Protocol(lpips_net="alex")


def _gaussians(scene: Scene, kind: Kind) -> Protocol:
    """Pictures go through PNG files; SSIM reaches over the border; LPIPS-VGG sees [0, 1]."""
    return Protocol(
        photo_8bit=True,
        quantize_8bit=True,
        ssim_border="zeros",
        lpips_net="vgg",
        lpips_range="0..1",
    )


def _npbgpp(scene: Scene, kind: Kind) -> Protocol:
    """torchmetrics and LPIPS-VGG; masks from 0.5, 20 pixels of every ScanNet edge left out."""
    edge = _SCANNET_EDGE if kind == "scannet" else 0
    above = 0.5 - 1e-6 if kind in ("dtu", "h3ds") else None  # 0.5 itself counts
    return Protocol(mask_above=above, edge_crop=edge, lpips_net="vgg")


def _point_radiance(scene: Scene, kind: Kind) -> Protocol:
    """PSNR only, on black, photographs with their alpha left out."""
    return Protocol(background="black", background_rgb=(0.0, 0.0, 0.0), photo="straight")


PRESETS: dict[str, Preset] = {
    "house": Preset("this program, unless another is asked for", _house),
    "kbuffers-npf": Preset(
        "K-Buffers on BPCR and FrePCR (IJCAI 2025)",
        _kbuffers_npf,
        ("the published PSNR, SSIM and LPIPS are the best of all epochs on the test split",),
    ),
    "kbuffers-gs": Preset(
        "K-Buffers on 3DGS (IJCAI 2025)",
        _kbuffers_gs,
        ("published networks normalise with the statistics of the test picture itself",),
    ),
    "3dgs": Preset(
        "the authors' program of 3D Gaussian splatting (SIGGRAPH 2023)",
        _gaussians,
        backgrounds=("white", "random"),
    ),
    "npbgpp": Preset("NPBG++ (CVPR 2022), and NPBG as run there", _npbgpp),
    "point-radiance": Preset(
        "Differentiable point-based radiance fields (SIGGRAPH Asia 2022)",
        _point_radiance,
        ("published: the mean of 23 views, with the program's defaults of the val split",),
        size="400x400",
        backgrounds=("black",),
    ),
}
