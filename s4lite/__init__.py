"""s4lite: S4 sequence layers, as derived line by line in the book that comes with them."""

from s4lite.init.hippo import hippo
from s4lite.init.nplr import nplr
from s4lite.nn.attention_place import AsAttention
from s4lite.nn.groups import param_groups
from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.nn.published import from_state_spaces
from s4lite.ops.conv import causal_conv
from s4lite.ops.dplr import dplr_kernel
from s4lite.ops.vandermonde import diag_kernel

__version__ = "0.1.0"

__all__ = [
    "S4",
    "S4D",
    "AsAttention",
    "S4Block",
    "SequenceModel",
    "Stack",
    "causal_conv",
    "diag_kernel",
    "dplr_kernel",
    "from_state_spaces",
    "hippo",
    "nplr",
    "param_groups",
]
