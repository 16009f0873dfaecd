"""The OpenGL preview: answers view requests as the session does, from the bare points."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.preview.peeling import Peeler, PointSet
from app.snapshot import ViewRequest, ViewResult
from render.export.images import colorize
from render.kbuffer.types import KBuffer
from render.methods.base import Inspection, Render
from render.scenes.types import PointCloud

MOVING_POINTS = 50_000  # drawn while the camera moves, where OpenGL runs on the processor
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software", "gdi generic")
_UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class _Order:
    """A cloud to show."""

    cloud: PointCloud
    background: Tensor  # [3]
    up: Tensor  # [3]


class _Cloud:
    """A cloud on the GPU. Points that are not finite are left out; ids stay those of the cloud."""

    def __init__(self, order: _Order, software: bool) -> None:
        xyz = order.cloud.xyz.detach().to("cpu", torch.float32)
        finite = xyz.isfinite().all(1)
        ids = torch.arange(len(xyz), dtype=torch.int32)
        if not bool(finite.all()):
            xyz, ids = xyz[finite], ids[finite]
        self.background = order.background.detach().cpu().float()
        self.rgb = torch.zeros(len(order.cloud) + 1, 3)  # by index + 1
        self.rgb[1:] = _colors(order, xyz, ids)
        self.all = self.moving = PointSet(xyz, ids)
        if software and len(ids) > MOVING_POINTS:
            generator = torch.Generator().manual_seed(0)
            # In the order of the cloud, because that decides between points of equal depth.
            some = torch.randperm(len(ids), generator=generator)[:MOVING_POINTS].sort().values
            self.moving = PointSet(xyz[some], ids[some])
        self.near = min(0.01, 0.01 * self.all.reach)  # clouds may be smaller than any distance

    def delete(self) -> None:
        for points in {self.all, self.moving}:
            points.delete()


class Preview(threading.Thread):
    """Draws the newest request for the newest cloud; both may be given by any thread.

    After ``ready`` is set, ``info`` names the renderer. When OpenGL fails, ``error`` says so in a
    sentence and the thread ends; everything else may still be called and does nothing.

    Args:
        window: a GLFW window whose context this thread takes for the rest of its life; None (no
            OpenGL here) fails at once.
    """

    def __init__(self, window: Any) -> None:
        super().__init__(name="preview", daemon=True)
        self.ready = threading.Event()
        self.info = ""
        self.software = False  # OpenGL without a GPU
        self.error: str | None = None
        self.point_size = 1.0  # pixels
        self._window = window
        self._changed = threading.Condition()
        self._order: _Order | None = None
        self._new_order = False
        self._request: ViewRequest | None = None
        self._last: ViewRequest | None = None
        self._result: ViewResult | None = None
        self._closing = False

    # ------------------------------------------------------------------ any thread
    def set_cloud(
        self, cloud: PointCloud | None, background: Tensor, up: Tensor | None = None
    ) -> None:
        """Show another cloud (None: nothing), at once if a picture was ever asked for.

        Args:
            background: [3] behind the points, where the request does not name another.
            up: [3] the world's up axis: points without colours get one from their height.
        """
        order = None if cloud is None else _Order(cloud, background, _UP if up is None else up)
        with self._changed:
            self._order = order
            self._new_order = True
            self._result = None
            self._changed.notify_all()

    def request(self, request: ViewRequest) -> None:
        """Ask for a picture; it replaces one that was not yet begun."""
        with self._changed:
            self._request = request
            self._changed.notify_all()

    def take(self) -> ViewResult | None:
        """The newest picture, once."""
        with self._changed:
            result, self._result = self._result, None
            return result

    def close(self, seconds: float = 10.0) -> bool:
        """End the thread; the window's context is then current nowhere.

        Returns:
            False when it did not end within ``seconds``.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self.is_alive():
            self.join(seconds)
        return not self.is_alive()

    # ------------------------------------------------------------------ the thread
    def run(self) -> None:
        """Until :meth:`close`, or until OpenGL fails."""
        import glfw

        try:
            if self._window is None:
                raise RuntimeError("this display has no OpenGL 3.3.")
            glfw.make_context_current(self._window)
            self._work()
        except Exception as error:  # whatever it is: the window must live on without a preview
            text = " ".join(str(error).split())[:300] or type(error).__name__
            self.error = f"The OpenGL preview has stopped: {text}"
        finally:
            glfw.make_context_current(None)  # pyright: ignore[reportArgumentType] - null
            self.ready.set()

    def _work(self) -> None:
        from OpenGL import GL

        peeler = Peeler()
        self.info = (GL.glGetString(GL.GL_RENDERER) or b"unknown").decode(errors="replace")
        self.software = any(name in self.info.lower() for name in _SOFTWARE)
        self.ready.set()
        cloud: _Cloud | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._new_order or self._request)
                if self._closing:
                    return
                order, changed, self._new_order = self._order, self._new_order, False
                request, self._request = self._request or self._last, None
                self._last = request
            if changed and cloud is not None:
                cloud.delete()
                cloud = None
            if order is None or request is None:
                continue
            if cloud is None:  # not before somebody looks: large clouds take memory
                cloud = _Cloud(order, self.software)
            some_first = cloud.moving is not cloud.all and not request.moving
            for points in (cloud.moving, cloud.all) if some_first else (cloud.moving,):
                result = self._picture(peeler, cloud, points, request)
                with self._changed:
                    if not self._new_order:  # else it shows what nobody wants to see any more
                        self._result = result or self._result

    def _picture(
        self, peeler: Peeler, cloud: _Cloud, points: PointSet, request: ViewRequest
    ) -> ViewResult | None:
        """None when something else is wanted by now: millions of points take seconds a layer."""

        def stop() -> bool:
            newer = self._request is not None and not request.moving  # else nothing would be shown
            return self._closing or self._new_order or newer

        start = time.perf_counter()
        k = max((1, *request.inspect))  # points are opaque: the picture is the first layer
        kbuffer = peeler.peel(
            points, request.camera, k, pixels=self.point_size, near=cloud.near, stop=stop
        )
        if kbuffer is None:
            return None
        rows = (kbuffer.index + 1).flatten()  # a third of the time of KBuffer.gather
        color = cloud.rgb.index_select(0, rows).view(*kbuffer.index.shape, 3)  # [H, W, K, 3]
        policy = request.background
        background = cloud.background if policy is None else policy.color()
        picture = _first_layer(kbuffer, color, background)
        insides = {k: _inside(kbuffer, color, k) for k in request.inspect}
        seconds = time.perf_counter() - start
        renders = dict.fromkeys(request.ks, picture)
        return ViewResult(request, renders, insides, background, 0, seconds)


