"""One model reads two documents, each on its own, and a small head compares the summaries.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4lite.nn.model import ModelState, RunOptions, SequenceModel, StepOptions

__all__ = ["Comparison", "PairModel", "check_paired"]


class Comparison(nn.Linear):
    """Compare the summaries of pairs: (2 batch, d_model), all a, then all b, to (batch, d_output).

    Args:
        d_model, d_output  int  numbers of a summary; outputs
        like               any  device, dtype

    It is the outer one of two layers; `inner` is the other. In between is GELU.

    Source: Gu et al. 2022 (S4), the published code's head for Retrieval; our eq-arena-pair.
    """

    def __init__(self, d_model: int, d_output: int, **like: Any) -> None:
        super().__init__(d_model, d_output, **like)
        self.inner = nn.Linear(4 * d_model, d_model, **like)

    def forward(self, x: Tensor) -> Tensor:
        """Summaries x (2 batch, d_model) to the answers (batch, d_output)."""
        a, b = x.chunk(2)
        return super().forward(F.gelu(self.inner(torch.cat([a, b, a - b, a * b], -1))))


def check_paired(u: Tensor) -> None:
    """Raise ValueError unless there are as many first documents in u as second ones."""
    if isinstance(u, Tensor) and u.ndim and u.shape[0] % 2:
        raise ValueError(f"want rows of pairs, all first, then all second ones, got {u.shape[0]}")


class PairModel(SequenceModel):
    """A SequenceModel that reads two documents apart from each other, and compares them.

    Args:
        d_input, d_output  int  features a moment (with embedding: tokens); outputs
        d_model, n_layers  int  channels, also of the head; blocks
        pool               str  "mean" or "last" over time: what is kept of a document
        options            any  as SequenceModel's: embedding, layer, dropout, prenorm, d_state, ...
    Raises:
        TypeError, ValueError: if an argument or an input is not what is wanted here

    u, lengths and states have 2 batch rows, all first documents and then all second ones, as
    `s4lite.data.task.pad` lays them; the output has batch rows. Documents meet in the head only.

    Source: Gu et al. 2022 (S4), the published code for Retrieval; our eq-arena-pair.
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 128,
        n_layers: int = 4,
        *,
        pool: str = "mean",
        **options: Any,
    ) -> None:
        if pool not in ("mean", "last"):
            raise ValueError(f'want pool "mean" or "last" for pairs, got {pool!r}')
        super().__init__(d_input, d_output, d_model, n_layers, pool=pool, **options)
        like = {name: options[name] for name in ("device", "dtype") if name in options}
        self.decoder.map = Comparison(d_model, d_output, **like)

    def forward(
        self, u: Tensor, state: ModelState | None = None, **run: Unpack[RunOptions]
    ) -> Tensor | tuple[Tensor, ModelState]:
        """u (2 batch, L) or (2 batch, L, d_input) to (batch, d_output) [, and the new state]."""
        check_paired(u)
        return super().forward(u, state, **run)

    def step(
        self, u_t: Tensor, state: ModelState, **run: Unpack[StepOptions]
    ) -> tuple[Tensor, ModelState]:
        """One more sample (2 batch, ...) of every document, to the output so far and the state."""
        check_paired(u_t)
        return super().step(u_t, state, **run)
