"""What a predictor scores that knows only the top of each tree: rungs to read results against.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import numpy as np

from s4lite.data.draws import below, check_whole, child
from s4lite.data.expressions import Expressions
from s4lite.data.trees import CLOSE, DIGIT, OPERATOR, Level, fold

__all__ = ["known_to_depth", "node_values", "read_levels"]


def read_levels(expressions: Expressions) -> list[Level]:
    """Read the trees back from their tokens, all at once: the reverse of `write_out`."""
    tokens, levels, above = expressions.tokens, [], np.zeros(0, np.int64)
    opens, closes = (tokens >= OPERATOR) & (tokens < CLOSE), tokens == CLOSE
    depth = np.cumsum(opens) - np.cumsum(closes) + ~opens  # of nodes, from 1
    tree = np.repeat(np.arange(len(expressions.ends)), np.diff(expressions.ends, prepend=0))
    for d in range(1, int(depth[~closes].max()) + 1):
        at = np.flatnonzero((depth == d) & ~closes)
        lists = np.flatnonzero(opens[above])
        parent = lists[np.searchsorted(above[lists], at) - 1] if d > 1 else np.full(len(at), -1)
        if d > 1:
            args = np.bincount(parent, minlength=len(above))
            levels[-1] = levels[-1]._replace(args=args)
        levels.append(Level(tree[at], parent, tokens[at], np.zeros(len(at), np.int64)))
        above = at
    return levels


def node_values(levels: list[Level]) -> list[np.ndarray]:
    """What every node is worth: a list of (n,), one a level."""
    values: list[np.ndarray] = []
    for level in reversed(levels):
        value, inner = level.symbol.astype(np.int64) - DIGIT, level.args > 0
        if inner.any():
            value[inner] = fold(level.symbol[inner], level.args[inner], values[0])
        values.insert(0, value)
    return values


def _guesses(
    level: Level, theirs: list[Level], depth: int, draws: int, key: np.ndarray
) -> np.ndarray:
    """Values (n, draws) of a level's nodes: its digits, and for lists what is usual there."""
    values = np.repeat(level.symbol.astype(np.int64)[:, None] - DIGIT, draws, axis=1)
    kinds = [(OPERATOR, CLOSE)] if depth else [(each, each) for each in range(OPERATOR, CLOSE)]
    for low, high in kinds:  # lists that are taken for each other
        where = np.flatnonzero((level.symbol >= low) & (level.symbol <= high))
        if not len(where):
            continue
        symbol = theirs[0].symbol if theirs else np.zeros(0)
        source = np.flatnonzero((symbol >= low) & (symbol <= high))
        if not len(source):
            raise ValueError(f"want a pool in which such lists occur at depth {depth}, got none")
        places = child(child(key, where[:, None]), np.arange(draws))
        values[where] = node_values(theirs)[0][source][below(places, len(source))]
    return values


def known_to_depth(
    expressions: Expressions, pool: Expressions, depth: int, *, draws: int = 64, seed: int = 0
) -> float:
    """Score the guess of who knows the trees down to a depth, and below it only what is usual.

    Args:
        expressions  Expressions  to be guessed
        pool         Expressions  others of the same kind, from which is learned what is usual
        depth        int          0: knows the root's operator; k: knows all nodes less than k below
            the root, the digits k below it, and where there is a list
        draws, seed  int          guesses of the unknown lists, and which ones
    Returns:
        float  share of expressions whose most frequent outcome is right
    Raises:
        TypeError, ValueError: if a number is not as said, or the pool has no such lists.
    """
    check_whole(0, depth=depth), check_whole(draws=draws), check_whole(0, 2**63 - 1, seed=seed)
    mine, theirs = read_levels(expressions), read_levels(pool)
    depth = min(depth, len(mine) - 1)
    values = _guesses(mine[depth], theirs[depth:], depth, draws, child(seed, depth))
    for level in reversed(mine[:depth]):
        lists, lower = level.args > 0, values
        values = np.repeat(level.symbol.astype(np.int64)[:, None] - DIGIT, draws, axis=1)
        values[lists] = fold(level.symbol[lists], level.args[lists], lower)
    votes = (values[..., None] == np.arange(10)).sum(1)
    return float((votes.argmax(-1) == expressions.values).mean())
