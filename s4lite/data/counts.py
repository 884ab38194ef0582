"""What counting and compressing know of a text: the floor that a language model stands on.

Home: chapter 21, "Language" (chapters/21_language.ipynb).
"""

import bz2
import functools
import gzip
import lzma
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from s4lite.data.draws import check_whole
from s4lite.data.passages import WindowedText

__all__ = ["Counts", "GramTable", "check_symbols", "grams", "packed", "text_floors"]


def grams(symbols: np.ndarray, V: int, j: int) -> np.ndarray:
    """Write the j + 1 symbols that end at each place as one number in base V.

    Args:
        symbols  (n,)  whole numbers 0 .. V - 1
        V        int   how many kinds there are
        j        int   symbols of context; V^(j + 1) <= 2^64
    Returns:
        keys  (max(n - j, 0),)  uint64; the oldest symbol is the leading digit
    Raises:
        ValueError: if such numbers have no room in 64 bits.
    """
    V = int(V)  # numpy's whole numbers would run over
    if V ** (j + 1) > 2**64:
        raise ValueError(f"want V^(order + 1) <= 2^64, got {V}^{j + 1}")
    keys = np.zeros(max(len(symbols) - j, 0), np.uint64)
    for i in range(j + 1):
        keys *= np.uint64(V)
        keys += symbols[i : i + len(keys)].astype(np.uint64)
    return keys


