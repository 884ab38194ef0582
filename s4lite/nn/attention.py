"""Causal self-attention as a layer with a state.

Home: chapter 01, "Long sequences" (chapters/01_long_sequences.ipynb).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4lite.nn.checks import check_state
from s4lite.nn.clock import target_of
from s4lite.nn.recurrent import BaselineLayer
from s4lite.ops.checks import check_length, check_tensors

__all__ = ["AttendingLayer", "Attention", "rotate"]


def rotate(x: Tensor, place: Tensor) -> Tensor:
    """Turn pairs of channels by angles that grow with the place: a relative position code.

    Args:
        x      (..., T, 2 p)  queries or keys
        place  (T,)           where they stand; only differences will matter  [samples at rate 1]
    Returns:
        x  (..., T, 2 p)  pair j turned by place / 10000^(j/p)

    Source: Su et al. 2024 (RoFormer), sec. 3.2; our eq-long-rotate.
    """
    p = x.shape[-1] // 2
    pitch = 10000.0 ** (-torch.arange(p, dtype=torch.float64, device=x.device) / p)
    angle = place.to(torch.float64)[:, None] * pitch
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :p], x[..., p:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class AttendingLayer(BaselineLayer):
    """How attention runs: it needs `query`, `key_value`, `mix`, `heads`, `window`.

    Source: Vaswani et al. 2017, sec. 3.2; our eq-long-attention, eq-long-rotate.
    """

    def check_state(self, state: Tensor, batch: int) -> None:
        """Raise unless `state` holds a past of any length (of at most window - 1) samples."""
        check_tensors(state=state)
        t = state.shape[1] if state.ndim == 3 else 0
        t = t if self.window is None else min(t, self.window - 1)
        shape = (batch, t, self.state_axes[-1])
        check_state(state, shape, next(self.parameters()), real=True)

    def run(
        self, u: Tensor, state: Tensor, rate: float, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model): each sample attends to the stored past and to this piece."""
        batch, L, d = u.shape
        fresh = torch.cat([self.key_value(u), u.new_ones(batch, L, 1)], -1)
        seen = torch.cat([state.to(fresh.dtype), fresh], 1)
        keys, values, real = seen.split([d, d, 1], -1)
        place = torch.arange(seen.shape[1], device=u.device)
        lag = place[-L:, None] - place
        mask = (lag >= 0) & (lag < (self.window or len(place))) & (real.mT > 0)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query(u), keys, values)
        )
        q, k = rotate(q, place[-L:] * float(rate)), rotate(k, place * float(rate))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        y = self.mix(y.transpose(1, 2).flatten(-2))
        return y, self._kept(seen, L, lengths)

    def _kept(self, seen: Tensor, L: int, lengths: Tensor | None) -> Tensor:
        """What stays of the past: aligned at its end, of the last window - 1 samples if any."""
        if lengths is not None:  # push each row to the right; what comes in at the left is void
            where = torch.arange(seen.shape[1], device=seen.device) - (L - lengths[:, None])
            full = seen.gather(1, where.clamp(min=0)[..., None].expand_as(seen))
            seen = full.where((where >= 0)[..., None], 0.0)
        if self.window is None:
            return seen
        return seen[:, max(0, seen.shape[1] - (self.window - 1)) :]


class Attention(AttendingLayer):
    """Causal self-attention: every sample asks all before it. Its state is that past, and grows.

    Args:
        d_model        int          channels
        heads          int          a divisor of d_model / 2
        window         int or None  hear only the last `window` samples; None for the whole past
        dropout        float        probability that a channel of y is dropped
        device, dtype  any          of the parameters
    Raises:
        TypeError, ValueError: if something is not as wanted.

    The state is (batch, t, 2 d_model + 1) after t samples: keys, values, and 1 where they are
    real. With a window t stops at window - 1. Places are times: `rate` stretches them, those of
    the stored past too, so keep it while a sequence lasts.
    Cost:   sample t multiplies 4 d_model^2 + 2 t d_model numbers: L^2 in all.
    Source: Vaswani et al. 2017, sec. 3.2; our eq-long-attention, eq-long-rotate.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 1,
        window: int | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_length(heads, "heads")
        check_length(1 if window is None else window, "window")
        super().__init__(d_model, dropout, (0, 2 * d_model + 1))
        if d_model % (2 * heads):
            raise ValueError(f"want d_model a multiple of 2 heads, got {d_model}, heads={heads}")
        self.heads, self.window, like = heads, window, target_of(device, dtype)
        kind = {"device": like.device, "dtype": like.dtype}
        self.query = nn.Linear(d_model, d_model, **kind)
        self.key_value = nn.Linear(d_model, 2 * d_model, **kind)
        self.mix = nn.Linear(d_model, d_model, **kind)
