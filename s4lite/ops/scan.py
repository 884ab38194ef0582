"""Recurrences with a coefficient of their own at every sample: in steps, and by pairs.

Home: chapter 13, "Streaming, states, rates, irregular samples"
(chapters/13_streaming.ipynb).
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s4lite.ops.checks import can_look, check_axes, check_length, check_tensors
from s4lite.ops.dplr import _check_system, _in_double, _inverse
from s4lite.ops.vandermonde import _check_modes

__all__ = ["diag_scan", "dplr_scan", "scan", "scan_naive"]


def _start(x0: Tensor | None) -> dict[str, Tensor]:
    """The state by its name, if there is one."""
    return {} if x0 is None else {"x0": x0}


def _shapes(**tensors: Tensor) -> str:
    """The names and shapes of tensors, for a message."""
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())


def _check_recurrence(a: Tensor, b: Tensor, x0: Tensor | None) -> tuple[Tensor, Tensor]:
    """Look at all arguments; a and b in one dtype, b with all leading axes and with x0 in it."""
    start = _start(x0)
    check_tensors(a=a, b=b, **start)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"want a, b (..., L) of one length, got {_shapes(a=a, b=b)}")
    check_length(b.shape[-1], "the length of b")
    try:
        rows = [x.shape[:-1] for x in (a, b)] + [x.shape for x in start.values()]
        shape = torch.broadcast_shapes(*rows)
    except RuntimeError:
        got = _shapes(a=a, b=b, **start)  # made here only: under compilation sizes have no digits
        raise ValueError(f"want leading axes that broadcast, got {got}") from None
    dtype = torch.promote_types(a.dtype, b.dtype)
    dtype = dtype if x0 is None else torch.promote_types(dtype, x0.dtype)
    a, b = a.to(dtype), b.to(dtype).expand(*shape, -1)
    if x0 is not None:
        b = torch.cat([b[..., :1] + (a[..., 0] * x0)[..., None], b[..., 1:]], -1)
    return a, b


def scan_naive(a: Tensor, b: Tensor, x0: Tensor | None = None) -> Tensor:
    """Run x_k = a_k x_{k-1} + b_k, one step after the other: the judge of `scan`.

    Args:
        a   (..., L)  what is left of the state at each step, real or complex
        b   (..., L)  what is added to it
        x0  (...)     the state before the first step; 0 if None
    Returns:
        x  (..., L)  the state after each step, in the dtype that can hold all three
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if lengths, leading axes or devices do not fit, or L = 0.

    Cost:   L steps, one after the other.
    Source: Smith et al. 2023 (S5), sec. 2.2; our eq-stream-recurrence.
    """
    a, b = _check_recurrence(a, b, x0)
    x = [b[..., 0]]
    for a_k, b_k in zip(a[..., 1:].unbind(-1), b[..., 1:].unbind(-1), strict=True):
        x.append(a_k * x[-1] + b_k)
    return torch.stack(x, -1)


def _by_pairs(a: Tensor, b: Tensor) -> Tensor:
    """The scan from rest: join neighbours, scan half as many, fill in the places between."""
    L = b.shape[-1]
    if L == 1:
        return b.clone()
    later = a[..., 1::2]
    odd = _by_pairs(later * a[..., : L - 1 : 2], later * b[..., : L - 1 : 2] + b[..., 1::2])
    even = a[..., 2::2] * odd[..., : (L - 1) // 2] + b[..., 2::2]
    even = torch.cat([b[..., :1], even], -1)
    x = torch.stack([even[..., : L // 2], odd], -1).flatten(-2)
    return x if L % 2 == 0 else torch.cat([x, even[..., -1:]], -1)


class _Scan(torch.autograd.Function):
    """The scan with its adjoint, eq-stream-scan-adjoint: the same scan, read from the end."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return _by_pairs(a, b)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        a, x = ctx.saved_tensors
        after = torch.cat([a[..., 1:], torch.zeros_like(a[..., :1])], -1).conj()
        p = _Scan.apply(after.flip(-1), g.flip(-1)).flip(-1)
        before = torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], -1)
        return (p * before.conj()).sum_to_size(a.shape), p


