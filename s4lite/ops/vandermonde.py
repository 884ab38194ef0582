"""Diagonal state spaces: the kernel is a sum of exponentials, and that sum a matrix product.

Home: chapter 11, "Diagonal" (chapters/11_diagonal.ipynb).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import (
    check_axes,
    check_disc,
    check_exponents,
    check_length,
    check_positive,
    check_stable,
    check_tensors,
)
from s4lite.ops.conv import kernel_naive
from s4lite.ops.discretize import bilinear, zoh

__all__ = [
    "diag_discretize",
    "diag_kernel",
    "diag_kernel_naive",
    "log_discretize",
    "phi1",
    "vandermonde",
    "vandermonde_transpose",
]


def phi1(z: Tensor) -> Tensor:
    """Compute (e^z - 1) / z, with the right value and the right gradient at z = 0 too.

    Args:
        z  any shape  complex or real
    Returns:
        phi1  same shape and dtype  1 + z/2 + z^2/6 + ...
    Raises:
        TypeError: if z is no floating or complex tensor.

    Error:  a few units of rounding: expm1(z) / z, and for |z| < 0.01 a polynomial cut below 1e-18.
    Source: Hochbruck and Ostermann 2010, section 2; our eq-diagonal-phi.
    """
    check_tensors(z=z)
    near = z.abs() < 1e-2
    far = torch.where(near, 1.0, z)
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6 * (1 + z / 7)))))
    return torch.where(near, series, torch.expm1(far) / far)


def _check_modes(dt: Tensor | float, disc: str, Lambda: Tensor, **weights: Tensor) -> None:
    """Raise unless poles, weights (B, C) and steps make stable diagonal systems."""
    steps = {"dt": dt} if isinstance(dt, Tensor) else {}
    check_axes(steps, Lambda=Lambda, **weights)
    if not Lambda.is_complex():
        raise TypeError(f"want Lambda complex, one pole of each pair, got {Lambda.dtype}")
    if steps and dt.is_complex():
        raise TypeError(f"want dt real, got {dt.dtype}")
    check_disc(disc)
    check_stable(Lambda)
    check_positive(dt=dt)


def log_discretize(Lambda: Tensor, dt: Tensor | float, disc: str = "zoh") -> tuple[Tensor, Tensor]:
    """Discretize poles, keeping the logarithm nu of Ab; Bb is given for B = 1.

    Args:
        Lambda  (..., n)        poles, Re <= 0        [1/time]
        dt      float or (...)  step size, real, > 0  [time]
        disc    str             "zoh" or "bilinear"
    Returns:
        nu   (..., n)  complex128: Ab = exp(nu), Ab^l = exp(l nu)
        phi  (..., n)  complex128: Bb = phi B               [time]
    Raises:
        TypeError: if Lambda is no complex tensor, or dt is complex or of integers.
        ValueError: if a pole has Re > 0, dt is not finite and > 0, shapes or devices do not fit,
            or disc is unknown.

    Error:  float64 rounding whatever the arguments' dtype: l nu is an angle, see eq-diagonal-phase.
    Source: Gu et al. 2022 (S4D), section 3.1; our eq-diagonal-log-zoh, eq-diagonal-log-bilinear.
    """
    _check_modes(dt, disc, Lambda)
    dt = torch.as_tensor(dt, dtype=torch.float64, device=Lambda.device)[..., None]
    z = dt * Lambda.to(torch.complex128)
    if disc == "zoh":
        return z, dt * phi1(z)
    half = z / 2 + torch.where(z == -2, 2.0**-53, 0.0)  # Ab = 0 has no logarithm, Ab = 6e-17 has
    return 2 * torch.atanh(half), dt / (1 - z / 2)


def diag_discretize(
    Lambda: Tensor, B: Tensor, dt: Tensor | float, disc: str = "zoh"
) -> tuple[Tensor, Tensor]:
    """Discretize a diagonal system: x_k = Ab x_{k-1} + Bb u_k, number by number.

    Args:
        Lambda  (..., n)        poles, Re <= 0        [1/time]
        B       (..., n)        input weights         [state/(input time)]
        dt      float or (...)  step size, real, > 0  [time]
        disc    str             "zoh" or "bilinear"
    Returns:
        Ab  (..., n)  discrete poles, complex
        Bb  (..., n)  discrete input weights, complex  [state/input]
    Raises:
        TypeError: if Lambda is no complex tensor, B no tensor, or dt complex or of integers.
        ValueError: if a pole has Re > 0, dt is not finite and > 0, shapes or devices do not fit,
            or disc is unknown.

    Error:  computed in float64, then rounded to the dtype that can hold Lambda and B.
    Source: Gu et al. 2022 (S4D), section 3.1; our eq-diagonal-zoh, eq-diagonal-bilinear.
    """
    _check_modes(dt, disc, Lambda, B=B)
    nu, phi = log_discretize(Lambda, dt, disc)
    dtype = torch.promote_types(Lambda.dtype, B.dtype)
    return nu.exp().to(dtype), (phi * B).to(dtype)


def diag_kernel_naive(
    Lambda: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, L: int, disc: str = "zoh"
) -> Tensor:
    """Kernel of a diagonal system by powers of a dense matrix: the judge of `diag_kernel`.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair  [1/time]
        B       (..., n)        input weights                      [state/(input time)]
        C       (..., n)        output weights, not conjugated     [output/state]
        dt      float or (...)  step size, real, > 0               [time]
        L       int             number of lags, >= 1
        disc    str             "zoh" or "bilinear"
    Returns:
        K  (..., L)  2 Re C Ab^l Bb, with Ab, Bb from `ops.discretize`, real
    Raises:
        TypeError: as `diag_kernel` does.
        ValueError: as `diag_kernel` does.

    Error:  rounding grows like L.
    Cost:   L (n^2 + n) complex multiplications, one lag after the other.
    Source: Gu et al. 2022 (S4D), section 3.2; our eq-diagonal-modes, eq-diagonal-half.
    """
    _check_modes(dt, disc, Lambda, B=B, C=C)
    rule = {"zoh": zoh, "bilinear": bilinear}[disc]
    Ab, Bb = rule(torch.diag_embed(Lambda), B[..., None], dt)
    return 2 * kernel_naive(Ab, Bb[..., 0], C, L).real


def _tile(L: int) -> tuple[int, int]:
    """Cut L lags into Q rows of R, both near sqrt(L): R is a power of two, Q R >= L."""
    R = 1
    while R * R < L:
        R *= 2
    return -(-L // R), R


def _powers(nu: Tensor, count: int, stride: int = 1) -> Tensor:
    """exp(k stride nu) for k = 0 .. count - 1, (..., count, n), by doubling: eq-speed-powers."""
    E, k = torch.exp(0 * nu)[..., None, :], 1
    while k < count:  # the second half is the first, times one exponential
        E, k = torch.cat([E, E * torch.exp(k * stride * nu)[..., None, :]], -2), 2 * k
    return E[..., :count, :]


def _plane(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex numbers as pairs of real ones, side by side: (..., n) to (..., 2n)."""
    return torch.view_as_real(z).flatten(-2).to(dtype)


