"""Kernels with every table written down, as published code makes them: the judges of speed.

Home: chapter 14, "Speed: count first" (chapters/14_speed.ipynb).
"""

import math

import torch
from torch import Tensor

from s4lite.ops.checks import check_length
from s4lite.ops.dplr import _TAU, _check_system, _in_double, _precision, _real_row, dplr_discretize
from s4lite.ops.genfunc import c_tilde, from_spectrum, half_angles
from s4lite.ops.vandermonde import _check_modes, phi1

__all__ = ["diag_kernel_table", "dplr_kernel_table"]


def diag_kernel_table(
    Lambda: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, L: int, disc: str = "zoh"
) -> Tensor:
    """Kernel of a diagonal system by a table of exponentials, as most published code makes it.

    Args:
        Lambda  (..., n)        poles, one of each conjugate pair, Re <= 0  [1/time]
        B       (..., n)        input weights                               [state/(input time)]
        C       (..., n)        output weights, not conjugated              [output/state]
        dt      float or (...)  step size, real, > 0                        [time]
        L       int             number of lags, >= 1
        disc    str             "zoh" or "bilinear"
    Returns:
        K  (..., L)  2 Re sum_n C_n Bb_n Ab_n^l, real, all of it in the arguments' own precision
    Raises:
        TypeError, ValueError: as `diag_kernel` does.

    Error:  an angle l Im nu is rounded before it is reduced: l eps |Im nu|, see eq-diagonal-phase.
    Cost:   tables (..., n, L) of complex numbers, more than one of them; n L exponentials.
    Source: Gu et al. 2022 (S4D), section 3.2 and its code in a few lines; our eq-diagonal-kernel.
    """
    _check_modes(dt, disc, Lambda, B=B, C=C)
    check_length(L)
    dtype = _precision(Lambda, B, C)
    dt = torch.as_tensor(dt, dtype=dtype, device=Lambda.device)[..., None]
    z = dt * Lambda
    if disc == "zoh":
        nu, Bb = z, dt * phi1(z) * B
    else:
        nearly = torch.where(z == -2, 2.0**-53, 0.0)  # Ab = 0 has no logarithm, Ab = 1e-16 has
        nu, Bb = torch.log((1 + z / 2) / (1 - z / 2) + nearly), dt / (1 - z / 2) * B
    lags = torch.arange(L, device=nu.device).to(dtype)
    return 2 * torch.einsum("...n,...nl->...l", C * Bb, torch.exp(nu[..., None] * lags)).real


def _quotients(v: Tensor, below: list[Tensor]) -> Tensor:
    """One sum over both halves, a (..., n, K) table of quotients each: v (..., n)."""
    return (v[..., None] / below[0]).sum(-2) + (v.conj()[..., None] / below[1]).sum(-2)


def dplr_kernel_table(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor | float, L: int
) -> Tensor:
    """Kernel of a diagonal plus low rank system, a table of quotients for each of its sums.

    Args:
        Lambda, B, C  (..., n)        poles, Re <= 0, and weights, as for `dplr_kernel`
        P             (..., n, r)     low rank factor: A = Lambda - P P^*
        dt            float or (...)  step size, real, > 0  [time]
        L             int             number of lags, >= 1
    Returns:
        K  (..., L)  C Ab^l Bb, bilinear, real; sums in the arguments' own precision
    Raises:
        TypeError, ValueError: as `dplr_kernel` does.

    Error:  some eps (|2 s| + |c l|) / |2 s - c l| of each fraction; nodes and C-tilde are good.
    Cost:   two tables (..., n, L / 2) of what stands below, 2 (r + 1)^2 of complex quotients.
    Source: Gu et al. 2022 (S4), Algorithm 1 and appendix C.3; our eq-cauchy-circle.
    """
    _check_system({"dt": dt}, Lambda, P, B=B, C=C)
    check_length(L)
    dtype, (h, *modes) = _precision(Lambda, P, B, C), _in_double(dt, Lambda, P, B, C)
    re, im = c_tilde(_real_row(modes[3]), dplr_discretize(*modes[:3], h)[0], L, _TAU).chunk(2, -1)
    Ct, own = torch.complex(re, -im) / math.sqrt(2), torch.promote_types(dtype, torch.complex64)
    w, l = half_angles(L, _TAU, device=Lambda.device), (h[..., None] * modes[0]).to(own)
    s, c, e = (f(w).to(own) for f in (torch.sinh, torch.cosh, torch.exp))
    left = [h[..., None] * x for x in (Ct, *modes[1].mH.unbind(-2))]
    right = [modes[2], *modes[1].unbind(-1)]
    below = [2 * s - c * pole[..., None] for pole in (l, l.conj())]
    rho = [[_quotients((x * y).to(own), below) for y in right] for x in left]
    for j in range(len(rho) - 1, 0, -1):  # one wire after the other, eq-cauchy-wires
        loop = c / (1 + c * rho[j][j])
        rho = [[rho[x][y] - loop * rho[x][j] * rho[j][y] for y in range(j)] for x in range(j)]
    return from_spectrum(e * rho[0][0], L, _TAU)
