"""Walking from chunk to chunk, forwards and backwards: what the chunked views have in common.

Home: chapter 14, "The fourth view: chunks" (chapters/14b_chunks.ipynb).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.again import _recorded
from s4lite.ops.dplr_state import _by_signal, _by_system
from s4lite.ops.vandermonde import _plane as _pairs
from s4lite.ops.vandermonde import _real_product

__all__ = []


def _marks(starts: Tensor | list[int] | None, u: Tensor) -> Tensor:
    """Where new sequences begin, as booleans on the CPU that broadcast with u (..., L)."""
    L = u.shape[-1]
    if isinstance(starts, Tensor) and starts.dtype == torch.bool:
        if u.ndim != 3 or starts.shape != (u.shape[0], L):
            got = f"{tuple(starts.shape)} for u {tuple(u.shape)}"
            raise ValueError(f"want starts (batch, L) for u (batch, H, L), got {got}")
        return starts[:, None].cpu()
    places = starts.tolist() if isinstance(starts, Tensor) else [] if starts is None else starts
    if not isinstance(places, (list, tuple)) or any(type(p) is not int for p in places):
        raise TypeError(f"want starts as booleans (batch, L) or a list of ints, got {starts!r:.60}")
    if any(not 0 <= p < L for p in places):
        raise ValueError(f"want starts from 0 to L - 1 = {L - 1}, got {list(places)!r:.60}")
    marks = torch.zeros(L, dtype=torch.bool)
    marks[torch.tensor(places, dtype=torch.int64)] = True
    return marks


def _state(rows: Tensor, M: Tensor) -> Tensor:
    """Rows of real numbers (..., N) as states in double, complex (..., n) where M is diagonal."""
    rows = rows.double().contiguous()
    return torch.view_as_complex(rows.unflatten(-1, (-1, 2))) if M.is_complex() else rows


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Undo `_state`."""
    return _pairs(x, dtype) if x.is_complex() else x.to(dtype)


def _adjoint(M: Tensor) -> Tensor:
    """The adjoint of one hand-over."""
    return M.conj() if M.is_complex() else M.mT


def _hand(M: Tensor, x: Tensor) -> Tensor:
    """One hand-over: M x for states x (..., k, N)."""
    return M[..., None, :] * x if M.is_complex() else x @ M.mT


def _walk(
    M: Tensor, S: Sequence[Tensor], x: Tensor, keep: Sequence[Tensor] | None
) -> tuple[list[Tensor], Tensor]:
    """The states before each chunk, x <- keep (M x + S), and the one after the last."""
    X = []
    for c, S_c in enumerate(S):
        X.append(x)
        x = _hand(M, x) + S_c
        x = x if keep is None else x * keep[c][..., None]
    return X, x


def _times(rows: Tensor, W: Tensor) -> Tensor:
    """rows (system..., signals, chunks, k) times W (system..., k, m), as one product a system."""
    return _real_product(rows.flatten(-3, -2), W).unflatten(-2, rows.shape[-3:-1])


