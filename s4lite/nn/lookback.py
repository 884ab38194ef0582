"""Layers that look back at stored samples: dilated convolution and CKConv.

Home: chapter 01, "Long sequences" (chapters/01_long_sequences.ipynb).
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4lite.nn.clock import check_rate, target_of
from s4lite.nn.layer import check_head, make_head
from s4lite.nn.loading import StrictLoading
from s4lite.nn.recurrent import BaselineLayer
from s4lite.ops.checks import check_length, check_positive
from s4lite.ops.conv import causal_conv

__all__ = ["CKConv", "ConvStack", "DilatedConv", "KernelNet", "SlidingKernel", "last_samples"]


def last_samples(x: Tensor, count: int, lengths: Tensor | None) -> Tensor:
    """Cut out what a look-back layer must keep: the last samples of each sequence.

    Args:
        x        (batch, d, count + L)  what was kept before, then L new samples
        count    int                    how many to keep
        lengths  (batch,)               new samples that count; None for all L
    Returns:
        tail  (batch, d, count)
    """
    if lengths is None:
        return x[..., x.shape[-1] - count :]
    where = lengths[:, None, None] + torch.arange(count, device=x.device)
    return x.gather(-1, where.expand(-1, x.shape[1], -1))


class ConvStack(BaselineLayer):
    """How a stack of dilated convolutions runs: it needs `convs`, each with its stored inputs.

    Source: van den Oord et al. 2016 (WaveNet), sec. 2.1; our eq-long-dilated.
    """

    def check_pace(self, rate: float, stateful: bool) -> None:
        """Raise unless rate is 1."""
        if rate != 1:
            raise ValueError(f"want rate 1: DilatedConv counts samples, not time; got rate {rate}")

    def run(
        self, u: Tensor, state: Tensor, rate: float, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model), each level continuing from its own stored inputs."""
        x, ends = u.mT, []
        reaches = [conv.dilation[0] * (conv.kernel_size[0] - 1) for conv in self.convs]
        for conv, reach, past in zip(self.convs, reaches, state.split(reaches, -1), strict=True):
            seen = torch.cat([past, x], -1)
            ends.append(last_samples(seen, reach, lengths))
            x = x + F.gelu(conv(seen))
        return x.mT, torch.cat(ends, -1)


class DilatedConv(ConvStack):
    """A stack of causal convolutions, each reaching twice as far back: x + gelu(conv(x)).

    Args:
        d_model        int    channels
        levels         int    m, convolutions; number i takes every 2^i-th sample
        kernel_size    int    k, taps in each
        dropout        float  probability that a channel of y is dropped
        device, dtype  any    of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted; rate other than 1 is refused.

    Error:  exact online: the state (batch, d_model, R - 1) holds each level's last inputs.
    Cost:   m k d_model^2 multiplications a sample, all at once or one by one.
    Source: van den Oord et al. 2016 (WaveNet), sec. 2.1; our eq-long-reach.
    """

    def __init__(
        self,
        d_model: int,
        levels: int = 8,
        kernel_size: int = 2,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_length(levels, "levels")
        check_length(kernel_size, "kernel_size")
        reach = (kernel_size - 1) * (2**levels - 1)
        super().__init__(d_model, dropout, (d_model, reach))
        like, size = target_of(device, dtype), (d_model, d_model, kernel_size)
        self.convs = nn.ModuleList(
            nn.Conv1d(*size, dilation=2**i, device=like.device, dtype=like.dtype)
            for i in range(levels)
        )

    @property
    def receptive_field(self) -> int:
        """R: an output depends on its own sample and the R - 1 before it, on nothing else."""
        return 1 + self.state_axes[-1]


class KernelNet(StrictLoading):
    """A small net with sines that maps a lag to the values of d kernels there.

    Args:
        d       int           kernels
        hidden  int           width of its two hidden layers
        omega   float         > 0: how fast the sines turn, so how rough the kernels may start
        like    empty tensor  device and dtype of the parameters

    Source: Sitzmann et al. 2020, sec. 3.2; Romero et al. 2022 (CKConv), sec. 4.
    """

    def __init__(self, d: int, hidden: int, omega: float, like: Tensor) -> None:
        super().__init__()
        check_length(hidden, "hidden")
        check_positive(omega=omega)
        widths, kind = [1, hidden, hidden, d], {"device": like.device, "dtype": like.dtype}
        self.omega = float(omega)
        self.maps = nn.ModuleList(nn.Linear(a, b, **kind) for a, b in itertools.pairwise(widths))
        for layer in self.maps[1:]:
            bound = (6 / hidden) ** 0.5 / (omega if layer is self.maps[1] else 1.0)
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, lag: Tensor) -> Tensor:
        """Values at lag (M,), counted in horizons (0 to 1): (d, M)."""
        x = (2 * lag - 1)[:, None].to(self.maps[0].weight.dtype)
        for layer in self.maps[:-1]:
            x = torch.sin(self.omega * layer(x))
        return self.maps[-1](x).mT


