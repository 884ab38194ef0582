"""Sums of exponentials as a Triton kernel: the kernel of a diagonal system, and its gradient.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import check_axes, check_exponents, check_length
from s4lite.ops.triton.backend import _derive, _transformed, choose_backend, compiled
from s4lite.ops.vandermonde import vandermonde

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["exponential_sums"]


def _fixed_turns(nu: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Re nu in float32, Im nu in 2^-64 turns (int64), both padded with zeros to N modes."""
    turns = nu.imag / (2 * math.pi)
    fixed = ((turns - turns.round()) * 2.0**62).round().long() << 2
    padding = (0, N - nu.shape[-1])
    return F.pad(nu.real.float(), padding).contiguous(), F.pad(fixed, padding).contiguous()


def _wave(l, decay, turns):
    """Helper of kernels: e^(l nu) for integers l, real and imaginary part; broadcasts."""
    angle = (l.to(tl.int64) * turns >> 32).to(tl.float32) * 1.4629180792671596e-09  # 2 pi / 2^32
    size = tl.exp(l.to(tl.float32) * decay)
    return size * tl.cos(angle), size * tl.sin(angle)


def _exponentials_kernel(
    w, rate, turn, out, L, N: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, PREC: tl.constexpr
):
    """Q rows of R lags: out[l] = Re sum_n w_n exp(l nu_n), with l = q R + j, as one product."""
    h, q = tl.program_id(0), tl.program_id(1) * Q + tl.arange(0, Q)
    j, k = tl.arange(0, R), tl.arange(0, N)
    decay, turns = tl.load(rate + h * N + k), tl.load(turn + h * N + k)
    w_re, w_im = tl.load(w + 2 * h * N + k), tl.load(w + 2 * h * N + N + k)
    e_re, e_im = _wave((q * R)[:, None], decay[None, :], turns[None, :])
    x_re, x_im = w_re * e_re - w_im * e_im, w_re * e_im + w_im * e_re
    e_re, e_im = _wave(j[None, :], decay[:, None], turns[:, None])
    K = tl.dot(x_re, e_re, input_precision=PREC)
    K = tl.dot(-x_im, e_im, K, input_precision=PREC)
    l = (q * R)[:, None] + j[None, :]
    tl.store(out + h.to(tl.int64) * L + l, K, mask=l < L)


def _moments_kernel(
    g, rate, turn, out, L, H, N: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, PREC: tl.constexpr
):
    """Moments of Q rows: sums over l of g_l exp(l nu) and of l g_l exp(l nu)."""
    h, q = tl.program_id(0), tl.program_id(1) * Q + tl.arange(0, Q)
    j, k = tl.arange(0, R), tl.arange(0, N)
    decay, turns = tl.load(rate + h * N + k), tl.load(turn + h * N + k)
    l, far = (q * R)[:, None] + j[None, :], (q * R).to(tl.float32)[:, None]
    G = tl.load(g + h.to(tl.int64) * L + l, mask=l < L, other=0.0)
    e_re, e_im = _wave(j[:, None], decay[None, :], turns[None, :])
    s_re = tl.dot(G, e_re, input_precision=PREC)
    s_im = tl.dot(G, e_im, input_precision=PREC)
    G = G * j.to(tl.float32)[None, :]
    t_re = tl.dot(G, e_re, far * s_re, input_precision=PREC)
    t_im = tl.dot(G, e_im, far * s_im, input_precision=PREC)
    e_re, e_im = _wave((q * R)[:, None], decay[None, :], turns[None, :])
    at = out + (tl.program_id(1) * H + h).to(tl.int64) * 4 * N + k
    tl.store(at, tl.sum(e_re * s_re - e_im * s_im, 0))
    tl.store(at + N, tl.sum(e_re * s_im + e_im * s_re, 0))
    tl.store(at + 2 * N, tl.sum(e_re * t_re - e_im * t_im, 0))
    tl.store(at + 3 * N, tl.sum(e_re * t_im + e_im * t_re, 0))


