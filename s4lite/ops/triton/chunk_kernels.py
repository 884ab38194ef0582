"""Kernels of the convolution in chunks: rows of samples against small matrices.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import triton.language as tl

__all__ = []


def _times(a_re, a_im, b_re, b_im):
    """Helper of kernels: the product of two complex numbers."""
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re


def _advance(c_re, c_im, x_re, x_im, s_re, s_im):
    """Helper of kernels: c x + s, every real product and sum rounded once (see eq-triton-split)."""
    y_re = tl.fma(c_re, x_re, tl.fma(-c_im, x_im, s_re))
    return y_re, tl.fma(c_re, x_im, tl.fma(c_im, x_re, s_im))


def _pair(at, step):
    """Helper of kernels: real and imaginary part, `step` numbers apart."""
    return tl.load(at), tl.load(at + step)


def _pair_if(at, step, mask):
    """Helper of kernels: the same, and 0 where the mask says no."""
    return tl.load(at, mask=mask, other=0.0), tl.load(at + step, mask=mask, other=0.0)


def _store_pair(at, re, im, mask):
    """Helper of kernels: a complex number, real and imaginary part side by side."""
    tl.store(at, re, mask=mask)
    tl.store(at + 1, im, mask=mask)


def _store_split(at, step, value):
    """Helper of kernels: a float64 as two float32, `step` numbers apart, high and low."""
    high = value.to(tl.float32)
    tl.store(at, high)
    tl.store(at + step, (value - high.to(tl.float64)).to(tl.float32))


def _multiplier(at, N: tl.constexpr):
    """Helper of kernels: m in four numbers, high and low parts."""
    c_re, c_im = _pair(at, N)
    d_re, d_im = _pair(at + 2 * N, N)
    return c_re, c_im, d_re, d_im


def _rows(h, tile, H, L, rows, S, nc, R: tl.constexpr, T: tl.constexpr, N: tl.constexpr):
    """Helper of kernels: which rows of a tile exist; where their samples, their states and the
    states of their sequences lie; where in time they start."""
    r, k = tile * R + tl.arange(0, R), tl.arange(0, N)[None, :]
    b = r // S
    here, home = (r * H + h)[:, None] * 2 * N + k, (b * H + h)[:, None] * 2 * N + k
    return (r < rows)[:, None], (b * H + h).to(tl.int64)[:, None] * L, here, home, r % S * nc * T


def _states_kernel(
    v, M, m, told, end, H, L, rows, S, nc, whole,
    N: tl.constexpr, T: tl.constexpr, R: tl.constexpr,
    REVERSE: tl.constexpr, TOLD: tl.constexpr, MMA: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """State at the end of every row, from rest: x <- m x + v M. If REVERSE, from the last chunk,
    with conj(m); and if TOLD, `told` enters after the last whole chunk."""
    h, t, k = tl.program_id(0), tl.arange(0, T), tl.arange(0, N)[None, :]
    alive, base, here, home, start = _rows(h, tl.program_id(1), H, L, rows, S, nc, R, T, N)
    M_re, M_im = _pair(M + h * 2 * N * T + k * T + t[:, None], N * T)
    M_re, M_im = M_re.to(MMA), M_im.to(MMA)
    c_re, c_im, d_re, d_im = _multiplier(m + h * 4 * N + k, N)
    if REVERSE:
        c_im, d_im = -c_im, -d_im
    x_re, x_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
    for step in range(nc):
        p = start + (nc - 1 - step if REVERSE else step) * T
        pos = p[:, None] + t[None, :]
        if TOLD:
            e_re, e_im = _pair_if(told + home, N, alive & (p + T == whole)[:, None])
            x_re, x_im = x_re + e_re, x_im + e_im
        V = tl.load(v + base + pos, mask=alive & (pos < L), other=0.0).to(MMA)
        s_re, s_im = _times(d_re, d_im, x_re, x_im)
        s_re = tl.dot(V, M_re, s_re, input_precision=PREC)
        s_im = tl.dot(V, M_im, s_im, input_precision=PREC)
        x_re, x_im = _advance(c_re, c_im, x_re, x_im, s_re, s_im)
    tl.store(end + here, x_re, mask=alive)
    tl.store(end + here + N, x_im, mask=alive)


def _chain_kernel(
    nu, ends, x0, H, S, jump, n,
    N: tl.constexpr, REVERSE: tl.constexpr, FROM: tl.constexpr,
):  # fmt: skip
    """From what segments of `jump` samples add to what they start from, eq-triton-segments; if
    REVERSE from the last one, with the conjugate. It starts from x0 if FROM."""
    h, b, k = tl.program_id(0), tl.program_id(1), tl.arange(0, N)
    rate, angle = _pair_if(nu + (h * n + k) * 2, 1, k < n)
    size, turn = tl.exp(jump * rate), jump * (-angle if REVERSE else angle)
    value_re, value_im = size * tl.cos(turn), size * tl.sin(turn)
    c_re, c_im = value_re.to(tl.float32), value_im.to(tl.float32)
    d_re = (value_re - c_re.to(tl.float64)).to(tl.float32)
    d_im = (value_im - c_im.to(tl.float64)).to(tl.float32)
    x_re, x_im = tl.zeros([N], tl.float32), tl.zeros([N], tl.float32)
    if FROM:
        x_re, x_im = _pair(x0 + (b * H + h) * 2 * N + k, N)
    for step in range(S):
        s = S - 1 - step if REVERSE else step
        at = ends + ((b * S + s) * H + h) * 2 * N + k
        e_re, e_im = _pair(at, N)
        tl.store(at, x_re)
        tl.store(at + N, x_im)
        s_re, s_im = _times(d_re, d_im, x_re, x_im)
        x_re, x_im = _advance(c_re, c_im, x_re, x_im, s_re + e_re, s_im + e_im)


def _forward_kernel(
    u, K, I, O, m, D, x0, y, xb, H, L, rows, S, nc, whole,
    N: tl.constexpr, T: tl.constexpr, R: tl.constexpr,
    FROM: tl.constexpr, MMA: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Output of every row, y = u Toep + x O + D u, and the state after sample `whole`."""
    h, t, k = tl.program_id(0), tl.arange(0, T), tl.arange(0, N)
    alive, base, here, home, start = _rows(h, tl.program_id(1), H, L, rows, S, nc, R, T, N)
    lag = t[None, :] - t[:, None]
    toep = tl.load(K + h * T + lag, mask=lag >= 0, other=0.0).to(MMA)
    I_re, I_im = _pair(I + h * 2 * N * T + k[None, :] * T + t[:, None], N * T)
    I_re, I_im = I_re.to(MMA), I_im.to(MMA)
    O_re, O_im = _pair(O + h * 2 * N * T + k[:, None] * T + t[None, :], N * T)
    c_re, c_im, d_re, d_im = _multiplier(m + h * 4 * N + k[None, :], N)
    through = tl.load(D + h)
    x_re, x_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
    if FROM:
        x_re, x_im = _pair_if(x0 + here, N, alive)
    for step in range(nc):
        p = start + step * T
        pos, now = p[:, None] + t[None, :], alive & (p + T == whole)[:, None]
        live = alive & (pos < L)
        U = tl.load(u + base + pos, mask=live, other=0.0)
        Y = tl.dot(U.to(MMA), toep, through * U.to(tl.float32), input_precision=PREC)
        Y = tl.dot(x_re, O_re, Y, input_precision=PREC)
        Y = tl.dot(x_im, O_im, Y, input_precision=PREC)
        tl.store(y + base + pos, Y.to(y.dtype.element_ty), mask=live)
        s_re, s_im = _times(d_re, d_im, x_re, x_im)
        s_re = tl.dot(U.to(MMA), I_re, s_re, input_precision=PREC)
        s_im = tl.dot(U.to(MMA), I_im, s_im, input_precision=PREC)
        x_re, x_im = _advance(c_re, c_im, x_re, x_im, s_re, s_im)
        tl.store(xb + home, x_re, mask=now)
        tl.store(xb + home + N, x_im, mask=now)


