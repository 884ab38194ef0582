"""A run as data, and what comes of it.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from s4lite.data.draws import check_whole
from s4lite.data.task import Task
from s4lite.train.ledger import as_json

__all__ = ["Job", "Result", "facts_of", "same_job"]


def _check_job(job: Any) -> None:
    """Raise TypeError or ValueError unless a job's numbers are as `Job` says."""
    check_whole(epochs=job.epochs, batch_size=job.batch_size, accumulate=job.accumulate)
    check_whole(shares=job.shares)
    check_whole(0, workers=job.workers, seed=job.seed)
    if job.patience is not None:
        check_whole(patience=job.patience)
    if not re.fullmatch(r"[\w.+-]+", job.name) or len(job.name.encode()) > 200:
        want = "a name of letters, digits, '-', '_', '+', '.', of 200 bytes at most"
        raise ValueError(f"want {want}, got {job.name!r}")
    if "total" in job.learner:
        raise ValueError("want no total in learner: it follows from epochs and data")
    if job.max_minutes is not None and not job.max_minutes > 0:
        raise ValueError(f"want max_minutes > 0 or None, got {job.max_minutes}")


@dataclass(frozen=True)
class Job:
    """A run as data: everything that its result depends on.

    Args:
        name         str           of the run, and of its ledger file
        task         Task          what is learned
        build        callable      makes the model; called with torch's random state at `seed`
        learner      dict          fields of `Settings` without total
        epochs       int           passes over the training split, or shares of passes
        batch_size   int           sequences a batch, of all processes together
        accumulate   int           batches a step
        workers      int           processes that load ahead
        seed         int           of weights, order and noise
        precision    str           Lightning's, "32-true", "bf16-mixed", ...
        patience     int | None    epochs without a better score, then it is over
        buckets      bool          batches of like lengths
        shares       int           epochs that make up one pass, as for `train.data.Order`
        max_minutes  float | None  of training, then it is over
        record       dict          for the ledger: recipe, size, model, overrides, published, notes,
            command; and resume, the command that takes it up
    Raises:
        TypeError, ValueError: if a number is not as said.
    """

    name: str
    task: Task
    build: Callable[[], nn.Module]
    learner: dict[str, Any]
    epochs: int
    batch_size: int
    accumulate: int = 1
    workers: int = 0
    seed: int = 0
    precision: str = "32-true"
    patience: int | None = None
    buckets: bool = False
    shares: int = 1
    max_minutes: float | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_job(self)


@dataclass(frozen=True)
class Result:
    """What has come of a run.

    Args:
        folder    Path   where it is
        finished  bool   False: it can be taken up
        scores    dict   of the test with the chosen weights; empty if not finished
        best      dict   the chosen row of the curve: epoch, step, seconds, train, val; or empty
        epochs    int    done
        seconds   float  of training and test, in all pieces
        message   str    for people
    """

    folder: Path
    finished: bool
    scores: dict[str, float]
    best: dict[str, Any]
    epochs: int
    seconds: float
    message: str


def facts_of(job: Job) -> dict[str, Any]:
    """Everything that the result of a job depends on, as states and the ledger hold it.

    Args:
        job  Job
    Returns:
        facts  dict  settings, task, recipe, size, model, overrides
    """
    names = ("epochs", "batch_size", "accumulate", "seed", "precision", "patience", "buckets")
    names += ("shares",) * (job.shares > 1)  # most runs have whole passes, and say nothing of it
    settings = {name: getattr(job, name) for name in (*names, "max_minutes", "learner")}
    names = ("name", "metric", "d_input", "d_output", "length", "tokens")
    task = {name: getattr(job.task, name) for name in names}
    names = ("recipe", "size", "model", "overrides")
    labels = {name: job.record[name] for name in names if name in job.record}
    return as_json({"settings": settings, "task": task} | labels)


def same_job(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError unless two jobs are the same.

    Args:
        old, new  dict  `facts_of` the run in the folder, and of the job that is to take it up;
            and sequences, how many a split has, where both know it
        folder    Path
    """
    flat = [facts | facts.get("settings", {}) | {"settings": None} for facts in (old, new)]
    names = flat[0].keys() | flat[1].keys()
    if not all("sequences" in facts for facts in (old, new)):
        names -= {"sequences"}
    other = [name for name in sorted(names) if flat[0].get(name) != flat[1].get(name)]
    if other:
        told = "; ".join(f"{n} {flat[0].get(n)} there, {flat[1].get(n)} here" for n in other)
        raise ValueError(f"want the job of the run in {folder}, got another: {told}")
