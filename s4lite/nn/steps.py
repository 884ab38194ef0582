"""One step at a time: what a step multiplies by is kept, with a copy of what it was made from.

Home: chapter 14, "One step at a time" (chapters/14e_steps.ipynb).
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s4lite.nn.kept import is_eager, is_itself, is_plain, kept
from s4lite.ops.chunk import _diag_operators, _dplr_operators
from s4lite.ops.chunk_walk import _run, _System
from s4lite.ops.dplr import _inverse, _plane, _real_row, dplr_discretize
from s4lite.ops.dplr_state import _squares

__all__ = ["Fold", "diag_fold", "dplr_fold", "kept_block", "kept_step", "take_step"]


class Fold(NamedTuple):
    """What one step of H systems multiplies by: x' = E x + sum of W Re(V x) + Bb u, and 2 Re C x'.

    E      (H, n)     complex128, what is left of each mode
    Bb     (H, n, 2)  float64, input weights as real pairs      [state/input]
    signs  (2n,)      float64, 2, -2, 2, -2, ...: how pairs of C x' are summed
    loops  tuple      pairs V, W (H, n, 2), float64, one for each rank; none if diagonal
    """

    E: Tensor
    Bb: Tensor
    signs: Tensor
    loops: tuple[tuple[Tensor, Tensor], ...] = ()


def _signs(like: Tensor) -> Tensor:
    """2, -2, ...: with these the pairs of C x' (..., n, 2) make up 2 Re C x'."""
    return torch.tensor([2.0, -2.0], dtype=torch.float64, device=like.device).repeat(like.shape[-1])


def diag_fold(nu: Tensor, Bb: Tensor) -> Fold:
    """Prepare the step of diagonal systems.

    Args:
        nu  (H, n)  logarithm of Ab, complex128, from `log_discretize`
        Bb  (H, n)  discrete input weights, complex128  [state/input]
    Returns:
        fold  Fold  for `take_step`

    Source: our eq-layer-step, eq-steps-fold.
    """
    return Fold(nu.exp(), torch.view_as_real(Bb).contiguous(), _signs(nu))


def dplr_fold(Lambda: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> Fold:
    """Prepare the step of diagonal plus low rank systems, bilinear: no fraction is left in it.

    Args:
        Lambda, B  (H, n)     poles, input weights, complex128  [1/time], [state/(input time)]
        P          (H, n, r)  low rank factor, complex128: A = Lambda - P P^*
        dt         (H,)       step size, float64                [time]
    Returns:
        fold  Fold  for `take_step`, with r loops

    Source: Gu et al. 2022 (S4), appendix C.2; our eq-steps-fold.
    """
    d, dP, G = _inverse(dt, Lambda, P)
    heard = 2 * (d[..., None] * P.conj()).mT  # 2 P^* d, whose real part hears 2 Re(P^* d x)
    V = torch.linalg.solve_ex(G, torch.cat([heard.real, -heard.imag], -1))[0]
    V, W = torch.stack(V.chunk(2, -1), -1), -dt[..., None, None] * dP.mT
    half = dt[..., None] / 2 * B
    back = (V * torch.view_as_real(half)[..., None, :, :]).sum((-2, -1))
    Bb = torch.view_as_real(2 * d * half + (back[..., None] * W).sum(-2))
    loops = zip(V.unbind(-3), torch.view_as_real(W).unbind(-3), strict=True)
    loops = tuple((v.contiguous(), w.contiguous()) for v, w in loops)
    return Fold(2 * d - 1, Bb, _signs(d), loops)


_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def take_step(fold: Fold, C: Tensor, u_t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Move states on by one sample, with coefficients made before: a dozen operations.

    Args:
        fold  Fold        of H systems
        C     (H, n, 2)   output weights as real pairs, not conjugated  [output/state]
        u_t   (..., H)    the input sample, real                        [input]
        x     (..., H, n) the state before it, complex64 or complex128  [state]
    Returns:
        y_t  (..., H)     the output sample, 2 Re C x, in x's precision  [output]
        x    (..., H, n)  the state after it, in x's dtype               [state]

    Error:  one rounding of the state a step; coefficients and sums are float64.
    Cost:   8 + 2 + 4 operations a mode, and 8 for each rank; no gradients.
    Source: our eq-steps-fold.
    """
    before = x.to(torch.complex128)
    pairs = torch.view_as_real(before)
    heard = [(V * pairs).sum((-2, -1), keepdim=True) for V, _ in fold.loops]
    after = before * fold.E if before is x else before.mul_(fold.E)
    moved = torch.view_as_real(after)
    moved.addcmul_(fold.Bb, u_t.double().reshape(*u_t.shape, 1, 1))
    for (_, W), s in zip(fold.loops, heard, strict=True):
        moved.addcmul_(W, s)
    x = after.to(x.dtype)
    said = moved * C if x is after else moved.mul_(C.double())  # `after` has been handed on, or not
    said = torch.mv(said.reshape(-1, len(fold.signs)), fold.signs)
    return said.view(u_t.shape).to(_REAL[x.dtype]), x


