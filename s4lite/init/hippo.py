"""State matrices that remember: x' = A x + B u keeps the best N-number summary of its past.

Home: chapter 05, "HiPPO" (chapters/05_hippo.ipynb), and chapter 06, "Sliding windows"
(chapters/06_windows.ipynb).
"""

import math

import torch
from torch import Tensor

from s4lite.init.basis import check_signal, gauss, legendre
from s4lite.init.measures import check_measure
from s4lite.ops.checks import check_length, check_positive
from s4lite.ops.discretize import bilinear

__all__ = ["fout", "hippo", "lagt", "legs", "legs_memory", "legs_transition", "legt", "lmu"]


def legs(N: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS, the memory of the whole past: c' = (A c + B f) / t, or x' = A x + B u.

    Args:
        N      int    how many numbers
        dtype  dtype  floating, of the answer; computed in float64
    Returns:
        A  (N, N)  -r_n r_k below the diagonal, -(n + 1) on it, 0 above, r_n = sqrt(2n + 1)
        B  (N,)    r_n; both on the CPU
    Raises:
        TypeError, ValueError: if N is no int >= 1, or dtype not floating (or complex).

    Error:  exact. With 1/t: uniform measure on [0, t]; without: `basis.exponential`.
    Source: Gu et al. 2020 (HiPPO), theorem 2; Gu et al. 2022 (S4), eq. (2); our eq-hippo-legs.
    """
    check_length(N, "N")
    if not (isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.is_complex)):
        raise TypeError(f"want a floating or complex dtype, got {dtype!r}")
    n = torch.arange(N, dtype=torch.float64, device="cpu")
    B = (2 * n + 1).sqrt()
    A = -torch.outer(B, B).tril(-1) - torch.diag(n + 1)
    return A.to(dtype), B.to(dtype)


def _stretch(N: int, sigma: Tensor) -> Tensor:
    """E of eq-hippo-transition, for old histories that fill the part sigma (K,): (K, N, N)."""
    r, w = gauss(N)
    far, here = legendre(N, sigma[:, None] * r), legendre(N, r)
    return (sigma[:, None, None] * (far.mT * w) @ here).tril()


def legs_transition(N: int, t0: float, t1: float) -> Tensor:
    """What becomes of the numbers from t0 to t1 without input: E = e^(A ln(t1/t0)).

    Args:
        N   int    how many numbers
        t0  float  when, > 0   [time]
        t1  float  later, >= t0  [time]
    Returns:
        E  (N, N)  c(t1) = E c(t0) if f = 0 in between; lower triangular, float64
    Raises:
        TypeError, ValueError: if N is no int >= 1, or not 0 < t0 <= t1 < infinity.

    Error:  exact up to rounding (N nodes of Gauss suffice); |E| <= sqrt(t0/t1).
    Source: our eq-hippo-transition.
    """
    check_length(N, "N")
    if isinstance(t0, Tensor) or isinstance(t1, Tensor):
        raise TypeError("want t0 and t1 as numbers, got a Tensor")
    if type(t0) in (int, float) and t0 == 0:
        raise ValueError("want t0 > 0, got 0: there is no past yet; start from c = f(0) e_0")
    check_positive(t0=t0, t1=t1)
    if not t0 <= t1:
        raise ValueError(f"want t0 <= t1, got {t0} and {t1}")
    return _stretch(N, torch.tensor([t0 / t1], dtype=torch.float64))[0]


def _memory_steps(N: int, k: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """E (K, N, N), b (K, N) of the steps number k (K,), from 1: c_k = E c_(k-1) + b f_(k-1)."""
    k, first = k.to(torch.float64), torch.eye(N, dtype=torch.float64)[0]
    if method == "exact":
        E = _stretch(N, (k - 1) / k)
        return E, first - E[..., 0]
    A, B = legs(N)
    E, b = bilinear(A, B[:, None], 1 / (k if method == "bilinear" else k - 0.5))
    if method == "midpoint":
        begin = (k == 1)[:, None]
        return E.where(~begin[..., None], 0), first.where(begin, b[..., 0])
    return E, b[..., 0]


def legs_memory(u: Tensor, N: int, method: str = "exact") -> Tensor:
    """Sum up a signal's whole past in N numbers, online: one update a sample.

    Args:
        u       (..., L)  samples, one a unit of time  [input]
        N       int       how many numbers
        method  str       "exact": the staircase of the samples; "bilinear": the published rule with
                          A/k; "midpoint": bilinear with A/(k - 1/2), started at c_1 = u_0 e_0
    Returns:
        c  (..., L, N)  coefficients on `legendre` after each sample, in the dtype of u (computed in
                        float64); draw them with `basis.uniform(N, window=k)` after k samples
    Raises:
        TypeError, ValueError: if u is no signal, holds NaN, N is no int >= 1, or no such method.

    Error:  exact: equals `project_steps` of every beginning of u to 1e-12. For a smooth signal
            sampled in the middle of each step: midpoint has order 2, bilinear order 1.
            Costs O(L N^2), and O(L N^3) for the steps, which a batch shares.
    Source: Gu et al. 2020 (HiPPO), theorem 2 and code; our eq-hippo-exact, eq-hippo-published.
    """
    check_signal(u=u)
    check_length(N, "N")
    if method not in (known := ("exact", "bilinear", "midpoint")):
        raise ValueError(f"want method among {', '.join(known)}, got {method!r}")
    work = u.to(torch.promote_types(u.dtype, torch.float64))
    c, every = work.new_zeros(*u.shape[:-1], N), []
    for k in torch.arange(1, u.shape[-1] + 1).split(max(1, 2**20 // N**2)):
        E, b = (x.to(work) for x in _memory_steps(N, k, method))
        for f, E_k, b_k in zip(work[..., k - 1].unbind(-1), E, b, strict=True):
            c = c @ E_k.mT + f[..., None] * b_k
            every.append(c)
    return torch.stack(every, -2).to(u.dtype)


def legt(N: int, window: float = 2.0) -> tuple[Tensor, Tensor]:
    """HiPPO-LegT: the last `window` of time in Legendre polynomials.

    Args:
        N       int    how many numbers
        window  float  how far back, > 0; the mean age is half of it  [time]
    Returns:
        A  (N, N)  -r_n r_k / window for k <= n, times (-1)^(n-k) for k > n  [1/time]
        B  (N,)    r_n / window, r_n = sqrt(2n + 1)                          [1/time]
    Raises:
        TypeError, ValueError: if N is no int >= 1, or window no number > 0.

    Error:  the value that leaves the window is taken from the memory itself: exact for polynomials
            of degree < N. Strictly stable, A + A^T = -(b1 b1^T + b0 b0^T) / window; do not ask
            eigvals, whose answer is wrong from N = 32 on.
    Source: Gu et al. 2020 (HiPPO), eq. (1), there in the scaling of `lmu`; our eq-window-legt.
    """
    check_length(N, "N")
    window = check_measure("legt", window)
    n = torch.arange(N, dtype=torch.float64, device="cpu")
    sign = 1 - 2 * ((n[:, None] - n) % 2)
    size = torch.outer(2 * n + 1, 2 * n + 1).sqrt() / window
    return -size * (sign.triu() + torch.ones_like(sign).tril(-1)), (2 * n + 1).sqrt() / window


def lmu(N: int, window: float = 2.0) -> tuple[Tensor, Tensor]:
    """The delay network of the Legendre memory unit: LegT, in other coordinates.

    Args:
        N       int    how many numbers
        window  float  the delay, > 0  [time]
    Returns:
        A  (N, N)  -(2n + 1) (-1)^(n-k) / window for k <= n, without the sign for k > n  [1/time]
        B  (N,)    (2n + 1) (-1)^n / window                                              [1/time]
    Raises:
        TypeError, ValueError: if N is no int >= 1, or window no number > 0.

    Error:  A = T A_legt T^-1, B = T B_legt, T = diag((-1)^n sqrt(2n + 1)), up to rounding.
    Source: Voelker et al. 2019 (LMU), eq. (2), with window = 1; our eq-window-lmu.
    """
    check_length(N, "N")
    window = check_measure("lmu", window)
    n = torch.arange(N, dtype=torch.float64, device="cpu")
    sign = 1 - 2 * ((n[:, None] - n) % 2)
    rows = (2 * n + 1) / window
    return -rows[:, None] * (sign.tril() + torch.ones_like(sign).triu(1)), rows * (1 - 2 * (n % 2))


def lagt(N: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LagT: a past that fades as e^(-age/2), in Laguerre functions.

    Args:
        N  int  how many numbers
    Returns:
        A  (N, N)  -1 below the diagonal, -1/2 on it, 0 above  [1/time]
        B  (N,)    1                                           [1/time]
    Raises:
        TypeError, ValueError: if N is no int >= 1.

    Error:  none, no edge is guessed: e^(age A) B are the Laguerre functions. A + A^T = -B B^T.
    Source: Gu et al. 2020 (HiPPO), eq. (2), there with the weights e^-age L_n(age), and so with
            -1 on the diagonal; our eq-window-lagt.
    """
    check_length(N, "N")
    ones = torch.ones(N, N, dtype=torch.float64, device="cpu")
    return torch.eye(N, dtype=torch.float64, device="cpu") / 2 - ones.tril(), ones[0].clone()


def fout(N: int, window: float = 2.0) -> tuple[Tensor, Tensor]:
    """HiPPO-FouT: the last `window` of time as a Fourier series.

    Args:
        N       int    how many numbers; even: the published order 1, sin 0, cos 1, sin 1, cos 2,
                       ..., in which sin 0 = 0 is dead; odd: without it, all states alive
        window  float  how far back, > 0  [time]
    Returns:
        A  (N, N)  (S - 2 b b^T) / window, S skew: the frequencies       [1/time]
        B  (N,)    2 b / window, b = 1 for the constant, sqrt(2) for cos  [1/time]
    Raises:
        TypeError, ValueError: if N is no int >= 1, or window no number > 0.

    Error:  the value that leaves is guessed from the mean at the seam. Right in the limit of large
            N (eq-window-fout-limit); the weights come to those of the window as N^-1/2, measured.
            Strictly stable but for the dead state of even N: eigenvalue exactly 0.
    Source: Gu et al. 2023 (How to train your HiPPO), truncated Fourier basis; our eq-window-fout.
    """
    check_length(N, "N")
    window = check_measure("fout", window)
    j = torch.arange((N + 1) // 2, device="cpu")
    b = torch.zeros(2 * len(j), dtype=torch.float64, device="cpu")
    b[2::2], b[0] = math.sqrt(2), 1
    A, turn = -2 * torch.outer(b, b), 2 * math.pi * j.to(b)
    A[2 * j, 2 * j + 1], A[2 * j + 1, 2 * j] = -turn, turn
    alive = [i for i in range(len(b)) if i != 1 or N % 2 == 0]
    return A[alive][:, alive] / window, 2 * b[alive] / window


def hippo(
    measure: str, N: int, *, window: float | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """A memory by name: x' = A x + B u keeps N numbers about the past of u.

    Args:
        measure  str    "legs", "legt", "lmu", "lagt" or "fout"
        N        int    how many numbers
        window   float  how far back, > 0, None: 2.0; only legt, lmu, fout have one  [time]
        dtype    dtype  floating or complex, of the answer; computed in float64
    Returns:
        A  (N, N)  state matrix, strictly stable (fout with even N: but for one eigenvalue 0)
        B  (N,)    input matrix; the numbers mean what `basis(measure, N, window)` says
    Raises:
        TypeError: if N is no int, window no number, dtype not floating or complex.
        ValueError: if measure is unknown, N < 1, window not wanted, not finite or not > 0.

    Error:  those of `legs`, `legt`, `lmu`, `lagt`, `fout`. S4's code has the same five, lmu
            with window = 1, legt and fout with 2 (mean age 1, as legs; that of lagt is 2).
    Source: Gu et al. 2020 (HiPPO), 2023 (HTTYH); our eq-window-legt, -lmu, -lagt, -fout.
    """
    window = check_measure(measure, window)
    if not (isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.is_complex)):
        raise TypeError(f"want a floating or complex dtype, got {dtype!r}")
    if measure in ("legs", "lagt"):
        A, B = (legs if measure == "legs" else lagt)(N)
    else:
        A, B = {"legt": legt, "lmu": lmu, "fout": fout}[measure](N, window)
    return A.to(dtype), B.to(dtype)
