"""All lags of a kernel at once: the truncated generating function on a circle, there and back.

Home: chapter 09, "Generating function" (chapters/09_generating_function.ipynb).
"""

import math
from numbers import Real

import torch
from torch import Tensor

from s4lite.ops.checks import check_length, check_tensors
from s4lite.ops.conv import kernel_naive
from s4lite.ops.discretize import bilinear

__all__ = [
    "c_tilde",
    "check_matrix",
    "check_tau",
    "from_spectrum",
    "genfunc",
    "genfunc_naive",
    "half_angles",
    "row_power",
    "spectrum",
]


def genfunc_naive(Ab: Tensor, Bb: Tensor, C: Tensor, z: Tensor, L: int) -> Tensor:
    """Truncated generating function of a kernel, the sum as written: the judge of `genfunc`.

    Args:
        Ab  (..., N, N)  discrete state matrix
        Bb  (..., N)     discrete input vector
        C   (..., N)     output vector, not conjugated
        z   (..., J)     where to look, real or complex; leading axes as those of the system
        L   int          number of lags, >= 1
    Returns:
        K_hat  (..., J)  sum over l < L of (C Ab^l Bb) z^l
    Raises:
        TypeError: if one is no floating or complex tensor, or L no int.
        ValueError: if shapes or devices do not fit, or L < 1.

    Cost:   L (N^2 + N) multiplications for the kernel, a power and a product of L more at each z.
    Source: Gu et al. 2022 (S4), appendix C.3; our eq-genfunc-definition.
    """
    K = kernel_naive(Ab, Bb, C, L)
    check_tensors(K=K, z=z)
    got = f"system {tuple(K.shape[:-1])}, z {tuple(z.shape)}"
    if z.ndim == 0:
        raise ValueError(f"want z (..., J); got {got}")
    try:
        torch.broadcast_shapes(K.shape[:-1], z.shape[:-1])
    except RuntimeError:
        raise ValueError(f"want leading axes that broadcast; got {got}") from None
    return sum(K[..., lag, None] * z**lag for lag in range(L))


def check_matrix(**tensors: Tensor) -> torch.dtype:
    """Raise unless the first is a square matrix and the others are vectors of its width.

    Args:
        tensors  (..., N, N), then (..., N)  under the names that the message shall use
    Returns:
        dtype  the dtype that can hold all of them
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if widths, leading axes or devices do not fit, or N = 0.
    """
    check_tensors(**tensors)
    (first, *names), (matrix, *rows), fault = tensors, tensors.values(), ""
    N, dtype = matrix.shape[-1] if matrix.ndim > 1 else 0, matrix.dtype
    if N == 0 or matrix.shape[-2] != N or any(x.shape[-1:] != (N,) for x in rows):
        fault = f"{first} (..., N, N), {', '.join(names)} (..., N), N >= 1"
    else:
        try:
            torch.broadcast_shapes(matrix.shape[:-2], *(x.shape[:-1] for x in rows))
        except RuntimeError:
            fault = "leading axes that broadcast"
    if fault:
        got = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise ValueError(f"want {fault}; got {got}")
    for x in rows:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def row_power(C: Tensor, Ab: Tensor, L: int) -> Tensor:
    """The row C Ab^L: square the matrix, and multiply the row wherever L has a binary 1.

    Args:
        C   (..., N)     row vector, not conjugated
        Ab  (..., N, N)  discrete state matrix
        L   int          the power, >= 1
    Returns:
        row  (..., N)  C Ab^L, in the dtype that can hold both
    Raises:
        TypeError: if one is no floating or complex tensor, or L no int.
        ValueError: if shapes or devices do not fit, or L < 1.

    Error:  each squaring doubles it, to L eps if |Ab| is about 1. So in float64, rounded once.
    Cost:   floor(log2 L) products of matrices, and one row times matrix for each binary 1 of L.
    Source: our eq-genfunc-binary, eq-genfunc-squaring.
    """
    dtype = check_matrix(Ab=Ab, C=C)
    check_length(L)
    wide = torch.promote_types(dtype, torch.float64)
    row, power = C.to(wide)[..., None, :], Ab.to(wide)
    while True:
        if L & 1:
            row = row @ power
        L >>= 1
        if not L:
            return row[..., 0, :].to(dtype)
        power = power @ power


