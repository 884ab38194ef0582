"""Walk along a signal with a discrete state space, one sample at a time.

Home: chapter 04, "Three views" (chapters/04_three_views.ipynb).
"""

import torch
from torch import Tensor

from s4lite.ops.checks import check_length, check_tensors

__all__ = ["check_system", "recur", "step"]


def check_system(Ab: Tensor, Bb: Tensor, C: Tensor) -> tuple[torch.Size, torch.dtype]:
    """Raise unless Ab, Bb, C make one discrete system; say its leading axes and its dtype.

    Args:
        Ab  (..., N, N)  discrete state matrix
        Bb  (..., N)     discrete input vector
        C   (..., N)     output vector
    Returns:
        batch  the shape to which the leading axes broadcast
        dtype  the dtype that can hold all three
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if the shapes do not fit, N = 0, or the devices differ.
    """
    check_tensors(Ab=Ab, Bb=Bb, C=C)
    got = f"{tuple(Ab.shape)}, {tuple(Bb.shape)}, {tuple(C.shape)}"
    N = Ab.shape[-1] if Ab.ndim > 1 else 0
    if N == 0 or Ab.shape[-2] != N or Bb.shape[-1:] != (N,) or C.shape[-1:] != (N,):
        raise ValueError(f"want Ab (..., N, N), Bb (..., N), C (..., N), N >= 1; got {got}")
    try:
        batch = torch.broadcast_shapes(Ab.shape[:-2], Bb.shape[:-1], C.shape[:-1])
    except RuntimeError:
        raise ValueError(f"want leading axes of Ab, Bb, C that broadcast; got {got}") from None
    return batch, torch.promote_types(torch.promote_types(Ab.dtype, Bb.dtype), C.dtype)


def step(Ab: Tensor, Bb: Tensor, C: Tensor, u_t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Take one sample in, move the state on, give one sample out.

    Args:
        Ab   (..., N, N)  discrete state matrix
        Bb   (..., N)     discrete input vector
        C    (..., N)     output vector
        u_t  (...)        the input sample
        x    (..., N)     the state before it
    Returns:
        y_t  (...)        the output sample, C x
        x    (..., N)     the state after it, Ab x + Bb u_t
    Raises:
        TypeError: if an argument is no floating or complex tensor.
        ValueError: if shapes or devices do not fit.

    Cost:   N^2 + 2 N multiplications, and no memory but the state.
    Source: Gu et al. 2022 (S4), eq. (3); our eq-views-recurrence.
    """
    batch, dtype = check_system(Ab, Bb, C)
    check_tensors(Ab=Ab, u_t=u_t, x=x)
    if x.shape[-1:] != Bb.shape[-1:]:
        raise ValueError(f"want x (..., {Bb.shape[-1]}), got {tuple(x.shape)}")
    try:
        batch = torch.broadcast_shapes(batch, u_t.shape, x.shape[:-1])
    except RuntimeError:
        got = f"{tuple(batch)}, u_t {tuple(u_t.shape)}, x {tuple(x.shape)}"
        raise ValueError(f"want leading axes that broadcast; got system {got}") from None
    dtype = torch.promote_types(dtype, torch.promote_types(u_t.dtype, x.dtype))
    x = (Ab.to(dtype) @ x.to(dtype)[..., None])[..., 0] + Bb * u_t[..., None]
    return (C * x).sum(-1), x.expand(*batch, -1)


def recur(
    Ab: Tensor, Bb: Tensor, C: Tensor, u: Tensor, x0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Walk along the signal, one `step` after the other.

    Args:
        Ab  (..., N, N)  discrete state matrix
        Bb  (..., N)     discrete input vector
        C   (..., N)     output vector
        u   (..., L)     input signal
        x0  (..., N)     the state before the first sample; at rest if None
    Returns:
        y       (..., L)  output signal
        x_last  (..., N)  the state after the last sample: the x0 of what comes next
    Raises:
        TypeError: as `step` does.
        ValueError: as `step` does, and if L = 0.

    Cost:   L steps of N^2 + 2 N multiplications, one after the other.
    Source: Gu et al. 2022 (S4), eq. (3); our eq-views-recurrence.
    """
    check_system(Ab, Bb, C)
    check_tensors(Ab=Ab, u=u)
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    x, y = torch.zeros_like(Bb) if x0 is None else x0, []
    for u_t in u.unbind(-1):
        y_t, x = step(Ab, Bb, C, u_t, x)
        y.append(y_t)
    return torch.stack(y, -1), x
