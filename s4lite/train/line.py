"""A run that is over, and its line in the ledger.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import lightning
from lightning import Trainer
from torch import nn

from s4lite.nn.folders import versions
from s4lite.train.job import Job, Result
from s4lite.train.keeping import Keeper
from s4lite.train.ledger import Run, as_json, commit, hardware

__all__ = ["line_of", "place_of", "remarks", "result_of"]


def place_of(trainer: Trainer, processes: int) -> dict[str, Any]:
    """On what a piece of a run is made.

    Args:
        trainer    Trainer
        processes  int      that work together
    Returns:
        place  dict  commit, hardware, versions
    """
    known = versions() | {"lightning": lightning.__version__}
    device = trainer.strategy.root_device
    return as_json({"commit": commit(), "hardware": hardware(processes, device), "versions": known})


def remarks(job: Job, keeper: Keeper, row: dict[str, Any]) -> list[str]:
    """What must be said of a run besides its numbers, as far as the run can know.

    Args:
        job     Job
        keeper  Keeper  of the run that is over
        row     dict    of the curve, whose weights were tested
    Returns:
        notes  list of str
    """
    notes, task, curve, limits = [], job.task, keeper.curve, keeper.limits
    said = " ".join(job.record.get("notes", ())).lower()
    if getattr(task, "whole", None) is not None and "part of the sequences" not in said:
        notes.append(f"a part of the sequences: {task!r}")
    if "stand-in" in task.name and "stand-in" not in said:
        notes.append(f"a stand-in: {task!r}")
    late = limits.whole is not None and curve[-1]["seconds"] >= limits.whole
    if late or len(curve) < limits.epochs:
        why = f"its {(limits.whole or 0) / 60:g} minutes were up" * late
        why = why or "no epoch was better for a while"
        notes.append(f"over in epoch {len(curve)} of {limits.epochs}: {why}")
    if row is not (best := keeper.best()):
        which = f"epoch {best['epoch'] + 1}, the best, {row['epoch'] + 1} was tested"
        notes.append(f"the weights kept of it were damaged: in place of {which}")
    if len(keeper.past) > 1:
        notes.append(f"made in pieces on {len(keeper.past)} states of code or machines, see pieces")
    return notes


def line_of(job: Job, keeper: Keeper, row: dict[str, Any], model: nn.Module) -> Run:
    """A run that is over as the ledger holds it, but for its scores.

    Args:
        job     Job
        keeper  Keeper     of the run
        row     dict       of the curve, whose weights are tested
        model   nn.Module  that was trained
    Returns:
        Run
    """
    record, facts, past, (wall, cpu) = job.record, keeper.facts, keeper.past, keeper.spent()
    named, words = record.get("model", type(model).__name__), sys.argv[1:]
    return Run(
        name=job.name,
        command=record.get("command") or shlex.join(["python", Path(sys.argv[0]).name, *words]),
        seeds=[job.seed],
        **past[-1],
        wall_seconds=round(wall, 2),
        cpu_seconds=round(cpu, 2),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        **{name: record[name] for name in ("recipe", "size") if name in record},
        task=facts["task"] | {"shown": repr(job.task), "sequences": facts["sequences"]},
        model=named if isinstance(named, dict) else {"name": named},
        settings=facts["settings"],
        overrides=record.get("overrides", {}),
        curve=keeper.curve,
        chosen={k: row[k] for k in ("epoch", "step", "val")},
        published=record.get("published") or {},
        notes=[*record.get("notes", ()), *remarks(job, keeper, row)],
        more={"pieces": past} if len(past) > 1 else {},
    )


def result_of(line: Run, metric: str, folder: Path, said: str = "") -> Result:
    """What has come of a run that is finished, from its line in the ledger.

    Args:
        line    Run
        metric  str   that was chosen by
        folder  Path  the run's
        said    str   put before the score
    Returns:
        Result
    """
    best = next(row for row in line.curve if row["step"] == line.chosen["step"])
    value, count = line.scores.get(metric), len(line.curve)
    text = "no number" if value is None else f"{value:.4g}"
    message = f"{line.name}: {said}{metric} {text} in the test, with the weights of epoch "
    message += f"{best['epoch'] + 1} of {count}"
    return Result(folder, True, line.scores, best, count, line.wall_seconds, message)
