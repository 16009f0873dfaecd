"""Pictures that the window asked for: rendering a request, and its PSNR at every K.

Runs on the worker, which alone may touch the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from app.snapshot import Sweep, ViewRequest, ViewResult, to_cpu
from app.workbench import Renderer, Workbench
from render.camera import Camera
from render.export.cloud import CloudRenderer
from render.export.splats import SplatRenderer
from render.export.styles import SolidRenderer, Style, cloud_of, styled, with_values
from render.memory import fits, is_shortage, picture_bytes
from render.methods.base import Inspection, Render
from render.methods.splatting import SplattingMethod
from render.training.metrics import psnr

SMALLEST_PIXELS = 64 * 64  # a picture that does not fit even so is an error


def picture(bench: Workbench, request: ViewRequest) -> ViewResult:
    """Everything that ``request`` wants but the sweep."""
    start = time.perf_counter()
    background = background_of(bench, request)
    camera, renderer = request.camera, _drawn(bench.renderer, request.style)
    if request.moving and isinstance(renderer, CloudRenderer):
        renderer = renderer.draft()
    used = {k: max(1, min(k, bench.layers)) for k in (*request.ks, *request.inspect)}
    rendered = {used[k] for k in request.ks}
    inspected = {used[k] for k in request.inspect}
    pictures: dict[int, Render] = {}  # by the layers really used
    buffers: dict[int, Inspection] = {}
    cloud = cloud_of(renderer)
    with cloud.sampled_once() if cloud is not None and request.moving else nullcontext():
        for k in sorted(rendered & inspected):
            pictures[k], buffers[k] = to_cpu(renderer.view(camera, background, k))
        for k in sorted(rendered - inspected):
            pictures[k] = to_cpu(renderer.render(camera, background, k))
        for k in sorted(inspected - rendered):
            buffers[k] = to_cpu(renderer.inspect(camera, k))
    cloud = cloud_of(bench.renderer)
    if cloud is not None and request.values:
        for k, buffer in buffers.items():
            buffers[k] = to_cpu(with_values(buffer, cloud, camera, request.values))
    renders = {k: pictures[used[k]] for k in request.ks}
    insides = {k: buffers[used[k]] for k in request.inspect}
    step = bench.trainer.step_count if bench.trainer else 0
    mask = _mask(bench, request) if request.mask else None
    seconds = time.perf_counter() - start
    return ViewResult(request, renders, insides, background, step, seconds, mask=mask)


def sweep(bench: Workbench, result: ViewResult) -> Iterator[Sweep | None]:
    """The PSNR of the picture with 1, 2, ... K layers.

    Yields None after every picture, so that the caller can do something else or drop it, and the
    sweep at last. The model must not change in between.
    """
    camera, background = result.request.camera, result.background
    renderer = _drawn(bench.renderer, result.request.style)
    images = {k: image.rgb for k, image in result.renders.items() if 1 <= k <= bench.layers}

    def image(k: int) -> Tensor:
        if k not in images:
            images[k] = renderer.render(camera, background, k).rgb.cpu()
        return images[k]

    target = _photo(bench, result.request, background)
    photo = target is not None
    ignored = bench.scene.views[result.request.view or 0].left_out() if photo else None
    if target is None:
        target = image(bench.layers)
        yield None
    values = []
    for k in range(1, bench.layers + 1):
        values.append(psnr(image(k), target, ignored))
        yield None
    yield Sweep(tuple(values), photo)


class LargestPicture:
    """How large a picture may be for the memory there is; only ever becomes smaller."""

    def __init__(self) -> None:
        self._pixels = math.inf

    def fitted(self, bench: Workbench, request: ViewRequest) -> ViewRequest:
        """``request``, with half the width and height as often as the memory demands it."""
        while True:
            request = self._clipped(request)
            camera = request.camera
            ks = {max(1, min(k, bench.layers)) for k in (*request.ks, *request.inspect)}
            cloud = cloud_of(bench.renderer)
            finer = camera if cloud is None else cloud.sampling.finer(camera)
            size = (finer.width, finer.height)
            needed = sum(picture_bytes(*size, k) for k in ks)
            if fits(needed, bench.device) or not self._halve(camera):
                return request

    def lower(self, request: ViewRequest, error: Exception) -> bool:
        """``request`` has failed: false if that was not for its size."""
        return is_shortage(error) and self._halve(request.camera)

    def _clipped(self, request: ViewRequest) -> ViewRequest:
        camera = request.camera
        pixels = camera.width * camera.height
        if pixels <= self._pixels:
            return request
        scale = math.sqrt(self._pixels / pixels)
        width, height = max(4, int(scale * camera.width)), max(4, int(scale * camera.height))
        return replace(request, camera=camera.resize(width, height))

    def _halve(self, camera: Camera) -> bool:
        if camera.width * camera.height <= SMALLEST_PIXELS:
            return False
        self._pixels = (camera.width // 2) * (camera.height // 2)
        return True


def same_picture(a: ViewRequest, b: ViewRequest) -> bool:
    """Whether two requests show the same, whatever they want to know about it."""
    same = (a.background, a.view, a.style) == (b.background, b.view, b.style)
    return same and _same_camera(a.camera, b.camera)


def same_wish(a: ViewRequest, b: ViewRequest) -> bool:
    """Whether two requests differ at most in the step of the model that they are to show."""
    wishes = _wishes(a), _wishes(b)
    return wishes[0] == wishes[1] and same_picture(a, b)


def _wishes(request: ViewRequest) -> tuple:
    return request.ks, request.inspect, request.values, request.moving, request.mask


def _drawn(renderer: Renderer, style: Style) -> Renderer | SolidRenderer:
    """``renderer`` in this style, if it draws Gaussians."""
    gaussians = isinstance(renderer, (SplattingMethod, SplatRenderer))
    return styled(renderer, style) if gaussians else renderer


def background_of(bench: Workbench, request: ViewRequest) -> Tensor:
    """The colour [3] behind the picture."""
    policy = bench.scene.background if request.background is None else request.background
    return policy.color()


def _photo(bench: Workbench, request: ViewRequest, background: Tensor) -> Tensor | None:
    """The photograph [H, W, 3] to compare with, if the request names one of its own size."""
    if request.view is None or not 0 <= request.view < len(bench.scene.views):
        return None
    view = bench.scene.views[request.view]
    size = (request.camera.width, request.camera.height)
    return view.target(background) if size == (view.camera.width, view.camera.height) else None


def _mask(bench: Workbench, request: ViewRequest) -> Tensor | None:
    """The mask [H, W] uint8 of the photograph as the model was made from it, if it was."""
    if request.view is None or bench.method is None:
        return None
    return bench.method.hull_mask(bench.scene.views[request.view])


def _same_camera(a: Camera, b: Camera) -> bool:
    return (
        (a.width, a.height) == (b.width, b.height)
        and torch.equal(a.world_to_camera, b.world_to_camera)
        and torch.equal(a.K, b.K)
    )