def _key(kernel: nn.Module, what: str, rate: float) -> tuple | None:
    """All but parameters that a kernel's coefficients depend on; None if that cannot be known."""
    if not is_eager() or type(rate) not in (float, int):
        return None
    if not is_itself(kernel):
        return None
    return what, rate, *map(kernel.__dict__.get, ("d_model", "clock", "disc"))


def _is_moment(u_t: Tensor, x: Tensor, grad: bool) -> bool:
    """Are these a real sample (..., H) and a complex state (..., H, n), with nothing special?"""
    if type(u_t) is not Tensor or type(x) is not Tensor or not (u_t.is_cpu and x.is_cpu):
        return False
    if x.dtype not in _REAL or x.is_conj() or u_t.shape != x.shape[:-1]:
        return False
    return u_t.is_floating_point() and not (grad and (u_t.requires_grad or x.requires_grad))


def kept_step(
    kernel: nn.Module, u_t: Tensor, x: Tensor, rate: float, gaps: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Take one step of a kernel with coefficients that are kept, if that is possible here.

    Args:
        kernel  DiagKernel or DPLRKernel  any that says itself how it is `folded`
        u_t     (batch, H)       the input sample           [input]
        x       (batch, H, n)    the state before it        [state]
        rate    float            > 0, multiplies the clocks
        gaps    None or (batch,) times since the sample before; with these nothing is kept
    Returns:
        y_t, x  as `take_step`; None: gaps, gradients, a compiler, an accelerator, odd arguments
    Raises:
        TypeError, ValueError: if the rate is not finite and > 0.

    Source: our eq-steps-fold, eq-steps-kept.
    """
    key = _key(kernel, "step", rate) if gaps is None else None
    if key is None or not _is_moment(u_t, x, grad := torch.is_grad_enabled()):
        return None
    C = kernel._parameters.get("C")
    if C is None or not is_plain(C, grad):
        return None
    fold = kept(kernel, key, lambda twin: twin.folded(rate), ("C",))
    if fold is None or x.shape[-2:] != fold.E.shape:
        return None
    return take_step(fold, C[0], u_t, x)


_LONGEST = 512  # samples in a block that is walked in kept chunks


@functools.cache
def _chunk_length(L: int) -> int:
    """The largest divisor of L up to 64, or 0 if there is no good one."""
    T = max(t for t in range(1, min(L, 64) + 1) if L % t == 0)
    return T if L <= _LONGEST and (T >= 16 or T == L) else 0


def _operators(kernel: nn.Module, T: int, rate: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The matrices of one chunk of T samples: eq-chunk-view."""
    if hasattr(kernel, "system"):
        nu, Bb, C = kernel.system(rate)
        return _diag_operators(nu, Bb, C[0], T, dtype)
    Lambda, P, B, C = kernel.modes()
    Ab, Bb = dplr_discretize(Lambda, P, B, kernel.steps(rate))
    return _dplr_operators(Ab, Bb, _real_row(C[0]), _squares(Ab, T), T, dtype)


def kept_block(
    kernel: nn.Module, u: Tensor, x: Tensor | None, rate: float
) -> tuple[Tensor, Tensor] | None:
    """Run a kernel over a short block with chunks that are kept, if that is possible here.

    Args:
        kernel, rate           as for `kept_step`
        u       (batch, H, L)  the samples, in the kernel's real dtype  [input]
        x       (batch, H, n)  the state before them; at rest if None   [state]
    Returns:
        y, x  as `kernel.chunks`; None: as for `kept_step`, or a length without a good divisor
    Raises:
        TypeError, ValueError: if the rate is not finite and > 0.

    Error:  some eps of u's dtype; the hand-over is float64, eq-chunk-drift.
    Source: our eq-chunk-view, eq-steps-kept.
    """
    key = _key(kernel, "block", rate)
    if key is None or not (T := _chunk_length(u.shape[-1])) or u.dtype != kernel.real_dtype:
        return None
    if torch.is_grad_enabled() and (u.requires_grad or (x is not None and x.requires_grad)):
        return None
    chunk = kept(kernel, (*key, T, u.dtype), lambda twin: _operators(twin, T, rate, u.dtype))
    if chunk is None or type(u) is not Tensor:
        return None
    M = chunk[2]
    start = M.new_zeros(*u.shape[:-1], M.shape[-1])
    if x is not None:
        start = x.to(M.dtype) if M.is_complex() else _plane(x.to(torch.complex128))
    y, last = _run(_System(chunk, None, None), u, start, None)  # all chunks are full
    last = last if M.is_complex() else torch.complex(*last.chunk(2, -1)) / math.sqrt(2)
    return y, last.to(torch.promote_types(u.dtype, torch.complex64))
