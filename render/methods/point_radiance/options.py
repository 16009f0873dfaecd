"""Options of `point-radiance`: the defaults, the authors' recipe, and their settings per scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from render.errors import UserError
from render.methods.base import MethodOptions

MOST_LAYERS = 64

# Share of the hull's voxels that become points, and radius of a disc in NDC, by scene.
PER_SCENE: dict[str, tuple[float, float]] = {
    "hotdog": (0.012, 0.015),
    "lego": (0.08, 0.010),
    "materials": (0.03, 0.010),
    "mic": (0.15, 0.008),
    "ficus": (0.15, 0.008),
    "drums": (0.25, 0.008),
    "chair": (0.06, 0.010),
    "ship": (0.03, 0.010),
}
ANY_SCENE = (0.06, 0.010)  # for scenes that the authors did not have


@dataclass(frozen=True)
class PointRadianceOptions(MethodOptions):
    """Defaults: correct and tuned for two cores. :class:`FaithfulOptions` is the paper's program.

    Lengths are in units of the scene's radius unless said otherwise; an epoch is ``epoch`` steps.
    """

    k: int = 15  # discs that make up a pixel

    # where the points come from
    start: Literal["auto", "points", "hull"] = "auto"  # auto: a given cloud, else the hull
    points: int = 0  # points to start with; 0: chosen from the image size
    data_r: float = 0.0  # instead: share of the hull's voxels that become points; -1: by scene
    mask_threshold: float = 0.25  # alpha from which a pixel belongs to the object
    hull_from: Literal["alpha", "red"] = "alpha"  # red: any red at all counts as object
    filter_consistency_ratio: float = 0.98  # share of the views that must agree on a point
    color_tolerance: float = 0.15  # without masks: colours so near to each other agree
    pc_jitter_amount: float = 0.0  # how wrong the masks of the hull are made, 0 to 0.5
    pc_jitter_seed: int = 42  # of that

    # discs
    radius: float = 0.0  # of all discs at the start; 0: from the density of the points
    splatting_r: float = 0.0  # instead: radius in NDC, the same at any depth; -1: by scene
    smallest_px: float = 0.7  # radius on the screen below which discs fade instead of shrinking
    sh_constant: bool = False  # a constant harmonic beside the base colour
    sh_uniform: bool = False  # harmonics start between 0 and 1 instead of at 0
    ray_corners: bool = False  # harmonics look along the pixel's corner, not its centre

    # stages, in epochs
    epoch: int = 100  # steps; 0: as many as there are training views
    pos_first: bool = False  # before all others: positions from silhouettes
    pos_epochs: int = 7
    ridge_position: float = 0.0  # weight of the mean squared position in that stage
    sh_alone: bool = False  # then: colours with positions held
    sh_alone_epochs: int = 10
    base_epochs: int = 2
    sh_epochs: int = 2
    refine_n: int = 14  # times that points go and others are doubled
    refine_epochs: int = 4
    last_epochs: int = 0  # more of them in the last stage

    # refinements: who goes, who gets a twin
    voxel: float = 0.0  # one point a voxel of this size; 0: half the distance of neighbours
    outliers: bool = False  # whether they are removed, after pos_first and in refinements
    outlier_neighbours: int = 20
    outlier_deviations: float = 2.0  # farther from its neighbours than the mean plus so many: gone
    refine_restart: bool = False  # whether refinements begin with fresh moments and full rates
    refine_share: float = 0.0  # of the points added at each, beside a new one for each that goes
    remove_unseen: float = 0.3  # largest share of a pixel in any view below which a point goes
    most_points: int = 0  # after doubling; 0: three times the start
    double_jitter: float = 0.25  # of a copy, in radii
    double_shrink: float = 0.8  # on the radii of both

    # learning
    lr_xyz: float = 6e-4
    lr_xyz_first: float = 3e-3  # in the stage pos_first
    lr_radius: float = 3e-2  # of log radius; 0: discs keep their size
    lr_base: float = 1e-2
    lr_sh: float = 2e-3
    lr_base_only: float = 1e-2  # in the first stage of the base colour
    sh_alone_rate: float = 15 / 22  # of lr_base and lr_sh, in the stage sh_alone
    decay: float = 0.95  # of all rates, each epoch; every stage begins anew
    lowest: float = 0.05  # share of a rate that stays at least
    gradient: float = 0.03  # weight of the gradient loss (the authors' lr_s)
    clamp_loss: bool = False  # the loss sees the clamped picture: saturated pixels do not learn
    windows: bool = True  # most steps learn the box that the mask fills
    max_pixels: int = 262144  # larger pictures are learnt in random windows of this size

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "k": (1, MOST_LAYERS),
            "pc_jitter_amount": (0, 0.5),
            "filter_consistency_ratio": (0, 1),
            "mask_threshold": (0, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low:g} to {high:g}")

    def scene_value(self, name: Literal["data_r", "splatting_r"], scene: str) -> float:
        """The option, or the authors' setting for this scene where it is -1; 0: not used."""
        value = float(getattr(self, name))
        if value >= 0:
            return value
        if value != -1:
            raise UserError(f"--set {name}={value:g}: expected a number above 0, 0 or -1.")
        by_scene = PER_SCENE.get(scene.lower(), ANY_SCENE)
        return by_scene[("data_r", "splatting_r").index(name)]


@dataclass(frozen=True)
class FaithfulOptions(PointRadianceOptions):
    """The authors' settings for NeRF-Synthetic, half-pixel slip, clamp and constants included.

    Their pictures are 400x400 on black: ``--downscale 2 --background black``.
    """

    start: Literal["auto", "points", "hull"] = "hull"
    data_r: float = -1.0
    mask_threshold: float = 0.0
    hull_from: Literal["alpha", "red"] = "red"
    filter_consistency_ratio: float = 1.0
    splatting_r: float = -1.0
    smallest_px: float = 0.0
    sh_constant: bool = True
    sh_uniform: bool = True
    ray_corners: bool = True
    epoch: int = 0
    base_epochs: int = 20
    sh_epochs: int = 30
    refine_n: int = 2
    refine_epochs: int = 30
    outliers: bool = True
    refine_restart: bool = True
    refine_share: float = 1.0
    voxel: float = 0.01 / 1.366  # 0.01 in the units of these scenes
    remove_unseen: float = 0.0
    most_points: int = 10_000_000
    double_jitter: float = 0.0
    double_shrink: float = 1.0
    lr_xyz: float = 8e-4 / 1.366
    lr_xyz_first: float = 4e-3 / 1.366
    lr_radius: float = 0.0
    lr_base: float = 22e-3
    lr_sh: float = 22e-3
    lr_base_only: float = 3e-3
    decay: float = 0.93
    lowest: float = 0.0
    clamp_loss: bool = True
    windows: bool = False
    max_pixels: int = 1 << 30
