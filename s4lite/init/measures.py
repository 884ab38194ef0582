"""The five measures by name: which window a memory looks through, and in which functions.

Home: chapter 06, "Sliding windows" (chapters/06_windows.ipynb).
"""

import math
from numbers import Real

import torch
from torch import Tensor

from s4lite.init.basis import Basis, exponential, gauss, uniform
from s4lite.ops.checks import check_length, check_positive

__all__ = ["MEASURES", "basis", "check_measure", "fourier", "laguerre"]


MEASURES = ("legs", "legt", "lmu", "lagt", "fout")


def check_measure(measure: str, window: float | None = None) -> float | None:
    """Raise unless the measure is known and has the window; return the window, 2.0 for None.

    Args:
        measure  str    "legs", "legt", "lmu", "lagt" or "fout"
        window   float  how far back, finite and > 0; only for legt, lmu and fout  [time]
    Returns:
        window  float  or None, for legs and lagt: they fade, and have no edge  [time]
    Raises:
        TypeError: if window is no number.
        ValueError: if measure is unknown, or window not wanted, not finite or not > 0.
    """
    if measure not in MEASURES:
        raise ValueError(f"want measure among {', '.join(MEASURES)}; got {measure!r}")
    if measure in ("legs", "lagt"):
        if window is not None:
            raise ValueError(f"want no window for {measure}, which has no edge; got {window!r}")
        return None
    window = 2.0 if window is None else window
    if isinstance(window, bool) or not isinstance(window, Real):
        raise TypeError(f"want window as a number, got a {type(window).__name__}")
    check_positive(window=window)
    return float(window)


def laguerre(N: int, points: int | None = None) -> Basis:
    """Laguerre functions e^(-age/2) L_n(age), orthonormal over all ages: what LagT keeps.

    Args:
        N       int  how many numbers
        points  int  nodes of a projection, None: 4 N + 64
    Returns:
        basis  Basis  gather(age) = recall(age) = e^(age A) B with A, B from `lagt`
    Raises:
        TypeError, ValueError: if N or points is no int >= 1.

    Error:  a projection looks at ages up to 4 N + 20 N^(1/3) + 60, evenly in the root of age.
    Source: Gu et al. 2020 (HiPPO), appendix D; our eq-window-laguerre.
    """
    check_length(N, "N")
    v, w = gauss(4 * N + 64 if points is None else points)
    far = 4 * N + 20 * N ** (1 / 3) + 60

    def recall(age: Tensor) -> Tensor:
        before, now, log, every = 0 * age, 0 * age + 1, -age / 2, []
        for n in range(N):
            every.append(now * log.exp())
            before, now = now, ((2 * n + 1 - age) * now - n * before) / (n + 1)
            big = now.abs().where(now.abs() > 1e30, 1)
            before, now, log = before / big, now / big, log + big.log()
        nothing = (age < 0) | (age == math.inf)
        return torch.stack(every, -1).where(~nothing[..., None], 0)

    return Basis(N, recall, recall, far * v**2, 2 * far * v * w)


def fourier(N: int, window: float, points: int | None = None) -> Basis:
    """The Fourier series of the last `window` of time, in the order of `fout`.

    Args:
        N       int    how many numbers; if even, number 1 belongs to sin 0 = 0 and stays 0
        window  float  how far back, > 0  [time]
        points  int    nodes of a projection, None: 2 N + 32
    Returns:
        basis  Basis  zero beyond the window
    Raises:
        TypeError, ValueError: if N or points is no int >= 1, or window no number > 0.

    Error:  Gauss's quadrature: 1e-12 for smooth pasts with up to N/2 cycles a window.
    Source: Gu et al. 2023 (How to train your HiPPO); our eq-window-fourier.
    """
    check_length(N, "N")
    window = check_measure("fout", window)
    r, w = gauss(2 * N + 32 if points is None else points)
    alive = [i for i in range(N + N % 2) if i != 1 or N % 2 == 0]

    def recall(age: Tensor) -> Tensor:
        j = torch.arange((N + 1) // 2, dtype=age.dtype, device=age.device)
        turn = 2 * math.pi * age[..., None] / window * j
        psi = math.sqrt(2) * torch.stack([turn.cos(), turn.sin()], -1).flatten(-2)
        psi[..., 0] = 1
        outside = (age < 0) | (age > window)  # an age that is NaN is not
        return psi[..., alive].where(~outside[..., None], 0)

    return Basis(N, recall, lambda age: recall(age) / window, window * (1 - r), window * w)


def basis(measure: str, N: int, window: float | None = None) -> Basis:
    """The functions of age that belong to the numbers of `hippo(measure, N, window=window)`.

    Args:
        measure  str    "legs", "legt", "lmu", "lagt" or "fout"
        N        int    how many numbers
        window   float  how far back, > 0, None: 2.0; only legt, lmu, fout have one  [time]
    Returns:
        basis  Basis  legs, lagt: gather(age) = e^(age A) B, exactly; the others: up to the guess
                      at the edge
    Raises:
        TypeError, ValueError: as `hippo`.

    Error:  those of `exponential`, `uniform`, `laguerre`, `fourier`.
    Source: our eq-hippo-warp, eq-window-project, -lmu, -laguerre, -fourier.
    """
    window = check_measure(measure, window)
    if window is None:
        return exponential(N) if measure == "legs" else laguerre(N)
    if measure == "fout":
        return fourier(N, window)
    plain = uniform(N, window)
    if measure == "legt":
        return plain

    def turn(age: Tensor) -> Tensor:
        n = torch.arange(N, dtype=age.dtype, device=age.device)
        return (1 - 2 * (n % 2)) * (2 * n + 1).sqrt()

    far, near = lambda age: plain.recall(age) / turn(age), lambda age: plain.gather(age) * turn(age)
    return Basis(N, far, near, plain.nodes, plain.weights)