def _real_product(X: Tensor, Y: Tensor) -> Tensor:
    """X @ Y in its own precision, under autocast too: the angles' digits were dear."""
    if not torch.amp.is_autocast_available(X.device.type):
        return X @ Y
    with torch.autocast(X.device.type, enabled=False):
        return X @ Y


def vandermonde(w: Tensor, nu: Tensor, L: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Sum exponentials, 2 Re sum_n w_n e^(l nu_n) for l = 0 .. L-1, as one matrix product.

    Args:
        w      (..., n)  weights, complex
        nu     (..., n)  exponents, complex128, Re <= 0
        L      int       number of lags, >= 1
        dtype  real      precision of the product and of K
    Returns:
        K  (..., L)  the sums, real
    Raises:
        TypeError: if w is no floating or complex tensor, nu no complex one, dtype not real and
            floating, or L no int.
        ValueError: if shapes or devices do not fit, nu is not finite with Re <= 0, or L < 1.

    Error:  a few eps of dtype, relative to sum |w|: angles are float64, see eq-diagonal-phase.
    Cost:   tables of n (Q + R) exponentials, Q R about L, about 2 n sqrt(L); 4 n L operations.
    Source: our eq-diagonal-product.
    """
    check_axes({}, w=w, nu=nu)
    check_exponents(nu)
    check_length(L)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"want dtype real and floating, got {dtype}")
    Q, R = _tile(L)
    X = _plane(2 * w[..., None, :] * _powers(nu, Q, R), dtype)  # (..., Q, 2n)
    Y = _plane(_powers(nu.conj(), R), dtype)  # (..., R, 2n), transposed
    return _real_product(X, Y.mT).flatten(-2)[..., :L]


def diag_kernel(
    Lambda: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, L: int, disc: str = "zoh"
) -> Tensor:
    """Kernel of a diagonal system with half spectrum, as one real matrix product.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair, Re <= 0  [1/time]
        B       (..., n)        input weights                               [state/(input time)]
        C       (..., n)        output weights, not conjugated              [output/state]
        dt      float or (...)  step size, real, > 0                        [time]
        L       int             number of lags, >= 1
        disc    str             "zoh" or "bilinear"
    Returns:
        K  (..., L)  2 Re sum_n C_n Bb_n Ab_n^l, real
    Raises:
        TypeError: if Lambda is no complex tensor, B or C no tensor, dt complex, or L no int.
        ValueError: if a pole has Re > 0, dt is not finite and > 0, L < 1, shapes or devices do
            not fit, or disc is unknown.

    Error:  relative to max |K| about 1e-14 in float64, 1e-6 in float32, at every L.
    Cost:   see `vandermonde`; nothing of size n L is ever stored, backward included.
    Source: Gu et al. 2022 (S4D), section 3.2; our eq-diagonal-kernel, eq-diagonal-product.
    """
    _check_modes(dt, disc, Lambda, B=B, C=C)
    nu, phi = log_discretize(Lambda, dt, disc)
    dtype = torch.promote_types(B.real.dtype, C.real.dtype)
    dtype = torch.promote_types(Lambda.real.dtype, dtype)
    return vandermonde(C * (phi * B), nu, L, dtype)


def vandermonde_transpose(u: Tensor, nu: Tensor) -> Tensor:
    """Take the moments of a signal, sum_l u_l e^(l nu_n): the transpose of `vandermonde`.

    Args:
        u   (..., L)  signal, real
        nu  (..., n)  exponents, complex128, Re <= 0
    Returns:
        m  (..., n)  the moments, complex128
    Raises:
        TypeError: if u is no real floating tensor, or nu no complex one.
        ValueError: if leading axes or devices do not fit, u is empty, or nu is not finite with
            Re <= 0.

    Error:  a few eps of u's dtype (at least float32), relative to sum |u|.
    Cost:   as `vandermonde`.
    Source: our eq-diagonal-moments.
    """
    check_tensors(u=u, nu=nu)
    if u.is_complex():
        raise TypeError(f"want u real, got {u.dtype}")
    check_length(u.shape[-1] if u.ndim else 0, "the length of u")
    check_axes({"u[..., 0]": u[..., 0]}, nu=nu)
    check_exponents(nu)
    Q, R = _tile(u.shape[-1])
    rows = F.pad(u, (0, Q * R - u.shape[-1])).unflatten(-1, (Q, R))
    rows = rows.to(torch.promote_types(u.dtype, torch.float32))
    partial = _real_product(rows, _plane(_powers(nu, R), rows.dtype)).double()  # (..., Q, 2n)
    partial = torch.view_as_complex(partial.unflatten(-1, (-1, 2)))
    return (partial * _powers(nu, Q, R)).sum(-2)
