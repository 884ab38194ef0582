"""Legendre memory units as layers: the recurrent cell, and the parallel one without its feedback.

Home: chapter 07, "The first deep state space models, and what they cost"
(chapters/07_first_ssms.ipynb).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from s4lite.nn.checks import check_lengths, check_sequence, check_state, padding_mask
from s4lite.nn.clock import check_rate, target_of
from s4lite.nn.layer import TiedDropout, check_head, make_head
from s4lite.nn.legendre import LegendreMemory, LegendreTable
from s4lite.nn.loading import StrictLoading
from s4lite.ops.checks import can_look, check_length

__all__ = ["LMU", "LMUCell", "LMUParameters", "ParallelLMU", "ParallelParts", "ParallelViews"]


class LMUParameters(StrictLoading):
    """The weights of one LMU cell around its memory, and the shape of its state.

    Arguments as for `LMU`.

    Source: Voelker et al. 2019, eqs. (6), (7) and "Model initialization"; our eq-lmu-cell.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        theta: float = 1000.0,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_length(d_model, "d_model")
        check_head(None, None, dropout)
        like, self.memory = target_of(device, dtype), LegendreMemory(d_state, theta, device=device)
        self.d_model, self.d_state, self.dropout = d_model, d_state, TiedDropout(dropout)
        bound, cpu = math.sqrt(3 / d_model), {"device": "cpu"}  # uniform, of variance 1 / d_model
        start = {e: torch.empty(d_model, **cpu).uniform_(-bound, bound) for e in ("e_x", "e_h")}
        start["e_m"] = torch.zeros(d_state, **cpu)
        for name, width in [("W_x", d_model), ("W_h", d_model), ("W_m", d_state)]:
            start[name] = nn.init.xavier_normal_(torch.empty(d_model, width, **cpu))
        for name, value in start.items():
            self.register_parameter(name, nn.Parameter(value.to(like)))

    @property
    def real_dtype(self) -> torch.dtype:
        """The dtype of states: that of the parameters, float32 at least."""
        return torch.promote_types(self.W_h.dtype, torch.float32)

    def initial_state(self, batch: int = 1) -> Tensor:
        """Make a state that remembers nothing: zeros (batch, d_model + d_state), h before m."""
        check_length(batch, "batch")
        size = (batch, self.d_model + self.d_state)
        return torch.zeros(size, dtype=self.real_dtype, device=self.W_h.device)

    def check_state(self, state: Tensor, batch: int) -> None:
        """Raise unless `state` is one of this layer's for `batch` sequences."""
        check_state(state, (batch, self.d_model + self.d_state), self.W_h, real=True)


class LMUCell(LMUParameters):
    """One step of an LMU. Arguments as for `LMU`.

    Source: Voelker et al. 2019, eqs. (6), (7); our eq-lmu-cell.
    """

    def check_rate(self, rate: float) -> None:
        """Raise ValueError unless rate is 1: the hidden units know samples, not time."""
        check_rate(rate, self.W_h)
        if (isinstance(rate, Tensor) and not can_look(rate)) or rate != 1:
            raise ValueError(f"want rate 1.0 (an LMU's hidden units have no clock), got {rate}")

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What x (..., d_model) says to the memory (...) and to the hidden units (..., d_model)."""
        return x @ self.e_x.to(x.dtype), x @ self.W_x.to(x.dtype).mT

    def coefficients(self) -> tuple[Tensor, ...]:
        """Ab - I, Bb, the encoder of (h, m) and the kernel of (h, m), in `real_dtype`."""
        eye = torch.eye(self.d_state, dtype=self.memory.Ab.dtype, device=self.W_h.device)
        encoder, W = torch.cat([self.e_h, self.e_m]), torch.cat([self.W_h, self.W_m], 1)
        parts = (self.memory.Ab - eye, self.memory.Bb, encoder, W)
        return tuple(part.to(self.real_dtype) for part in parts)

    def cell(self, into_u: Tensor, into_h: Tensor, state: Tensor, *coefficients: Tensor) -> Tensor:
        """From `inputs` of one sample and the state (batch, d + N) to the next state."""
        change, Bb, encoder, W = coefficients
        h, m = state.split([self.d_model, self.d_state], -1)
        u = into_u + state @ encoder
        m = m + (m @ change.mT + u[:, None] * Bb)
        h = torch.tanh(into_h + torch.cat([h, m], -1) @ W.mT)
        return torch.cat([h, m], -1)

    def walk(self, x: Tensor, state: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run over x (batch, L, d_model); where `keep` (batch, L, 1) is False, nothing moves."""
        (into_u, into_h), coefficients, y = self.inputs(x), self.coefficients(), []
        for t in range(x.shape[1]):
            after = self.cell(into_u[:, t], into_h[:, t], state, *coefficients)
            state = after if keep is None else torch.where(keep[:, t], after, state)
            y.append(state[:, : self.d_model])
        return torch.stack(y, 1), state


