"""How a batch of signals is cut into rows of chunks, and how kernels are launched on them.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s4lite.ops.triton.backend import compiled, interpreting, load_triton
from s4lite.ops.triton.chunk_kernels import _chain_kernel, _states_kernel

__all__ = []


def _complex(z: Tensor) -> Tensor:
    """Two planes (..., 2, N) to complex numbers (..., N)."""
    return torch.view_as_complex(z.movedim(-2, -1).contiguous())


def _planes(z: Tensor) -> Tensor:
    """Complex numbers (..., N) to two planes (..., 2, N)."""
    return torch.view_as_real(z).movedim(-1, -2)


def _chunks_plain(
    u: Tensor, K: Tensor, I: Tensor, O: Tensor, m: Tensor, X: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """eq-triton-chunk as written, for u (..., H, chunks * T): the judge of the kernels.

    m is (H, 2, n), X (..., H, n) complex; returns y and the states before, between and after.
    """
    T, y, states = K.shape[-1], [], [X]
    lag = torch.arange(T, device=K.device) - torch.arange(T, device=K.device)[:, None]  # (j, t)
    toep = torch.where(lag >= 0, K[:, lag.clamp(min=0)], 0)
    for U in u.unflatten(-1, (-1, T)).unbind(-2):
        through = torch.einsum("...hj,hjt->...ht", U, toep)
        y.append(through + torch.einsum("...hpn,hpnt->...ht", _planes(X), O))
        X = _complex(m) * X + _complex(torch.einsum("...hj,hpnj->...hpn", U, I))
        states.append(X)
    return torch.cat(y, -1), states


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
    def whole(self) -> int:
        """Samples in chunks that are full."""
        return self.L // self.T * self.T

    @property
    def light(self) -> bool:
        """Are products made once, in tf32 at most?"""
        return self.precision == "tf32"

    @property
    def most(self) -> int:
        """Rows of a tile forward that fit into registers, as the compiler says."""
        return min(64, max(16, 2**18 // (self.N * self.T))) if self.light else 16

    @property
    def warps(self) -> int:
        """Warps of a program, likewise."""
        size = self.N * self.T
        return 4 if size <= (2048 if self.light else 1024) else 8

    @property
    def shared(self) -> int:
        """Shared memory of the largest program, in kB: a line through what the compiler says."""
        return 24 + self.N * self.T // 48 if self.light else 60 + self.N * self.T // 30

    def tile(self, most: int) -> int:
        """Rows of a tile: a power of two from 16 to `most`."""
        return min(most, max(16, 1 << (self.rows - 1).bit_length()))

    @property
    def fits(self) -> bool:
        """Are all addresses but those of samples below 2^31, and is the grid small enough?"""
        each = max(2 * self.rows * self.N, 4 * self.N * self.T * _partial_sums(self, 16)[0])
        grid = self.rows < 1 << 20 and (self.segments == 1 or self.batch < 1 << 16)
        return grid and each * self.H < 2**31 and self.L < 2**30


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
    more = {"MMA": tl.float32 if interpreting() else kind} | more
    args = [args[0] if z is None else z for z in args]  # none: an address that is never used
    with torch.cuda.device_of(args[0]):
        compiled(kernel)[(cut.H, grid)](
            *args, cut.H, cut.L, cut.rows, cut.segments, cut.chunks, cut.whole, *numbers,
            N=cut.N, T=cut.T, R=R, PREC=cut.precision, num_warps=cut.warps, **more,
        )  # fmt: skip


def _output_like(u: Tensor) -> Tensor:
    """Memory for an output in u's dtype; in float32 for the interpreter, which would truncate."""
    return torch.empty_like(u, dtype=torch.float32 if interpreting() else u.dtype)


def _ends(
    cut: _Cut, v: Tensor, M: Tensor, m: Tensor, nu: Tensor, first: Tensor | None, reverse: bool
) -> Tensor:
    """Where every row starts, (batch, segments, H, 2, N): its own part, then eq-triton-segments."""
    shape, R = (cut.batch, cut.segments, cut.H, 2, cut.N), cut.tile(cut.most)
    ends = torch.empty(shape, dtype=torch.float32, device=v.device)
    given = first is not None
    more = {"MMA": load_triton().language.float32} if reverse else {}  # adjoints in tf32
    told = {"REVERSE": reverse, "TOLD": reverse and given} | more
    _launch(_states_kernel, cut, R, -(-cut.rows // R), v, M, m, first, ends, **told)
    with torch.cuda.device_of(v):
        compiled(_chain_kernel)[(cut.H, cut.batch)](
            torch.view_as_real(nu), ends, first if given else ends, cut.H, cut.segments,
            cut.chunks * cut.T, nu.shape[-1], N=cut.N, REVERSE=reverse, FROM=given and not reverse,
        )  # fmt: skip
    return ends


def _row_states(
    cut: _Cut, u: Tensor, I: Tensor, m: Tensor, nu: Tensor, x: Tensor | None
) -> Tensor | None:
    """The state of every row before its first chunk, from x (batch, H, 2, N); None: at rest."""
    if cut.segments > 1:
        return _ends(cut, u, I, m, nu, x, False)
    return x


def _row_adjoints(
    cut: _Cut, g: Tensor, O: Tensor, m: Tensor, nu: Tensor, told: Tensor | None
) -> Tensor | None:
    """The gradient by the state after every row's last chunk; `told` enters after `whole`."""
    return _ends(cut, g, O, m, nu, told, True) if cut.segments > 1 else None


def _partial_sums(cut: _Cut, R: int) -> tuple[int, int]:
    """How many programs share a channel backwards, and how many tiles each of them takes."""
    tiles = -(-cut.rows // R)
    programs = min(tiles, max(1, 256 // cut.H))
    each = -(-tiles // programs)
    return -(-tiles // each), each
