"""The two ends of a network: an encoder before the stack and a pooled decoder behind it.

Home: chapter 15, "The model" (chapters/15_model.ipynb).
"""

from typing import Any

import torch
from torch import Tensor, nn

from s4lite.nn.checks import check_sequence, padding_mask, without_padding
from s4lite.ops.checks import can_look, check_length

__all__ = ["Encoder", "PooledDecoder"]


class Encoder(nn.Module):
    """From features (..., d_input), or from tokens (...), to (..., d_model).

    Args:
        d_input    int   features a moment, or the number of different tokens
        d_model    int   channels
        embedding  bool  tokens (int64 or int32) if True, features if not
    Raises:
        TypeError:  features not of the weights' dtype, tokens that are no integers
        ValueError: axes missing or empty, a wrong width, tokens outside 0 .. d_input - 1
    """

    def __init__(self, d_input: int, d_model: int, *, embedding: bool = False, **like: Any) -> None:
        super().__init__()
        check_length(d_input, "d_input")
        check_length(d_model, "d_model")
        self.d_input, self.embedding = d_input, embedding
        self.map = (nn.Embedding if embedding else nn.Linear)(d_input, d_model, **like)

    def forward(self, u: Tensor, axes: str, lengths: Tensor | list[int] | None = None) -> Tensor:
        """Encode u, whose leading axes are named: "batch L" for sequences, "batch" for a step."""
        if self.embedding:
            return self.map(self._tokens(u, axes, lengths))
        check_sequence(u, axes + " d_input", self.d_input, self.map.weight)
        return self.map(without_padding(u, lengths))

    def _tokens(self, u: Tensor, axes: str, lengths: Tensor | list[int] | None) -> Tensor:
        if not isinstance(u, Tensor) or u.dtype not in (torch.int64, torch.int32):
            got = u.dtype if isinstance(u, Tensor) else type(u).__name__
            raise TypeError(f"want tokens as an int64 or int32 tensor, got {got}")
        if u.ndim != len(axes.split()) or 0 in u.shape:
            want = f"({axes.replace(' ', ', ')}), none empty"
            raise ValueError(f"want tokens {want}; got {tuple(u.shape)}")
        if u.device != self.map.weight.device:
            raise ValueError(f"want tokens on {self.map.weight.device}, got {u.device}")
        u = without_padding(u, lengths)
        if can_look(u) and not bool(((u >= 0) & (u < self.d_input)).all()):
            raise ValueError(f"want tokens in 0 .. {self.d_input - 1}, got {u.min()} .. {u.max()}")
        return u


class PooledDecoder(nn.Module):
    """Pool the stack's outputs over time and map them to d_output numbers.

    Args:
        d_model   int         channels
        d_output  int         outputs
        pool      str | None  "mean", "last", or None: one output a moment

    Source: our eq-model-pool.
    """

    def __init__(self, d_model: int, d_output: int, pool: str | None = "mean", **like: Any) -> None:
        super().__init__()
        check_length(d_output, "d_output")
        if pool not in ("mean", "last", None):
            raise ValueError(f'want pool "mean", "last" or None, got {pool!r}')
        self.pool, self.map = pool, nn.Linear(d_model, d_output, **like)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, Tensor]:
        """Nothing summed yet: zeros (batch, d_model) and (batch, 1), at least float32."""
        weight = self.map.weight
        like = {"device": weight.device, "dtype": torch.promote_types(weight.dtype, torch.float32)}
        return torch.zeros(batch, weight.shape[1], **like), torch.zeros(batch, 1, **like)

    def forward(
        self, x: Tensor, total: Tensor, count: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (batch, L, d_model) to outputs, with the new total and count."""
        real = torch.ones_like(x[..., :1], dtype=torch.bool)
        keep = real if lengths is None else padding_mask(lengths, x)
        total = total + x.where(keep, 0).sum(1, dtype=total.dtype)
        count = count + keep.sum(1, dtype=count.dtype)
        if self.pool == "mean":
            x = (total / count).to(x.dtype)
        elif self.pool == "last":
            last = -1 if lengths is None else lengths - 1
            x = x[torch.arange(x.shape[0], device=x.device), last]
        y = self.map(x)
        return without_padding(y, lengths) if self.pool is None else y, total, count
