"""Random trees of operators and digits: grown, written out and evaluated many at a time.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

from typing import NamedTuple

import numpy as np

from s4lite.data.draws import below, check_whole, child, unit

__all__ = [
    "CLOSE",
    "DIGIT",
    "EOS",
    "OPERATOR",
    "VOCABULARY",
    "Level",
    "Shape",
    "fold",
    "grow",
    "keep",
    "measure",
    "write_out",
]


VOCABULARY = ("<pad>", "<unk>", "<eos>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "X")
EOS = 2  # places in VOCABULARY: of "<eos>",
DIGIT = 3  # of "0", with the other digits behind it,
OPERATOR = 13  # of "[MIN", with the other operators behind it,
CLOSE = 17  # and of "X", which ends a list


class Level(NamedTuple):
    """The nodes of many trees at one depth; siblings stand side by side, in the parents' order.

    tree    (n,)  whose node it is
    parent  (n,)  index on the level above
    symbol  (n,)  token: a digit or an operator
    args    (n,)  number of children, 0 for a digit
    """

    tree: np.ndarray
    parent: np.ndarray
    symbol: np.ndarray
    args: np.ndarray


class Shape(NamedTuple):
    """Which trees are wanted: at most so deep and wide, lengths strictly between.  [tokens]"""

    max_depth: int = 10
    max_args: int = 10
    min_length: int = 500
    max_length: int = 2000

    def check(self) -> None:
        """Raise TypeError or ValueError unless there are trees of this shape."""
        check_whole(2, 30, max_depth=self.max_depth)
        check_whole(2, 100, max_args=self.max_args)
        check_whole(0, 10**6, min_length=self.min_length, max_length=self.max_length)
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = min(2 + self.max_args * longest, 10**7)
        if not self.min_length + 1 < self.max_length or longest <= self.min_length:
            raise ValueError(
                f"want min_length + 1 < max_length, and trees so long (the longest has {longest}); "
                f"got min_length {self.min_length}, max_length {self.max_length}"
            )


def grow(keys: np.ndarray, shape: Shape) -> tuple[list[Level], np.ndarray]:
    """Grow a tree from each key, level by level, all trees at once.

    Args:
        keys   (n,)   uint64, see `child`
        shape  Shape  a tree that has reached max_length stops growing: it is lost already
    Returns:
        levels  list of Level
        length  (n,)  tokens of each tree

    Source: Nangia and Bowman 2018; our eq-arena-tree.
    """
    n = len(keys)
    tree, parent, length = np.arange(n), np.full(n, -1), np.ones(n, np.int64)
    levels = []
    for depth in range(1, shape.max_depth + 1):
        inner = (unit(child(keys, 0)) <= 0.25) & (depth < shape.max_depth)
        symbol = below(child(keys, 1), np.where(inner, 4, 10)) + np.where(inner, OPERATOR, DIGIT)
        args = np.where(inner, 2 + below(child(keys, 2), shape.max_args - 1), 0)
        length += np.bincount(tree, weights=args + inner, minlength=n).astype(np.int64)
        args[length[tree] >= shape.max_length] = 0
        levels.append(Level(tree, parent, symbol.astype(np.uint8), args))
        parent = np.repeat(np.arange(len(tree)), args)
        if not len(parent):
            break
        nth = np.arange(len(parent)) - np.repeat(np.cumsum(args) - args, args)
        tree, keys = tree[parent], child(keys[parent], 3 + nth)
    return levels, length


def keep(levels: list[Level], wanted: np.ndarray) -> list[Level]:
    """Drop the trees that are not wanted, (trees,) bool, and number the others anew."""
    number, kept, place = np.cumsum(wanted) - 1, [], np.full(1, -1)
    for level in levels:
        here = wanted[level.tree]
        parent = place[level.parent[here]]
        kept.append(Level(number[level.tree[here]], parent, level.symbol[here], level.args[here]))
        place = np.cumsum(here) - 1
    return kept


def fold(symbol: np.ndarray, args: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Apply operators to their lists of values.

    Args:
        symbol  (m,)               operators, as tokens
        args    (m,)               lengths of their lists, >= 1
        values  (sum of args, ...)  the lists, end to end, each value 0 to 9
    Returns:
        values  (m, ...)  int64; a median between two values is rounded down
    """
    first, out = np.cumsum(args) - args, np.empty((len(args), *values.shape[1:]), np.int64)
    node = np.repeat(np.arange(len(args)), args).reshape(-1, *[1] * (values.ndim - 1))
    ordered = np.sort(values + 16 * node, axis=0) % 16  # in order within each list
    low, high = ordered[first + (args - 1) // 2], ordered[first + args // 2]
    sums = np.add.reduceat(values, first, axis=0) % 10
    results = (ordered[first], ordered[first + args - 1], (low + high) // 2, sums)
    for which, result in enumerate(results):
        mine = symbol == OPERATOR + which
        out[mine] = result[mine]
    return out


def measure(levels: list[Level]) -> tuple[list[np.ndarray], np.ndarray]:
    """Size in tokens of every subtree, a list of (n,), one a level; and the trees' values."""
    sizes: list[np.ndarray] = []
    values, lower = np.zeros(0, np.int64), np.zeros(0)
    for depth in reversed(range(len(levels))):
        level = levels[depth]
        inner, value = level.args > 0, level.symbol.astype(np.int64) - DIGIT
        size = 1 + inner.astype(np.int64)
        if inner.any():
            value[inner] = fold(level.symbol[inner], level.args[inner], values)
            size += np.bincount(levels[depth + 1].parent, lower, len(size)).astype(np.int64)
        sizes, values, lower = [size, *sizes], value, size
    return sizes, values.astype(np.uint8)


def write_out(levels: list[Level]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write trees out: tokens (total,) uint8, ends (trees,) int64, values (trees,) uint8."""
    sizes, values = measure(levels)
    ends = np.cumsum(sizes[0])
    tokens, start = np.full(sizes[0].sum(), CLOSE, np.uint8), ends - sizes[0]
    for depth, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        if depth:
            before = np.cumsum(size) - size
            eldest = np.searchsorted(level.parent, level.parent)  # siblings stand side by side
            start = start[level.parent] + 1 + before - before[eldest]
        tokens[start] = level.symbol
    return tokens, ends, values