def scan(a: Tensor, b: Tensor, x0: Tensor | None = None) -> Tensor:
    """Run x_k = a_k x_{k-1} + b_k in about log2 L rounds, each of them one vector operation.

    Args:
        a   (..., L)  what is left of the state at each step, real or complex; 0 forgets all
        b   (..., L)  what is added to it
        x0  (...)     the state before the first step; 0 if None
    Returns:
        x  (..., L)  the state after each step, in the dtype that can hold all three
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if lengths, leading axes or devices do not fit, or L = 0.

    Error:  that of products and sums of a and b; no logarithm, no quotient of products.
    Cost:   fewer than 2 L joins of two steps; the backward pass is a scan too and keeps a and x.
    Source: Blelloch 1990, sec. 1.4; our eq-stream-join, -pairs, -scan-adjoint.
    """
    a, b = _check_recurrence(a, b, x0)
    return _by_pairs(a, b) if torch.compiler.is_compiling() else _Scan.apply(a, b)


def _check_samples(dt: Tensor, u: Tensor, x0: Tensor | None) -> tuple[dict, dict]:
    """Look at dt, u (..., L) and x0; the first samples and the start, by name, for what follows."""
    start = _start(x0)
    check_tensors(dt=dt, u=u, **start)
    if x0 is not None and not x0.is_complex():
        raise TypeError(f"want x0 complex, got {x0.dtype}")
    for name, x in {"dt": dt, "u": u}.items():
        if x.is_complex():
            raise TypeError(f"want {name} real, got {x.dtype}")
    if dt.ndim == 0 or u.ndim == 0 or dt.shape[-1] != u.shape[-1]:
        got = f"dt {tuple(dt.shape)}, u {tuple(u.shape)}"
        raise ValueError(f"want dt, u (..., L) of one length, got {got}")
    check_length(u.shape[-1], "the length of u")
    if can_look(dt) and len(bad := dt[~((dt >= 0) & dt.isfinite())]):
        raise ValueError(f"want dt finite and >= 0, got {bad[0]:g} among {dt.numel()} values")
    return {"u[..., 0]": u[..., 0], "dt[..., 0]": dt[..., 0]}, start


_KEEP = {"use_reentrant": False, "preserve_rng_state": False}  # nothing random is in a block