def _adjoint_kernel(
    u, g, K, I, O, m, D, a, told, du, dI, H, L, rows, S, nc, whole, tiles,
    N: tl.constexpr, T: tl.constexpr, R: tl.constexpr, FROM: tl.constexpr,
    KEEP: tl.constexpr, TOLD: tl.constexpr, MMA: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Walk back: du = g Toep^T + a I^T + D g, a <- conj(m) a + g O^T, from `a` if FROM and
    into it if KEEP; dI sums a u. `told`, if TOLD, enters after sample `whole`."""
    h, t, k = tl.program_id(0), tl.arange(0, T), tl.arange(0, N)
    lag = t[:, None] - t[None, :]
    toep = tl.load(K + h * T + lag, mask=lag >= 0, other=0.0).to(MMA)
    I_re, I_im = _pair(I + h * 2 * N * T + k[:, None] * T + t[None, :], N * T)
    I_re, I_im = I_re.to(MMA).to(tl.float32), I_im.to(MMA).to(tl.float32)
    O_re, O_im = _pair(O + h * 2 * N * T + k[None, :] * T + t[:, None], N * T)
    c_re, c_im, d_re, d_im = _multiplier(m + h * 4 * N + k[None, :], N)
    dI_re, dI_im, through = (
        tl.zeros([N, T], tl.float32),
        tl.zeros([N, T], tl.float32),
        tl.load(D + h),
    )
    for tile in range(tl.program_id(1) * tiles, tl.program_id(1) * tiles + tiles):
        alive, base, here, home, start = _rows(h, tile, H, L, rows, S, nc, R, T, N)
        a_re, a_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
        if FROM:
            a_re, a_im = _pair_if(a + here, N, alive)
        for step in range(nc):
            p = start + (nc - 1 - step) * T
            pos = p[:, None] + t[None, :]
            live = alive & (pos < L)
            if TOLD:
                e_re, e_im = _pair_if(told + home, N, alive & (p + T == whole)[:, None])
                a_re, a_im = a_re + e_re, a_im + e_im
            G = tl.load(g + base + pos, mask=live, other=0.0)
            U = tl.load(u + base + pos, mask=live, other=0.0).to(tl.float32)
            V = tl.dot(G.to(MMA), toep, through * G.to(tl.float32), input_precision=PREC)
            V = tl.dot(a_re, I_re, V, input_precision=PREC)
            V = tl.dot(a_im, I_im, V, input_precision=PREC)
            tl.store(du + base + pos, V.to(du.dtype.element_ty), mask=live)
            dI_re = tl.dot(tl.trans(a_re), U, dI_re, input_precision=PREC)
            dI_im = tl.dot(tl.trans(a_im), U, dI_im, input_precision=PREC)
            b_re, b_im = _times(d_re, -d_im, a_re, a_im)
            b_re = tl.dot(G.to(tl.float32), O_re, b_re, input_precision=PREC)
            b_im = tl.dot(G.to(tl.float32), O_im, b_im, input_precision=PREC)
            a_re, a_im = _advance(c_re, -c_im, a_re, a_im, b_re, b_im)
        if KEEP:
            tl.store(a + here, a_re, mask=alive)
            tl.store(a + here + N, a_im, mask=alive)
    at = dI + (tl.program_id(1) * H + h) * 2 * N * T + k[:, None] * T + t[None, :]
    tl.store(at, dI_re)
    tl.store(at + N * T, dI_im)


def _weights_kernel(
    u, g, I, O, m, x0, a, told, dK, dO, dm, H, L, rows, S, nc, whole, tiles,
    N: tl.constexpr, T: tl.constexpr, R: tl.constexpr, START: tl.constexpr,
    FROM: tl.constexpr, TOLD: tl.constexpr, MMA: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Walk on: x (from x0 if START), z = dx/dm; sum u g by lag, x g, and conj(z) times g O^T,
    `a` (if FROM) and `told` (if TOLD) over all rows."""
    h, t, k = tl.program_id(0), tl.arange(0, T), tl.arange(0, N)
    I_re, I_im = _pair(I + h * 2 * N * T + k[None, :] * T + t[:, None], N * T)
    I_re, I_im = I_re.to(MMA), I_im.to(MMA)
    O_re, O_im = _pair(O + h * 2 * N * T + k[None, :] * T + t[:, None], N * T)
    c_re, c_im, d_re, d_im = _multiplier(m + h * 4 * N + k[None, :], N)
    w_re, w_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
    dO_re, dO_im = tl.zeros([N, T], tl.float32), tl.zeros([N, T], tl.float32)
    toep = tl.zeros([T, T], tl.float32)
    for tile in range(tl.program_id(1) * tiles, tl.program_id(1) * tiles + tiles):
        alive, base, here, home, start = _rows(h, tile, H, L, rows, S, nc, R, T, N)
        x_re, x_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
        if START:
            x_re, x_im = _pair_if(x0 + here, N, alive)
        z_re, z_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
        for step in range(nc):
            p = start + step * T
            pos = p[:, None] + t[None, :]
            live = alive & (pos < L)
            U = tl.load(u + base + pos, mask=live, other=0.0).to(MMA)
            G = tl.load(g + base + pos, mask=live, other=0.0)
            toep = tl.dot(tl.trans(U), G.to(MMA), toep, input_precision=PREC)
            dO_re = tl.dot(tl.trans(x_re), G.to(tl.float32), dO_re, input_precision=PREC)
            dO_im = tl.dot(tl.trans(x_im), G.to(tl.float32), dO_im, input_precision=PREC)
            b_re, b_im = tl.zeros([R, N], tl.float32), tl.zeros([R, N], tl.float32)
            b_re = tl.dot(G.to(tl.float32), O_re, b_re, input_precision=PREC)
            b_im = tl.dot(G.to(tl.float32), O_im, b_im, input_precision=PREC)
            b_re, b_im = _times(b_re, b_im, z_re, -z_im)
            w_re, w_im = w_re + b_re, w_im + b_im
            s_re, s_im = _times(d_re, d_im, z_re, z_im)
            z_re, z_im = _advance(c_re, c_im, z_re, z_im, s_re + x_re, s_im + x_im)
            s_re, s_im = _times(d_re, d_im, x_re, x_im)
            s_re = tl.dot(U, I_re, s_re, input_precision=PREC)
            s_im = tl.dot(U, I_im, s_im, input_precision=PREC)
            x_re, x_im = _advance(c_re, c_im, x_re, x_im, s_re, s_im)
            if TOLD:
                b_re, b_im = _pair_if(told + home, N, alive & (p + T == whole)[:, None])
                b_re, b_im = _times(b_re, b_im, z_re, -z_im)
                w_re, w_im = w_re + b_re, w_im + b_im
        if FROM:
            b_re, b_im = _pair_if(a + here, N, alive)
            b_re, b_im = _times(b_re, b_im, z_re, -z_im)
            w_re, w_im = w_re + b_re, w_im + b_im
    block, later = tl.program_id(1) * H + h, t[:, None] + t[None, :]
    by_lag = tl.gather(toep, tl.minimum(later, T - 1), 1)  # row j, column l: what stood at j + l
    tl.store(dK + block * T + t, tl.sum(tl.where(later < T, by_lag, 0.0), 0))
    at = dO + block * 2 * N * T + k[:, None] * T + t[None, :]
    tl.store(at, dO_re)
    tl.store(at + N * T, dO_im)
    tl.store(dm + block * 2 * N + k, tl.sum(w_re, 0))
    tl.store(dm + block * 2 * N + N + k, tl.sum(w_im, 0))
