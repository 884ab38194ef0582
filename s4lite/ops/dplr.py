"""Diagonal plus low rank: S4's kernel by Cauchy sums and by matrix products, and its O(N) step.

Home: chapter 10, "Cauchy and Woodbury, with half the angle"
(chapters/10_cauchy_woodbury.ipynb).
"""

import functools
import math

import torch
from torch import Tensor

from s4lite.ops.cauchy import dplr_spectrum
from s4lite.ops.checks import (
    can_look,
    check_axes,
    check_length,
    check_positive,
    check_stable,
    check_tensors,
)
from s4lite.ops.conv import kernel_naive
from s4lite.ops.discretize import bilinear
from s4lite.ops.genfunc import c_tilde, from_spectrum, half_angles
from s4lite.ops.vandermonde import _real_product

__all__ = ["dplr_discretize", "dplr_kernel", "dplr_kernel_naive", "dplr_step", "real_form"]


def _check_system(samples: dict, Lambda: Tensor, P: Tensor, **others: Tensor) -> None:
    """Raise unless Lambda (..., n), P (..., n, r), others (..., n), samples (...) fit."""
    check_tensors(P=P)
    if P.ndim < 2 or P.shape[-1] < 1:
        raise ValueError(f"want P (..., n, r) with r >= 1, got {tuple(P.shape)}")
    tensors = {name: x for name, x in samples.items() if isinstance(x, Tensor)}
    check_axes(tensors, Lambda=Lambda, **{"P[..., 0]": P[..., 0]}, **others)
    if not Lambda.is_complex():
        raise TypeError(f"want Lambda complex, one pole of each pair, got {Lambda.dtype}")
    for name, x in tensors.items():
        if x.is_complex():
            raise TypeError(f"want {name} real, got {x.dtype}")
    check_stable(Lambda)
    check_positive(dt=samples.get("dt", 1.0))


def _in_double(dt: Tensor | float, *modes: Tensor) -> tuple[Tensor, ...]:
    """The same numbers in float64 and complex128: what they are about to enter needs the digits."""
    dt = torch.as_tensor(dt, dtype=torch.float64, device=modes[0].device)
    return dt, *(x.to(torch.complex128) for x in modes)


def _plane(x: Tensor, dim: int = -1) -> Tensor:
    """Real coordinates of the pair (x, x^*)."""
    return math.sqrt(2) * torch.cat([x.real, x.imag], dim)


def _real_row(C: Tensor) -> Tensor:
    """The row (C, C^*) in these coordinates: with a minus sign, since it is not conjugated."""
    return math.sqrt(2) * torch.cat([C.real, -C.imag], -1)


def _turn(d: Tensor) -> Tensor:
    """The real matrix of diag(d, d^*) in these coordinates: (..., n) to (..., 2n, 2n)."""
    re, im = torch.diag_embed(d.real), torch.diag_embed(d.imag)
    return torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)


