"""Held-out quality under a protocol that is stored beside every number.

Two numbers can be compared only when background, split, size, clamp, quantisation and LPIPS net
agree; so a result carries them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from render.errors import UserError
from render.methods.base import Method
from render.scenes.background import Background, BackgroundKind, composite
from render.scenes.photos.imagecache import Ahead
from render.scenes.types import SplitName, View
from render.training import metrics
from render.training.metrics import LpipsNet

OnImage = Callable[[int, View, Tensor, Tensor], None]


@dataclass(frozen=True)
class Protocol:
    """How held-out quality is measured; render/training/protocols.py has those of the papers.

    Args:
        name: of the preset it comes from.
        split: whose views are rendered.
        background: what photographs and renders stand on; ``random`` counts as white.
        photo: photographs stand on the background, or are compared with their alpha left out.
        photo_8bit: photographs over the background are cut off to 256 levels.
        clamp: renders are clamped to [0, 1] before they are compared.
        quantize_8bit: renders are rounded to 256 levels, as if they had been saved as PNG.
        mask: which pixels count: all of them, or not those that a scene's masks say to ignore
            (:func:`evaluate` finds out). SSIM then leaves out every window with such a pixel, and
            LPIPS sees the render there on both sides.
        object_mask: what the photograph's alpha does to the render: nothing; ``composite`` puts
            the background around the object; ``multiply`` makes both pictures black there.
        mask_above: alpha above this counts as 1, the rest as 0; None: alpha as it is.
        edge_crop: pixels that are cut off at every side.
        ssim_border: windows inside the picture only, or all, with zeros around it.
        lpips_net: net of LPIPS; "none" leaves it out.
        lpips_range: what [0, 1] is scaled to for LPIPS. Its nets were made for [-1, 1].
    """

    name: str = "house"
    split: SplitName = "test"
    background: BackgroundKind = "white"
    background_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    photo: Literal["composited", "straight"] = "composited"
    photo_8bit: bool = False
    clamp: bool = True
    quantize_8bit: bool = False
    mask: Literal["none", "ignored"] = "none"
    object_mask: Literal["none", "composite", "multiply"] = "none"
    mask_above: float | None = None
    edge_crop: int = 0
    ssim_border: Literal["inside", "zeros"] = "inside"
    lpips_net: LpipsNet | Literal["none"] = "none"
    lpips_range: Literal["-1..1", "0..1"] = "-1..1"

    def prepare(self, image: Tensor) -> Tensor:
        """The render as it is compared, before masks and edges."""
        if self.clamp:
            image = image.clamp(0, 1)
        if self.quantize_8bit:
            image = (image * 255).round() / 255
        return image

    def pair(self, image: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor | None]:
        """Render [H, W, 3] and photograph of ``view`` as they are compared.

        Returns:
            both [H - 2 c, W - 2 c, 3] for an edge of c pixels, and which pixels do not count
            (bool, the same size) or None.

        Raises:
            UserError: nothing is left inside the edge.
        """
        background = torch.tensor(self.background_rgb)
        image, ignored = self.prepare(image), view.left_out()
        target = self._photo(view, background)
        if self.object_mask != "none" and view.has_alpha:
            alpha = self._alpha(view.rgba()[1])
            if self.object_mask == "composite":
                image = composite(image, alpha, background)
            else:
                image, target = image * alpha[..., None], target * alpha[..., None]
        height, width, edge = *image.shape[:2], self.edge_crop
        if min(height, width) <= 2 * edge:
            raise UserError(
                f"--protocol {self.name}: expected pictures larger than the edge of {edge} pixels "
                f"that it cuts off, found {width}x{height}; use a smaller --downscale."
            )
        inside = (slice(edge, height - edge), slice(edge, width - edge))
        return image[inside], target[inside], None if ignored is None else ignored[inside]

    def _photo(self, view: View, background: Tensor) -> Tensor:
        if self.photo == "straight" or not view.has_alpha:
            target = view.rgba()[0]
        elif self.mask_above is None:
            target = view.target(background)
        else:
            rgb, alpha = view.rgba()
            target = composite(rgb, self._alpha(alpha), background)
        # What multiplies to 254.99997 was an exact 255 in the file: float32 must not cost a level.
        return (target * 255 + 1e-3).floor() / 255 if self.photo_8bit else target

    def _alpha(self, alpha: Tensor) -> Tensor:
        return alpha if self.mask_above is None else (alpha > self.mask_above).float()


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
    return Protocol("house", split, background.kind, (r, g, b), lpips_net=lpips_net)


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
            as they are compared (both on the CPU); an exception from it ends the evaluation.
    """
    if not views:
        raise ValueError(f"nothing to evaluate: the {protocol.split} split has no views")
    if any(view.ignored is not None for view in views):
        protocol = replace(protocol, mask="ignored")
    background = torch.tensor(protocol.background_rgb)
    scores: list[ImageScore] = []
    ahead = Ahead(views, threads=1)
    for i, view in enumerate(views):
        ahead.want(range(i, min(i + 3, len(views))))
        render = method.render(view.camera, background, k).rgb.float().cpu()
        image, target, ignored = protocol.pair(render, view)
        distance = None
        if lpips is not None and protocol.lpips_net != "none":
            seen = target if ignored is None else torch.where(ignored[..., None], image, target)
            distance = lpips(image, seen, protocol.lpips_range)
        psnr = metrics.psnr(image, target, ignored)
        ssim = metrics.ssim(image, target, ignored, border=protocol.ssim_border)
        scores.append(ImageScore(view.name, psnr, ssim, distance))
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
    """Of what could be measured: views may be too small for SSIM or ignored as a whole."""
    measured = [value for value in values if not math.isnan(value)]
    return sum(measured) / len(measured) if measured else math.nan


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
