"""3D Gaussian splatting, plain and with the K-Buffers network."""

from render.methods.gaussians.method import GaussiansMethod
from render.methods.gaussians.options import GaussiansOptions

__all__ = ["GaussiansMethod", "GaussiansOptions"]
