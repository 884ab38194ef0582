"""A task's data as a Lightning data module: shuffled by address, resumed in the middle, shared out.

Home: chapter 16, "Training" (chapters/16_training.ipynb).
"""

import signal
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from s4lite.data.buckets import BucketSampler
from s4lite.data.draws import check_whole, child
from s4lite.data.task import Batch, Task

__all__ = ["EpochLoader", "Order", "TaskData", "TaskSplits", "batches_of"]


class Order(Sampler):
    """Which sequences make which batch: a function of (seed, epoch) alone.

    Args:
        n            int          sequences
        batch_size   int          sequences a batch of one process
        seed         int          0 to 2^64 - 1
        rank, world  int          which of how many processes; in each step they see together what
            one with batches `world` times as large would see
        lengths      (n,) | None  of the sequences: batches are then made of like ones
        shares       int          epochs that make up one pass over all sequences
    Raises:
        TypeError, ValueError: if a number is not as said, or no batch comes out.

    What fills no batch is left out: in every pass something else. The length is a whole epoch's.

    Source: our eq-training-order, eq-training-shares; with lengths,
    `s4lite.data.buckets.BucketSampler`.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        lengths: Any = None,
        shares: int = 1,
    ) -> None:
        check_whole(batch_size=batch_size, world=world, shares=shares), check_whole(0, n=n)
        check_whole(0, world - 1, rank=rank), check_whole(0, 2**64 - 1, seed=seed)
        if n < (least := batch_size * world * shares):
            raise ValueError(f"want at least {least} sequences for a batch, got {n}")
        if lengths is not None and len(lengths) != n:
            raise ValueError(f"want lengths of {n} sequences, got {len(lengths)}")
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        likes = {"seed": seed, "rank": rank, "world": world}
        self.buckets = None if lengths is None else BucketSampler(lengths, batch_size, **likes)
        self.epoch, self.start, self.shares = 0, 0, shares
        self.sampler = self  # where Lightning looks for `set_epoch`

    def set_epoch(self, epoch: int, start: int | None = None) -> None:
        """Take up an epoch with its batch `start`; None: where it stands, or a new one with 0."""
        start = (self.start if epoch == self.epoch else 0) if start is None else start
        check_whole(0, epoch=epoch), check_whole(0, len(self), start=start)
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.n // (self.batch_size * self.world * self.shares)

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch % self.shares * len(self)
        yield from islice(batches_of(self), first + self.start, first + len(self))


def batches_of(order: Order) -> list[list[int]]:
    """The batches of one process in the pass that `order.epoch` is of, as lists of indices.

    Source: our eq-training-order.
    """
    b, world, number = order.batch_size, order.world, order.epoch // order.shares
    if order.buckets is not None:
        order.buckets.set_epoch(number)
        return list(order.buckets)
    keys = child(child(child(order.seed, 16), number), np.arange(order.n))
    filled = order.n // (b * world) * b * world
    groups = np.argsort(keys, kind="stable")[:filled].reshape(-1, world, b)
    return groups[:, order.rank].tolist()


class EpochLoader(DataLoader):
    """A DataLoader that says how far it is, and takes up an epoch there; Lightning asks it to.

    Args:
        dataset  Dataset  of items
        order    Order    of its batches
        options  any      to DataLoader: collate_fn, num_workers, pin_memory, ...
    """

    def __init__(self, dataset: Dataset, order: Order, **options: Any) -> None:
        super().__init__(dataset, batch_sampler=order, **options)
        self.order, self.seen = order, 0

    def __iter__(self) -> Iterator[Batch]:  # begins at the first `next`, when the epoch is known
        self.seen = self.order.start
        for batch in super().__iter__():
            self.seen += 1
            yield batch

    def _facts(self) -> dict[str, int]:
        names = ("n", "batch_size", "seed", "world", "shares")
        facts = {name: getattr(self.order, name) for name in names}
        likes = self.order.buckets
        sizes = b"" if likes is None else likes.sizes.astype("<i8").tobytes()
        return facts | {"lengths": zlib.crc32(sizes)}

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches of it that have been given out."""
        at = divmod(self.seen, len(self.order))
        return {"epoch": self.order.epoch + at[0], "seen": at[1]} | self._facts()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the batch that was the last; ValueError if the batches were others."""
        facts = {name: state.get(name) for name in self._facts()}
        if state["seen"] and facts != self._facts():
            raise ValueError(
                f"want the data of the run that is taken up, {facts}, got {self._facts()}; "
                "with other processes, batch size, buckets or shares it goes on between epochs only"
            )
        self.order.set_epoch(state["epoch"], state["seen"])
        self.seen = state["seen"]


class TaskSplits(LightningDataModule):
    """A task, opened, and how its batches are to be made; its arguments are `TaskData`'s."""

    def __init__(
        self,
        task: Task,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 0,
        eval_batch: int | None = None,
        buckets: bool = True,
        shares: int = 1,
    ) -> None:
        super().__init__()
        eval_batch = batch_size if eval_batch is None else eval_batch
        check_whole(batch_size=batch_size, eval_batch=eval_batch, shares=shares)
        check_whole(0, seed=seed, workers=workers)
        self.task, self.batch_size, self.seed, self.workers = task, batch_size, seed, workers
        self.eval_batch, self.buckets, self.shares = eval_batch, buckets, shares
        self.parts = None

    def prepare_data(self) -> None:
        """Download or generate what is not there: one process of each machine does."""
        self.task.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Open the splits."""
        self.parts = self.task.splits() if self.parts is None else self.parts

    def steps(self, world: int = 1) -> int:
        """Batches of an epoch, for each of `world` processes; opens the splits if need be."""
        self.setup()
        return len(self.order(world=world))

    def order(self, rank: int = 0, world: int = 1) -> Order:
        """The order of one process in training."""
        lengths = getattr(self.parts.train, "lengths", None) if self.buckets else None
        place = {"seed": self.seed, "rank": rank, "world": world, "shares": self.shares}
        return Order(len(self.parts.train), self.batch_size, lengths=lengths, **place)

    def options(self) -> dict[str, Any]:
        """What all loaders are made with."""
        options = {"collate_fn": self.task.collate, "num_workers": self.workers}
        options |= {"worker_init_fn": _patient} if self.workers else {}
        return options | {"pin_memory": torch.cuda.is_available()}


class TaskData(TaskSplits):
    """A task's sequences in batches: shuffled for training, each exactly once for scores.

    Args:
        task        Task        see `s4lite.data.task`
        batch_size  int         sequences a batch, of each process
        seed        int         of the order in training
        workers     int         processes that load ahead, >= 0
        eval_batch  int | None  sequences a batch in validation and test; None: batch_size
        buckets     bool        batches of like lengths, where the training split has `lengths`
        shares      int         epochs that make up one pass, as for `Order`
    Raises:
        TypeError, ValueError: if a number is not as said.

    It shares out its data itself: several processes want Trainer(use_distributed_sampler=False).
    """

    def train_dataloader(self) -> EpochLoader:
        """This process's share of the training split, in its `Order`."""
        order = self.order(*_place(self.trainer))
        keep = {"persistent_workers": self.workers > 0}
        return EpochLoader(self.parts.train, order, **keep, **self.options())

    def val_dataloader(self) -> DataLoader:
        """This process's share of the validation split, once."""
        return self._once(self.parts.val)

    def test_dataloader(self) -> DataLoader:
        """This process's share of the test split, once."""
        return self._once(self.parts.test)

    def _once(self, part: Dataset) -> DataLoader:
        lengths = getattr(part, "lengths", None) if self.buckets else None
        rows = range(len(part)) if lengths is None else np.argsort(lengths, kind="stable").tolist()
        rank, world = _place(self.trainer)
        if len(rows) < world:  # one without any would not come to where sums are added up
            raise ValueError(f"want a sequence for each of {world} processes, got {len(rows)}")
        size = min(self.eval_batch, len(rows) // world)
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        return DataLoader(part, batch_sampler=batches[rank::world], **self.options())


def _patient(worker: int) -> None:
    """In a process that loads: a signal to all is for the trainer; a second SIGTERM ends it."""
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def _place(trainer: Any) -> tuple[int, int]:
    """Which of how many processes this is."""
    if trainer is None:
        return 0, 1
    connector = getattr(trainer, "_accelerator_connector", None)
    if trainer.world_size > 1 and getattr(connector, "use_distributed_sampler", False):
        raise ValueError("want Trainer(use_distributed_sampler=False): the data is shared out here")
    return trainer.global_rank, trainer.world_size
