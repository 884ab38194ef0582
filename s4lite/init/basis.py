"""A signal's past in N numbers: bases over its age, into the numbers and back.

Home: chapter 05, "HiPPO" (chapters/05_hippo.ipynb).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s4lite.ops.checks import can_look, check_length, check_positive, check_tensors

__all__ = [
    "Basis",
    "check_signal",
    "exponential",
    "gauss",
    "legendre",
    "project",
    "project_steps",
    "reconstruct",
    "uniform",
]


def legendre(N: int, r: Tensor) -> Tensor:
    """Legendre polynomials on [0, 1], orthonormal: phi_n(r) = sqrt(2n + 1) P_n(2r - 1).

    Args:
        N  int    how many
        r  (...)  places, real; 1 is the present of a history
    Returns:
        phi  (..., N)  values, in the dtype of r
    Raises:
        TypeError, ValueError: if N is no int >= 1, or r no real floating tensor.

    Error:  the three-term recurrence is stable on [0, 1], below 1e-12 at N = 129; r itself
            rounded to float32 costs up to 1e-7 N^2.5 (slope at the ends).
    Source: our eq-hippo-basis, eq-hippo-recurrence.
    """
    check_length(N, "N")
    check_tensors(r=r)
    if r.is_complex():
        raise TypeError(f"want r real, got {r.dtype}")
    x = 2 * r - 1
    P = [torch.ones_like(x), x]
    for n in range(1, N - 1):
        P.append(((2 * n + 1) * x * P[n] - n * P[n - 1]) / (n + 1))
    n = torch.arange(N, dtype=r.dtype, device=r.device)
    return torch.stack(P[:N], -1) * (2 * n + 1).sqrt()


@functools.lru_cache(maxsize=32)
def _nodes(Q: int) -> np.ndarray:
    """NumPy's nodes on [-1, 1], computed once a size."""
    return np.polynomial.legendre.leggauss(Q)[0]


def gauss(Q: int) -> tuple[Tensor, Tensor]:
    """Gauss's nodes and weights on [0, 1]: exact for polynomials of degree < 2Q.

    Args:
        Q  int  how many nodes
    Returns:
        r  (Q,)  nodes, the zeros of P_Q(2r - 1), increasing, float64
        w  (Q,)  weights, > 0, of sum 1
    Raises:
        TypeError, ValueError: if Q is no int >= 1.

    Error:  of powers of r: a few 1e-16. Nodes cost O(Q^3), once a size.
    Source: our eq-hippo-gauss.
    """
    check_length(Q, "Q")
    r = (torch.from_numpy(_nodes(Q)) + 1) / 2
    return r, 1 / legendre(Q, r).square().sum(-1)


def check_signal(**signals: Tensor) -> None:
    """Raise unless every signal is a tensor (..., L), L >= 1, and finite (where `can_look`).

    Args:
        signals  (..., L)  the signals, under the names that the message shall use
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if one has no samples, or one that is NaN or infinite.
    """
    check_tensors(**signals)
    for name, u in signals.items():
        if u.dim() == 0 or u.shape[-1] == 0:
            raise ValueError(f"want {name} (..., L) with L >= 1, got {tuple(u.shape)}")
        if can_look(u) and not bool((fine := u.isfinite()).all()):
            got = f"{int((~fine).sum())} of {u.numel()} values NaN or infinite"
            raise ValueError(f"want {name} finite, got {got}")


def project_steps(u: Tensor, N: int) -> Tensor:
    """Project a staircase, all of it at once: the best N numbers for L samples held still.

    Args:
        u  (..., L)  samples, oldest first; sample k holds from k/L to (k+1)/L  [input]
        N  int       how many numbers
    Returns:
        c  (..., N)  coefficients on `legendre`, in the dtype of u (computed in float64)
    Raises:
        TypeError, ValueError: if u is no signal, holds NaN, or N is no int >= 1.

    Error:  none but rounding, about 1e-15: antiderivatives, no quadrature. Costs O(L N).
    Source: our eq-hippo-steps.
    """
    check_signal(u=u)
    check_length(N, "N")
    edges = torch.linspace(0, 1, u.shape[-1] + 1, dtype=torch.float64, device=u.device)
    root = (2 * torch.arange(N + 1, dtype=torch.float64, device=u.device) + 1).sqrt()
    P = legendre(N + 1, edges) / root
    area = torch.cat([edges[:, None], (P[:, 2:] - P[:, :-2]) / (2 * root[1:N])], -1)
    work = torch.promote_types(u.dtype, torch.float64)
    return (u.to(work) @ area.diff(dim=0).to(work)).to(u.dtype)


