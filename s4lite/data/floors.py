"""What forecasts score that need no training, or next to none.

Home: chapter 20, "Forecasting" (chapters/20_forecasting.ipynb).
"""

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from s4lite.data.draws import check_whole
from s4lite.data.forecasting import Forecasting, Windows
from s4lite.data.task import Splits

__all__ = ["fit_linear", "floors", "repeat"]


_RIDGE = 1e-3


def _stretches(windows: Windows, size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
    """All windows in turn, a column a row: contexts (b, T) and what follows (b, H), float64."""
    windows, size = copy.copy(windows), max(1, size // windows.width)
    windows.level = False
    for start in range(0, len(windows), size):
        u, y, _ = windows.__getitems__(range(start, min(start + size, len(windows))))
        x = u[:, : windows.context, : windows.width]
        yield tuple(part.mT.flatten(0, 1).double() for part in (x, y))


def repeat(x: Tensor, period: int, horizon: int) -> Tensor:
    """Repeat the last `period` samples as often as it takes: x (..., T) to (..., horizon).

    Args:
        x        (..., T)
        period   int  1 <= period <= T
        horizon  int  >= 1
    Returns:
        forecast  (..., horizon)
    Raises:
        TypeError, ValueError: if a number is not as said.

    Error: our eq-forecasting-day.
    """
    check_whole(horizon=horizon), check_whole(1, x.shape[-1], period=period)
    ahead = torch.arange(horizon, device=x.device) % period
    return x[..., x.shape[-1] - period + ahead]


def fit_linear(windows: Windows, ridge: float = _RIDGE) -> Callable[[Tensor], Tensor]:
    """Fit a linear map from context to horizon, one for all columns, less the last value.

    Args:
        windows  Windows  to fit it to
        ridge    float    > 0, is added to the mean square of each weight's input
    Returns:
        forecast  callable  x (b, T) to (b, horizon), float64
    Raises:
        ValueError: if ridge is not positive and finite.

    Source: Zeng et al. 2023, NLinear; our eq-forecasting-linear.
    """
    if not 0 < ridge < math.inf:
        raise ValueError(f"want ridge > 0 and finite, got {ridge}")
    XX, XY, n = 0.0, 0.0, 0
    for x, y in _stretches(windows):
        x, y = x - x[:, -1:], y - x[:, -1:]
        XX, XY, n = XX + x.mT @ x, XY + x.mT @ y, n + len(x)
    W = torch.linalg.solve(XX + ridge * n * torch.eye(len(XX)).to(XX), XY)

    def forecast(x: Tensor) -> Tensor:
        """Weigh the context less its last value, and add that again."""
        last = x[:, -1:].to(W)
        return last + (x.to(W) - last) @ W

    return forecast


def floors(task: Forecasting, split: str = "test") -> dict[str, dict[str, float]]:
    """What a model must beat: scores of forecasts that know nothing, and of a linear map.

    Args:
        task   Forecasting  whose context is a day or more
        split  str          "train", "val" or "test"
    Returns:
        dict  "mean", "last", "day", "linear" -> {"mse", "mae"}, over all windows, leads and columns
    Raises:
        ValueError: if split is unknown, or the context too short.
    """
    if split not in Splits._fields:
        raise ValueError(f"want one of {', '.join(Splits._fields)}, got {split!r}")
    parts, day, H = task.splits(), task.series.day, task.horizon
    if task.context < day:
        raise ValueError(f"want a context of a day, {day} samples, or more, got {task.context}")
    forecasts = {
        "mean": lambda x: x.new_zeros(len(x), H),
        "last": lambda x: repeat(x, 1, H),
        "day": lambda x: repeat(x, day, H),
        "linear": fit_linear(parts.train),
    }
    sums = {name: torch.zeros(3, dtype=torch.float64, device="cpu") for name in forecasts}
    for x, y in _stretches(getattr(parts, split)):
        for name, forecast in forecasts.items():
            error = forecast(x) - y
            sums[name] += torch.stack(
                [y.new_tensor(y.numel()), error.square().sum(), error.abs().sum()]
            )
    return {
        name: {"mse": (s / n).item(), "mae": (a / n).item()} for name, (n, s, a) in sums.items()
    }
