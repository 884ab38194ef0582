"""Other people's layers, where pip has brought them; where not, why not.

Each maker gives (module, "") or (None, reason). Everything runs in float32, as its authors' own
defaults have it but for the sizes. Nothing here is needed by s4lite.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

Made = tuple[nn.Module | None, str]


def s5_layer(d: int, n: int, block: bool = False) -> Made:
    """s5-pytorch: the layer S5(width, state), or its block with norms and a gated map."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from s5 import S5
            from s5.s5_model import S5Block

            return (S5Block(d, n, False) if block else S5(d, n)), ""
    except ImportError as error:
        return None, f"s5-pytorch is not installed ({error})"
    except Exception as error:  # installed, and at odds with this torch
        return None, f"s5-pytorch does not start ({type(error).__name__}: {str(error)[:80]})"


def mamba_layer(d: int) -> Made:
    """mambapy: one residual block, parallel scan, state 16, expansion 2: its defaults."""
    try:
        from mambapy.mamba import Mamba, MambaConfig

        return Mamba(MambaConfig(d_model=d, n_layers=1)), ""
    except ImportError as error:
        return None, f"mambapy is not installed ({error})"
    except Exception as error:
        return None, f"mambapy does not start ({type(error).__name__}: {str(error)[:80]})"


class FirstOf(nn.Module):
    """torch's GRU gives (output, state): keep the output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, u: Tensor) -> Tensor:
        return self.layer(u)[0]


class CausalAttention(nn.Module):
    """torch's multi-head attention of a sequence with its past, without weights to show."""

    def __init__(self, d: int, heads: int, L: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(d, heads, batch_first=True)
        mask = nn.Transformer.generate_square_subsequent_mask(L)
        self.register_buffer("mask", mask)

    def forward(self, u: Tensor) -> Tensor:
        return self.layer(
            u,
            u,
            u,
            attn_mask=self.mask[: u.shape[1], : u.shape[1]],
            is_causal=True,
            need_weights=False,
        )[0]


def keops_sums() -> tuple[Callable | None, str]:
    """Cauchy sums by pykeops: nothing (n, K) is kept; compiled by the C++ compiler at first use."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # or it would build for a GPU as well
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # its OpenMP may not be torch's
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import pykeops

            pykeops.set_verbose(False)
            from pykeops.torch import LazyTensor
    except Exception as error:  # it may fail in many ways while it looks for a compiler
        return None, f"pykeops does not start ({type(error).__name__}: {str(error)[:80]})"

    def sums(v: Tensor, l: Tensor, w: Tensor) -> Tensor:
        s, c = (2 * torch.sinh(w)).to(v.dtype), torch.cosh(w).to(v.dtype)
        s, c = (LazyTensor(x[None, None, :, None, None].contiguous()) for x in (s, c))
        total = 0
        for a, b in ((v, l), (v.conj(), l.conj())):
            a = LazyTensor(a[:, :, None, :, None].resolve_conj().contiguous())
            b = b[:, None, None, :, None].resolve_conj()
            b = LazyTensor(b.expand(-1, v.shape[1], -1, -1, -1).contiguous())
            total = total + (a / (s - c * b)).sum(3)[..., 0]
        return total

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            one = torch.ones(1, 1, 2, dtype=torch.complex64)
            sums(one, -one[0], torch.tensor([0.1 + 0.2j, 0.3 + 0.1j]))
    except Exception as error:
        return None, f"pykeops does not compile ({type(error).__name__}: {str(error)[:80]})"
    return sums, ""
