"""A bank of state spaces as a layer: it stands where self-attention stood.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb), and chapter 12, "S4 as a layer"
(chapters/12b_s4_layer.ipynb).
"""

from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from s4lite.nn.checks import check_flags, check_lengths, check_sequence, padding_mask
from s4lite.nn.dplr import DPLRKernel
from s4lite.nn.filters import FilterBank
from s4lite.nn.kernel import DiagKernel
from s4lite.nn.routes import check_backend

__all__ = ["S4", "S4D", "SSMLayer", "TiedDropout", "check_head", "make_head"]


class TiedDropout(nn.Dropout):
    """Dropout with one mask for all times: of u (batch, L, d) whole channels go.

    Args:
        p  float  the probability that a channel is dropped, in training only

    Source: Gal and Ghahramani 2016, sec. 4; our eq-layer-glu says where it stands.
    """

    def forward(self, u: Tensor) -> Tensor:
        """Drop channels of u (batch, L, d), and scale up the others by 1 / (1 - p)."""
        drops = self.training and self.p > 0
        return u * super().forward(torch.ones_like(u[:, :1])) if drops else u


def check_head(activation: str | None, mixer: str | None, dropout: float) -> None:
    """Raise unless these name a head.

    Args:
        activation  str or None  "gelu", "relu", "silu", or None for none
        mixer       str or None  "glu", "linear", or None to keep channels apart
        dropout     float        probability that a channel is dropped, 0 to 1
    Raises:
        TypeError: if dropout is no number (a bool is none).
        ValueError: if activation or mixer is unknown, or dropout no probability.
    """
    for name, value, known in [
        ("activation", activation, ("gelu", "relu", "silu")),
        ("mixer", mixer, ("glu", "linear")),
    ]:
        if value is not None and not (isinstance(value, str) and value in known):
            raise ValueError(f"want {name} one of {[*known, None]}, got {value!r}")
    if isinstance(dropout, bool) or not isinstance(dropout, Real):
        raise TypeError(f"want dropout as a number, got {type(dropout).__name__}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"want dropout from 0 to 1, got {dropout}")


def make_head(
    activation: str | None, mixer: str | None, dropout: float, d: int, **like: Any
) -> nn.Sequential:
    """Build what follows the filters: activation, dropout, and the map that mixes channels.

    Args:
        activation  str or None    "gelu", "relu", "silu", or None for none
        mixer       str or None    "glu", "linear", or None to keep channels apart
        dropout     float          probability that a channel is dropped, 0 to 1
        d           int            channels
        like        device, dtype  of the parameters
    Returns:
        nn.Sequential  (batch, L, d) -> (batch, L, d), position by position
    Raises:
        TypeError, ValueError: as `check_head` does.

    Source: Dauphin et al. 2017, eq. (1); our eq-layer-glu.
    """
    check_head(activation, mixer, dropout)
    activations = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, None: nn.Identity}
    maps = {None: [], "linear": [nn.Linear(d, d, **like)]}
    maps["glu"] = [nn.Linear(d, 2 * d, **like), nn.GLU()]
    return nn.Sequential(activations[activation](), TiedDropout(dropout), *maps[mixer])


class SSMLayer(FilterBank):
    """A bank of filters as a layer: filter, then a head that works position by position.

    Arguments as for `FilterBank`, and a head (batch, L, d_model) -> the same, from `make_head`.
    Hooks belong on the layer: over long sequences `kernel.forward` may never be called.

    Source: Gu et al. 2022 (S4), sec. 3.4; our eq-layer-bank, eq-layer-glu.
    """

    def __init__(self, kernel: DiagKernel, head: nn.Module, **options: Any) -> None:
        super().__init__(kernel, **options)
        self.head = head

    def forward(
        self,
        u: Tensor,
        state: Tensor | None = None,
        *,
        rate: float = 1.0,
        dt: Tensor | None = None,
        lengths: Tensor | list[int] | None = None,
        return_state: bool = False,
        ready: Tensor | tuple[Tensor, ...] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model) to the same shape, or to (y, state) if return_state.

        Args:
            u        (batch, L, d_model)      input, in the dtype of the parameters or autocast
            state    (batch, d_model, N/2)    complex: all that is remembered of earlier samples
            rate     float                    > 0; 2.0 if every second sample was kept
            dt       (batch, L) or (L,)       > 0, from the sample before, or `state`; None: all 1
            lengths  (batch,)                 of right-padded sequences: y is 0 beyond them
            ready    tensor or tuple          what `prepare` made of the parameters before
        """
        check_sequence(u, "batch L d_model", self.d_model, self.D)
        check_flags(return_state=return_state)
        if state is not None:
            self.check_state(state, u.shape[0])
        lengths = None if lengths is None else check_lengths(lengths, u)
        keep = None if lengths is None else padding_mask(lengths, u)
        gaps = self.gaps_of(dt, u, keep)
        v = (u if keep is None else u.where(keep, 0.0)).mT
        y, state = self.run(v, state, rate, gaps, lengths, return_state, ready)
        y = y.mT.to(u.dtype).contiguous()  # in another layout the head would need more memory
        y = self.head(y) if keep is None else self.head(y).where(keep, 0.0)
        return (y, state) if return_state else y

    def step(
        self, u_t: Tensor, state: Tensor, *, rate: float = 1.0, dt: Tensor | float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map one sample u_t (batch, d_model), `dt` after state: the output and the next state."""
        check_sequence(u_t, "batch d_model", self.d_model, self.D)
        self.check_state(state, u_t.shape[0])
        gaps = self.gaps_of(dt, u_t, None)
        wide = u_t.float() if u_t.dtype.itemsize < 4 else u_t
        y, state = self.filter_step(wide, state, rate, gaps)
        return self.head(y.unsqueeze(1).to(u_t.dtype)).squeeze(1), state


