"""What the picture shows: a mode, a layer, one or two sides. Plain immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from render.export.layers import LayerMode
from render.export.styles import LayerValue, Style

Mode = Literal["picture", LayerMode]
Source = Literal["model", "photo", "difference", "mask"]


@dataclass(frozen=True)
class ModeInfo:
    """A row of the mode table: the words for it, and whether it shows one layer at a time.

    ``value`` is what the renderer has to add to the layers; only Gaussians or soft discs have it.
    """

    mode: Mode
    label: str
    hint: str
    layered: bool
    value: LayerValue | None = None


MODES: tuple[ModeInfo, ...] = (
    ModeInfo("picture", "Picture", "The finished picture, all K layers fused.", False),
    ModeInfo("depth", "Depth", "How far away the layer is; bright is near.", True),
    ModeInfo("color", "Colour", "The colour of what lies in the layer, alone.", True),
    ModeInfo("contribution", "Share", "How much the layer adds to the final pixel.", True),
    ModeInfo("cumulative", "1 to k", "The picture made of layers 1 to k only.", True),
    ModeInfo("id", "Point id", "Which point or Gaussian it is: one random colour for each.", True),
    ModeInfo("count", "Count", "How many of the K layers are filled at each pixel.", False),
    ModeInfo("features", "Features", "The learned features, their main axes as colours.", True),
    ModeInfo("normal", "Normal", "Shortest axis of the layer's Gaussian.", True, "normal"),
    ModeInfo("opacity", "Opacity", "Opacity of the layer's Gaussian or disc.", True, "opacity"),
    ModeInfo("light", "Light", "How much light reaches the layer.", True, "transmittance"),
)
MODE_INFO: dict[Mode, ModeInfo] = {info.mode: info for info in MODES}


@dataclass(frozen=True)
class Side:
    """One side of the picture.

    Args:
        source: the model's picture or layers, the photograph, their difference as a heat map, or
            the photograph under its mask.
        mode: what of the model; the difference always takes its finished picture.
        k: number of layers.
        layer: 1 = nearest; ignored by modes that show all layers.
    """

    source: Source = "model"
    mode: Mode = "picture"
    k: int = 8
    layer: int = 1

    @property
    def needs_render(self) -> bool:
        """Whether the finished picture with ``k`` layers is needed."""
        return self.source == "difference" or (self.source == "model" and self.mode == "picture")

    @property
    def needs_inside(self) -> bool:
        """Whether the K layers are needed."""
        return self.source == "model" and self.mode != "picture"

    def describe(self) -> str:
        """A few words, for the label on the picture."""
        if self.source == "photo":
            return "Photo"
        if self.source == "difference":
            return f"Difference to the photo, K {self.k}"
        if self.source == "mask":
            return "Mask"
        info = MODE_INFO[self.mode]
        layer = f", layer {self.layer}" if info.layered else ""
        return f"{info.label}, K {self.k}{layer}"


@dataclass(frozen=True)
class Look:
    """The whole picture: ``main``, and right of the wipe line ``other``.

    Args:
        main: the picture, or its left side.
        other: the right side, or None without a wipe.
        wipe: where the line stands, 0 = left edge, 1 = right edge.
        percentiles: of the filled depths, what the colours span when ``depth_range`` is None.
        depth_range: near and far in scene units.
        atlas: whether thumbnails of all layers are wanted.
        style: how Gaussians are drawn; others ignore it.
    """

    main: Side = field(default_factory=Side)
    other: Side | None = None
    wipe: float = 0.5
    percentiles: tuple[float, float] = (1.0, 99.0)
    depth_range: tuple[float, float] | None = None
    atlas: bool = True
    style: Style = field(default_factory=Style)

    @property
    def sides(self) -> tuple[Side, ...]:
        """One or two."""
        return (self.main,) if self.other is None else (self.main, self.other)

    @property
    def atlas_mode(self) -> Mode:
        """What the thumbnails show: the mode of the picture where it has layers, else colours."""
        mode = self.main.mode
        return mode if self.main.source == "model" and MODE_INFO[mode].layered else "color"

    def needs(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers of layers to render pictures with, and to inspect."""
        ks = {side.k for side in self.sides if side.needs_render}
        inspect = {side.k for side in self.sides if side.needs_inside}
        if self.atlas:
            inspect.add(self.main.k)
        return tuple(sorted(ks)), tuple(sorted(inspect))

    @property
    def values(self) -> tuple[LayerValue, ...]:
        """What the renderer has to add to the layers that are inspected."""
        shown = {side.mode for side in self.sides if side.needs_inside}
        return tuple(info.value for info in MODES if info.value and info.mode in shown)

    @property
    def needs_mask(self) -> bool:
        """Whether the mask that the model was made from is wanted."""
        return any(side.source == "mask" for side in self.sides)

    def without_gaussians(self, values: tuple[str, ...] = ()) -> Look:
        """The same for what has none: their modes become the nearest that it has, unless its
        layers have those ``values`` too."""

        def plain(side: Side) -> Side:
            value = MODE_INFO[side.mode].value
            return side if value is None or value in values else replace(side, mode="color")

        other = self.other and plain(self.other)
        return replace(self, main=plain(self.main), other=other, style=Style())

    def clipped(self, k: int) -> Look:
        """The same for a model of ``k`` layers."""

        def clip(side: Side) -> Side:
            layers = max(1, min(side.k, k))
            return replace(side, k=layers, layer=max(1, min(side.layer, layers)))

        return replace(self, main=clip(self.main), other=self.other and clip(self.other))
