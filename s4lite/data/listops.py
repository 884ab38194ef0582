"""ListOps: nested lists of digits under MIN, MAX, MED and SM (sum modulo 10), to be evaluated.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import contextlib
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s4lite.data.draws import check_sizes, check_whole, child
from s4lite.data.files import DamagedData
from s4lite.data.shards import Shards, TokenTask, shards_in
from s4lite.data.trees import CLOSE, DIGIT, OPERATOR, VOCABULARY, Shape, fold, grow, keep, write_out
from s4lite.data.workers import cores, in_order, progress

__all__ = [
    "Expressions",
    "ListOps",
    "evaluate",
    "generate_listops",
    "read_listops",
    "save_expressions",
]


class Expressions(NamedTuple):
    """Expressions end to end, and what they are worth.

    tokens    (total,)  uint8  places in `VOCABULARY`, without <eos>
    ends      (count,)  int64  expression i is tokens[ends[i - 1] : ends[i]]
    values    (count,)  uint8  0 to 9
    attempts  int              trees drawn to get them
    """

    tokens: np.ndarray
    ends: np.ndarray
    values: np.ndarray
    attempts: int

    def expression(self, i: int) -> np.ndarray:
        """The tokens (length,) of expression i >= 0."""
        return self.tokens[self.ends[i - 1] if i else 0 : self.ends[i]]


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


def evaluate(tokens: Sequence[int] | np.ndarray) -> int:
    """Say what one expression is worth, with a stack.

    Args:
        tokens  (length,)  places in `VOCABULARY`; nothing behind its end
    Returns:
        int  0 to 9
    Raises:
        ValueError: if the tokens are no expression.
    """
    open_lists: list[list[int]] = [[]]
    for k, token in enumerate(np.asarray(tokens).tolist()):
        if DIGIT <= token < OPERATOR:
            open_lists[-1].append(token - DIGIT)
        elif OPERATOR <= token < CLOSE:
            open_lists.append([token])
        elif token == CLOSE and len(open_lists) > 1 and len(open_lists[-1]) > 1:
            operator, *args = open_lists.pop()
            open_lists[-1].append(
                int(fold(*np.array([[operator], [len(args)]]), np.array(args))[0])
            )
        else:
            raise ValueError(f"want an expression, got token {token} at {k}")
    if len(open_lists) > 1 or len(open_lists[0]) != 1:
        raise ValueError("want one expression, whole, got something else")
    return open_lists[0][0]


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
        data_dir   path | None  where the drawn expressions are kept
        seed       int          of the draw
        sizes      (3,)         of train, val, test
        workers    int | None   processes that draw; None for all cores
        download   bool         unused: nothing is downloaded
        shape      int          max_depth, max_args, min_length, max_length of `generate_listops`
    Raises:
        TypeError, ValueError: if an argument is not as said.

    The published task has the default shape and sizes, and another seed. Other shapes, for small
    machines, have depth and length in their name.
    """

    d_input, d_output = len(VOCABULARY), 10

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        sizes: tuple[int, int, int] = (96_000, 2_000, 2_000),
        workers: int | None = None,
        download: bool = True,
        **shape: int,
    ) -> None:
        super().__init__(data_dir, download=download)
        self.shape = Shape(**shape)
        self.shape.check()
        check_whole(0, 2**63 - 1, seed=seed), check_sizes(sizes)
        self.workers = cores() if workers is None else workers
        check_whole(workers=self.workers)
        self.seed, self.sizes, self.length = seed, tuple(sizes), self.shape.max_length
        other = f"-depth{self.shape.max_depth}-length{self.length}"
        self.name = "listops" if self.shape == Shape() else "listops" + other
        facts = {"draw": 1, "seed": seed, "sizes": self.sizes, **self.shape._asdict()}
        self.shards = shards_in(self.data_dir / "listops", self.name, facts)

    def _write(self) -> None:
        shape = self.shape._asdict()
        drawn = generate_listops(sum(self.sizes), self.seed, workers=self.workers, **shape)
        save_expressions(self.shards, drawn, self.sizes)


def read_listops(path: str | os.PathLike[str]) -> Expressions:
    """Read a published file, basic_train.tsv and the like: lines of Source, tab, Target.

    Round brackets are left out, and "]" is read as X.

    Args:
        path  path
    Returns:
        Expressions  attempts is their number
    Raises:
        FileNotFoundError: if there is no such file.
        DamagedData: if a line is not of this form.
    """
    place = {word: i for i, word in enumerate(VOCABULARY)} | {"]": CLOSE}
    rows, values = [], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            source, _, target = line.rstrip("\n").partition("\t")
            if number == 1 and source == "Source":
                continue
            words = source.replace("(", " ").replace(")", " ").split()
            if target not in {*"0123456789"} or not words or not {*words} <= {*place}:
                raise DamagedData(
                    f"want an expression, a tab and a digit in line {number} of {path}"
                )
            rows.append(np.array([place[word] for word in words], np.uint8))
            values.append(int(target))
    if not rows:
        raise DamagedData(f"want expressions in {path}, got none")
    ends = np.cumsum([len(row) for row in rows])
    return Expressions(np.concatenate(rows), ends, np.array(values, np.uint8), len(rows))
