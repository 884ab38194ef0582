"""Batches of sequences that are about equally long, so that little of a batch is padding.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from s4lite.data.draws import check_whole, child

__all__ = ["BucketSampler", "check_sequences", "deal", "padding_waste"]


def check_sequences(lengths: Tensor | np.ndarray | Sequence[int], least: int = 1) -> np.ndarray:
    """Bring lengths into one form.

    Args:
        lengths  (n,)  of sequences
        least    int   how many there must be
    Returns:
        lengths  (n,)  array
    Raises:
        ValueError: unless they are whole numbers >= 1, and enough.
    """
    sizes = np.asarray(lengths)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or not len(sizes) or sizes.min() < 1:
        raise ValueError(f"want lengths (n,) as whole numbers >= 1, got {lengths!r:.60}")
    if len(sizes) < least:
        raise ValueError(f"want at least a batch a process, {least} sequences, got {len(sizes)}")
    return sizes


def deal(
    sizes: np.ndarray, batch_size: int, world: int, key: np.ndarray | None, pool: int, full: bool
) -> list[list[np.ndarray]]:
    """Deal sequences out into batches of like lengths: groups of `world` batches, one a process.

    Args:
        sizes       (n,)         lengths
        batch_size  int          sequences a batch
        world       int          batches a group
        key         () | None    for the order, see `child`; None: from short to long
        pool        int          groups that are sorted by length together
        full        bool         leave out, at random, what fills no group; otherwise the first
            batches come again in the last group
    Returns:
        groups  list of lists of indices (<= batch_size,)
    """
    n, group = len(sizes), batch_size * world
    order = np.arange(n) if key is None else np.argsort(child(key, np.arange(n)), kind="stable")
    order = order[: n - n % group] if full else order
    stride = n if key is None else pool * group
    parts = [order[i : i + stride] for i in range(0, len(order), stride)]
    order = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in parts] or [[]])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    while len(batches) % world:
        batches += batches[: world - len(batches) % world]
    groups = [batches[i : i + world] for i in range(0, len(batches), world)]
    if key is not None:
        groups = [groups[i] for i in np.argsort(child(key, n + np.arange(len(groups))))]
    return groups


class BucketSampler(Sampler):
    """Batches of indices, shuffled, in which lengths are alike; for DataLoader's batch_sampler.

    Args:
        lengths      (n,)  of all sequences, >= 1
        batch_size   int   sequences a batch, of one process
        seed, pool   int   of the order; batches sorted together, 1 is plain shuffling
        shuffle      bool  False: always the same batches, from short to long, none left out
        rank, world  int   which of how many processes; all get as many batches, alike in length
        drop_last    bool | None  leave out what fills no batch; None: if shuffle
    Raises:
        TypeError, ValueError: if a number is not as said, or no batch comes out.

    The order is a function of (seed, epoch) alone; `set_epoch(e, start=b)` takes up epoch e with
    batch b. Who wants a `sampler` to tell the epoch finds it: itself.
    """

    def __init__(
        self,
        lengths: Tensor | np.ndarray | Sequence[int],
        batch_size: int,
        *,
        seed: int = 0,
        pool: int = 100,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        drop_last: bool | None = None,
    ) -> None:
        check_whole(batch_size=batch_size, pool=pool, world=world)
        check_whole(0, world - 1, rank=rank), check_whole(0, 2**63 - 1, seed=seed)
        self.drop_last = shuffle if drop_last is None else drop_last
        self.sizes = check_sequences(lengths, batch_size * world if self.drop_last else 1)
        self.sampler, self.epoch, self.start = self, 0, 0
        self.batch_size, self.seed, self.pool, self.shuffle = batch_size, seed, pool, shuffle
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Say which epoch comes next, and how many of its batches have been seen already."""
        check_whole(0, epoch=epoch, start=start)
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        n, group = len(self.sizes), self.batch_size * self.world
        return max(0, (n // group if self.drop_last else -(-n // group)) - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        key = child(child(self.seed, 5), self.epoch) if self.shuffle else None
        groups = deal(self.sizes, self.batch_size, self.world, key, self.pool, self.drop_last)
        return (group[self.rank].tolist() for group in groups[self.start :])


def padding_waste(
    lengths: Tensor | np.ndarray | Sequence[int], batches: Iterable[Sequence[int]]
) -> float:
    """Say which share of all places in padded batches is padding.

    Args:
        lengths  (n,)              of all sequences
        batches  iterable of (b,)  indices
    Returns:
        float  0 to 1
    Raises:
        ValueError: if lengths are none, or there is no batch.

    Source: our eq-arena-waste.
    """
    sizes, used, places = check_sequences(lengths), 0, 0
    for batch in batches:
        each = sizes[np.asarray(batch)]
        used, places = used + int(each.sum()), places + len(each) * int(each.max())
    if not places:
        raise ValueError("want at least one batch, got none")
    return 1 - used / places
