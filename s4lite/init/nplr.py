"""HiPPO's matrices as a damped rotation minus a few squares, in the rotation's coordinates.

Home: chapter 08, "Low rank" (chapters/08_low_rank.ipynb).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from s4lite.init.hippo import hippo
from s4lite.init.measures import check_measure
from s4lite.ops.checks import check_length, check_state_size, check_tensors

__all__ = ["NPLR", "canonical_phase", "comb_modes", "low_rank_term", "nplr", "skew_modes"]


def low_rank_term(measure: str, N: int, window: float | None = None) -> tuple[Tensor, float]:
    """Find the squares that make a HiPPO matrix a damped rotation.

    Args:
        measure  str    "legs", "legt", "lagt" or "fout"
        N        int    how many numbers
        window   float  how far back, > 0, None: 2.0; only for legt and fout  [time]
    Returns:
        P      (N, r)  real, float64, r = 2 for legt, else 1  [1/sqrt(time)]
        sigma  float   A + P P^T = -sigma I + skew: 1/2 for legs, else 0  [1/time]
    Raises:
        TypeError, ValueError: as `hippo`; lmu is refused.

    Error:  exact up to the rounding of each entry.
    Source: Gu et al. 2022 (S4), theorem 1; our eq-lowrank-legs, -lagt, -fout, -legt.
    """
    check_length(N, "N")
    window = check_measure(measure, window)
    if measure == "lmu":
        raise ValueError(
            "want a measure that is normal plus low rank in its own coordinates, got 'lmu': "
            "it is LegT behind the scaling (-1)^n sqrt(2n + 1), take 'legt'"
        )
    B = hippo(measure, N, window=window)[1][:, None]
    if window is None:
        return B / math.sqrt(2), 0.5 if measure == "legs" else 0.0
    if measure == "fout":
        return B * math.sqrt(window / 2), 0.0
    side = torch.arange(N, device="cpu")[:, None] % 2 == torch.arange(2, device="cpu")
    return B * side * math.sqrt(window), 0.0


class NPLR(NamedTuple):
    """A damped rotation minus squares, one of each conjugate pair: x' = A x + B u in x = V z.

    A = W (diag(l) - p p*) W*, with W = [V, conj V] unitary, l = [Lambda, conj Lambda] and
    p = [P; conj P]; likewise B of the real system is W [B; conj B].

    Args:
        Lambda  (n,)    poles -sigma + i omega, omega >= 0 ascending, n = N/2  [1/time]
        P       (n, r)  the squares, V* P of the real ones                     [1/sqrt(time)]
        B       (n,)    input vector, V* B of the real one; real and > 0       [1/time]
        V       (N, n)  orthonormal eigenvectors
    """

    Lambda: Tensor
    P: Tensor
    B: Tensor
    V: Tensor


def canonical_phase(V: Tensor, B: Tensor) -> Tensor:
    """Turn each column v of V until v* B is real and positive.

    Args:
        V  (N, n)  complex columns, each free up to a factor of modulus 1
        B  (N,)    the vector to look at, real or complex
    Returns:
        V  (N, n)  turned; where v* B is 0 (below 1e-10 |v| |B|), so that the first of the largest
                   entries of v is real and positive
    Raises:
        TypeError, ValueError: if V is not complex or a shape does not fit.

    Source: our eq-lowrank-phase.
    """
    check_tensors(V=V, B=B)
    if not V.is_complex() or V.ndim != 2 or B.shape != V.shape[:1] or not len(B):
        got = f"V {tuple(V.shape)} {V.dtype}, B {tuple(B.shape)}"
        raise ValueError(f"want V (N, n) complex, B (N,); got {got}")
    seen, size = V.mH @ B.to(V.dtype), V.abs()
    first = (size > 0.999 * size.amax(0)).to(torch.uint8).argmax(0)
    entry = V[first, torch.arange(V.shape[1], device=V.device)].conj()
    blind = seen.abs() <= 1e-10 * V.norm(dim=0) * B.norm()
    turn = torch.where(blind, entry, seen)
    return V * torch.where(turn == 0, 1, turn / turn.abs())


@torch.no_grad()
def skew_modes(S: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonalize a real skew matrix: S = V diag(i omega) V*, one of each conjugate pair.

    Args:
        S  (N, N)  real, skew, N even, its eigenvalues distinct  [1/time]
        B  (N,)    real; fixes the phases
    Returns:
        omega  (n,)    >= 0, ascending, n = N/2  [1/time]
        V      (N, n)  orthonormal, S V = V diag(i omega), V* B real and positive
    Raises:
        TypeError, ValueError: if S, B are not real, finite, do not fit, S is not skew, or two of
            its eigenvalues are nearer than 1e-10 |S|: then the halves may be no conjugates.

    Error:  some N eps |S|; independent of the eigenvalue routine's phases. Not differentiated.
    Source: our eq-lowrank-skew, eq-lowrank-phase.
    """
    check_tensors(S=S, B=B)
    if S.is_complex() or B.is_complex() or B.ndim != 1 or S.shape != (len(B), len(B)):
        got = f"{tuple(S.shape)} {S.dtype}, {tuple(B.shape)} {B.dtype}"
        raise ValueError(f"want S (N, N) real, B (N,) real; got {got}")
    check_state_size(len(S))
    if not ((S + S.mT).abs().max() <= 1e-6 * S.abs().max() < math.inf and B.isfinite().all()):
        raise ValueError(
            "want S skew, S^T = -S, and B finite, got a matrix or a vector that is not"
        )
    omega, V = torch.linalg.eigh(-0.5j * (S.double() - S.double().mT))
    if omega.diff().min() <= 1e-10 * omega[-1]:
        raise ValueError("want the eigenvalues of S distinct, got one twice")
    half = len(S) // 2
    return omega[half:], canonical_phase(V[:, half:], B.double())


