"""s4lite: S4 sequence layers, as derived line by line in the book that comes with them."""

from s4lite.nn.layer import S4D
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.ops.conv import causal_conv
from s4lite.ops.vandermonde import diag_kernel

__version__ = "0.1.0"

__all__ = ["S4D", "S4Block", "SequenceModel", "Stack", "causal_conv", "diag_kernel"]
