"""Which route a bank of filters takes: one long kernel, chunks, a scan, or Triton's chunks.

Home: chapter 14, "The whole layer" (chapters/14d_layer.ipynb).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4lite.ops.triton.backend import _transformed, choose_backend
from s4lite.ops.triton.chunks import _why_not, fused_chunks

__all__ = ["check_backend", "choose_route", "run_chunks"]


def check_backend(backend: str, *, diagonal: bool = True) -> None:
    """Raise unless a layer can have this backend.

    Args:
        backend   str   "auto", "torch" or "triton"
        diagonal  bool  are its systems diagonal?
    Raises:
        ValueError: if backend is unknown, or "triton" for systems that are not diagonal.
    """
    if not (isinstance(backend, str) and backend in ("auto", "torch", "triton")):
        raise ValueError(f'want backend "auto", "torch" or "triton", got {backend!r}')
    if backend == "triton" and not diagonal:
        raise ValueError(
            'want backend "auto" or "torch", got "triton": its kernels are for diagonal systems; '
            "those of diagonal plus low rank ones are matrix products already"
        )


def _no_triton(bank: nn.Module, u: Tensor, gaps: Tensor | None) -> str:
    """Say why Triton cannot serve a bank for u (batch, H, L); "" if it can."""
    if not getattr(bank.kernel, "diagonal", False):
        return f"{type(bank.kernel).__name__} is not diagonal"
    if gaps is not None:
        return "samples that come unevenly (dt) want a scan"
    if type(u) not in (Tensor, nn.Parameter) and not _transformed():
        return f"u is a {type(u).__name__}, no plain tensor"
    how = _T, None, "tf32" if u.dtype == torch.bfloat16 else "tf32x3"
    return _why_not(bank.kernel.C.shape[-2], u, tuple(u.shape), *how)


_T = 64  # samples of a chunk in Triton's kernels, as `chunk_operators` has it


_FROM = {"DPLR": (1, 65536), "diagonal": (256, 32768)}  # with a state, without: eq-whole-routes


def _chunks_win(bank: nn.Module, u: Tensor, stateful: bool) -> bool:
    """Are chunks the better route in torch? On a CPU only: elsewhere each chunk is a launch."""
    if _transformed() or u.device.type != "cpu" or not hasattr(bank.kernel, "chunks"):
        return False
    with_state, without = _FROM["diagonal" if bank.kernel.diagonal else "DPLR"]
    return not bank.bidirectional and u.shape[-1] >= (with_state if stateful else without)


def choose_route(bank: nn.Module, u: Tensor, gaps: Tensor | None, stateful: bool) -> str:
    """Choose the route by which a bank filters a signal.

    Args:
        bank      FilterBank     its backend is "auto", "torch" or "triton"
        u         (batch, H, L)  the signal
        gaps      (batch, L)     times between samples, None if they come evenly
        stateful  bool           does a state go in, or is one wanted?
    Returns:
        route  str  "kernel": a kernel as long as u, and FFTs; "chunks": blocks with a state
                    between; "scan": unevenly; "triton": chunks in one kernel on a GPU
    Raises:
        ValueError: if the backend is "triton", and cannot serve: with the reason.
        ModuleNotFoundError: if it is "triton", and triton is not installed.

    Source: our eq-whole-routes.
    """
    asked = u.is_cuda if bank.backend == "auto" else bank.backend != "torch"
    if asked and choose_backend(bank.backend, u.device, _no_triton(bank, u, gaps)) == "triton":
        return "triton"
    if gaps is not None:
        return "scan"
    return "chunks" if _chunks_win(bank, u, stateful) else "kernel"


def run_chunks(
    bank: nn.Module,
    u: Tensor,
    state: Tensor | None,
    rate: float,
    route: str,
    ready: tuple | None = None,
) -> tuple[Tensor, Tensor]:
    """Filter a signal chunk by chunk, in one direction or in both.

    Args:
        bank    FilterBank      the filters, and the wire D
        u       (batch, H, L)   the signal
        state   (batch, H, n)   the state before it, None: at rest
        rate    float           multiplies every clock
        route   str             "chunks" or "triton"
        ready   tuple           for "triton": its system and chunk operators, from `prepare`
    Returns:
        y, last  (batch, H, L), (batch, H, n)  the outputs, in u's dtype; the state behind them

    Source: our eq-whole-chunks, eq-whole-flip.
    """
    if route == "triton":
        nu, Bb, C, operators = ready or (*bank.kernel.system(rate), None)

    def run(u: Tensor, x: Tensor | None, D: Tensor | None, row: int) -> tuple[Tensor, Tensor]:
        if route == "triton":
            made = operators and operators.layer(row)
            return fused_chunks(nu, Bb, C[row], u, x, D=D, T=_T, backend="triton", operators=made)
        y, x = bank.kernel.chunks(u, x, rate, row)
        return y if D is None else torch.addcmul(y, D.to(y.dtype)[:, None], u), x

    y, last = run(u, state, bank.D, 0)
    if bank.bidirectional:  # the future is the past of the signal read backwards
        future = run(u.flip(-1), None, None, 1)[0].flip(-1)
        y = y + F.pad(future[..., 1:], (0, 1))
    return y, last
