"""How a batch of signals is cut into rows of chunks, and how kernels are launched on them.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.triton.backend import compiled, interpreting, load_triton
from s4lite.ops.triton.chunk_kernels import _states_kernel

__all__ = []


def _complex(z: Tensor) -> Tensor:
    """Two planes (..., 2, N) to complex numbers (..., N)."""
    return torch.view_as_complex(z.movedim(-2, -1).contiguous())


def _planes(z: Tensor) -> Tensor:
    """Complex numbers (..., N) to two planes (..., 2, N)."""
    return torch.view_as_real(z).movedim(-1, -2)


@dataclass(frozen=True)
class _Cut:
    """How (batch, H, L) is cut: rows = batch * segments, each of `chunks` chunks of T samples."""

    batch: int
    H: int
    L: int
    T: int
    N: int  # modes, padded to a power of two
    segments: int
    chunks: int
    precision: str

    @property
    def rows(self) -> int:
        return self.batch * self.segments

    @property
    def late(self) -> int:
        """The sample at which the last chunk begins."""
        return -(-self.L // self.T) * self.T - self.T

    def tile(self, most: int) -> int:
        """Rows of a tile: a power of two from 16 to `most`."""
        return min(most, max(16, 1 << (self.rows - 1).bit_length()))


def _cut(shape: tuple, n: int, T: int, segments: int | None, precision: str) -> _Cut:
    """Choose the segments: 64 rows if the batch has fewer, but eight chunks a segment at least."""
    batch, H, L = shape
    count = -(-L // T)
    if segments is None:
        segments = max(1, min(count // 8, -(-64 // batch)))
    chunks = -(-count // min(segments, count))
    N = max(16, 1 << (n - 1).bit_length())
    return _Cut(batch, H, L, T, N, -(-count // chunks), chunks, precision)


def _launch(kernel: Callable, cut: _Cut, R: int, grid: int, *args, numbers=(), **more) -> None:
    """Launch a kernel for all channels; the first of its arguments is the signal."""
    tl, dtype = load_triton().language, args[0].dtype
    kind = tl.bfloat16 if dtype == torch.bfloat16 else tl.float32
    with torch.cuda.device_of(args[0]):
        compiled(kernel)[(cut.H, grid)](
            *args, cut.H, cut.L, cut.rows, cut.segments, cut.chunks, *numbers,
            N=cut.N, T=cut.T, R=R, MMA=tl.float32 if interpreting() else kind,
            PREC="tf32" if dtype == torch.bfloat16 else cut.precision, **more,
        )  # fmt: skip


def _output_like(u: Tensor) -> Tensor:
    """Memory for an output in u's dtype; in float32 for the interpreter, which would truncate."""
    return torch.empty_like(u, dtype=torch.float32 if interpreting() else u.dtype)


def _chain(first: Tensor, ends: Tensor, jump: Tensor) -> Tensor:
    """eq-triton-segments: where every segment starts, from what each adds, (batch, S, H, 2, N)."""
    S = ends.shape[1]
    own = torch.cat([first[:, None], ends[:, :-1]], 1)
    s = torch.arange(S, device=first.device)
    table = jump[..., (s[:, None] - s).clamp(min=0)].tril()  # (H, N, S, S)
    return _planes(torch.einsum("hnst,bthn->bshn", table, _complex(own)))


def _ends(cut: _Cut, v: Tensor, M: Tensor, m: Tensor, reverse: bool) -> Tensor:
    """First pass: what every row makes of its samples on its own, (batch, segments, H, 2, N)."""
    shape, R = (cut.batch, cut.segments, cut.H, 2, cut.N), cut.tile(64)
    ends = torch.empty(shape, dtype=torch.float32, device=v.device)
    _launch(_states_kernel, cut, R, -(-cut.rows // R), v, M, m, ends, REVERSE=reverse)
    return ends


def _row_states(cut: _Cut, u: Tensor, I: Tensor, m: Tensor, x: Tensor, jump: Tensor) -> Tensor:
    """The state of every row before its first chunk, from x (batch, H, 2, N)."""
    if cut.segments == 1:
        return x.contiguous()
    return _chain(x, _ends(cut, u, I, m, False), jump).contiguous()


def _row_adjoints(cut: _Cut, g: Tensor, O: Tensor, m: Tensor, gxb: Tensor, jump: Tensor) -> Tensor:
    """The gradient by the state after every row's last chunk; gxb enters before chunk `late`."""
    if cut.segments == 1:
        return torch.zeros_like(gxb)
    begins = _ends(cut, g, O, m * m.new_tensor([1, -1, 1, -1])[:, None], True)
    begins[:, -1] += _planes(jump[..., -1].conj() * _complex(gxb))
    ends = _chain(torch.zeros_like(gxb), begins.flip(1), jump.conj())
    return ends.flip(1).contiguous()


def _partial_sums(cut: _Cut, R: int) -> tuple[int, int]:
    """How many programs share a channel backwards, and how many tiles each of them takes."""
    tiles = -(-cut.rows // R)
    programs = min(tiles, max(1, 256 // cut.H))
    each = -(-tiles // programs)
    return -(-tiles // each), each


def _by_lag(toep: Tensor) -> Tensor:
    """Sum the diagonals of (H, T, T) that hold lags 0 to T - 1: (H, T)."""
    T = toep.shape[-1]
    skew = F.pad(toep.flip(-2), (0, T)).flatten(-2)[..., :-T]
    return skew.unflatten(-1, (T, 2 * T - 1)).sum(-2)[..., T - 1 :]
