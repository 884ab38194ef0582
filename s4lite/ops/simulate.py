"""The exact response of a continuous state space: to a tap, to a tone, to any sampled input.

Home: chapter 02, "State space" (chapters/02_state_space.ipynb).
"""

import functools

import torch
from torch import Tensor

from s4lite.ops.checks import can_look, check_tensors

__all__ = ["expm", "impulse_response", "simulate", "transfer_function"]


def expm(X: Tensor) -> Tensor:
    """Matrix exponential e^X, to full precision for a single matrix, too.

    Args:
        X  (..., N, N)  square matrices
    Returns:
        E  (..., N, N)  e^X
    Raises:
        TypeError, ValueError: if X is no floating or complex tensor of square matrices.

    Error:  a few units in the last digit, times the norm of X. A matrix that comes alone is
            sent as a batch of two: PyTorch's route for single matrices of small norm has a
            wrong coefficient (pytorch issue 196592), its route for batches has not.
    Source: our eq-state-expm.
    """
    check_tensors(X=X)
    if X.dim() < 2 or X.shape[-1] != X.shape[-2]:
        raise ValueError(f"want X (..., N, N), got {tuple(X.shape)}")
    if X.shape[:-2].numel() > 1:
        return torch.linalg.matrix_exp(X)
    return torch.linalg.matrix_exp(torch.stack([X, X]))[0]


def _check_system(A: Tensor, **others: tuple[Tensor, str]) -> None:
    """Refuse matrices that do not fit A (..., N, N); the others come with the axes they want."""
    wanted = {"A": (A, "N N"), **others}
    check_tensors(**{name: x for name, (x, _) in wanted.items()})
    fits, sizes, batch = True, {}, []
    for x, axes in wanted.values():
        names = axes.split()
        cut = x.dim() - len(names)
        fits = fits and cut >= 0 and 0 not in x.shape
        pairs = zip(names, x.shape[cut:], strict=False)
        fits = fits and all(sizes.setdefault(axis, size) == size for axis, size in pairs)
        batch.append(x.shape[: max(cut, 0)])
    try:
        torch.broadcast_shapes(*batch)
    except RuntimeError:
        fits = False
    if not fits:
        want = ", ".join(f"{n} (..., {a.replace(' ', ', ')})" for n, (_, a) in wanted.items())
        got = ", ".join(f"{n} {tuple(x.shape)}" for n, (x, _) in wanted.items())
        raise ValueError(f"want {want}; got {got}")


