"""K-buffers: the data structure, the rasterisers behind one function, and compositing."""

from render.kbuffer.types import KBuffer, Unique

__all__ = ["KBuffer", "Unique"]
