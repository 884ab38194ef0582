"""Forecasting: what comes next in a series, in Informer's splits.

Home: chapter 20, "Forecasting" (chapters/20_forecasting.ipynb).
"""

import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4lite.data.draws import check_whole
from s4lite.data.series import SeriesFile
from s4lite.data.tables import clock
from s4lite.data.task import Batch, Splits

__all__ = ["INPUTS", "Forecasting", "Windows"]


class Windows(Dataset):
    """Stretches of a series: what was, zeros in the place of what will be; and what will be.

    Args:
        rows      (n, d + f)  floats: values, and behind them features known at all times
        width     int         d values a row, >= 1
        targets   range       rows that are asked for; contexts may reach back before them
        context, horizon  int  T samples that are shown, H that are asked for, >= 1
        level     bool        take the last known value off all of a window
        blank     (f,) | None  stands for the features in the horizon; None: they stand there
        mask      bool        the last feature is 1 in the horizon
        multiple  int         leave out windows at the end until their number is a multiple of it
    Raises:
        TypeError, ValueError: if the parts do not fit, or no window does.

    Source: our eq-forecasting-window, eq-forecasting-count, eq-forecasting-level.
    """

    def __init__(
        self,
        rows: Tensor,
        width: int,
        targets: range,
        context: int,
        horizon: int,
        *,
        level: bool = False,
        blank: Tensor | None = None,
        mask: bool = False,
        multiple: int = 1,
    ) -> None:
        check_whole(context=context, horizon=horizon, multiple=multiple)
        _fits(rows, width, targets, mask, blank)
        self.rows, self.width, self.mask = rows, width, mask
        self.context, self.horizon, self.level, self.blank = context, horizon, level, blank
        self.first = max(0, targets.start - context)
        found = max(0, targets.stop - self.first - context - horizon + 1)
        self.count = found - found % multiple
        if not self.count:
            wanted = f"{multiple} windows of {context} + {horizon} samples that end in {targets}"
            raise ValueError(f"want at least {wanted}, got {found}")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """u (T + H, d + f) and y (H, d)."""
        batch = self.__getitems__([range(self.count)[operator.index(i)]])
        return batch.u[0], batch.y[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once, which is what a DataLoader asks for."""
        return _cut(self, torch.as_tensor(indices, device=self.rows.device))


def _fits(rows: Tensor, width: int, targets: range, mask: bool, blank: Tensor | None) -> None:
    """Raise unless rows have as many values, features for the rest, and what is asked for."""
    check_whole(width=width)
    if not isinstance(rows, Tensor) or not rows.is_floating_point():
        raise TypeError(
            f"want rows as a tensor of floats, got {getattr(rows, 'dtype', rows)!r:.60}"
        )
    if rows.ndim != 2 or rows.shape[1] < width + mask:
        raise ValueError(f"want rows (n, {width + mask} or more), got {tuple(rows.shape)}")
    if blank is not None and blank.shape != (rows.shape[1] - width,):
        got = f"{tuple(blank.shape)} for rows {tuple(rows.shape)}"
        raise ValueError(f"want blank as long as the features, got {got}")
    if not isinstance(targets, range):
        raise TypeError(f"want targets as a range, got {type(targets).__name__}")
    if targets.step != 1 or not 0 <= targets.start <= targets.stop <= len(rows):
        raise ValueError(f"want targets in a row among {len(rows)} rows, got {targets}")


def _cut(windows: Windows, chosen: Tensor) -> Batch:
    """Cut windows (b,) out of the series."""
    if not len(chosen) or not 0 <= chosen.min() <= chosen.max() < windows.count:
        raise IndexError(f"want windows from 0 to {windows.count - 1}, got {chosen.tolist()[:9]}")
    T, d = windows.context, windows.width
    places = torch.arange(T + windows.horizon, device=chosen.device)
    u = windows.rows[windows.first + chosen[:, None] + places]
    ahead = u[:, T:]
    if windows.level:
        u[..., :d] -= u[:, T - 1 : T, :d].clone()
    y = ahead[..., :d].clone()
    ahead[..., :d] = 0
    if windows.blank is not None:
        ahead[..., d:] = windows.blank
    if windows.mask:
        ahead[..., -1] = 1
    return Batch(u, y, None)


INPUTS = {  # kind of clock, whether it runs on in the horizon, and whether there is a mask
    "full": ("circles", True, True),
    "seasons": ("seasons", True, True),
    "informer": ("lines", True, False),
    "s4": ("symbols", False, False),
    "s4-lines": ("lines", False, False),
    "values": (None, False, False),
}


def _features(task: "Forecasting", times: np.ndarray) -> Tensor:
    """What stands beside the values: times (n,) to (n, f)."""
    kind, _, mask = INPUTS[task.inputs]
    columns = [np.zeros((len(times), int(mask)), np.float32)]
    if kind:
        columns.insert(0, clock(times, kind, task.series.day > 24))
    return torch.from_numpy(np.concatenate(columns, 1))


def _part(task: "Forecasting", rows: Tensor, part: range, multiple: int) -> Windows:
    """The windows of one of the three parts."""
    kind, runs_on, mask = INPUTS[task.inputs]
    blank = None if runs_on else rows.new_zeros(rows.shape[1] - task.d_output)
    if kind == "symbols" and not runs_on:  # number 0 of each
        blank[[0, 13, 45, 52] + [76] * (task.series.day > 24)] = 1
    options = {"level": task.level, "blank": blank, "mask": mask, "multiple": multiple}
    return Windows(rows, task.d_output, part, task.context, task.horizon, **options)


class Forecasting(SeriesFile):
    """A series and a moment: what comes in the next `horizon` samples, from the last `context`?

    Args:
        data_dir  path | None  as for `SeriesTask`, and so series, univariate, scale, download
        horizon   int          samples that are asked for, >= 1; see published(series).horizons
        context   int | None   samples that are shown, >= 1; None: as in Informer's scripts
        inputs    str          what stands beside the values, one of `INPUTS`
        level     bool         take the last known value off all of a window; published: False
        multiple  int          validation and test are cut to a multiple of it, as by published
                               loops that drop their last batch: 50 (S4), 32 (Informer)
    Raises:
        TypeError, ValueError: if an option is none of these.

    Source: Zhou et al. 2021 (Informer), sec. 4; our eq-forecasting-window, eq-forecasting-borders.
    """

    metric = "mse"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        series: str = "etth1",
        horizon: int = 24,
        context: int | None = 384,
        inputs: str = "full",
        level: bool = True,
        multiple: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, series=series, **options)
        check_whole(horizon=horizon, multiple=multiple)
        context = self.series.context(horizon) if context is None else context
        check_whole(context=context)
        self.horizon, self.context, self.level = horizon, context, level
        self.multiple = multiple
        if inputs not in INPUTS:
            raise ValueError(f"want one of {', '.join(INPUTS)}, got {inputs!r}")
        self.length, self.inputs = context + horizon, inputs
        self.name = f"{series}-{horizon}" + "-all" * (not self.univariate)
        self.d_output = 1 if self.univariate else self.series.columns
        self.d_input = self.d_output + _features(self, np.zeros(1, "M8[m]")).shape[1]

    def splits(self) -> Splits:
        """The three data sets, in the order of time."""
        table, (train, *held) = self.read()
        values = torch.from_numpy(table.values.astype(np.float32))
        rows = torch.cat([values, _features(self, table.times)], 1)
        return Splits(
            _part(self, rows, train, 1), *(_part(self, rows, part, self.multiple) for part in held)
        )
