"""What every task says of itself, and how its sequences become batches.

Home: chapter 17, "Pixels" (chapters/17_pixels.ipynb).
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from s4lite.data.files import Source, data_folder, fetch

__all__ = ["Batch", "Splits", "Task", "pad", "split_at"]


class Batch(NamedTuple):
    """Sequences in one block, as a model takes them.

    u        (batch, L, d) or (batch, L)  numbers, or int64 tokens; zeros behind their ends
    y        (batch, ...)                 what is asked
    lengths  (batch,) | None              int64; None if all are L long
    """

    u: Tensor
    y: Tensor
    lengths: Tensor | None


class Splits(NamedTuple):
    """Three data sets of pairs (u, y); the test is for the end."""

    train: Dataset
    val: Dataset
    test: Dataset


def pad(items: Sequence[tuple[Any, Any]]) -> Batch:
    """Put sequences into one block, with zeros behind the shorter ones.

    Args:
        items  of (u, y)  u (L_i, d) or (L_i,), L_i >= 1; in tasks of pairs u = (a, b), two of
                          these; y numbers or tensors, all of one shape
    Returns:
        Batch  of as many rows; of pairs: all a, then all b, so u and lengths have 2 batch rows
    Raises:
        TypeError, ValueError: if there are none, or they do not fit together.
    """
    if not len(items):
        raise ValueError("want at least one item, got none")
    inputs = [u if isinstance(u, tuple) else (u,) for u, _ in items]
    if (sides := {len(u) for u in inputs}) not in ({1}, {2}):
        raise ValueError(f"want either pairs or single sequences, got {sorted(sides)} an item")
    rows = [u for side in zip(*inputs, strict=True) for u in side]
    if not all(isinstance(u, Tensor) for u in rows):
        raise TypeError("want sequences as tensors")
    forms = {(u.dtype, u.ndim, tuple(u.shape[1:])) for u in rows}
    lengths = torch.tensor([len(u) if u.ndim else 0 for u in rows], device=rows[0].device)
    if len(forms) > 1 or lengths.min() < 1:
        got = ", ".join(sorted({f"{u.dtype} {tuple(u.shape)}" for u in rows})[:4])
        raise ValueError(f"want sequences of one kind, with at least one sample, got {got}")
    targets = [torch.as_tensor(y) for _, y in items]
    if len(shapes := {tuple(y.shape) for y in targets}) > 1:
        raise ValueError(f"want targets of one shape, got {sorted(shapes)[:4]}")
    y = torch.stack(targets)
    even = bool((lengths == lengths[0]).all())
    return Batch(pad_sequence(rows, batch_first=True), y, None if even else lengths)


def split_at(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Part 0, ..., n - 1 at random in two: the same way on every machine, at any time.

    Args:
        n      int    how many, >= 2
        share  float  of them that go into the second part, 0 < share < 1, rounded to whole items
        seed   int    which parting; torch's own random state is neither read nor changed
    Returns:
        first   (n - round(share n),)  indices in random order, int64
        second  (round(share n),)      the others
    Raises:
        TypeError, ValueError: if a number is not as said, or a part would be empty.
    """
    for name, number in (("n", n), ("seed", seed)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"want {name} as an int, got {type(number).__name__}")
    if not 0 < share < 1:
        raise ValueError(f"want 0 < share < 1, got {share}")
    held = round(n * share)
    if not 0 < held < n:
        raise ValueError(f"want something in both parts, got {n - held} and {held} of {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")
    return order[: n - held], order[n - held :]


class Task:
    """A task: what it asks, and where its data comes from. The base of all of them.

    Args:
        data_dir  path | None  folder with the published files; None for the user's cache
        download  bool         False: never download
    Raises:
        NotADirectoryError: if data_dir is no folder.

    name, metric  str   how the task and its score are called, "smnist" and "accuracy"
    d_input       int   numbers a sample; or, if `tokens`, size of the vocabulary
    d_output      int   numbers asked for, or classes
    length        int   samples of the longest sequence
    tokens        bool  inputs are whole numbers that stand for symbols
    pairs         bool  an input is a pair of sequences, see `pad`
    """

    name: str
    d_input: int
    d_output: int
    length: int
    metric: str = "accuracy"
    tokens: bool = False
    pairs: bool = False

    def __init__(
        self, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True
    ) -> None:
        self.data_dir, self.download = data_folder(data_dir), download

    def sources(self) -> tuple[Source, ...]:
        """The published files that it is made of; none if it is generated."""
        return ()

    def prepare(self) -> None:
        """Download or generate what is not there yet, whole or not at all."""
        for source in self.sources():
            fetch(source, self.data_dir, download=self.download)

    def splits(self) -> Splits:
        """The three data sets; prepares them if need be."""
        raise NotImplementedError

    def collate(self, items: Sequence[tuple[Any, Any]] | Batch) -> Batch:
        """Make a batch of items; a data set may have done so itself."""
        return items if isinstance(items, Batch) else pad(items)

    def __repr__(self) -> str:
        kind = f"{self.d_input} symbols" if self.tokens else f"{self.d_input} a sample"
        return f"<{self.name}: {self.length:,} x {kind} to {self.d_output}>"
