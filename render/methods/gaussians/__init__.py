"""3D Gaussian splatting, plain and with the K-Buffers network."""

from render.methods.gaussians.method import GaussiansMethod
from render.methods.gaussians.method_k import GaussiansKMethod
from render.methods.gaussians.options import GaussiansKOptions, GaussiansOptions

__all__ = ["GaussiansKMethod", "GaussiansKOptions", "GaussiansMethod", "GaussiansOptions"]
