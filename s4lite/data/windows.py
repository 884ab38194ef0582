"""A long text in windows: side by side to train on, overlapping to be scored on once.

Home: chapter 21, "Language" (chapters/21_language.ipynb).
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4lite.data.draws import check_whole
from s4lite.data.task import Batch

__all__ = ["TextWindows", "check_windows", "scored_once", "side_by_side"]


def scored_once(n: int, length: int, context: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lay windows over a text so that each symbol is asked for once, with context before it.

    Args:
        n        int  symbols that are asked for, >= length
        length   int  L, symbols a window
        context  int  c: asked symbols have at least so many before them in their window, or else
            all that there are; 0 <= c < L
    Returns:
        starts  (K,)  where windows begin, int64; K = 1 + ceil((n - L) / (L - c))
        first   (K,)  the first place of each window that is asked for, int64
    Raises:
        TypeError, ValueError: if a number is not as said.

    Source: our eq-language-windows.
    """
    (
        check_whole(length=length),
        check_whole(length, n=n),
        check_whole(0, length - 1, context=context),
    )
    step = length - context
    ends = np.minimum(length + step * np.arange(1 + -(-(n - length) // step)), n)
    return ends - length, np.concatenate([[0], ends[:-1]]) - (ends - length)


def side_by_side(n: int, length: int, stride: int | None = None) -> np.ndarray:
    """Where windows begin that are laid over a text for training.

    Args:
        n       int         symbols that are asked for, >= length
        length  int         L, symbols a window
        stride  int | None  from one window to the next; None: L
    Returns:
        starts  (K,)  int64; what is left at the end, fewer than `stride` symbols, is not used
    Raises:
        TypeError, ValueError: if a number is not as said.
    """
    stride = length if stride is None else stride
    check_whole(length=length, stride=stride), check_whole(length, n=n)
    return np.arange(0, n - length + 1, stride)


def check_windows(starts: np.ndarray, length: int, first: np.ndarray, n: int) -> None:
    """Raise TypeError or ValueError unless windows lie in a text of n + 1 symbols."""
    check_whole(length=length)
    for name, each in (("starts", starts), ("first", first)):
        if each.ndim != 1 or (len(each) and each.dtype.kind not in "iu"):
            raise TypeError(f"want {name} (K,) of ints, got {each.dtype} {each.shape}")
    if len(first) != len(starts):
        raise ValueError(f"want first for each of {len(starts)} windows, got {len(first)}")
    if len(starts) and not 0 <= starts.min() <= starts.max() <= n - length:
        raise ValueError(f"want windows of {length} inside {n} symbols, got others")
    if len(first) and not 0 <= first.min() <= first.max() <= length:
        raise ValueError(f"want first from 0 to {length}, got {first.min()} to {first.max()}")


class TextWindows(Dataset):
    """Windows of a text: items (u (L,), y (L,)), int64, y one symbol ahead of u.

    Args:
        text    (n + 1,) | callable  symbols, the first of them never asked for; or what opens them
        starts  (K,)                 where windows begin, 0 .. n - L
        length  int                  L
        first   (K,) | None          y is -100 at the places of a window before this one
    Raises:
        TypeError, ValueError: if a window does not lie in the text, or an argument is not as said.

    Source: our eq-language-windows.
    """

    def __init__(
        self,
        text: np.ndarray | Callable[[], np.ndarray],
        starts: np.ndarray,
        length: int,
        first: np.ndarray | None = None,
    ) -> None:
        self.text, self.starts, self.length = text, np.asarray(starts), length
        self.first = np.zeros_like(self.starts) if first is None else np.asarray(first)
        check_windows(self.starts, length, self.first, len(self.symbols) - 1)

    @property
    def symbols(self) -> np.ndarray:
        """The text, opened when it is first needed."""
        if "_symbols" not in self.__dict__:
            self._symbols = self.text() if callable(self.text) else self.text
        return self._symbols

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_symbols"}

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        batch = self.__getitems__([range(len(self))[k]])
        return batch.u[0], batch.y[0]

    def __getitems__(self, rows: Iterable[int]) -> Batch:
        rows = np.asarray(list(rows), dtype=np.int64)
        cuts = [self.symbols[a : a + self.length + 1] for a in self.starts[rows]]
        block = torch.from_numpy(np.stack(cuts).astype(np.int64))
        silent = torch.arange(self.length) < torch.from_numpy(self.first[rows])[:, None]
        return Batch(block[:, :-1].contiguous(), block[:, 1:].masked_fill(silent, -100), None)
