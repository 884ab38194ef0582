"""What is not kept for the way back, and made again there.

Home: chapter 14, "The fourth view: chunks" (chapters/14b_chunks.ipynb).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = []


def _recorded(
    made: Sequence[Tensor], grads: Sequence[Tensor], inputs: Sequence[Tensor], twice: bool
) -> tuple[Tensor | None, ...]:
    """Derivatives of what autograd has watched being made, by those inputs that want them."""
    pairs = [(y, g) for y, g in zip(made, grads, strict=True) if y.requires_grad and g is not None]
    out, grads = zip(*pairs, strict=True)
    del made, pairs  # what wants no derivative may go
    ask = [z for z in inputs if z.requires_grad]
    found = iter(torch.autograd.grad(out, ask, grads, create_graph=twice, allow_unused=True))
    return tuple(next(found) if z.requires_grad else None for z in inputs)


class _Again(torch.autograd.Function):
    """make(*inputs), a tuple of tensors, of which nothing is kept but the inputs."""

    @staticmethod
    def forward(ctx, make: Callable, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.make = make
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        with torch.enable_grad():  # to learn which results want a derivative at all
            made = make(*(z.detach().requires_grad_(z.requires_grad) for z in inputs))
        ctx.mark_non_differentiable(*(z for z in made if not z.requires_grad))
        return tuple(z.detach() if z.requires_grad else z for z in made)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, twice = ctx.saved_tensors, torch.is_grad_enabled()
        if not twice:  # a second derivative goes through to what made the inputs
            inputs = [z.detach().requires_grad_(z.requires_grad) for z in inputs]
        with torch.enable_grad():
            return None, *_recorded(ctx.make(*inputs), grads, inputs, twice)


def _made_again(
    tables: Callable, system: Sequence[Tensor], own: Sequence[int], axes: int, samples: int
) -> tuple[Tensor, ...]:
    """Matrices tables(*system); made again in backward, for a few systems at a time, if they
    serve many samples: then they cost little time, and kept they would cost much memory.

    own[i] axes of system[i] are its own, before them come `axes` that count systems, or fewer.
    """
    learns = torch.is_grad_enabled() and any(z.requires_grad for z in system)
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if not learns or plain or samples < 1 << 15:  # below that, much of the time goes into tables
        return tables(*system)
    places = [z.ndim - n - axes if axes else -1 for z, n in zip(system, own, strict=True)]
    many = max((z.shape[i] for z, i in zip(system, places, strict=True) if i >= 0), default=1)
    step, blocks = 16 if system[0].device.type == "cpu" else 128, []
    for start in range(0, many, step):
        some = (
            z.narrow(i, start, min(step, many - start)) if i >= 0 and z.shape[i] == many else z
            for z, i in zip(system, places, strict=True)
        )
        blocks.append(_Again.apply(tables, *some))
    if len(blocks) == 1:
        return blocks[0]
    return tuple(torch.cat(z, z[0].ndim - 2 - axes) for z in zip(*blocks, strict=True))