def _first_layer(kbuffer: KBuffer, color: Tensor, background: Tensor) -> Render:
    """The nearest points: opaque squares over ``background`` [3]."""
    filled = kbuffer.valid[..., 0]  # [H, W]
    rgb = torch.where(filled[..., None], color[..., 0, :], background)
    return Render(rgb, filled.float(), kbuffer.depth[..., 0].clamp(min=0))


def _inside(kbuffer: KBuffer, color: Tensor, k: int) -> Inspection:
    """The first ``k`` layers; opaque points leave nothing for the deeper ones."""
    layers = kbuffer.take(k)
    weight = torch.zeros(layers.index.shape)  # [H, W, K]
    weight[..., 0] = layers.valid[..., 0]
    return Inspection(layers, color[..., :k, :], weight)


def _colors(order: _Order, kept: Tensor, ids: Tensor) -> Tensor:
    """Colours [N, 3] of the whole cloud; by height along ``up`` where it has none."""
    if order.cloud.rgb is not None:
        return order.cloud.rgb.detach().cpu().float()
    rgb = torch.zeros(len(order.cloud), 3)
    if len(kept):
        height = kept @ order.up.float()
        low, high = height.min(), height.max()
        rgb[ids] = colorize((height - low) / (high - low).clamp(min=1e-12))
    return rgb
