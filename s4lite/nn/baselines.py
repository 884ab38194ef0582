"""The baselines: RNN, LSTM, GRU, DilatedConv, CKConv, Attention, and here the NeuralODE.

Home: chapter 01, "Long sequences" (chapters/01_long_sequences.ipynb).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from s4lite.nn.attention import Attention
from s4lite.nn.clock import target_of
from s4lite.nn.lookback import CKConv, DilatedConv
from s4lite.nn.recurrent import GRU, LSTM, RNN, BaselineLayer
from s4lite.ops.checks import can_look, check_length, check_positive, check_tensors

__all__ = ["FlowLayer", "NeuralODE", "baselines", "intervals", "load_odeint"]


def load_odeint() -> Callable[..., Tensor]:
    """Find torchdiffeq's solver.

    Raises:
        ModuleNotFoundError: if it is not installed; says how to get it.
    """
    try:
        from torchdiffeq import odeint
    except ModuleNotFoundError as error:
        said = 'want torchdiffeq for NeuralODE: pip install "s4lite[baselines]"'
        raise ModuleNotFoundError(said, name=error.name) from error
    return odeint


def intervals(times: Tensor | None, u: Tensor, dt: float, rate: float) -> Tensor:
    """Say how long each sample is held.

    Args:
        times     (L + 1,) or (batch, L + 1)  increasing; sample k is held from k to k + 1. None:
                                              all samples alike, for dt
        u         (batch, L, d)               the samples
        dt, rate  float                       time between samples at rate 1; what it is times
    Returns:
        held  (batch or 1, L, 1)  in u's dtype
    Raises:
        TypeError: if times are no real floating tensor.
        ValueError: if there are more or fewer, or (where `can_look`) one is not finite, or they
            do not increase.
    """
    batch, L, _ = u.shape
    if times is None:
        return u.new_full((1, L, 1), dt * float(rate))
    check_tensors(times=times)
    if times.is_complex():
        raise TypeError(f"want times real, got {times.dtype}")
    if times.shape not in ((L + 1,), (batch, L + 1)):
        want = f"({L + 1},) or ({batch}, {L + 1}), the edges of {L} intervals"
        raise ValueError(f"want times {want}; got {tuple(times.shape)}")
    held = times.diff(dim=-1)
    if can_look(held) and not bool(((held > 0) & (held < math.inf)).all()):
        raise ValueError("want times finite that increase, got some that are not or do not")
    return (held.to(u.device, torch.float64) * float(rate)).to(u.dtype).reshape(-1, L, 1)


class FlowLayer(BaselineLayer):
    """How a neural ODE runs, sample by sample: it needs `inner`, `outer`, `dt`, `method`, ...

    Source: Chen et al. 2018, sec. 1; our eq-long-ode.
    """

    def field(self, x: Tensor, drive: Tensor) -> Tensor:
        """The right side x' at state x, with drive = U u, (..., d_model) each."""
        return torch.tanh(self.inner(x) + drive) - x

    def flow(self, x: Tensor, drive: Tensor, held: Tensor) -> Tensor:
        """Solve over one interval of length held (batch, 1), from x, under a constant drive."""

        def stretched(s: Tensor, x: Tensor) -> Tensor:
            if not torch.compiler.is_compiling():
                self.evaluations += 1
            return held * self.field(x, drive)

        s = torch.tensor([0.0, 1.0], dtype=torch.float64, device=x.device)
        options: dict[str, Any] = {"step_size": 1 / self.substeps}
        if self.method == "dopri5":
            options = {"first_step": 1.0, "dtype": torch.float64}
        tol = {"rtol": self.tol, "atol": self.tol}
        return load_odeint()(stretched, x, s, method=self.method, options=options, **tol)[-1]

    def run(
        self,
        u: Tensor,
        state: Tensor,
        rate: float,
        lengths: Tensor | None,
        times: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model); the solver starts anew where the input jumps."""
        drive, y = self.outer(u), [state[..., 0]]
        if self.method == "dopri5" and can_look(drive) and not bool(drive.isfinite().all()):
            raise ValueError("want u finite: no step of dopri5 is short enough for NaN or infinity")
        held = intervals(times, u, self.dt, rate)
        for h, w in zip(held.unbind(1), drive.unbind(1), strict=True):
            y.append(self.flow(y[-1], w, h))
        y = torch.stack(y[1:], 1)
        if lengths is None:
            return y, y[:, -1, :, None]
        return y, y[torch.arange(len(y), device=y.device), lengths - 1][..., None]


class NeuralODE(FlowLayer):
    """A recurrent net in continuous time, x' = tanh(W x + U u + b) - x: a sequence layer.

    Args:
        d_model        int    channels; the state is x, (batch, d_model, 1), and so is y
        dt             float  time between samples at rate 1
        method         str    "dopri5" (adaptive), or with fixed steps "rk4" or "euler"
        substeps       int    steps a sample of a fixed method
        tol            float  relative and absolute tolerance of dopri5
        dropout        float  probability that a channel of y is dropped
        device, dtype  any    of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted.
        ModuleNotFoundError: without torchdiffeq.

    `forward` takes times (L + 1,) or (batch, L + 1) besides: sample k is held from times[k] to
    times[k + 1], and y[k] is x at the end. `evaluations` counts how often the right side was
    needed since the layer was made (except under torch.compile).
    Error:  global order 1 (euler), 4 (rk4), about tol a sample (dopri5).
    Source: Chen et al. 2018, sec. 1; our eq-long-ode.
    """

    def __init__(
        self,
        d_model: int,
        *,
        dt: float = 0.1,
        method: str = "dopri5",
        substeps: int = 1,
        tol: float = 1e-6,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(d_model, dropout, (d_model, 1))
        check_length(substeps, "substeps")
        check_positive(dt=dt, tol=tol)
        if method not in ("dopri5", "rk4", "euler"):
            raise ValueError(f'want method "dopri5", "rk4" or "euler", got {method!r}')
        self.dt, self.method, self.substeps, self.tol = dt, method, substeps, tol
        like, self.evaluations = target_of(device, dtype), 0
        kind = {"device": like.device, "dtype": like.dtype}
        self.inner = nn.Linear(d_model, d_model, **kind)
        self.outer = nn.Linear(d_model, d_model, bias=False, **kind)


def baselines() -> dict[str, type[BaselineLayer]]:
    """Look up the layers of this module by name.

    Returns:
        dict  "rnn", "lstm", "gru", "tcn", "ckconv", "transformer", "node"
    """
    recurrent = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
    lookback = {"tcn": DilatedConv, "ckconv": CKConv, "transformer": Attention}
    return {**recurrent, **lookback, "node": NeuralODE}