def _in_blocks(
    block: Callable, system: tuple[Tensor, ...], dt: Tensor, u: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Run block(x, dt, u, *system) -> y, x over about sqrt L samples at a time.

    A block must not return a view of its states: it would keep all of them alive.
    """
    L = u.shape[-1]
    T = 1 << max(5, (L.bit_length() + 1) // 2)
    learns = torch.is_grad_enabled() and any(v.requires_grad for v in (x, dt, u, *system))
    if not torch.compiler.is_compiling():  # torch.func knows no checkpoints
        learns = learns and not torch._C._are_functorch_transforms_active()
    y = []
    for dt_b, u_b in zip(dt.split(T, -1), u.split(T, -1), strict=True):
        if learns and L > T:  # keep the state between blocks alone; walk each again on the way back
            y_b, x = checkpoint(block, x, dt_b, u_b, *system, **_KEEP)
        else:
            y_b, x = block(x, dt_b, u_b, *system)
        y.append(y_b)
    dtype = torch.promote_types(u.dtype, torch.float32)
    return torch.cat(y, -1).to(dtype), x.to(torch.promote_types(dtype, torch.complex64))


def _hold(Lambda: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold for steps dt >= 0: Ab, and Bb for B = 1, eq-stream-hold."""
    z = dt * Lambda
    decay, sin, cos = torch.exp(z.real), torch.sin(z.imag / 2), torch.cos(z.imag / 2)
    down, turn = 2 * decay * sin * sin, 2 * decay * sin * cos
    Ab, less = torch.complex(decay - down, turn), torch.complex(torch.expm1(z.real) - down, turn)
    near = z.real.square() + z.imag.square() < 1e-4
    small = torch.where(near, z, 0.0)
    series = small * (1 / 5040) + 1 / 720
    for c in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        series = series * small + c
    return Ab, torch.where(near, dt * series, less / torch.where(near, 1.0, Lambda))


def _diag_block(
    disc: str, x: Tensor, dt: Tensor, u: Tensor, Lambda: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """One block of `diag_scan`: states (..., n, T) by a scan, heard through C."""
    Lambda, dt = Lambda[..., None], dt[..., None, :]
    if disc == "zoh":
        Ab, phi = _hold(Lambda, dt)
    else:
        half = dt / 2 * Lambda
        Ab, phi = (1 + half) / (1 - half), dt / (1 - half)
    x = scan(Ab, phi * B[..., None] * u[..., None, :], x)
    return 2 * (C[..., None] * x).sum(-2).real, x[..., -1].clone()


def _in_full(
    x0: Tensor | None, dt: Tensor, u: Tensor, *modes: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """The start (..., n), zeros if None, with all leading axes; dt and modes; all in float64."""
    dt, *system = _in_double(dt, *modes)
    rows = [dt[..., 0], u[..., 0], *(x[..., 0] for x in system[:3])]
    x0 = torch.zeros_like(system[0]) if x0 is None else x0.to(torch.complex128)
    shape = torch.broadcast_shapes(*(x.shape for x in rows), x0.shape[:-1])
    return x0.expand(*shape, -1), dt, tuple(system)


def diag_scan(
    Lambda: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    u: Tensor,
    x0: Tensor | None = None,
    disc: str = "zoh",
) -> tuple[Tensor, Tensor]:
    """Run a diagonal system over samples that are not equally far apart.

    Args:
        Lambda, B, C  (..., n)  poles, Re <= 0, one of each pair; input and output weights
        dt            (..., L)  from the sample before, >= 0; 0: nothing happens  [time]
        u, x0         (..., L), (..., n)  input, real; the complex state before it, None: at rest
        disc          str       "zoh" or "bilinear"
    Returns:
        y       (..., L)  2 Re C x_k, real, in the precision of u (at least float32)  [output]
        x_last  (..., n)  the state after the last sample, complex, in y's precision  [state]
    Raises:
        TypeError: if Lambda or x0 is no complex tensor, dt or u no real one, or B, C no tensors.
        ValueError: if a pole has Re > 0, dt is not finite and >= 0, or anything does not fit.

    Error:  the rounding of y: coefficients and states are complex128.
    Cost:   see `scan`; about n sqrt(L) numbers are kept at a time, backward included; all n L
            under torch.func, which knows no checkpoints.
    Source: Smith et al. 2023 (S5), on irregular sampling; our eq-stream-irregular, -join.
    """
    first, start = _check_samples(dt, u, x0)
    _check_modes(1.0, disc, Lambda, B=B, C=C)
    check_axes(first, Lambda=Lambda, B=B, C=C, **start)
    x0, dt, system = _in_full(x0, dt, u, Lambda, B, C)
    return _in_blocks(functools.partial(_diag_block, disc), system, dt, u, x0)


def _dplr_block(
    x: Tensor, dt: Tensor, u: Tensor, Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """One block of `dplr_scan`: the pieces of all steps at once, then step by step."""
    d, dP, G = _inverse(dt, Lambda[..., None, :], P[..., None, :, :])
    back = (dt[..., None, None] * dP) @ torch.linalg.inv_ex(G)[0].to(dP.dtype)  # (..., T, n, r)
    push, Pt, x_all = (dt / 2 * u)[..., None] * B[..., None, :], P.mH, []
    for d_k, back_k, push_k in zip(d.unbind(-2), back.unbind(-3), push.unbind(-2), strict=True):
        inner = d_k * (x + push_k)
        around = 2 * (Pt @ inner[..., None]).real
        x = 2 * inner - x - (back_k @ around.to(x.dtype))[..., 0]
        x_all.append(x)
    return 2 * (C[..., None, :] * torch.stack(x_all, -2)).sum(-1).real, x


def dplr_scan(
    Lambda: Tensor,
    P: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    u: Tensor,
    x0: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a diagonal plus low rank system, bilinear, over samples not equally far apart.

    Args:
        Lambda, B, C  (..., n)     poles, Re <= 0, one of each pair; input and output weights
        P             (..., n, r)  low rank factor: A = Lambda - P P^*
        dt            (..., L)     from the sample before, >= 0; 0: nothing happens  [time]
        u, x0         (..., L), (..., n)  input, real; the complex state before it, None: at rest
    Returns:
        y       (..., L)  2 Re C x_k, real, in the precision of u (at least float32)  [output]
        x_last  (..., n)  the state after the last sample, complex, in y's precision  [state]
    Raises:
        TypeError: if Lambda or x0 is no complex tensor, dt or u no real one, or P, B, C no tensors.
        ValueError: if a pole has Re > 0, dt is not finite and >= 0, or anything does not fit.

    Error:  the rounding of y: coefficients and states are complex128.
    Cost:   L steps of O(n r), one after the other: joining two steps would cost N^3.
    Source: Gu et al. 2022 (S4), appendix C.2; our eq-cauchy-step, eq-stream-rank.
    """
    first, start = _check_samples(dt, u, x0)
    _check_system(first, Lambda, P, B=B, C=C, **start)
    x0, dt, (Lambda, B, C, P) = _in_full(x0, dt, u, Lambda, B, C, P)
    return _in_blocks(_dplr_block, (Lambda, P, B, C), dt, u, x0)