class S4D(SSMLayer):
    """Diagonal S4: a sequence layer, (batch, L, d_model) to the same shape.

        layer(u, state=None, *, rate=1.0, dt=None, lengths=None, return_state=False) -> y[, state]
        layer.step(u_t, state, *, rate=1.0, dt=None) -> y_t, state   # after layer.eval()
        layer.initial_state(batch) -> state
        layer.kernel(L, rate=1.0) -> (channels, d_model, L)

    Args:
        d_model, d_state  int          H channels; N numbers of state for each, even
        init, disc, n_ssm, clock, dt_min, dt_max, device, dtype   as for `DiagParameters`
        bidirectional     bool         filter the future too; no states then
        activation, mixer, dropout     as for `make_head`
        backend           str          "auto", "torch" or "triton", as for `choose_route`
    Raises:
        TypeError, ValueError: if something is not as wanted; nothing has changed then.

    Source: Gu et al. 2022 (S4D), sec. 3; our eq-layer-bank.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | Tensor = "lin",
        disc: str = "zoh",
        n_ssm: int = 1,
        clock: str = "log",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        mixer: str | None = "glu",
        dropout: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        like = {"device": device, "dtype": dtype}
        clocks = {"clock": clock, "dt_min": dt_min, "dt_max": dt_max}
        bank = {"init": init, "disc": disc, "n_ssm": n_ssm, **clocks, **like}
        check_flags(bidirectional=bidirectional)
        check_backend(backend)
        check_head(activation, mixer, dropout)  # everything is looked at before the first draw
        kernel = DiagKernel(d_model, d_state, channels=1 + bidirectional, **bank)
        head = make_head(activation, mixer, dropout, d_model, **like)
        super().__init__(kernel, head, bidirectional=bidirectional, backend=backend)


class S4(SSMLayer):
    """S4: a sequence layer, (batch, L, d_model) to the same shape. `S4(d_model)` is a good start.

        layer(u, state=None, *, rate=1.0, dt=None, lengths=None, return_state=False) -> y[, state]
        layer.step(u_t, state, *, rate=1.0, dt=None) -> y_t, state   # after layer.eval()
        layer.initial_state(batch) -> state
        layer.kernel(L, rate=1.0) -> (channels, d_model, L)

    Args:
        d_model, d_state  int          H channels; N numbers of state for each, even
        init, min_decay   any          "legs", "legt", "lagt", "fout", ...: `initial_system`
        n_ssm, clock, dt_min, dt_max, device, dtype   as for `DPLRParameters`
        bidirectional     bool         filter the future too; no states then
        activation, mixer, dropout     as for `make_head`
        backend           str          "auto" or "torch"; "triton" has nothing to offer here
    Raises:
        TypeError, ValueError: if something is not as wanted; nothing has changed then.

    Source: Gu et al. 2022 (S4), sec. 3.4; our eq-layer-bank, eq-s4-hurwitz.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | tuple[Tensor, ...] = "legs",
        n_ssm: int = 1,
        clock: str = "log",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        min_decay: float = 1e-4,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        mixer: str | None = "glu",
        dropout: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        like, clocks = {"device": device, "dtype": dtype}, {"dt_min": dt_min, "dt_max": dt_max}
        bank = {"init": init, "n_ssm": n_ssm, "min_decay": min_decay, "clock": clock, **clocks}
        check_flags(bidirectional=bidirectional)
        check_backend(backend, diagonal=False)
        check_head(activation, mixer, dropout)  # everything is looked at before the first draw
        kernel = DPLRKernel(d_model, d_state, channels=1 + bidirectional, **bank, **like)
        head = make_head(activation, mixer, dropout, d_model, **like)
        super().__init__(kernel, head, bidirectional=bidirectional, backend=backend)
