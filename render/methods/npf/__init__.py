"""K-Buffers on neural point fields: the paper's methods BPCR + K and FrePCR + K."""

from render.methods.npf.method import Bpcr, Frepcr
from render.methods.npf.options import NpfOptions

__all__ = ["Bpcr", "Frepcr", "NpfOptions"]
