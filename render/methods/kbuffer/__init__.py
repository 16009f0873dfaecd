"""The default method: K layers of Gaussian footprints fused by the K-Buffers network."""

from render.methods.kbuffer.method import KBufferMethod
from render.methods.kbuffer.options import KBufferOptions

__all__ = ["KBufferMethod", "KBufferOptions"]
