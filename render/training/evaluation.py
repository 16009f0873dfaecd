"""Held-out quality under a protocol that is stored beside every number.

Two numbers can be compared only when background, split, size, clamp, quantisation and LPIPS net
agree; so a result carries them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from render.methods.base import Method
from render.scenes.background import Background, BackgroundKind
from render.scenes.types import SplitName, View
from render.training import metrics
from render.training.metrics import LpipsNet

OnImage = Callable[[int, View, Tensor, Tensor], None]


@dataclass(frozen=True)
class Protocol:
    """How held-out quality is measured.

    Args:
        split: whose views are rendered.
        background: what photographs and renders stand on; ``random`` counts as white.
        clamp: renders are clamped to [0, 1] before they are compared.
        quantize_8bit: renders are rounded to 256 levels, as if they had been saved as PNG.
        mask: which pixels count. All of them.
        lpips_net: net of LPIPS, whose input is scaled to [-1, 1]; "none" leaves it out.
    """

    split: SplitName = "test"
    background: BackgroundKind = "white"
    background_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    clamp: bool = True
    quantize_8bit: bool = False
    mask: Literal["none"] = "none"
    lpips_net: LpipsNet | Literal["none"] = "none"

    def prepare(self, image: Tensor) -> Tensor:
        """The render as it is compared."""
        if self.clamp:
            image = image.clamp(0, 1)
        if self.quantize_8bit:
            image = (image * 255).round() / 255
        return image


@dataclass(frozen=True)
class ImageScore:
    """Quality of one view; ``lpips`` is None where it was not measured."""

    name: str
    psnr: float
    ssim: float
    lpips: float | None = None


@dataclass(frozen=True)
class EvalResult:
    """Means of per-image values, and those values.

    ``sizes`` lists the distinct image sizes as "WxH"; ``k`` is None for all layers of the model.
    """

    psnr: float
    ssim: float
    lpips: float | None
    per_image: list[ImageScore]
    protocol: Protocol
    sizes: list[str] = field(default_factory=list)
    k: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for eval.json. What has no number (infinite PSNR, tiny images) is null."""
        protocol = asdict(self.protocol) | {
            "background_rgb": list(self.protocol.background_rgb),
            "sizes": self.sizes,
            "views": len(self.per_image),
            "average": "mean of per-image values",
        }
        scores = [asdict(score) for score in self.per_image]
        for score in scores:
            score.update({k: _finite(v) for k, v in score.items() if k != "name"})
        return {
            "psnr": _finite(self.psnr),
            "ssim": _finite(self.ssim),
            "lpips": _finite(self.lpips),
            "k": self.k,
            "per_image": scores,
            "protocol": protocol,
        }


def house_protocol(
    background: Background,
    split: SplitName = "test",
    lpips_net: LpipsNet | Literal["none"] = "none",
) -> Protocol:
    """The protocol of every number that no paper's preset is named beside."""
    r, g, b = background.color().tolist()
    return Protocol(split, background.kind, (r, g, b), lpips_net=lpips_net)


def evaluate(
    method: Method,
    views: Sequence[View],
    protocol: Protocol,
    *,
    k: int | None = None,
    lpips: metrics.Lpips | None = None,
    on_image: OnImage | None = None,
) -> EvalResult:
    """Render ``views`` and compare them with their photographs.

    Args:
        method: only read.
        views: at least one.
        protocol: kept in the result.
        k: layers to render with; None = all that the model was trained with.
        lpips: from :func:`render.training.metrics.load_lpips`; None leaves LPIPS out.
        on_image: called after each view with its number, the view, the render and the photograph
            (both [H, W, 3] on the CPU); an exception from it ends the evaluation.
    """
    if not views:
        raise ValueError(f"nothing to evaluate: the {protocol.split} split has no views")
    background = torch.tensor(protocol.background_rgb)
    scores: list[ImageScore] = []
    for i, view in enumerate(views):
        image = protocol.prepare(method.render(view.camera, background, k).rgb.float().cpu())
        target = view.target(background)
        distance = None
        if lpips is not None and protocol.lpips_net != "none":
            distance = lpips(image, target)
        scores.append(
            ImageScore(
                view.name, metrics.psnr(image, target), metrics.ssim(image, target), distance
            )
        )
        if on_image is not None:
            on_image(i, view, image, target)
    distances = [score.lpips for score in scores if score.lpips is not None]
    return EvalResult(
        psnr=_mean([score.psnr for score in scores]),
        ssim=_mean([score.ssim for score in scores]),
        lpips=_mean(distances) if distances else None,
        per_image=scores,
        protocol=protocol,
        sizes=sorted({f"{view.camera.width}x{view.camera.height}" for view in views}),
        k=k,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
