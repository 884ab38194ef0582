"""A job of a second for the tests here, and what can happen to it on the way."""

import os
import time

from tiny import Signs, Tiny, model

from s4lite.data.task import Splits
from s4lite.train.checkpoints import read_weights, state_path
from s4lite.train.job import Job

SETTINGS = {"lr": 0.02, "schedule": "cosine", "warmup": 3, "ema": 0.9, "clip": 0.5}


class Eventful(Signs):
    """Sequences of which one, when it is asked for the n-th time, calls `event` first."""

    def __init__(self, n, seed, ragged=False, at=None, event=None, pause=0.0):
        super().__init__(n, seed, ragged)
        self.at, self.event, self.pause = at, event, pause

    def __getitem__(self, i):
        time.sleep(self.pause)
        if len(self.calls) == self.at:
            self.calls.append(i), self.event()
        return super().__getitem__(i)


def task(where="train", sizes=(17, 11, 9), ragged=False, **happens):
    made = Tiny(ragged, sizes)
    at = Splits._fields.index(where)
    parts = list(made.parts)
    parts[at] = Eventful(sizes[at], at, ragged, **happens)
    made.parts = Splits(*parts)
    return made


def job(where="train", *, sizes=(17, 11, 9), ragged=False, dropout=0.2, **changes):
    happens = {name: changes.pop(name) for name in ("at", "event", "pause") if name in changes}
    made, seed = task(where, sizes, ragged, **happens), changes.get("seed", 3)
    likes = {"name": "tiny-s4d", "task": made, "build": lambda: model(seed, dropout)}
    likes |= {"learner": SETTINGS, "epochs": 2, "batch_size": 4, "seed": 3}
    likes |= {"record": {"recipe": "tiny", "model": "s4d", "size": "test"}}
    return Job(**likes | changes)


def send(number):
    """An event: this process gets a signal."""
    return lambda: os.kill(os.getpid(), number)


def last(result, steps):
    """All weights behind the last step."""
    return read_weights(state_path(result.folder, steps))


def told(result):
    """What must be the same however often a run was interrupted: all but the seconds."""
    drop = lambda row: {k: v for k, v in row.items() if k != "seconds"}  # noqa: E731
    return result.finished, result.scores, drop(result.best), result.epochs
