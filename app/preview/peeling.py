"""K-buffers of point clouds by OpenGL depth peeling: every pass finds the next nearest point.

After C. Everitt, "Interactive order-independent transparency", 2001. A pass draws all points with
the ordinary depth test, but each pixel discards what is not behind the point it found in the pass
before. The order is (depth, index), so at equal depth the lower index comes first and no point is
lost: the same K-buffer as :func:`render.kbuffer.rasterize.rasterize` with ``mode="pixel"``.

Needs OpenGL 3.3 core. All functions belong to the thread in which the context is current.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from OpenGL import GL
from torch import Tensor

from render.camera import Camera
from render.kbuffer.types import KBuffer

_PEEL = """
uniform usampler2D before;
uniform bool first;
bool peeled(ivec2 at, uint id, uint depth) {
    if (first) return false;
    uvec2 last = texelFetch(before, at, 0).xy;
    return depth < last.y || (depth == last.y && id <= last.x);
}
"""
# Points are moved to the centre of their pixel (odd sizes) or to its corner (even sizes), since
# rasterisers round positions: llvmpipe to 1/256 pixel. Row 0 of the image is row 0 of the
# framebuffer, so nothing is ever flipped. A point of one pixel is tested here already: on llvmpipe
# a point that is drawn costs twenty times one that is not.
_VERTEX = f"""#version 330 core
{_PEEL}
layout(location = 0) in vec3 position;
uniform mat4 world_to_camera;
uniform mat3 intrinsics;
uniform vec2 size;
uniform float near;
uniform float pixels;
flat out float depth;
flat out uint id;
void main() {{
    id = uint(gl_VertexID) + 1u;
    vec3 camera = (world_to_camera * vec4(position, 1.0)).xyz;
    vec2 uv = (intrinsics * camera).xy / camera.z;
    uv = mod(pixels, 2.0) > 0.5 ? floor(uv) + 0.5 : floor(uv + 0.5);
    bool seen = camera.z >= near
        && all(greaterThanEqual(uv, vec2(0.0))) && all(lessThanEqual(uv, size));
    if (seen && pixels == 1.0) seen = !peeled(ivec2(uv), id, floatBitsToUint(camera.z));
    gl_Position = seen ? vec4(2.0 * uv / size - 1.0, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
    gl_PointSize = pixels;
    depth = camera.z;
}}
"""
# Depths are positive floats: their bits order as they do. The scale is a power of two, so no two
# different depths become equal.
_FRAGMENT = f"""#version 330 core
{_PEEL}
flat in float depth;
flat in uint id;
uniform float depth_scale;
layout(location = 0) out uvec2 found;
void main() {{
    uint bits = floatBitsToUint(depth);
    if (peeled(ivec2(gl_FragCoord.xy), id, bits)) discard;
    found = uvec2(id, bits);
    gl_FragDepth = depth * depth_scale;
}}
"""
_NOTHING = 0xFFFFFFFF  # behind everything: where a layer is empty, so are all deeper ones


class PointSet:
    """Points on the GPU.

    Args:
        xyz: [N, 3] float32, finite; the order of the points breaks ties of depth.
        ids: [N] int32 what the K-buffer shall call them.
    """

    def __init__(self, xyz: Tensor, ids: Tensor) -> None:
        empty = torch.full((1,), -1, dtype=torch.int32)
        self.ids = torch.cat([empty, ids.to(torch.int32)])  # [N + 1] by the number in the shader
        # Relative to their middle: clouds in map coordinates are far from the origin.
        middle = xyz.mean(0, dtype=torch.float64) if len(xyz) else torch.zeros(3)
        self.origin = middle.float().double()  # so that the difference is exact in float32
        local = xyz - middle.float()
        self.reach = float(local.norm(dim=1).max()) if len(xyz) else 0.0
        self.array = GL.glGenVertexArrays(1)
        self.buffer = GL.glGenBuffers(1)
        GL.glBindVertexArray(self.array)
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, self.buffer)
        GL.glBufferData(GL.GL_ARRAY_BUFFER, local.nbytes, local.numpy(), GL.GL_STATIC_DRAW)
        GL.glEnableVertexAttribArray(0)
        GL.glVertexAttribPointer(0, 3, GL.GL_FLOAT, False, 0, None)

    def __len__(self) -> int:
        return len(self.ids) - 1

    def delete(self) -> None:
        """Free the memory of the GPU."""
        GL.glDeleteVertexArrays(1, [self.array])
        GL.glDeleteBuffers(1, [self.buffer])


class Peeler:
    """Draws point sets into K-buffers; keeps its framebuffers from picture to picture.

    Args:
        batch: points that are drawn at once. OpenGL on the processor draws for one context after
            the other: the window would stand still until all points are drawn.
    """

    def __init__(self, batch: int = 100_000) -> None:
        self.batch = batch
        self._program = _program(_VERTEX, _FRAGMENT)
        names = ("world_to_camera", "intrinsics", "size", "near", "pixels", "before", "first",
                 "depth_scale")  # fmt: skip
        self._at = {name: GL.glGetUniformLocation(self._program, name) for name in names}
        self._size = (0, 0)
        self._targets: list[tuple[int, int]] = []  # framebuffer and its texture, two in turn
        self._textures: list[int] = []
        self.largest = int(GL.glGetIntegerv(GL.GL_MAX_TEXTURE_SIZE))

    def peel(
        self,
        points: PointSet,
        camera: Camera,
        k: int,
        *,
        pixels: float = 1.0,
        near: float = 0.01,
        stop: Callable[[], bool] = lambda: False,
    ) -> KBuffer | None:
        """The K nearest points of every pixel, on the CPU; None when told to ``stop`` halfway.

        A point is a square of ``pixels`` (rounded to whole ones) around its projection, for an odd
        number around the pixel that it falls in; with 1, it covers that pixel alone. Points nearer
        than ``near`` or outside of the image are left out. ``distance`` is 0 where filled.

        Raises:
            ValueError: the image is larger than this OpenGL allows.
        """
        height, width = camera.height, camera.width
        found = np.zeros((k, height, width, 2), np.uint32)
        if len(points):
            self._prepare(points, camera, max(1, round(pixels)), near)
            for layer in range(k):
                if not self._draw(layer, len(points), found[layer], stop):
                    return None
                if not found[layer, ..., 0].any():  # then all deeper ones are empty too
                    break
        return _kbuffer(found, points.ids)

    # ------------------------------------------------------------------ one picture
    def _prepare(self, points: PointSet, camera: Camera, pixels: int, near: float) -> None:
        self._allocate(camera.width, camera.height)
        transform = camera.world_to_camera.clone()
        transform[:3, 3] += transform[:3, :3] @ points.origin
        farthest = float(transform[:3, 3].norm()) + points.reach
        GL.glUseProgram(self._program)
        GL.glBindVertexArray(points.array)
        GL.glUniformMatrix4fv(self._at["world_to_camera"], 1, True, transform.float().numpy())
        GL.glUniformMatrix3fv(self._at["intrinsics"], 1, True, camera.K.float().numpy())
        GL.glUniform2f(self._at["size"], camera.width, camera.height)
        GL.glUniform1f(self._at["near"], max(near, 1e-30))
        GL.glUniform1f(self._at["pixels"], pixels)
        GL.glUniform1f(self._at["depth_scale"], 2.0 ** -(math.frexp(farthest)[1] + 1))
        GL.glUniform1i(self._at["before"], 0)
        GL.glViewport(0, 0, camera.width, camera.height)
        GL.glEnable(GL.GL_PROGRAM_POINT_SIZE)
        GL.glEnable(GL.GL_DEPTH_TEST)
        GL.glDepthFunc(GL.GL_LESS)
        GL.glDisable(GL.GL_BLEND)
        GL.glActiveTexture(GL.GL_TEXTURE0)

    def _draw(self, layer: int, count: int, out: np.ndarray, stop: Callable[[], bool]) -> bool:
        """Find layer ``layer`` and read it into ``out`` [H, W, 2] uint32: index + 1, depth."""
        framebuffer, _ = self._targets[layer % 2]
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, framebuffer)
        GL.glBindTexture(GL.GL_TEXTURE_2D, self._targets[(layer + 1) % 2][1])
        GL.glUniform1i(self._at["first"], layer == 0)
        GL.glClearBufferuiv(GL.GL_COLOR, 0, np.array([0, _NOTHING, 0, 0], np.uint32))
        GL.glClearBufferfv(GL.GL_DEPTH, 0, np.ones(1, np.float32))
        for first in range(0, count, self.batch):
            GL.glDrawArrays(GL.GL_POINTS, first, min(self.batch, count - first))
            if first + self.batch < count:
                GL.glFinish()
                if stop():
                    return False
        height, width = out.shape[:2]
        GL.glReadPixels(0, 0, width, height, GL.GL_RG_INTEGER, GL.GL_UNSIGNED_INT, out)
        return not stop()

    # ------------------------------------------------------------------ framebuffers
    def _allocate(self, width: int, height: int) -> None:
        if self._size == (width, height):
            return
        if max(width, height) > self.largest:
            raise ValueError(f"at most {self.largest} pixels wide or high, got {width}x{height}")
        self._free()
        depth = self._texture(
            GL.GL_DEPTH_COMPONENT32F, GL.GL_DEPTH_COMPONENT, GL.GL_FLOAT, width, height
        )
        for _ in range(2):
            found = self._texture(GL.GL_RG32UI, GL.GL_RG_INTEGER, GL.GL_UNSIGNED_INT, width, height)
            framebuffer = GL.glGenFramebuffers(1)
            GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, framebuffer)
            for attachment, texture in (
                (GL.GL_COLOR_ATTACHMENT0, found), (GL.GL_DEPTH_ATTACHMENT, depth),
            ):  # fmt: skip
                GL.glFramebufferTexture2D(
                    GL.GL_FRAMEBUFFER, attachment, GL.GL_TEXTURE_2D, texture, 0
                )
            status = GL.glCheckFramebufferStatus(GL.GL_FRAMEBUFFER)
            if status != GL.GL_FRAMEBUFFER_COMPLETE:
                raise RuntimeError(f"OpenGL refused a {width}x{height} framebuffer ({status})")
            self._targets.append((framebuffer, found))
        self._size = (width, height)

    def _texture(self, internal: Any, layout: Any, kind: Any, width: int, height: int) -> int:
        texture = GL.glGenTextures(1)
        self._textures.append(texture)
        GL.glBindTexture(GL.GL_TEXTURE_2D, texture)
        GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, internal, width, height, 0, layout, kind, None)
        for filtering in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, filtering, GL.GL_NEAREST)
        return texture

    def _free(self) -> None:
        for framebuffer, _ in self._targets:
            GL.glDeleteFramebuffers(1, [framebuffer])
        if self._textures:
            GL.glDeleteTextures(self._textures)
        self._targets, self._textures, self._size = [], [], (0, 0)


def _kbuffer(found: np.ndarray, ids: Tensor) -> KBuffer:
    """From [K, H, W, 2] uint32: row of ``ids`` (0 = empty) and the bits of the depth."""
    pairs = torch.from_numpy(found.view(np.int32)).permute(1, 2, 0, 3)  # [H, W, K, 2]
    row = pairs[..., 0].contiguous()
    depth = pairs[..., 1].contiguous().view(torch.float32)
    index = ids.index_select(0, row.flatten()).view(row.shape)
    valid = row > 0
    return KBuffer(index, torch.where(valid, depth, -1.0), valid.float() - 1.0)


def _program(*sources: str) -> int:
    """Compile and link a vertex and a fragment shader.

    Raises:
        RuntimeError: with the words of the driver.
    """
    program: Any = GL.glCreateProgram()
    kinds = (GL.GL_VERTEX_SHADER, GL.GL_FRAGMENT_SHADER)
    for kind, source in zip(kinds, sources, strict=True):
        shader = GL.glCreateShader(kind)
        GL.glShaderSource(shader, source)
        GL.glCompileShader(shader)
        if not GL.glGetShaderiv(shader, GL.GL_COMPILE_STATUS):
            raise RuntimeError(f"shader: {_text(GL.glGetShaderInfoLog(shader))}")
        GL.glAttachShader(program, shader)
        GL.glDeleteShader(shader)
    GL.glLinkProgram(program)
    if not GL.glGetProgramiv(program, GL.GL_LINK_STATUS):
        raise RuntimeError(f"shader program: {_text(GL.glGetProgramInfoLog(program))}")
    return program


def _text(message: Any) -> str:
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)
