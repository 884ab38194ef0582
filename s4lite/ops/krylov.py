"""Powers of a matrix on a vector: the table behind a kernel, and the state behind a signal.

Home: chapter 07, "The first deep state space models, and what they cost"
(chapters/07_first_ssms.ipynb).
"""

import torch
from torch import Tensor

from s4lite.ops import recurrence
from s4lite.ops.checks import can_look, check_ends, check_length, check_tensors

__all__ = ["advance", "krylov", "krylov_last_state", "krylov_naive"]


def krylov_naive(Ab: Tensor, x: Tensor, L: int) -> Tensor:
    """Multiply x by Ab again and again and keep every result: the judge of `krylov`.

    Args:
        Ab  (..., N, N)  discrete state matrix
        x   (..., N)     where it starts
        L   int          number of columns, >= 1
    Returns:
        X  (..., N, L)  column l is Ab^l x
    Raises:
        TypeError: if one is no floating or complex tensor, or L no int.
        ValueError: if shapes or devices do not fit, or L < 1.

    Cost:   2 N^2 (L - 1) operations in L - 1 products, one after the other.
    Source: Gu et al. 2021 (LSSL), sec. 3; our eq-lmu-table.
    """
    batch, dtype = recurrence.check_system(Ab, x, x)
    check_length(L)
    Ab, X = Ab.to(dtype), [x.to(dtype).expand(*batch, -1)]
    for _ in range(L - 1):
        X.append((Ab @ X[-1][..., None])[..., 0])
    return torch.stack(X, -1)


def krylov(Ab: Tensor, x: Tensor, L: int) -> Tensor:
    """Multiply x by all powers of Ab below L, by doubling: [X, Ab^p X], again and again.

    Args:
        Ab  (..., N, N)  discrete state matrix
        x   (..., N)     where it starts
        L   int          number of columns, >= 1
    Returns:
        X  (..., N, L)  column l is Ab^l x
    Raises:
        TypeError: if one is no floating or complex tensor, or L no int.
        ValueError: if shapes or devices do not fit, or L < 1.

    Error:  to first order at most L N (N + 1) eps times the largest column if Ab is a contraction
            (in practice a few eps); without bound if it is unstable.
    Cost:   2 N^2 (L - 1) operations and about log2(L) squarings of 2 N^3; N L numbers are kept.
    Source: Gu et al. 2021 (LSSL), sec. 3; our eq-lssl-doubling, eq-lssl-rounding.
    """
    batch, dtype = recurrence.check_system(Ab, x, x)
    check_length(L)
    P, X = Ab.to(dtype), x.to(dtype).expand(*batch, -1)[..., None]
    while X.shape[-1] < L:
        X = torch.cat([X, P @ X[..., : L - X.shape[-1]]], -1)
        P = P @ P if X.shape[-1] < L else P
    return X


def _check_steps(steps: Tensor, x: Tensor, most: int) -> None:
    """Raise unless `steps` are whole numbers from 0 to `most` (where `can_look`), one a state."""
    check_length(most, "most")
    if not isinstance(steps, Tensor) or steps.dtype not in (torch.int32, torch.int64):
        got = steps.dtype if isinstance(steps, Tensor) else type(steps).__name__
        raise TypeError(f"want steps as a tensor of whole numbers, int32 or int64, got {got}")
    if steps.device != x.device or steps.shape not in ((), x.shape[:-1]):
        got = f"{tuple(steps.shape)} on {steps.device} for x {tuple(x.shape)} on {x.device}"
        raise ValueError(f"want steps () or one for each state x, got {got}")
    if can_look(steps) and not bool(((steps >= 0) & (steps <= most)).all()):
        raise ValueError(f"want steps from 0 to most = {most}, got {steps.tolist()!r:.60}")


def advance(Ab: Tensor, x: Tensor, steps: Tensor, most: int) -> Tensor:
    """Take many steps at once without input, each state its own number of them.

    Args:
        Ab     (..., N, N)  discrete state matrix
        x      (..., N)     the states
        steps  (...)        whole numbers from 0 to `most`, one a state x, or one for all, ()
        most   int          a bound on them, >= 1
    Returns:
        x  (..., N)  Ab^steps x
    Raises:
        TypeError: if Ab or x is no floating or complex tensor, steps no tensor of int32 or int64,
            or most no int.
        ValueError: if shapes or devices do not fit, most < 1, or (where `can_look`) steps are < 0
            or > most.

    Cost:   log2(most) squarings of Ab: the binary digits of `steps` say which of them act.
    Source: our eq-lssl-doubling.
    """
    _, dtype = recurrence.check_system(Ab, x, x)
    _check_steps(steps, x, most)
    P, x, steps = Ab.to(dtype), x.to(dtype), steps[..., None]
    for bit in range(most.bit_length()):
        x = torch.where((steps >> bit) % 2 == 1, (P @ x[..., None])[..., 0], x)
        P = P @ P if most >> (bit + 1) else P
    return x


def _backwards(u: Tensor, lengths: Tensor | list[int] | None) -> tuple[Tensor, Tensor]:
    """Read u (..., L) from its end, or each row from its own, zeros behind; and the lengths."""
    if lengths is None:
        return u.flip(-1), torch.full((), u.shape[-1], device=u.device)
    if u.ndim != 3:
        raise ValueError(f"want u (batch, H, L) where lengths are given, got {tuple(u.shape)}")
    batch, H, L = u.shape
    ends = check_ends(lengths, batch, L, u.device)[:, None].expand(batch, H)
    at = ends[..., None] - 1 - torch.arange(L, device=u.device)
    return u.gather(-1, at.clamp(min=0)) * (at >= 0), ends


def krylov_last_state(
    Ab: Tensor,
    Bb: Tensor,
    u: Tensor,
    x: Tensor | None = None,
    lengths: Tensor | list[int] | None = None,
) -> Tensor:
    """Compute the state after a signal, without walking along it.

    Args:
        Ab       (..., N, N)  discrete state matrix
        Bb       (..., N)     discrete input vector
        u        (..., L)     the signal
        x        (..., N)     the state before it; at rest if None
        lengths  (batch,)     whole numbers from 1 to L: u is (batch, H, L), padded on the right
    Returns:
        x  (..., N)  Ab^L x + sum over j of Ab^(L - 1 - j) Bb u_j, in a dtype that holds all four
    Raises:
        TypeError, ValueError: if tensors, shapes, devices or lengths do not fit.

    Cost:   the table of `krylov`, and one matrix-vector product a signal.
    Source: Chilkuri and Eliasmith 2021, eqs. (18) to (26); our eq-lmu-last.
    """
    batch, dtype = recurrence.check_system(Ab, Bb, Bb if x is None else x)
    check_tensors(Ab=Ab, u=u)
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    try:
        torch.broadcast_shapes(batch, u.shape[:-1])
    except RuntimeError:
        got = f"system and state {tuple(batch)}, u {tuple(u.shape)}"
        raise ValueError(f"want leading axes that broadcast, got {got}") from None
    dtype, (back, ends) = torch.promote_types(dtype, u.dtype), _backwards(u, lengths)
    table = krylov(Ab.to(dtype), Bb, u.shape[-1])
    last = torch.einsum("...nl,...l->...n", table, back.to(dtype))
    return last if x is None else last + advance(Ab.to(dtype), x, ends, u.shape[-1])
