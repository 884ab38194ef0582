"""What all baselines share, and the recurrent ones: RNN, LSTM, GRU.

Home: chapter 01, "Long sequences" (chapters/01_long_sequences.ipynb).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s4lite.nn.checks import check_lengths, check_sequence, check_state, without_padding
from s4lite.nn.clock import check_rate, target_of
from s4lite.nn.layer import TiedDropout, check_head
from s4lite.nn.loading import StrictLoading
from s4lite.ops.checks import check_length, check_positive

__all__ = ["GRU", "LSTM", "RNN", "Baseline", "BaselineLayer", "Recurrent", "chrono_"]


class Baseline(StrictLoading):
    """A sequence layer whose state is one real tensor; a subclass says how it runs.

        layer(u, state=None, *, rate=1.0, lengths=None, return_state=False) -> y or (y, state)
        layer.step(u_t, state, *, rate=1.0) -> y_t, state   # after layer.eval()
        layer.initial_state(batch) -> state

    Args:
        d_model     int           channels
        dropout     float         probability that a channel of y is dropped, at all times
        state_axes  tuple of int  shape of a state behind its batch axis
    Raises:
        TypeError, ValueError: if an argument or an input is not as wanted.

    Source: our eq-long-layer.
    """

    def __init__(self, d_model: int, dropout: float, state_axes: tuple[int, ...]) -> None:
        super().__init__()
        check_length(d_model, "d_model")
        check_head(None, None, dropout)
        self.d_model, self.state_axes, self.drop = d_model, state_axes, TiedDropout(dropout)

    def initial_state(self, batch: int = 1) -> Tensor:
        """Make a state that remembers nothing: zeros (batch, *state_axes)."""
        check_length(batch, "batch")
        like = next(self.parameters())
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.zeros(batch, *self.state_axes, dtype=dtype, device=like.device)

    def check_state(self, state: Tensor, batch: int) -> None:
        """Raise unless `state` is one that this layer makes for `batch` sequences."""
        check_state(state, (batch, *self.state_axes), next(self.parameters()), real=True)

    def check_pace(self, rate: float, stateful: bool) -> None:
        """Raise unless the layer can run at `rate`; stateful: a state comes in or goes out."""

    def run(
        self, u: Tensor, state: Tensor, rate: float, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model), 0 in its padding: y of the same shape, and the new state."""
        raise NotImplementedError


class BaselineLayer(Baseline):
    """A `Baseline` with its two ways in: all samples at once, or one after the other.

    Args:
        d_model, dropout, state_axes  as for `Baseline`

    Source: our eq-long-layer.
    """

    def forward(
        self,
        u: Tensor,
        state: Tensor | None = None,
        *,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
        return_state: bool = False,
        **more: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model) to the same shape, or to (y, state) if return_state.

        Args:
            u        (batch, L, d_model)  input, in the dtype of the parameters
            state    (batch, ...)         all that is remembered of earlier samples
            rate     float                > 0; 2.0 if every second sample was kept
            lengths  (batch,)             of right-padded sequences: y is 0 beyond them
            more     any                  what one kind of layer knows, such as `times`
        """
        like = next(self.parameters())
        check_sequence(u, "batch L d_model", self.d_model, like)
        check_rate(rate, like)
        self.check_pace(rate, state is not None or return_state)
        if state is None:
            state = self.initial_state(u.shape[0])
        self.check_state(state, u.shape[0])
        lengths = None if lengths is None else check_lengths(lengths, u)
        u = without_padding(u, lengths)
        y, end = self.run(u, state.to(u.dtype), rate, lengths, **more)
        y = without_padding(self.drop(y), lengths)
        return (y, end.to(state.dtype)) if return_state else y

    def step(self, u_t: Tensor, state: Tensor, *, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Map one sample u_t (batch, d_model) to the output and the next state."""
        check_sequence(u_t, "batch d_model", self.d_model, next(self.parameters()))
        self.check_state(state, u_t.shape[0])
        y, state = self(u_t[:, None], state, rate=rate, return_state=True)
        return y[:, 0], state


