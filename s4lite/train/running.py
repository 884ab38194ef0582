"""A run, from its first step to its line in the ledger, with any number of interruptions.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import errno
import os
from pathlib import Path

from lightning import Trainer
from torch import Tensor

from s4lite.data.draws import check_whole
from s4lite.nn.folders import Folder, read_tensors
from s4lite.train.checkpoints import newest, read_weights, state_path, states
from s4lite.train.data import TaskData
from s4lite.train.job import Job, Result
from s4lite.train.keeping import Limits, Stopped, chosen, listening
from s4lite.train.ledger import read
from s4lite.train.lock import held
from s4lite.train.module import Watched
from s4lite.train.objectives import objective
from s4lite.train.pieces import (
    Bar,
    Running,
    finish_run,
    finished_before,
    quiet,
    take_up,
    train_piece,
)

__all__ = ["evaluate_run", "run"]


def run(
    job: Job,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    minutes: float | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    progress: bool = True,
    checkpoint_minutes: float = 5.0,
    shard_mib: float | None = None,
) -> Result:
    """Train, choose on validation, test once, write it down; or go on with that.

    Args:
        job                 Job
        folder              path          of this run alone
        resume              bool          go on, if there is something to go on with
        minutes             float | None  stop after so many, so that it can be taken up
        accelerator         str           Lightning's: "auto", "cpu", "gpu", ...
        devices, nodes      int           processes a machine; machines
        progress            bool          bars on the error stream
        checkpoint_minutes  float         a state at least so often, besides those of the epochs
        shard_mib           float | None  largest file of a state, in MiB
    Returns:
        Result
    Raises:
        KeyboardInterrupt: by Ctrl-C or SIGTERM, when its state is kept; it says how to go on.
        Busy, FileExistsError: if another run is at work there, or was, and resume is False.
        ValueError: if what is there is of another job.
        BadFolder: if states are there, and none is sound.
        OSError: if a state cannot be written; the one before stands.
    """
    folder = Path(folder).expanduser()
    check_whole(devices=devices, nodes=nodes)
    if job.batch_size % (devices * nodes):
        raise ValueError(
            f"want batch_size divisible by {devices * nodes} processes, got {job.batch_size}"
        )
    for name, value in (("minutes", minutes), ("checkpoint_minutes", checkpoint_minutes)):
        if value is not None and not value >= 0:
            raise ValueError(f"want {name} >= 0, got {value}")
    scaled = [None if m is None else 60 * m for m in (minutes, job.max_minutes)]
    limits = Limits(60 * checkpoint_minutes, *scaled, job.epochs, job.patience, job.accumulate)
    where = {"accelerator": accelerator, "devices": devices, "num_nodes": nodes}
    with quiet():
        running = Running(job, folder, limits, shard_mib, enable_progress_bar=progress, **where)
        with held(folder) if running.trainer.is_global_zero else contextlib.nullcontext("") as gone:
            if gone:
                running.say(f"taking over from {gone}, which is gone")
            return _attempt(running, resume)


def _attempt(running: Running, resume: bool) -> Result:
    """What `run` does once the folder is its own.

    Args:
        running  Running
        resume   bool
    Returns:
        Result
    """
    folder, done = running.folder, running.folder / f"{running.job.name}.json"
    there = [done, *states(folder)]
    if not resume and running.trainer.is_global_zero and (done.exists() or there[1:]):
        got = done.name if done.exists() else f"a run that has come to {there[1].name}"
        want = f"want an empty folder, or resume=True (--resume), got {got}"
        raise FileExistsError(errno.EEXIST, want, str(folder))
    path = take_up(running)
    if done.exists():
        return finished_before(running, read(done))
    try:
        with listening(running.keeper):
            running.prepare()
            train_piece(running, path)
            return finish_run(running)
    except Stopped as stop:
        result, asked = running.stopped(str(stop)), stop.asked
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning makes an exit of Ctrl-C
        if not any(isinstance(each, KeyboardInterrupt) for each in (error, error.__context__)):
            raise
        result, asked = running.stopped("stopped at once, as asked"), True
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            running.say(running.stopped("stopped, as the disk is full").message)
        raise
    running.say(result.message)
    if asked:
        raise KeyboardInterrupt(result.message)
    return result


def _weights_in(path: str | os.PathLike[str], metric: str) -> tuple[dict[str, Tensor], bool]:
    """The weights that a path stands for.

    Args:
        path    path  a run's folder (its best state), a state, or a saved model
        metric  str   by which the best is chosen
    Returns:
        weights  dict  name -> tensor
        bare     bool  of a model alone, not of a learner
    Raises:
        FileNotFoundError, BadFolder: if there are none, or they are not sound.
    """
    path = Path(path).expanduser()
    if (path / "config.json").exists():
        return read_tensors(Folder(path, "s4lite-model", "config.json"), "model"), True
    if (path / "states").is_dir():
        state, _ = newest(path)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, "want a run with a state, got none", str(path))
        curve = state["callbacks"]["Keeper"]["curve"]
        best = chosen(curve, metric, objective(metric).mode)
        path = Path(state["path"]) if best is None else state_path(path, best["step"])
    return read_weights(path), False


def evaluate_run(
    job: Job,
    checkpoint: str | os.PathLike[str],
    *,
    split: str = "test",
    rate: float = 1.0,
    accelerator: str = "auto",
    progress: bool = False,
) -> dict[str, float]:
    """Score the weights of a run on a split of a job's task.

    Args:
        job          Job    its task may be another of the same form, as at another rate
        checkpoint   path   a run's folder (its best state), one of its states, or a saved model
        split        str    "test" or "val"
        rate         float  handed to the model: 2.0 if every second sample was kept
        accelerator  str    as for `run`
        progress     bool   bars on the error stream
    Returns:
        scores  dict  loss, the task's metric, ...
    Raises:
        FileNotFoundError, BadFolder: if there is no such state, or it is not sound.
        ValueError: if split is neither, or the weights are not those of the job's model.
    """
    if split not in ("test", "val"):
        raise ValueError(f'want split "test" or "val", got {split!r}')
    weights, bare = _weights_in(checkpoint, job.task.metric)
    scored = Watched(job.build(), job.task.metric, None if bare else job.learner.get("ema"))
    try:
        (scored.model if bare else scored).load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"want weights of the job's model, got {checkpoint}: {error}") from error
    scored.rate = rate
    job.task.prepare()
    data = TaskData(job.task, job.batch_size, workers=job.workers, buckets=job.buckets)
    with quiet():
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": progress}
        bars = [Bar()] if progress else []
        trainer = Trainer(
            accelerator=accelerator, devices=1, precision=job.precision, callbacks=bars, **options
        )
        ask = trainer.test if split == "test" else trainer.validate
        found = ask(scored, data, verbose=False)[0]
    return {name.split("/", 1)[1]: value for name, value in found.items()}
