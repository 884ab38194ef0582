"""From layer to network: residual blocks, a stack of them, and the model around it.

Home: chapter 15, "The model" (chapters/15_model.ipynb).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

from torch import Tensor, nn

from s4lite.nn.checks import (
    check_flags,
    check_lengths,
    check_sequence,
    options_for,
    without_padding,
)
from s4lite.nn.ends import Encoder, PooledDecoder
from s4lite.nn.layer import S4D, TiedDropout
from s4lite.nn.loading import StrictLoading
from s4lite.nn.pretrained import Pretrained
from s4lite.nn.together import Together
from s4lite.ops.checks import check_length, check_tensors

__all__ = [
    "ModelState",
    "RunOptions",
    "S4Block",
    "SequenceModel",
    "SequenceParts",
    "Stack",
    "StepOptions",
    "open_state",
]


class RunOptions(TypedDict, total=False):
    """How a layer, a block or a stack is run once: its keyword arguments in `forward`.

    rate          float               > 0, 1.0; 2.0 if every second sample was kept
    dt            (batch, L) or (L,)  times between samples, None: all 1; see `SSMLayer`
    lengths       (batch,)            of right-padded sequences, None; outputs are 0 beyond them
    return_state  bool                False; give back (y, state) in place of y
    """

    rate: float
    dt: Tensor | None
    lengths: Tensor | list[int] | None
    return_state: bool


class StepOptions(TypedDict, total=False):
    """How a layer, a block or a stack takes one step: its keyword arguments in `step`.

    rate  float                        > 0, 1.0; 2.0 if every second sample was kept
    dt    (batch,) or (), or a number  time since the sample before, None: 1; see `SSMLayer`
    """

    rate: float
    dt: Tensor | float | None


class S4Block(StrictLoading):
    """A layer with its norm, dropout and residual path.

    Args:
        d_model  int       channels
        layer    callable  makes the layer: layer(d_model, dropout=..., **options)
        prenorm  bool      u + layer(norm(u)) if True, norm(u + layer(u)) if not
        dropout  float     share of channels dropped, in the layer and behind it
        options  any       go to the layer: d_state, init, device, dtype, bidirectional, ...

    Source: Goel et al. 2022 (SaShiMi), figure 1; our eq-model-block.
    """

    def __init__(
        self,
        d_model: int,
        *,
        layer: Callable[..., nn.Module] = S4D,
        prenorm: bool = True,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        like = {name: options[name] for name in ("device", "dtype") if name in options}
        self.d_model, self.prenorm = d_model, prenorm
        self.layer = layer(d_model, dropout=dropout, **options)
        self.norm, self.dropout = nn.LayerNorm(d_model, **like), TiedDropout(dropout)

    def initial_state(self, batch: int = 1) -> Tensor:
        """The layer's state that remembers nothing."""
        return self.layer.initial_state(batch)

    def forward(
        self, u: Tensor, state: Tensor | None = None, **run: Unpack[RunOptions]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """u (batch, L, d_model) to the same [, and the new state]."""
        check_sequence(u, "batch L d_model", self.d_model, self.norm.weight)
        u = without_padding(u, run.get("lengths"))
        out = self.layer(self.norm(u) if self.prenorm else u, state, **options_for(self.layer, run))
        y, *end = out if isinstance(out, tuple) else (out,)
        y = without_padding(self._add(u, y), run.get("lengths"))
        return (y, *end) if end else y

    def step(self, u_t: Tensor, state: Tensor, **run: Unpack[StepOptions]) -> tuple[Tensor, Tensor]:
        """u_t (batch, d_model) to the same, and the new state."""
        check_sequence(u_t, "batch d_model", self.d_model, self.norm.weight)
        options = options_for(self.layer, run)
        y, state = self.layer.step(self.norm(u_t) if self.prenorm else u_t, state, **options)
        return self._add(u_t[:, None], y[:, None])[:, 0], state

    def _add(self, u: Tensor, y: Tensor) -> Tensor:
        return u + self.dropout(y) if self.prenorm else self.norm(u + self.dropout(y))


class Stack(Together):
    """n_layers blocks and, in pre-norm, a last norm: (batch, L, d_model) to the same.

    Args:
        d_model, n_layers  int   channels; blocks, >= 1
        prenorm, options   any   go to every S4Block, and the options on to its layer

    Source: our eq-model-block, eq-whole-merge.
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
        self, u: Tensor, state: tuple[Tensor, ...] | None = None, **run: Unpack[RunOptions]
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """u (batch, L, d_model) to the same [, and the new states]."""
        starts, ends, made = self._starts(state), [], self.made(self.blocks, u, state, run)
        for block, start, ready in zip(self.blocks, starts, made, strict=True):
            out = block(u, start, **run, **ready)
            u, *end = out if isinstance(out, tuple) else (out,)
            ends += end
        u = without_padding(self.norm(u), run.get("lengths"))
        return (u, tuple(ends)) if ends else u

    def step(
        self, u_t: Tensor, state: tuple[Tensor, ...], **run: Unpack[StepOptions]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """u_t (batch, d_model) to the same, and the new states."""
        starts, ends = self._starts(state), []
        for block, start in zip(self.blocks, starts, strict=True):
            u_t, end = block.step(u_t, start, **run)
            ends.append(end)
        return self.norm(u_t), tuple(ends)

    def _starts(self, state: tuple[Tensor, ...] | None) -> tuple[Tensor | None, ...]:
        n = len(self.blocks)
        if state is not None and not (isinstance(state, tuple) and len(state) == n):
            raise ValueError(f"want a tuple of {n} states, one a block, got {state!r:.60}")
        return (None,) * n if state is None else state


class ModelState(NamedTuple):
    """All that a SequenceModel remembers of the sequence so far.

    layers  tuple            one state a layer: S4D's are (batch, d_model, d_state / 2), complex
    total   (batch, d_model) the sum of the stack's outputs
    count   (batch, 1)       how many outputs that were
    """

    layers: tuple[Tensor, ...]
    total: Tensor
    count: Tensor


def open_state(
    state: ModelState, fresh: tuple[Tensor, Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    """A ModelState in its two halves, the sums of a shape and kind as `fresh` ones have."""
    if not (isinstance(state, ModelState) and isinstance(state.layers, tuple)):
        raise TypeError(f"want state as a ModelState of tensors, got {type(state).__name__}")
    for name, x, like in zip(("total", "count"), state[1:], fresh, strict=True):
        check_tensors(**{name: x, "parameters": like})
        if x.shape != like.shape or x.dtype != like.dtype:
            want, got = f"{like.dtype} {tuple(like.shape)}", f"{x.dtype} {tuple(x.shape)}"
            raise ValueError(f"want {name} {want} in the state, got {got}")
    return state.layers, (state.total, state.count)


class SequenceParts(Pretrained):
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
        given = {"d_input": d_input, "d_output": d_output, "d_model": d_model, "n_layers": n_layers}
        self.arguments = given | {"pool": pool, "embedding": embedding} | options
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
        dt: Tensor | None = None,
        lengths: Tensor | list[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ModelState]:
        """u to (batch, d_output), or (batch, L, d_output) without pooling [, and the new state].

        rate, dt, lengths, return_state are those of `RunOptions`.
        """
        check_flags(return_state=return_state)
        x = self.encoder(u, "batch L", lengths)
        lengths = None if lengths is None else check_lengths(lengths, x)
        fresh = self.decoder.initial_state(x.shape[0])
        layers, sums = (None, fresh) if state is None else open_state(state, fresh)
        x = self.stack(x, layers, rate=rate, dt=dt, lengths=lengths, return_state=return_state)
        x, layers = x if return_state else (x, ())
        y, *sums = self.decoder(x, *sums, lengths)
        return (y, ModelState(layers, *sums)) if return_state else y

    def step(
        self, u_t: Tensor, state: ModelState, *, rate: float = 1.0, dt: Tensor | float | None = None
    ) -> tuple[Tensor, ModelState]:
        """u_t (batch, d_input) or tokens (batch,) to the output so far, and the new state."""
        x = self.encoder(u_t, "batch")
        layers, sums = open_state(state, self.decoder.initial_state(x.shape[0]))
        x, layers = self.stack.step(x, layers, rate=rate, dt=dt)
        y, *sums = self.decoder(x[:, None], *sums)
        return y if self.decoder.pool else y[:, 0], ModelState(layers, *sums)
