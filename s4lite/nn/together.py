"""The parameter work of many layers in one call.

Home: chapter 14, "The whole layer" (chapters/14d_layer.ipynb).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s4lite.nn.kept import is_itself
from s4lite.nn.kernel import PairStates
from s4lite.nn.loading import StrictLoading
from s4lite.nn.routes import choose_route
from s4lite.ops.triton.operators import chunk_operators

__all__ = ["Together", "merged", "prepare"]


def merged(kernels: Sequence[PairStates]) -> PairStates:
    """Make one bank of n banks of a kind: channel h of bank i becomes channel h n + i.

    Args:
        kernels  sequence  n kernels whose parameters have the same names and shapes
    Returns:
        kernel  of the same class, with d_model n times as many channels; gradients flow through

    Source: our eq-whole-merge.
    """
    one, n = copy.copy(kernels[0]), len(kernels)
    one._parameters, one.d_model = {}, n * kernels[0].d_model
    for name in kernels[0]._parameters:
        at = 2 if name == "C" else 1  # behind the axis of channels, or of sets
        setattr(one, name, torch.stack([getattr(k, name) for k in kernels], at).flatten(at - 1, at))
    return one


def _kind(layer: nn.Module, u: Tensor, stateful: bool) -> tuple | None:
    """What layers must have in common to share a call; None if this one prepares nothing."""
    kernel = layer.kernel if getattr(layer, "takes_ready", False) else None
    if kernel is None or not is_itself(kernel) or kernel._modules:
        return None
    hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    if any(getattr(kernel, name) for name in hooks):
        return None
    if (route := choose_route(layer, u.mT, None, stateful)) == "chunks":
        return None
    fixed = type(kernel), kernel.clock, getattr(kernel, "disc", "")
    return (
        route,
        *fixed,
        *((name, p.shape, p.dtype, p.device) for name, p in kernel._parameters.items()),
    )


def _systems(one: PairStates, n: int, rate: float) -> list[tuple]:
    """Systems (H, n), C (rows, H, n), and chunk operators of n merged banks, in one launch."""
    nu, Bb, C = (x.unflatten(-2, (-1, n)) for x in one.system(rate))
    nu, Bb, C = (x.movedim(-2, 0) for x in (nu, Bb, C))  # a bank is an index of the first axis
    operators = chunk_operators(nu[:, None], Bb[:, None], C)
    return [(nu[i], Bb[i], C[i], operators.layer(i)) for i in range(n)]


def prepare(
    layers: Sequence[nn.Module], u: Tensor, rate: float = 1.0, *, stateful: bool = False
) -> list[dict[str, Any]]:
    """Do the parameter work of all layers that are of a kind in one call for each kind.

    Args:
        layers    sequence       any modules
        u         (batch, L, d)  a signal as they will get it: its length, dtype and device count
        rate      float          multiplies every clock
        stateful  bool           will a state go in, or be wanted?
    Returns:
        options  list of dicts  {"ready": ...} for layers that can use it, {} for the others

    Source: our eq-whole-merge.
    """
    kinds: dict[tuple, list[int]] = {}
    options: list[dict[str, Any]] = [{} for _ in layers]
    for i, layer in enumerate(layers):
        if (kind := _kind(layer, u, stateful)) is not None:
            kinds.setdefault(kind, []).append(i)
    for (route, *_), members in kinds.items():
        one, n = merged([layers[i].kernel for i in members]), len(members)
        if route == "triton":
            found = _systems(one, n, rate)
        else:
            found = one(u.shape[1], rate).unflatten(-2, (-1, n)).unbind(-2)
        for i, ready in zip(members, found, strict=True):
            options[i] = {"ready": ready}
    return options


class Together(StrictLoading):
    """A stack of blocks that may do the parameter work of their layers together.

    together  bool or None  True or False; None: on an accelerator, where every launch counts

    Source: our eq-whole-merge.
    """

    together: bool | None = None

    def made(
        self, blocks: Sequence[nn.Module], u: Tensor, state: object, run: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """What each block's layer is handed beside its input u (batch, L, d_model), if anything."""
        usable = isinstance(u, Tensor) and u.ndim == 3 and 0 not in u.shape
        if not usable or run.get("dt") is not None or torch.compiler.is_compiling():
            return [{} for _ in blocks]
        if not (u.is_cuda if self.together is None else self.together):
            return [{} for _ in blocks]
        stateful = state is not None or bool(run.get("return_state"))
        layers = [block.layer for block in blocks]
        return prepare(layers, u, run.get("rate", 1.0), stateful=stateful)
