"""The state of a diagonal system: one step, what is left of it, where it ends.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

import torch
from torch import Tensor

from s4lite.ops.checks import check_axes, check_ends, check_length, check_tensors
from s4lite.ops.vandermonde import vandermonde, vandermonde_transpose

__all__ = ["diag_last_state", "diag_response", "diag_step"]


def diag_step(nu: Tensor, Bb: Tensor, C: Tensor, u_t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Take one sample in, move a diagonal state on, give one sample out.

    Args:
        nu   (..., n)  logarithm of Ab, complex128, from `log_discretize`
        Bb   (..., n)  discrete input weights                              [state/input]
        C    (..., n)  output weights, not conjugated                      [output/state]
        u_t  (...)     the input sample, real                              [input]
        x    (..., n)  the state before it, complex                        [state]
    Returns:
        y_t  (...)     the output sample, 2 Re C x, in x's precision       [output]
        x    (..., n)  the state after it, Ab x + Bb u_t, in x's dtype     [state]
    Raises:
        TypeError: if nu or x is no complex tensor, u_t no real one, or Bb, C no tensors.
        ValueError: if shapes or devices do not fit.

    Error:  one rounding of the state a step; coefficients and sums are float64.
    Source: Gu et al. 2022 (S4), eq. (3); our eq-layer-step.
    """
    check_axes({"u_t": u_t}, nu=nu, Bb=Bb, C=C, x=x)
    if not (nu.is_complex() and x.is_complex()) or u_t.is_complex():
        raise TypeError(f"want nu, x complex, u_t real, got {nu.dtype}, {x.dtype}, {u_t.dtype}")
    after = nu.exp() * x + Bb * u_t[..., None]
    return 2 * (C * after).sum(-1).real.to(x.real.dtype), after.to(x.dtype)


def diag_response(nu: Tensor, C: Tensor, x: Tensor, L: int) -> Tensor:
    """Compute what an earlier state still says while no input comes.

    Args:
        nu  (..., n)  logarithm of Ab, complex128, from `log_discretize`
        C   (..., n)  output weights, not conjugated  [output/state]
        x   (..., n)  the state before sample 0       [state]
        L   int       samples, >= 1
    Returns:
        y  (..., L)  2 Re C Ab^(l + 1) x, real, in x's precision  [output]
    Raises:
        TypeError: if nu or x is no complex tensor, C no tensor, or L no int.
        ValueError: if shapes or devices do not fit, nu is not finite with Re <= 0, or L < 1.

    Source: our eq-layer-state.
    """
    check_axes({}, nu=nu, C=C, x=x)
    if not x.is_complex():
        raise TypeError(f"want x complex, got {x.dtype}")
    return vandermonde(C * nu.exp() * x, nu, L, x.real.dtype)


def _from_the_end(
    nu: Tensor, Bb: Tensor, u: Tensor, x: Tensor | None, lengths: Tensor | list[int] | None
) -> tuple[Tensor, Tensor]:
    """Look at all arguments; read u backwards from each end, and take as many steps of nu."""
    check_tensors(u=u)
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    start = {} if x is None else {"x": x}
    check_axes({"u[..., 0]": u[..., 0]}, nu=nu, Bb=Bb, **start)
    if start and not x.is_complex():
        raise TypeError(f"want x complex, got {x.dtype}")
    L = u.shape[-1]
    if lengths is None:
        return u.flip(-1), L * nu
    if u.ndim != 3:
        raise ValueError(f"want u (batch, H, L) where lengths are given, got {tuple(u.shape)}")
    ends = check_ends(lengths, u.shape[0], L, u.device)[:, None, None]
    at = ends - 1 - torch.arange(L, device=u.device)  # sample L_b - 1 - j of sequence b: to place j
    return u.gather(-1, at.clamp(min=0).expand(u.shape)) * (at >= 0), ends * nu


def diag_last_state(
    nu: Tensor,
    Bb: Tensor,
    u: Tensor,
    x: Tensor | None = None,
    lengths: Tensor | list[int] | None = None,
) -> Tensor:
    """Compute the state after a signal, without walking along it.

    Args:
        nu       (..., n)  logarithm of Ab, complex128, from `log_discretize`
        Bb       (..., n)  discrete input weights  [state/input]
        u        (..., L)  the signal, real        [input]
        x        (..., n)  the state before it; at rest if None  [state]
        lengths  (batch,)  whole numbers from 1 to L: u is (batch, H, L), padded on the right
    Returns:
        x  (..., n)  Ab^L x + sum over j of Ab^(L - 1 - j) Bb u_j, in u's precision  [state]
    Raises:
        TypeError: if nu or x is no complex tensor, u no real one, or lengths no whole numbers.
        ValueError: if shapes or devices do not fit, nu is not finite with Re <= 0, u is empty,
            or lengths are not one a sequence, from 1 to L.

    Error:  that of one matrix product in u's precision; exponents are float64.
    Source: our eq-layer-state.
    """
    back, steps = _from_the_end(nu, Bb, u, x, lengths)
    last = Bb * vandermonde_transpose(back.contiguous(), nu)
    last = last if x is None else last + steps.exp() * x
    return last.to(torch.promote_types(u.dtype, torch.complex64))
