"""The fourth view: a Toeplitz block inside each chunk, a state between, all of it products.

Home: chapter 14, "The fourth view: chunks" (chapters/14b_chunks.ipynb).
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.again import _made_again
from s4lite.ops.checks import check_axes, check_exponents, check_length, check_tensors
from s4lite.ops.chunk_walk import _marks, _packed, _run, _System
from s4lite.ops.diag_state import diag_response
from s4lite.ops.dplr import _check_system, _in_double, _plane, _real_row, dplr_discretize
from s4lite.ops.dplr_state import _said, _squares
from s4lite.ops.krylov import advance, krylov_naive
from s4lite.ops.recurrence import check_system
from s4lite.ops.vandermonde import _plane as _pairs
from s4lite.ops.vandermonde import _powers, _tile, vandermonde

__all__ = ["chunks_naive", "diag_chunks", "dplr_chunks"]


def _check_signal(u: Tensor, x: Tensor | None, **modes: Tensor) -> torch.dtype:
    """Raise unless real u (..., L), complex x (..., n) and modes (..., n) fit; u's precision."""
    check_tensors(u=u)
    if u.is_complex():
        raise TypeError(f"want u real, got {u.dtype}")
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    given = {} if x is None else {"x": x}
    check_axes({"u[..., 0]": u[..., 0]}, **modes, **given)
    if given and not x.is_complex():
        raise TypeError(f"want x complex, got {x.dtype}")
    return torch.promote_types(u.dtype, torch.float32)