@dataclass(frozen=True, eq=False)
class Basis:
    """N functions of age: with them the past is summed up in N numbers, and drawn again.

    Attributes:
        N        int                how many numbers
        recall   (T,) -> (T, N)     ages to functions: past(age) = sum_n c_n recall_n(age)
        gather   (T,) -> (T, N)     ages to weights: c_n = int u(t - age) gather_n(age) d age
        nodes    (Q,)               ages at which a projection looks at the signal  [time]
        weights  (Q,)               of a sum over the nodes, for the integral over age  [time]
    """

    N: int
    recall: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]
    nodes: Tensor
    weights: Tensor


def uniform(N: int, window: float, points: int | None = None) -> Basis:
    """Legendre polynomials on the last `window` of time, every moment of it counted alike.

    Args:
        N       int    how many numbers
        window  float  how far back, > 0; the whole past of a signal that began at 0 is t  [time]
        points  int    nodes of a projection, None: 2 N + 32
    Returns:
        basis  Basis  exact for polynomials of degree < N; zero outside (beyond rounding, 1e-6)
    Raises:
        TypeError, ValueError: if N or points is no int >= 1, or window not finite and > 0.

    Error:  a projection is exact if the signal is a polynomial of degree <= 2 points - N.
    Source: Gu et al. 2020 (HiPPO), theorem 2; our eq-hippo-project.
    """
    check_length(N, "N")
    if isinstance(window, Tensor):
        raise TypeError("want window as a number, got a Tensor")
    if type(window) in (int, float) and window == 0:
        raise ValueError("want window > 0, got 0: at the start the past is one value, c = f(0) e_0")
    check_positive(window=window)
    r, w = gauss(2 * N + 32 if points is None else points)

    def recall(age: Tensor) -> Tensor:
        outside = (age < 0) | (age > window * (1 + 1e-6))
        phi = legendre(N, (1 - age / window).clamp(0, 1))
        return phi.masked_fill(outside[..., None], 0)

    return Basis(N, recall, lambda age: recall(age) / window, window * (1 - r), window * w)


def exponential(N: int, points: int | None = None) -> Basis:
    """Legendre polynomials in e^-age, weight e^-age: what the time-invariant LegS keeps.

    Args:
        N       int  how many numbers
        points  int  nodes of a projection, None: 2 N + 32
    Returns:
        basis  Basis  gather(age) = e^(age A) B with A, B from `legs`
    Raises:
        TypeError, ValueError: if N or points is no int >= 1.

    Error:  a projection is exact for polynomials in e^-age of degree <= 2 points - N.
    Source: Gu et al. 2022 (S4), eq. (2); our eq-hippo-warp.
    """
    check_length(N, "N")
    r, w = gauss(2 * N + 32 if points is None else points)

    def recall(age: Tensor) -> Tensor:
        phi = legendre(N, torch.exp(-age.clamp(min=0)))
        return phi.masked_fill((age < 0)[..., None], 0)

    def gather(age: Tensor) -> Tensor:
        return torch.exp(-age)[..., None] * recall(age)

    return Basis(N, recall, gather, -torch.log(r), w / r)


def project(f: Callable[[Tensor], Tensor], basis: Basis) -> Tensor:
    """The N numbers that sum up a past best: c_n = int f(age) gather_n(age) d age.

    Args:
        f      (Q,) -> (..., Q)  the past: ages to values u(t - age)  [input]
        basis  Basis             in which
    Returns:
        c  (..., N)  the numbers, in the dtype of f's values
    Raises:
        TypeError: if f gives no floating or complex tensor.
        ValueError: if it gives another number of values than it got ages, or NaN.

    Error:  that of Gauss's quadrature at basis.nodes: none for smooth f, slow at jumps (there take
            `project_steps`, or more points).
    Source: our eq-hippo-project.
    """
    values = f(basis.nodes)
    check_signal(f=values)
    if values.shape[-1] != len(basis.nodes):
        got = f"{tuple(values.shape)} at {len(basis.nodes)} ages"
        raise ValueError(f"want f(age) (..., Q) at ages (Q,), got {got}")
    table = basis.weights[:, None] * basis.gather(basis.nodes)
    return values @ table.to(values)


def reconstruct(c: Tensor, basis: Basis, age: Tensor) -> Tensor:
    """Draw the past again: past(age) = sum_n c_n recall_n(age).

    Args:
        c      (..., N)  the numbers
        basis  Basis     that they belong to
        age    (T,)      how long ago, >= 0 (or the past is zero)  [time]
    Returns:
        past  (..., T)  values, in the dtype of c
    Raises:
        TypeError, ValueError: if one is no tensor of numbers, age not real, or c has not N numbers.

    Error:  the best possible in the measure of the basis; nothing more can be had from c.
    Source: our eq-hippo-project.
    """
    check_tensors(c=c, age=age)
    if c.dim() == 0 or c.shape[-1] != basis.N or age.dim() != 1:
        got = f"{tuple(c.shape)}, {tuple(age.shape)}"
        raise ValueError(f"want c (..., {basis.N}), age (T,); got {got}")
    if age.is_complex():
        raise TypeError(f"want age real, got {age.dtype}")
    return c @ basis.recall(age.to(torch.float64)).to(c).mT
