"""The operators of S4D's chunks, those of all channels of all layers in one launch.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import check_axes, check_exponents
from s4lite.ops.triton.backend import _derive, _transformed, choose_backend, compiled
from s4lite.ops.triton.chunk_kernels import _pair, _pair_if, _store_pair, _store_split, _times
from s4lite.ops.triton.exponentials import _wave

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["Operators", "chunk_operators"]


def _chunk_operators(
    nu: Tensor, Bb: Tensor, C: Tensor, T: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """eq-triton-operators in float64: K (H, T), I and O (H, 2, n, T), m (H, 2, n).

    The second axis of I and m holds real and imaginary parts, that of O the rows that multiply
    Re X and Im X.
    """
    t = torch.arange(T + 1, dtype=torch.float64, device=nu.device)
    powers = torch.exp(nu.to(torch.complex128)[..., None] * t)  # (H, n, T + 1)
    I = Bb[..., None] * powers[..., :T].flip(-1)
    O = 2 * C[..., None] * powers[..., 1:]
    K = 2 * ((C * Bb)[..., None] * powers[..., :T]).real.sum(-2)
    planes = torch.stack([I.real, I.imag], -3), torch.stack([O.real, -O.imag], -3)
    return K, *planes, torch.view_as_real(powers[..., T]).movedim(-1, -2)


def _wrapped(angle):
    """Helper of kernels: an angle in radians, float64, as 2^-64 turns: eq-triton-turns."""
    turns = angle * 0.15915494309189535
    return ((turns - tl.floor(turns + 0.5)) * 4611686018427387904.0).to(tl.int64) << 2


def _operators_kernel(
    nu, Bb, C, K, I, O, m, n, N: tl.constexpr, T: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """Operators of one channel at R lags, eq-triton-operators; m in float64, as high and low."""
    h, k, t = tl.program_id(0), tl.arange(0, N), tl.program_id(1) * R + tl.arange(0, R)
    live, at = k < n, (h * n + k) * 2
    rate, angle = _pair_if(nu + at, 1, live)
    b_re, b_im = _pair_if(Bb + at, 1, live)
    c_re, c_im = _pair_if(C + at, 1, live)
    b_re, b_im, c_re, c_im = b_re[:, None], b_im[:, None], c_re[:, None], c_im[:, None]
    decay, turns = rate.to(tl.float32)[:, None], _wrapped(angle)[:, None]
    e_re, e_im = _wave(t[None, :], decay, turns)
    w_re, w_im = _times(b_re.to(tl.float32), b_im.to(tl.float32), e_re, e_im)
    here = (h * 2 * N + k[:, None]) * T
    tl.store(I + here + T - 1 - t[None, :], w_re)
    tl.store(I + here + N * T + T - 1 - t[None, :], w_im)
    c_re, c_im = 2 * c_re.to(tl.float32), 2 * c_im.to(tl.float32)
    tl.store(K + h * T + t, tl.sum(c_re * w_re - c_im * w_im, 0))
    e_re, e_im = _wave(t[None, :] + 1, decay, turns)
    e_re, e_im = _times(c_re, c_im, e_re, e_im)
    tl.store(O + here + t[None, :], e_re)
    tl.store(O + here + N * T + t[None, :], -e_im)
    if tl.program_id(1) == 0:
        size = tl.exp(T * rate)
        _store_split(m + h * 4 * N + k, 2 * N, size * tl.cos(T * angle))
        _store_split(m + h * 4 * N + N + k, 2 * N, size * tl.sin(T * angle))


def _sums_of(e_re, e_im, t, g_re, g_im):
    """Helper of kernels: sums over lags of conj(e) g and of t conj(e) g."""
    g_re, g_im = _times(e_re, -e_im, g_re, g_im)
    t = t.to(tl.float32)[None, :]
    return tl.sum(g_re, 1), tl.sum(g_im, 1), tl.sum(t * g_re, 1), tl.sum(t * g_im, 1)


def _operator_grads_kernel(
    nu, Bb, C, dK, dI, dO, dm, out, n, N: tl.constexpr, T: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """Gradients of one channel by nu, Bb and C: eq-triton-operators-back; the waves come again."""
    h, k = tl.program_id(0), tl.arange(0, N)
    live, at, here = k < n, (h * n + k) * 2, (h * 2 * N + k[:, None]) * T
    rate, angle = _pair_if(nu + at, 1, live)
    b_re, b_im = _pair_if(Bb + at, 1, live)
    c_re, c_im = _pair_if(C + at, 1, live)
    decay, turns = rate.to(tl.float32), _wrapped(angle)
    b_re, b_im, c_re, c_im = (
        b_re.to(tl.float32), b_im.to(tl.float32), c_re.to(tl.float32), c_im.to(tl.float32)
    )  # fmt: skip
    zero = tl.zeros([N], tl.float32)
    k0, k0i, k1, k1i, i0, i0i = zero, zero, zero, zero, zero, zero
    i1, i1i, o0, o0i, o1, o1i = zero, zero, zero, zero, zero, zero
    for start in range(0, T, R):
        t = start + tl.arange(0, R)
        e_re, e_im = _wave(t[None, :], decay[:, None], turns[:, None])
        g = 2 * tl.load(dK + h * T + t)[None, :]
        p, q, r, s = _sums_of(e_re, e_im, t, g, 0 * g)
        k0, k0i, k1, k1i = k0 + p, k0i + q, k1 + r, k1i + s
        g, g_im = _pair(dI + here + T - 1 - t[None, :], N * T)
        p, q, r, s = _sums_of(e_re, e_im, t, g, g_im)
        i0, i0i, i1, i1i = i0 + p, i0i + q, i1 + r, i1i + s
        e_re, e_im = _wave(t[None, :] + 1, decay[:, None], turns[:, None])
        g, g_im = _pair(dO + here + t[None, :], N * T)
        p, q, r, s = _sums_of(e_re, e_im, t + 1, 2 * g, -2 * g_im)
        o0, o0i, o1, o1i = o0 + p, o0i + q, o1 + r, o1i + s
    p, q = _times(c_re, -c_im, k0, k0i)
    r, s = _times(b_re, -b_im, k0, k0i)
    _store_pair(out + tl.num_programs(0) * n * 2 + at, i0 + p, i0i + q, live)
    _store_pair(out + tl.num_programs(0) * n * 4 + at, o0 + r, o0i + s, live)
    p, q = _times(c_re, -c_im, k1, k1i)
    p, q = _times(b_re, -b_im, p + i1, q + i1i)
    r, s = _times(c_re, -c_im, o1, o1i)
    e_re, e_im = _wave(k * 0 + T, decay, turns)
    g, g_im = _pair(dm + h * 2 * N + k, N)
    g, g_im = _times(e_re, -e_im, T * g, T * g_im)
    _store_pair(out + at, p + r + g, q + s + g_im, live)


class _ChunkOperators(torch.autograd.Function):
    """nu, Bb, C (H, n) to K (H, T), I and O (H, 2, N, T), m (H, 4, N): N modes, padded with 0."""

    @staticmethod
    def forward(ctx, nu, Bb, C, N, T):
        (H, n), ctx.sizes = nu.shape, (N, T)
        K, I, O, m = (
            torch.empty(H, *size, dtype=torch.float32, device=nu.device)
            for size in ((T,), (2, N, T), (2, N, T), (4, N))
        )
        planes = [torch.view_as_real(z.resolve_conj().contiguous()) for z in (nu, Bb, C)]
        with torch.cuda.device_of(nu):
            compiled(_operators_kernel)[(H, T // 16)](*planes, K, I, O, m, n, N=N, T=T, R=16)
        ctx.save_for_backward(nu, Bb, C)
        return K, I, O, m

    @staticmethod
    def backward(ctx, *grads):
        (nu, Bb, C), (N, T) = ctx.saved_tensors, ctx.sizes
        if torch.is_grad_enabled():
            found = _derive(lambda *z: _plain_operators(*z, N, T), (nu, Bb, C), grads)
            return *found, None, None
        dK, dI, dO, dm = (z.float().contiguous() for z in (*grads[:3], grads[3][:, :2]))
        planes = [torch.view_as_real(z.resolve_conj().contiguous()) for z in (nu, Bb, C)]
        out = torch.empty(3, *planes[0].shape, dtype=torch.float64, device=nu.device)
        with torch.cuda.device_of(nu):
            compiled(_operator_grads_kernel)[(len(nu),)](
                *planes, dK, dI, dO, dm, out, nu.shape[-1], N=N, T=T, R=16
            )
        return *torch.view_as_complex(out), None, None


def _plain_operators(nu: Tensor, Bb: Tensor, C: Tensor, N: int, T: int) -> tuple[Tensor, ...]:
    """The same from `_chunk_operators`: the twin."""
    more = N - nu.shape[-1]
    K, I, O, m = _chunk_operators(nu, Bb, C, T)
    I, O = (F.pad(z, (0, 0, 0, more)).float() for z in (I, O))
    m = torch.cat([m, m.new_tensor([1, 0])[:, None].expand(len(m), 2, more)], -1)
    return K.float(), I, O, torch.cat([m.float(), (m - m.float()).float()], -2)


class Operators(NamedTuple):
    """The operators of chunks for systems (..., n), as `chunk_operators` makes them."""

    K: Tensor  # (..., T) kernel
    I: Tensor  # (..., 2, N, T) from samples into the state
    O: Tensor  # (..., 2, N, T) out of it
    m: Tensor  # (..., 4, N) over a chunk, high and low

    def layer(self, index: int) -> Operators:
        """Those of one index of the first axis."""
        return Operators(*(z[index] for z in self))


def chunk_operators(nu: Tensor, Bb: Tensor, C: Tensor, T: int = 64) -> Operators:
    """Make the operators that `fused_chunks` works with, for any number of layers in one launch.

    Args:
        nu, Bb, C  (..., n)  as for `fused_chunks`, say (layers, H, n); n at most 128
        T          int       samples of a chunk: 16, 32, 64 or 128
    Returns:
        operators  Operators  float32; hand `operators.layer(i)` to layer i's `fused_chunks`
    Raises:
        TypeError, ValueError: as `fused_chunks` does; there is no backend but Triton.
        ModuleNotFoundError: if triton is not installed.

    Error:  3e-7 relative to the largest entry, whatever Im nu; m is exact to 2^-48.
    Source: our eq-triton-operators, eq-triton-operators-back.
    """
    check_axes({}, nu=nu, Bb=Bb, C=C)
    check_exponents(nu)
    if T not in (16, 32, 64, 128):
        raise ValueError(f"want T 16, 32, 64 or 128, got {T!r}")
    n = nu.shape[-1]
    why_not = _transformed() if n <= 128 else f"n = {n} modes, want at most 128"
    choose_backend("triton", nu.device, why_not)
    lead = torch.broadcast_shapes(*(z.shape[:-1] for z in (nu, Bb, C)))
    flat = (z.to(torch.complex128).expand(*lead, n).reshape(-1, n) for z in (nu, Bb, C))
    N = max(16, 1 << (n - 1).bit_length())
    found = _ChunkOperators.apply(*flat, N, T)
    return Operators(*(z.unflatten(0, lead) if lead else z[0] for z in found))