def real_form(Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Write a half spectrum as the real system that it stands for, in unitary coordinates.

    Args:
        Lambda  (..., n)     poles, one of each conjugate pair  [1/time]
        P       (..., n, r)  low rank factor: A = Lambda - P P^*
        B       (..., n)     input weights                      [state/(input time)]
        C       (..., n)     output weights, not conjugated     [output/state]
    Returns:
        A  (..., N, N)  real, N = 2n, for the state sqrt(2) (Re x, Im x)
        B  (..., N)     real
        C  (..., N)     real
    Raises:
        TypeError: if Lambda is no complex tensor, or another argument no tensor.
        ValueError: if a pole has Re > 0, or shapes or devices do not fit.

    Error:  rounding of one product; the precision is that of the arguments.
    Source: our eq-cauchy-basis, eq-cauchy-real.
    """
    _check_system({}, Lambda, P, B=B, C=C)
    P, B, C = (x.to(torch.promote_types(x.dtype, torch.complex64)) for x in (P, B, C))
    Pr = _plane(P, -2)
    return _turn(Lambda) - Pr @ Pr.mT, _plane(B), _real_row(C)


def dplr_kernel_naive(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, L: int
) -> Tensor:
    """Kernel of a diagonal plus low rank system by dense matrix powers: the judge of `dplr_kernel`.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair, Re <= 0  [1/time]
        P       (..., n, r)     low rank factor: A = Lambda - P P^*
        B       (..., n)        input weights                               [state/(input time)]
        C       (..., n)        output weights, not conjugated              [output/state]
        dt      float or (...)  step size, real, > 0                        [time]
        L       int             number of lags, >= 1
    Returns:
        K  (..., L)  C Ab^l Bb of the whole spectrum, bilinear, real
    Raises:
        TypeError: as `dplr_kernel` does.
        ValueError: as `dplr_kernel` does.

    Cost:   L (N^2 + N) complex multiplications, one lag after the other, N = 2n.
    Source: Gu et al. 2022 (S4), eq. (5); our eq-views-kernel.
    """
    _check_system({"dt": dt}, Lambda, P, B=B, C=C)
    full, column = torch.cat([Lambda, Lambda.conj()], -1), torch.cat([P, P.conj()], -2)
    A = torch.diag_embed(full) - column @ column.mH
    Ab, Bb = bilinear(A, torch.cat([B, B.conj()], -1)[..., None], dt)
    return kernel_naive(Ab, Bb[..., 0], torch.cat([C, C.conj()], -1), L).real


def _inverse(dt: Tensor, Lambda: Tensor, P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pieces d (..., n), d P (..., n, r), G (..., r, r) of (I - dt A / 2)^-1."""
    d = 1 / (1 - dt[..., None] / 2 * Lambda)
    dP = d[..., None] * P
    loop = dt[..., None, None] * (P.mH @ dP).real
    return d, dP, loop + torch.eye(P.shape[-1], dtype=loop.dtype, device=loop.device)


def dplr_discretize(
    Lambda: Tensor, P: Tensor, B: Tensor, dt: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Discretize a diagonal plus low rank system, bilinear: its dense real form, N = 2n.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair, Re <= 0  [1/time]
        P       (..., n, r)     low rank factor: A = Lambda - P P^*
        B       (..., n)        input weights         [state/(input time)]
        dt      float or (...)  step size, real, > 0  [time]
    Returns:
        Ab  (..., N, N)  float64, for the state sqrt(2) (Re x, Im x); |Ab| <= 1
        Bb  (..., N)     float64                      [state/input]
    Raises:
        TypeError: if Lambda is no complex tensor, another argument no tensor, or dt complex.
        ValueError: if a pole has Re > 0, dt is not finite and > 0, or shapes or devices do not fit.

    Cost:   O(N^2 r): no matrix of size N is inverted.
    Source: Gu et al. 2022 (S4), appendix C.2; our eq-cauchy-cayley, eq-cauchy-inverse.
    """
    _check_system({"dt": dt}, Lambda, P, B=B)
    dt, Lambda, P, B = _in_double(dt, Lambda, P, B)
    d, dP, G = _inverse(dt, Lambda, P)
    across = torch.linalg.solve_ex(G, _plane(d.conj()[..., None] * P, -2).mT)[0]
    inverse = _turn(d) - dt[..., None, None] / 2 * (_plane(dP, -2) @ across)
    Bb = dt[..., None] * (inverse @ _plane(B)[..., None])[..., 0]
    return 2 * inverse - torch.eye(Bb.shape[-1], dtype=Bb.dtype, device=Bb.device), Bb


def dplr_step(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, u_t: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one sample in, move a diagonal plus low rank state on, give one sample out: O(N).

    Args:
        Lambda, B, C  (..., n)        poles, input and output weights, as for `dplr_kernel`
        P             (..., n, r)     low rank factor: A = Lambda - P P^*
        dt            float or (...)  step size, real, > 0        [time]
        u_t           (...)           the input sample, real      [input]
        x             (..., n)        the state before it, complex  [state]
    Returns:
        y_t  (...)     the output sample, 2 Re C x, in x's precision  [output]
        x    (..., n)  the state after it, Ab x + Bb u_t, in x's dtype  [state]
    Raises:
        TypeError: if Lambda or x is no complex tensor, u_t or dt complex, or B, C, P no tensors.
        ValueError: if a pole has Re > 0, dt is not finite and > 0, or shapes or devices do not fit.

    Error:  one rounding of the state a step; coefficients and sums are float64.
    Source: Gu et al. 2022 (S4), appendix C.2; our eq-cauchy-inverse, eq-cauchy-step.
    """
    check_tensors(u_t=u_t)
    _check_system({"dt": dt, "u_t": u_t}, Lambda, P, B=B, C=C, x=x)
    if not x.is_complex():
        raise TypeError(f"want x complex, got {x.dtype}")
    h, Lambda, P, B, C, before = _in_double(dt, Lambda, P, B, C, x)
    d, dP, G = _inverse(h, Lambda, P)
    inner = d * (before + h[..., None] / 2 * B * u_t[..., None])
    around = torch.linalg.solve_ex(G, 2 * (P.mH @ inner[..., None]).real)[0].to(dP.dtype)
    after = 2 * (inner - h[..., None] / 2 * (dP @ around)[..., 0]) - before
    return 2 * (C * after).sum(-1).real.to(x.real.dtype), after.to(x.dtype)


_TAU = 0.5  # damping of the exact circle: nodes stay tau / (L dt) away from all poles
_SHORT = 256  # kernels up to this length have their sums in float64, whatever is asked for


def _by_cauchy(system: tuple[Tensor, ...], L: int, dtype: torch.dtype) -> Tensor:
    """The kernel by Cauchy sums on the damped circle, with the exact C-tilde."""
    dt, Lambda, P, B, C = system
    Ab, _ = dplr_discretize(Lambda, P, B, dt)
    re, im = c_tilde(_real_row(C), Ab, L, _TAU).chunk(2, -1)
    Ct = torch.complex(re, -im) / math.sqrt(2)
    w = half_angles(L, _TAU).to(Lambda.device)
    K_hat = dplr_spectrum(Lambda, P, B, Ct, dt, w, torch.complex128)
    return from_spectrum(K_hat, L, _TAU).to(dtype)


def _by_dense(system: tuple[Tensor, ...], L: int, dtype: torch.dtype) -> Tensor:
    """The kernel as one matrix product, K[q R + j] = (C Ab^(q R)) (Ab^j Bb), eq-cauchy-dense."""
    dt, Lambda, P, B, C = system
    M, Bb = dplr_discretize(Lambda, P, B, dt)
    X, Y, R = Bb[..., None], _real_row(C)[..., None, :], 1
    Y = Y.expand(*torch.broadcast_shapes(Y.shape[:-2], M.shape[:-2]), 1, -1)
    while R * R < L:  # columns Ab^j Bb, j < R
        X, M, R = torch.cat([X, M @ X], -1), M @ M, 2 * R
    while Y.shape[-2] * R < L:  # rows C Ab^(q R); the last doubling needs no square
        Y = torch.cat([Y, Y @ M], -2)
        M = M @ M if Y.shape[-2] * R < L else M
    Y = Y[..., : -(-L // R), :]
    sums = dtype if L > _SHORT else torch.float64
    return _real_product(Y.to(sums), X.to(sums)).flatten(-2)[..., :L].to(dtype)


_TAU_SMALL = 18.0  # damping that lets C-tilde be C: e^-18 = 1.5e-8 < 2^-24


def _by_circle(system: tuple[Tensor, ...], L: int, dtype: torch.dtype) -> Tensor:
    """A float32 kernel by float64 Cauchy sums on a small circle: no C-tilde, no matrix."""
    dt, Lambda, P, B, C = system
    w = half_angles(L, _TAU_SMALL).to(Lambda.device)
    K_hat = dplr_spectrum(Lambda, P, B, C, dt, w, torch.complex128)
    return from_spectrum(K_hat, L, _TAU_SMALL).to(dtype)


def dplr_kernel(
    Lambda: Tensor,
    P: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor | float,
    L: int,
    *,
    route: str = "auto",
) -> Tensor:
    """Kernel of a diagonal plus low rank system, bilinear, by sums or by matrix products.

    Args:
        Lambda, B, C  (..., n)        poles, Re <= 0, and weights; C is not conjugated
        P             (..., n, r)     low rank factor: A = Lambda - P P^*
        dt            float or (...)  step size, real, > 0  [time]
        L, route      int, str        number of lags, >= 1; "auto", "cauchy", "dense" or "circle"
    Returns:
        K  (..., L)  C Ab^l Bb, real, in the precision of Lambda, P, B, C (at least float32)
    Raises:
        TypeError: if Lambda is no complex tensor, another no tensor, dt complex, or L no int.
        ValueError: if Re Lambda > 0, dt <= 0, L < 1, shapes do not fit, or the route is not open.

    Error:  of |C| |Bb| about 1e-12 in float64, 1e-14 tr G if that is more (G: `dplr_discretize`'s
            feedback, a few units as a rule); in float32 (N + 2) 2^-24 at most (dense, auto). The
            others rely on small tr G: circle on 100; cauchy: 5e-6 of max |K| at N = 64, tr G < 4.
    Cost:   log2(L) 2 N^3 + 2 N L (dense), more (cauchy), O(N L) (circle); nothing (n, L) is kept.
    Source: Gu et al. 2022 (S4), Algorithm 1; our eq-cauchy-circle, -dense, -alias.
    """
    _check_system({"dt": dt}, Lambda, P, B=B, C=C)
    check_length(L)
    system, dtype = _in_double(dt, Lambda, P, B, C), _precision(Lambda, P, B, C)
    return _ROUTES[_route(route, L, dtype, *system[:3])](system, L, dtype)


_ROUTES = {"cauchy": _by_cauchy, "dense": _by_dense, "circle": _by_circle}


def _precision(*modes: Tensor) -> torch.dtype:
    """The real dtype that can hold all of them, at least float32."""
    return functools.reduce(torch.promote_types, (x.real.dtype for x in modes), torch.float32)


def _is_mild(dt: Tensor, Lambda: Tensor, P: Tensor) -> bool:
    """Is the feedback of one step seen to be weak, tr (G - I) <= 100? Unseen is not."""
    if not all(can_look(x) for x in (dt, Lambda, P)):
        return False
    *_, G = _inverse(dt.detach(), Lambda.detach(), P.detach())
    return bool((G.diagonal(dim1=-2, dim2=-1).sum(-1) - G.shape[-1] <= 100).all())


def _route(route: str, L: int, dtype: torch.dtype, dt: Tensor, Lambda: Tensor, P: Tensor) -> str:
    """The road to take; "auto" is settled by what was measured in chapters 10 and 14."""
    single = dtype == torch.float32
    if route == "auto":
        short = 2 * Lambda.shape[-1] ** 2 >= L  # N^2 / 2, eq-speed-roads
        return "circle" if single and short and _is_mild(dt, Lambda, P) else "dense"
    if route not in _ROUTES:
        raise ValueError(f'want route "auto", "cauchy", "dense" or "circle", got {route!r}')
    if route == "circle" and not single:
        raise ValueError('want route "cauchy" or "dense" for a float64 kernel, got "circle"')
    return route
