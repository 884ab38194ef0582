"""ListOps: the value of nested lists of digits, drawn at random or read from published files.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import contextlib
import itertools
import os
from collections.abc import Sequence

import numpy as np

from s4lite.data.draws import check_sizes, check_whole, child
from s4lite.data.expressions import Expressions
from s4lite.data.release import published_listops
from s4lite.data.shards import Shards, TokenTask, shards_in
from s4lite.data.trees import VOCABULARY, Shape, grow, keep, write_out
from s4lite.data.workers import cores, in_order, progress

__all__ = ["ListOps", "check_source", "generate_listops", "listops_name", "save_expressions"]


def _at_once(shape: Shape) -> int:
    """How many trees to grow together, for some 100 MB; what is drawn does not depend on it."""
    each = (2 + shape.max_args) / 8  # nodes below a node, in the mean
    nodes = min(sum(each**d for d in range(shape.max_depth)), shape.max_length)
    return max(16, min(20_000, int(4e6 / nodes)))


def _block(job: tuple[int, int, Shape]) -> tuple[Expressions, np.ndarray]:
    """Draw trees number first, first + 1, ...: those of a right length, and their numbers."""
    (seed, first, shape), trees = job, _at_once(job[2])
    levels, length = grow(child(child(seed, 0), np.arange(first, first + trees)), shape)
    right = (length > shape.min_length) & (length < shape.max_length)
    found = write_out(keep(levels, right)) if right.any() else (np.zeros(0, np.uint8),) * 3
    return Expressions(*found, trees), first + np.flatnonzero(right)


def generate_listops(
    count: int,
    seed: int,
    *,
    max_depth: int = 10,
    max_args: int = 10,
    min_length: int = 500,
    max_length: int = 2000,
    workers: int = 1,
) -> Expressions:
    """Draw expressions, all different: trees at random, those of a wrong length thrown away.

    Args:
        count, seed             int  how many, >= 1; which, 0 to 2^63 - 1
        max_depth               int  levels of a tree, 2 to 30; the last has only digits
        max_args                int  of an operator, which has from 2 up to this
        min_length, max_length  int  every length lies strictly between  [tokens]
        workers                 int  processes; they change the time, never a byte
    Returns:
        Expressions
    Raises:
        TypeError, ValueError: if a number is not as said, or no tree is that long.
        RuntimeError: if a million trees in a row bring nothing new.

    Source: Nangia and Bowman 2018; lengths by Tay et al. 2021; our eq-arena-tree.
    """
    check_whole(count=count), check_whole(0, 2**63 - 1, seed=seed)
    shape = Shape(max_depth, max_args, min_length, max_length)
    shape.check()
    return _drawn(count, seed, shape, workers)


def _drawn(count: int, seed: int, shape: Shape, workers: int) -> Expressions:
    """Draw trees, block by block, until there are enough different ones of the right length."""
    seen: dict[bytes, int] = {}
    drawn, last = 0, 0
    jobs = ((seed, first, shape) for first in itertools.count(0, _at_once(shape)))
    blocks = contextlib.closing(in_order(_block, jobs, workers))
    with progress("expressions", count) as done, blocks as results:
        for found, numbers in results:
            before, drawn = len(seen), drawn + found.attempts
            for i, number in enumerate(numbers.tolist()):
                if (text := found.expression(i).tobytes()) not in seen:
                    seen[text], last = int(found.values[i]), number
                if len(seen) == count:
                    return _joined(seen, number + 1)
            done(len(seen) - before)
            if drawn - last > 10**6:
                break
    raise RuntimeError(f"got {len(seen)} of {count} expressions, then none new in 10^6 trees")


def _joined(seen: dict[bytes, int], attempts: int) -> Expressions:
    """Put texts end to end."""
    tokens = np.frombuffer(b"".join(seen), np.uint8)
    ends = np.cumsum([len(text) for text in seen])
    return Expressions(tokens, ends, np.array([*seen.values()], np.uint8), attempts)


def save_expressions(shards: Shards, drawn: Expressions, sizes: Sequence[int]) -> None:
    """Write expressions as `TokenSet` reads them: the first sizes[0] as train, then val, test."""
    last = 0
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        first, last = last, last + size
        start, end = (int(drawn.ends[i - 1]) if i else 0 for i in (first, last))
        arrays = {"tokens": drawn.tokens[start:end], "ends": drawn.ends[first:last] - start}
        for part, array in {**arrays, "y": drawn.values[first:last]}.items():
            shards.write(f"{split}-{part}.npy", lambda array=array: array)


class ListOps(TokenTask):
    """The task ListOps: what is the value, 0 to 9, of an expression of a thousand tokens?

    Args:
        data_dir   path | None  where drawn expressions are kept, or the published files are
        source     str          "drawn"; or "published", the arena's files, see `find_listops`
        seed       int          of the draw
        sizes      (3,)         of train, val, test; published files must have so many lines
        workers    int | None   processes that draw; None for all cores
        download   bool         unused: nothing is downloaded
        shape      int          max_depth, max_args, min_length, max_length of `generate_listops`
    Raises:
        TypeError, ValueError: if an argument is not as said; published lists take no shape.

    By default lists are drawn, in the published shape and sizes. Other shapes, for small machines,
    have depth and length in their name.
    """

    d_input, d_output = len(VOCABULARY), 10

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        source: str = "drawn",
        seed: int = 0,
        sizes: tuple[int, int, int] = (96_000, 2_000, 2_000),
        workers: int | None = None,
        download: bool = True,
        **shape: int,
    ) -> None:
        super().__init__(data_dir, download=download)
        check_source(source, shape), check_sizes(sizes), check_whole(0, 2**63 - 1, seed=seed)
        self.shape, self.source, self.seed, self.sizes = Shape(**shape), source, seed, (*sizes,)
        self.shape.check()
        self.workers = cores() if workers is None else workers
        check_whole(workers=self.workers)
        self.length, self.name = self.shape.max_length, listops_name(source, self.shape)
        facts = {"draw": 1, "seed": seed, "sizes": self.sizes, **self.shape._asdict()}
        facts = facts if source == "drawn" else {"source": source, "sizes": self.sizes}
        self.shards = shards_in(self.data_dir / "listops", self.name, facts)

    def _write(self) -> None:
        if self.source == "published":
            lists = published_listops(self.data_dir, self.sizes)
        else:
            shape = self.shape._asdict() | {"workers": self.workers}
            lists = generate_listops(sum(self.sizes), self.seed, **shape)
        save_expressions(self.shards, lists, self.sizes)


def check_source(source: str, shape: dict[str, int]) -> None:
    """Raise ValueError unless lists of that source can have that shape."""
    if source not in ("drawn", "published"):
        raise ValueError(f'want source "drawn" or "published", got {source!r}')
    if source == "published" and shape:
        got = ", ".join(f"{name}={n}" for name, n in shape.items())
        raise ValueError(f"want published lists as they are, without a shape; got {got}")


def listops_name(source: str, shape: Shape) -> str:
    """What a task of such lists is called."""
    if source == "published":
        return "listops-published"
    other = f"-depth{shape.max_depth}-length{shape.max_length}"
    return "listops" + other * (shape != Shape())
