"""What a run keeps while it goes, and when it stops.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from s4lite.train.checkpoints import discard, state_path, states
from s4lite.train.curve import chosen, row_of

__all__ = ["Clock", "Keeper", "Limits", "Listener", "Stopped", "both_clocks", "due", "listening"]


class Stopped(BaseException):
    """A run that was told to stop, and did. `asked`: by a signal, not by its time."""

    def __init__(self, text: str, asked: bool) -> None:
        super().__init__(text)
        self.asked = asked


@dataclass(frozen=True)
class Limits:
    """When a run saves, and when it stops.

    Args:
        every     float         seconds between two states, besides those at the end of an epoch
        piece     float | None  seconds after which it stops and can be taken up
        whole     float | None  seconds after which it is over, in all pieces together
        epochs    int           after which it is over
        patience  int | None    epochs without a better score after which it is over
        group     int           batches that make a step
    """

    every: float
    piece: float | None
    whole: float | None
    epochs: int
    patience: int | None
    group: int


_GO = 0
_SAVE = 1
_OVER = 2
_PAUSE = 3
_ASKED = 4


def both_clocks() -> tuple[float, float]:
    """The time now: by the clock on the wall, and of processors, both from some beginning.

    Returns:
        wall, cpu  float  seconds; the second of this process, its threads and its ended children
    """
    return time.monotonic(), time.process_time() + sum(os.times()[2:4])


class Clock(Checkpoint):
    """What time it is in a run, and what is due; its arguments are `Keeper`'s."""

    def __init__(
        self, folder: Path, metric: str, mode: str, limits: Limits, facts: dict[str, Any]
    ) -> None:
        self.folder, self.metric, self.mode, self.limits = folder, metric, mode, limits
        self.facts, self.past, self.curve, self.over, self.asked = facts, [], [], False, 0
        self.stepping, self.pid = False, os.getpid()
        self.before, self.began = (0.0, 0.0), None
        self.born = self.saved = time.monotonic()

    def spent(self) -> tuple[float, float]:
        """Seconds of work in all pieces, training and the test: by the clock, of processors."""
        if self.began is None:
            return self.before
        both = zip(self.before, self.began, both_clocks(), strict=True)
        return tuple(before + now - began for before, began, now in both)

    def seconds(self) -> float:
        """Seconds of work by the clock on the wall."""
        return self.spent()[0]

    def start(self) -> None:
        """Work begins."""
        self.began = both_clocks()

    def pause(self) -> None:
        """Work ends."""
        self.before, self.began = self.spent(), None

    def state_dict(self) -> dict[str, Any]:
        """What a state holds of the run itself."""
        held = {"curve": self.curve, "over": self.over, "facts": self.facts, "past": self.past}
        return held | dict(zip(("seconds", "cpu_seconds"), self.spent(), strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was kept."""
        self.curve, self.over = list(state["curve"]), state["over"]
        self.before, now = (state["seconds"], state["cpu_seconds"]), self.past
        self.past = list(state.get("past", ()))
        _ = [self.on(place) for place in now]

    def on(self, place: dict[str, Any]) -> None:
        """Remember on what a piece runs: code, machine, versions; each kind once."""
        self.past += [place] * (place not in self.past)

    def best(self) -> dict[str, Any] | None:
        """The row of the curve whose weights are the best so far."""
        return chosen(self.curve, self.metric, self.mode)


def due(keeper: Clock, trainer: Trainer) -> int:
    """What is to be done now; all processes must ask, and all get the same answer.

    Args:
        keeper   Keeper
        trainer  Trainer  whose run it keeps
    Returns:
        order  int  the most pressing of what each finds: go on, save, be over, pause, stop
    """
    now, limits = time.monotonic(), keeper.limits
    order = _SAVE if now - keeper.saved >= limits.every else _GO
    order = _OVER if limits.whole is not None and keeper.seconds() >= limits.whole else order
    order = _PAUSE if limits.piece is not None and now - keeper.born >= limits.piece else order
    order = _ASKED if keeper.asked else order
    if trainer.world_size == 1:
        return order  # and no tensor, for which the device would have to be waited for
    told = torch.tensor(float(order), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(told, reduce_op="max"))


def _hear_with(handler: Any) -> dict[int, Any]:
    """Give Ctrl-C, SIGTERM and SIGUSR1 to a handler; those before. Only a main thread can hear."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGUSR1")]
    return {number: signal.signal(number, handler) for number in numbers if number is not None}


