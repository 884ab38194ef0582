"""The systems that are timed, and the naive twins of kernels and layers."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import HERE as _HERE  # noqa: F401  puts this tree's package on the path
from torch import Tensor, nn
from truth import gradients, in_double

from s4lite.init.diagonal import s4d_lin
from s4lite.init.nplr import nplr
from s4lite.nn.dplr import DPLRKernel
from s4lite.ops.conv import causal_conv
from s4lite.ops.dplr import dplr_kernel
from s4lite.ops.materialised import diag_kernel_table, dplr_kernel_table
from s4lite.ops.vandermonde import diag_kernel

Kernel = Callable[..., Tensor]  # called as kernel(*leaves, L)
KERNELS: dict[str, tuple[Kernel, Kernel]] = {
    "S4D": (diag_kernel, diag_kernel_table),
    "S4": (dplr_kernel, dplr_kernel_table),
}


def system(kind: str, H: int, N: int) -> list[Tensor]:
    """Lambda, (P,) B, one for all as in a layer, then C and dt of H channels; float32 leaves."""
    g, start = torch.Generator().manual_seed(0), nplr("legs", N)
    C = torch.randn(H, N // 2, dtype=torch.complex64, generator=g)
    dt = torch.empty(H).uniform_(-6.9, -2.3, generator=g).exp()  # from 0.001 to 0.1
    Lambda = s4d_lin(N)
    shared = {"S4D": (Lambda, torch.ones_like(Lambda)), "S4": (start.Lambda, start.P, start.B)}
    leaves = [x.to(torch.complex64).contiguous() for x in shared[kind]]
    return [x.requires_grad_() for x in (*leaves, C, dt)]


def work(kernel: Kernel, leaves: Sequence[Tensor], L: int) -> list[Tensor]:
    """Kernel and gradients of half its squared norm."""
    return gradients(kernel(*leaves, L), leaves)


def truth(kind: str, leaves: Sequence[Tensor], L: int, block: int = 8) -> list[Tensor]:
    """The same by the naive twin in float64, a few channels at a time: its tables are large."""
    *shared, C, dt = in_double(leaves)
    parts = []
    for h in range(0, len(dt), block):
        own = [x.detach()[h : h + block].requires_grad_() for x in (C, dt)]
        parts.append(work(KERNELS[kind][1], [*shared, *own], L))
    K, *by_shared, by_C, by_dt = zip(*parts, strict=True)
    return [torch.cat(K), *map(sum, by_shared), torch.cat(by_C), torch.cat(by_dt)]


class Naive(nn.Module):
    """A layer of ours with its kernel written down as a table, and nothing else changed.

    It shares the parameters of the layer that it is given.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, u: Tensor, state: None = None, **options: Any) -> Tensor:
        """u (batch, L, d_model) to the same."""
        kernel = self.layer.kernel
        *shared, C = (x.to(kernel.state_dtype) for x in kernel.modes())
        table = dplr_kernel_table if isinstance(kernel, DPLRKernel) else diag_kernel_table
        dt = kernel.steps().to(kernel.real_dtype)
        v = u.mT
        y = causal_conv(v, table(*shared, C[0], dt, u.shape[1])) + self.layer.D[:, None] * v
        return self.layer.head(y.mT)


def naive_model(model: nn.Module) -> nn.Module:
    """A copy of a SequenceModel with all layers naive."""
    model = copy.deepcopy(model)
    for block in model.stack.blocks:
        block.layer = Naive(block.layer)
    return model


def run(layer: nn.Module, u: Tensor) -> list[Tensor]:
    """Output of a layer, and the gradients by its input and its parameters."""
    return gradients(layer(u), [u, *layer.parameters()])
