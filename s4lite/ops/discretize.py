"""Four rules that turn x' = Ax + Bu into x_k = Ab x_{k-1} + Bb u_k.

Home: chapter 03, "Discretization" (chapters/03_discretization.ipynb).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from s4lite.ops.checks import check_positive, check_tensors
from s4lite.ops.simulate import expm

__all__ = ["backward_euler", "bilinear", "euler", "zoh"]


def _aligned(A: Tensor, B: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor, Tensor | float]:
    """Check the arguments; give A and B one dtype and all batch axes, and dt two axes more."""
    is_tensor = isinstance(dt, Tensor)
    check_tensors(A=A, B=B, **({"dt": dt} if is_tensor else {}))
    if is_tensor and dt.is_complex():
        raise TypeError(f"want dt real, got {dt.dtype}")
    check_positive(dt=dt)
    dtype = torch.promote_types(A.dtype, B.dtype)
    if torch.finfo(dtype).bits < 32:
        raise TypeError(f"want A and B in single or double precision, got {A.dtype} and {B.dtype}")
    got = f"A {tuple(A.shape)}, B {tuple(B.shape)}, dt {tuple(dt.shape) if is_tensor else ()}"
    fits = A.ndim > 1 and B.ndim > 1 and A.shape[-2] == A.shape[-1] == B.shape[-2]
    if not fits or 0 in A.shape[-1:] + B.shape[-1:]:
        raise ValueError(f"want A (..., N, N) and B (..., N, M), N and M >= 1, got {got}")
    try:
        batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2], dt.shape if is_tensor else ())
    except RuntimeError:
        raise ValueError(f"want batch axes that broadcast, got {got}") from None
    if is_tensor:
        dt = dt.to(A.new_empty(0, dtype=dtype).real.dtype)[..., None, None]
    return A.to(dtype).expand(*batch, -1, -1), B.to(dtype).expand(*batch, -1, -1), dt


def zoh(A: Tensor, B: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor]:
    """Discretize x' = Ax + Bu for an input that holds still during each step (zero-order hold).

    Args:
        A   (..., N, N)     state matrix, invertible or not   [1/time]
        B   (..., N, M)     input matrix                      [state/(input time)]
        dt  float or (...)  step size, real, > 0              [time]
    Returns:
        Ab  (..., N, N)     exp(dt A)                         [1]
        Bb  (..., N, M)     integral of exp(s A) B, 0 < s < dt  [state/input]
    Raises:
        TypeError: if A or B is no tensor, or not of at least single precision; if dt is complex.
        ValueError: if shapes or devices disagree, or dt is not finite and > 0 (values are looked
            at on the CPU only).

    Error:  none if the input is constant over each step. A smooth input: order 2 if u_k is the
            sample in the middle of step k, order 1 if it is the sample at the end.
    Source: Gu and Dao 2023 (Mamba), eq. (4), here without the inverse; Van Loan 1978; our
            eq-discretize-zoh and eq-discretize-augment.
    """
    A, B, dt = _aligned(A, B, dt)
    N, M = B.shape[-2:]
    size = B.detach().abs().sum(-2).amax(-1)[..., None, None]
    size = size + (size == 0)  # B = 0 stays 0
    block = pad(torch.cat([dt * A, B / size], -1), (0, 0, 0, M))
    top = expm(block)[..., :N, :]
    return top[..., :N], dt * size * top[..., N:]


def euler(A: Tensor, B: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor]:
    """Discretize x' = Ax + Bu by the forward Euler rule: the slope at the start of the step.

    Args:
        A   (..., N, N)     state matrix             [1/time]
        B   (..., N, M)     input matrix             [state/(input time)]
        dt  float or (...)  step size, real, > 0     [time]
    Returns:
        Ab  (..., N, N)     I + dt A                 [1]
        Bb  (..., N, M)     dt B                     [state/input]
    Raises:
        TypeError: if A or B is no tensor, or not of at least single precision; if dt is complex.
        ValueError: if shapes or devices disagree, or dt is not finite and > 0 (values are looked
            at on the CPU only).

    Error:  Ab - exp(dt A) = -(dt A)^2 / 2 + ...; Ab^k has order 1. Stable if |1 + dt lambda| < 1.
    Source: Hairer, Norsett and Wanner 1993, section I.7; our eq-discretize-euler.
    """
    A, B, dt = _aligned(A, B, dt)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return eye + dt * A, dt * B


def backward_euler(A: Tensor, B: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor]:
    """Discretize x' = Ax + Bu by the backward Euler rule: the slope at the end of the step.

    Args:
        A   (..., N, N)     state matrix                    [1/time]
        B   (..., N, M)     input matrix                    [state/(input time)]
        dt  float or (...)  step size, real, > 0            [time]
    Returns:
        Ab  (..., N, N)     solves (I - dt A) Ab = I        [1]
        Bb  (..., N, M)     solves (I - dt A) Bb = dt B     [state/input]
    Raises:
        TypeError: if A or B is no tensor, or not of at least single precision; if dt is complex.
        ValueError: if shapes or devices disagree, or dt is not finite and > 0 (values are looked
            at on the CPU only).

    Error:  Ab - exp(dt A) = (dt A)^2 / 2 + ...; Ab^k has order 1. Stable if Re lambda < 0.
    Source: Hairer and Wanner 1996, section IV.3; our eq-discretize-backward.
    """
    A, B, dt = _aligned(A, B, dt)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand_as(A)
    both = torch.linalg.solve(eye - dt * A, torch.cat([eye, dt * B], -1))
    return both[..., : A.shape[-1]], both[..., A.shape[-1] :]


def bilinear(A: Tensor, B: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor]:
    """Discretize x' = Ax + Bu by S4's bilinear rule: the slope at the mean state, the input held.

    Args:
        A   (..., N, N)     state matrix                             [1/time]
        B   (..., N, M)     input matrix                             [state/(input time)]
        dt  float or (...)  step size, real, > 0                     [time]
    Returns:
        Ab  (..., N, N)     solves (I - dt/2 A) Ab = I + dt/2 A      [1]
        Bb  (..., N, M)     solves (I - dt/2 A) Bb = dt B            [state/input]
    Raises:
        TypeError: if A or B is no tensor, or not of at least single precision; if dt is complex.
        ValueError: if shapes or devices disagree, or dt is not finite and > 0 (values are looked
            at on the CPU only).

    Error:  Ab - exp(dt A) = (dt A)^3 / 12 + ...; Ab^k has order 2. Driven: order 2 if u_k is the
            sample in the middle of step k, order 1 if it is the sample at the end. Stable if
            Re lambda < 0; a contraction if A + A^H <= 0.
    Source: Gu et al. 2022 (S4), eq. (3); our eq-discretize-bilinear.
    """
    A, B, dt = _aligned(A, B, dt)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand_as(A)
    both = torch.linalg.solve(eye - dt / 2 * A, torch.cat([eye + dt / 2 * A, dt * B], -1))
    return both[..., : A.shape[-1]], both[..., A.shape[-1] :]