class _ExponentialSums(torch.autograd.Function):
    """Forward and backward of `exponential_sums` for w, nu (S, n)."""

    @staticmethod
    def forward(ctx, w, nu, L, precision):
        N, R, Q = max(16, 1 << (nu.shape[-1] - 1).bit_length()), 64, 16
        tables = _fixed_turns(nu, N)
        planes = torch.view_as_real(w.to(torch.complex64)).movedim(-1, -2)
        planes = F.pad(planes, (0, N - nu.shape[-1])).contiguous()
        K = torch.empty(len(nu), L, dtype=torch.float32, device=nu.device)
        ctx.grid, ctx.tile = (len(nu), -(-L // (R * Q))), {"N": N, "Q": Q, "R": R}
        ctx.tile["PREC"] = precision
        with torch.cuda.device_of(K):
            compiled(_exponentials_kernel)[ctx.grid](planes, *tables, K, L, **ctx.tile)
        ctx.save_for_backward(w, nu, *tables)
        return K

    @staticmethod
    def backward(ctx, g):
        w, nu, *tables = ctx.saved_tensors
        if torch.is_grad_enabled():
            L = g.shape[-1]
            found = _derive(lambda w, nu: [vandermonde(w / 2, nu, L).float()], (w, nu), (g,))
            return *found, None, None
        (S, blocks), N = ctx.grid, ctx.tile["N"]
        out = torch.empty(blocks, S, 4, N, dtype=torch.float32, device=nu.device)
        with torch.cuda.device_of(out):
            compiled(_moments_kernel)[ctx.grid](
                g.contiguous(), *tables, out, g.shape[-1], S, **ctx.tile
            )
        re0, im0, re1, im1 = out.sum(0)[..., : nu.shape[-1]].double().unbind(-2)
        by_w, by_nu = torch.complex(re0, im0).conj(), (w * torch.complex(re1, im1)).conj()
        return by_w.to(w.dtype), by_nu, None, None


def exponential_sums(
    w: Tensor, nu: Tensor, L: int, *, backend: str = "auto", precision: str = "tf32x3"
) -> Tensor:
    """Sum exponentials, 2 Re sum_n w_n e^(l nu_n) for l = 0 .. L-1, in float32.

    Args:
        w          (..., n)  weights, complex
        nu         (..., n)  exponents, complex128, Re <= 0
        L          int       number of lags, >= 1
        backend    str       "auto", "torch" (that is `vandermonde`) or "triton"
        precision  str       of Triton's products on a GPU: "tf32x3", "ieee" or "tf32"
    Returns:
        K  (..., L)  the sums, float32
    Raises:
        TypeError, ValueError: as `vandermonde` does; ValueError if "triton" cannot serve: n > 128.
        ModuleNotFoundError: if "triton" is wanted and not installed.

    Error:  as `vandermonde` in float32, but for "tf32" (1e-3).
    Cost:   one launch for any number of systems: stack a model's layers along the first axis.
    Source: our eq-diagonal-product, eq-triton-turns, eq-triton-moments.
    """
    check_axes({}, w=w, nu=nu)
    check_exponents(nu)
    check_length(L)
    why_not = _transformed() if L <= 1 << 26 else f"L = {L} lags, at most 2^26"
    why_not = f"n = {nu.shape[-1]} modes, at most 128" if nu.shape[-1] > 128 else why_not
    if choose_backend(backend, nu.device, why_not) == "torch":
        return vandermonde(w, nu, L, torch.float32)
    w, nu = torch.broadcast_tensors(w, nu)
    flat = [z.reshape(-1, z.shape[-1]) for z in (2 * w, nu.to(torch.complex128))]
    return _ExponentialSums.apply(*flat, L, precision).reshape(*nu.shape[:-1], L)