class SlidingKernel(BaselineLayer):
    """How a convolution with an implicit kernel runs: it needs `net`, `head`, `l_max`.

    Source: Romero et al. 2022 (CKConv), sec. 4; our eq-long-ckconv.
    """

    def kernel(self, rate: float = 1.0) -> Tensor:
        """The kernels (d_model, M): rate * kappa(lag), at lags 0, rate, 2 rate, ... < l_max."""
        like = next(self.parameters())
        check_rate(rate, like)
        lags = torch.arange(math.ceil(self.l_max / float(rate)), device=like.device)
        lags = lags.to(torch.promote_types(like.dtype, torch.float32)) * float(rate)
        return float(rate) / self.l_max**0.5 * self.net(lags / self.l_max)

    def check_pace(self, rate: float, stateful: bool) -> None:
        """Raise unless rate is at least 1, or no state is asked for."""
        if rate < 1 and stateful:
            raise ValueError(f"want rate >= 1 for states and steps of CKConv, got {rate}")

    def run(
        self, u: Tensor, state: Tensor, rate: float, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model): the kernels slide over what is stored and what comes."""
        K = self.kernel(rate)
        seen = torch.cat([state, u.mT], -1)
        if u.shape[1] == 1:  # one step needs no FFT
            M = min(K.shape[-1], seen.shape[-1])
            y = (seen[..., seen.shape[-1] - M :].flip(-1) * K[:, :M]).sum(-1, keepdim=True)
        else:
            y = causal_conv(seen, K)[..., self.l_max - 1 :]
        return self.head(y.mT), last_samples(seen, self.l_max - 1, lengths)


class CKConv(SlidingKernel):
    """Convolution with an implicit kernel: a small net says what the kernel is at any lag.

    Args:
        d_model            int          channels, one kernel each
        l_max              int          horizon: lags 0 up to this are heard  [samples at rate 1]
        hidden, omega      int, float   the net's width, and how rough its kernels may start
        activation, mixer  str or None  what follows the filters, as for `S4D`
        dropout            float        probability that a channel is dropped, before the mixer
        device, dtype      any          of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted. rate < 1 is refused for states and
            steps: the state (batch, d_model, l_max - 1) could not hold all samples needed.

    Error:  the kernel is a rectangle sum over the lags: first order in the rate.
    Cost:   FFTs of L + l_max samples; a step multiplies l_max numbers a channel. The kernel is
            computed anew in every call.
    Source: Romero et al. 2022 (CKConv), sec. 4; our eq-long-ckconv.
    """

    def __init__(
        self,
        d_model: int,
        l_max: int = 1024,
        *,
        hidden: int = 32,
        omega: float = 10.0,
        activation: str | None = "gelu",
        mixer: str | None = "glu",
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_length(l_max, "l_max")
        check_head(activation, mixer, dropout)
        super().__init__(d_model, 0.0, (d_model, l_max - 1))
        like, self.l_max = target_of(device, dtype), l_max
        self.net = KernelNet(d_model, hidden, omega, like)
        kind = {"device": like.device, "dtype": like.dtype}
        self.head = make_head(activation, mixer, dropout, d_model, **kind)
