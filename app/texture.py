"""Textures of Dear PyGui that pictures of any size are shown in.

Dear PyGui uploads every texture in every frame and loses a buffer whenever one is deleted:
textures only ever grow. It uploads through a buffer, so that what is set in one frame is in the
texture in the next, and in a new texture one frame later still. The image may take another size or
texture only then: else one frame shows the wrong part, as a flash.
"""

# Dear PyGui declares its context managers as int.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import dearpygui.dearpygui as dpg
import numpy as np

GROW = 128  # px: textures grow in steps


class _Due(NamedTuple):
    """What is in a texture from a frame on."""

    frame: int
    tag: str | int
    size: tuple[int, int]  # of the texture
    shown: tuple[int, int]  # of the picture in its corner


class Texture:
    """A raw texture of which a corner is drawn.

    The one way of setting it: shape and type are checked, because Dear PyGui reads whatever
    memory it is given.

    Attributes:
        tag: of the texture to draw now.
        shown: width and height of the picture in it.
    """

    def __init__(self) -> None:
        self.tag: str | int = 0
        self.shown = (1, 1)
        self._drawn = self._size = (GROW, GROW)  # of the texture drawn, and of the newest
        self._frame = 0
        self._due: deque[_Due] = deque()
        self._pixels: dict[str | int, np.ndarray] = {}  # Dear PyGui reads them in every frame
        self._newest = self.tag = self._make()

    def set(self, picture: np.ndarray) -> None:
        """Show ``picture`` [H, W, 4] float32 as soon as it is in the texture; once a frame."""
        if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.float32:
            raise ValueError(f"expected float32 [H, W, 4], got {picture.dtype} {picture.shape}")
        height, width = picture.shape[:2]
        ready = self._frame + 1
        if width + 2 > self._size[0] or height + 2 > self._size[1]:
            self._size = (_steps(width + 2, self._size[0]), _steps(height + 2, self._size[1]))
            self._newest = self._make()
            ready += 1
        pixels = np.zeros((self._size[1], self._size[0], 4), np.float32)
        pixels[:height, :width] = picture
        pixels[height, :width] = picture[-1]  # the filter reads one pixel beyond the edge
        pixels[: height + 1, width] = pixels[: height + 1, width - 1]
        pixels[-1], pixels[:, -1] = pixels[0], pixels[:, 0]  # and textures repeat: before the first
        dpg.set_value(self._newest, pixels)
        self._pixels[self._newest] = pixels
        if self._due:
            ready = max(ready, self._due[-1].frame)
        self._due.append(_Due(ready, self._newest, self._size, (width, height)))

    def advance(self) -> bool:
        """Once a frame, before :meth:`set`; true when ``tag`` or ``shown`` is another one."""
        self._frame += 1
        before = (self.tag, self.shown)
        while self._due and self._due[0].frame <= self._frame:
            due = self._due.popleft()
            if due.tag != self.tag:
                dpg.delete_item(self.tag)
                del self._pixels[self.tag]
            self.tag, self._drawn, self.shown = due.tag, due.size, due.shown
        return (self.tag, self.shown) != before

    @property
    def uv(self) -> tuple[float, float]:
        """Lower right corner of what is drawn, in texture coordinates."""
        return self.shown[0] / self._drawn[0], self.shown[1] / self._drawn[1]

    def _make(self) -> str | int:
        pixels = np.zeros((self._size[1], self._size[0], 4), np.float32)
        with dpg.texture_registry():
            tag = dpg.add_raw_texture(
                *self._size,
                pixels,  # pyright: ignore[reportArgumentType] - any buffer will do
                format=dpg.mvFormat_Float_rgba,
            )
        self._pixels[tag] = pixels
        return tag


def _steps(least: int, present: int) -> int:
    return max(-(-least // GROW) * GROW, present)
