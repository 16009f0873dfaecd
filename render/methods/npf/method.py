"""`bpcr` and `frepcr`: K-Buffers on neural point fields (arXiv 2505.19564); K = 1 is the host."""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from render.camera import Camera
from render.errors import UserError
from render.kbuffer.rasterize import rasterize
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection, Method, MethodOptions, Render, StepOutput
from render.methods.npf.crop import Crop, Region, draw_crop, points_box
from render.methods.npf.network import NpfNetwork, NpfOutput, Rays
from render.methods.npf.options import NpfOptions
from render.methods.npf.radius import covering_radius
from render.methods.saved import check_rows
from render.methods.targets import counted_mean, leave_out
from render.scenes.background import composite
from render.scenes.types import Scene, View
from render.training.losses import mse
from render.training.metrics import Lpips, load_lpips
from render.training.sampler import ViewSampler
from render.training.stages import stage

_LOG = logging.getLogger(__name__)
_MARGIN = 4  # pixels around the box of the visible points; also the jitter in training


class Bpcr(Method):
    """BPCR with K-Buffers: a fixed cloud, an MLP per visible point, KFN and a gated U-Net.

    Raises:
        UserError: for a scene without points or training views.
    """

    name: ClassVar[str] = "bpcr"
    Options: ClassVar[type[MethodOptions]] = NpfOptions
    frequency_modulated: ClassVar[bool] = False

    options: NpfOptions

    def __init__(
        self,
        options: MethodOptions,
        scene: Scene,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        assert isinstance(options, NpfOptions)
        cloud, views = scene.points, scene.split("train")
        if cloud is None or len(cloud) == 0:
            raise UserError(
                f"--method {self.name} on scene {scene.name}: it needs a point cloud, "
                "the scene has none; put a points.ply beside the photographs."
            )
        if not views:
            raise UserError(f"scene {scene.name}: expected training views, found none.")
        self.options, self.device = options, device
        self.views: list[View] = views
        self.xyz = cloud.xyz.float().contiguous()  # [N, 3], stays on the CPU for the rasteriser
        self.rgb = None if cloud.rgb is None else cloud.rgb.float().to(device)  # [N, 3]
        self.near = 0.01 * scene.bounds.radius
        self.background = scene.background.color()  # of training: a network cannot chase random
        has_alpha = all(view.has_alpha for view in views)
        self.pix_mask = has_alpha if options.pix_mask is None else options.pix_mask
        self.pad = options.pad if has_alpha else 0.0
        self.radius = options.radius or covering_radius(self.xyz, [v.camera for v in views])

        positions = torch.stack([view.camera.position for view in views])  # [V, 3]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.network = self._build_network(
                color_skip=options.color_skip and self.rgb is not None,
                center=scene.bounds.center if options.normalize else torch.zeros(3),
                radius=scene.bounds.radius if options.normalize else 1.0,
                lower=positions.amin(0),
                upper=positions.amax(0),
            )
        self._regions: dict[int, Region | None] = {}  # of the training views, on demand
        self.lpips, self.lpips_note = self._build_lpips()

    def _build_network(
        self, color_skip: bool, center: Tensor, radius: float, lower: Tensor, upper: Tensor
    ) -> NpfNetwork:
        return NpfNetwork(
            self.options,
            frequency_modulated=self.frequency_modulated,
            color_skip=color_skip,
            center=center,
            radius=radius,
            lower=lower,
            upper=upper,
        ).to(self.device)

    def _build_lpips(self) -> tuple[Lpips | None, str]:
        """LPIPS-VGG, frozen, where its weights are; otherwise none, and says so."""
        if self.options.lpips_weight <= 0:
            return None, "weight 0"
        lpips, note = load_lpips("vgg", self.device)
        if lpips is None:
            _LOG.warning("--method %s: %s", self.name, note)
        else:
            lpips.model.requires_grad_(False)
        return lpips, note

    # ------------------------------------------------------------------ training
    def parameter_groups(self) -> list[dict[str, Any]]:
        """F, T, fusion network and image network, as in the paper; Adam's own eps."""
        net, rates = self.network, self.learning_rates(0)
        modules = {"mlp": [net.mlp], "rect": [net.rect, net.grid], "kfn": [net.kfn]}
        modules["unet"] = [net.unet]
        groups = []
        for name, members in modules.items():
            params = [p for module in members if module is not None for p in module.parameters()]
            if params:
                groups.append({"name": name, "params": params, "lr": rates[name], "eps": 1e-8})
        return groups

    def learning_rates(self, step: int) -> dict[str, float]:
        """Constant within an epoch (as many steps as views), then times ``epoch_decay``."""
        o = self.options
        factor = o.epoch_decay ** (step // len(self.views))
        rates = {"mlp": o.mlp_lr, "rect": o.rect_lr, "kfn": o.kfn_lr, "unet": o.unet_lr}
        return {name: rate * factor for name, rate in rates.items()}

    def loss_weights(self, step: int) -> dict[str, float]:
        """LPIPS counts with its option's weight where it counts at all."""
        weights = {"mse": 1.0}
        return weights if self.lpips is None else weights | {"lpips": self.options.lpips_weight}

    def train_step(self, step: int, sampler: ViewSampler, generator: torch.Generator) -> StepOutput:
        """One random window of one photograph."""
        number = sampler.next()
        with stage("data"):
            batch = self._draw(number, generator)
        if isinstance(batch, str):
            return StepOutput({}, skipped=batch)
        kbuffer, rays, target = batch
        self.network.train()
        rgb = self._composite(self._forward(kbuffer, rays), kbuffer, self.background)
        with stage("loss"):
            rgb, target, share = leave_out(rgb, target)
            terms = {"mse": mse(rgb, target)}
            if self.lpips is not None:
                a, b = (image.movedim(-1, 0)[None] for image in (rgb, target))  # [1, 3, H, W]
                terms["lpips"] = self.lpips.model(a, b, normalize=True).mean()
            return StepOutput(terms, counted_mean(float(terms["mse"].detach()), share))

    def _draw(self, number: int, generator: torch.Generator) -> tuple[KBuffer, Rays, Tensor] | str:
        """A window of a training view, see :meth:`crop_batch`; or why there is none."""
        view, o = self.views[number], self.options
        side = o.crop or min(view.camera.width, view.camera.height)
        region, jitter = self._region(number)
        if region is None:
            return f"view {view.name} shows no point"
        for _ in range(o.crop_tries):
            crop = draw_crop(region, generator, side=side, area=o.crop_area, jitter=jitter)
            batch = self.crop_batch(view, crop)
            if batch is not None:
                return batch
        return f"{o.crop_tries} windows of {view.name} without a point"

    def _region(self, number: int) -> tuple[Region | None, int]:
        """What windows of a training view are cut from, and its jitter; None: no point in view."""
        camera = self.views[number].camera
        if not self._fits():
            return Region.padded(camera, self.pad), 0
        if number not in self._regions:
            uv, z = camera.project(self.xyz)
            radius_px = self._radius_px(camera)
            box = points_box(uv[z > self.near], radius_px, camera.width, camera.height)
            multiple = self.network.unet.multiple
            self._regions[number] = box and Region.around(box, _MARGIN, multiple)
        return self._regions[number], _MARGIN

    def crop_batch(self, view: View, crop: Crop) -> tuple[KBuffer, Rays, Tensor] | None:
        """K-buffer, rays and target [H, W, 3] of a window, all through its one integer map.

        Pixels that the view's mask leaves out have a NaN target, see ``targets.leave_out``.
        None when the window shows no point or nothing but background, so that the caller decides
        before any network runs.
        """
        camera = crop.camera(view.camera)
        inside = crop.inside(view.camera)  # [H, W]
        window = self._rasterize(camera, self.options.k, self._radius_px(view.camera))
        # Points beyond the photograph's border have no target.
        kbuffer = KBuffer(
            *(
                crop.pick(layers).masked_fill(~inside[..., None], -1)
                for layers in (window.index, window.depth, window.distance)
            )
        )
        pixels = crop.pick_photo(view.pixels()).float() / 255.0  # [H, W, 4]
        alpha = pixels[..., 3] * inside
        target = composite(pixels[..., :3], alpha, self.background)
        says_nothing = (target == self.background).all(-1)
        ignored = view.left_out()
        if ignored is not None:
            ignored = crop.pick_photo(ignored) & inside
            target = target.masked_fill(ignored[..., None], math.nan)
            says_nothing |= ignored
        if not bool(kbuffer.valid.any()) or bool(says_nothing.all()):
            return None
        origin, directions, cos = camera.rays()
        rays = Rays(origin, crop.pick(directions), crop.pick(cos))
        return self._to_device(kbuffer), self._rays_to_device(rays), target.to(self.device)

    # ------------------------------------------------------------------ pictures
    @torch.no_grad()
    def render(self, camera: Camera, background: Tensor, k: int | None = None) -> Render:
        """The picture; ``k`` beyond the trained K counts as K.

        The network learnt its correction over the training background. ``background`` shows
        through the points' own alpha (``color_skip``) and where no point is (``pix_mask``).
        The depth is that of the nearest layer.
        """
        return self._rendered(*self._fused(camera, k), background)

    def _rendered(self, kbuffer: KBuffer, out: NpfOutput | None, background: Tensor) -> Render:
        covered = kbuffer.valid[..., 0]  # [H, W]
        depth = kbuffer.depth[..., 0] * covered
        if out is None:
            rgb = background.to(depth).expand(*covered.shape, 3).clamp(0, 1)
            return Render(rgb.contiguous(), covered.float(), depth)
        rgb = self._composite(out, kbuffer, background).clamp(0, 1)
        return Render(rgb, out.alpha * covered, depth)

    @torch.no_grad()
    def inspect(self, camera: Camera, k: int | None = None) -> Inspection:
        """Layers with their points' colours (grey without), KFN mass and feature norms."""
        return self._inspected(*self._fused(camera, k))

    @torch.no_grad()
    def view(
        self, camera: Camera, background: Tensor, k: int | None = None
    ) -> tuple[Render, Inspection]:
        """Rasterises and runs the networks once."""
        fused = self._fused(camera, k)
        return self._rendered(*fused, background), self._inspected(*fused)

    def _inspected(self, kbuffer: KBuffer, out: NpfOutput | None) -> Inspection:
        colors = self.rgb if self.rgb is not None else torch.full((len(self.xyz), 3), 0.5)
        color = kbuffer.gather(colors.to(self.device))  # [H, W, k, 3]
        if out is None:
            zeros = torch.zeros_like(kbuffer.depth)
            features = zeros[..., None].expand(*zeros.shape, self.options.dim)
            extra = {"rectified_norm": zeros, "features": features}
            return Inspection(kbuffer, color, zeros, zeros, extra)
        layers = kbuffer.k
        rectified = out.rectified[..., :layers, :].float()
        return Inspection(
            kbuffer,
            color,
            out.weight[..., :layers],
            out.features[..., :layers, :].float().norm(dim=-1),
            {"rectified_norm": rectified.norm(dim=-1), "features": rectified},
        )

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        """Networks, cloud and the numbers that decide what the networks see."""
        return {
            "sizes": self._sizes(),
            "network": self.network.state_dict(),
            "xyz": self.xyz,
            "rgb": self.rgb,
            "radius": self.radius,
            "near": self.near,
            "pix_mask": self.pix_mask,
            "color_skip": self.network.color_skip,
            "background": self.background,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; the saved cloud replaces the scene's, whatever its size.

        Raises:
            UserError: when the checkpoint's networks have other sizes.
        """
        if state["sizes"] != self._sizes():
            raise UserError(
                f"checkpoint of --method {self.name}: expected {self._sizes()}, "
                f"found {state['sizes']}; use the options it was trained with."
            )
        color_skip = bool(state["color_skip"])
        if color_skip != self.network.color_skip:  # the saved cloud had colours and ours has not
            zeros = torch.zeros(3)
            self.network = self._build_network(color_skip, zeros, 1.0, zeros, zeros)
        self.network.load_state_dict(state["network"])
        rgb = {} if state["rgb"] is None else {"rgb": state["rgb"]}
        check_rows({"xyz": state["xyz"], **rgb}, {"xyz": self.xyz, **dict.fromkeys(rgb, self.xyz)})
        self.xyz = state["xyz"].float().cpu().contiguous()
        self.rgb = None if state["rgb"] is None else state["rgb"].float().to(self.device)
        self.radius, self.near = float(state["radius"]), float(state["near"])
        self.pix_mask = bool(state["pix_mask"])
        self.background = state["background"].cpu()
        self._regions.clear()

    def _sizes(self) -> dict[str, int | str]:
        o = self.options
        sizes = {"method": self.name, "k": o.k, "dim": o.dim, "version": o.version}
        widths = {"mlp_width": o.mlp_width, "kfn_width": o.kfn_width}
        return sizes | widths | {"unet": o.unet, "unet_levels": o.unet_levels}

    def describe(self) -> dict[str, int | float | str]:
        """Points, radius, parameters, precision and whether LPIPS counts."""
        return {
            "points": len(self.xyz),
            "radius (NDC)": round(self.radius, 5),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "precision": "bf16" if self._bf16() else "fp32",
            "LPIPS loss": self.lpips_note,
        }

    # ------------------------------------------------------------------ helpers
    def _radius_px(self, camera: Camera) -> float:
        return self.radius * min(camera.width, camera.height) / 2

    def _rasterize(self, camera: Camera, k: int, radius_px: float) -> KBuffer:
        with stage("rasterise"):
            kbuffer = rasterize(self.xyz, camera, k, radius=radius_px, mode="px", near=self.near)
        if int(kbuffer.index.max()) >= len(self.xyz):
            raise AssertionError("the rasteriser returned an id that no point has")
        return kbuffer

    def _fused(self, camera: Camera, k: int | None) -> tuple[KBuffer, NpfOutput | None]:
        """The layers of a camera and what the networks make of them; None: there is no point."""
        kbuffer, rays = self._view(camera, k)
        empty = not bool(kbuffer.valid.any())
        return kbuffer, None if empty else self._forward_view(kbuffer, rays)

    def _view(self, camera: Camera, k: int | None) -> tuple[KBuffer, Rays]:
        layers = self.options.k if k is None else min(k, self.options.k)
        if layers < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        kbuffer = self._rasterize(camera, layers, self._radius_px(camera))
        return self._to_device(kbuffer), self._rays_to_device(Rays(*camera.rays()))

    def _to_device(self, kbuffer: KBuffer) -> KBuffer:
        layers = (kbuffer.index, kbuffer.depth, kbuffer.distance)
        return KBuffer(*(layer.to(self.device) for layer in layers))

    def _rays_to_device(self, rays: Rays) -> Rays:
        parts = (rays.origin, rays.directions, rays.cos)
        return Rays(*(part.to(self.device) for part in parts))

    def _bf16(self) -> bool:
        if self.options.precision != "auto":
            return self.options.precision == "bf16"
        if self.device.type == "cuda":
            return torch.cuda.is_bf16_supported()
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return self.device.type == "cpu" and supported is not None and bool(supported())

    def _forward(self, kbuffer: KBuffer, rays: Rays) -> NpfOutput:
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16())
        with stage("network"), autocast:
            return self.network(kbuffer, rays, self.rgb)

    def _forward_view(self, kbuffer: KBuffer, rays: Rays) -> NpfOutput:
        """The whole picture, the networks on the box of its points where training did so too."""
        self.network.eval()
        if not self._fits():
            return self._forward(kbuffer, rays)
        covered = kbuffer.valid[..., 0]
        rows, cols = (covered.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        box = (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1)
        region = Region.around(box, _MARGIN, self.network.unet.multiple)
        window = (
            slice(max(region.y, 0), region.y + region.height),
            slice(max(region.x, 0), region.x + region.width),
        )
        cut = KBuffer(kbuffer.index[window], kbuffer.depth[window], kbuffer.distance[window])
        part = self._forward(cut, Rays(rays.origin, rays.directions[window], rays.cos[window]))

        def paste(value: Tensor) -> Tensor:
            picture = value.new_zeros(*covered.shape, *value.shape[2:])
            picture[window] = value
            return picture

        parts = (part.rgb, part.alpha, part.weight, part.features, part.rectified)
        return NpfOutput(*(paste(value) for value in parts))

    def _fits(self) -> bool:
        return self.options.fit and self.pix_mask

    def _composite(self, out: NpfOutput, kbuffer: KBuffer, background: Tensor) -> Tensor:
        """[H, W, 3]: with ``pix_mask``, pixels without a point show the background."""
        background = background.to(out.rgb)
        rgb = out.rgb + (1 - out.alpha[..., None]) * background
        return torch.where(kbuffer.valid[..., :1], rgb, background) if self.pix_mask else rgb


class Frepcr(Bpcr):
    """FrePCR with K-Buffers: as :class:`Bpcr`, with the frequency-modulated per-point network."""

    name: ClassVar[str] = "frepcr"
    frequency_modulated: ClassVar[bool] = True
