"""The convolution of S4D in chunks, one read and one write: operators, autograd and choices.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import check_axes, check_exponents, check_length, check_tensors
from s4lite.ops.conv import causal_conv
from s4lite.ops.diag_state import diag_last_state, diag_response
from s4lite.ops.triton.backend import _only_once, choose_backend
from s4lite.ops.triton.chunk_kernels import _adjoint_kernel, _forward_kernel, _weights_kernel
from s4lite.ops.triton.rows import (
    _by_lag,
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
from s4lite.ops.vandermonde import vandermonde

__all__ = ["fused_chunks"]


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


def _backward(saved: tuple, cut: _Cut, g: Tensor, gxb: Tensor) -> list[Tensor]:
    """Gradients by u, K, I, O, m, D and x: eq-triton-adjoint, -weights and -sensitivity."""
    u, K, I, O, m, D, x0, jump = saved
    R = cut.tile(16)
    blocks, tiles = _partial_sums(cut, R)
    a, du = _row_adjoints(cut, g, O, m, gxb, jump), _output_like(u)
    dI, dO = (I.new_empty(blocks, *I.shape) for _ in range(2))
    toep, dm = K.new_empty(blocks, *K.shape, cut.T), K.new_empty(blocks, cut.H, 2, cut.N)
    numbers = (cut.late, tiles)
    args = (u, g, I, O, m, x0, a, gxb, toep, dO, dm)
    _launch(_weights_kernel, cut, R, blocks, *args, numbers=numbers)
    args = (u, g, K, I, O, m, D, a, gxb, du, dI)  # a: from here on where rows begin
    _launch(_adjoint_kernel, cut, R, blocks, *args, numbers=numbers)
    dK = _by_lag(toep.sum(0))
    weights = [z.double() for z in (dK, dI.sum(0), dO.sum(0), dm.sum(0), dK[:, 0])]
    dx = a.view(cut.batch, cut.segments, cut.H, 2, cut.N)[:, 0]
    return [du.to(u.dtype), *weights, dx]


class _FusedChunks(torch.autograd.Function):
    """Output and the state before the last chunk, for u (batch, H, L) and padded operators."""

    @staticmethod
    def forward(ctx, u, K, I, O, m, D, x, jump, cut):
        R = cut.tile(64)
        high = m.float()
        m = torch.cat([high, (m - high).float()], -2)  # (H, 4, N)
        K, I = (z.to(u.dtype).float() for z in (K, I))  # rounded as the matrix unit wants them
        K, I, O, D = (z.float().contiguous() for z in (K, I, O, D))
        x0 = _row_states(cut, u, I, m, x, jump)
        y, xb = _output_like(u), torch.empty_like(x, memory_format=torch.contiguous_format)
        args = (u, K, I, O, m, D, x0, y, xb)
        _launch(_forward_kernel, cut, R, -(-cut.rows // R), *args, numbers=(cut.late,))
        ctx.save_for_backward(u, K, I, O, m, D, x0, jump)
        ctx.cut = cut
        return y.to(u.dtype), xb

    @staticmethod
    def backward(ctx, g, gxb):
        _only_once()
        g = g.to(ctx.saved_tensors[0].dtype).contiguous()
        return *_backward(ctx.saved_tensors, ctx.cut, g, gxb.contiguous()), None, None


def _flat(nu, Bb, C, u, x, D):
    """Coefficients (H, n), D (H,), u (batch, H, L), x (batch, H, 2, n); and the leading axes."""
    own = torch.broadcast_shapes(*(z.shape[:-1] for z in (nu, Bb, C)), () if D is None else D.shape)
    start = () if x is None else x.shape[:-1]
    lead = torch.broadcast_shapes(own, u.shape[:-1], start)
    own = lead[len(lead) - len(own) :]
    H, n = math.prod(own), nu.shape[-1]
    nu, Bb, C = (z.to(torch.complex128).expand(*own, n).reshape(H, n) for z in (nu, Bb, C))
    D = nu.real.new_zeros(H) if D is None else D.double().expand(own).reshape(H)
    u = u.expand(*lead, u.shape[-1]).reshape(-1, H, u.shape[-1]).contiguous()
    x = nu.new_zeros(()) if x is None else x
    x = x.to(torch.complex64).expand(*lead, n).reshape(-1, H, n)
    return nu, Bb, C, u, _planes(x), D, lead


def _why_not(nu: Tensor, u: Tensor) -> str:
    """Say why the kernels cannot serve; "" if they can."""
    if u.dtype not in (torch.float32, torch.bfloat16):
        return f"u is {u.dtype}, want float32 or bfloat16"
    if nu.shape[-1] > 128:
        return f"n = {nu.shape[-1]} modes, want at most 128: tiles would not fit"
    if torch._C._are_functorch_transforms_active():
        return "inside a torch.func transform"
    if u[..., 0].numel() * max(64, nu.shape[-1]) >= 2**24 or u.shape[-1] >= 2**30:
        return f"u {tuple(u.shape)} is too large for 32-bit addresses of states"
    return ""


def _chunks_torch(nu, Bb, C, u, x, D):
    """The same by the convolution view, for any dtype: the twin."""
    wide = u.to(torch.promote_types(u.dtype, torch.float32))
    y = causal_conv(wide, vandermonde(C * Bb, nu, u.shape[-1], wide.dtype))
    if x is not None:
        y = y + diag_response(nu, C, x, u.shape[-1]).to(y.dtype)
    if D is not None:
        y = y + D.to(y.dtype)[..., None] * wide
    return y.to(u.dtype), diag_last_state(nu, Bb, wide, x)


def _chunks_triton(nu, Bb, C, u, x, D, T, segments, precision):
    """The same by the kernels of this chapter."""
    nu, Bb, C, u, x, D, lead = _flat(nu, Bb, C, u, x, D)
    L, n = u.shape[-1], nu.shape[-1]
    cut = _cut(u.shape, n, T, segments, precision)
    K, I, O, m = _chunk_operators(nu, Bb, C, T)
    grow = (0, cut.N - n)
    jumps = torch.arange(cut.segments + 1, device=u.device) * (cut.chunks * T)
    jumps[-1] = cut.late - (cut.segments - 1) * cut.chunks * T
    jump = F.pad(torch.exp(nu.detach()[..., None] * jumps), (0, 0, *grow)).to(torch.complex64)
    wide = [F.pad(z, (0, 0, *grow)) for z in (I, O)]
    y, xb = _FusedChunks.apply(u, K, *wide, F.pad(m, grow), D, F.pad(x, grow), jump, cut)
    rest = L - cut.late
    new = torch.einsum("bhj,hpnj->bhpn", u[..., cut.late :].float(), I[..., T - rest :].float())
    x = torch.exp(rest * nu).to(torch.complex64) * _complex(xb[..., :n]) + _complex(new)
    return y.reshape(*lead, L), x.reshape(*lead, n)


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
    if 0 in u.shape:
        raise ValueError(f"want no empty axis of u, got {tuple(u.shape)}")


def _check_choices(T: int, precision: str, segments: int | None) -> None:
    """Raise unless a kernel exists for these."""
    if T not in (16, 32, 64, 128):
        raise ValueError(f"want T 16, 32, 64 or 128, got {T!r}")
    if precision not in ("tf32x3", "ieee", "tf32"):
        raise ValueError(f'want precision "tf32x3", "ieee" or "tf32", got {precision!r}')
    if segments is not None:
        check_length(segments, "segments")


def fused_chunks(
    nu: Tensor, Bb: Tensor, C: Tensor, u: Tensor, x: Tensor | None = None, *,
    D: Tensor | None = None, T: int = 64, backend: str = "auto",
    precision: str = "tf32x3", segments: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a diagonal system over a signal, chunk by chunk, with one read and one write.

    Args:
        nu, Bb, C  (..., n)  as for `diag_step`: exponents, input and output weights
        u          (..., L)  the signal, real (Triton: float32 or bfloat16)       [input]
        x          (..., n)  the state before it, complex; at rest if None        [state]
        D          (...)     direct term, real; none if None                      [output/input]
        T          int       samples of a chunk: 16, 32, 64 or 128
        backend    str       "auto", "torch" (FFT; any dtype) or "triton"
        precision  str       of float32's products on a GPU: "tf32x3", "ieee", "tf32"
        segments   int       pieces of time that run side by side; chosen if None
    Returns:
        y  (..., L)  the output, D u included, in u's dtype                       [output]
        x  (..., n)  the state after it, in u's precision, at least complex64     [state]
    Raises:
        TypeError: if nu or x is no complex tensor, u no real one, or the others no tensors.
        ValueError: if shapes or devices do not fit, nu is not finite with Re <= 0, u is empty, T,
            segments or precision is none of those above, or "triton" cannot serve: with the reason.
        ModuleNotFoundError: if "triton" is wanted and not installed.

    Error:  1e-6 relative in float32; in bfloat16 that of rounding y, and of rounding the operators.
    Cost:   4 bytes a sample in bfloat16 (6 if cut into segments), 10 backward (12); 2 T + 4 n
            multiplications a sample. Differentiable once with Triton.
    Source: our eq-triton-chunk, eq-triton-segments, eq-triton-adjoint, eq-triton-sensitivity.
    """
    _check_call(nu, Bb, C, u, x, D)
    _check_choices(T, precision, segments)
    if choose_backend(backend, u.device, _why_not(nu, u)) == "torch":
        return _chunks_torch(nu, Bb, C, u, x, D)
    return _chunks_triton(nu, Bb, C, u, x, D, T, segments, precision)
