"""The state of a diagonal plus low rank system over many samples at once: by blocks, by doubling.

Home: chapter 12, "S4 as a layer" (chapters/12b_s4_layer.ipynb).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import check_length, check_tensors
from s4lite.ops.dplr import _check_system, _in_double, _plane, _real_row, dplr_discretize
from s4lite.ops.krylov import _backwards
from s4lite.ops.vandermonde import _real_product

__all__ = ["dplr_last_state", "dplr_response"]


def _squares(Ab: Tensor, most: int) -> list[Tensor]:
    """Ab, Ab^2, Ab^4, ... up to the last power of two that is at most `most`."""
    powers = [Ab]
    while 2 ** len(powers) <= most:
        powers.append(powers[-1] @ powers[-1])
    return powers


def _doublings(N: int, L: int) -> int:
    """How often a block doubles: until it is as long as N and as there are blocks, or as L."""
    k = 0
    while 2**k < L and (2**k < N or 4**k < L):
        k += 1
    return k


def _by_system(x: Tensor, axes: int, full: torch.Size) -> Tensor:
    """Rows of all the signals that share a system: (..., m) to (system..., signals, m)."""
    x = x.expand(*full, x.shape[-1])
    extra = len(full) - axes
    return x.flatten(0, extra - 1).movedim(0, -2) if extra else x[..., None, :]


def _by_signal(x: Tensor, axes: int, full: torch.Size) -> Tensor:
    """Undo `_by_system`."""
    extra = full[: len(full) - axes]
    return x.movedim(-2, 0).unflatten(0, extra) if extra else x[..., 0, :]


def _times(x: Tensor, M: Tensor) -> Tensor:
    """M x for many x of a system: x (system..., signals, k, N), M (system..., N, N)."""
    return (x.flatten(-3, -2) @ M.mT).unflatten(-2, x.shape[-3:-1])


def _check_given(
    u: Tensor | None, x: Tensor | None, dt: object, *system: Tensor, **w: Tensor
) -> None:
    """Raise unless system (Lambda, P, w, dt), signal u (..., L), complex state x (..., n) fit."""
    given = {name: z for name, z in {"u": u, "x": x}.items() if z is not None}
    check_tensors(**given)
    if x is not None and not x.is_complex():
        raise TypeError(f"want x complex, got {x.dtype}")
    samples = {"dt": dt}
    if u is not None:
        check_length(u.shape[-1] if u.ndim else 0, "the length of u")
        samples["u[..., 0]"] = u[..., 0]
    _check_system(samples, *system, **w, **({} if x is None else {"x": x}))


def _said(Ab: Tensor, C: Tensor, x: Tensor, L: int) -> Tensor:
    """C Ab^(l + 1) x for l < L in the real form: Ab (..., N, N), C (..., N), x (..., n) complex."""
    k, powers, rows = _doublings(Ab.shape[-1], L), _squares(Ab, L - 1), C[..., None, :] @ Ab
    for M in powers[:k]:  # C Ab, C Ab^2, ..., C Ab^R: what a block of R = 2^k samples reads
        rows = torch.cat([rows, rows @ M], -2)
    axes, full = rows.ndim - 2, torch.broadcast_shapes(rows.shape[:-2], x.shape[:-1])
    z = _by_system(_plane(x.to(torch.complex128)), axes, full)[..., None, :]
    blocks = -(-L // 2**k)
    for M in powers[k:]:  # the states before each of the blocks
        z = torch.cat([z, _times(z[..., : blocks - z.shape[-2], :], M)], -2)
    y = _real_product(z.flatten(-3, -2).to(x.real.dtype), rows.mT.to(x.real.dtype))
    return _by_signal(y.unflatten(-2, z.shape[-3:-1]).flatten(-2), axes, full)[..., :L]


def dplr_response(
    Lambda: Tensor, P: Tensor, C: Tensor, dt: Tensor | float, x: Tensor, L: int
) -> Tensor:
    """Compute what an earlier state still says while no input comes.

    Args:
        Lambda, C  (..., n)        poles, Re <= 0, and output weights; C is not conjugated
        P          (..., n, r)     low rank factor: A = Lambda - P P^*
        dt         float or (...)  step size, real, > 0                [time]
        x          (..., n)        the state before sample 0, complex  [state]
        L          int             samples, >= 1
    Returns:
        y  (..., L)  2 Re C Ab^(l + 1) x, bilinear, real, in x's precision  [output]
    Raises:
        TypeError, ValueError: as `dplr_kernel`; TypeError if x is not complex.

    Error:  that of one matrix product in x's precision; tables and powers are float64.
    Cost:   log2(L) 2 N^3 a system, 2 N L a state; some L numbers are kept for a state.
    Source: our eq-layer-state, eq-s4-response.
    """
    check_tensors(x=x)
    _check_given(None, x, dt, Lambda, P, C=C)
    check_length(L)
    h, Lambda, P, C = _in_double(dt, Lambda, P, C)
    return _said(dplr_discretize(Lambda, P, C, h)[0], _real_row(C), x, L)


def _fold(x: Tensor, powers: list[Tensor]) -> Tensor:
    """Sum M^q x_q over blocks q, by pairs: x (system..., signals, Q, N), powers M, M^2, M^4, ..."""
    for M in powers:
        if x.shape[-2] > 1:
            x = F.pad(x, (0, 0, 0, x.shape[-2] % 2))
            x = x[..., ::2, :] + _times(x[..., 1::2, :], M)
    return x[..., 0, :]


def _from_rest(Bb: Tensor, back: Tensor, powers: list[Tensor], k: int) -> Tensor:
    """Sum Ab^j Bb back_j, j < L: Bb (system..., N), back (system..., signals, L)."""
    columns, R = Bb[..., None], 2**k
    for M in powers[:k]:  # Bb, Ab Bb, ..., Ab^(R - 1) Bb
        columns = torch.cat([columns, M @ columns], -1)
    blocks = F.pad(back, (0, -back.shape[-1] % R)).unflatten(-1, (-1, R))
    sums = _real_product(blocks.flatten(-3, -2), columns.mT.to(back.dtype)).to(Bb.dtype)
    return _fold(sums.unflatten(-2, blocks.shape[-3:-1]), powers[k:])


def _advance(x: Tensor, powers: list[Tensor], steps: Tensor) -> Tensor:
    """Ab^steps x for rows x (system..., signals, N), by the binary digits of steps."""
    for i, M in enumerate(powers):
        x = torch.where((steps >> i) % 2 == 1, x @ M.mT, x)
    return x


def _ended(
    Ab: Tensor, Bb: Tensor, u: Tensor, x: Tensor | None, lengths: Tensor | list[int] | None
) -> Tensor:
    """The state (..., N) after u (..., L), in the real form: Ab (..., N, N), Bb (..., N)."""
    back, ends = _backwards(u, lengths)
    axes, L, start = Bb.ndim - 1, u.shape[-1], [] if x is None else [_plane(x.to(torch.complex128))]
    full = torch.broadcast_shapes(Bb.shape[:-1], u.shape[:-1], *(z.shape[:-1] for z in start))
    powers = _squares(Ab, L if start else L - 1)
    back = _by_system(back.to(torch.promote_types(u.dtype, torch.float32)), axes, full)
    last = _from_rest(Bb, back, powers, _doublings(Bb.shape[-1], L))
    for z in start:
        steps = _by_system(ends[..., None], axes, full)
        last = last + _advance(_by_system(z, axes, full), powers, steps)
    return _by_signal(last, axes, full)


def dplr_last_state(
    Lambda: Tensor,
    P: Tensor,
    B: Tensor,
    dt: Tensor | float,
    u: Tensor,
    x: Tensor | None = None,
    lengths: Tensor | list[int] | None = None,
) -> Tensor:
    """Compute the state after a signal, without walking along it.

    Args:
        Lambda, B  (..., n)        poles, Re <= 0, and input weights
        P          (..., n, r)     low rank factor: A = Lambda - P P^*
        dt         float or (...)  step size, real, > 0    [time]
        u          (..., L)        the signal, real        [input]
        x          (..., n)        the state before it, complex; at rest if None  [state]
        lengths    (batch,)        from 1 to L: u is (batch, H, L), padded on the right
    Returns:
        x  (..., n)  Ab^L x + sum over j of Ab^(L - 1 - j) Bb u_j, in u's precision  [state]
    Raises:
        TypeError, ValueError: as `dplr_step`, and if u is empty, or lengths do not fit.

    Error:  that of one matrix product in u's precision; tables and powers are float64.
    Cost:   log2(L) 2 N^3 a system, 2 N L a signal; some L numbers are kept for a signal.
    Source: our eq-layer-state, eq-s4-blocks, eq-s4-horner.
    """
    check_tensors(u=u)
    _check_given(u, x, dt, Lambda, P, B=B)
    h, Lambda, P, B = _in_double(dt, Lambda, P, B)
    last = _ended(*dplr_discretize(Lambda, P, B, h), u, x, lengths) / math.sqrt(2)
    dtype = torch.promote_types(u.dtype, torch.complex64)
    return torch.complex(*last.chunk(2, -1)).to(dtype)
