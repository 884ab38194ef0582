"""The convolution of S4D in chunks, one read and one write: autograd and choices.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import check_axes, check_exponents, check_length, check_tensors
from s4lite.ops.chunk import diag_chunks
from s4lite.ops.conv import causal_conv
from s4lite.ops.diag_state import diag_last_state, diag_response
from s4lite.ops.triton.backend import (
    _derive,
    _shared_memory,
    _transformed,
    choose_backend,
    interpreting,
)
from s4lite.ops.triton.chunk_kernels import _adjoint_kernel, _forward_kernel, _weights_kernel
from s4lite.ops.triton.operators import Operators, _ChunkOperators
from s4lite.ops.triton.rows import (
    _chunks_plain,
    _complex,
    _Cut,
    _cut,
    _launch,
    _output_like,
    _partial_sums,
    _planes,
    _row_adjoints,
    _row_states,
)
from s4lite.ops.vandermonde import _real_product, vandermonde

__all__ = ["fused_chunks"]


def _backward(saved: tuple, cut: _Cut, g: Tensor, told: Tensor | None, keep: bool) -> list:
    """Gradients by u, K, I, O, m, D and x: eq-triton-adjoint, -weights and -sensitivity."""
    u, K, I, O, m, D, x0, nu = saved
    R = cut.tile(16)
    blocks, tiles = _partial_sums(cut, R)
    a, du = _row_adjoints(cut, g, O, m, nu, told), _output_like(u)
    dI, dO = (I.new_empty(blocks, *I.shape) for _ in range(2))
    dK, dm = K.new_empty(blocks, *K.shape), K.new_empty(blocks, cut.H, 2, cut.N)
    flags = {"FROM": a is not None, "TOLD": told is not None}
    args, start = (u, g, I, O, m, x0, a, told, dK, dO, dm), x0 is not None
    _launch(_weights_kernel, cut, R, blocks, *args, numbers=(tiles,), START=start, **flags)
    if a is None and keep:  # from here on where rows begin
        a = x0.new_empty(cut.batch, 1, cut.H, 2, cut.N)
    args = (u, g, K, I, O, m, D, a, told, du, dI)
    _launch(_adjoint_kernel, cut, R, blocks, *args, numbers=(tiles,), KEEP=keep, **flags)
    dK, dI, dO, dm = (z[0] if blocks == 1 else z.sum(0) for z in (dK, dI, dO, dm))
    dm = torch.cat([dm, torch.zeros_like(dm)], -2)  # m's low part only carries digits
    dx = a.view(cut.batch, cut.segments, cut.H, 2, cut.N)[:, 0] if keep else None
    return [du.to(u.dtype), dK, dI, dO, dm, dK[:, 0], dx]


def _plain(cut: _Cut, u, K, I, O, m, D, x) -> tuple[Tensor, Tensor]:
    """What `_FusedChunks` computes, step by step in float64, for graphs of gradients."""
    wide, K, I, O, D = (z.double() for z in (u, K, I, O, D))
    m = m[:, :2].double() + m[:, 2:].double()
    X = m.new_zeros(cut.batch, cut.H, 2, cut.N) if x is None else x.double()
    y, states = _chunks_plain(F.pad(wide, (0, -cut.L % cut.T)), K, I, O, m, _complex(X))
    y = y[..., : cut.L] + D[:, None] * wide
    return y.to(u.dtype), _planes(states[cut.whole // cut.T]).float()


class _FusedChunks(torch.autograd.Function):
    """Output and the state after the last whole chunk, for u (batch, H, L), padded operators."""

    @staticmethod
    def forward(ctx, u, K, I, O, m, D, x, nu, cut):
        ctx.cut, R = cut, cut.tile(cut.most)
        x0 = _row_states(cut, u, I, m, nu, x)
        y, xb = _output_like(u), I.new_empty(cut.batch, cut.H, 2, cut.N)
        args = (u, K, I, O, m, D, x0, y, xb)
        _launch(_forward_kernel, cut, R, -(-cut.rows // R), *args, FROM=x0 is not None)
        ctx.save_for_backward(u, K, I, O, m, D, x0, nu, x)
        ctx.set_materialize_grads(False)
        return y.to(u.dtype), xb

    @staticmethod
    def backward(ctx, g, told):
        *saved, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = (*saved[:6], x)
            return *_derive(functools.partial(_plain, ctx.cut), inputs, (g, told)), None, None
        u = saved[0]
        g = torch.zeros_like(u) if g is None else g.to(u.dtype).contiguous()
        told = None if told is None or not ctx.cut.whole else told.contiguous()
        return *_backward(saved, ctx.cut, g, told, ctx.needs_input_grad[6]), None, None


def _flat(nu, Bb, C, u, x, D):
    """Coefficients (H, n), D (H,), u (batch, H, L), x (batch, H, n); and the leading axes."""
    own = torch.broadcast_shapes(*(z.shape[:-1] for z in (nu, Bb, C)), () if D is None else D.shape)
    start = () if x is None else x.shape[:-1]
    lead = torch.broadcast_shapes(own, u.shape[:-1], start)
    own = lead[len(lead) - len(own) :]
    H, n = math.prod(own), nu.shape[-1]
    nu, Bb, C = (z.to(torch.complex128).expand(*own, n).reshape(H, n) for z in (nu, Bb, C))
    D = u.new_zeros(H, dtype=torch.float32) if D is None else D.float().expand(own).reshape(H)
    u = u.expand(*lead, u.shape[-1]).reshape(-1, H, u.shape[-1]).contiguous()
    x = None if x is None else x.to(torch.complex64).expand(*lead, n).reshape(-1, H, n)
    return nu, Bb, C, u, x, D.contiguous(), lead


def _why_not(n: int, u: Tensor, shape: tuple, T: int, segments: int | None, precision: str) -> str:
    """Say why the kernels cannot serve; "" if they can."""
    if u.dtype not in (torch.float32, torch.bfloat16):
        return f"u is {u.dtype}, want float32 or bfloat16"
    if n > 128:
        return f"n = {n} modes, want at most 128: tiles would not fit"
    cut = _cut(shape, n, T, segments, precision)
    if not cut.fits:
        return f"u {tuple(u.shape)} is too large for 32-bit addresses of states"
    if _transformed():
        return _transformed()
    there = _shared_memory(u.device)
    short = f"T = {T} wants {cut.shared} kB of shared memory, {there} are there: shorten T"
    return "" if there is None or cut.shared <= there else short


def _chunks_torch(nu, Bb, C, u, x, D):
    """The same without kernels, for any dtype: the convolution view, the twin; long signals on a
    CPU by `diag_chunks`, in less time and a fraction of the memory."""
    wide = u.to(torch.promote_types(u.dtype, torch.float32))
    long = u.device.type == "cpu" and u.shape[-1] >= 1 << 15 and u.numel() >= 1 << 19
    if long and not _transformed():
        y, last = diag_chunks(nu, Bb, C, wide, x)
        y = y if D is None else y + D.to(y.dtype)[..., None] * wide
        return y.to(u.dtype), last
    y = causal_conv(wide, vandermonde(C * Bb, nu, u.shape[-1], wide.dtype))
    if x is not None:
        y = y + diag_response(nu, C, x, u.shape[-1]).to(y.dtype)
    if D is not None:
        y = y + D.to(y.dtype)[..., None] * wide
    return y.to(u.dtype), diag_last_state(nu, Bb, wide, x)


def _chunks_triton(nu, Bb, C, u, x, D, cut_how, operators):
    """The same by the kernels of this chapter."""
    nu, Bb, C, u, x, D, lead = _flat(nu, Bb, C, u, x, D)
    n, T = nu.shape[-1], cut_how[0]
    cut = _cut(u.shape, n, *cut_how)
    if operators is None:
        K, I, O, m = _ChunkOperators.apply(nu, Bb, C, cut.N, T)
    elif math.prod(operators.K.shape[:-1]) != cut.H or operators.m.shape[-1] != cut.N:
        raise ValueError(f"want operators of {cut.H} systems of {n} modes, got other ones")
    else:
        K, I, O, m = (
            z.reshape(cut.H, *z.shape[i:]) for z, i in zip(operators, (-1, -3, -3, -2), strict=True)
        )
    if interpreting():  # on a GPU the kernels round, as the matrix unit wants them
        K, I = (z + (z.to(u.dtype).float() - z).detach() for z in (K, I))
    first = None if x is None else F.pad(_planes(x), (0, cut.N - n)).contiguous()
    y, xb = _FusedChunks.apply(u, K, I, O, m, D, first, nu.detach().contiguous(), cut)
    rest, X = cut.L - cut.whole, _complex(xb[..., :n])
    if rest:  # the last few samples; their part of the state is small work
        before = x if x is not None else nu.new_zeros((), dtype=torch.complex64)
        new = I[:, :, :n, T - rest :], u[..., cut.whole :].float()
        new = _real_product(new[1][:, :, None, None], new[0].mT)[..., 0, :]
        X = torch.exp(rest * nu).to(torch.complex64) * (X if cut.whole else before)
        X = X + _complex(new)
    return y.reshape(*lead, cut.L), X.reshape(*lead, n)


def _check_call(nu, Bb, C, u, x, D):
    """Raise unless all tensors fit."""
    check_tensors(u=u)
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    start = {} if x is None else {"x": x}
    direct = {} if D is None else {"D": D}
    check_axes({"u[..., 0]": u[..., 0], **direct}, nu=nu, Bb=Bb, C=C, **start)
    check_exponents(nu)
    if u.is_complex() or (D is not None and D.is_complex()):
        raise TypeError("want u and D real, got a complex tensor")
    if x is not None and not x.is_complex():
        raise TypeError(f"want x complex, got {x.dtype}")
    for name, z in {"u": u, "nu": nu, "Bb": Bb, "C": C, **start, **direct}.items():
        if 0 in z.shape:
            raise ValueError(f"want no empty axis of {name}, got {tuple(z.shape)}")


def _check_choices(T: int, precision: str, segments: int | None, operators) -> None:
    """Raise unless a kernel exists for these."""
    if operators is not None and operators.K.shape[-1] != T:
        raise ValueError(f"want operators for T = {T}, got T = {operators.K.shape[-1]}")
    if T not in (16, 32, 64, 128):
        raise ValueError(f"want T 16, 32, 64 or 128, got {T!r}")
    if precision not in ("tf32x3", "ieee", "tf32"):
        raise ValueError(f'want precision "tf32x3", "ieee" or "tf32", got {precision!r}')
    if segments is not None:
        check_length(segments, "segments")


def fused_chunks(
    nu: Tensor, Bb: Tensor, C: Tensor, u: Tensor, x: Tensor | None = None, *,
    D: Tensor | None = None, T: int = 64, backend: str = "auto",
    precision: str = "tf32x3", segments: int | None = None, operators: Operators | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a diagonal system over a signal, chunk by chunk, with one read and one write.

    Args:
        nu, Bb, C  (..., n)  as for `diag_step`: exponents, input and output weights
        u          (..., L)  the signal, real (Triton: float32 or bfloat16)       [input]
        x          (..., n)  the state before it, complex; at rest if None        [state]
        D          (...)     direct term, real; none if None                      [output/input]
        T          int       samples of a chunk: 16, 32, 64 or 128
        backend    str       "auto", "torch" (FFT, on a CPU chunks if long; any dtype) or "triton"
        precision  str       of float32's products on a GPU: "tf32x3", "ieee", "tf32"
        segments   int       pieces of time that run side by side; chosen if None
        operators  Operators  of nu, Bb, C and T, if made before by `chunk_operators`
    Returns:
        y  (..., L)  the output, D u included, in u's dtype                       [output]
        x  (..., n)  the state after it, in u's precision, at least complex64     [state]
    Raises:
        TypeError: if nu or x is no complex tensor, u no real one, or the others no tensors.
        ValueError: if shapes or devices do not fit, nu is not finite with Re <= 0, u is empty, T,
            segments or precision is none of those above, or "triton" cannot serve: with the reason.
        ModuleNotFoundError: if "triton" is wanted and not installed.

    Error:  1e-6 relative in float32; in bfloat16 that of rounding y, and of rounding the operators.
    Cost:   4 bytes a sample in bfloat16 (6 if cut into segments), 10 backward (12); T + 4 n
            multiplications a sample forward. Second derivatives take the plain composition.
    Source: our eq-triton-chunk, eq-triton-segments, eq-triton-adjoint, eq-triton-sensitivity.
    """
    _check_call(nu, Bb, C, u, x, D)
    _check_choices(T, precision, segments, operators)
    if backend == "auto" and u.device.type != "cuda":
        return _chunks_torch(nu, Bb, C, u, x, D)
    own = torch.broadcast_shapes(*(z.shape[:-1] for z in (nu, Bb, C)), () if D is None else D.shape)
    lead = torch.broadcast_shapes(own, u.shape[:-1], () if x is None else x.shape[:-1])
    batch = len(lead) - len(own)
    shape = math.prod(lead[:batch]), math.prod(lead[batch:]), u.shape[-1]
    how = T, segments, "tf32" if u.dtype == torch.bfloat16 else precision
    if choose_backend(backend, u.device, _why_not(nu.shape[-1], u, shape, *how)) == "torch":
        return _chunks_torch(nu, Bb, C, u, x, D)
    return _chunks_triton(nu, Bb, C, u, x, D, how, operators)
