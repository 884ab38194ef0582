"""What a recipe walks on: its task, found by name, and a part of a task.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from s4lite.data.draws import check_whole
from s4lite.data.task import Batch, Splits, Task
from s4lite.recipes.catalogue import Recipe, Size

__all__ = ["Part", "Rows", "load", "task_for"]


class Rows(Dataset):
    """Some sequences of a data set, in its order; draws no random numbers of torch's.

    Args:
        data   Dataset     with n items
        count  int | None  how many, drawn once and for all; None, or n and more: all
    """

    def __init__(self, data: Dataset, count: int | None) -> None:
        lot = torch.Generator().manual_seed(16)
        order = torch.randperm(len(data), generator=lot, device="cpu")
        self.data, self.rows = data, order[:count].sort().values
        if (lengths := getattr(data, "lengths", None)) is not None:
            self.lengths = np.asarray(lengths)[self.rows.numpy()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.data[int(self.rows[i])]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """A whole batch at once, where the data set can; otherwise its items."""
        rows = self.rows[torch.as_tensor(indices)].tolist()
        whole = getattr(self.data, "__getitems__", None)
        return [self.data[row] for row in rows] if whole is None else whole(rows)


class Part(Task):
    """A task with fewer sequences; in all else the task itself.

    Args:
        whole             Task        the task
        train, val, test  int | None  how many of each split are used; None: all
    Raises:
        TypeError, ValueError: if a number is no int, or < 1.
    """

    def __init__(
        self, whole: Task, train: int | None = None, val: int | None = None, test: int | None = None
    ) -> None:
        super().__init__(whole.data_dir, download=whole.download)
        self.whole, self.counts = whole, (train, val, test)
        given = {k: n for k, n in zip(Splits._fields, self.counts, strict=True) if n is not None}
        check_whole(**given)
        for name in ("name", "length", "metric", "tokens", "pairs"):
            setattr(self, name, getattr(whole, name))

    @property
    def d_input(self) -> int:
        """The task's; some have to be prepared to know it."""
        return self.whole.d_input

    @property
    def d_output(self) -> int:
        """The task's."""
        return self.whole.d_output

    def sources(self) -> tuple[Any, ...]:
        """The task's published files."""
        return self.whole.sources()

    def prepare(self) -> None:
        """Prepare the task."""
        self.whole.prepare()

    def splits(self) -> Splits:
        """Rows of the task's splits."""
        parts = zip(self.whole.splits(), self.counts, strict=True)
        return Splits(*(data if n is None else Rows(data, n) for data, n in parts))

    def collate(self, items: Sequence[tuple[Any, Any]] | Batch) -> Batch:
        """The task's way to make a batch."""
        return self.whole.collate(items)

    def __repr__(self) -> str:
        asked = zip(Splits._fields, self.counts, strict=True)
        text = ", ".join(f"{n:,} to {name}" for name, n in asked if n is not None)
        return f"{self.whole!r}, of it {text or 'all'}"


def load(place: str) -> Any:
    """Find a class or function of this package by its place, such as "data.pixels:LRAImage".

    Raises:
        NotImplementedError: if this version of s4lite has no such thing.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(f"s4lite.{module}"), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if not f"{error.name}".startswith("s4lite") and error.name != name:
            raise  # something else is missing, which says itself what
        version = importlib.import_module("s4lite").__version__
        said = f"want s4lite.{module}.{name}, which is not in this version of s4lite ({version})"
        raise NotImplementedError(said) from error


def task_for(
    recipe: Recipe,
    size: Size,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
) -> Task:
    """Make the task of a recipe, of which a size may want a part. Nothing is read or written.

    Args:
        recipe    Recipe
        size      Size         one of its own, or a changed one
        data_dir  path | None  folder with the published files; None for the user's cache
        download  bool         False: never download
    Returns:
        Task  a `Part` where size says so
    Raises:
        NotImplementedError: if the task is not in this version of s4lite.
        TypeError, ValueError: as the task does for its options.
    """
    task = load(size.made_by or recipe.task)(data_dir, download=download, **size.task)
    counts = (size.train, size.val, size.test)
    return task if counts == (None, None, None) else Part(task, *counts)