class LMU(LMUCell):
    """Legendre memory unit: a recurrent sequence layer with a linear memory inside.

        layer(u, state=None, *, rate=1.0, lengths=None, return_state=False) -> y or (y, state)
        layer.step(u_t, state, *, rate=1.0) -> y_t, state   # after layer.eval()
        layer.initial_state(batch) -> state

    Args:
        d_model        int    channels in and out, and hidden units
        d_state        int    N, numbers of memory
        theta          float  the window of the memory, > 0  [samples]
        dropout        float  probability that a channel of y is dropped, at all times
        device, dtype  any    of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted; a rate other than 1 is refused.

    Cost:   L steps, one after the other; no view but the recurrence.
    Source: Voelker et al. 2019, eqs. (6), (7); our eq-lmu-cell.
    """

    def forward(
        self,
        u: Tensor,
        state: Tensor | None = None,
        *,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model) to the same shape, or to (y, state) if return_state."""
        check_sequence(u, "batch L d_model", self.d_model, self.W_h)
        self.check_rate(rate)
        state = self.initial_state(u.shape[0]) if state is None else state
        self.check_state(state, u.shape[0])
        keep = None if lengths is None else padding_mask(check_lengths(lengths, u), u)
        u = u if keep is None else u.where(keep, 0.0)
        with torch.autocast("cpu" if u.is_meta else u.device.type, enabled=False):
            y, state = self.walk(u.to(self.real_dtype), state, keep)
        y = self.dropout(y if keep is None else y.where(keep, 0.0)).to(u.dtype)
        return (y, state) if return_state else y

    def step(self, u_t: Tensor, state: Tensor, *, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Map one sample u_t (batch, d_model) to the output and the next state."""
        check_sequence(u_t, "batch d_model", self.d_model, self.W_h)
        self.check_state(state, len(u_t))
        y, state = self(u_t[:, None], state, rate=rate, return_state=True)
        return y[:, 0], state


class ParallelParts(StrictLoading):
    """The maps into and out of the memories of a ParallelLMU, and the shape of its state.

    Arguments as for `ParallelLMU`.

    Source: Chilkuri and Eliasmith 2021, eqs. (18) to (20); our eq-lmu-linear.
    """

    def __init__(
        self, d_model: int, n_memory: int, memory: LegendreTable, head: nn.Module, **like: Any
    ) -> None:
        super().__init__()
        self.d_model, self.n_memory, self.d_state = d_model, n_memory, memory.d_state
        self.encode, self.memory = nn.Linear(d_model, n_memory, **like), memory
        self.read = nn.Linear(n_memory * memory.d_state + d_model, d_model, **like)
        self.head = head

    def initial_state(self, batch: int = 1) -> Tensor:
        """Make a state that remembers nothing: zeros (batch, n_memory, d_state)."""
        check_length(batch, "batch")
        weight, size = self.read.weight, (batch, self.n_memory, self.d_state)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return torch.zeros(size, dtype=dtype, device=weight.device)

    def check_state(self, state: Tensor, batch: int) -> None:
        """Raise unless `state` is one of this layer's for `batch` sequences."""
        check_state(state, (batch, self.n_memory, self.d_state), self.read.weight, real=True)

    def encoded(self, u: Tensor, state: Tensor | None, lengths: Tensor | None) -> tuple:
        """Look at everything: u without padding, what goes into the memories, and the lengths."""
        check_sequence(u, "batch L d_model", self.d_model, self.read.weight)
        if state is not None:
            self.check_state(state, u.shape[0])
        lengths = None if lengths is None else check_lengths(lengths, u)
        u = u if lengths is None else u.where(padding_mask(lengths, u), 0.0)
        return u, self.encode(u).mT.to(torch.promote_types(u.dtype, torch.float32)), lengths

    def decoded(self, m: Tensor, u: Tensor) -> Tensor:
        """Read the memories m (batch, L, n_memory N) and the inputs u: (batch, L, d_model)."""
        return self.head(self.read(torch.cat([m.to(u.dtype), u], -1)))