@contextlib.contextmanager
def listening(keeper: Clock) -> Iterator[None]:
    """Let a keeper hear signals for a while, even if they were ignored.

    Args:
        keeper  Keeper
    """
    before = _hear_with(keeper.hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _prune(folder: Path, best: dict[str, Any] | None) -> None:
    """Remove all states but the last two and the best."""
    keep = [*states(folder)[:2], best and state_path(folder, best["step"])]
    for old in states(folder):
        if old not in keep:
            discard(old)


class Listener(Clock):
    """Hears signals and keeps states; when, `Keeper` says, whose arguments these are."""

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        """Listen to signals, and start the clock."""
        self.start()
        self.saved, self.stepping = time.monotonic(), True
        _hear_with(self.hear)  # Lightning has put its own there

    def hear(self, number: int, frame: Any) -> None:
        """First time, while it trains: stop behind this step. Otherwise: now."""
        if os.getpid() != self.pid:  # a worker has inherited this; Ctrl-C goes to all
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL), os.kill(os.getpid(), number)
            return
        if not self.stepping:
            raise KeyboardInterrupt
        self.asked += 1
        if self.asked > 1:
            raise Stopped("stopped at once, as asked twice", asked=True)
        told = "stopping behind the step that is going on; once more to stop at once"
        with contextlib.suppress(RuntimeError):  # if it came in the middle of a print
            print(f"\n{signal.Signals(number).name}: {told}", file=sys.stderr, flush=True)

    def save(self, trainer: Trainer, order: int = _SAVE) -> None:
        """Keep the state; remove what is not needed any more; stop if so ordered."""
        path = state_path(self.folder, trainer.global_step)
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            held = [p.name for p in states(self.folder)[:1]]
            more = f"{held[0]} stands, and the run can be taken up there" if held else "none stands"
            raise OSError(error.errno, f"{error.strerror}; {more}", str(path)) from error
        self.saved = time.monotonic()
        if trainer.is_global_zero:
            _prune(self.folder, self.best())
        if order >= _PAUSE:
            asked = order == _ASKED
            raise Stopped("stopped, as asked" if asked else "stopped, as its time is up", asked)


class Keeper(Listener):
    """Keeps the states of a run: the last two and the best, each new one before an old one goes.

    Args:
        folder        Path    the run's
        metric, mode  str     what is chosen by, "max" or "min"
        limits        Limits
        facts         dict    what the run is, kept in each state

    A state is kept at the end of each epoch, and of a batch when it is time: never in the middle
    of a step, nor behind an epoch's last batch, which belongs to validation.
    """

    def on_train_batch_end(self, trainer: Trainer, learner: Any, *batch: Any) -> None:
        """Save or stop, if it is time and a step is complete."""
        index = batch[-1] + 1
        if trainer.is_last_batch or index % self.limits.group:
            return
        if trainer.world_size > 1 and index // self.limits.group % 8:  # not to talk all the time
            return
        order = due(self, trainer)
        if order == _OVER:
            trainer.should_stop = True  # validation is next, then the end of the epoch
        elif order:
            self.save(trainer, order)

    def on_train_epoch_end(self, trainer: Trainer, learner: Any) -> None:
        """Add a row to the curve, and save."""
        limits, order = self.limits, due(self, trainer)
        self.curve.append(row_of(trainer, self.seconds()))
        late = limits.patience is not None and self.stale() >= limits.patience
        self.over = len(self.curve) >= limits.epochs or late or order == _OVER
        trainer.should_stop |= self.over
        self.save(trainer, order if not self.over or order == _ASKED else _SAVE)

    def stale(self) -> int:
        """Epochs since the best one."""
        return self.curve[-1]["epoch"] - self.best()["epoch"]