class GramTable:
    """How often each symbol came after each context of one length.

    Args:
        symbols  (n,)  the training text, n > j
        V        int   kinds of symbols
        j        int   symbols of context
    Raises:
        ValueError: if there are too few symbols, or V^(j + 1) > 2^64.
    """

    def __init__(self, symbols: np.ndarray, V: int, j: int) -> None:
        if len(symbols) <= j:
            raise ValueError(f"want more than {j} symbols to count, got {len(symbols)}")
        self.keys, self.count = np.unique(grams(symbols, V, j), return_counts=True)
        self.contexts, begin, self.kinds = np.unique(
            self.keys // np.uint64(V), return_index=True, return_counts=True
        )
        self.seen = np.add.reduceat(self.count, begin)

    def look_up(self, keys: np.ndarray, V: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c(hs), c(h), T(h) of keys hs (m,), each (m,); zeros where they were never seen."""
        hs, has = _places(self.keys, keys)
        h, knows = _places(self.contexts, keys // np.uint64(V))
        return self.count[hs] * has, self.seen[h] * knows, self.kinds[h] * knows


def _places(found: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where keys stand in a sorted list, and whether they do."""
    at = np.minimum(np.searchsorted(found, keys), len(found) - 1)
    return at, found[at] == keys


def check_symbols(symbols: Any, V: int) -> np.ndarray:
    """Return symbols (n,) as an array; raise unless they are whole numbers 0 .. V - 1.

    Raises:
        TypeError: if they are no whole numbers in one row.
        ValueError: if one is out of range; the first is named.
    """
    symbols = np.asarray(symbols)
    if symbols.ndim != 1 or (len(symbols) and symbols.dtype.kind not in "iu"):
        raise TypeError(f"want symbols (n,) of ints, got {symbols.dtype} {symbols.shape}")
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < V:
        strange = symbols[int(np.argmax((symbols < 0) | (symbols >= V)))]
        raise ValueError(f"want symbols 0 .. {V - 1}, got {strange}")
    return symbols if len(symbols) else symbols.astype(np.int64)


class Counts:
    """A model that counts: the next symbol's chances, by contexts of 0 .. order symbols.

    Args:
        symbols  (n,)  the training text, whole numbers 0 .. V - 1; n > order
        V        int   kinds of symbols, >= 1
        order    int   symbols of the longest context, >= 0; V^(order + 1) <= 2^64
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Witten and Bell 1991 (method C); our eq-language-backoff.
    """

    def __init__(self, symbols: np.ndarray, V: int, order: int) -> None:
        check_whole(V=V), check_whole(0, order=order)
        self.V, self.order = int(V), int(order)
        symbols = check_symbols(symbols, self.V)
        if len(symbols) <= order:
            raise ValueError(f"want more than {order} symbols to count, got {len(symbols)}")
        _ = grams(symbols[:0], self.V, self.order)  # refused before anything is counted
        self.tables = [GramTable(symbols, self.V, j) for j in range(self.order + 1)]

    def bits(self, symbols: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Surprise -log2 p at each symbol of a text (m,), given those before it: (m,).

        known (m,): how many of those before may be used at each place; None: all of them.
        """
        symbols = check_symbols(symbols, self.V)
        if known is not None and np.shape(known) != symbols.shape:
            raise ValueError(f"want known {symbols.shape}, got {np.shape(known)}")
        p = np.full(len(symbols), 1 / self.V)
        for j, table in enumerate(self.tables):
            hs, h, kinds = table.look_up(grams(symbols, self.V, j), self.V)
            use = (h > 0) if known is None else (h > 0) & (np.asarray(known)[j:] >= j)
            p[j:] = np.where(use, (hs + kinds * p[j:]) / np.maximum(h + kinds, 1), p[j:])
        return -np.log2(p)

    def chances(self, history: np.ndarray) -> np.ndarray:
        """Distribution (V,) of the symbol that follows a text (m,); of its end, no more is seen."""
        history = check_symbols(history, self.V)
        end = history[max(0, len(history) - self.order) :]
        p = np.full(self.V, 1 / self.V)
        for table, j in zip(self.tables, range(len(end) + 1), strict=False):
            context = grams(end[len(end) - j :], self.V, j - 1)[0] if j else np.uint64(0)
            keys = context * np.uint64(self.V) + np.arange(self.V, dtype=np.uint64)
            hs, h, kinds = table.look_up(keys, self.V)
            p = (hs + kinds * p) / (h + kinds) if h[0] else p
        return p


def packed(content: bytes, method: str = "xz", given: bytes = b"") -> int:
    """How many bytes a compressor needs for a file, or needs more once it has packed another.

    Args:
        content  bytes  the file
        method   str    "gzip", "bz2" or "xz", each at its strongest
        given    bytes  what it may read first, at no cost
    Returns:
        int
    Raises:
        ValueError: if the method is unknown.

    Another version of zlib, liblzma or bzip2 may write a little more or less. With `given`, gzip
    sees no more than its last 32 kB, and of bz2 the number is no code, only a comparison.
    """
    if method not in ("gzip", "bz2", "xz"):
        raise ValueError(f'want method "gzip", "bz2" or "xz", got {method!r}')
    if method == "gzip":
        pack = functools.partial(gzip.compress, compresslevel=9, mtime=0)
    else:
        pack = bz2.compress if method == "bz2" else functools.partial(lzma.compress, preset=9)
    return len(pack(given + content)) - (len(pack(given)) if given else 0)


def text_floors(
    task: WindowedText, *, orders: Iterable[int] = (0, 1, 2), split: str = "test", past: int = 0
) -> dict[str, float]:
    """What counting and compressing make of a text, in bits per symbol.

    Args:
        task    WindowedText     a task of `s4lite.data.text`
        orders  iterable of int  symbols of context, each for a model that counts the training part
        split   str              what is scored: each symbol once, all of its part before it known
        past    int              symbols at the end of the training part that compressors see first,
            see `packed`
    Returns:
        floors  dict  "uniform", "order 0", ..., "gzip", "bz2", "xz"
    Raises:
        TypeError, ValueError: if an argument is not as said, or V^(order + 1) > 2^64.

    Source: our eq-language-bits, eq-language-backoff.
    """
    orders = list(orders)
    check_whole(0, past=past, **{f"order {i + 1}": k for i, k in enumerate(orders)})
    text, train, V = task.symbols(split), task.symbols("train"), task.d_input
    found = {"uniform": math.log2(V)}
    model = Counts(train, V, max(orders)) if orders else None
    for k in orders:
        found[f"order {k}"] = float(model.bits(text, np.full(len(text), k))[1:].mean())
    given, own = (
        part if isinstance(part, bytes) else part.encode()
        for part in (
            task.decode(train[len(train) - min(past, len(train)) :]),
            task.decode(text[1:]),
        )
    )
    for method in ("gzip", "bz2", "xz"):
        found[method] = 8 * packed(own, method, given) / (len(text) - 1)
    return found