def check_tau(tau: float) -> None:
    """Raise unless tau is a number from 0 to 36.

    Args:
        tau  float  damping of the circle: |z|^L = e^-tau. At 36, e^tau eps = 1: no digit is left
    Raises:
        TypeError: if it is no real number (a bool is none).
        ValueError: if it is negative, beyond 36, or NaN.
    """
    if isinstance(tau, bool) or not isinstance(tau, (Real, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"want tau as a number, got {type(tau).__name__} {tau!r:.40}")
    if not 0 <= tau <= 36:
        raise ValueError(f"want tau from 0 to 36, got {tau}")


def c_tilde(C: Tensor, Ab: Tensor, L: int, tau: float = 0.0) -> Tensor:
    """The row that cuts a kernel off after L lags: C (I - e^-tau Ab^L).

    Args:
        C    (..., N)     output vector, not conjugated
        Ab   (..., N, N)  discrete state matrix
        L    int          number of lags, >= 1
        tau  float        damping of the circle, 0 to 36: |z|^L = e^-tau
    Returns:
        Ct  (..., N)  C - e^-tau C Ab^L, in the dtype that can hold C and Ab
    Raises:
        TypeError: if one is no floating or complex tensor, L no int, or tau no number.
        ValueError: if shapes or devices do not fit, L < 1, or tau is outside [0, 36].

    Error:  as `row_power`; the difference, too, is taken in float64 and rounded once.
    Source: Gu et al. 2022 (S4), appendix C.3; our eq-genfunc-tilde, eq-genfunc-damped.
    """
    dtype = check_matrix(Ab=Ab, C=C)
    check_tau(tau)
    C = C.to(torch.promote_types(dtype, torch.float64))
    return (C - math.exp(-tau) * row_power(C, Ab, L)).to(dtype)


def half_angles(L: int, tau: float = 0.0, *, device: torch.device | None = None) -> Tensor:
    """Nodes z = e^(-2w), by their w: the first half of the circle |z|^L = e^-tau.

    Args:
        L       int           number of lags, and of nodes on the whole circle, >= 1
        tau     float         damping of the circle, 0 to 36
        device  torch.device  where they are wanted
    Returns:
        w  (L // 2 + 1,)  (i theta_k + tau / L) / 2, theta_k = 2 pi k / L from 0 to pi; complex128
    Raises:
        TypeError: if L is no int, or tau no number.
        ValueError: if L < 1, or tau is outside [0, 36].

    Error:  eps: one float64 product an angle. Powers of e^(-2 pi i / L) would add up L errors.
    Source: Gu et al. 2022 (S4), lemma C.2; our eq-genfunc-nodes, eq-genfunc-damped.
    """
    check_length(L)
    check_tau(tau)
    angle = torch.arange(L // 2 + 1, dtype=torch.float64, device=device) * (math.pi / L)
    return torch.complex(torch.full_like(angle, tau / (2 * L)), angle)


def _swelling(L: int, tau: float, like: Tensor) -> Tensor:
    """e^(tau l / L) for l = 0, ..., L - 1, made in float64."""
    lag = torch.arange(L, dtype=torch.float64, device=like.device)
    return torch.exp(lag * (tau / L)).to(like.dtype)


def spectrum(K: Tensor, tau: float = 0.0) -> Tensor:
    """Values of sum_l K_l z^l at the nodes z = e^(-2w) of `half_angles`.

    Args:
        K    (..., L)  kernel, real
        tau  float     damping of the circle, 0 to 36: |z|^L = e^-tau
    Returns:
        K_hat  (..., L // 2 + 1)  complex; on the other half of the circle are its conjugates
    Raises:
        TypeError: if K is no real floating tensor, or tau no number.
        ValueError: if K is empty, or tau is outside [0, 36].

    Error:  c log2(L) eps |K|; computed in K's dtype, at least in float32.
    Source: our eq-genfunc-nodes, eq-genfunc-damped.
    """
    check_tensors(K=K)
    check_tau(tau)
    if K.is_complex():
        raise TypeError(f"want K real, got {K.dtype}")
    if not K.ndim or 0 in K.shape:
        raise ValueError(f"want K (..., L), L >= 1, no axis empty; got {tuple(K.shape)}")
    K = K.to(torch.promote_types(K.dtype, torch.float32))
    return torch.fft.rfft(K / _swelling(K.shape[-1], tau, K))


def from_spectrum(K_hat: Tensor, L: int, tau: float = 0.0) -> Tensor:
    """Kernel whose generating function has these values at the nodes: undoes `spectrum`.

    Args:
        K_hat  (..., L // 2 + 1)  values at the nodes z = e^(-2w) of `half_angles`, complex
        L      int                number of lags, >= 1; the nodes alone do not tell 2m from 2m + 1
        tau    float              damping of the circle, 0 to 36
    Returns:
        K  (..., L)  real
    Raises:
        TypeError: if K_hat is no complex tensor, L no int, or tau no number.
        ValueError: if L < 1, K_hat has not L // 2 + 1 nodes, or tau is outside [0, 36].

    Error:  c log2(L) eps e^tau |K|; computed in K_hat's dtype, at least in complex64.
    Source: Gu et al. 2022 (S4), lemma C.2; our eq-genfunc-inverse, eq-genfunc-damped.
    """
    check_tensors(K_hat=K_hat)
    check_length(L)
    check_tau(tau)
    if not K_hat.is_complex():
        raise TypeError(f"want K_hat complex, got {K_hat.dtype}")
    if K_hat.shape[-1:] != (L // 2 + 1,) or 0 in K_hat.shape:
        got = f"{tuple(K_hat.shape)} for L = {L}"
        raise ValueError(f"want K_hat (..., L // 2 + 1), no axis empty; got {got}")
    K = torch.fft.irfft(K_hat.to(torch.promote_types(K_hat.dtype, torch.complex64)), n=L)
    return K * _swelling(L, tau, K)


def _resolvent(X: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Solve [(1 - z) I - (1 + z) X] x = b at all z = e^(-2w): X (..., N, N), x (..., J, N)."""
    w = w[:, None, None]
    eye = torch.eye(X.shape[-1], dtype=w.dtype, device=X.device)
    M = -torch.expm1(-2 * w) * eye - (1 + torch.exp(-2 * w)) * X[..., None, :, :]
    b = b[..., None, :, None].to(M.dtype)
    b = b[(None,) * (M.ndim - b.ndim)]  # so that b is taken for columns, not for one vector
    try:
        return torch.linalg.solve(M, b)[..., 0]
    except torch.linalg.LinAlgError:
        raise ValueError("want tau > 0: on this circle a node meets a pole of the system") from None


def genfunc(
    A: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, L: int, tau: float = 0.0
) -> Tensor:
    """Truncated generating function of a bilinear system at the nodes, through its resolvent.

    Args:
        A       (..., N, N)     state matrix, real              [1/time]
        B, C    (..., N)        input and output vector, real   [state/(input time), output/state]
        dt      float or (...)  step size, > 0                  [time]
        L, tau  int, float      number of lags, >= 1; damping of the circle, 0 to 36
    Returns:
        K_hat  (..., L // 2 + 1)  complex: what `from_spectrum` takes, with the same L and tau
    Raises:
        TypeError: if A, B or C is no real floating tensor, dt not real, L no int, tau no number.
        ValueError: if shapes or devices do not fit, dt, L or tau is out of range, or a node meets a
            pole (never if tau > 0 and |Ab| <= 1).

    Cost:   L / 2 solves of size N, all in float64. z = -1 is no special case.
    Source: Gu et al. 2022 (S4), appendix C.3; our eq-genfunc-resolvent, eq-genfunc-kernel.
    """
    dtype = check_matrix(A=A, B=B, C=C)
    if dtype.is_complex:
        raise TypeError(f"want A, B and C real, got {dtype}")
    A, B, C = (x.to(torch.float64) for x in (A, B, C))
    Ab, _ = bilinear(A, B[..., None], dt)
    Ct, w = c_tilde(C, Ab, L, tau), half_angles(L, tau, device=A.device)
    dt = torch.as_tensor(dt, dtype=A.dtype, device=A.device)[..., None]
    x = _resolvent(dt[..., None] / 2 * A, dt * B, w)
    K_hat = (Ct[..., None, :] * x).sum(-1)
    return K_hat.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
