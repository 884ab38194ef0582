"""What the tests of several layers share: signals, a comparison, and a walk step by step."""

import torch
from torch import Tensor, nn


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, the same in every dtype up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    """Equal up to tol times the largest entry."""
    assert got.shape == want.shape
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


@torch.no_grad()
def walk(layer: nn.Module, u: Tensor, state: Tensor | None = None, **options):
    """The outputs of `step` for all of u (batch, L, d), and the last state."""
    state = layer.initial_state(len(u)) if state is None else state
    y = []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state, **options)
        y.append(y_t)
    return torch.stack(y, 1), state
