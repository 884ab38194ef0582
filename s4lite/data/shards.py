"""Arrays on the disk: written whole or not at all, and checked when they are opened.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4lite.data.files import DamagedData, atomic_write, digest_of
from s4lite.data.task import Batch, Splits, Task

__all__ = ["Shards", "TokenSet", "TokenTask", "advice", "open_shard", "shards_in", "verify"]


class Shards:
    """A folder of arrays that belong together, and a list of them that is written last.

    Args:
        folder  path  where; need not exist yet
        facts   dict  what the arrays were made from, as JSON takes it

    Every array is whole as soon as it is there. Processes may write the same folder at once, if
    they write the same bytes; what an earlier one has finished is not made again.
    """

    LIST = "contents.json"

    def __init__(self, folder: str | os.PathLike[str], facts: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.facts = json.loads(json.dumps(facts, default=int))  # numpy's whole numbers are ours

    def contents(self) -> dict[str, dict[str, Any]] | None:
        """The list of arrays, name -> bytes and digest; None if the folder is not finished.

        Raises:
            DamagedData: if the list cannot be read, or is of other facts.
        """
        path = self.folder / self.LIST
        try:
            found = json.loads(path.read_bytes())
            if found["facts"] == self.facts:
                return found["files"]
            why = f"holds {found['facts']}"
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            why = f"cannot be read ({error})"
        raise DamagedData(f"want {path} to hold {self.facts}, but it {why}. {advice(self)}")

    def write(self, name: str, make: Callable[[], np.ndarray]) -> None:
        """Make an array and write it as `name`, unless it is there."""
        path = self.folder / name
        if not _is_whole(path):
            array = np.ascontiguousarray(make())
            atomic_write(path, lambda file: np.save(file, array, allow_pickle=False))

    def finish(self) -> None:
        """Write the list: from now on the folder is complete."""
        paths = sorted(self.folder.glob("*.npy"))
        files = {p.name: {"bytes": p.stat().st_size, "digest": digest_of(p)} for p in paths}
        text = json.dumps({"facts": self.facts, "files": files}, indent=1).encode()
        atomic_write(self.folder / self.LIST, lambda file: file.write(text))


def _is_whole(path: Path) -> bool:
    """Is there an array that can be opened?  (One that was cut short later cannot.)"""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return True


def advice(shards: Shards) -> str:
    """What to do about a damaged folder."""
    return f"It is left as it was; remove {shards.folder} and it will be made again."


def open_shard(shards: Shards, name: str) -> np.ndarray:
    """Open an array of a finished folder without reading it: a memory map.

    Args:
        shards  Shards
        name    str     as in its list
    Returns:
        array  read-only
    Raises:
        DamagedData: if it is not there, or has another size than when it was written.
    """
    listed = (shards.contents() or {}).get(name)
    path = shards.folder / name
    got = f"{path.stat().st_size:,} bytes" if path.exists() else "no such file"
    if listed is None or got != f"{listed['bytes']:,} bytes":
        want = f"{listed['bytes']:,} bytes" if listed else "it listed"
        raise DamagedData(f"want {path} with {want}, got {got}. {advice(shards)}")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def verify(shards: Shards) -> None:
    """Read every array of a finished folder and compare its digest; DamagedData names the first."""
    for name, listed in (shards.contents() or {}).items():
        path = open_shard(shards, name) is not None and shards.folder / name
        if (got := digest_of(path)) != listed["digest"]:
            raise DamagedData(f"want {path} with {listed['digest']}, got {got}. {advice(shards)}")


def _batch_of(data: "TokenSet", indices: Sequence[int]) -> Batch:
    """The batch that `pad` makes of these items, in one block from the beginning."""
    rows = data.rows[np.asarray(indices, dtype=np.int64)]
    k = (data.each * rows + np.arange(data.each)[:, None]).ravel()  # all a, then all b
    ends, tokens = (data._array(x).view(np.ndarray) for x in ("ends", "tokens"))
    stop, start = ends[k], np.where(k > 0, ends[k - 1], 0)
    lengths = (stop - start + 1).astype(np.int64)
    u = np.zeros((len(k), lengths.max()), np.int64)
    for row, a, b in zip(u, start.tolist(), stop.tolist(), strict=True):
        row[: b - a], row[b - a] = tokens[a:b], 2  # <eos>, in every vocabulary of ours
    y = torch.from_numpy(data._array("y")[rows].astype(np.int64))
    even = bool((lengths == lengths[0]).all())
    return Batch(torch.from_numpy(u), y, None if even else torch.from_numpy(lengths))


class TokenSet(Dataset):
    """Sequences of tokens on the disk, and what is asked of each: items (u (L,) int64, y).

    Args:
        shards  Shards      holds "<split>-tokens.npy", "-ends.npy" and "-y.npy"
        split   str         "train", "val", "test"
        pairs   bool        two sequences an item: u is a tuple of them
        rows    (n,) | None  which items, and in which order; None: all

    An <eos> is put behind each sequence; `lengths` (n,) counts it, and of pairs the longer one. A
    copy sent to another process takes no data along, and opens the files there.
    """

    def __init__(
        self, shards: Shards, split: str, *, pairs: bool = False, rows: Tensor | None = None
    ) -> None:
        self.shards, self.split, self.each = shards, split, 2 if pairs else 1
        sizes = np.diff(self._array("ends"), prepend=0) + 1
        if len(sizes) != self.each * len(self._array("y")):
            raise DamagedData(f"want as many ends as labels in {split}. {advice(shards)}")
        self.rows = np.arange(len(self._array("y"))) if rows is None else np.asarray(rows)
        self.lengths = sizes.reshape(-1, self.each).max(1)[self.rows]

    def _array(self, part: str) -> np.ndarray:
        name = f"_{part}"
        if name not in self.__dict__:
            self.__dict__[name] = open_shard(self.shards, f"{self.split}-{part}.npy")
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor | tuple[Tensor, ...], Tensor]:
        row = int(self.rows[i])
        u = tuple(self._sequence(self.each * row + side) for side in range(self.each))
        return u if self.each > 1 else u[0], torch.tensor(int(self._array("y")[row]))

    def _sequence(self, k: int) -> Tensor:
        ends = self._array("ends")
        tokens = self._array("tokens")[int(ends[k - 1]) if k else 0 : int(ends[k])]
        u = torch.full((len(tokens) + 1,), 2)  # <eos>, in every vocabulary of ours
        u[:-1] = torch.from_numpy(tokens.astype(np.int64))
        return u

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once, as `pad` makes it of the items; a DataLoader asks for it."""
        return _batch_of(self, indices)


def shards_in(data_dir: Path, name: str, facts: dict[str, Any]) -> Shards:
    """The folder of what is made from these facts, below data_dir: other facts, other folder."""
    text = json.dumps(facts, sort_keys=True, default=int).encode()
    return Shards(data_dir / f"{name}-{hashlib.sha256(text).hexdigest()[:10]}", facts)


class TokenTask(Task):
    """What tasks have in common that write tokens into `shards` once, by their own `_write`."""

    tokens = True
    shards: Shards

    def _write(self) -> None:
        raise NotImplementedError

    def prepare(self) -> None:
        """Write the tokens of all splits, unless they are there."""
        if self.shards.contents() is None:
            self._write()
            self.shards.finish()

    def splits(self) -> Splits:
        """Train, val and test: items of tokens (length,), or of two such, and label."""
        self.prepare()
        names = ("train", "val", "test")
        return Splits(*(TokenSet(self.shards, name, pairs=self.pairs) for name in names))
