"""The curve of a run, and what follows from it.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import math
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from s4lite.nn.folders import BadFolder
from s4lite.train.checkpoints import read_weights, state_path

__all__ = ["best_weights", "chosen", "row_of"]


def chosen(curve: list[dict[str, Any]], metric: str, mode: str) -> dict[str, Any] | None:
    """The row of a curve with the best score on validation; of equal ones the first.

    Args:
        curve   list of dict  epoch, step, val, ...
        metric  str           of which the best is wanted
        mode    str           "max" or "min"
    Returns:
        row  dict | None  None if the curve is empty

    Source: our eq-running-chosen.
    """
    sign = 1 if mode == "min" else -1

    def cost(row: dict[str, Any]) -> float:
        value = row["val"].get(metric)
        return math.inf if value is None or math.isnan(value) else sign * value

    return min(curve, key=cost, default=None)


def best_weights(
    folder: Path, curve: list[dict[str, Any]], metric: str, mode: str
) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """The best row of a curve whose state is sound, and that state's weights.

    Args:
        folder        Path  the run's
        curve         list  of rows
        metric, mode  str   as for `chosen`
    Returns:
        row      dict  the best; if its state is damaged, the best of the others
        weights  dict  name -> tensor
        said     str   why the best was refused; "" if it was not
    Raises:
        FileNotFoundError, BadFolder: if no row's state is sound; what was wrong with the best.
    """
    left, refused = list(curve), []
    while row := chosen(left, metric, mode):
        try:
            weights = read_weights(state_path(folder, row["step"]))
            return row, weights, str(refused[0]) if refused else ""
        except (BadFolder, FileNotFoundError) as error:
            refused.append(error)
            left = [each for each in left if each is not row]
    raise refused[0] if refused else ValueError("want a curve with rows, got none")


def row_of(trainer: Trainer, seconds: float) -> dict[str, Any]:
    """What an epoch has come to: a row of the curve.

    Args:
        trainer  Trainer  at the end of an epoch
        seconds  float    of training so far
    Returns:
        row  dict  epoch, step, seconds, train, val
    """
    row = {
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "seconds": round(seconds, 2),
    }
    for stage in ("train", "val"):
        scores = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(stage)}
        row[stage] = {name.split("/", 1)[1]: value for name, value in scores.items()}
    return row
