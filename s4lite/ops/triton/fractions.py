"""Cauchy sums over conjugate pairs as a Triton kernel, forward and backward.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.cauchy import _check_sums, cauchy
from s4lite.ops.triton.backend import _derive, _transformed, choose_backend, compiled

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["fraction_sums"]


def _node(nodes, k, K):
    """Helper of kernels: sinh w, cosh w of BK nodes (BK, 1); beyond the last one s = 1, c = 0."""
    live, at = (k < K)[:, None], nodes + k[:, None]
    s_re = tl.load(at, mask=live, other=1.0)
    s_im = tl.load(at + K, mask=live, other=0.0)
    c_re = tl.load(at + 2 * K, mask=live, other=0.0)
    return s_re, s_im, c_re, tl.load(at + 3 * K, mask=live, other=0.0)


def _fraction(s_re, s_im, c_re, c_im, alpha, beta):
    """Helper of kernels: 1 / (4 s^2 - 4 s c alpha + c^2 beta)."""
    re = 4 * (s_re * s_re - s_im * s_im) - 4 * alpha * (s_re * c_re - s_im * c_im)
    im = 8 * s_re * s_im - 4 * alpha * (s_re * c_im + s_im * c_re)
    re = re + beta * (c_re * c_re - c_im * c_im)
    im = im + beta * 2 * c_re * c_im
    size = re * re + im * im
    return re / size, -im / size


def _times_conj(a_re, a_im, b_re, b_im):
    """Helper of kernels: conj(a) b."""
    return a_re * b_re + a_im * b_im, a_re * b_im - a_im * b_re


def _fractions_kernel(
    p, q, pole, nodes, out, K, J, n,
    JP: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """J sums of n fractions at BK nodes: 2 s P + c Q, where P = sum p F, Q = sum q F."""
    h, k = tl.program_id(0), tl.program_id(1) * BK + tl.arange(0, BK)
    i, j = tl.arange(0, BN), tl.arange(0, JP)
    s_re, s_im, c_re, c_im = _node(nodes, k, K)
    P_re, P_im = tl.zeros([BK, JP], tl.float32), tl.zeros([BK, JP], tl.float32)
    Q_re, Q_im = tl.zeros([BK, JP], tl.float32), tl.zeros([BK, JP], tl.float32)
    for start in range(0, n, BN):
        alpha = tl.load(pole + 2 * h * n + start + i)[None, :]
        beta = tl.load(pole + 2 * h * n + n + start + i)[None, :]
        F_re, F_im = _fraction(s_re, s_im, c_re, c_im, alpha, beta)
        at = (h * n + start + i[:, None]) * JP + j[None, :]
        P, Q = tl.load(p + at), tl.load(q + at)
        P_re = tl.dot(F_re, P, P_re, input_precision=PREC)
        P_im = tl.dot(F_im, P, P_im, input_precision=PREC)
        Q_re = tl.dot(F_re, Q, Q_re, input_precision=PREC)
        Q_im = tl.dot(F_im, Q, Q_im, input_precision=PREC)
    at = out + ((h * J + j[None, :]).to(tl.int64) * K + k[:, None]) * 2
    keep = (k < K)[:, None] & (j < J)[None, :]
    tl.store(at, 2 * (s_re * P_re - s_im * P_im) + c_re * Q_re - c_im * Q_im, mask=keep)
    tl.store(at + 1, 2 * (s_re * P_im + s_im * P_re) + c_re * Q_im + c_im * Q_re, mask=keep)


def _fraction_grads_kernel(
    g, p, q, pole, nodes, dp, dq, dpole, K, J, n,
    JP: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Gradients of BN modes, in one walk over all nodes; the fractions are made again."""
    h, i, j = tl.program_id(0), tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, JP)
    alpha = tl.load(pole + 2 * h * n + i)[None, :]
    beta = tl.load(pole + 2 * h * n + n + i)[None, :]
    across = (h * n + i[None, :]) * JP + j[:, None]
    p_t, q_t = tl.load(p + across), tl.load(q + across)
    P, Q = tl.zeros([BN, JP], tl.float32), tl.zeros([BN, JP], tl.float32)
    d_alpha, d_beta = tl.zeros([BN], tl.float32), tl.zeros([BN], tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        s_re, s_im, c_re, c_im = _node(nodes, k, K)
        at = g + ((h * J + j[None, :]).to(tl.int64) * K + k[:, None]) * 2
        live = (k < K)[:, None] & (j < J)[None, :]
        G_re = tl.load(at, mask=live, other=0.0)
        G_im = tl.load(at + 1, mask=live, other=0.0)
        F_re, F_im = _fraction(s_re, s_im, c_re, c_im, alpha, beta)
        P_re, P_im = _times_conj(2 * s_re, 2 * s_im, G_re, G_im)
        Q_re, Q_im = _times_conj(c_re, c_im, G_re, G_im)
        P = tl.dot(tl.trans(F_re), P_re, P, input_precision=PREC)
        P = tl.dot(tl.trans(F_im), P_im, P, input_precision=PREC)
        Q = tl.dot(tl.trans(F_re), Q_re, Q, input_precision=PREC)
        Q = tl.dot(tl.trans(F_im), Q_im, Q, input_precision=PREC)
        f_re = tl.dot(Q_re, q_t, tl.dot(P_re, p_t, input_precision=PREC), input_precision=PREC)
        f_im = tl.dot(Q_im, q_t, tl.dot(P_im, p_t, input_precision=PREC), input_precision=PREC)
        f_re, f_im = _times_conj(F_im * F_im - F_re * F_re, -2 * F_re * F_im, f_re, f_im)
        a_re, a_im = 4 * (s_re * c_re - s_im * c_im), 4 * (s_re * c_im + s_im * c_re)
        d_alpha -= tl.sum(a_re * f_re + a_im * f_im, 0)
        d_beta += tl.sum((c_re * c_re - c_im * c_im) * f_re + 2 * c_re * c_im * f_im, 0)
    at = (h * n + i[:, None]) * JP + j[None, :]
    tl.store(dp + at, P)
    tl.store(dq + at, Q)
    tl.store(dpole + 2 * h * n + i, d_alpha)
    tl.store(dpole + 2 * h * n + n + i, d_beta)


def _plain_fractions(p: Tensor, q: Tensor, pole: Tensor, nodes: Tensor, J: int) -> Tensor:
    """The same sums as a composition, for second derivatives."""
    s, c = torch.complex(nodes[0], nodes[1]), torch.complex(nodes[2], nodes[3])
    alpha, beta = pole[..., None].unbind(1)
    F = 1 / (4 * s * s - 4 * s * c * alpha + c * c * beta)  # (S, n, K)
    P, Q = (z[..., :J].mT.to(F.dtype) @ F for z in (p, q))
    return 2 * s * P + c * Q


class _FractionSums(torch.autograd.Function):
    """Forward and backward of the sums for p, q (S, n, JP), pole (S, 2, n), all padded."""

    @staticmethod
    def forward(ctx, p, q, pole, nodes, J, precision):
        (S, n, JP), K = p.shape, nodes.shape[-1]
        out = torch.empty(S, J, K, 2, dtype=torch.float32, device=p.device)
        ctx.tile = {"JP": JP, "BN": 16, "PREC": precision}
        with torch.cuda.device_of(out):
            compiled(_fractions_kernel)[(S, -(-K // 64))](
                p, q, pole, nodes, out, K, J, n, BK=64, **ctx.tile
            )
        ctx.save_for_backward(p, q, pole, nodes)
        return torch.view_as_complex(out)

    @staticmethod
    def backward(ctx, g):
        p, q, pole, nodes = ctx.saved_tensors
        (S, J, K), n = g.shape, pole.shape[-1]
        if torch.is_grad_enabled():
            found = _derive(
                lambda p, q, l: [_plain_fractions(p, q, l, nodes, J)], (p, q, pole), (g,)
            )
            return *found, None, None, None
        dp, dq, dpole = (torch.empty_like(z) for z in (p, q, pole))
        g = torch.view_as_real(g.resolve_conj().contiguous())
        with torch.cuda.device_of(p):
            compiled(_fraction_grads_kernel)[(S, n // 16)](
                g, p, q, pole, nodes, dp, dq, dpole, K, J, n, BK=16, **ctx.tile
            )
        return dp, dq, dpole, None, None, None


def _fractions_triton(v: Tensor, l: Tensor, w: Tensor, precision: str) -> Tensor:
    """The sums by the kernels: fold, pad to multiples of 16, launch."""
    lead = torch.broadcast_shapes(v.shape[:-2], l.shape[:-1])
    J, n = v.shape[-2:]
    v, l = v.expand(*lead, J, n).reshape(-1, J, n), l.expand(*lead, n).reshape(-1, n)
    p, q = 2 * v.real, -2 * (v * l.conj()[:, None]).real
    pole = torch.stack([l.real, l.real**2 + l.imag**2], -2).float()
    more, JP = -n % 16, max(16, 1 << (J - 1).bit_length())
    p, q = (F.pad(z.float(), (0, more, 0, JP - J)).mT.contiguous() for z in (p, q))
    s, c = torch.sinh(w), torch.cosh(w)
    nodes = torch.stack([s.real, s.imag, c.real, c.imag]).float()
    pole = F.pad(pole, (0, more), value=0.5).contiguous()  # a padded pole is no node's neighbour
    return _FractionSums.apply(p, q, pole, nodes, J, precision).reshape(*lead, J, len(w))


def fraction_sums(
    v: Tensor, l: Tensor, w: Tensor, *, backend: str = "auto", precision: str = "tf32x3"
) -> Tensor:
    """Sum fractions over conjugate pairs in complex64: the sums of `cauchy`.

    Args:
        v          (..., J, n)  numerators of J sums, one of each pair
        l          (..., n)     poles times step size, one of each pair, complex
        w          (K,)         half angles of the nodes, complex128, from `half_angles`
        backend    str          "auto", "torch" (that is `cauchy`) or "triton"
        precision  str          of Triton's products on a GPU: "tf32x3", "ieee" or "tf32"
    Returns:
        rho  (..., J, K)  the sums, complex64
    Raises:
        TypeError, ValueError: as `cauchy` does; ValueError if "triton" cannot serve: J > 64, or a
            gradient by w is wanted.
        ModuleNotFoundError: if "triton" is wanted and not installed.

    Error:  "torch": one rounding; "triton": a few 2^-24 (|2 s| + |c l|) / |2 s - c l| of each
            fraction, as complex64 arithmetic has it; "tf32" 1e-3.
    Source: our eq-cauchy-fold, eq-triton-fraction-weights, eq-triton-fraction-poles.
    """
    _check_sums(v, l, w)
    why_not = _transformed() if len(w) <= 1 << 22 else f"{len(w)} nodes, want at most 2^22"
    why_not = f"J = {v.shape[-2]} sums, want at most 64" if v.shape[-2] > 64 else why_not
    why_not = "w wants a gradient" if w.requires_grad else why_not
    if choose_backend(backend, v.device, why_not) == "torch":
        return cauchy(v.to(torch.complex64), l.to(torch.complex64), w)
    return _fractions_triton(v, l, w, precision)
