"""Sums of fractions with common poles: the spectrum of a diagonal plus low rank system.

Home: chapter 10, "Cauchy and Woodbury, with half the angle"
(chapters/10_cauchy_woodbury.ipynb).
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s4lite.ops.checks import check_axes, check_tensors
from s4lite.ops.recomputed import sum_fractions
from s4lite.ops.vandermonde import _real_product

__all__ = ["cauchy", "cauchy_naive", "dplr_spectrum"]


def cauchy_naive(v: Tensor, l: Tensor, w: Tensor) -> Tensor:
    """Sum fractions over conjugate pairs, every one written down: the judge of `cauchy`.

    Args:
        v  (..., J, n)  numerators of J sums, one of each pair
        l  (..., n)     poles times step size, one of each pair
        w  (K,)         half angles of the nodes, complex
    Returns:
        rho  (..., J, K)  sum_n v_n / (2 s - c l_n) + v_n^* / (2 s - c l_n^*), complex,
                          with s = sinh w, c = cosh w
    Raises:
        TypeError: as `cauchy` does.
        ValueError: as `cauchy` does.

    Cost:   two tables of (..., n, K) fractions.
    Source: Gu et al. 2022 (S4), appendix C.3; our eq-cauchy-circle.
    """
    _check_sums(v, l, w)
    dtype = torch.promote_types(v.dtype, w.dtype)
    s, c = torch.sinh(w), torch.cosh(w)
    table = [1 / (2 * s - c * pole[..., None]) for pole in (l, l.conj())]  # (..., n, K)
    return v.to(dtype) @ table[0].to(dtype) + v.to(dtype).conj() @ table[1].to(dtype)


def _check_sums(v: Tensor, l: Tensor, w: Tensor) -> None:
    """Raise unless v (..., J, n), l (..., n) and w (K,) fit, and l and w are complex."""
    check_tensors(v=v, l=l, w=w)
    if v.ndim < 2 or 0 in v.shape[-2:]:
        raise ValueError(f"want v (..., J, n) with J, n >= 1, got {tuple(v.shape)}")
    check_axes({}, **{"v[..., 0, :]": v[..., 0, :]}, l=l)
    if w.ndim != 1 or not len(w):
        raise ValueError(f"want w (K,), one half angle a node, got {tuple(w.shape)}")
    if not (l.is_complex() and w.is_complex()):
        raise TypeError(f"want l and w complex, got {l.dtype} and {w.dtype}")


_TILE = 2**18  # entries of F that exist at a time


def _fold(v: Tensor, l: Tensor, w: Tensor) -> Tensor:
    """One tile of `cauchy`, eq-cauchy-fold: all but the nodes themselves in the precision of v."""
    s, c = torch.sinh(w).to(v.dtype), torch.cosh(w).to(v.dtype)
    p, q = torch.broadcast_tensors(2 * v.real, -2 * (v * l.conj()[..., None, :]).real)
    middle, last = l.real[..., None] * (4 * s * c), (l.real**2 + l.imag**2)[..., None] * (c * c)
    F = torch.view_as_real((4 * s * s - middle + last).reciprocal()).flatten(-2)  # (..., n, 2 K)
    sums = _real_product(torch.cat([p, q], -2), F).unflatten(-1, (-1, 2))
    P, Q = torch.view_as_complex(sums.contiguous()).chunk(2, -2)
    return 2 * s * P + c * Q


def _may_recompute() -> bool:
    """Is a backward pass to come, for which tiles can be made again?"""
    if torch.compiler.is_compiling():
        return torch.is_grad_enabled()
    return torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()


def _by_tiles(
    work: Callable[[Tensor, Tensor, Tensor], Tensor], v: Tensor, l: Tensor, w: Tensor
) -> Tensor:
    """Compute work(v, l, w), nodes on the last axis, a tile of nodes at a time."""
    systems = math.prod(torch.broadcast_shapes(v.shape[:-2], l.shape[:-1]))
    width = max(1, _TILE // max(1, systems * l.shape[-1]))
    if width >= len(w) or not _may_recompute():
        return torch.cat([work(v, l, part) for part in w.split(width)], -1)
    again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(work, v, l, part) for part in w.split(width)], -1)


def cauchy(v: Tensor, l: Tensor, w: Tensor) -> Tensor:
    """Sum fractions over conjugate pairs in real arithmetic, tile by tile.

    Args:
        v  (..., J, n)  numerators of J sums, one of each pair
        l  (..., n)     poles times step size, one of each pair, complex
        w  (K,)         half angles of the nodes, complex128, from `half_angles`
    Returns:
        rho  (..., J, K)  sum_n v_n / (2 s - c l_n) + v_n^* / (2 s - c l_n^*), with s = sinh w,
                          c = cosh w, in the precision that can hold v and l
    Raises:
        TypeError: if an argument is no floating or complex tensor, or l or w is real.
        ValueError: if shapes or devices do not fit.

    Error:  a few eps (|2 s| + |c l|) / |2 s - c l| of each fraction: digits go next to a pole;
            eps of float64 and one rounding (inside torch.compile and torch.func: v's own eps).
    Cost:   about 16 + 8 J operations a pair and node; 2^18 fractions, or one node's, exist at a
            time, backward included (not inside torch.func transforms).
    Source: our eq-cauchy-fold; Gu et al. 2022 (S4), appendix C.3.
    """
    _check_sums(v, l, w)
    dtype = torch.promote_types(torch.promote_types(v.dtype, l.dtype), torch.complex64)
    twin = functools.partial(_by_tiles, _fold)
    return sum_fractions(v.to(dtype), l.to(dtype), w, twin=twin)


def _without_wires(v: Tensor, l: Tensor, w: Tensor) -> Tensor:
    """One tile of `dplr_spectrum`: all (r + 1)^2 sums, then eq-cauchy-wires."""
    size, c = math.isqrt(v.shape[-2]), torch.cosh(w).to(v.dtype)  # size = r + 1
    rho = _fold(v, l, w).unflatten(-2, (size, size))
    for j in range(size - 1, 0, -1):
        loop = c / (1 + c * rho[..., j, j, :])
        into, out = rho[..., j, None, :j, :], rho[..., :j, j, None, :]
        rho = rho[..., :j, :j, :] - out * into * loop[..., None, None, :]
    return torch.exp(w).to(v.dtype) * rho[..., 0, 0, :]


def dplr_spectrum(
    Lambda: Tensor, P: Tensor, B: Tensor, Ct: Tensor, dt: Tensor, w: Tensor, dtype: torch.dtype
) -> Tensor:
    """Spectrum of a diagonal plus low rank kernel: (r + 1)^2 sums, and r wires removed.

    Args:
        Lambda  (..., n)     poles, one of each conjugate pair        [1/time]
        P       (..., n, r)  low rank factor: A = Lambda - P P^*
        B       (..., n)     input weights                            [state/(input time)]
        Ct      (..., n)     the row C (I - e^-tau Ab^L) for the tau of w
        dt      (...)        step size, a real tensor                 [time]
        w       (K,)         half angles, complex128
        dtype   complex      precision of the sums
    Returns:
        K_hat  (..., K)  sum over l < L of K_l e^(-2 w l), complex
    Raises:
        TypeError, ValueError: as `cauchy` does.

    Source: Gu et al. 2022 (S4), Algorithm 1; our eq-cauchy-circle, eq-cauchy-wires.
    """
    r, n = P.shape[-1], Lambda.shape[-1]
    batch = torch.broadcast_shapes(Ct.shape[:-1], B.shape[:-1], P.shape[:-2])
    left = torch.cat([Ct[..., None, :].expand(*batch, 1, n), P.mH.expand(*batch, r, n)], -2)
    right = torch.cat([B[..., None, :].expand(*batch, 1, n), P.mT.expand(*batch, r, n)], -2)
    v = (left[..., :, None, :] * right[..., None, :, :]).flatten(-3, -2) * dt[..., None, None]
    v, l = v.to(dtype), (dt[..., None] * Lambda).to(dtype)
    _check_sums(v, l, w)
    twin = functools.partial(_by_tiles, _without_wires)
    return sum_fractions(v, l, w, wires=True, twin=twin)
