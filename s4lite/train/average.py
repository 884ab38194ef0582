"""The mean of a model's past: a second model that follows the first.

Home: chapter 16, "Training" (chapters/16_training.ipynb).
"""

import copy

import torch
from torch import nn

from s4lite.train.objectives import widest

__all__ = ["Average"]


class Average(nn.Module):
    """A second model that follows the first: the mean of its past, then with fading weights.

    Args:
        model  nn.Module  is copied; the copy shares no storage with it
        decay  float      0 < decay < 1: the horizon is 1 / (1 - decay) steps
    Raises:
        ValueError: if decay is out of range.

    What is no parameter (the statistics of a batch norm) is as in the newest model.

    Source: Polyak and Juditsky 1992; our eq-training-average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"want 0 < ema < 1, got {decay}")
        self.model, self.decay = copy.deepcopy(model).requires_grad_(False), decay
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model as it is after a step."""
        self.count += 1
        share = (1 / self.count.to(widest(self.count.device))).clamp(min=1 - self.decay)
        for mine, new in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(new, share.to(mine.dtype))
        for mine, new in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(new)
