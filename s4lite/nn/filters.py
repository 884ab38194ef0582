"""A bank of state spaces with a wire each: the linear part of a layer.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

import torch
from torch import Tensor, nn

from s4lite.nn.checks import check_flags, check_gaps
from s4lite.nn.kernel import DiagKernel
from s4lite.nn.loading import StrictLoading
from s4lite.ops.conv import causal_conv, two_sided_conv

__all__ = ["FilterBank", "FilterParts"]


class FilterParts(StrictLoading):
    """A kernel and H wires, what their states are, and what they refuse.

    Arguments as for `FilterBank`.

    Source: our eq-layer-bank.
    """

    takes_dt = True  # blocks hand dt on to layers that say so

    def __init__(self, kernel: DiagKernel, *, bidirectional: bool = False) -> None:
        super().__init__()
        check_flags(bidirectional=bidirectional)
        if len(kernel.C) != 1 + bidirectional:
            raise ValueError(f"want {1 + bidirectional} channels, got {len(kernel.C)}")
        self.kernel, self.d_model, self.bidirectional = kernel, kernel.d_model, bidirectional
        self.D = nn.Parameter(torch.randn(self.d_model, device="cpu").to(kernel.C))

    def initial_state(self, batch: int = 1) -> Tensor:
        """Make a state that remembers nothing: (batch, d_model, d_state / 2) complex zeros."""
        self.check_causal()
        return self.kernel.initial_state(batch)

    def check_causal(self, what: str = "states and steps") -> None:
        """Raise ValueError unless states make sense here."""
        if self.bidirectional:
            raise ValueError(f"want a causal layer for {what}, got bidirectional=True")

    def check_state(self, state: Tensor, batch: int) -> None:
        """Raise unless states make sense here, and this one fits."""
        self.check_causal()
        self.kernel.check_state(state, batch)

    def gaps_of(self, dt: Tensor | float | None, u: Tensor, keep: Tensor | None) -> Tensor | None:
        """Bring times between samples into one form; raise unless they make sense here."""
        if dt is None:
            return None
        self.check_causal("dt")
        if not hasattr(self.kernel, "scan"):
            name = type(self.kernel).__name__
            raise ValueError(f"want a kernel with `scan` for dt, got {name}")
        return check_gaps(dt, u, keep)


class FilterBank(FilterParts):
    """H filters and H wires, causal or both ways: the linear part of a layer.

    Args:
        kernel         DiagKernel  the filters (any with its methods); 1 channel, or 2 both ways
        bidirectional  bool        filter the future too; there is then no state and no step
    Raises:
        TypeError: if bidirectional is no bool.
        ValueError: if the kernel has another number of channels.

    Source: Gu et al. 2022 (S4), sec. 3.4; our eq-layer-bank, eq-layer-two-sided, eq-layer-state.
    """

    def filter(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """Filter u (batch, H, L), after what `state` remembers: (batch, H, L)."""
        L = u.shape[-1]
        K = self.kernel(L, rate)
        y = two_sided_conv(u, *K) if self.bidirectional else causal_conv(u, K[0])
        y = y + self.D.to(u.dtype)[:, None] * u
        return y if state is None else y + self.kernel.response(state, L, rate)

    def filter_scan(
        self, u: Tensor, gaps: Tensor, state: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Filter u (batch, H, L), samples `gaps` (batch, L) apart: the outputs, the last state."""
        y, state = self.kernel.scan(u, gaps, state, rate)
        return y + self.D.to(u.dtype)[:, None] * u, state

    def filter_step(
        self, u_t: Tensor, state: Tensor, rate: float, gaps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Filter one sample u_t (batch, H): the output (batch, H) and the next state."""
        passed = () if gaps is None else (gaps,)
        y_t, state = self.kernel.step(u_t, state, rate, *passed)
        return y_t + self.D.to(u_t.dtype) * u_t, state

    def run(
        self,
        u: Tensor,
        state: Tensor | None,
        rate: float,
        gaps: Tensor | None,
        ends: Tensor | None,
        return_state: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Filter u (batch, H, L) either way: the outputs, and the last state if it is wanted."""
        if return_state:
            self.check_causal()
        if gaps is not None:
            return self.filter_scan(u, gaps, state, rate)
        y = self.filter(u, state, rate)
        return y, self.kernel.last_state(u, state, rate, ends) if return_state else None
