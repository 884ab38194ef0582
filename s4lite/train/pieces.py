"""One piece of a run: from where it is taken up to where it stops, or to the ledger.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import importlib.util
import logging
import math
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment

from s4lite.data.draws import check_whole
from s4lite.data.shards import verify
from s4lite.data.task import Splits, Task
from s4lite.train.checkpoints import StateIO, newest, states
from s4lite.train.data import TaskData
from s4lite.train.job import Job, Result, facts_of, same_job
from s4lite.train.keeping import Keeper, Limits
from s4lite.train.line import place_of
from s4lite.train.memory import Trimming
from s4lite.train.module import Learner
from s4lite.train.objectives import objective

__all__ = [
    "Bar",
    "How",
    "Running",
    "limits_of",
    "quiet",
    "ready",
    "take_up",
    "train_piece",
    "trainer_for",
]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning says of itself: its hints are for those who write a Trainer."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Bar(TQDMProgressBar):
    """Lightning's progress bar, on the error stream: results go to the other one alone."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """What stands behind it: the scores."""
        return {k: v for k, v in super().get_metrics(*args).items() if k != "v_num"}

    def init_train_tqdm(self) -> Any:
        """The bar of training."""
        with contextlib.redirect_stdout(sys.stderr):
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Any:
        """The bar of a validation."""
        with contextlib.redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()

    def init_test_tqdm(self) -> Any:
        """The bar of the test."""
        with contextlib.redirect_stdout(sys.stderr):
            return super().init_test_tqdm()


def _logs(folder: Path, step: int) -> list[Any]:
    """The loggers of a piece of a run: a new CSV file, and TensorBoard's where it is installed.

    Args:
        folder  Path  the run's
        step    int   with which it begins
    Returns:
        loggers  list
    """
    piece = len(list((folder / "logs").glob("piece-*")))
    made: list[Any] = [CSVLogger(folder, "logs", f"piece-{piece}", flush_logs_every_n_steps=1)]
    if importlib.util.find_spec("tensorboard") is not None:
        made.append(TensorBoardLogger(folder, "logs", "tensorboard", purge_step=step or None))
    return made


@dataclass(frozen=True)
class How:
    """How a job is run. Nothing of it is meant to change what comes out.

    Args:
        minutes             float | None  stop after so many, so that it can be taken up
        accelerator         str           Lightning's: "auto", "cpu", "gpu", ...
        devices, nodes      int           processes a machine; machines
        progress            bool          bars on the error stream
        checkpoint_minutes  float         a state at least so often, besides those of the epochs
        shard_mib           float | None  largest file of a state, in MiB
    Raises:
        TypeError, ValueError: if a number is not as said.
    """

    minutes: float | None = None
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    progress: bool = True
    checkpoint_minutes: float = 5.0
    shard_mib: float | None = None

    def __post_init__(self) -> None:
        check_whole(devices=self.devices, nodes=self.nodes)
        for name in ("minutes", "checkpoint_minutes"):
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise ValueError(f"want {name} >= 0, got {value}")


def limits_of(job: Job, how: How) -> Limits:
    """When a job that is run so saves and stops.

    Args:
        job, how  Job, How
    Returns:
        Limits
    """
    piece, whole = (None if m is None else 60 * m for m in (how.minutes, job.max_minutes))
    every = 60 * how.checkpoint_minutes
    return Limits(every, piece, whole, job.epochs, job.patience, job.accumulate)