def chunks_naive(
    Ab: Tensor,
    Bb: Tensor,
    C: Tensor,
    u: Tensor,
    x: Tensor | None = None,
    *,
    starts: Tensor | list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a dense system by one materialised (L, L) matrix: the judge of the chunked views.

    Args:
        Ab      (..., N, N)         discrete state matrix
        Bb, C   (..., N)            input vector; output vector, not conjugated
        u, x    (..., L), (..., N)  the signal; the state before it, at rest if None
        starts  (batch, L) or list  where new sequences begin, as for `diag_chunks`
    Returns:
        y, x_last  (..., L), (..., N)  the output; the state of the last sequence after it
    Raises:
        TypeError, ValueError: if tensors, shapes, devices or starts do not fit.

    Cost:   L^2 numbers a system, or a signal if starts differ; N L numbers a system.
    Source: our eq-chunk-materialised, eq-chunk-packed.
    """
    batch, dtype = check_system(Ab, Bb, C)
    check_tensors(u=u)
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    check_axes(
        {"u[..., 0]": u[..., 0]}, Bb=Bb.expand(*batch, -1), **({} if x is None else {"x": x})
    )
    L, part = u.shape[-1], _marks(starts, u).cumsum(-1).to(u.device)
    lag = torch.arange(L, device=u.device)[:, None] - torch.arange(L, device=u.device)
    same = (lag >= 0) & (part[..., :, None] == part[..., None, :])
    columns, u = krylov_naive(Ab, Bb, L), u.to(torch.promote_types(dtype, u.dtype))
    K = (C[..., None] * columns).sum(-2)
    y = ((K[..., lag.clamp(min=0)] * same) @ u[..., None].to(K.dtype))[..., 0]
    last = (columns.flip(-1) * (u * (part == part[..., -1:]))[..., None, :]).sum(-1)
    if x is not None:
        told = krylov_naive(Ab, x, L + 1)
        y = y + (C[..., None] * told[..., 1:]).sum(-2) * (part == 0)
        last = last + told[..., -1] * (part[..., -1:] == 0)
    return y, last


def _toeplitz(K: Tensor) -> Tensor:
    """The block of a chunk, transposed: entry [j, t] is K_(t - j), and 0 where t < j."""
    T = K.shape[-1]
    return F.pad(K, (T - 1, 0)).unfold(-1, T, 1).flip(-2)


def _turns(nu: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """e^(k nu) for k < count, (..., count, n) complex: sqrt(count) exponentials, then products."""
    Q, R = _tile(count)
    dtype = torch.promote_types(dtype, torch.complex64)
    far, near = _powers(nu, Q, R).to(dtype), _powers(nu, R).to(dtype)
    return (far[..., None, :] * near[..., None, :, :]).flatten(-3, -2)[..., :count, :]


def _beside(toeplitz: Tensor, write: Tensor) -> Tensor:
    """[Toep^T, W^T] (..., T, T + N): both are multiplied by the same samples."""
    axes = torch.broadcast_shapes(toeplitz.shape[:-1], write.shape[:-1])
    return torch.cat([z.expand(*axes, -1) for z in (toeplitz, write)], -1)


def _diag_operators(
    nu: Tensor, Bb: Tensor, C: Tensor, T: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """[Toep^T, W^T] and R^T for pairs of real numbers, and mu^T: eq-chunk-diag."""
    E = _turns(nu, T + 1, dtype)
    Bb_row, C_row = (z[..., None, :].to(E.dtype) for z in (Bb, C))
    write = _pairs(Bb_row * E[..., :T, :].flip(-2), dtype)
    read = _pairs(2 * (C_row * E[..., 1:, :]).conj(), dtype)
    K = vandermonde(C * Bb, nu, T, dtype)
    return _beside(_toeplitz(K), write), read.mT, (T * nu).exp()


def _power(powers: list[Tensor], steps: int) -> Tensor:
    """Ab^steps for steps >= 1: its binary digits choose among the squares."""
    return functools.reduce(torch.matmul, [P for i, P in enumerate(powers) if steps >> i & 1])


def _dplr_operators(
    Ab: Tensor, Bb: Tensor, C: Tensor, powers: list[Tensor], T: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """[Toep^T, W^T], R^T and Ab^T from the squares of Ab, by doubling: eq-chunk-doubling."""
    columns, rows = Bb[..., None], C[..., None, :] @ Ab
    for power in powers:
        if columns.shape[-1] < T:
            columns = torch.cat([columns, power @ columns], -1)
            rows = torch.cat([rows, rows @ power], -2)
    columns, rows = columns[..., :T], rows[..., :T, :]
    K = (C[..., None, :] @ columns)[..., 0, :]
    M = _power(powers, T)
    return _beside(_toeplitz(K.to(dtype)), columns.flip(-1).mT.to(dtype)), rows.mT.to(dtype), M


def _diag_system(
    nu: Tensor, Bb: Tensor, C: Tensor, T: int, rest: int, dtype: torch.dtype
) -> _System:
    """The system of `diag_chunks`; its last chunk holds `rest` samples."""
    nu = nu.to(torch.complex128)
    return _System(
        _diag_operators(nu, Bb, C, T, dtype),
        (rest * nu).exp(),
        lambda x, L: (diag_response(nu, C, x, L), (L * nu).exp() * x),
    )


def _dplr_tables(
    T: int,
    rest: int,
    dtype: torch.dtype,
    Lambda: Tensor,
    P: Tensor,
    B: Tensor,
    C: Tensor,
    h: Tensor,
) -> tuple[Tensor, ...]:
    """`_dplr_operators`, and Ab^rest if rest < T."""
    Ab, Bb = dplr_discretize(Lambda, P, B, h)
    powers = _squares(Ab, T)
    tables = _dplr_operators(Ab, Bb, _real_row(C), powers, T, dtype)
    return tables if rest == T else (*tables, _power(powers, rest))


def _dplr_system(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor | float,
    T: int, rest: int, dtype: torch.dtype, size: int,
) -> _System:  # fmt: skip
    """The system of `dplr_chunks`, in real coordinates and float64, for `size` samples in all."""
    h, Lambda, P, B, C = _in_double(dt, Lambda, P, B, C)
    tables = functools.partial(_dplr_tables, T, rest, dtype)
    lead = torch.broadcast_shapes(Lambda.shape[:-1], P.shape[:-2], h.shape)
    given = (Lambda, P, B, C, h), (1, 2, 1, 1, 0), len(lead)
    tables = _made_again(tables, *given, size // max(1, math.prod(lead)))

    def said(x: Tensor, L: int) -> tuple[Tensor, Tensor]:
        Ab, steps = dplr_discretize(Lambda, P, B, h)[0], torch.full((), L, device=x.device)
        told = _said(Ab, _real_row(C), torch.complex(*x.chunk(2, -1)) / math.sqrt(2), L)
        return told, advance(Ab, x, steps, L)

    return _System(tables[:3], tables[3] if rest < T else None, said)


_MOST = 64  # samples in a chunk of a diagonal system, as measured in the chapter


def _cut_up(
    T: int | None, starts: Tensor | list[int] | None, u: Tensor, most: int
) -> tuple[int, Tensor | None]:
    """T, if None by the measured rule: `most`, no longer than a signal or sequence; the starts."""
    marks, L = None if starts is None else _marks(starts, u), u.shape[-1]
    if T is not None:
        check_length(T, "T")
        return T, marks
    if marks is not None:
        rows = marks.numel() // L
        L = max(1, L * rows // (rows + int(marks[..., 1:].sum())))
    return min(most, 1 << (L - 1).bit_length()), marks


def _chunked(
    system: _System, u: Tensor, x: Tensor | None, marks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Give all leading axes to u (..., L) and x (..., N), and run them."""
    W, _, M = system.tensors
    lead = [W.shape[:-2], u.shape[:-1], *([] if x is None else [x.shape[:-1]])]
    full = torch.broadcast_shapes(*lead)
    u = u.expand(*full, -1)
    if marks is not None:
        return _packed(system, u, None if x is None else x.expand(*full, -1), marks)
    x = M.new_zeros(M.shape[-1]) if x is None else x
    return _run(system, u, x.expand(*full, -1), None)


def diag_chunks(
    nu: Tensor,
    Bb: Tensor,
    C: Tensor,
    u: Tensor,
    x: Tensor | None = None,
    *,
    T: int | None = None,
    starts: Tensor | list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a diagonal system over a signal, chunk by chunk: exactly the recurrence.

    Args:
        nu, Bb, C  (..., n)  log of Ab, complex128, input weights, from `log_discretize`; output
        u, x       (..., L), (..., n)  the signal, real; the complex state before it, None: at rest
        T          int  samples in a chunk, >= 1; None: a measured rule, at most 64
        starts     (batch, L) or list  True, or the positions, where new sequences begin, at rest;
                   a list costs an accelerator no wait, a tensor is read by the host once
    Returns:
        y, x_last  (..., L), (..., n)  2 Re C x_k in u's dtype; the state after the last sample
    Raises:
        TypeError: if nu or x is not complex, u not real, or starts no booleans or ints.
        ValueError: if shapes, devices or starts do not fit, Re nu > 0, T < 1, or u is empty.

    Error:  some eps of u's dtype (at least float32); the hand-over is float64, eq-chunk-drift.
    Cost:   2T + 4N operations a sample, N = 2n; backward keeps u and a state every few chunks.
    Source: our eq-chunk-view, eq-chunk-diag, eq-chunk-adjoint, eq-chunk-packed.
    """
    dtype = _check_signal(u, x, nu=nu, Bb=Bb, C=C)
    check_exponents(nu)
    T, marks = _cut_up(T, starts, u, _MOST)
    x = None if x is None else x.to(torch.complex128)
    rest = T if marks is not None else (u.shape[-1] - 1) % T + 1
    y, last = _chunked(_diag_system(nu, Bb, C, T, rest, dtype), u, x, marks)
    return y, last.to(torch.promote_types(dtype, torch.complex64))


def dplr_chunks(
    Lambda: Tensor,
    P: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor | float,
    u: Tensor,
    x: Tensor | None = None,
    *,
    T: int | None = None,
    starts: Tensor | list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a diagonal plus low rank system over a signal, chunk by chunk: exactly the recurrence.

    Args:
        Lambda, P, B, C, dt  (..., n), P (..., n, r), dt (...)  the system, as for `dplr_kernel`
        u, x       (..., L), (..., n)  the signal, real; the complex state before it, None: at rest
        T, starts  int; (batch, L) or list  as for `diag_chunks`; T None: N as a power of 2, or 64
    Returns:
        y, x_last  (..., L), (..., n)  2 Re C x_k in u's dtype; the state after the last sample
    Raises:
        TypeError, ValueError: as `dplr_kernel` for the system, as `diag_chunks` for the rest.

    Error:  some eps of u's dtype (at least float32); tables and hand-over are float64.
    Cost:   2T + 4N + 2N^2/T operations a sample, N = 2n, and log2(T) 2 N^3 + 4 N^2 T a system,
            once more in backward for 32,768 samples a system or more.
    Source: our eq-chunk-view, eq-chunk-doubling, eq-chunk-adjoint, eq-chunk-packed.
    """
    _check_system({"dt": dt}, Lambda, P, B=B, C=C)
    dtype = _check_signal(u, x, Lambda=Lambda, B=B, C=C)
    T, marks = _cut_up(T, starts, u, max(_MOST, 1 << (2 * Lambda.shape[-1] - 1).bit_length()))
    x = None if x is None else _plane(x.to(torch.complex128))
    rest = T if marks is not None else (u.shape[-1] - 1) % T + 1
    system = _dplr_system(Lambda, P, B, C, dt, T, rest, dtype, u.numel())
    y, last = _chunked(system, u, x, marks)
    last = torch.complex(*last.chunk(2, -1)) / math.sqrt(2)
    return y, last.to(torch.promote_types(dtype, torch.complex64))
