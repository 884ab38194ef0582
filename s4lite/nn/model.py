"""From layer to network: residual blocks between an encoder and a decoder.

Home: chapter 15, "The model" (chapters/15_model.ipynb).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s4lite.nn.kernel import StrictLoading
from s4lite.nn.layer import S4D, TiedDropout, check_lengths, check_sequence, padding_mask
from s4lite.ops.checks import can_look, check_length

__all__ = [
    "Encoder",
    "ModelState",
    "PooledDecoder",
    "S4Block",
    "SequenceModel",
    "SequenceParts",
    "Stack",
    "open_state",
]


class S4Block(StrictLoading):
    """A layer with its norm, dropout and residual path.

    Args:
        d_model  int       channels
        layer    callable  makes the layer: layer(d_model, dropout=..., **options)
        prenorm  bool      u + layer(norm(u)) if True, norm(u + layer(u)) if not
        dropout  float     share of channels dropped, in the layer and behind it
        options  any       go to the layer: d_state, init, dt_min, bidirectional, ...

    Source: Goel et al. 2022 (SaShiMi), figure 1; our eq-model-block.
    """

    def __init__(
        self,
        d_model: int,
        *,
        layer: Callable[..., nn.Module] = S4D,
        prenorm: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.prenorm = prenorm
        self.norm = nn.LayerNorm(d_model, device=device, dtype=dtype)
        self.layer = layer(d_model, dropout=dropout, device=device, dtype=dtype, **options)
        self.dropout = TiedDropout(dropout)

    def initial_state(self, batch: int = 1) -> Tensor:
        """The layer's state that remembers nothing."""
        return self.layer.initial_state(batch)

    def forward(
        self, u: Tensor, state: Tensor | None = None, **options: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        """u (batch, L, d_model) to the same; rate, lengths, return_state go to the layer."""
        out = self.layer(self._before(u), state, **options)
        return (self._after(u, out[0]), out[1]) if isinstance(out, tuple) else self._after(u, out)

    def step(self, u_t: Tensor, state: Tensor, *, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """u_t (batch, d_model) to the same, and the new state."""
        y, state = self.layer.step(self._before(u_t), state, rate=rate)
        return self._after(u_t[:, None], y[:, None])[:, 0], state

    def _before(self, u: Tensor) -> Tensor:
        return self.norm(u) if self.prenorm else u

    def _after(self, u: Tensor, y: Tensor) -> Tensor:
        y = u + self.dropout(y)
        return y if self.prenorm else self.norm(y)


class Stack(StrictLoading):
    """n_layers blocks and, in pre-norm, a last norm: (batch, L, d_model) to the same.

    Args:
        d_model, n_layers  int   channels; blocks, >= 1
        prenorm, options   any   go to every S4Block, and the options on to its layer

    Source: our eq-model-block.
    """

    def __init__(
        self, d_model: int, n_layers: int, *, prenorm: bool = True, **options: Any
    ) -> None:
        super().__init__()
        check_length(n_layers, "n_layers")
        like = {name: options[name] for name in ("device", "dtype") if name in options}
        blocks = [S4Block(d_model, prenorm=prenorm, **options) for _ in range(n_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(d_model, **like) if prenorm else nn.Identity()

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """One state a block, none of which remembers anything."""
        return tuple(block.initial_state(batch) for block in self.blocks)

    def forward(
        self, u: Tensor, state: tuple[Tensor, ...] | None = None, **options: Any
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """u (batch, L, d_model) to the same; with return_state=True also the new states."""
        starts, ends = self._starts(state), []
        for block, start in zip(self.blocks, starts, strict=True):
            u = block(u, start, **options)
            if isinstance(u, tuple):
                u, end = u
                ends.append(end)
        return (self.norm(u), tuple(ends)) if ends else self.norm(u)

    def step(
        self, u_t: Tensor, state: tuple[Tensor, ...], *, rate: float = 1.0
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """u_t (batch, d_model) to the same, and the new states."""
        starts, ends = self._starts(state), []
        for block, start in zip(self.blocks, starts, strict=True):
            u_t, end = block.step(u_t, start, rate=rate)
            ends.append(end)
        return self.norm(u_t), tuple(ends)

    def _starts(self, state: tuple[Tensor, ...] | None) -> tuple[Tensor | None, ...]:
        n = len(self.blocks)
        if state is not None and len(state) != n:
            raise ValueError(f"want one state a block, {n} in all, got {len(state)}")
        return (None,) * n if state is None else state


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
            self._check_tokens(u, axes)
            return self.map(u)
        check_sequence(u, axes + " d_input", self.d_input, self.map.weight)
        if lengths is not None:  # a NaN in the padding would reach the gradient of the weights
            u = u.where(padding_mask(check_lengths(lengths, u), u), 0)
        return self.map(u)

    def _check_tokens(self, u: Tensor, axes: str) -> None:
        if not isinstance(u, Tensor) or u.dtype not in (torch.int64, torch.int32):
            got = u.dtype if isinstance(u, Tensor) else type(u).__name__
            raise TypeError(f"want tokens as an int64 or int32 tensor, got {got}")
        if u.ndim != len(axes.split()) or 0 in u.shape:
            want = f"({axes.replace(' ', ', ')}), none empty"
            raise ValueError(f"want tokens {want}; got {tuple(u.shape)}")
        if u.device != self.map.weight.device:
            raise ValueError(f"want tokens on {self.map.weight.device}, got {u.device}")
        if can_look(u) and not bool(((u >= 0) & (u < self.d_input)).all()):
            raise ValueError(f"want tokens in 0 .. {self.d_input - 1}, got {u.min()} .. {u.max()}")


class ModelState(NamedTuple):
    """All that a SequenceModel remembers of the sequence so far.

    layers  tuple            one state a layer: (batch, d_model, d_state / 2), complex
    total   (batch, d_model) the sum of the stack's outputs
    count   (batch, 1)       how many outputs that were
    """

    layers: tuple[Tensor, ...]
    total: Tensor
    count: Tensor


def open_state(state: ModelState) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    """A ModelState in its two halves: the layers' states, and (total, count)."""
    if not isinstance(state, ModelState):
        raise TypeError(f"want state as a ModelState, got {type(state).__name__}")
    return state.layers, (state.total, state.count)


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
            x = x[torch.arange(len(x), device=x.device), last]
        return self.map(x), total, count


class SequenceParts(StrictLoading):
    """What a SequenceModel is made of; its arguments are explained there."""

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 128,
        n_layers: int = 4,
        *,
        pool: str | None = "mean",
        embedding: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        like = {name: options[name] for name in ("device", "dtype") if name in options}
        self.encoder = Encoder(d_input, d_model, embedding=embedding, **like)
        self.stack = Stack(d_model, n_layers, **options)
        self.decoder = PooledDecoder(d_model, d_output, pool, **like)

    def initial_state(self, batch: int = 1) -> ModelState:
        """A state that remembers nothing."""
        return ModelState(self.stack.initial_state(batch), *self.decoder.initial_state(batch))


class SequenceModel(SequenceParts):
    """Encoder, stack of blocks, pooled decoder: a network for sequences.

    Args:
        d_input, d_output  int         features a moment (with embedding: tokens); outputs
        d_model, n_layers  int         channels; blocks
        pool               str | None  "mean" or "last" over time, None: one output a moment
        embedding          bool        u holds tokens (batch, L), not (batch, L, d_input)
        options            any         to S4Block and its layer: dropout, prenorm, d_state, ...
    Raises:
        TypeError, ValueError: if an argument or an input is not what is wanted here

    Source: our eq-model-block, eq-model-pool.
    """

    def forward(
        self,
        u: Tensor,
        state: ModelState | None = None,
        *,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ModelState]:
        """u to (batch, d_output), or (batch, L, d_output) without pooling [, and the new state]."""
        x = self.encoder(u, "batch L", lengths)
        lengths = None if lengths is None else check_lengths(lengths, x)
        fresh = None, self.decoder.initial_state(len(x))
        layers, sums = fresh if state is None else open_state(state)
        x = self.stack(x, layers, rate=rate, lengths=lengths, return_state=return_state)
        x, layers = x if return_state else (x, ())
        y, *sums = self.decoder(x, *sums, lengths)
        return (y, ModelState(layers, *sums)) if return_state else y

    def step(
        self, u_t: Tensor, state: ModelState, *, rate: float = 1.0
    ) -> tuple[Tensor, ModelState]:
        """u_t (batch, d_input) or tokens (batch,) to the output so far, and the new state."""
        layers, sums = open_state(state)
        x, layers = self.stack.step(self.encoder(u_t, "batch"), layers, rate=rate)
        y, *sums = self.decoder(x[:, None], *sums)
        return y if self.decoder.pool else y[:, 0], ModelState(layers, *sums)
