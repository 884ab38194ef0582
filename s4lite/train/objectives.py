"""What is made small in training, and what is reported: as sums, so that any batches add up.

Home: chapter 16, "Training" (chapters/16_training.ipynb).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["METRICS", "Objective", "objective", "widest"]


class Objective:
    """A loss and its scores, as sums over whatever is asked.

    Args:
        metric  str  the score that models are chosen by, one of `METRICS`
    Raises:
        ValueError: if metric is unknown.

    mode  str  "max" or "min": whether more of the metric is better
    """

    def __init__(self, metric: str) -> None:
        if metric not in METRICS:
            raise ValueError(f"want a metric among {', '.join(METRICS)}, got {metric!r}")
        self.metric, self.mode = metric, "max" if metric == "accuracy" else "min"
        self._terms = _number_terms if metric in ("mse", "mae") else _symbol_terms

    def sums(self, output: Tensor, y: Tensor) -> Tensor:
        """Add up what a batch contributes: count, main sum, second sum.

        Args:
            output  (..., L, d)   logits over d symbols (or (..., d), one answer), or numbers
            y       (..., T[, d])  symbols, -100 where none is asked; or numbers. T <= L: the last T
        Returns:
            sums  (3,)  differentiable; those of other batches and processes are simply added
        Raises:
            ValueError: if the shapes do not fit.
        """
        return torch.stack(self._terms(output, y))

    def loss(self, sums: Tensor) -> Tensor:
        """What is made small: the mean of a batch, ()."""
        return sums[2 if self.metric == "mae" else 1] / sums[0].clamp(min=1)

    def read(self, sums: Tensor) -> dict[str, float]:
        """Scores by name, among them "loss" and the metric, of sums over any number of batches."""
        count, *both = sums.tolist()
        first, second = (s / count if count else math.nan for s in both)
        if self._terms is _number_terms:
            loss = second if self.metric == "mae" else first
            return {"loss": loss, "mse": first, "mae": second}
        perplexity = math.exp(min(first, 700.0)) if first == first else math.nan
        values = {"accuracy": second, "bpc": first / math.log(2), "perplexity": perplexity}
        return {"loss": first, self.metric: values[self.metric]}


METRICS = ("accuracy", "bpc", "perplexity", "mse", "mae")


def objective(metric: str) -> Objective:
    """Look up what a task's metric means: the loss that goes with it, and how it is summed.

    Args:
        metric  str  "accuracy", "bpc", "perplexity" (cross entropy), "mse" or "mae"
    Returns:
        Objective
    Raises:
        ValueError: if metric is none of these.

    Source: our eq-training-sums.
    """
    return Objective(metric)


def _symbol_terms(logits: Tensor, y: Tensor) -> list[Tensor]:
    """Count, summed cross entropy in nats, hits."""
    if logits.ndim == y.ndim + 1 and y.ndim > 1 and logits.shape[-2] >= y.shape[-1]:
        logits = logits[..., logits.shape[-2] - y.shape[-1] :, :]
    if logits.shape[:-1] != y.shape or y.is_floating_point():
        got = f"{y.dtype} {tuple(y.shape)} and {tuple(logits.shape)}"
        raise ValueError(f"want symbols y (...) and logits (..., symbols), got {got}")
    rows, y = _whole(logits).flatten(0, -2), y.flatten().long()
    total = F.cross_entropy(rows, y, reduction="sum")  # nothing where y is -100
    return [(y != -100).sum().to(total), total, (rows.argmax(-1) == y).sum().to(total)]


def _number_terms(output: Tensor, y: Tensor) -> list[Tensor]:
    """Count, summed squares and summed sizes of the errors."""
    if output.ndim == y.ndim == 3 and output.shape[1] > y.shape[1]:
        output = output[:, output.shape[1] - y.shape[1] :]
    if output.shape != y.shape:
        got = f"{tuple(output.shape)} and {tuple(y.shape)}"
        raise ValueError(f"want as many numbers as are asked, got {got}")
    error = _whole(output) - y
    return [error.new_full((), error.numel()), error.square().sum(), error.abs().sum()]


def _whole(x: Tensor) -> Tensor:
    """In 32 bits or more: sums of 16-bit numbers stop growing early."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def widest(device: torch.device) -> torch.dtype:
    """The floats in which sums of many batches, and counts of many steps, are kept on a device."""
    return torch.float32 if device.type == "mps" else torch.float64
