"""A text as a task: its symbols on the disk, written once, and handed out in windows.

Home: chapter 21, "Language" (chapters/21_language.ipynb).
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from s4lite.data.corpora import Corpus, corpus, read_corpus
from s4lite.data.draws import check_whole
from s4lite.data.files import DamagedData, Source
from s4lite.data.shards import Shards, TokenTask, open_shard, shards_in
from s4lite.data.task import Splits
from s4lite.data.windows import TextWindows, scored_once, side_by_side

__all__ = ["TextPart", "TextTask", "WindowedText", "check_text_options", "numbered"]


def check_text_options(
    length: int, context: int | None, stride: int | None, part: tuple[int, int, int] | None
) -> None:
    """Raise TypeError or ValueError unless the options of `TextPart` fit together."""
    check_whole(length=length)
    if context is not None:
        check_whole(0, length - 1, context=context)
    if stride is not None:
        check_whole(stride=stride)
    if part is not None:
        if len(part) != 3:
            raise ValueError(f"want part as three numbers, of train, val and test, got {part!r}")
        for name, size in zip(("train", "val", "test"), part, strict=True):
            check_whole(**{f"part of {name}": size})


class TextTask(TokenTask):
    """A text as arrays on the disk; the base of the tasks below.

    Args:
        data_dir  path | None   with the published files; None for the user's cache
        text      Corpus | str  which text, or its name as for `corpus`
        facts     dict          what else the arrays depend on
        download  bool          False: never download
    Raises:
        TypeError, ValueError: if the text is unknown, or has not as many files as the task reads.
    """

    files = 1

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None,
        text: Corpus | str,
        *,
        facts: dict[str, Any],
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        self.text = corpus(text) if isinstance(text, str) else text
        if len(self.text.members) != self.files or (self.files == 1 and self.text.sizes is None):
            got = f"{self.text.name} in {len(self.text.members)}"
            raise ValueError(
                f"want a text in {self.files} file(s), parted by sizes if in one, got {got}"
            )
        sources = (*self.text.plain, *filter(None, [self.text.archive]))
        facts = {"files": [s.digest for s in sources], "members": self.text.members} | facts
        facts |= {"sizes": self.text.sizes, "letters": self.text.alphabet.hex()}
        self.shards = shards_in(self.data_dir / "text", self.text.name, facts)

    def sources(self) -> tuple[Source, ...]:
        """What would be downloaded."""
        return self.text.plain if self.text.archive is None else (self.text.archive,)

    def vocabulary(self) -> Sequence[Any]:
        """The symbols, in the order of their numbers; prepares the data if need be."""
        self.prepare()
        return open_shard(self.shards, "vocabulary.npy")

    def _encode(self, contents: tuple[bytes, ...]) -> dict[str, np.ndarray]:
        """Arrays "vocabulary", "bytes" (3,), "train", "val" and "test" out of the files."""
        raise NotImplementedError

    def _write(self) -> None:
        try:
            arrays = self._encode(read_corpus(self.text, self.data_dir, download=self.download))
        except UnicodeDecodeError as error:
            raise DamagedData(f"want {self.text.name} in UTF-8, got a file with {error}") from error
        for name, array in arrays.items():
            self.shards.write(f"{name}.npy", lambda array=array: array)


class TextPart(TextTask):
    """A text, or the beginnings of its parts: which symbol comes next?

    Args:
        data_dir, text  as for `TextTask`
        length     int           symbols a window
        context    int | None    in val and test: what the asked have before them; None: half of L
        stride     int | None    in train, from window to window; None: side by side
        part       tuple | None  at most so many symbols asked for in train, val and test, from the
                                 beginning of each; then the name ends in "-part"
        options    any           facts, download: as for `TextTask`
    Raises:
        TypeError, ValueError: if an argument is not as said.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None,
        text: Corpus | str,
        *,
        length: int,
        context: int | None = None,
        stride: int | None = None,
        part: tuple[int, int, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, text, **options)
        check_text_options(length, context, stride, part)
        self.length, self.stride, self.part = length, stride, part
        self.context = length // 2 if context is None else context
        self.name = self.text.name + ("" if part is None else "-part")

    @property
    def d_input(self) -> int:
        """Kinds of symbols."""
        return len(self.vocabulary())

    @property
    def d_output(self) -> int:
        """Kinds of symbols."""
        return self.d_input


class WindowedText(TextPart):
    """A text in windows; its arguments are those of `TextPart`.

    Each symbol of val and test is asked for exactly once; y is -100 in the context.
    """

    def symbols(self, split: str) -> np.ndarray:
        """The symbols (n + 1,) of "train", "val" or "test"; the first is known, n are asked for."""
        opener = self._opener(split)
        self.prepare()
        return opener()

    def _opener(self, split: str) -> Callable[[], np.ndarray]:
        names = ("train", "val", "test")
        if split not in names:
            raise ValueError(f"want a split among {', '.join(names)}, got {split!r}")
        most = None if self.part is None else self.part[names.index(split)] + 1
        return functools.partial(_open_part, self.shards, f"{split}.npy", most)

    def bits_per_byte(self, bits: float, split: str = "test") -> float:
        """Turn bits per symbol into bits per byte of the published file of a split.

        Source: our eq-language-perplexity; of perplexity take log2 first.
        """
        self._opener(split)  # refuses what is no split
        self.prepare()
        asked = len(open_shard(self.shards, f"{split}.npy")) - 1
        size = open_shard(self.shards, "bytes.npy")[("train", "val", "test").index(split)]
        return float(bits * asked / size)

    def splits(self) -> Splits:
        """Train (side by side), val and test (each symbol asked for once): items (u, y)."""
        self.prepare()
        windows = []
        for split in ("train", "val", "test"):
            opener, length = self._opener(split), self.length
            n = len(opener()) - 1
            if n < length:
                raise ValueError(
                    f"want windows of at most {n:,}, the symbols of {split}, got {length}"
                )
            if split == "train":
                windows.append(TextWindows(opener, side_by_side(n, length, self.stride), length))
            else:
                starts, first = scored_once(n, length, self.context)
                windows.append(TextWindows(opener, starts, length, first))
        return Splits(*windows)

    def __repr__(self) -> str:
        what = f"windows of {self.length:,}, scored with {self.context:,} of context"
        return f"<{self.name}: {type(self).__name__.lower()} in {what}>"


def _open_part(shards: Shards, name: str, most: int | None) -> np.ndarray:
    """The first symbols of an array on the disk."""
    return open_shard(shards, name)[:most]


def numbered(parts: Sequence[np.ndarray], kinds: np.ndarray) -> list[np.ndarray]:
    """Replace symbols, whole numbers >= 0, by their places in a list of kinds, in few bytes.

    Raises:
        ValueError: if a symbol is not in the list; the first is named.
    """
    kinds = np.asarray(kinds).astype(np.int64)
    size = 1 + max(int(each.max()) for each in (kinds, *parts) if len(each))
    place = np.full(size, len(kinds), np.min_scalar_type(len(kinds)))
    place[kinds], found = np.arange(len(kinds)), []
    for part in parts:
        ids = place[part]
        if (ids == len(kinds)).any():
            strange = part[int(np.argmax(ids == len(kinds)))]
            raise ValueError(f"want symbols among the {len(kinds)} known, got number {strange}")
        found.append(ids.astype(np.min_scalar_type(len(kinds) - 1), copy=False))
    return found