def _at_ends(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Take of x (batch, L, ...) what stands at the end of each row: (batch, ...)."""
    ends = torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths
    return x[torch.arange(len(x), device=x.device), ends - 1]


class ParallelViews(ParallelParts):
    """A ParallelLMU's three ways to run: all at once, the end alone, step by step.

    Arguments as for `ParallelParts`.

    Source: Chilkuri and Eliasmith 2021, eqs. (18) to (26); our eq-lmu-linear, eq-lmu-table,
            eq-lmu-last.
    """

    def forward(
        self,
        u: Tensor,
        state: Tensor | None = None,
        *,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model) to the same shape, or to (y, state) if return_state."""
        u, v, lengths = self.encoded(u, state, lengths)
        m = self.memory(v, state, rate)
        y = self.decoded(m.flatten(1, 2).mT, u)
        y = y if lengths is None else y.where(padding_mask(lengths, y), 0.0)
        return (y, _at_ends(m.movedim(-1, 1), lengths)) if return_state else y

    def last(
        self,
        u: Tensor,
        state: Tensor | None = None,
        *,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The last output (batch, d_model) of each sequence and the state there; no convolution."""
        u, v, lengths = self.encoded(u, state, lengths)
        m = self.memory.last_state(v, state, rate, lengths)
        return self.decoded(m.flatten(1)[:, None], _at_ends(u, lengths)[:, None])[:, 0], m

    def step(self, u_t: Tensor, state: Tensor, *, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Map one sample u_t (batch, d_model) to the output and the next state."""
        check_sequence(u_t, "batch d_model", self.d_model, self.read.weight)
        self.check_state(state, len(u_t))
        _, v, _ = self.encoded(u_t[:, None], state, None)
        state = self.memory.step(v[..., 0], state, rate)
        return self.decoded(state.flatten(1)[:, None], u_t[:, None])[:, 0], state


class ParallelLMU(ParallelViews):
    """Legendre memory without feedback: a sequence layer that trains without a loop.

    Called and stepped as `LMU` is; at rate 2.0 the window has half as many samples. `last` gives
    the last output only.

    Args:
        d_model, d_state   int          channels; N, numbers of each memory
        theta              float        the window, > 0  [samples at rate 1]
        n_memory, length   int          memories; lags that are tabulated once, 0 for none
        activation, mixer  str or None  what follows the read-out, as for `S4D`
        dropout            float        probability that a channel is dropped, at all times
        device, dtype      any          of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted.

    Cost:   n_memory N FFTs; all memories of all times, n_memory N L numbers, are held at once.
    Source: Chilkuri and Eliasmith 2021, eqs. (18) to (26); our eq-lmu-linear, eq-lmu-table,
            eq-lmu-last.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        theta: float = 1000.0,
        *,
        n_memory: int = 1,
        length: int = 0,
        activation: str | None = "gelu",
        mixer: str | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_length(d_model, "d_model")
        check_length(n_memory, "n_memory")
        like = {"device": device, "dtype": dtype}
        memory = LegendreTable(d_state, theta, length, **like)
        head = make_head(activation, mixer, dropout, d_model, **like)
        super().__init__(d_model, n_memory, memory, head, **like)