def trainer_for(job: Job, folder: Path, how: How, keeper: Keeper) -> Trainer:
    """Lightning's Trainer for a job, which keeps its states in our way.

    Args:
        job, folder, how, keeper  Job, Path, How, Keeper
    Returns:
        Trainer
    """
    # unless told not to, SLURM would start it anew from a file of Lightning's own
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return Trainer(
        callbacks=[keeper, Trimming(), *([Bar()] if how.progress else [])],
        plugins=[StateIO(how.shard_mib), *slurm],
        logger=False,
        accelerator=how.accelerator,
        devices=how.devices,
        num_nodes=how.nodes,
        max_epochs=job.epochs,
        accumulate_grad_batches=job.accumulate,
        precision=job.precision,
        enable_progress_bar=how.progress,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def ready(task: Task) -> None:
    """Prepare a task, and compare the digests of all that it keeps on the disk.

    Args:
        task  Task  or a part of one
    Raises:
        MissingData, DamagedData: if files are missing, or not what was written.
    """
    task.prepare()
    shards = getattr(getattr(task, "whole", task), "shards", None)
    if shards is not None:
        verify(shards)


class Running:
    """A job in a folder, with all that it takes; its arguments are `run`'s."""

    def __init__(self, job: Job, folder: Path, how: How) -> None:
        self.job, self.folder, self.goal = job, folder, objective(job.task.metric)
        goal, limits = self.goal, limits_of(job, how)
        self.keeper = Keeper(folder, goal.metric, goal.mode, limits, facts_of(job))
        self.trainer = trainer_for(job, folder, how, self.keeper)
        self.world, self.there = how.devices * how.nodes, {}

    def prepare(self) -> None:
        """Data and model as they are before the first step."""
        job, task, keeper = self.job, self.job.task, self.keeper
        ready(task)
        likes = {name: getattr(job, name) for name in ("seed", "workers", "buckets", "shares")}
        self.data = TaskData(task, job.batch_size // self.world, **likes)
        total = job.epochs * math.ceil(self.data.steps(self.world) / job.accumulate)
        counts = {k: len(part) for k, part in zip(Splits._fields, self.data.parts, strict=True)}
        keeper.facts = keeper.facts | {"sequences": counts}
        same_job(self.there or keeper.facts, keeper.facts, self.folder)
        keeper.on(place_of(self.trainer, self.world))
        torch.manual_seed(job.seed)
        settings = {"seed": job.seed} | job.learner | {"total": total}
        self.learner = Learner(job.build(), task.metric, **settings)

    def say(self, text: str) -> None:
        """Tell whoever watches, once."""
        if self.trainer.is_global_zero:
            print(text, file=sys.stderr, flush=True)

    def stopped(self, why: str) -> Result:
        """What has come of it if it has stopped, and how it is taken up."""
        found, keeper = states(self.folder), self.keeper
        how = self.job.record.get("resume") or f"run(job, {str(self.folder)!r}, resume=True)"
        at = f"kept is {found[0].name}. Go on: {how}" if found else "nothing was kept"
        message, counts = f"{self.job.name}: {why}; {at}", (len(keeper.curve), keeper.seconds())
        best = keeper.best() or {}
        return Result(self.folder, False, {}, best, counts[0], round(counts[1], 2), message)


def take_up(running: Running) -> str | None:
    """Find where a run goes on; what is damaged is put aside, and said.

    Args:
        running  Running
    Returns:
        path  str | None  the state to begin with; None: from the start
    Raises:
        ValueError: if it is of another job.
        BadFolder: if there are states, and none is sound.
    """
    folder, keeper, there = running.folder, running.keeper, states(running.folder)
    state, refused = newest(folder)
    if running.trainer.is_global_zero:
        for part in (*(folder / "states").glob(".*"), *folder.glob(".model.*.part")):
            shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    if state is None:
        return None
    running.there = state["callbacks"][keeper.state_key]["facts"]
    same_job(running.there, keeper.facts, folder)
    if running.trainer.is_global_zero:
        for said, path in zip(refused, there, strict=False):
            path.rename(path.with_name(f"damaged-{path.name}-{secrets.token_hex(2)}"))
            running.say(f"{said}\nIt is put aside; going on from {Path(state['path']).name}")
    keeper.load_state_dict(state["callbacks"][keeper.state_key])
    return state["path"]


def train_piece(running: Running, path: str | None) -> None:
    """Train to the end, unless that is done already.

    Args:
        running  Running     prepared
        path     str | None  the state to begin with
    Raises:
        Stopped: if it was to stop before; its state is kept.
    """
    keeper, trainer = running.keeper, running.trainer
    step = 0 if path is None else int(Path(path).name.removeprefix("step-"))
    trainer.loggers = _logs(running.folder, step)
    try:
        if not keeper.over:
            trainer.fit(running.learner, running.data, ckpt_path=path, weights_only=True)
    finally:
        keeper.stepping = False
        keeper.pause()
        trainer.loggers = []
