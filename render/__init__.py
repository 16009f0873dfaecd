"""The library: cameras, scenes, K-buffers, networks, methods, training and export.

Never imports ``app``. Imports without a display, CUDA, gsplat or a compiler.
"""

__version__ = "0.1.0"