def _one_dtype(*tensors: Tensor) -> list[Tensor]:
    """All tensors in the dtype that they promote to."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in tensors))
    return [x.to(dtype) for x in tensors]


def impulse_response(A: Tensor, B: Tensor, C: Tensor, t: Tensor) -> Tensor:
    """Impulse response h(t) = C e^(tA) B: what a tap at time 0 leaves, without the wire D.

    Args:
        A  (..., N, N)  state matrix            [1/time]
        B  (..., N)     input column            [state/(input time)]
        C  (..., N)     output row              [output/state]
        t  (T,)         times after the tap, >= 0, in any order  [time]
    Returns:
        h  (..., T)     the response            [output/(input time)]
    Raises:
        TypeError, ValueError: if a tensor is no tensor of numbers, or the shapes do not fit.
        ValueError: if a time is negative or not finite (where values can be looked at).

    Error:  exact up to rounding; costs T matrix exponentials, and their memory.
    Source: Gu et al. 2022 (S4D), sec. 2; our eq-state-impulse.
    """
    _check_system(A, B=(B, "N"), C=(C, "N"), t=(t, "T"))
    if t.dim() != 1 or t.is_complex():
        raise ValueError(f"want t (T,) of real numbers, got {tuple(t.shape)} {t.dtype}")
    if can_look(t) and not bool(((t >= 0) & t.isfinite()).all()):
        raise ValueError(f"want t finite and >= 0, got values in [{t.min():g}, {t.max():g}]")
    A, B, C = _one_dtype(A, B, C)
    t = t.to(A.real.dtype)
    flow = expm(t[:, None, None] * A[..., None, :, :])  # (..., T, N, N)
    return torch.einsum("...n,...tnm,...m->...t", C, flow, B)


def transfer_function(A: Tensor, B: Tensor, C: Tensor, D: Tensor | float, s: Tensor) -> Tensor:
    """Transfer function H(s) = C (sI - A)^(-1) B + D: the gain for the input e^(st).

    Args:
        A  (..., N, N)  state matrix            [1/time]
        B  (..., N)     input column            [state/(input time)]
        C  (..., N)     output row              [output/state]
        D  (...)        wire, tensor or number  [output/input]
        s  (S,)         complex frequencies; i omega for a steady tone  [1/time]
    Returns:
        H  (..., S)     complex gains           [output/input]
    Raises:
        TypeError, ValueError: if a tensor is no tensor of numbers, or the shapes do not fit.
        torch.linalg.LinAlgError: if some s is exactly a pole.

    Error:  exact up to rounding, which grows near a pole; costs S linear systems of size N.
    Source: our eq-state-transfer.
    """
    _check_system(A, B=(B, "N"), C=(C, "N"), s=(s, "S"))
    if isinstance(D, Tensor):
        check_tensors(A=A, D=D)
    elif not isinstance(D, (int, float, complex)):
        raise TypeError(f"want D as a tensor or a number, got {type(D).__name__}")
    if s.dim() != 1:
        raise ValueError(f"want s (S,), got {tuple(s.shape)}")
    A, B, C, s = _one_dtype(A, B, C, s + 0j)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    pencil = s[:, None, None] * eye - A[..., None, :, :]  # (..., S, N, N)
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-1])  # else solve may guess wrong
    X = torch.linalg.solve(pencil, B.expand(*batch, -1)[..., None, :, None])
    H = torch.einsum("...n,...sn->...s", C, X[..., 0])
    return H + torch.as_tensor(D, dtype=H.dtype, device=H.device)[..., None]


def _one_step(A: Tensor, B: Tensor, dt: Tensor, hold: str) -> tuple[Tensor, Tensor, Tensor]:
    """The blocks E, G, R of eq-state-ramp: x_(k+1) = E x_k + G u_k + R (u_(k+1) - u_k)."""
    N, M = B.shape[-2:]
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    Z = A.new_zeros(*batch, N + 2 * M, N + 2 * M)
    Z[..., :N, :N] = dt * A
    Z[..., :N, N : N + M] = dt * B
    if hold == "linear":  # else u stays what it is, and R = 0
        Z[..., N : N + M, N + M :] = torch.eye(M, dtype=A.dtype, device=A.device)
    top = expm(Z)[..., :N, :]
    return top[..., :N], top[..., N : N + M], top[..., N + M :]


def _march(E: Tensor, push: Tensor, x0: Tensor) -> Tensor:
    """All states (..., N, T) of x_(k+1) = E x_k + push_k, from x0."""
    batch = torch.broadcast_shapes(push.shape[:-2], x0.shape[:-1])
    x = [x0.expand(*batch, -1)[..., None]]
    for k in range(push.shape[-1]):
        x.append(E @ x[-1] + push[..., k : k + 1])
    return torch.cat(x, dim=-1)


def _check_grid(t: Tensor) -> None:
    """Refuse times that are not (T,), real, finite, increasing and evenly spaced."""
    if t.dim() != 1 or t.is_complex():
        raise ValueError(f"want t (T,) of real numbers, got {tuple(t.shape)} {t.dtype}")
    if can_look(t) and len(t) > 1:
        steps, dt = t.diff(), (t[-1] - t[0]) / (len(t) - 1)
        slack = 1e-6 * dt + 4 * torch.finfo(t.dtype).eps * t.abs().max()
        if not bool((dt > 0) & ((steps - dt).abs() <= slack).all()):
            span = f"[{steps.min():g}, {steps.max():g}]"
            raise ValueError(f"want t increasing in equal steps, got steps in {span}")


def _check_input(hold: str, t: Tensor, x0: Tensor | None, **system: Tensor) -> list[Tensor]:
    """Refuse what does not fit `simulate`; return A, B, C, D, u, x0 in one dtype."""
    if hold not in ("linear", "zero"):
        raise ValueError(f'want hold "linear" or "zero", got {hold!r}')
    axes = {"A": "N N", "B": "N M", "C": "P N", "D": "P M", "u": "M T", "t": "T", "x0": "N"}
    given = system | {"t": t} | ({} if x0 is None else {"x0": x0})
    A = given.pop("A")
    _check_system(A, **{name: (x, axes[name]) for name, x in given.items()})
    _check_grid(t)
    tensors = _one_dtype(*system.values(), A.new_zeros(A.shape[-1]) if x0 is None else x0)
    if torch.finfo(tensors[0].dtype).bits < 32:
        raise TypeError(f"want single or double precision, got {tensors[0].dtype}")
    return tensors


def _respond(system: list[Tensor], t: Tensor, hold: str) -> tuple[Tensor, Tensor]:
    """Output (..., P, T) and state (..., N, T) of the system A, B, C, D, u, x0."""
    A, B, C, D, u, x0 = system
    dt = ((t[-1] - t[0]) / max(len(t) - 1, 1)).to(A.real.dtype)
    E, G, R = _one_step(A, B, dt, hold)
    x = _march(E, G @ u[..., :-1] + R @ u.diff(), x0)
    return C @ x + D @ u, x


def simulate(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    u: Tensor,
    t: Tensor,
    x0: Tensor | None = None,
    hold: str = "linear",
) -> tuple[Tensor, Tensor]:
    """Run x' = Ax + Bu, y = Cx + Du over a sampled input, without error between the samples.

    Args:
        A     (..., N, N)  state matrix            [1/time]
        B     (..., N, M)  input matrix            [state/(input time)]
        C     (..., P, N)  output matrix           [output/state]
        D     (..., P, M)  wire                    [output/input]
        u     (..., M, T)  samples of the input    [input]
        t     (T,)         their times, increasing in equal steps  [time]
        x0    (..., N)     state at time t[0]; None: at rest  [state]
        hold  str          "linear": straight lines between samples; "zero": u[k] until t[k+1]
    Returns:
        y     (..., P, T)  output                  [output]
        x     (..., N, T)  state                   [state]
    Raises:
        TypeError, ValueError: if an argument does not fit, or t has unequal steps (where seen).

    Error:  exact up to rounding for the input that `hold` describes; costs T steps, one by one.
    Source: Gu et al. 2022 (S4), eq. (1); our eq-state-solution and eq-state-ramp.
    """
    return _respond(_check_input(hold, t, x0, A=A, B=B, C=C, D=D, u=u), t, hold)
