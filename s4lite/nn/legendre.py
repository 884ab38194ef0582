"""A fixed memory of the last theta samples, in N Legendre numbers: step by step, and as a table.

Home: chapter 07, "The first deep state space models, and what they cost"
(chapters/07_first_ssms.ipynb).
"""

from typing import Any

import torch
from torch import Tensor

from s4lite.init.hippo import hippo
from s4lite.nn.clock import check_rate, target_of
from s4lite.nn.loading import StrictLoading
from s4lite.ops import recurrence
from s4lite.ops.checks import check_length, check_positive, check_tensors
from s4lite.ops.conv import causal_conv
from s4lite.ops.discretize import zoh
from s4lite.ops.krylov import krylov, krylov_last_state

__all__ = ["LegendreMemory", "LegendreTable", "lmu_system"]


def lmu_system(N: int, theta: float, rate: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Make the memory of an LMU, discretized by zero-order hold, one step a sample.

    Args:
        N      int          numbers of memory
        theta  float        the window, > 0  [samples at rate 1]
        rate   float or ()  > 0; 2.0 if every second sample was kept
    Returns:
        Ab  (N, N)  exp(rate A / theta)  float64
        Bb  (N,)    the integral of exp(s A / theta) B / theta, 0 < s < rate  float64
    Raises:
        TypeError, ValueError: if N is no int >= 1, or theta or rate not one number, finite, > 0.

    Source: Voelker et al. 2019, eqs. (1), (2); our eq-lmu-memory.
    """
    if isinstance(theta, Tensor):
        raise TypeError("want theta as a number, got Tensor")
    check_positive(theta=theta)
    A, B = hippo("lmu", N, window=float(theta))
    if isinstance(rate, Tensor):
        A, B = A.to(rate.device), B.to(rate.device)
    check_rate(rate, A)
    Ab, Bb = zoh(A, B[:, None], rate)
    return Ab, Bb[:, 0]


class LegendreMemory(StrictLoading):
    """The last theta samples of a signal in N numbers, one step at a time. Nothing is learned.

    Args:
        d_state  int    N, numbers of memory
        theta    float  the window, > 0  [samples at rate 1]
        device   any    where Ab and Bb live; they are float64 everywhere
    Raises:
        TypeError, ValueError: if something is not as wanted.

    Source: Voelker et al. 2019, sec. 2; our eq-lmu-memory.
    """

    def __init__(
        self, d_state: int, theta: float, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        Ab, Bb = lmu_system(d_state, theta)
        device = target_of(device, None).device
        self.d_state, self.theta = d_state, float(theta)
        self.register_buffer("Ab", Ab.to(device), persistent=False)
        self.register_buffer("Bb", Bb.to(device), persistent=False)

    def _apply(self, fn, recurse: bool = True) -> "LegendreMemory":
        """Follow `to`, `double`, `half`, ... in place, not in precision."""
        super()._apply(fn, recurse)
        Ab, Bb = lmu_system(self.d_state, self.theta)
        self.Ab, self.Bb = Ab.to(self.Bb.device), Bb.to(self.Bb.device)
        return self

    def system(self, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Ab (N, N) and Bb (N,), float64, for samples `rate` times as far apart."""
        check_rate(rate, self.Bb)
        if not isinstance(rate, Tensor) and rate == 1:
            return self.Ab, self.Bb
        Ab, Bb = lmu_system(self.d_state, self.theta, rate)
        return Ab.to(self.Bb.device), Bb.to(self.Bb.device)

    def step(self, v_t: Tensor, m: Tensor, rate: float = 1.0) -> Tensor:
        """Take in v_t (...) at state m (..., N): the next state, rounded once to v_t's dtype."""
        Ab, Bb = self.system(rate)
        _, m = recurrence.step(Ab, Bb, Bb, v_t, m)  # only the state is wanted
        return m.to(v_t.dtype)


def _check_memory(v: Tensor, m: Tensor | None, N: int) -> None:
    """Raise unless v (..., L) is a signal and m, if there is one, a memory (..., N) before it."""
    check_tensors(v=v, **({} if m is None else {"m": m}))
    check_length(v.shape[-1] if v.ndim else 0, "the length of v")
    if m is not None and m.shape != (*v.shape[:-1], N):
        raise ValueError(f"want m {(*v.shape[:-1], N)}, one memory a signal, got {tuple(m.shape)}")


class LegendreTable(LegendreMemory):
    """The memory of all times at once: its table, made once, and N convolutions with it.

    Args:
        d_state, theta, device  any  as for `LegendreMemory`; dtype, of the table: float32 at least
        length                  int  lags that are tabulated once and for all; 0 for none
    Raises:
        TypeError, ValueError: if something is not as wanted.

    Cost:   N FFTs of the signal's length; the last state alone, one matrix-vector product.
    Source: Chilkuri and Eliasmith 2021, eqs. (18) to (26); our eq-lmu-table, eq-lmu-last.
    """

    def __init__(
        self,
        d_state: int,
        theta: float,
        length: int = 0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(d_state, theta, device=device)
        if type(length) is not int or length != 0:
            check_length(length, "length")
        self.length = length
        self.register_buffer("table", self.made(target_of(device, dtype)), persistent=False)

    def made(self, like: Tensor) -> Tensor:
        """The table (N, length), on the device and in the dtype of `like`, float32 at least."""
        table = krylov(self.Ab, self.Bb, max(1, self.length))[:, : self.length]
        return table.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def _apply(self, fn, recurse: bool = True) -> "LegendreTable":
        super()._apply(fn, recurse)
        self.table = self.made(self.table)
        return self

    def forward(self, v: Tensor, m: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """Memories after every sample of v (..., L), from m (..., N): (..., N, L)."""
        _check_memory(v, m, self.d_state)
        (Ab, Bb), L = self.system(rate), v.shape[-1]
        table = self.table[:, :L] if Ab is self.Ab and self.length >= L else krylov(Ab, Bb, L)
        after = causal_conv(v[..., None, :], table.to(v.dtype))
        if m is None:
            return after
        return after + krylov(Ab, (Ab @ m.to(Ab.dtype)[..., None])[..., 0], L).to(v.dtype)

    def last_state(self, v: Tensor, m: Tensor | None, rate: float, lengths: Any) -> Tensor:
        """The memory at the end of v (batch, M, L), or of each row's own length: (batch, M, N)."""
        return krylov_last_state(*self.system(rate), v, m, lengths).to(v.dtype)
