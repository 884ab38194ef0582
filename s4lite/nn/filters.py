"""A bank of state spaces with a wire each: the linear part of a layer.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

import torch
from torch import Tensor, nn

from s4lite.nn.checks import check_flags, check_gaps
from s4lite.nn.kernel import DiagKernel
from s4lite.nn.loading import StrictLoading
from s4lite.nn.routes import check_backend, choose_route, run_chunks
from s4lite.nn.steps import kept_block
from s4lite.ops.fused_conv import fused_conv

__all__ = ["FilterBank", "FilterParts", "FilterViews"]


class FilterParts(StrictLoading):
    """A kernel and H wires, what their states are, and what they refuse.

    Arguments as for `FilterBank`.

    Source: our eq-layer-bank.
    """

    takes_dt = takes_ready = True  # blocks and stacks hand these on to layers that say so
    backend = "auto"  # of layers that were pickled before there was a choice

    def __init__(
        self, kernel: DiagKernel, *, bidirectional: bool = False, backend: str = "auto"
    ) -> None:
        super().__init__()
        check_flags(bidirectional=bidirectional)
        check_backend(backend)
        if len(kernel.C) != 1 + bidirectional:
            raise ValueError(f"want {1 + bidirectional} channels, got {len(kernel.C)}")
        self.kernel, self.d_model, self.bidirectional = kernel, kernel.d_model, bidirectional
        self.backend = backend
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


class FilterViews(FilterParts):
    """How H filters and H wires filter all at once, unevenly, and by one sample.

    Arguments as for `FilterBank`.

    Source: our eq-layer-bank, eq-layer-two-sided, eq-layer-state.
    """

    def filter(
        self, u: Tensor, state: Tensor | None = None, rate: float = 1.0, K: Tensor | None = None
    ) -> Tensor:
        """Filter u (batch, H, L) by kernels K of that length, after what `state` remembers."""
        past, *future = self.kernel(u.shape[-1], rate) if K is None else K
        y = fused_conv(u, past, self.D, K_backward=future[0] if future else None)
        return y if state is None else y + self.kernel.response(state, u.shape[-1], rate)

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
        return torch.addcmul(y_t, self.D, u_t), state


class FilterBank(FilterViews):
    """H filters and H wires, causal or both ways: the linear part of a layer.

    Args:
        kernel         DiagKernel  the filters (any with its methods); 1 channel, or 2 both ways
        bidirectional  bool        filter the future too; there is then no state and no step
        backend        str         "auto", "torch" or "triton", as for `choose_route`
    Raises:
        TypeError: if bidirectional is no bool.
        ValueError: if the kernel has another number of channels, or backend is unknown.

    Source: Gu et al. 2022 (S4), sec. 3.4; our eq-layer-bank, eq-layer-two-sided, eq-layer-state.
    """

    def run(
        self,
        u: Tensor,
        state: Tensor | None,
        rate: float,
        gaps: Tensor | None,
        ends: Tensor | None,
        return_state: bool,
        ready: Tensor | tuple[Tensor, ...] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Filter u (batch, H, L) by a route: the outputs, and the last state if it is wanted."""
        if return_state:
            self.check_causal()
        route = choose_route(self, u, gaps, return_state or state is not None)
        wide, last = u.to(self.kernel.real_dtype), None
        if route == "scan":
            return self.filter_scan(wide, gaps, state, rate)
        block = return_state and ends is None and ready is None and self.backend == "auto"
        done = kept_block(self.kernel, wide, state, rate) if block else None
        if done is not None:
            return done[0] + self.D.to(wide.dtype)[:, None] * wide, done[1]
        if route == "kernel":
            y = self.filter(u if state is None else wide, state, rate, ready)
        else:
            y, last = run_chunks(self, u if route == "triton" else wide, state, rate, route, ready)
        if return_state and (last is None or ends is not None):  # at each row's own end
            last = self.kernel.last_state(wide, state, rate, ends)
        return y, last if return_state else None
