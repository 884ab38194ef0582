"""One piece of a run: from where it is taken up to where it stops, or to the ledger.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import importlib.util
import logging
import math
import secrets
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from s4lite.nn.folders import versions
from s4lite.nn.pretrained import Pretrained
from s4lite.train.checkpoints import StateIO, newest, read_weights, state_path, states
from s4lite.train.data import TaskData
from s4lite.train.job import Job, Result, facts_of, same_job
from s4lite.train.keeping import Keeper, Limits
from s4lite.train.ledger import Run, commit, hardware, score, write
from s4lite.train.module import Learner
from s4lite.train.objectives import objective

__all__ = ["Bar", "Running", "finish_run", "finished_before", "quiet", "take_up", "train_piece"]


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


class Running:
    """A job in a folder, with all that it takes; `run` says what the arguments are."""

    def __init__(
        self, job: Job, folder: Path, limits: Limits, shard_mib: float | None, **where: Any
    ) -> None:
        self.job, self.folder, self.goal = job, folder, objective(job.task.metric)
        self.keeper = Keeper(folder, self.goal.metric, self.goal.mode, limits, facts_of(job))
        self.world = where["devices"] * where["num_nodes"]
        callbacks = [self.keeper, *([Bar()] if where["enable_progress_bar"] else [])]
        self.trainer = Trainer(
            callbacks=callbacks,
            plugins=[StateIO(shard_mib)],
            logger=False,
            max_epochs=job.epochs,
            accumulate_grad_batches=job.accumulate,
            precision=job.precision,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            default_root_dir=folder,
            **where,
        )

    def prepare(self) -> None:
        """Data and model as they are before the first step."""
        job, task = self.job, self.job.task
        task.prepare()
        shares = {"seed": job.seed, "workers": job.workers, "buckets": job.buckets}
        self.data = TaskData(task, job.batch_size // self.world, **shares)
        total = job.epochs * math.ceil(self.data.steps(self.world) / job.accumulate)
        torch.manual_seed(job.seed)
        settings = {"seed": job.seed} | job.learner | {"total": total}
        self.learner = Learner(job.build(), task.metric, **settings)

    def say(self, text: str) -> None:
        """Tell whoever watches, once."""
        if self.trainer.is_global_zero:
            print(text, file=sys.stderr, flush=True)

    def stopped(self, why: str) -> Result:
        """What has come of it if it has stopped, and how it is taken up."""
        found = states(self.folder)
        how = self.job.record.get("resume") or f"run(job, {str(self.folder)!r}, resume=True)"
        at = f"kept is {found[0].name}. Go on: {how}" if found else "nothing was kept"
        return self.result({}, f"{self.job.name}: {why}; {at}")

    def result(self, scores: dict[str, float], message: str) -> Result:
        """What has come of it so far."""
        keeper, done = self.keeper, bool(scores)
        counts = len(keeper.curve), round(keeper.seconds(), 2)
        return Result(self.folder, done, scores, keeper.best() or {}, *counts, message)


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
    if state is None:
        return None
    same_job(state["callbacks"][keeper.state_key]["facts"], keeper.facts, folder)
    if running.trainer.is_global_zero:
        for part in (folder / "states").glob(".*"):  # of a run that was killed
            shutil.rmtree(part, ignore_errors=True)
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


def finish_run(running: Running) -> Result:
    """Test the chosen weights, once, and write down what has come of the run.

    Args:
        running  Running  trained
    Returns:
        Result
    """
    keeper, learner, job = running.keeper, running.learner, running.job
    best = keeper.best()
    keeper.start()
    learner.load_state_dict(read_weights(state_path(running.folder, best["step"])))
    running.trainer.test(learner, running.data, verbose=False)
    found = running.trainer.callback_metrics
    scores = {k.removeprefix("test/"): v.item() for k, v in found.items() if k.startswith("test/")}
    keeper.pause()
    said = f"{running.goal.metric} {scores[running.goal.metric]:.4g} in the test"
    message = (
        f"{job.name}: {said}, with the weights of epoch {best['epoch'] + 1} of {len(keeper.curve)}"
    )
    if running.trainer.is_global_zero:
        if isinstance(learner.judged, Pretrained):
            learner.judged.save_pretrained(running.folder / "model")
        write(_written(running, scores), running.folder)
    return running.result(scores, message)


def _shortened(keeper: Keeper) -> list[str]:
    """What must be said of a run that was over before its last epoch."""
    limits, done = keeper.limits, len(keeper.curve)
    late = limits.whole is not None and keeper.curve[-1]["seconds"] >= limits.whole
    if done >= limits.epochs and not late:
        return []
    why = (
        f"its {limits.whole / 60:g} minutes were up" if late else "no epoch was better for a while"
    )
    return [f"over in epoch {done} of {limits.epochs}: {why}"]


def _written(running: Running, scores: dict[str, float]) -> Run:
    """A finished run as the ledger holds it.

    Args:
        running  Running
        scores   dict     of the test
    Returns:
        Run
    """
    job, keeper, record = running.job, running.keeper, running.job.record
    trained = sum(p.numel() for p in running.learner.model.parameters() if p.requires_grad)
    named = record.get("model", type(running.learner.model).__name__)
    device = running.trainer.strategy.root_device
    return Run(
        name=job.name,
        command=record.get("command")
        or shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        commit=commit(),
        seeds=[job.seed],
        hardware=hardware(running.world, device),
        versions=versions() | {"lightning": lightning.__version__},
        wall_seconds=round(keeper.seconds(), 2),
        parameters=trained,
        recipe=record.get("recipe", ""),
        size=record.get("size", ""),
        task=keeper.facts["task"],
        model=named if isinstance(named, dict) else {"name": named},
        settings=keeper.facts["settings"],
        overrides=record.get("overrides", {}),
        curve=keeper.curve,
        chosen={k: keeper.best()[k] for k in ("epoch", "step", "val")},
        scores=scores,
        published=record.get("published") or {},
        notes=[*record.get("notes", ()), *_shortened(keeper)],
    )


def finished_before(running: Running, run: Run) -> Result:
    """What has come of a run that was finished before.

    Args:
        running  Running
        run      Run      its line in the ledger
    Returns:
        Result
    Raises:
        ValueError: if it is of another job.
    """
    same_job(
        {"settings": run.settings, "task": run.task},
        {k: running.keeper.facts[k] for k in ("settings", "task")},
        running.folder,
    )
    best = next(row for row in run.curve if row["step"] == run.chosen["step"])
    message = f"{run.name}: finished before, {running.goal.metric} {score(run):.4g} in the test"
    counts = len(run.curve), run.wall_seconds
    return Result(running.folder, True, run.scores, best, *counts, message)
