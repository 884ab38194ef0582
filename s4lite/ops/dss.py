"""The kernel of DSS: exponentials, each divided by its own sum over the signal.

Home: chapter 11, "Diagonal" (chapters/11_diagonal.ipynb).
"""

import math

import torch
from torch import Tensor

from s4lite.ops.checks import can_look, check_axes, check_length, check_positive
from s4lite.ops.vandermonde import phi1, vandermonde

__all__ = ["dss_kernel", "dss_kernel_naive"]


def _softmax_exponents(Lambda: Tensor, w: Tensor, dt: Tensor | float, L: int) -> Tensor:
    """Check the arguments of both kernels and return dt Lambda, complex128, within half a turn."""
    check_axes({"dt": dt} if isinstance(dt, Tensor) else {}, Lambda=Lambda, w=w)
    if not Lambda.is_complex():
        raise TypeError(f"want Lambda complex, one pole of each pair, got {Lambda.dtype}")
    check_positive(dt=dt)
    check_length(L)
    dt = torch.as_tensor(dt, dtype=torch.float64, device=Lambda.device)[..., None]
    nu = dt * Lambda.to(torch.complex128)
    if can_look(nu) and len(bad := nu[~(nu.abs() < 1e290)]):
        got = f"{bad[0].item():g} among {nu.numel()}"
        raise ValueError(f"want dt Lambda finite (below 1e290), got {got}")
    return nu - 2j * math.pi * torch.round(nu.detach().imag / (2 * math.pi))


def dss_kernel_naive(Lambda: Tensor, w: Tensor, dt: Tensor | float, L: int) -> Tensor:
    """The softmax kernel row by row, as written: the judge of `dss_kernel`.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair, Re of any sign  [1/time]
        w       (..., n)        weights                                            [output/input]
        dt      float or (...)  step size, real, > 0                               [time]
        L       int             number of lags, >= 1
    Returns:
        K  (..., L)  2 Re sum_n w_n e^(l dt lambda_n) / sum_r e^(r dt lambda_n), float64
    Raises:
        TypeError: as `dss_kernel` does.
        ValueError: as `dss_kernel` does, but where a sum vanishes K is inf, NaN or noise.

    Cost:   n L complex exponentials, all held at once.
    Source: Gupta et al. 2022 (DSS), section 3; our eq-diagonal-dss.
    """
    nu = _softmax_exponents(Lambda, w, dt, L)
    rows = nu[..., None] * torch.arange(L, dtype=torch.float64, device=nu.device)
    rows = torch.exp(rows - rows.real.amax(-1, keepdim=True))  # the largest is 1
    return 2 * (w[..., None] * rows / rows.sum(-1, keepdim=True)).sum(-2).real


def _row_sum(nu: Tensor, L: int) -> Tensor:
    """Sum e^(r nu) over r < L, for Re nu <= 0 and |Im nu| <= pi; refused where it vanishes."""
    far = L * nu
    mean = phi1(far)  # (e^far - 1) / far
    if can_look(mean) and ((mean.abs() < 1e-13) & (far.abs() > 1) & (far.real > -1)).any():
        raise ValueError(
            f"want sum_l exp(l dt Lambda) over the L = {L} lags not 0, got a pole on the imaginary "
            "axis that makes whole turns in L steps: its softmax has no value"
        )
    return L * mean / phi1(nu)


def dss_kernel(Lambda: Tensor, w: Tensor, dt: Tensor | float, L: int) -> Tensor:
    """Kernel of DSS: each mode divided by its own sum over the L lags, as a softmax divides.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair, Re of any sign  [1/time]
        w       (..., n)        weights                                            [output/input]
        dt      float or (...)  step size, real, > 0                               [time]
        L       int             number of lags, >= 1: another L is another model
    Returns:
        K  (..., L)  2 Re sum_n w_n e^(l dt lambda_n) / sum_r e^(r dt lambda_n), real
    Raises:
        TypeError: if Lambda is no complex tensor, w no tensor, dt complex, or L no int.
        ValueError: if dt Lambda is not finite (or >= 1e290), dt not finite and > 0, L < 1, shapes
            or devices do not fit, or a sum vanishes (poles on the axis, whole turns in L steps).

    Error:  a few eps of the dtype, relative to the sum of |w_n| times its largest softmax.
    Cost:   twice that of `vandermonde`; nothing of size n L is ever stored.
    Source: Gupta et al. 2022 (DSS), section 3 (w / lambda there is 2 w here); eq-diagonal-dss.
    """
    nu = _softmax_exponents(Lambda, w, dt, L)
    dtype = torch.promote_types(Lambda.real.dtype, w.real.dtype)
    grows = nu.detach().real > 0
    nu = torch.where(grows, -nu, nu)  # growing is fading, read backwards
    w = w / _row_sum(nu, L)
    fading = vandermonde(torch.where(grows, 0, w), nu, L, dtype)
    return fading + vandermonde(torch.where(grows, w, 0), nu, L, dtype).flip(-1)