def _span(
    rows: Tensor, x: Tensor, W: Tensor, read: Tensor, M: Tensor, keep: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Some chunks (system..., signals, chunks, T) at once; y, last state but one, last state."""
    T = rows.shape[-1]
    both = _times(rows, W)
    X, after = _walk(M, _state(both[..., T:], M).unbind(-2), x, keep)
    said = _times(_rows(torch.stack(X, -2), rows.dtype), read)
    return both[..., :T] + said, X[-1], after


@dataclass(frozen=True)
class _Cut:
    """How a signal (..., L) is cut: chunks of T samples, `group` of them at a time."""

    T: int
    group: int
    axes: int  # leading axes of the system; those before them count signals
    dtype: torch.dtype
    keep: Tensor | None  # (system..., signals, chunks + 1): 0 where a chunk begins a sequence

    def spans(self, L: int) -> list[slice]:
        step = self.T * self.group
        return [slice(i, min(i + step, L)) for i in range(0, L, step)]

    def tail(self, L: int) -> slice:
        return slice((L - 1) // self.T * self.T, L)

    def take(self, u: Tensor, span: slice) -> Tensor:
        u = F.pad(u[..., span].to(self.dtype), (0, -(span.stop - span.start) % self.T))
        return _by_system(u, self.axes, u.shape[:-1]).unflatten(-1, (-1, self.T))

    def give(self, rows: Tensor, full: torch.Size, span: slice) -> Tensor:
        return _by_signal(rows.flatten(-2), self.axes, full)[..., : span.stop - span.start]

    def kept(self, span: slice, after: int) -> Sequence[Tensor] | None:
        if self.keep is None:
            return None
        first, stop = span.start // self.T, -(-span.stop // self.T)
        return self.keep[..., first + after : stop + after].unbind(-1)


def _in_one(
    cut: _Cut, u: Tensor, x: Tensor, W: Tensor, read: Tensor, M: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All chunks at once, known to autograd; y, the state before the last chunk, that chunk."""
    every = slice(0, u.shape[-1])
    y, before, _ = _span(cut.take(u, every), x, W, read, M, cut.kept(every, 1))
    tail = cut.take(u, cut.tail(u.shape[-1]))[..., 0, :].clone()
    return cut.give(y, u.shape[:-1], every).to(u.dtype), before, tail


def _span_back(
    rows: Tensor,
    g: Tensor,
    x: Tensor,
    a: Tensor,
    cut: _Cut,
    span: slice,
    system: tuple,
    end: Tensor,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The adjoint of `_span`, eq-chunk-adjoint: du, a before it, and the system's derivatives."""
    W, read, M = system
    X = _state(_times(rows, W[..., cut.T :]), M)
    X = torch.stack(_walk(M, X.unbind(-2), x, cut.kept(span, 1))[0], -2)
    heard = _state(_times(g, read.mT), M)
    heard[..., -1, :] += end
    keep = cut.kept(span, 0)
    after, a = _walk(_adjoint(M), heard.unbind(-2)[::-1], a, None if keep is None else keep[::-1])
    after, heard = torch.stack(after[::-1], -2), None  # let go: memory is why we are here
    both = torch.cat([g, _rows(after, g.dtype)], -1)
    du = _times(both, W.mT)
    rows, both, told, g, after, X = (
        z.flatten(-3, -2) for z in (rows, both, _rows(X, g.dtype), g, after, X)
    )
    dM = (after * X.conj()).sum(-2) if M.is_complex() else after.mT @ X
    sums = zip((rows.mT @ both, told.mT @ g, dM), system, strict=True)
    return du, a, [z.sum_to_size(w.shape) for z, w in sums]


class _Chunks(torch.autograd.Function):
    """`_in_one` in little memory: the states before every group are kept, all else comes again."""

    @staticmethod
    def forward(ctx, cut: _Cut, u: Tensor, x: Tensor, *system: Tensor) -> tuple[Tensor, ...]:
        y, kept, W, start = u.new_empty(u.shape), [], system[0], x
        for span in cut.spans(u.shape[-1]):
            kept.append(_rows(x, W.dtype))
            rows, before, x = _span(cut.take(u, span), x, *system, cut.kept(span, 1))
            y[..., span] = cut.give(rows, u.shape[:-1], span)
        ctx.cut = cut
        ctx.save_for_backward(u, start, *system, *kept)
        return y, before.clone(), cut.take(u, cut.tail(u.shape[-1]))[..., 0, :].clone()

    @staticmethod
    def backward(ctx, g: Tensor, end: Tensor, tail: Tensor) -> tuple[Tensor | None, ...]:
        cut, (u, x, *system), kept = ctx.cut, ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        if torch.is_grad_enabled():  # a second derivative is wanted: let autograd see all steps
            leaves = [u, x, *system]
            return None, *_recorded(_in_one(cut, *leaves), (g, end, tail), leaves, True)
        du, a, sums = u.new_empty(u.shape), torch.zeros_like(end), []
        for span, x in reversed(list(zip(cut.spans(u.shape[-1]), kept, strict=True))):
            pieces = cut.take(u, span), cut.take(g, span), _state(x, system[2])
            d, a, more = _span_back(*pieces, a, cut, span, tuple(system), end)
            du[..., span] = cut.give(d, u.shape[:-1], span)
            sums = [p.add_(q) for p, q in zip(sums, more, strict=True)] if sums else more
            end = torch.zeros_like(end)
        span = cut.tail(u.shape[-1])
        du[..., span] += cut.give(tail[..., None, :], u.shape[:-1], span).to(du.dtype)
        return None, du, a, *sums


@dataclass(frozen=True)
class _System:
    """What a chunk needs of a system, the hand-over after the last samples, and the response."""

    tensors: tuple[Tensor, Tensor, Tensor]  # [Toep^T, W^T], R^T, M
    last: Tensor | None  # like M, for as many samples as the last chunk holds; None: T
    said: Callable  # (x (..., N), L) -> C Ab^(l + 1) x for l < L, and Ab^L x


def _group(N: int, T: int, L: int, signals: int) -> int:
    """Chunks between two kept states, eq-chunk-memory; at least 32 rows in a product."""
    return max(1, -(-16 // signals), round(math.sqrt(N * L / 8) / T))


def _run(system: _System, u: Tensor, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and the last state of a signal u (full..., L) from the state x (full..., N)."""
    W, read, M = system.tensors
    full, T, L = u.shape[:-1], read.shape[-1], u.shape[-1]
    axes = len(torch.broadcast_shapes(W.shape[:-2], read.shape[:-2]))
    signals = math.prod(full[: len(full) - axes])
    keep = None if keep is None else _by_system(keep.to(torch.float64), axes, full)
    cut = _Cut(T, _group(read.shape[-2], T, L, signals), axes, W.dtype, keep)
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    run = _in_one if plain else _Chunks.apply
    y, before, tail = run(cut, u, _by_system(x, axes, full), W, read, M)
    rest, last = (L - 1) % T + 1, M if system.last is None else system.last
    told = _state(_real_product(tail[..., :rest], W[..., T - rest :, T:]), M)
    return y, _by_signal(_hand(last, before) + told, axes, full)


def _pack(marks: Tensor, T: int) -> tuple[Tensor, int, Tensor]:
    """Places (..., L) where each sequence ends with a chunk, their number, and `keep`."""
    begins = marks.clone()
    begins[..., 0] = True
    part = begins.cumsum(-1) - 1
    none = part.new_zeros(*part.shape[:-1], int(part.max()) + 1)
    lengths = none.scatter_add(-1, part, torch.ones_like(part))
    chunks = (lengths + T - 1) // T
    ends = chunks.cumsum(-1)
    most = int(ends[..., -1].max())
    ends = ends + most - ends[..., -1:]  # rows with fewer chunks have empty ones in front
    behind = lengths.cumsum(-1).gather(-1, part) - torch.arange(part.shape[-1])
    keep = torch.ones(*part.shape[:-1], most + 1)
    return ends.gather(-1, part) * T - behind, most * T, keep.scatter(-1, ends - chunks, 0.0)


def _packed(system: _System, u: Tensor, x: Tensor | None, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Run sequences that share rows, each in chunks of its own: planned on the CPU; x is added."""
    T, rest = system.tensors[1].shape[-1], system.tensors[2]
    rest = rest.new_zeros(*u.shape[:-1], rest.shape[-1])
    place, count, keep = _pack(marks, T)
    first = marks.cumsum(-1) == 0
    place, keep, first = (z.to(u.device, non_blocking=True) for z in (place, keep, first))
    index = place.expand(u.shape)
    spread = u.new_zeros(*u.shape[:-1], count).scatter(-1, index, u)
    y, last = _run(system, spread, rest, keep.expand(*u.shape[:-1], -1))
    y = y.gather(-1, index)
    if x is None:
        return y, last
    told, end = system.said(x, u.shape[-1])
    return (y + told * first).to(u.dtype), last + end * first[..., -1:]
