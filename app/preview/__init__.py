"""Pictures of a point cloud at once, without training: OpenGL in a thread of its own.

Importing this loads PyOpenGL: :func:`app.native.bind` must have been called before.
"""

from app.preview.thread import Preview

__all__ = ["Preview"]