class Recurrent(BaselineLayer):
    """One of torch's recurrent nets behind the interface of a layer.

    Args:
        d_model  int    channels, inside as outside
        dropout  float  probability that a channel of y is dropped
        parts    int    tensors of state: 1, or 2 for an LSTM's h and c
        make     any    torch.nn's class
        options  any    device, dtype, and what else `make` takes

    Source: our eq-long-rnn.
    """

    def __init__(
        self, d_model: int, dropout: float, parts: int, make: type[nn.RNNBase], **options: Any
    ) -> None:
        super().__init__(d_model, dropout, (d_model, parts))
        like = target_of(options.pop("device", None), options.pop("dtype", None))
        options |= {"batch_first": True, "device": like.device, "dtype": like.dtype}
        self.net = make(d_model, d_model, **options)

    def check_pace(self, rate: float, stateful: bool) -> None:
        """Raise unless rate is 1."""
        if rate != 1:
            name = type(self).__name__
            raise ValueError(f"want rate 1: {name} knows samples, not time; got rate {rate}")

    def run(
        self, u: Tensor, state: Tensor, rate: float, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model) to all h, and to the last h (and c) of each sequence."""
        start = tuple(part[None].contiguous() for part in state.unbind(-1))
        if lengths is not None:
            own = {"batch_first": True, "enforce_sorted": False}
            packed = pack_padded_sequence(u, lengths.cpu(), **own)
        y, end = self.net(u if lengths is None else packed, start if len(start) > 1 else start[0])
        if lengths is not None:
            y = pad_packed_sequence(y, batch_first=True, total_length=u.shape[1])[0]
        parts = end if isinstance(end, tuple) else (end,)
        return y, torch.stack([part[0] for part in parts], -1)


class RNN(Recurrent):
    """Elman's recurrent net, h_k = tanh(W h_{k-1} + U u_k + b): a sequence layer.

    Args:
        d_model        int            channels
        gain           float or None  start with W = gain times an orthogonal matrix
        dropout        float          probability that a channel of y is dropped
        device, dtype  any            of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted; rate other than 1 is refused.

    Source: Elman 1990; our eq-long-rnn.
    """

    def __init__(
        self,
        d_model: int,
        *,
        gain: float | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if gain is not None:
            check_positive(gain=gain)
        super().__init__(d_model, dropout, 1, nn.RNN, device=device, dtype=dtype)
        if gain is not None:
            W = self.net.weight_hh_l0
            start = torch.empty_like(W, dtype=torch.promote_types(W.dtype, torch.float32))
            W.data.copy_(nn.init.orthogonal_(start, gain))  # no QR in half precision


def chrono_(net: nn.RNNBase, gate: int, T_max: float, opposite: int | None = None) -> None:
    """Set a gate's bias, in place, so that it forgets over 1 to T_max samples.

    Args:
        net       nn.LSTM, nn.GRU  with d hidden numbers
        gate      int              which block of d biases keeps the state
        T_max     float            longest memory wanted, > 2  [samples]
        opposite  int or None      a block that gets minus the same bias (an LSTM's input gate)
    Raises:
        TypeError, ValueError: if T_max is no finite number > 2.

    Source: Tallec and Ollivier 2018, sec. 2; our eq-long-chrono.
    """
    check_positive(chrono=T_max)
    if T_max <= 2:
        raise ValueError(f"want chrono > 2 samples, got {T_max}")
    d = net.hidden_size
    bias = torch.empty(d, device="cpu").uniform_(1, T_max - 1).log()
    with torch.no_grad():
        for block, sign in [(gate, 1.0), (opposite, -1.0)]:
            if block is not None:
                net.bias_ih_l0[block * d : (block + 1) * d] = (sign * bias).to(net.bias_ih_l0)
                net.bias_hh_l0[block * d : (block + 1) * d] = 0.0


class LSTM(Recurrent):
    """Long short-term memory: a sequence layer. Its state is (batch, d_model, 2), h and c.

    Args:
        d_model        int            channels
        chrono         float or None  start with forget gates for 1 to this many samples
        dropout        float          probability that a channel of y is dropped
        device, dtype  any            of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted; rate other than 1 is refused.

    Source: Hochreiter and Schmidhuber 1997, Gers et al. 2000; our eq-long-gate, eq-long-chrono.
    """

    def __init__(
        self,
        d_model: int,
        *,
        chrono: float | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(d_model, dropout, 2, nn.LSTM, device=device, dtype=dtype)
        if chrono is not None:
            chrono_(self.net, 1, chrono, opposite=0)  # torch's blocks: input, forget, cell, output


class GRU(Recurrent):
    """Gated recurrent unit: a sequence layer. `chrono` sets its update gate.

    Args:
        d_model, chrono, dropout, device, dtype  as for `LSTM`
    Raises:
        TypeError, ValueError: if something is not as wanted; rate other than 1 is refused.

    Source: Cho et al. 2014; our eq-long-gate, eq-long-chrono.
    """

    def __init__(
        self,
        d_model: int,
        *,
        chrono: float | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(d_model, dropout, 1, nn.GRU, device=device, dtype=dtype)
        if chrono is not None:
            chrono_(self.net, 1, chrono)  # torch's blocks: reset, update, new