def _comb_roots(a: Tensor) -> Tensor:
    """Solve sum_m atan(2 omega / a_m) = pi/2, 3 pi/2, ...: omega (n,), for a (N,) > 0."""
    level = torch.arange(1, len(a), 2, dtype=a.dtype, device=a.device) * (math.pi / 2)
    rest = level.flip(0)  # N pi/2 - level
    omega = level / (2 / a).sum()  # left of the root
    for _ in range(2000):  # the range of float64 has no more doublings
        x = 2 * omega[:, None]
        below, above = level - (x / a).atan().sum(1), (a / x).atan().sum(1) - rest
        step = torch.where(level < rest, below, above) / (2 * a / (a**2 + x**2)).sum(1)
        omega = omega + step
        if not (step.abs() > 1e-9 * omega).any():
            break
    return omega


@torch.no_grad()
def comb_modes(r: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonalize S = R K R, R = diag(r), K = -1/2 below and +1/2 above the diagonal.

    Args:
        r  (N,)  real, not 0, N even: sqrt(2n + 1) for LegS, 1 for LagT
    Returns:
        omega  (n,)    > 0, ascending, n = N/2, float64: one equation each, no eigenvalue routine
        V      (N, n)  orthonormal, S V = V diag(i omega), V* r real and positive
    Raises:
        TypeError, ValueError: if r is no real vector of even length, or holds a 0.

    Error:  LegS, LagT: omega to some 1e-15 of itself; cost N^2 log N. Not differentiated.
    Source: our eq-lowrank-comb, eq-lowrank-vector, eq-lowrank-weights.
    """
    check_tensors(r=r)
    if r.ndim != 1 or r.is_complex() or not (r.isfinite() & (r.double() ** 2 > 0)).all():
        raise ValueError(f"want r (N,) real, finite, without zeros; got {r!s:.80}")
    check_state_size(len(r))
    r = r.double()
    a = r**2
    omega = _comb_roots(a)
    x = 2j * omega[:, None]
    q = (x - a) / (x + a)
    g = torch.cat([torch.ones_like(x), q[:, :-1]], 1).cumprod(1)
    v = g * r / (x + a)
    return omega, (v / v.norm(dim=1, keepdim=True)).mT


def _modes(measure: str, N: int, window: float | None) -> tuple[Tensor, Tensor]:
    """Frequencies (n,) and orthonormal modes (N, n) of the rotation, in canonical phase."""
    A, B = hippo(measure, N, window=window)
    if measure == "legt":
        return skew_modes((A - A.mT) / 2, B)
    if measure != "fout":
        return comb_modes(B)  # B = r
    window = check_measure(measure, window)
    one = torch.eye(N // 2, dtype=torch.complex128, device="cpu") / math.sqrt(2)
    V = torch.stack([one, -1j * one], 1).reshape(N, N // 2)
    return 2 * math.pi / window * torch.arange(N // 2, dtype=torch.float64, device="cpu"), V


@torch.no_grad()
def nplr(
    measure: str, N: int, *, window: float | None = None, dtype: torch.dtype = torch.complex128
) -> NPLR:
    """A HiPPO memory as normal plus low rank: A = W (diag(l) - p p*) W*, half of it.

    Args:
        measure  str    "legs", "legt", "lagt" or "fout"
        N        int    how many numbers, even, >= 2
        window   float  how far back, > 0, None: 2.0; only for legt and fout  [time]
        dtype    dtype  complex64 or complex128, of the answer; computed in float64
    Returns:
        model  NPLR  Lambda (n,), P (n, r), B (n,), V (N, n), n = N/2, in canonical phase
    Raises:
        TypeError, ValueError: as `hippo`; N odd, dtype not complex, and lmu are refused.

    Error:  W rebuilds A to some N eps |S|. Re Lambda is -1/2 for legs and 0 for the others; the
            first Lambda of fout is 0. The same on every machine up to that rounding.
    Source: Gu et al. 2022 (S4), theorem 1; our eq-lowrank-nplr, eq-lowrank-half.
    """
    P, sigma = low_rank_term(measure, N, window)
    check_state_size(N)
    if dtype not in (torch.complex64, torch.complex128):
        raise TypeError(f"want dtype complex64 or complex128, got {dtype!r}")
    omega, V = _modes(measure, N, window)
    Lambda = torch.complex(0 * omega - sigma, omega)
    B = (V.mH @ hippo(measure, N, window=window)[1].to(V)).abs()  # real and > 0: the phase
    return NPLR(Lambda.to(dtype), (V.mH @ P.to(V)).to(dtype), B.to(dtype), V.to(dtype))
