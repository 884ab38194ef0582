"""A run, from its first step to its line in the ledger, with any number of interruptions.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from s4lite.nn.folders import BadFolder, Folder
from s4lite.nn.pretrained import Pretrained
from s4lite.nn.shards import read_tensors
from s4lite.train.checkpoints import newest, read_weights, state_path, states
from s4lite.train.curve import best_weights, chosen
from s4lite.train.data import TaskData
from s4lite.train.job import Job, Result, same_job
from s4lite.train.keeping import Stopped, listening
from s4lite.train.ledger import Run, read, write
from s4lite.train.line import line_of, result_of
from s4lite.train.lock import held
from s4lite.train.module import Watched
from s4lite.train.objectives import objective
from s4lite.train.pieces import Bar, How, Running, quiet, ready, take_up, train_piece

__all__ = ["evaluate_run", "finish_run", "finished_before", "run"]


def run(job: Job, folder: str | os.PathLike[str], *, resume: bool = False, **how: Any) -> Result:
    """Train, choose on validation, test once, write it down; or go on with that.

    Args:
        job     Job
        folder  path  of this run alone
        resume  bool  go on, if there is something to go on with
        how     any   the fields of `How`: minutes, accelerator, devices, progress, ...
    Returns:
        Result
    Raises:
        KeyboardInterrupt: by Ctrl-C, SIGTERM or SIGUSR1, when its state is kept; it says how to
            go on.
        Busy, FileExistsError: if another run is at work there, or was, and resume is False.
        ValueError: if what is there is of another job.
        BadFolder: if states are there, and none is sound.
        OSError: if a state cannot be written; the one before stands.
    """
    made, folder = How(**how), Path(folder).expanduser()
    if job.batch_size % (world := made.devices * made.nodes):
        raise ValueError(f"want batch_size divisible by {world} processes, got {job.batch_size}")
    with quiet():
        running = Running(job, folder, made)
        with held(folder) if running.trainer.is_global_zero else contextlib.nullcontext("") as gone:
            if gone:
                running.say(f"taking over from {gone}, which is gone")
            return _attempt(running, resume)


def _attempt(running: Running, resume: bool) -> Result:
    """What `run` does once the folder is its own."""
    done = running.folder / f"{running.job.name}.json"
    if not resume:
        _refuse_used(running, done)
    path = take_up(running)
    if done.exists():
        return finished_before(running, read(done))
    try:
        with listening(running.keeper):
            running.prepare()
            train_piece(running, path)
            return finish_run(running, done)
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
    except RuntimeError:  # of a loader, say, or another process, that is gone
        running.say(running.stopped("stopped by an error").message)
        raise
    running.say(result.message)
    if asked:
        raise KeyboardInterrupt(result.message)
    return result


def _refuse_used(running: Running, done: Path) -> None:
    """Raise FileExistsError if a run is in the folder already."""
    there = states(running.folder)
    if running.trainer.is_global_zero and (done.exists() or there):
        got = done.name if done.exists() else f"a run that has come to {there[0].name}"
        want = f"want an empty folder, or resume=True (--resume), got {got}"
        raise FileExistsError(errno.EEXIST, want, str(running.folder))


def finish_run(running: Running, done: Path) -> Result:
    """Test the chosen weights, once, and write down what has come of the run.

    Args:
        running  Running  trained
        done     Path     the file of the ledger
    Returns:
        Result
    """
    keeper, learner, job, goal = running.keeper, running.learner, running.job, running.goal
    which = (running.folder, keeper.curve, goal.metric, goal.mode)
    row, weights, refused = best_weights(*which)
    if refused:
        running.say(f"{refused}\nIt was the best; epoch {row['epoch'] + 1} is tested in its place")
    keeper.start()
    learner.load_state_dict(weights)
    running.trainer.test(learner, running.data, verbose=False)
    keeper.pause()
    found = running.trainer.callback_metrics
    line = line_of(job, keeper, row, learner.model)
    line.scores = {k[5:]: v.item() for k, v in found.items() if k.startswith("test/")}
    if running.trainer.is_global_zero:
        _leave_model(running)
        write(line, done)
    return result_of(line, goal.metric, running.folder)


def _leave_model(running: Running) -> None:
    """Save the model that was tested, if it can be; a run is no worse if it cannot."""
    model = running.learner.judged
    if isinstance(model, Pretrained):
        try:
            model.save_pretrained(running.folder / "model")
        except (TypeError, ValueError, FileExistsError) as error:
            running.say(f"no model of its own is left: {error}")


def finished_before(running: Running, line: Run) -> Result:
    """What has come of a run that was finished before; ValueError if it is of another job.

    Args:
        running  Running
        line     Run      in the ledger
    Returns:
        Result
    """
    facts = {name: running.keeper.facts[name] for name in ("settings", "task")}
    task = {name: line.task.get(name) for name in facts["task"]}
    same_job({"settings": line.settings, "task": task}, facts, running.folder)
    return result_of(line, running.goal.metric, running.folder, "finished before, ")


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
    if not (path / "states").is_dir():
        return read_weights(path), False
    try:
        return _best_of(path, metric), False
    except (BadFolder, FileNotFoundError):
        if not (path / "model").is_dir():  # what a finished run leaves
            raise
        return _weights_in(path / "model", metric)


def _best_of(folder: Path, metric: str) -> dict[str, Tensor]:
    """The weights of a run's best epoch; of its newest state if no epoch is over yet."""
    state, _ = newest(folder)
    if state is None:
        raise FileNotFoundError(errno.ENOENT, "want a run with a state, got none", str(folder))
    best = chosen(state["callbacks"]["Keeper"]["curve"], metric, objective(metric).mode)
    return read_weights(Path(state["path"]) if best is None else state_path(folder, best["step"]))


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
    scored = _scored(job, checkpoint)
    scored.rate = rate
    return _scores(scored, job, split, accelerator=accelerator, progress=progress)


def _scored(job: Job, checkpoint: str | os.PathLike[str]) -> Watched:
    """The job's model with the weights that a path stands for."""
    weights, bare = _weights_in(checkpoint, job.task.metric)
    ready(job.task)
    scored = Watched(job.build(), job.task.metric, None if bare else job.learner.get("ema"))
    try:
        (scored.model if bare else scored).load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"want weights of the job's model, got {checkpoint}: {error}") from error
    return scored


def _scores(
    scored: Watched, job: Job, split: str, *, accelerator: str, progress: bool
) -> dict[str, float]:
    """What a model scores on a split of a job's task."""
    data = TaskData(job.task, job.batch_size, workers=job.workers, buckets=job.buckets)
    with quiet():
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            precision=job.precision,
            callbacks=[Bar()] if progress else [],
            enable_progress_bar=progress,
            enable_checkpointing=False,
            logger=False,
        )
        ask = trainer.test if split == "test" else trainer.validate
        found = ask(scored, data, verbose=False)[0]
    return {name.split("/", 1)[1]: value for name, value in found.items()}
