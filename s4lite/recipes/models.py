"""Networks for a task: six kinds of layer in the same surroundings.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import inspect
import math
import typing
from typing import Any

from torch import Tensor, nn

from s4lite.data.task import Task
from s4lite.nn.attention import Attention
from s4lite.nn.layer import S4, S4D, make_head
from s4lite.nn.lookback import CKConv, DilatedConv
from s4lite.nn.model import SequenceModel
from s4lite.nn.recurrent import LSTM
from s4lite.recipes.catalogue import choose
from s4lite.recipes.parts import load

__all__ = ["GatedAttention", "build", "layers", "options_of"]


class GatedAttention(Attention):
    """Causal self-attention, and behind it what S4 has behind its filters: GELU, map, gate.

    Args:
        d_model  int    channels
        dropout  float  probability that a channel is dropped, in the head and behind it
        options  any    heads, window, device, dtype, as for `Attention`

    Source: Vaswani et al. 2017, sec. 3; Dauphin et al. 2017; our eq-long-attention, eq-layer-glu.
    """

    def __init__(self, d_model: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(d_model, dropout=dropout, **options)
        like = {name: options[name] for name in ("device", "dtype") if name in options}
        self.head = make_head("gelu", "glu", dropout, d_model, **like)

    def run(
        self, u: Tensor, state: Tensor, rate: float, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map u (batch, L, d_model): attend, then work place by place."""
        y, state = super().run(u, state, rate, lengths)
        return self.head(y), state


def layers() -> dict[str, type[nn.Module]]:
    """The layers that a recipe can be run with, by name."""
    recurrent = {"s4": S4, "s4d": S4D, "lstm": LSTM}
    return recurrent | {"tcn": DilatedConv, "ckconv": CKConv, "transformer": GatedAttention}


def options_of(cls: type) -> dict[str, Any]:
    """What a class can be made with: name -> type, from its constructor and those above it."""
    found: dict[str, Any] = {}
    for each in cls.__mro__:
        if "__init__" in vars(each):
            hints = typing.get_type_hints(each.__init__)
            rest = inspect.signature(each.__init__).parameters.values()
            known = {p.name: hints.get(p.name, Any) for p in rest if p.kind not in (2, 4)}
            found = known | found
            if not any(p.kind == p.VAR_KEYWORD for p in rest):
                break  # it hands nothing on
    return {name: hint for name, hint in found.items() if name != "self"}


def build(model: str, task: Task, **options: Any) -> nn.Module:
    """Make a network for a task.

    Args:
        model    str   one of `layers()`
        task     Task  what it shall do
        options  any   d_model, n_layers, prenorm, pool, dropout; the rest goes to the layer, if
                       it knows them: d_state, n_ssm, dt_min, dt_max, bidirectional, ...
    Returns:
        nn.Module  model(u, lengths=None, rate=1.0) -> (batch, d_output), or (batch, L, d_output)
            where the task asks for more than one answer
    Raises:
        ValueError: if model is unknown, or would see what it is asked to guess.
        NotImplementedError: if this version has no network for pairs, and the task has pairs.
    """
    layer = layers()[choose("model", model, tuple(layers()))]
    frame = {"d_model", "n_layers", "prenorm", "pool", "dropout"}
    known = {k: v for k, v in options.items() if k in frame | options_of(layer).keys()}
    if task.metric in ("bpc", "perplexity") and known.get("bidirectional"):
        raise ValueError("want bidirectional=False: the next symbol is what is asked for")
    if task.metric != "accuracy":
        known["pool"] = None
    known |= _reach(model, task.length, known)
    make = load("nn.pairs:PairModel") if task.pairs else SequenceModel
    return make(task.d_input, task.d_output, layer=layer, embedding=task.tokens, **known)


def _reach(model: str, length: int, given: dict[str, Any]) -> dict[str, Any]:
    """How far back the layers of a model must look, where they have to be told."""
    told = {
        "lstm": {"chrono": float(max(length, 3))},
        "tcn": {"levels": max(1, math.ceil(math.log2(length)))},
        "ckconv": {"l_max": length},
    }
    return {name: value for name, value in told.get(model, {}).items() if name not in given}
