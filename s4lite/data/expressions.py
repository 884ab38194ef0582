"""Nested lists of digits under MIN, MAX, MED and SM (sum modulo 10): kept, evaluated, and read.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s4lite.data.files import DamagedData
from s4lite.data.trees import CLOSE, DIGIT, OPERATOR, VOCABULARY

__all__ = ["Expressions", "evaluate", "read_listops"]


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


def _worth(operator: int, args: list[int]) -> int:
    """What one list is worth, in plain Python; nothing here is shared with `fold`."""
    ordered, n = sorted(args), len(args)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) // 2
    return (ordered[0], ordered[-1], middle, sum(args) % 10)[operator - OPERATOR]


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
            open_lists[-1].append(_worth(operator, args))
        else:
            raise ValueError(f"want an expression, got token {token} at {k}")
    if len(open_lists) > 1 or len(open_lists[0]) != 1:
        raise ValueError("want one expression, whole, got something else")
    return open_lists[0][0]


_SYMBOLS = {word: DIGIT + i for i, word in enumerate(VOCABULARY[DIGIT:CLOSE])} | {"]": CLOSE}


def _read_line(line: str) -> tuple[np.ndarray, int]:
    """Tokens and value of a line of Source, tab, Target; ValueError if that is not what it is."""
    source, _, target = line.rstrip("\r\n").partition("\t")
    words = source.replace("(", " ").replace(")", " ").split()
    if unknown := sorted({*words} - {*_SYMBOLS}):
        raise ValueError(f"want digits, operators and brackets, got {unknown[0]!r:.20}")
    if target not in {*"0123456789"}:
        raise ValueError(f"want a digit behind the tab, got {target!r:.20}")
    tokens = np.array([_SYMBOLS[word] for word in words], np.uint8)
    if (value := evaluate(tokens)) != int(target):
        raise ValueError(f"want {value}, which it is worth, got {target}")
    return tokens, value


def read_listops(path: str | os.PathLike[str]) -> Expressions:
    """Read a published file, basic_train.tsv and the like: lines of Source, tab, Target.

    Round brackets are left out, and "]" is read as X. Every expression is evaluated anew.

    Args:
        path  path
    Returns:
        Expressions  attempts is their number
    Raises:
        FileNotFoundError: if there is no such file.
        DamagedData: if a line is not of this form, or its value is not that of its expression.
    """
    rows, values = [], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith("Source\t"):
                continue
            try:
                tokens, value = _read_line(line)
            except ValueError as error:
                where = f"want an expression, a tab and its value in line {number} of {path}"
                raise DamagedData(f"{where}; {error}") from error
            rows.append(tokens)
            values.append(value)
    if not rows:
        raise DamagedData(f"want expressions in {path}, got none")
    ends = np.cumsum([len(row) for row in rows])
    return Expressions(np.concatenate(rows), ends, np.array(values, np.uint8), len(rows))
